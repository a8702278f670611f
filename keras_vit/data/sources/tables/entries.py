"""What every kind of table turns into: one entry per labelled image, or per box in one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

NAMED = 5
"""So many lines or names are in a message."""

Box = tuple[float, float, float, float]
"""x and y of the upper left corner, width and height, in pixels."""


@dataclass(frozen=True)
class TableOptions:
    """How tables are read.

    Args:
        crop_boxes: whether each box is an image of its own.
        allow_outside: whether relative paths may leave the folder of the table.
        several_labels: whether an image may have several labels, or none.
        label_columns: the columns that hold the labels; none for those whose names or cells tell.
        is_judging: whether the images only judge a run, whose columns another table need not have.
    """

    crop_boxes: bool = False
    allow_outside: bool = False
    several_labels: bool = False
    label_columns: tuple[str, ...] = ()
    is_judging: bool = False


@dataclass(slots=True)
class Entry:
    """One labelled image, or one box in one, as a table has it.

    Args:
        where: the place in the table, for messages: `"line 7"`.
        path: as written.
        label: as written; empty for none.
        part: as written; empty for none.
        group: empty for none.
        weight: `None` for none.
        box: `None` for the whole image.
        others: where the image may be instead of at `path`, as tools write addresses of their own server.
        cells: all cells of its row, as many as the table has columns.
        labels: as written, where an image may have several; `None` if the table does not say.
    """

    where: str
    path: str
    label: str = ""
    part: str = ""
    group: str = ""
    weight: float | None = None
    box: Box | None = None
    others: tuple[str, ...] = ()
    cells: Sequence[Any] = ()
    labels: tuple[str, ...] | None = None


@dataclass
class Found:
    """What was read from one table.

    Args:
        file: the table, or the folder of several, for messages.
        entries: in the order of the table.
        notes: what the user must know, one line each.
        has_parts, has_groups, has_weights: whether the table has such a column.
        unlabeled_are_left_out: whether entries without a label are work that is not done yet, as in the
            export of a tool for labelling, and no mistake.
        is_folder: whether `file` is a folder.
        columns: the names of the columns; none for an export that is not a table.
        several: whether an image may have several labels: those of `Entry.labels`.
        flags: the columns that are one label each.
    """

    file: Path
    entries: list[Entry] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    has_parts: bool = False
    has_groups: bool = False
    has_weights: bool = False
    unlabeled_are_left_out: bool = False
    is_folder: bool = False
    columns: Sequence[str] = ()
    several: bool = False
    flags: Sequence[str] = ()

    @property
    def root(self) -> Path:
        """The folder that relative paths count from."""
        return self.file if self.is_folder else self.file.parent


def some(texts: Sequence[str]) -> str:
    """Up to `NAMED` texts, and how many more there are."""
    more = f" and {len(texts) - NAMED:,} more" if len(texts) > NAMED else ""
    return ", ".join(texts[:NAMED]) + more


def places(found: Sequence[str]) -> str:
    """`"line 7"`, `"lines 3, 7 and 12 more"`."""
    found = list(dict.fromkeys(found))
    kind = found[0].partition(" ")[0]
    if len(found) == 1 or any(where.partition(" ")[0] != kind for where in found):
        return some(found)
    return f"{_many(kind)} {some([where.partition(' ')[2] for where in found])}"


def in_words(number: int, thing: str) -> str:
    """`"1 row"`, `"2,000 rows"`."""
    return f"{number:,} {thing if number == 1 else _many(thing)}"


def _many(thing: str) -> str:
    return {"box": "boxes", "entry": "entries"}.get(thing, thing + "s")
