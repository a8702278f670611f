"""The user's cache folder: what can be computed again, kept between runs.

The environment variable KERAS_VIT_CACHE names the folder; by default it is `keras_vit` in the cache folder of
the system. KERAS_VIT_CACHE_GB is its largest size, by default 5. Files that were not used for the longest
time are removed first. A lock keeps processes that share the folder apart.
"""

import contextlib
import os
import re
import shutil
from collections.abc import Iterator, Sequence
from hashlib import sha256
from pathlib import Path

import numpy as np
import platformdirs

from keras_vit.claims import check_npz
from keras_vit.errors import InputError
from keras_vit.files import read_bytes, whole_file
from keras_vit.locks import locked

FOLDER, SIZE = "KERAS_VIT_CACHE", "KERAS_VIT_CACHE_GB"
DEFAULT_GB = 5.0
LOCK = "lock"
WAIT_SECONDS = 60.0
HASH_BYTES = 32
CACHED, NAME_LENGTH = re.compile(r"[0-9a-f]{64}\.npz"), 68
COMPILED, PROGRAM = "compiled", re.compile(r"[\w.-]+\.[0-9a-f]{64}")
"""The folder of the programs that compilers made, and the names there: see `process/compiled.py`."""
TORCH_GRAPHS = "keras_vit_torch_graphs"
"""The folder of the graphs that torch compiled: `model/torch_graphs.py`. It is removed as a whole, so nobody
else gives this name: a user may name a folder with a `torch` of others in it."""
IMAGE_BYTES = 512 * 1024**2
"""The most that one image file may have: far above what the largest image of the package takes."""


def cache_folder() -> Path:
    """The folder, which need not exist."""
    named = os.environ.get(FOLDER)
    if named:
        return Path(named).expanduser()
    return platformdirs.user_cache_path("keras_vit", appauthor=False)


def largest_bytes() -> int:
    """How large the folder may become.

    Raises:
        InputError: KERAS_VIT_CACHE_GB is not a number of gigabytes, 0 or more.
    """
    text = os.environ.get(SIZE, "")
    try:
        gigabytes = float(text) if text else DEFAULT_GB
    except ValueError:
        gigabytes = -1.0
    if not 0 <= gigabytes < float("inf"):
        raise InputError(f"{SIZE} must be a number of gigabytes, 0 or more. Received: {text!r}")
    return int(gigabytes * 1e9)


@contextlib.contextmanager
def cache_lock(folder: Path) -> Iterator[None]:
    """Makes the folder and keeps other processes out of it for as long as the block runs.

    What processes left that were killed while they wrote is removed.

    Raises:
        InputError: the folder cannot be made, or another process keeps it for a minute.
    """
    busy = f"Another process keeps the cache {folder} locked"
    with locked(folder / LOCK, busy, f"folder with {FOLDER}", WAIT_SECONDS) as lock:
        for path in folder.glob("*.new"):
            name = path.name[:NAME_LENGTH]
            if CACHED.fullmatch(name):  # others that may be in a folder that the user named are left alone
                lock.clear(folder, name)
        yield


