"""What a person decided on images, from `fixes.csv`: keep, relabel or drop. No file of the user changes.

The page of `keras-vit audit` writes it: `keras_vit.report.labelling`.
"""

import dataclasses
import difflib
from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_vit.data.class_names import same_names
from keras_vit.data.image_set import ImageSet
from keras_vit.data.origin import content_hash
from keras_vit.data.sources.tables.entries import in_words, places, some
from keras_vit.data.sources.tables.records import Records, read_delimited
from keras_vit.data.targets import counts_of, label_text, names_from_json
from keras_vit.errors import InputError
from keras_vit.files import text_of_cell
from keras_vit.text import shown

COLUMNS = ("path", "sha256", "action", "label")
KEEP, RELABEL, DROP = ACTIONS = ("keep", "relabel", "drop")

Fix = Mapping[str, str]
"""A row: the entries of `COLUMNS`."""


def read_fixes(path: str | Path) -> list[dict[str, str]]:
    """The rows of a file of fixes: the entries of `COLUMNS`, and `where` they are, such as `"line 7"`.

    Raises:
        InputError: the file cannot be read, has other columns, or a row is not complete.
    """
    path = Path(path).expanduser()
    try:
        records = read_delimited(path)
    except ValueError as error:  # a NUL in its name
        if isinstance(error, InputError):
            raise
        raise InputError(f"{shown(path)} cannot be read: {error}.") from error
    if sorted(records.columns) != sorted(COLUMNS):
        raise InputError(
            f"{path} must have the columns {', '.join(COLUMNS)}, as the page of keras-vit audit writes them. "
            f"It has {', '.join(map(shown, records.columns))}."
        )
    rows = [_row(path, where, records, cells) for where, cells in records.rows]
    for key, number in Counter((row["path"], row["sha256"]) for row in rows).items():
        if number > 1:
            lines = [row["where"] for row in rows if (row["path"], row["sha256"]) == key]
            raise InputError(f"{path} has {key[0]} in {places(lines)}: leave one of these lines.")
    return rows


def _row(path: Path, where: str, records: Records, cells: Sequence[Any]) -> dict[str, str]:
    row = {name: text_of_cell(str(cell)) for name, cell in zip(records.columns, cells, strict=True)}
    row |= {name: row[name].strip() for name in COLUMNS[1:]}
    if not row["path"]:
        raise InputError(f"{path} has no path in {where}: give it, or remove the line.")
    if row["action"] not in ACTIONS:
        near = difflib.get_close_matches(row["action"].lower(), ACTIONS, 1)
        raise InputError(
            f"{path} has the action {row['action']!r} in {where}, and an action is keep, relabel or drop"
            f"{f': did you mean {near[0]}?' if near else '.'}"
        )
    if row["action"] == RELABEL and not row["label"]:
        raise InputError(f"{path} relabels {row['path']} without a label in {where}: give it a label.")
    return {**row, "where": where}


def with_fixes(
    image_set: ImageSet, fixes: str | Path | Sequence[Fix] | None, classes: Sequence[str] | None = None
) -> ImageSet:
    """The image set without the images that were dropped, and with the new labels of those relabelled.

    Args:
        image_set: as its source has it.
        fixes: a file, whose images must all be there; or the rows that a run has recorded, of which images
            may have other names now, or be gone. `None` for none.
        classes: of the run that the images are to judge, which are classes too; `None` for images to train
            on, where a class that has no images any more is left out.

    Raises:
        InputError: the file cannot be used with these images.
    """
    if fixes is None:
        return image_set
    if isinstance(fixes, str | Path):
        rows, file = read_fixes(fixes), Path(fixes).expanduser()
        found = _by_path(image_set, rows, file)
    else:
        known = _by_content(image_set, fixes)
        rows = [{"where": "", **fix} for fix, i in zip(fixes, known, strict=True) if i is not None]
        found, file = [i for i in known if i is not None], None
    labels, class_names = _relabelled(image_set, rows, found, file, classes)
    dropped = {i for row, i in zip(rows, found, strict=True) if row["action"] == DROP}
    left = [i for i in range(len(image_set)) if i not in dropped]
    if not left:
        raise InputError(f"{file or 'The fixes'} drops all images of {image_set.source}: keep some of them.")
    number = Counter(row["action"] for row in rows)
    said = f"{number[KEEP]} kept, {number[RELABEL]} relabelled, {number[DROP]} dropped"
    notes = [f"{file or 'the fixes of the run'}: {in_words(len(rows), 'image')} looked at, {said}"]
    fixed = dataclasses.replace(image_set, labels=labels, class_names=class_names).take(left)
    if classes is None:
        fixed, gone = _without_empty_classes(fixed, image_set)
        notes += [f"no image of {some(gone)} is left, so it is no class any more"] if gone else []
    kept = tuple({name: row[name] for name in COLUMNS} for row in rows)
    return dataclasses.replace(fixed, notes=(*image_set.notes, *notes), fixes=(*image_set.fixes, *kept))


