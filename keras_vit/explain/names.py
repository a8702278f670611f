"""Names of the pictures that a command writes, one per image."""

import os
from collections.abc import Sequence
from pathlib import Path

from keras_vit.errors import InputError

LONGEST = 160  # bytes of a name without its end: file systems allow 255, and writing adds some


def picture_paths(images: Sequence[str | Path], folder: Path, option: str) -> list[Path]:
    """The path of the picture of each image: its name with `.png`, and a number where another has that name.

    Args:
        images: paths of image files.
        folder: of the pictures.
        option: the command's option that names the folder, for the error message.

    Raises:
        InputError: there is such a picture in the folder already.
    """
    taken: set[str] = set()
    paths = []
    for image in images:
        stem = _stem(Path(image))
        name, number = stem, 1
        while name.casefold() in taken:  # some file systems do not tell upper from lower case
            number += 1
            name = f"{stem}-{number}"
        taken.add(name.casefold())
        paths.append(folder / f"{name}.png")
    check_new(paths, option)
    return paths


def check_new(paths: Sequence[Path], option: str) -> None:
    """Raises InputError if there is something at one of these paths.

    Args:
        paths: of files that are to be written.
        option: the command's option that names their folder, for the error message.
    """
    for path in paths:
        if os.path.lexists(path):
            raise InputError(f"There is a {path} already: remove it, or choose another {option}.")


def _stem(image: Path) -> str:
    """The name of a file without its end, short enough, and in UTF-8."""
    encoded = os.fsencode(image.stem or "image")[:LONGEST]
    return encoded.decode("utf-8", "replace").replace("\ufffd", "_")
