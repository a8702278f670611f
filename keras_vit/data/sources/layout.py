"""The classes and parts of images by their folders and file names: the same rules for a folder and a zip."""

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import PurePosixPath

import numpy as np

from keras_vit.data.class_names import class_name, in_order, natural_key, notes_on, same_names
from keras_vit.data.image_set import SPLIT_PARTS, ImageSet
from keras_vit.data.sources.kinds import IMAGE_KINDS, SourceFiles, images_in_words
from keras_vit.data.sources.part_names import part_name
from keras_vit.data.sources.parts import (
    LAYOUTS,
    NEUTRAL_FOLDERS,
    Paths,
    below,
    find_parts,
    name_prefix,
    settle_roles,
    without_unlabeled,
)
from keras_vit.errors import InputError
from keras_vit.text import shown

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

FURNITURE = frozenset(
    {
        "annotations", "annotation", "labels", "label", "xml", "json", "txt", "csv", "meta", "metadata",
        "docs", "doc", "license", "licenses", "scripts", "code", "src", "notebooks", "__pycache__", "models",
        "logs", "splits", "imagesets",
    }
)  # fmt: skip
"""Folders that may be beside class folders without images in them, in lower case."""

MASKS = frozenset({"masks", "mask", "labels", "label", "annotations", "groundtruth", "ground_truth", "gt"})
TABLES = (".csv", ".tsv", ".xlsx", ".xls", ".json", ".jsonl", ".parquet", ".txt", ".xml", ".mat", ".pkl")
"""Suffixes of files that may hold labels, the likeliest first."""
READ_TABLES = (".csv", ".tsv", ".json", ".jsonl", ".parquet", ".txt", ".xml")
"""Those of them that `--data` takes."""

Texts = dict[PurePosixPath, str]
"""The path in the source -> text."""


def arrange(
    files: SourceFiles,
    *,
    is_archive: bool = False,
    classes: Sequence[str] | None = None,
    name: str = "",
    in_groups: bool = False,
) -> ImageSet:
    """Gives each image its class, its part and its position, by its path alone.

    The order: train, validation, test; in a part the classes in natural order; in a class the paths in
    natural order.

    Args:
        files: of the source.
        is_archive: whether the source is a zip: its single top folder is skipped even if only the file names
            give the classes.
        classes: of a run that the images are to judge: one class, or a test part, is then enough.
        name: of the source itself, which may be a class of the run.
        in_groups: whether the folders that hold images are groups of a class, as in
            `scratches/strip12/7.jpg`, if each image has another folder above it.

    Raises:
        InputError: there is no image, only one class, the paths do not give the classes, or do so in two
            ways.
    """
    files.finish()
    if not files.images:
        skipped = f" It holds {files.hold_only(PurePosixPath())}." if files.skipped else ""
        raise InputError(
            f"{files.source} holds no images ({IMAGE_KINDS} are read).{skipped} Put the images of each class "
            "in a folder of their own, named after the class."
        )
    found = None if classes is None else _known_classes(files, classes, name)
    if found is None:
        raw, part_of = _by_layout(files, is_archive, judging=classes is not None, in_groups=in_groups)
    else:
        raw, part_of = found, dict.fromkeys(found, "")
    names = {text: class_name(text, f'The folder or file name "{text}"') for text in set(raw.values())}
    files.notes += notes_on(names)
    class_of = {path: names[text] for path, text in raw.items()}
    class_names = in_order(class_of.values())
    if classes is None:
        _check_classes(files, class_names, class_of, part_of)
    elif len(set(part_of.values())) > 1:
        counts = Counter(part_of.values())
        told = ", ".join(f"{part} ({counts[part]:,})" for part in SPLIT_PARTS if part in counts)
        files.notes.append(f"all parts are read: {told}")
    place = {text: i for i, text in enumerate(class_names)}
    ordered = sorted(
        class_of,
        key=lambda p: (SPLIT_PARTS.index(part_of[p] or "train"), place[class_of[p]], natural_key(str(p))),
    )
    parts = tuple(part_of[path] or "train" for path in ordered)
    return ImageSet(
        source=shown(files.source),
        class_names=class_names,
        images=[files.images[path] for path in ordered],
        names=unique(tuple(shown(path) for path in ordered)),
        labels=np.array([place[class_of[path]] for path in ordered], dtype=np.int64),
        parts=parts if len(set(parts)) > 1 and classes is None else None,
        notes=tuple(files.notes),
    )


def unique(names: tuple[str, ...]) -> tuple[str, ...]:
    """Two names that are escaped to the same text are numbered."""
    if len(set(names)) == len(names):
        return names
    counts = Counter(names)
    return tuple(f"{name} ({i})" if counts[name] > 1 else name for i, name in enumerate(names))


