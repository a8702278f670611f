"""The images of a folder; links are followed."""

import os
from pathlib import Path, PurePosixPath

from keras_vit.data.image_set import ImageSet
from keras_vit.data.sources.layout import (
    IMAGE_KINDS,
    IMAGE_SUFFIXES,
    arrange,
    check_kinds,
    is_hidden,
    natural_key,
    printable,
)
from keras_vit.errors import InputError


def read_folder(folder: Path) -> ImageSet:
    """The images of a folder as an image set of `Path`s; nothing is opened yet.

    Raises:
        InputError: the folder or one in it cannot be listed, or `layout.arrange` finds no classes.
    """
    files: dict[PurePosixPath, Path] = {}
    _walk(folder, PurePosixPath(), (), files)
    return arrange(str(folder), files)


def list_images(folder: str | Path) -> dict[str, Path]:
    """The image files of a folder and of those in it, by their path in it; classes have no part in this.

    Returns:
        Name -> file, in natural order; at least one. Hidden files and those that are not images are skipped.

    Raises:
        InputError: it is not a folder, cannot be listed, or has no images or some of a kind that is not read.
    """
    root = Path(folder).expanduser()
    if not os.path.isdir(root):
        raise InputError(f"{folder} is not a folder: give the folder that holds the images.")
    files: dict[PurePosixPath, Path] = {}
    _walk(root, PurePosixPath(), (), files)
    check_kinds(str(folder), files)
    found = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(path)]
    if not found:
        raise InputError(f"{folder} holds no images ({IMAGE_KINDS} are read): give a folder that does.")
    return {printable(path): files[path] for path in sorted(found, key=lambda p: natural_key(str(p)))}


def _walk(folder, relative, parents, files):
    here = os.path.realpath(folder)
    if here in parents:  # a link to a folder above it
        return
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                path = relative / entry.name
                if entry.is_dir():
                    _walk(Path(entry.path), path, (*parents, here), files)
                # A broken link is kept, for the audit to name; a pipe would block whatever opens it.
                elif entry.is_file() or entry.is_symlink():
                    files[path] = Path(entry.path)
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be read: {error.strerror}.") from error
