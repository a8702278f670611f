"""Entries of a table as an image set, after all checks of a table as a whole."""

from collections import Counter, defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_vit.data.class_names import class_name, in_order, natural_key, notes_on
from keras_vit.data.image_set import SPLIT_PARTS, Image, ImageSet
from keras_vit.data.sources.layout import unique
from keras_vit.data.sources.part_names import EVALUATION, part_name
from keras_vit.data.sources.tables.columns import check_pixels
from keras_vit.data.sources.tables.crops import crop
from keras_vit.data.sources.tables.entries import Entry, Found, TableOptions, in_words, places, some
from keras_vit.data.sources.tables.paths import Finder
from keras_vit.data.sources.tables.records import text_of
from keras_vit.data.sources.tables.several import check_labels, check_learnable, merge_rows
from keras_vit.errors import InputError
from keras_vit.text import shown


@dataclass(slots=True)
class Row:
    """An entry whose image was found.

    Args:
        entry: as the table has it.
        place: path of the image, relative to the folder of the table where it is written so.
        part: one of `SPLIT_PARTS`.
        name: of the class.
        names: of the labels, where an image may have several.
    """

    entry: Entry
    place: str
    part: str = "train"
    name: str = ""
    names: tuple[str, ...] = ()


def located(found: Found, options: TableOptions) -> list[Row]:
    """The entries with the paths of their images, and without rows that say the same twice.

    Raises:
        InputError: a path cannot be used, or two rows contradict each other.
    """
    rows = [
        Row(entry, place) for entry, place in zip(found.entries, Finder(found, options).locate(), strict=True)
    ]
    if found.several:
        by_entry = {id(row.entry): row for row in rows}
        keyed = [((row.place, row.entry.box), row.entry) for row in rows]
        return [by_entry[id(entry)] for entry in merge_rows(found.file, keyed, found.notes)]
    first: dict[tuple, Row] = {}
    again: list[str] = []
    kept = []
    for row in rows:
        key = (row.place, row.entry.box)
        before = first.setdefault(key, row)
        if before is row:
            kept.append(row)
            continue
        _check_same(found.file, before.entry, row.entry, options)
        again.append(row.entry.where)
    if again:
        found.notes.append(
            f"{in_words(len(again), 'row')} that repeat{'s' * (len(again) == 1)} another left out "
            f"({places(again)})"
        )
    return kept


def _check_same(file: Path, one: Entry, other: Entry, options: TableOptions) -> None:
    where = places([one.where, other.where])
    if one.label != other.label:
        fix = (
            "keep one of them"
            if one.box is not None or options.crop_boxes
            else "keep one of them, give each object a box in a column bbox, or add --several-labels if an "
            "image may have several"
        )
        raise InputError(
            f'{file} gives {one.path} two labels, "{one.label}" and "{other.label}" ({where}): {fix}.'
        )
    for name in ("part", "group", "weight"):
        values = [getattr(entry, name) for entry in (one, other)]
        if values[0] != values[1]:
            raise InputError(
                f'{file} gives {one.path} two values of {name}, "{values[0]}" and "{values[1]}" ({where}): '
                "keep "
                "one of them."
            )


def assemble(found: Found, options: TableOptions, classes: Sequence[str] | None) -> ImageSet:
    """The image set of a table, in the order that a folder has: part, class, path.

    So the split of a table is that of class folders with the same images, whatever the order of its rows.

    Args:
        found: what was read from the table.
        options: how it is to be read.
        classes: as `load_image_set` takes them.

    Raises:
        InputError: the table cannot be used; the message has the lines.
    """
    file, is_judging = found.file, classes is not None
    if found.unlabeled_are_left_out:
        _leave_out_unlabeled(found)
    if not found.entries:
        raise InputError(f"{file} has no labelled images: label some, and export them again.")
    check_labels(file, found.entries) if found.several else _check_labels(found)
    if options.crop_boxes and all(entry.box is None for entry in found.entries):
        raise InputError(f"{file} has no boxes to crop: omit --crop-boxes.")
    check_pixels(found)
    rows = located(found, options)
    _set_classes(found, rows)
    if found.has_parts:
        _set_parts(found, rows, is_judging)
    class_names = in_order(name for row in rows for name in (row.names if found.several else (row.name,)))
    if not is_judging and not found.several:
        _check_classes(found, rows, class_names)
    position = {name: i for i, name in enumerate(class_names)}
    rows.sort(
        key=lambda row: (
            SPLIT_PARTS.index(row.part),
            0 if found.several else position[row.name],
            natural_key(row.place),
            row.entry.box or (),
        )
    )
    parts = tuple(row.part for row in rows)
    labels = np.array([] if found.several else [position[row.name] for row in rows], dtype=np.int64)
    if found.several:
        labels = np.zeros((len(rows), len(class_names)), np.uint8)
        for i, row in enumerate(rows):
            labels[i, [position[name] for name in row.names]] = 1
        if not is_judging:
            columns = [class_name(name, str(file)) for name in found.flags]
            check_learnable(file, class_names, labels, parts, columns)
    groups, weights = _groups(found, rows), _weights(found, rows)
    images = _images(found, rows)
    return ImageSet(
        source=shown(file),
        class_names=class_names,
        images=images,
        names=unique(_names(rows)),
        labels=labels,
        parts=parts if len(set(parts)) > 1 and not is_judging else None,
        notes=tuple(found.notes),
        groups=groups,
        weights=weights,
        columns=_columns(found, rows),
    )


