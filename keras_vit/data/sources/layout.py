"""The classes and parts of images by their folders and file names: the same rules for a folder and a zip."""

import re
from collections.abc import Iterable, Mapping
from pathlib import PurePosixPath

import numpy as np

from keras_vit.data.image_set import SPLIT_PARTS, Image, ImageSet
from keras_vit.errors import InputError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp"})
IMAGE_KINDS = "JPEG, PNG, BMP, GIF and WebP"
# Images that cannot be decoded here. Skipping them silently could lose half a class.
UNREAD_SUFFIXES = frozenset({".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".ppm", ".pgm", ".dng"})

# The prefixes of the original file names of NEU (Cr_1.bmp).
NEU_PREFIXES = {
    "Cr": "crazing",
    "In": "inclusion",
    "Pa": "patches",
    "PS": "pitted_surface",
    "RS": "rolled-in_scale",
    "Sc": "scratches",
}
NEU_CLASSES = tuple(sorted(NEU_PREFIXES.values()))

PART_FOLDERS = {
    "train": "train",
    "training": "train",
    "val": "validation",
    "valid": "validation",
    "validation": "validation",
    "test": "test",
    "testing": "test",
}
# A folder with this name between a part and its classes has no meaning: train/images/scratches/1.jpg.
NEUTRAL_FOLDERS = frozenset({"images", "image", "imgs", "img"})

Files = Mapping[PurePosixPath, Image]
Paths = dict[PurePosixPath, PurePosixPath]
"""The path in the source -> the part of it that the rules see."""


def is_hidden(path: PurePosixPath) -> bool:
    """Whether a path belongs to the system or a file manager, not to the images."""
    return any(part.startswith(".") or part in ("__MACOSX", "Thumbs.db") for part in path.parts)


def natural_key(text: str) -> tuple:
    """A sort key that puts `a_2` before `a_10`."""
    pieces = re.split(r"([0-9]+)", text)
    return [int(piece) if i % 2 else piece for i, piece in enumerate(pieces)], text


def printable(path: PurePosixPath) -> str:
    """A path as text, also of a file whose name is not UTF-8."""
    return str(path).encode("utf-8", "backslashreplace").decode()


def check_kinds(source: str, files: Files) -> None:
    """Raises InputError where there are images of a kind that cannot be decoded here."""
    unread = [path for path in files if path.suffix.lower() in UNREAD_SUFFIXES and not is_hidden(path)]
    if unread:
        raise InputError(
            f"{source} holds {_images(len(unread))} of a kind that is not read, the first {min(unread)}. "
            f"{IMAGE_KINDS} are read: convert the others to PNG, or remove them."
        )


def arrange(source: str, files: Files, *, is_archive: bool = False) -> ImageSet:
    """Gives each image its class, its part and its position, by its path alone.

    The order: train, validation, test; in a part the classes by name; in a class the paths in natural order.

    Args:
        source: what the user asked for, for messages.
        files: path relative to the source -> image. Hidden files and files that are not images are skipped.
        is_archive: whether the source is a zip: its single top folder is skipped even if only the file names
            give the classes.

    Raises:
        InputError: there is no image, only one class, or the paths do not give the classes.
    """
    check_kinds(source, files)
    paths = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(path)]
    if not paths:
        raise InputError(
            f"{source} holds no images ({IMAGE_KINDS} are read). Put the images of each class in a folder of "
            "their own, named after the class."
        )
    inner = _unwrap({path: path for path in paths}, is_archive)
    part_of = _parts(source, inner)
    class_of: dict[PurePosixPath, str] = {}
    for part in dict.fromkeys(part_of.values()):
        members = {path: short for path, short in inner.items() if part_of[path] == part}
        class_of |= _classes(source, _inside_part(members) if part else members)

    class_names = tuple(sorted(set(class_of.values())))
    _check_classes(source, class_names, class_of, part_of)
    ordered = sorted(
        paths, key=lambda p: (SPLIT_PARTS.index(part_of[p] or "train"), class_of[p], natural_key(str(p)))
    )
    parts = tuple(part_of[path] or "train" for path in ordered)
    return ImageSet(
        source=source,
        class_names=class_names,
        images=[files[path] for path in ordered],
        names=tuple(printable(path) for path in ordered),
        labels=np.array([class_names.index(class_of[path]) for path in ordered], dtype=np.int64),
        parts=parts if len(set(parts)) > 1 else None,
    )


def _unwrap(paths: Paths, is_archive: bool) -> Paths:
    """Removes the top folders that hold everything and therefore have no meaning."""
    while True:
        tops = {short.parts[0] for short in paths.values() if len(short.parts) > 1}
        inner = {path: _below(short) for path, short in paths.items() if len(short.parts) > 1}
        if len(tops) != 1 or len(inner) < len(paths) or tops.pop().lower() in PART_FOLDERS:
            return paths
        depths = {len(short.parts) for short in inner.values()}
        if 1 in depths:
            # The images are in this one folder: it is a class, unless the file names give the classes.
            prefixes = {_prefix(short) for short in inner.values()}
            names_tell = None not in prefixes and len(prefixes) > 1
            is_neu = prefixes <= {*NEU_PREFIXES, *NEU_CLASSES}
            return inner if depths == {1} and names_tell and (is_archive or is_neu) else paths
        paths = inner


def _below(path: PurePosixPath) -> PurePosixPath:
    """The path below its first folder."""
    return PurePosixPath(*path.parts[1:])


def _parts(source: str, paths: Paths) -> dict[PurePosixPath, str | None]:
    """path -> "train", "validation" or "test"; all `None` if the top folders are not parts."""
    tops = {short.parts[0] if len(short.parts) > 1 else "" for short in paths.values()}
    named = {top for top in tops if top.lower() in PART_FOLDERS}
    has_train = any(PART_FOLDERS[top.lower()] == "train" for top in named)
    if named == tops and not has_train:
        raise InputError(
            f'{source} has the folders {_list(tops)} and no folder "train". Add it, or, if these are '
            "classes, give them other names."
        )
    if named != tops and has_train:
        raise InputError(
            f"{source} has the folders {_list(named)}, and also {_list(tops - named)}. Keep only train, "
            "validation and test folders, or only class folders."
        )
    if named != tops:
        return dict.fromkeys(paths)
    return {path: PART_FOLDERS[short.parts[0].lower()] for path, short in paths.items()}


def _inside_part(paths: Paths) -> Paths:
    """The paths below the folder of the part, and below a neutral folder under it."""
    inner = {path: _below(short) for path, short in paths.items()}
    while all(len(short.parts) > 1 and short.parts[0].lower() in NEUTRAL_FOLDERS for short in inner.values()):
        inner = {path: _below(short) for path, short in inner.items()}
    return inner


def _prefix(path: PurePosixPath) -> str | None:
    """`scratches` of `scratches_7.jpg`."""
    found = re.fullmatch(r"(.+)_[0-9]+", path.stem)
    return found[1] if found else None


def _classes(source: str, paths: Paths) -> dict[PurePosixPath, str]:
    """path -> class name, by the first folder or else by the file name."""
    loose = [path for path, short in paths.items() if len(short.parts) == 1]
    if not loose:
        return {path: short.parts[0] for path, short in paths.items()}
    if len(loose) < len(paths):
        raise InputError(
            f"{source} has {_images(len(loose))} outside its class folders, the first {min(loose)}. Move "
            "each into the folder of its class, or remove it."
        )
    class_of = {}
    for path, short in paths.items():
        if prefix := _prefix(short):
            class_of[path] = prefix
    if len(class_of) < len(paths):
        raise InputError(
            f"{source} has no class folders, and the file name {min(paths.keys() - class_of.keys())} gives "
            "no class. Put the images of each class in a separate folder, or name the files like "
            "scratches_1.jpg."
        )
    if set(class_of.values()) <= set(NEU_PREFIXES):
        class_of = {path: NEU_PREFIXES[name] for path, name in class_of.items()}
    return class_of


def _check_classes(
    source: str,
    class_names: tuple[str, ...],
    class_of: dict[PurePosixPath, str],
    part_of: dict[PurePosixPath, str | None],
) -> None:
    if len(class_names) < 2:
        raise InputError(
            f'{source} holds only one class, "{class_names[0]}". A classifier needs two or more: add a '
            "folder with images of another class."
        )
    learned = {class_of[path] for path, part in part_of.items() if part in (None, "train")}
    for path, part in part_of.items():
        if class_of[path] not in learned:
            raise InputError(
                f'{source} has no training images of the class "{class_of[path]}", but {part} images, such '
                f"as {path}. Add some to the train folder, or remove the class."
            )


def _images(number: int) -> str:
    return f"{number} image{'s' * (number != 1)}"


def _list(names: Iterable[str]) -> str:
    return ", ".join(f'"{name}"' if name else "loose images" for name in sorted(names))
