"""Which images a run is asked about: files, folders, patterns, zips and tables, without labels."""

import fnmatch
import glob
import logging
import os
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import NamedTuple

from keras_vit.data.class_names import natural_key
from keras_vit.data.image_set import Image
from keras_vit.data.sources import images_of_table, is_table
from keras_vit.data.sources.archive import ZipMember, files_of_zip
from keras_vit.data.sources.folder import add_file, files_of
from keras_vit.data.sources.kinds import IMAGE_KINDS, SourceFiles
from keras_vit.errors import InputError
from keras_vit.text import shown

LOGGER = logging.getLogger(__name__)

Source = Image | ZipMember
"""An image as it is listed: a member of a zip is read when its turn comes."""


class Listed(NamedTuple):
    """One image.

    Args:
        name: what its `Prediction` is called: the path as it was given, or that in a table.
        image: the file, its bytes, or the member of a zip.
    """

    name: str
    image: Source


@dataclass(frozen=True)
class HowListed:
    """What else says which images are meant.

    Args:
        crop_boxes, allow_outside: how tables are read, see `load_image_set`.
        leave_out: folders of which nothing is taken: those that the command itself fills.
        may_be_empty: whether a folder or a pattern without images is fine.
    """

    crop_boxes: bool = False
    allow_outside: bool = False
    leave_out: Sequence[Path] = ()
    may_be_empty: bool = False


def list_images(
    given: Sequence[str | Path], class_names: Sequence[str], how: HowListed | None = None
) -> list[Listed]:
    """The images that are given, in this order; those of a folder, a pattern and a zip in natural order.

    A folder and a zip are read as training reads them, but for the classes: hidden files are left out, links
    are followed once, and the log has one line on what is skipped. A pattern has `*`, `?` or `[...]`, and
    `**` for any folders; a file of such a name is that file. Images that are given twice are listed twice.

    Args:
        given: paths of image files, folders, zips and tables, and patterns.
        class_names: of the run.
        how: what else says which images are meant.

    Raises:
        InputError: a folder, a zip or a table cannot be used, or has no images.
    """
    how = how or HowListed()
    left_out = [os.path.realpath(folder) for folder in how.leave_out]
    found: list[Listed] = []
    for path in map(Path, given):
        found += (item for item in _images_of(path, class_names, how) if not _is_in(item.image, left_out))
    return found


def is_pattern(path: str | Path) -> bool:
    """Whether a path is a pattern; a file or folder of that name is none."""
    return glob.has_magic(str(path)) and not os.path.lexists(path)


def is_many(path: str | Path) -> bool:
    """Whether a path is a folder, a pattern or a zip, of any number of images."""
    return is_pattern(path) or _is_zip(Path(path)) or os.path.isdir(path)


def _images_of(path: Path, class_names: Sequence[str], how: HowListed) -> Iterable[Listed]:
    if is_pattern(path):
        return _named(*_files_of_pattern(path), how)
    if os.path.isdir(path):
        return _named(path, files_of(path, once=False), how)
    if _is_zip(path):
        return _named(path, files_of_zip(path), how)
    if is_table(path):
        images = images_of_table(path, class_names, how.crop_boxes, how.allow_outside)
        return (Listed(name, image) for name, image in images.items())
    return [Listed(str(path), path)]


def _named(root: str | Path, files: SourceFiles, how: HowListed) -> Iterator[Listed]:
    files.finish(unread_too=True)
    for note in files.notes:
        LOGGER.warning("%s: %s.", shown(files.source), shown(note))
    if not files.images and not how.may_be_empty:
        skipped = f" It holds {files.hold_only(PurePosixPath())}." if files.skipped else ""
        raise InputError(
            f"{files.source} holds no images ({IMAGE_KINDS} are read).{skipped} Give a folder, a zip or a "
            "pattern that does."
        )
    for inner in sorted(files.images, key=lambda inner: natural_key(str(inner))):
        yield Listed(os.path.join(root, inner), files.images[inner])


def _is_zip(path: Path) -> bool:
    return path.suffix.lower() == ".zip" and os.path.isfile(path)


def _is_in(image: Source, folders: Sequence[str]) -> bool:
    if not folders or not isinstance(image, Path):
        return False
    here = os.path.realpath(image.parent)
    return any(here == folder or here.startswith(folder + os.sep) for folder in folders)


def _files_of_pattern(pattern: Path) -> tuple[Path, SourceFiles]:
    """The fixed beginning of a pattern and the files below it that it names.

    Unlike those of `glob`, they end where links make a circle of folders.
    """
    parts = pattern.parts
    fixed = next(i for i, part in enumerate(parts) if glob.has_magic(part))
    root, wanted = Path(*parts[:fixed]), parts[fixed:]
    files = SourceFiles(str(pattern))
    if not os.path.isdir(root):
        return root, files
    if "**" in wanted:
        below = files_of(root, once=False)
        found = [*below.images, *below.unread, *(path for paths in below.skipped.values() for path in paths)]
        inner = [path for path in found if _matches(path.parts, wanted)]
        files.notes += [note for note in below.notes if note.startswith("not followed")]
    else:
        matched = [Path(path) for path in glob.iglob(str(pattern)) if not os.path.isdir(path)]
        inner = [PurePosixPath(path.relative_to(root)) for path in matched]
    for path in sorted(inner):
        add_file(files, path, root / path)
    return root, files


def _matches(names: Sequence[str], wanted: Sequence[str]) -> bool:
    """Whether the parts of a path fit those of a pattern."""
    if not wanted or not names:
        return not wanted and not names
    if wanted[0] != "**":
        return fnmatch.fnmatchcase(names[0], wanted[0]) and _matches(names[1:], wanted[1:])
    return len(wanted) == 1 or any(_matches(names[i:], wanted[1:]) for i in range(len(names)))