def listed(found: Found, options: TableOptions) -> dict[str, Image]:
    """The images of a table by their names, in its order, whether they have labels or not.

    Raises:
        InputError: as `assemble`, of paths and boxes.
    """
    check_pixels(found)
    rows: dict[tuple, Row] = {}
    for entry, place in zip(found.entries, Finder(found, options).locate(), strict=True):
        rows.setdefault((place, entry.box), Row(entry, place))
    kept = list(rows.values())
    return dict(zip(unique(_names(kept)), _images(found, kept), strict=True))


def _leave_out_unlabeled(found: Found) -> None:
    without = [entry for entry in found.entries if not (entry.labels if found.several else entry.label)]
    if without:
        left_out = set(map(id, without))
        found.entries = [entry for entry in found.entries if id(entry) not in left_out]
        found.notes.append(
            f"{in_words(len(without), 'image')} without a label, not used, such as {without[0].path}"
        )


def _check_labels(found: Found) -> None:
    empty = [entry.where for entry in found.entries if not entry.label]
    if empty:
        raise InputError(
            f"{found.file} has {'no label' if len(empty) == 1 else f'{len(empty):,} rows without a label'} "
            "in "
            f"{places(empty)}: fill {'it' if len(empty) == 1 else 'them'} in, or remove the rows."
        )


def _set_classes(found: Found, rows: Sequence[Row]) -> None:
    first: dict[str, str] = {}
    for row in rows:
        for text in (row.entry.labels or ()) if found.several else (row.entry.label,):
            first.setdefault(text, row.entry.where)
    names = {text: class_name(text, f"{found.file}, {where},") for text, where in first.items()}
    found.notes += notes_on(names)
    for row in rows:
        if found.several:
            row.names = tuple(dict.fromkeys(names[text] for text in row.entry.labels or ()))
        else:
            row.name = names[row.entry.label]


def _set_parts(found: Found, rows: Sequence[Row], is_judging: bool) -> None:
    """The part of each row by what is written there."""
    wheres: dict[str, list[str]] = defaultdict(list)
    for row in rows:
        wheres[row.entry.part].append(row.entry.where)
    if wheres.keys() == {""}:
        return
    if "" in wheres:
        raise InputError(
            f"{found.file} has no part in {places(wheres[''])}, but in other rows: write train, validation "
            "or "
            "test, or empty the column."
        )
    roles: dict[str, str] = {}
    unknown = []
    for text in wheres:
        told = part_name(text)
        if told and told.is_sure and told.role in (*SPLIT_PARTS, EVALUATION):
            roles[text] = told.role
        else:
            unknown.append(text)
    if unknown:
        if is_judging:
            return
        raise InputError(
            f'{found.file} has the unknown part "{unknown[0]}" in {places(wheres[unknown[0]])}: write train, '
            "validation or test, or rename the column if it holds something else."
        )
    for text, role in roles.items():
        if role == EVALUATION:
            free = [part for part in ("test", "validation") if part not in roles.values()]
            if not free:
                raise InputError(
                    f'{found.file} has the part "{text}" beside validation and test: write one of train, '
                    "validation and test."
                )
            roles[text] = free[0]
            found.notes.append(f'the part "{text}" is taken for the {free[0]} part')
    for row in rows:
        row.part = roles[row.entry.part]
    if is_judging and len(set(roles.values())) > 1:
        counts = Counter(row.part for row in rows)
        told_counts = ", ".join(f"{part} ({counts[part]:,})" for part in SPLIT_PARTS if part in counts)
        found.notes.append(f"all parts are read: {told_counts}")