def _by_path(image_set: ImageSet, rows: Sequence[Fix], file: Path) -> list[int]:
    """The position of the image of each row, which must be there and must not have changed."""
    places_of = defaultdict(list)  # names that are shown alike may be of several images
    for i, name in enumerate(image_set.names):
        places_of[shown(name)].append(i)
    unknown, changed, found = [], [], []
    for row in rows:
        there = places_of.get(row["path"], [])
        same = [i for i in there if content_hash(image_set.images[i]) == row["sha256"]]
        if not there:
            unknown.append(row)
        elif not same:
            changed.append(row)
        found += same[:1]
    if unknown:
        is_are = "is" if len(unknown) == 1 else "are"
        raise InputError(
            f"{file} names {in_words(len(unknown), 'image')} that {is_are} not in {image_set.source} "
            f"({_told(unknown)}): give the fixes of these images, or remove the lines."
        )
    if changed:
        has = "has" if len(changed) == 1 else "have"
        raise InputError(
            f"{in_words(len(changed), 'image')} of {file} {has} changed since a person looked at it "
            f"({_told(changed)}; the sha256 differs): look at it again, or remove the lines."
        )
    return found


def _told(rows: Sequence[Fix]) -> str:
    return some([f"{row['where']}: {row['path']}" for row in rows])


def _by_content(image_set: ImageSet, rows: Sequence[Fix]) -> list[int | None]:
    """The position of the image of each row, which may have another name now; `None` for one that is gone."""
    hashes = [content_hash(image) for image in image_set.images]
    named = {
        (shown(name), digest): i for i, (name, digest) in enumerate(zip(image_set.names, hashes, strict=True))
    }
    found = [named.get((row["path"], row["sha256"])) for row in rows]
    free = defaultdict(list)
    for i in sorted(set(range(len(hashes))) - set(found), reverse=True):
        free[hashes[i]].append(i)
    return [
        free[row["sha256"]].pop() if i is None and free[row["sha256"]] else i
        for row, i in zip(rows, found, strict=True)
    ]


def _relabelled(
    image_set: ImageSet,
    rows: Sequence[Fix],
    found: Sequence[int],
    file: Path | None,
    classes: Sequence[str] | None,
) -> tuple[np.ndarray, tuple[str, ...]]:
    """The labels of all images, and the names of the classes."""
    names = list(image_set.class_names)
    known = same_names(classes or (), names)
    names += [name for name in classes or () if name not in known]
    labels = image_set.labels.copy()
    if image_set.several and len(names) > labels.shape[1]:
        labels = np.pad(labels, [(0, 0), (0, len(names) - labels.shape[1])])
    place = {shown(name): i for i, name in reversed(list(enumerate(names)))}
    place |= {shown(name): names.index(other) for name, other in known.items() if shown(name) not in place}
    for row, i in zip(rows, found, strict=True):
        if row["action"] == DROP or not row["label"]:
            continue
        wanted = _places_of_labels(row, place, image_set.several, file)
        if row["action"] == KEEP:
            _check_kept(row, image_set, i, wanted, file)
        elif image_set.several:
            labels[i] = 0
            labels[i, wanted] = 1
        else:
            labels[i] = wanted[0]
    return labels, tuple(names)


def _places_of_labels(row: Fix, place: Mapping[str, int], several: bool, file: Path | None) -> list[int]:
    try:
        names = names_from_json(row["label"]) if several else [row["label"]]
    except InputError as error:
        raise InputError(
            f"{file} has in {row['where']} a label of which {error}, as images that may have several need: "
            'write ["a", "b"].'
        ) from None
    for name in names:
        if name not in place:
            near = difflib.get_close_matches(name, place, 1)
            more = f"did you mean {near[0]!r}?" if near else f"the classes are {some(list(place))}."
            raise InputError(
                f"{file or 'The run'} has the label {name!r} in {row['where'] or row['path']}, which is not "
                f"a class of these images: {more}"
            )
    return [place[name] for name in names]


def _check_kept(row: Fix, image_set: ImageSet, i: int, wanted: Sequence[int], file: Path | None) -> None:
    """Raises InputError where a person has kept a label that the image does not have."""
    label = image_set.labels[i]
    has = np.flatnonzero(label).tolist() if image_set.several else [int(label)]
    if file is not None and sorted(wanted) != has:
        text = label_text(image_set.labels, i, image_set.class_names)
        raise InputError(
            f"{file} keeps the label {row['label']!r} of {row['path']} in {row['where']}, and its label is "
            f"{text!r}: write relabel, or look at it again."
        )


def _without_empty_classes(fixed: ImageSet, before: ImageSet) -> tuple[ImageSet, list[str]]:
    """The image set without the classes that have lost their last image, and their names."""
    counts = counts_of(fixed.labels, len(fixed.class_names))
    had = counts_of(before.labels, len(before.class_names))
    gone = [i for i in range(len(had)) if had[i] and not counts[i]]
    stay = [i for i in range(len(counts)) if i not in gone]
    if not gone:
        return fixed, []
    labels = fixed.labels[:, stay] if fixed.several else np.searchsorted(stay, fixed.labels).astype(np.int64)
    names = tuple(fixed.class_names[i] for i in stay)
    return dataclasses.replace(fixed, labels=labels, class_names=names), [fixed.class_names[i] for i in gone]
