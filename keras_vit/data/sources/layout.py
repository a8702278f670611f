"""What folders and file names say about the class of an image: the same rules for a folder and a zip."""

import re
from collections.abc import Mapping
from pathlib import PurePosixPath

import numpy as np

from keras_vit.data.image_set import SPLIT_PARTS, Image, ImageSet
from keras_vit.errors import InputError

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".gif", ".webp"})
IMAGE_KINDS = "JPEG, PNG, BMP, GIF and WebP"
# Images too, but nothing here decodes them. To pass over them in silence could lose half a class.
UNREAD_SUFFIXES = frozenset({".tif", ".tiff", ".heic", ".heif", ".avif", ".jp2", ".ppm", ".pgm", ".dng"})

# The prefixes of NEU's own file names (Cr_1.bmp).
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
# A folder of this name between a part and its classes says nothing: train/images/scratches/1.jpg.
NEUTRAL_FOLDERS = frozenset({"images", "image", "imgs", "img"})

Files = Mapping[PurePosixPath, Image]


def is_hidden(path: PurePosixPath) -> bool:
    """Whether a path is what a file manager leaves behind, not what a person put there."""
    return any(part.startswith(".") or part in ("__MACOSX", "Thumbs.db") for part in path.parts)


def natural_key(text: str) -> tuple:
    """Sorts `a_2` before `a_10`."""
    pieces = re.split(r"([0-9]+)", text)
    return [int(piece) if i % 2 else piece for i, piece in enumerate(pieces)], text


def arrange(source: str, files: Files, *, is_archive: bool = False) -> ImageSet:
    """Gives each image its class, its part and its place, by its path alone.

    The order: train, validation, test; in a part the classes by name; in a class the paths in natural order.

    Args:
        source: what the user asked for, for messages.
        files: path relative to the source -> image. Hidden files are passed over, and files that are no
            images.
        is_archive: a zip's single top folder is passed through even where only the file names give the
            classes.

    Raises:
        InputError: no image, one class only, or no class to be seen in the paths.
    """
    unread = [path for path in files if path.suffix.lower() in UNREAD_SUFFIXES and not is_hidden(path)]
    if unread:
        raise InputError(
            f"{source} holds {_images(len(unread))} of a kind that is not read, the first {min(unread)}. "
            f"{IMAGE_KINDS} are read: convert the others to PNG, or take them away."
        )
    paths = [path for path in files if path.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(path)]
    if not paths:
        raise InputError(
            f"{source} holds no image ({IMAGE_KINDS} are read). Put the images of each class in a folder of "
            "their own, named after the class."
        )
    shown = {path: path for path in paths}  # the path of the source -> the path that the rules look at
    shown = _unwrap(shown, is_archive)
    part_of = _parts(source, shown)
    class_of: dict[PurePosixPath, str] = {}
    for part in dict.fromkeys(part_of.values()):
        members = {path: look for path, look in shown.items() if part_of[path] == part}
        class_of |= _classes(source, _inside_part(members) if part else members)

    class_names = tuple(sorted(set(class_of.values())))
    _check_classes(source, class_names, class_of, part_of)
    ordered = sorted(
        paths, key=lambda p: (SPLIT_PARTS.index(part_of[p] or "train"), class_of[p], natural_key(str(p)))
    )
    parts = tuple(part_of[path] for path in ordered)
    return ImageSet(
        source=source,
        class_names=class_names,
        images=[files[path] for path in ordered],
        # A file name that is no UTF-8 still prints.
        names=tuple(str(path).encode("utf-8", "backslashreplace").decode() for path in ordered),
        labels=np.array([class_names.index(class_of[path]) for path in ordered], dtype=np.int64),
        parts=parts if len(set(parts)) > 1 else None,
    )


