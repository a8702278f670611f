"""The secret of a search, which its chief and its workers share by a file that only their user can read."""

import contextlib
import hashlib
import hmac
import os
import secrets
import stat
from pathlib import Path

from keras_vit.files import read_bytes

TOKEN = "token"
"""The file in the folder of the search."""

BYTES = 32


def make_token(folder: Path) -> bytes:
    """The secret of a search, made if there is none that was kept from others.

    Raises:
        OSError: it cannot be written.
    """
    found = read_token(folder)
    if found is not None and not _is_open(folder / TOKEN):
        return found
    (folder / TOKEN).unlink(missing_ok=True)
    new = secrets.token_hex(BYTES)
    handle = os.open(folder / TOKEN, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o600)
    with open(handle, "w") as file:
        file.write(new)
    return new.encode()


def read_token(folder: Path) -> bytes | None:
    """The secret of a search; `None` if there is none yet."""
    try:
        found = read_bytes(folder / TOKEN, 4 * BYTES)
    except OSError:
        return None
    return found if len(found) == 2 * BYTES else None


def remove_token(folder: Path) -> None:
    """Removes the secret of a search that is over."""
    with contextlib.suppress(OSError):
        (folder / TOKEN).unlink()


def sign(token: bytes, purpose: str, content: bytes) -> str:
    """A signature of some bytes, which nobody can make without the secret.

    Args:
        token: the secret.
        purpose: what the bytes are for, so that one kind of message cannot stand for another.
        content: the bytes.
    """
    return hmac.new(token, purpose.encode() + b"\0" + content, hashlib.sha256).hexdigest()


def is_signed(token: bytes | None, purpose: str, content: bytes, signature: object) -> bool:
    """Whether `sign` gave this signature."""
    if token is None or not isinstance(signature, str) or not signature.isascii():
        return False
    return hmac.compare_digest(sign(token, purpose, content), signature)


def _is_open(path: Path) -> bool:
    """Whether another user may read a file, as far as this system tells."""
    return os.name == "posix" and bool(stat.S_IMODE(path.stat().st_mode) & 0o077)