class RowCache:
    """Rows of numbers by a hash of what they were computed from, in one file of the cache folder.

    A damaged file counts as empty. Where the folder cannot be used, nothing is kept.

    Args:
        name: of the file, without a suffix: a hash of everything else that the rows depend on.
    """

    def __init__(self, name: str):
        self.path = cache_folder() / f"{name}.npz"

    def read(self) -> dict[str, np.ndarray]:
        """All rows, float32 (width,), by hash."""
        try:
            check_npz(self.path)
            # Opened here, because np.load leaves a damaged file open.
            with open(self.path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                hashes, rows = file["hashes"], file["rows"]
        except Exception:  # zipfile and numpy raise exceptions of many types
            return {}
        if hashes.shape != (len(rows), HASH_BYTES) or rows.ndim != 2:
            return {}
        with contextlib.suppress(OSError):  # a folder may be for reading only
            os.utime(self.path)  # it was used now
        return {value.tobytes().hex(): row for value, row in zip(hashes, rows, strict=True)}

    def add(self, rows: dict[str, np.ndarray]) -> None:
        """Keeps more rows, and then removes the oldest files of the folder if it is too large.

        Args:
            rows: float32 (width,) by hash, 64 hexadecimal digits; one or more.

        Raises:
            InputError: as `cache_lock`.
        """
        with cache_lock(self.path.parent):
            width = len(next(iter(rows.values())))
            known = {key: row for key, row in self.read().items() if len(row) == width} | rows
            hashes = np.array([list(bytes.fromhex(key)) for key in known], "uint8")
            with whole_file(self.path, "wb") as file:
                np.savez(file, hashes=hashes, rows=np.stack(list(known.values())).astype("float32"))
            evict(cached_files(self.path.parent), largest_bytes())


def clear_cache() -> tuple[int, int]:
    """Removes everything in the cache folder.

    Returns:
        The number of files, and their bytes.
    """
    folder = cache_folder()
    if not folder.is_dir():
        return 0, 0
    with cache_lock(folder):
        files, size = all_files(folder)
        for path in cached_files(folder):
            path.unlink(missing_ok=True)
        shutil.rmtree(folder / TORCH_GRAPHS, ignore_errors=True)
    return files, size


def all_files(folder: Path) -> tuple[int, int]:
    """The number of files that are kept, and their bytes."""
    files = [*cached_files(folder), *(path for path in (folder / TORCH_GRAPHS).rglob("*") if path.is_file())]
    return len(files), sum(path.stat().st_size for path in files)


def cached_files(folder: Path) -> list[Path]:
    """The files that this package keeps in the folder, those not used for the longest time first.

    Others that may be in a folder that the user named are left alone.
    """
    found = [path for path in folder.glob("*.npz") if CACHED.fullmatch(path.name)]
    return sorted([*found, *compiled_files(folder / COMPILED)], key=lambda path: path.stat().st_mtime)


def compiled_files(folder: Path) -> list[Path]:
    """The compiled programs in a folder and those in it, those not used for the longest time first."""
    found = [path for path in folder.glob("**/*") if PROGRAM.fullmatch(path.name) and path.is_file()]
    return sorted(found, key=lambda path: path.stat().st_mtime)


def program_name(path: Path) -> tuple[str, str]:
    """The name of a compiled program as its library knows it, and the SHA-256 of its content."""
    name, _, digest = path.name.rpartition(".")
    return name, digest


def evict(files: Sequence[Path], most: int) -> None:
    """Removes the first of some files until the others have no more than so many bytes together."""
    size = sum(path.stat().st_size for path in files)
    for path in files:
        if size <= most:
            return
        size -= path.stat().st_size
        path.unlink(missing_ok=True)


def hash_of(*parts: bytes | str) -> str:
    """SHA-256 of texts and bytes, each told from the next; hexadecimal."""
    digest = sha256()
    for part in parts:
        data = part.encode() if isinstance(part, str) else part
        digest.update(len(data).to_bytes(8, "little"))
        digest.update(data)
    return digest.hexdigest()


def image_hashes(images: Sequence[Path | bytes | np.ndarray]) -> list[str]:
    """A hash of the content of each image: the bytes of a file, or the pixels with their shape and type.

    Raises:
        InputError: a file cannot be read.
    """
    return [_image_hash(image) for image in images]


def _image_hash(image: Path | bytes | np.ndarray) -> str:
    if isinstance(image, np.ndarray):
        return hash_of(f"{image.shape} {image.dtype}", np.ascontiguousarray(image).tobytes())
    if isinstance(image, bytes):
        return hash_of("file", image)
    try:
        return hash_of("file", read_bytes(image, IMAGE_BYTES))
    except OSError as error:
        raise InputError(f"{image} cannot be read ({error.strerror}): restore it.") from error
