"""The images of a folder; links are followed."""

import os
from pathlib import Path, PurePosixPath

from keras_vit.data.image_set import ImageSet
from keras_vit.data.sources.layout import arrange
from keras_vit.errors import InputError


def read_folder(folder: Path) -> ImageSet:
    """The images of a folder as an image set of `Path`s; nothing is opened yet.

    Raises:
        InputError: the folder or one in it cannot be listed, or `layout.arrange` finds no classes.
    """
    files: dict[PurePosixPath, Path] = {}
    _walk(folder, PurePosixPath(), (), files)
    return arrange(str(folder), files)


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
