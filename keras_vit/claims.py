"""What a file of arrays claims to hold, against its bytes: looked at before anything is unpacked.

A zip archive, an HDF5 file and the header of an npz array may promise terabytes in a few bytes. Files of
weights and of features hardly shrink when they are compressed, so what they unpack to is at most some
multiple of their size.
"""

import math
import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np

from keras_vit.errors import InputError
from keras_vit.files import require_regular

FLOOR = 64 * 1024**2  # bytes that any file may unpack to
RATIO = 20  # of larger ones: what they unpack to, by their size
AGAIN = "it is damaged, or made to fill the memory: download or copy it again"


def most_unpacked(packed: int) -> int:
    """The most bytes that a file of `packed` bytes may unpack to."""
    return max(FLOOR, RATIO * packed)


def check_unpacked(path: str | Path, claimed: int, packed: int) -> None:
    """Checks what a file claims to hold.

    Args:
        path: of the file, for the message.
        claimed: bytes that it would unpack to.
        packed: its own bytes.

    Raises:
        InputError: it claims more than `most_unpacked`.
    """
    if claimed > most_unpacked(packed):
        raise InputError(f"{path} claims to hold {_size(claimed)} of data and has {_size(packed)}: {AGAIN}.")


def check_zip(path: Path, archive: zipfile.ZipFile) -> None:
    """Checks what a zip archive unpacks to.

    Raises:
        InputError: it claims more than its bytes can hold.
    """
    check_unpacked(path, sum(member.file_size for member in archive.infolist()), path.stat().st_size)


def check_npz(path: Path) -> None:
    """Checks what an npz file unpacks to, its archive and each of its arrays.

    Raises:
        InputError: it claims more than its bytes can hold.
        OSError: it cannot be read, or is a pipe, a device or a folder.
        zipfile.BadZipFile, ValueError: it is damaged.
    """
    require_regular(path)
    with zipfile.ZipFile(path) as archive:
        check_zip(path, archive)
        for member in archive.infolist():
            with archive.open(member) as file:
                claimed = _bytes_of_npy(file)
            if claimed > member.file_size:
                raise InputError(
                    f"{path} has an array {member.filename} that claims {_size(claimed)} and has "
                    f"{_size(member.file_size)}: {AGAIN}."
                )


def _bytes_of_npy(file: IO[bytes]) -> int:
    version = np.lib.format.read_magic(file)
    read = np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
    shape, _, dtype = read(file)
    if any(size < 0 for size in shape):
        raise ValueError(f"an array has the shape {shape}")
    return 0 if dtype.hasobject else math.prod(shape) * dtype.itemsize


def check_hdf5(path: Path, file: Any, packed: int | None = None) -> tuple[int, int]:
    """Checks what an HDF5 file unpacks to.

    Args:
        path: of the file, for the message.
        file: the open `h5py.File`.
        packed: bytes of the file; by default those of `path`.

    Returns:
        The number of its arrays, and that of the values in them.

    Raises:
        InputError: it claims more than its bytes can hold, or takes data from other files.
    """
    import h5py

    sizes: list[tuple[int, int]] = []  # values, bytes per value

    def add(name: str | bytes, entry: Any) -> None:
        if isinstance(entry, h5py.Dataset):
            if entry.external or entry.is_virtual:
                raise InputError(
                    f"{path} takes {name!r} from another file: save the weights in one file, and give that."
                )
            sizes.append((math.prod(entry.shape) if entry.shape is not None else 0, entry.dtype.itemsize))

    file.visititems(add)
    claimed = sum(values * each for values, each in sizes)
    check_unpacked(path, claimed, path.stat().st_size if packed is None else packed)
    return len(sizes), sum(values for values, _ in sizes)


def _size(count: int) -> str:
    power = min(len(str(count)) - 1, 14) // 3
    return f"{count / 1000**power:.3g} {('bytes', 'kB', 'MB', 'GB', 'TB')[power]}"
