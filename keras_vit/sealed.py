"""A JSON file that is bound to the files beside it: it holds their hashes, and one of itself.

A run is one thing. With the weights of another run, or with its class names in another order, it would answer
wrongly and look right.
"""

import hashlib
import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from keras_vit.errors import InputError
from keras_vit.files import open_regular

FILES, SHA256 = "files", "sha256"
"""Keys of the JSON object: name of a file -> its SHA-256; and that of all other entries of the object."""


def sha256_of(path: Path) -> str:
    """SHA-256 of the bytes of a file, hexadecimal.

    Raises:
        InputError: the file is missing or cannot be read.
    """
    try:
        with open_regular(path) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): restore it.") from error


def seal(content: Mapping[str, Any], folder: Path, names: Iterable[str]) -> dict[str, Any]:
    """A JSON object with the hashes of files, and with its own.

    Args:
        content: ready for JSON; an earlier seal is replaced.
        folder: of the files.
        names: of the files; those that do not exist are left out.
    """
    found = {name: sha256_of(folder / name) for name in names if (folder / name).is_file()}
    plain = json.loads(json.dumps(_unsealed(content)))  # as it will be read again
    whole = {**plain, FILES: found}
    return {**whole, SHA256: _digest(whole)}


def check_seal(path: Path, content: Mapping[str, Any], fix: str) -> bool:
    """Whether a JSON object has a seal, which is then checked; earlier versions wrote none.

    Args:
        path: of the JSON file.
        content: of it.
        fix: what to do if it has changed, for the error message.

    Raises:
        InputError: the object is not as it was written.
    """
    if FILES not in content and SHA256 not in content:
        return False
    files = content.get(FILES)
    if not isinstance(files, dict) or content.get(SHA256) != _digest(content):
        raise InputError(f"{path} is damaged (it has changed since it was written): {fix}.")
    return True


def check_file(path: Path, content: Mapping[str, Any], fix: str) -> None:
    """Checks one file beside a sealed JSON file; does nothing where there is no seal, or not of this file.

    Args:
        path: of the file.
        content: of the JSON file.
        fix: what to do if the file has changed, for the error message.

    Raises:
        InputError: the file is missing, or is not the one that was there when the seal was made.
    """
    wanted = content.get(FILES, {}).get(path.name)
    if wanted is None:
        return
    if not path.is_file():
        raise InputError(f"There is no file {path}, which belongs to the others in its folder: {fix}.")
    if sha256_of(path) != wanted:
        raise InputError(
            f"{path} is not the file that belongs to the others in its folder (its sha256 differs): {fix}."
        )


def _unsealed(content: Mapping[str, Any]) -> dict[str, Any]:
    return {key: value for key, value in content.items() if key not in (FILES, SHA256)}


def _digest(content: Mapping[str, Any]) -> str:
    plain = {key: value for key, value in content.items() if key != SHA256}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()