def _by_layout(files: SourceFiles, is_archive: bool, judging: bool, in_groups: bool) -> tuple[Texts, Texts]:
    """path -> name of the class as written; path -> part, empty where there are no parts."""
    inner = _unwrap(files, {path: path for path in files.images}, is_archive)
    # The folders of a class and of a group, and the file; perhaps that of a part above them.
    if in_groups and all(len(short.parts) >= 3 + _is_part(short.parts[0]) for short in inner.values()):
        inner = {path: short.parent.parent / short.name for path, short in inner.items()}
    parts = find_parts(files, inner, judging)
    known = _folder_classes(parts.get("train", {}))
    parts = settle_roles(files, without_unlabeled(files, parts, known))
    class_of: Texts = {}
    for found in parts.values():
        class_of |= _classes(files, found)
    _note_deeper(files, parts)
    folded = {text.lower() for text in class_of.values()}
    if folded & MASKS and folded <= MASKS | NEUTRAL_FOLDERS:
        raise InputError(
            f"{files.source} has images in {_list(class_of.values())}: this looks like images with masks or "
            f"annotations, not like classes. {LAYOUTS}."
        )
    if not judging:
        _check_empty(files, parts)
    return class_of, {path: role for role, found in parts.items() for path in found}


def _unwrap(files: SourceFiles, paths: Paths, is_archive: bool) -> Paths:
    """Removes the top folders that hold everything and therefore have no meaning."""
    where = PurePosixPath()
    while True:
        tops = {short.parts[0] for short in paths.values() if len(short.parts) > 1}
        inner = {path: below(short) for path, short in paths.items() if len(short.parts) > 1}
        if len(tops) != 1 or len(inner) < len(paths):
            return paths
        top = tops.pop()
        beside = {path.name for path in files.folders if path.parent == where} - {top}
        if any(name.lower() not in FURNITURE for name in beside):
            return paths  # an empty folder beside it is a class too
        seconds = {short.parts[0] for short in inner.values() if len(short.parts) > 1}
        if _is_part(top) and not (len(seconds) > 1 and all(map(_is_part, seconds))):
            return paths
        depths = {len(short.parts) for short in inner.values()}
        if depths == {1} and top.lower() in NEUTRAL_FOLDERS:
            return inner
        if 1 in depths:
            # The images are in this one folder: it is a class, unless the file names give the classes.
            prefixes = {name_prefix(short) for short in inner.values()}
            names_tell = None not in prefixes and len(prefixes) > 1
            is_neu = prefixes <= {*NEU_PREFIXES, *NEU_CLASSES}
            return inner if depths == {1} and names_tell and (is_archive or is_neu) else paths
        paths, where = inner, where / top


def _is_part(folder: str) -> bool:
    found = part_name(folder)
    return found is not None and found.is_sure


def _folder_classes(paths: Paths) -> frozenset[str]:
    """The names of class folders, and NEU's short names for them."""
    folders = {short.parts[0] for short in paths.values() if len(short.parts) > 1}
    return frozenset(folders | {short for short, name in NEU_PREFIXES.items() if name in folders})


def _classes(files: SourceFiles, paths: Paths) -> Texts:
    """path -> class name, by the first folder or else by the file name."""
    source = files.source
    loose = [path for path, short in paths.items() if len(short.parts) == 1]
    if not loose:
        return {path: short.parts[0] for path, short in paths.items()}
    if len(loose) < len(paths):
        raise InputError(
            f"{source} has {images_in_words(len(loose))} outside its class folders, the first {min(loose)}. "
            "Move each into the folder of its class, or remove it."
        )
    class_of = {path: prefix for path, short in paths.items() if (prefix := name_prefix(short))}
    if len(class_of) < len(paths):
        raise InputError(
            f"{source} has no class folders, and the file name {min(paths.keys() - class_of.keys())} gives "
            "no class. Put the images of each class in a separate folder, or name the files like "
            f"scratches_1.jpg.{_likely_labels(files)}"
        )
    if set(class_of.values()) <= set(NEU_PREFIXES):
        return {path: NEU_PREFIXES[name] for path, name in class_of.items()}
    if not set(class_of.values()) <= set(NEU_CLASSES):
        files.notes.append(f"the file names give the classes: {_list(class_of.values())}")
    return class_of


def _likely_labels(files: SourceFiles) -> str:
    """A sentence on where the labels of images without class folders may be."""
    for suffix in TABLES:
        if found := files.skipped.get(suffix):
            name = min(found, key=lambda path: (len(path.parts), str(path)))
            fix = (
                f"give it instead: --data {PurePosixPath(files.source) / name}"
                if suffix in READ_TABLES and not files.source.lower().endswith(".zip")
                else "save it as CSV beside the images, and give --data that file"
            )
            return f" {name} may hold the labels: {fix}."
    return " Images without labels are for keras-vit predict, or for --unlabeled of keras-vit train."


