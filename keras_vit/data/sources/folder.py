"""The images of a folder; links are followed."""

import errno
import os
import stat
from collections.abc import Sequence
from pathlib import Path, PurePosixPath

from keras_vit.data.class_names import natural_key
from keras_vit.data.image_set import ImageSet
from keras_vit.data.sources.kinds import HEAD_BYTES, IMAGE_KINDS, IMAGE_SUFFIXES, SourceFiles, is_hidden
from keras_vit.data.sources.layout import arrange
from keras_vit.errors import InputError
from keras_vit.files import read_bytes
from keras_vit.text import shown


def read_folder(folder: Path, classes: Sequence[str] | None = None, in_groups: bool = False) -> ImageSet:
    """The images of a folder as an image set of `Path`s; of most files only the name is read.

    Args:
        folder: the folder.
        classes: as `load_image_set` takes them.
        in_groups: as `arrange` takes it.

    Raises:
        InputError: the folder or one in it cannot be listed, a folder is in it twice by links, or
            `layout.arrange` finds no classes.
    """
    name = Path(os.path.abspath(folder)).name
    return arrange(files_of(folder, once=True), classes=classes, name=name, in_groups=in_groups)


def list_images(folder: str | Path) -> tuple[dict[str, Path], tuple[str, ...]]:
    """The image files of a folder and of those in it, by their path in it; classes have no part in this.

    Returns:
        Name -> file, in natural order, at least one; and what was left out, one line each.

    Raises:
        InputError: it is not a folder, cannot be listed, or has no images or some of a kind that is not read.
    """
    root = Path(folder).expanduser()
    if not os.path.isdir(root):
        raise InputError(f"{folder} is not a folder: give the folder that holds the images.")
    files = files_of(root, once=False)
    files.finish()
    if not files.images:
        raise InputError(f"{folder} holds no images ({IMAGE_KINDS} are read): give a folder that does.")
    ordered = sorted(files.images, key=lambda path: natural_key(str(path)))
    return {shown(path): files.images[path] for path in ordered}, tuple(files.notes)  # type: ignore[misc]


def files_of(root: Path, once: bool) -> SourceFiles:
    """The files of a folder and of those in it.

    Args:
        root: the folder.
        once: whether a folder that is in it a second time, by a link, is an error: its images would count
            twice, perhaps in two classes. Otherwise it is left out.
    """
    files = SourceFiles(str(root))
    seen = {_identity(root): PurePosixPath()}
    # A list, not a recursion: folders may be nested as deeply as the system allows.
    waiting: list[tuple[Path, PurePosixPath]] = [(root, PurePosixPath())]
    while waiting:
        folder, relative = waiting.pop()
        for entry in _entries(folder):
            path = relative / entry.name
            kind = _kind(entry)
            if kind == stat.S_IFDIR:
                if is_hidden(path):
                    continue
                here = _identity(entry.path)
                if here in seen:
                    _check_again(files, path, seen[here], once)
                    continue
                seen[here] = path
                files.folders.add(path)
                waiting.append((Path(entry.path), path))
            # A broken link is kept, for the audit to name.
            elif kind == stat.S_IFREG or (kind is None and path.suffix.lower() in IMAGE_SUFFIXES):
                add_file(files, path, Path(entry.path))
            elif not is_hidden(path):
                files.skipped["broken link" if kind is None else "pipe, socket or device"].append(path)
    return files


def _entries(folder: Path) -> list[os.DirEntry]:
    try:
        with os.scandir(folder) as entries:
            return sorted(entries, key=lambda entry: entry.name)
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be read: {error.strerror}.") from error


def _kind(entry: os.DirEntry) -> int | None:
    """The kind of file behind all links; `None` where they lead nowhere."""
    try:
        return stat.S_IFMT(entry.stat().st_mode)
    except OSError as error:
        if error.errno in (errno.ENOENT, errno.ELOOP, errno.ENOTDIR):
            return None
        return stat.S_IFREG  # for the audit to name


def _identity(folder: str | Path) -> str | tuple[int, int]:
    found = os.stat(folder)
    return (found.st_dev, found.st_ino) if found.st_ino else os.path.realpath(folder)


def _check_again(files: SourceFiles, path: PurePosixPath, first: PurePosixPath, once: bool) -> None:
    if once and first not in path.parents and first != PurePosixPath():
        raise InputError(
            f"{files.source} holds one folder twice, as {first} and as {path}: its images would count twice. "
            "Remove one of the links."
        )
    files.notes.append(
        f"not followed: {path} is a link to {'the folder itself' if not first.parts else first}"
    )


def add_file(files: SourceFiles, path: PurePosixPath, file: Path) -> None:
    """Sorts in one file, which is at `path` in the source."""

    def head() -> bytes:
        try:
            return read_bytes(file, HEAD_BYTES, first=HEAD_BYTES)
        except OSError:
            return b""

    files.add(path, lambda: file, head)
