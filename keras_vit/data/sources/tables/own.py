"""The `images.csv` of a run or a search as a source: the same images, labels and parts again."""

import dataclasses
from collections import Counter, defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path

from keras_vit.data.class_names import in_order
from keras_vit.data.image_set import SPLIT_PARTS, ImageSet
from keras_vit.data.origin import COLUMNS, IMAGES, content_hash, find_root
from keras_vit.data.sources.tables.entries import TableOptions, in_words, some
from keras_vit.data.targets import labels_of_texts, names_from_json
from keras_vit.errors import InputError
from keras_vit.files import read_json, read_table
from keras_vit.text import shown

CONFIGS = ("config.json", "search.json")
"""What is beside the table of a run, and of a search."""


def is_own(path: Path) -> bool:
    """Whether a table is the `images.csv` of the run or the search in whose folder it is."""
    return path.name == IMAGES and any((path.parent / name).is_file() for name in CONFIGS)


def read_own(
    path: Path,
    classes: Sequence[str] | None,
    options: TableOptions,
    load: Callable[[str | None, Sequence[str], TableOptions], ImageSet],
) -> ImageSet:
    """The images of a run, in its order, with its labels and parts.

    The paths in the table are names in the data of the run. Images that were renamed since are found by their
    content. A label that was corrected in the table counts.

    Args:
        path: of the `images.csv`.
        classes: as `load_image_set` takes them.
        options: how tables are read, beside what the run has recorded.
        load: reads the data of the run.

    Raises:
        InputError: the table is damaged, or images are gone or have changed.
    """
    rows = _rows(path)
    config = _config(path)
    settings = config["train"]
    names = config["data"].get("class_names") or ()
    several = bool(config["data"].get("several_labels"))
    options = dataclasses.replace(
        options,
        crop_boxes=options.crop_boxes or bool(settings.get("crop_boxes")),
        allow_outside=True,  # the run has read them before
        several_labels=several,
        label_columns=tuple(settings.get("label_columns") or ()),
    )
    source = load(find_root(config, path.parent), tuple(names), options)
    kept = [row for row in rows if row["part"] in SPLIT_PARTS]
    if not kept:
        raise InputError(
            f"{path} has no images of the parts train, validation and test: train the run again."
        )
    positions = _positions(path, source, kept)
    notes = [f"the images are those of {source.source}", *source.notes]
    for part, number in Counter(row["part"] for row in rows).items():
        if part not in SPLIT_PARTS:
            more = ": add --unlabeled again" if part == "unlabeled" else ""
            notes.append(f"{in_words(number, 'image')} of the part {part}, not used{more}")
    if not any(row["part"] == "validation" for row in kept) and classes is None:
        notes.append(
            "the run had no validation part, so one is drawn of its training images, unless "
            + (
                "--merge-validation is given"
                if settings.get("merge_validation")
                else "--validation-fraction is 0"
            )
        )
    if settings.get("ordered") and classes is None:
        notes.append(f"the run had ordered classes: add --ordered {settings['ordered']} to have them again")
    labels = [row["label"] for row in kept]
    found = [name for label in labels for name in _names(path, label)] if several else labels
    known = {shown(name): name for name in names}
    class_names = [*names, *in_order(name for name in found if name not in known)]
    return dataclasses.replace(
        source.take(positions),
        source=shown(path),
        class_names=tuple(class_names),
        names=tuple(row["path"] for row in kept),
        labels=labels_of_texts(labels, class_names, several),
        parts=tuple(row["part"] for row in kept) if classes is None else None,
        notes=tuple(notes),
    )


def _names(path: Path, label: str) -> list[str]:
    try:
        return names_from_json(label)
    except InputError as error:
        raise InputError(f"{path} is damaged, {error}: restore it, or train the run again.") from error


def _rows(path: Path) -> list[dict[str, str]]:
    fix = "restore it, or train the run again"
    try:
        rows = read_table(path)
    except InputError as error:
        raise InputError(f"{path} is damaged ({error}): {fix}.") from error
    if not rows or tuple(rows[0]) != COLUMNS:
        raise InputError(f"{path} is damaged, it does not have the columns {', '.join(COLUMNS)}: {fix}.")
    for number, row in enumerate(rows, 2):
        allowed = (*SPLIT_PARTS, "unlabeled", "unreadable")
        if row["part"] not in allowed:
            raise InputError(
                f"{path} is damaged in line {number}, its part is not one of {', '.join(allowed)}: {fix}."
            )
        if row["part"] in SPLIT_PARTS and not (row["label"] and row["path"]):
            raise InputError(f"{path} is damaged in line {number}, it has no path or no label: {fix}.")
    return rows


def _config(path: Path) -> dict:
    """The settings of a run, or of a search in the form of a run."""
    file = next(path.parent / name for name in CONFIGS if (path.parent / name).is_file())
    found = read_json(file)
    settings = found.get("train", found.get("asked")) if isinstance(found, dict) else None
    if not isinstance(settings, dict) or not isinstance(found.get("data"), dict):
        raise InputError(f"{file} is damaged, it does not say where the images are: restore it.")
    return {"train": {"data": None, **settings}, "data": found["data"]}


def _positions(path: Path, source: ImageSet, rows: Sequence[dict[str, str]]) -> list[int]:
    """Where each row's image is in the data: under its name, or else by its content."""
    hashes = [content_hash(image) for image in source.images]
    position = {shown(name): i for i, name in enumerate(source.names)}
    found: list[int | None] = []
    for row in rows:
        i = position.get(row["path"])
        found.append(i if i is not None and hashes[i] == row["sha256"] else None)
    taken = set(found)
    free = defaultdict(list)
    for i in reversed(range(len(source))):
        if i not in taken:
            free[hashes[i]].append(i)
    lost = []
    for number, row in enumerate(rows):
        if found[number] is None and free[row["sha256"]]:
            found[number] = free[row["sha256"]].pop()
        if found[number] is None:
            lost.append(row["path"])
    if lost:
        raise InputError(
            f"{path} names {in_words(len(lost), 'image')} that {'is' if len(lost) == 1 else 'are'} gone or "
            "changed "
            f"in {source.source} ({some(lost)}): restore {'it' if len(lost) == 1 else 'them'}, or remove "
            "the rows."
        )
    return [i for i in found if i is not None]