def _note_deeper(files: SourceFiles, parts: Mapping[str, Paths]) -> None:
    deeper = [path for found in parts.values() for path, short in found.items() if len(short.parts) > 2]
    if deeper:
        files.notes.append(
            f"{images_in_words(len(deeper))} in folders below the class folders count for the class above "
            f"them, such as {min(deeper)}"
        )


def _check_empty(files: SourceFiles, parts: Mapping[str, Paths]) -> None:
    """Raises InputError where no image is read in a class folder."""
    full = {
        PurePosixPath(*path.parts[: len(path.parts) - len(short.parts) + 1])
        for found in parts.values()
        for path, short in found.items()
        # Not where parts are inside the class folders, whose folders are in another order.
        if len(short.parts) > 1 and path.parts[-len(short.parts) :] == short.parts
    }
    names, parents = {folder.name for folder in full}, {folder.parent for folder in full}
    holds_images = {folder for path in files.images for folder in path.parents}
    empty = [
        folder
        for folder in files.folders
        if folder.parent in parents and folder not in holds_images and folder.name.lower() not in FURNITURE
    ]
    lost = sorted(folder for folder in empty if folder.name not in names)
    if lost:
        told = ", ".join(f"{folder} ({files.hold_only(folder)})" for folder in lost[:5])
        more = f", and {len(lost) - 5} more" if len(lost) > 5 else ""
        raise InputError(
            f"{files.source} has folders in which no image can be read: {told}{more}. Add images of the "
            f"class ({IMAGE_KINDS} are read), or remove the folder."
        )
    part_folders = [
        folder
        for folder in files.folders
        if _is_part(folder.name)
        and folder not in holds_images
        and any(folder.parent == parent.parent and _is_part(parent.name) for parent in parents)
    ]
    for folder in sorted([*empty, *part_folders]):
        files.notes.append(f"no images in the folder {folder}")


def _known_classes(files: SourceFiles, classes: Sequence[str], name: str) -> Texts | None:
    """path -> class that a run knows, by any folder above the image; `None` if some have none."""
    folders = {part for path in files.images for part in path.parts[:-1]}
    known = same_names(folders, classes)
    hits = {
        path: {part for part in path.parts[:-1] if part in known and not _is_part(part)}
        or {part for part in path.parts[:-1] if part in known}
        for path in files.images
    }
    for path, found in hits.items():
        if len({known[part] for part in found}) > 1:
            raise InputError(
                f"{files.source} can be read in two ways: {path} is in folders of two classes of the run "
                f"({_list(found)}). {LAYOUTS}."
            )
    if all(hits.values()):
        _note_without_images(files, known, classes)
        return {path: known[min(found)] for path, found in hits.items()}
    if any(hits.values()):
        return None
    prefixes = {path: name_prefix(path) for path in files.images}
    texts = {NEU_PREFIXES.get(prefix, prefix) for prefix in prefixes.values() if prefix}
    if None not in prefixes.values() and texts <= same_names(texts, classes).keys():
        return None  # by the file names
    own = same_names([name], classes)
    if own and all(len(path.parts) == 1 for path in files.images):
        files.notes.append(f'all images are judged as "{own[name]}", the name of what holds them')
        return dict.fromkeys(files.images, own[name])
    return None


def _note_without_images(files: SourceFiles, known: Mapping[str, str], classes: Sequence[str]) -> None:
    lacking = [text for text in classes if text not in known.values()]
    if lacking:
        files.notes.append(f"no images of {len(lacking)} of the {len(classes)} classes: {_list(lacking)}")


def _check_classes(
    files: SourceFiles, class_names: tuple[str, ...], class_of: Mapping[PurePosixPath, str], part_of: Texts
) -> None:
    source = files.source
    if len(class_names) < 2:
        inside = {path.parent.name for path in class_of}
        deeper = (
            f" If the folders in it are the classes ({_list(inside)}), move them up."
            if len(inside) > 1
            else ""
        )
        raise InputError(
            f'{source} holds only one class, "{class_names[0]}". A classifier needs two or more: add a '
            f"folder with images of another class.{deeper}"
        )
    learned = {class_of[path] for path, part in part_of.items() if part in ("", "train")}
    for path, part in part_of.items():
        if class_of[path] not in learned:
            raise InputError(
                f'{source} has no training images of the class "{class_of[path]}", but {part} images, such '
                f"as {path}. Add some to the train folder, or remove the class."
            )


def _list(names: Iterable[str]) -> str:
    found = sorted(set(names), key=natural_key)
    more = [f"and {len(found) - 10} more"] if len(found) > 10 else []
    return ", ".join([f'"{name}"' for name in found[:10]] + more)