def _unwrap(shown, is_archive):
    """Without the folders at the top that hold everything and so say nothing."""
    while True:
        tops = {look.parts[0] for look in shown.values() if len(look.parts) > 1}
        inner = {path: PurePosixPath(*look.parts[1:]) for path, look in shown.items() if len(look.parts) > 1}
        if len(tops) != 1 or len(inner) < len(shown) or tops.pop().lower() in PART_FOLDERS:
            return shown
        depths = {len(look.parts) for look in inner.values()}
        if 1 in depths:
            # The images lie in this one folder: a class, unless the file names tell the classes.
            prefixes = {_prefix(look) for look in inner.values()}
            tell = None not in prefixes and len(prefixes) > 1
            is_neu = prefixes <= {*NEU_PREFIXES, *NEU_CLASSES}
            return inner if depths == {1} and tell and (is_archive or is_neu) else shown
        shown = inner


def _parts(source, shown):
    """path -> "train", "validation" or "test"; all None where the top folders are no parts."""
    tops = {look.parts[0] if len(look.parts) > 1 else "" for look in shown.values()}
    named = {top for top in tops if top.lower() in PART_FOLDERS}
    has_train = any(PART_FOLDERS[top.lower()] == "train" for top in named)
    if named == tops and not has_train:
        raise InputError(
            f'{source} has the folders {_list(tops)} and no folder "train". Add it, or, if these are '
            f"classes, "
            "give them other names."
        )
    if named != tops and has_train:
        raise InputError(
            f"{source} has the folders {_list(named)}, and beside them {_list(tops - named)}. Leave "
            "train, validation and test folders only, or class folders only."
        )
    if named != tops:
        return dict.fromkeys(shown)
    return {path: PART_FOLDERS[look.parts[0].lower()] for path, look in shown.items()}


def _inside_part(members):
    """The paths below the part's folder, and below a neutral folder under it."""
    inner = {path: PurePosixPath(*look.parts[1:]) for path, look in members.items()}
    while all(len(look.parts) > 1 and look.parts[0].lower() in NEUTRAL_FOLDERS for look in inner.values()):
        inner = {path: PurePosixPath(*look.parts[1:]) for path, look in inner.items()}
    return inner


def _prefix(look):
    found = re.fullmatch(r"(.+)_[0-9]+", look.stem)
    return found and found[1]


def _classes(source, members):
    """path -> class name, by the first folder or else by the file name."""
    loose = [path for path, look in members.items() if len(look.parts) == 1]
    if not loose:
        return {path: look.parts[0] for path, look in members.items()}
    if len(loose) < len(members):
        raise InputError(
            f"{source} has {_images(len(loose))} beside its class folders, the first {min(loose)}. Move each "
            "into the folder of its class, or take it away."
        )
    class_of = {path: _prefix(look) for path, look in members.items()}
    nameless = [path for path, name in class_of.items() if name is None]
    if nameless:
        raise InputError(
            f"{source} has no class folders, and the file name {min(nameless)} names no class. Put the "
            f"images "
            "of each class in a folder of their own, or name the files like scratches_1.jpg."
        )
    if set(class_of.values()) <= set(NEU_PREFIXES):
        class_of = {path: NEU_PREFIXES[name] for path, name in class_of.items()}
    return class_of


def _check_classes(source, class_names, class_of, part_of):
    if len(class_names) < 2:
        raise InputError(
            f'{source} holds one class only, "{class_names[0]}". A classifier needs two or more: add a '
            f"folder "
            "with images of another class."
        )
    learned = {class_of[path] for path, part in part_of.items() if part in (None, "train")}
    for path, part in part_of.items():
        if class_of[path] not in learned:
            raise InputError(
                f'{source} has no training images of the class "{class_of[path]}", but {part} images, such '
                f"as "
                f"{path}. Add some to the train folder, or take the class away."
            )


def _images(number):
    return f"{number} image{'s' * (number != 1)}"


def _list(names):
    return ", ".join(f'"{name}"' if name else "loose images" for name in sorted(names))
