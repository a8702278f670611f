"""Several labels per image in a table: in one cell, in a column for each label, or in a row for each."""

import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_vit.data.sources.tables.entries import Entry, in_words, places, some
from keras_vit.data.sources.tables.records import text_of
from keras_vit.errors import InputError

SEPARATORS = ("|", ";", ",")
"""Between the labels in a cell, in the order in which they are looked for."""

YES, NO = frozenset({"1", "1.0", "true", "yes", "y"}), frozenset({"0", "0.0", "false", "no", "n"})
"""What the cells of a column for one label hold, in lower case."""


def flag_of(value: Any) -> bool | None:
    """Whether a cell says that an image has a label; `None` if it says neither."""
    text = text_of(value).lower()
    return True if text in YES else False if text in NO else None


def labels_in_list(value: Any) -> list[str] | None:
    """The labels in a list, or in the text of a JSON list; `None` for anything else."""
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return None
    if isinstance(value, Mapping) and set(value) == {"choices"}:
        value = value["choices"]
    if not isinstance(value, list | tuple) or any(isinstance(one, Mapping | list) for one in value):
        return None
    return [text_of(one) for one in value]


def guess_separator(values: Iterable[Any]) -> str | None:
    """What separates the labels in the cells of a column, where they look like several; else `None`.

    They do where each part of each cell with a separator is in another cell too, by itself or with others:
    the parts are then labels that are combined, and not the words of one name.

    Args:
        values: of the cells.
    """
    texts = {text_of(value) for value in values} - {""}
    for separator in SEPARATORS:
        joined = [text for text in texts if separator in text]
        if not joined or len(joined) < 2:
            continue
        cells_with = Counter(part for text in texts for part in set(_split(text, separator)))
        if all(cells_with[part] > 1 for text in joined for part in _split(text, separator)):
            return separator
    return None


def any_separator(values: Iterable[Any]) -> str | None:
    """The first of `SEPARATORS` that is in a cell which is no list."""
    texts = [text_of(value) for value in values if labels_in_list(value) is None]
    return next((separator for separator in SEPARATORS if any(separator in text for text in texts)), None)


def _split(text: str, separator: str) -> list[str]:
    return [part for part in (part.strip() for part in text.split(separator)) if part]


@dataclass
class LabelCells:
    """How the labels of a row are read.

    Args:
        file: for messages.
        column: with several labels in a cell; `None` where each label has a column.
        separator: between the labels in a cell; `None` where there are lists only.
        flags: the columns with 0 and 1, by label.
        is_given: whether the columns were named by the user.

    Attributes:
        untidy: places of cells with a label twice, or with nothing between two separators.
    """

    file: Path
    column: str | None = None
    separator: str | None = None
    flags: Sequence[str] = ()

    def __post_init__(self) -> None:
        self.untidy: list[str] = []

    def read(self, where: str, cells: Mapping[str, Any]) -> tuple[str, ...] | None:
        """The labels of a row; `None` for an empty cell, which does not say that there are none.

        Args:
            where: of the row, for messages.
            cells: by column.

        Raises:
            InputError: a cell says neither yes nor no.
        """
        if self.column is not None:
            return self._in_cell(where, cells[self.column])
        found = []
        for name in self.flags:
            flag = flag_of(cells[name])
            if flag is None:
                text = text_of(cells[name])
                what = f'"{text}"' if text else "nothing"
                raise InputError(
                    f'{self.file} has {what} in the column "{name}" in {where}: a column for one label has 1 '
                    "for the images that have it and 0 for the others (yes and no, true and false)."
                )
            if flag:
                found.append(name.strip())
        return tuple(found)

    def _in_cell(self, where: str, value: Any) -> tuple[str, ...] | None:
        labels = labels_in_list(value)
        if labels is None:
            text = text_of(value)
            if not text:
                return None
            if text.startswith(("[", "{")):
                raise InputError(
                    f"{self.file} has something that is not a JSON list of labels in {where} ({text[:60]}): "
                    'write ["a", "b"], or separate the labels by |.'
                )
            labels = (
                [text] if self.separator is None else [part.strip() for part in text.split(self.separator)]
            )
        kept = tuple(dict.fromkeys(label for label in labels if label))
        if len(kept) < len(labels):
            self.untidy.append(where)
        return kept

    def notes(self) -> list[str]:
        """What is to be said of the cells, after all rows were read."""
        if not self.untidy:
            return []
        return [
            f"{in_words(len(self.untidy), 'row')} with a label twice or an empty one, which count once and "
            f"not at all ({places(self.untidy)})"
        ]