def _check_classes(found: Found, rows: Sequence[Row], class_names: Sequence[str]) -> None:
    if len(class_names) < 2:
        raise InputError(
            f'{found.file} has only one class, "{class_names[0]}". A classifier needs two or more: add '
            "images of "
            "another class."
        )
    learned = {row.name for row in rows if row.part == "train"}
    for row in rows:
        if row.name not in learned:
            raise InputError(
                f'{found.file} has no training images of the class "{row.name}", but {row.part} images, '
                "such as in "
                f"{row.entry.where}: give some of them the part train, or remove the class."
            )


def _groups(found: Found, rows: Sequence[Row]) -> tuple[str, ...] | None:
    """The group of each row; where the table names none, each image stands alone, with all of its crops."""
    number = sum(row.entry.box is not None for row in rows)
    is_told = found.has_groups and any(row.entry.group for row in rows)
    if not is_told and len({row.place for row in rows}) == len(rows):
        return None
    if not is_told:
        found.notes.append(f"the crops of one file are one group, {in_words(number, 'crop')} in all")
    empty = [row.entry.where for row in rows if not row.entry.group]
    if is_told and empty:
        found.notes.append(f"{in_words(len(empty), 'row')} without a group: each file is a group of its own")
    # Names cannot hold a NUL, so no group of the table has such a name.
    return tuple(row.entry.group or f"\0{row.place}" for row in rows)


def _weights(found: Found, rows: Sequence[Row]) -> np.ndarray | None:
    if not found.has_weights:
        return None
    weights = np.array([row.entry.weight for row in rows], dtype=np.float64)
    if not weights.any():
        raise InputError(f"{found.file} has no weight above 0: give some, or remove the column.")
    return weights


def _columns(found: Found, rows: Sequence[Row]) -> dict[str, tuple[str, ...]] | None:
    """All cells as text, by the names of their columns."""
    if not found.columns:
        return None
    return {name: tuple(text_of(row.entry.cells[i]) for row in rows) for i, name in enumerate(found.columns)}


def _images(found: Found, rows: Sequence[Row]) -> list[Image]:
    paths = [found.root / row.place for row in rows]
    boxes = [row.entry.box for row in rows]
    if not any(boxes):
        return list(paths)
    return list(crop(found.file, paths, boxes, [row.entry.where for row in rows], found.notes))


def _names(rows: Sequence[Row]) -> tuple[str, ...]:
    """The path of each image, and for a crop its number in its image too, by the place of the box."""
    boxes: dict[str, list] = defaultdict(list)
    for row in rows:
        if row.entry.box is not None:
            boxes[row.place].append(row.entry.box)
    number = {place: {box: i for i, box in enumerate(sorted(found), 1)} for place, found in boxes.items()}
    return tuple(
        shown(row.place if row.entry.box is None else f"{row.place}#{number[row.place][row.entry.box]}")
        for row in rows
    )


def merged(folder: Path, tables: Sequence[tuple[str, Found]]) -> Found:
    """Several tables of one folder, each of them a part, as one.

    Args:
        folder: what all paths count from.
        tables: the part, and what was read from its table in a folder below.
    """
    whole = Found(folder, has_parts=True, is_folder=True)
    whole.several = any(found.several for _, found in tables)
    for part, found in tables:
        whole.flags = list(dict.fromkeys([*whole.flags, *found.flags]))
        below = found.file.parent.relative_to(folder).as_posix()
        for entry in found.entries:
            entry.where = f"{below}/{found.file.name}, {entry.where}"
            entry.path = entry.path if Path(entry.path).is_absolute() else f"{below}/{entry.path}"
            entry.part = part
            if whole.several and not found.several:  # each of its images has one label, others have more
                entry.labels = (entry.label,) if entry.label else None
            whole.entries.append(entry)
        whole.notes += [note for note in found.notes if note not in whole.notes]
        whole.unlabeled_are_left_out |= found.unlabeled_are_left_out
    told = some([found.file.relative_to(folder).as_posix() for _, found in tables])
    whole.notes.append(f"the labels and parts are those of {told}")
    return whole