def check_labels(file: Path, entries: Sequence[Entry]) -> None:
    """Raises InputError where a cell does not say which labels an image has."""
    empty = [entry.where for entry in entries if entry.labels is None]
    if empty:
        them = "it" if len(empty) == 1 else "them"
        raise InputError(
            f"{file} has {'no label' if len(empty) == 1 else f'{len(empty):,} rows without a label'} in "
            f"{places(empty)}: fill {them} in, write [] for an image that has none, or remove the rows."
        )


def merge_rows(file: Path, rows: Sequence[tuple[Any, Entry]], notes: list[str]) -> list[Entry]:
    """One entry per image: rows of the same image say its labels together.

    Args:
        file: for messages.
        rows: what tells the image, and the entry.
        notes: gets a line.

    Raises:
        InputError: rows of one image differ in something else.
    """
    of_image: dict[Any, list[Entry]] = defaultdict(list)
    for key, entry in rows:
        of_image[key].append(entry)
    more = 0
    for entries in of_image.values():
        first = entries[0]
        for other in entries[1:]:
            for name in ("part", "group", "weight"):
                values = [getattr(entry, name) for entry in (first, other)]
                if values[0] != values[1]:
                    raise InputError(
                        f'{file} gives {first.path} two values of {name}, "{values[0]}" and "{values[1]}" '
                        f"({places([first.where, other.where])}): keep one of them."
                    )
            more += 1
            first.labels = tuple(dict.fromkeys([*(first.labels or ()), *(other.labels or ())]))
    if more:
        notes.append(f"{in_words(more, 'row')} of an image that has another row: their labels count together")
    return [entries[0] for entries in of_image.values()]


def check_learnable(
    file: Path, class_names: Sequence[str], labels: np.ndarray, parts: Sequence[str], columns: Sequence[str]
) -> None:
    """Refuses labels from which nothing can be learned.

    Args:
        file: for messages.
        class_names: one per label.
        labels: uint8 (n, classes).
        parts: of each image.
        columns: names of labels that have a column, whether an image has them or not.

    Raises:
        InputError: there is one label only, or one that no training image has, or that all have.
    """
    missing = [name for name in columns if name not in class_names]
    if missing:
        raise InputError(
            f"{file} has no image with the label{'s' * (len(missing) > 1)} {some(missing)}: remove the "
            f"column{'s' * (len(missing) > 1)}."
        )
    if len(class_names) < 2:
        only = f' "{class_names[0]}"' if class_names else ""
        raise InputError(
            f"{file} has one label{only}, and several are asked for: write a column label with two classes, "
            "those that have it and those that have not."
        )
    train = np.array([part == "train" for part in parts])
    has_test = not train.all()
    for i, name in enumerate(class_names):
        having = labels[:, i].astype(bool)
        if not having[train].any():
            raise InputError(
                f'{file} has no training images with the label "{name}", but '
                f"{in_words(int(having.sum()), 'other')}: give some of them the part train, or remove the "
                "label."
            )
        if having[train].all():
            raise InputError(
                f'{file} has the label "{name}" for all {"training " * has_test}images, so there is nothing '
                "to tell apart: remove the label, or add images without it."
            )
