"""Which column of a table holds what."""

import json
import math
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_vit.data.sources.part_names import part_name
from keras_vit.data.sources.tables.entries import Box, Entry, Found, TableOptions, places, some
from keras_vit.data.sources.tables.records import Records, is_image_name, text_of
from keras_vit.data.sources.tables.several import (
    LabelCells,
    any_separator,
    flag_of,
    guess_separator,
    labels_in_list,
)
from keras_vit.errors import InputError

PATHS = (
    "path", "file_path", "filepath", "image_path", "img_path", "filename", "file_name", "file", "files",
    "image_file", "image_name", "img_name", "image", "images", "img", "picture", "photo", "image_id",
    "img_id", "imageid", "uri", "image_url", "url", "src", "name", "id",
)  # fmt: skip
LABELS = (
    "label", "labels", "class", "classes", "class_name", "classname", "class_label", "label_name", "category",
    "category_name", "target", "y", "species", "breed", "diagnosis", "defect", "defect_type", "choice", "tag",
    "level", "ground_truth", "gt", "class_id", "classid", "category_id", "label_id",
)  # fmt: skip
PARTS = ("part", "split", "subset", "partition", "set", "usage", "phase", "data_set", "dataset")
SURE_PARTS = ("part", "split")
GROUPS = ("group", "groups", "group_id")
WEIGHTS = ("weight", "weights", "sample_weight")
BOXES = ("bbox", "box", "bounding_box")
SIDES = (
    (("xmin", "ymin", "xmax", "ymax"), True),
    (("x_min", "y_min", "x_max", "y_max"), True),
    (("x1", "y1", "x2", "y2"), True),
    (("x", "y", "w", "h"), False),
    (("x", "y", "width", "height"), False),
    (("bbox_x", "bbox_y", "bbox_width", "bbox_height"), False),
    (("bbox_x", "bbox_y", "bbox_w", "bbox_h"), False),
)
"""Four columns that are a box, and whether the last two are its other corner."""


def _key(name: str) -> str:
    return re.sub(r"[\W_]+", "_", re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name)).strip("_").lower()


class Columns:
    """The columns of a table by what they hold.

    Args:
        file: for messages.
        records: of it.
        options: how it is to be read.
        needs_label: whether a table without labels is an error.

    Attributes:
        notes: what was guessed, one line each.
    """

    def __init__(self, file: Path, records: Records, options: TableOptions, needs_label: bool = True):
        self.file, self.records, self.options = file, records, options
        self.notes: list[str] = []
        self.place = {name: i for i, name in enumerate(records.columns)}
        self.by_key: dict[str, str] = {}
        for name in records.columns:
            self.by_key.setdefault(_key(name), name)
        self.used: set[str] = set()
        self.group = self._named(GROUPS, "group")
        self.part = self._part()
        self.weight = self._named(WEIGHTS, "weight")
        self.box = self._named(BOXES, "box")
        self.sides: tuple[Sequence[str], bool] | None = None
        if self.box is None and options.crop_boxes:
            self.sides = self._four_sides()
        given = self._given(options.label_columns)
        self.path = self._path()
        self.one_hot: list[str] = []
        self.several: LabelCells | None = None
        self.label = self._given_labels(given) if given else self._label(needs_label)
        unused = [name for name in records.columns if name not in self.used]
        if unused:
            self.notes.append(f"columns that are not used: {some(unused)}")

    def _cells(self, name: str) -> list[Any]:
        place = self.place[name]
        return [row[place] for _, row in self.records.rows]

    def _take(self, name: str, meaning: str, is_sure: bool) -> str:
        self.used.add(name)
        if not is_sure:
            self.notes.append(f'the column "{name}" is taken for the {meaning}')
        return name

    def _named(self, keys: Sequence[str], meaning: str) -> str | None:
        for key in keys:
            name = self.by_key.get(key)
            if name is not None and name not in self.used:
                return self._take(name, meaning, is_sure=key == keys[0])
        return None

    def _part(self) -> str | None:
        for key in PARTS:
            name = self.by_key.get(key)
            if name is None or name in self.used:
                continue
            texts = {text_of(cell) for cell in self._cells(name)} - {""}
            fits = all((found := part_name(text)) and found.is_sure for text in texts)
            if key not in SURE_PARTS and not (texts and fits):
                continue
            return self._take(name, "part", is_sure=key == "part")
        return None

    def _four_sides(self) -> tuple[Sequence[str], bool]:
        for keys, are_corners in SIDES:
            if all(key in self.by_key for key in keys):
                names = [self.by_key[key] for key in keys]
                self.used |= set(names)
                self.notes.append(f"the columns {some(names)} are taken for the box")
                return names, are_corners
        raise InputError(
            f"{self.file} has no boxes to crop: add a column bbox with x,y,w,h in pixels, or omit "
            "--crop-boxes."
        )

    def _path(self) -> str:
        name = self._named(PATHS, "path")
        if name is not None:
            return name
        for name in self.records.columns:
            cells = [text_of(cell) for cell in self._cells(name)[:100]]
            if name not in self.used and 2 * sum(map(is_image_name, cells)) > len(cells):
                return self._take(name, "path", is_sure=False)
        raise InputError(
            f"{self.file} has no column with the path of each image. It has: {some(self.records.columns)}. "
            "Call "
            "the columns path and label."
        )

    def _given(self, wanted: Sequence[str]) -> list[str]:
        """The columns that the user names for the labels, so that they are taken for nothing else."""
        given = []
        for text in wanted:
            name = text if text in self.place else self.by_key.get(_key(text))
            if name is None and self.options.is_judging:
                return []
            if name is None:
                raise InputError(
                    f'{self.file} has no column "{text}" for --label-columns. It has: '
                    f"{some(self.records.columns)}."
                )
            if name in given:
                raise InputError(f'--label-columns names the column "{name}" twice: name it once.')
            if name in self.used:
                raise InputError(
                    f'{self.file} has a column "{name}" that is the part, group, weight or box of an image: '
                    "rename it, or leave it out of --label-columns."
                )
            given.append(name)
        self.used |= set(given)
        return given

    def _given_labels(self, given: list[str]) -> str | None:
        if len(given) > 1:
            self.several = LabelCells(self.file, flags=given)
            return None
        if all(flag_of(cell) is not None for cell in self._cells(given[0])):
            raise InputError(
                f'{self.file} has one label in the column "{given[0]}", 0 or 1: that is a plain column of '
                "two classes: call it label, and omit --label-columns."
            )
        return self._several_in(given[0])

    def _several_in(self, name: str) -> str:
        """A column whose cells hold several labels."""
        separator = any_separator(self._cells(name))
        if separator is not None:
            self.notes.append(f'the labels in the column "{name}" are separated by "{separator}"')
        self.several = LabelCells(self.file, name, separator)
        return name

    def _looks_several(self, name: str) -> LabelCells | None:
        """How several labels are read from a column, where its cells tell that they are several."""
        cells = self._cells(name)
        if any(len(labels_in_list(cell) or ()) > 1 for cell in cells):
            self.notes.append(f'the lists in the column "{name}" are several labels per image')
            return LabelCells(self.file, name)
        separator = guess_separator(cells)
        if separator is None:
            return None
        self.notes.append(
            f'the column "{name}" is taken for several labels per image, separated by "{separator}"'
        )
        return LabelCells(self.file, name, separator)

    def _label(self, needed: bool) -> str | None:
        name = self._named(LABELS, "label")
        left = [name for name in self.records.columns if name not in self.used]
        flags = [name for name in left if all(flag_of(cell) is not None for cell in self._cells(name))]
        if name is None and len(left) == 1:
            name = self._take(left[0], "label", is_sure=False)
        if name is not None:
            if self.options.several_labels:
                return self._several_in(name)
            self.several = self._looks_several(name)
            return name
        if len(flags) > 1:
            self.used |= set(flags)
            places = [self.place[name] for name in flags]
            ones = {sum(bool(flag_of(row[place])) for place in places) for _, row in self.records.rows}
            if self.options.several_labels or ones != {1}:
                self.several = LabelCells(self.file, flags=flags)
                self.notes.append(f"the columns {some(flags)} are taken for labels, several per image")
            else:
                self.one_hot = flags
                self.notes.append(f"the columns {some(flags)} are taken for the classes")
            return None
        if needed:
            raise InputError(
                f"{self.file} has no column with the label of each image. It has: "
                f"{some(self.records.columns)}. Call the columns path and label."
            )
        return None

    def found(self) -> Found:
        """The entries of the table.

        Raises:
            InputError: a cell cannot be used; the message has the line.
        """
        entries = [self._entry(where, row) for where, row in self.records.rows]
        return Found(
            self.file,
            entries,
            [*self.records.notes, *self.notes, *(self.several.notes() if self.several else ())],
            has_parts=self.part is not None,
            has_groups=self.group is not None,
            has_weights=self.weight is not None,
            columns=self.records.columns,
            several=self.several is not None,
            flags=self.several.flags if self.several else (),
        )

    def _entry(self, where: str, row: list[Any]) -> Entry:
        def cell(name):
            return None if name is None else row[self.place[name]]

        return Entry(
            where,
            self._path_of(where, cell(self.path)),
            self._label_of(where, row),
            text_of(cell(self.part)),
            text_of(cell(self.group)),
            None if self.weight is None else self._weight_of(where, cell(self.weight)),
            self._box_of(where, row),
            cells=row,
            labels=self.several.read(where, self._by_name(row)) if self.several else None,
        )

    def _by_name(self, row: list[Any]) -> dict[str, Any]:
        return dict(zip(self.records.columns, row, strict=True))

    def _path_of(self, where: str, value: Any) -> str:
        if isinstance(value, Mapping):  # how the datasets library keeps an image
            value = value.get("path") if value.get("bytes") is None else value
        if isinstance(value, Mapping | bytes):
            raise InputError(
                f"{self.file} holds the images themselves ({where}): save them as files, and give a table "
                "with "
                "their paths."
            )
        return text_of(value)

    def _label_of(self, where: str, row: list[Any]) -> str:
        if self.several is not None:
            return ""
        if not self.one_hot:
            return one_label(self.file, where, None if self.label is None else row[self.place[self.label]])
        return next(name.strip() for name in self.one_hot if flag_of(row[self.place[name]]))

    def _weight_of(self, where: str, value: Any) -> float:
        text = text_of(value)
        try:
            weight = float(text.replace(",", ".") if "," in text and "." not in text else text)
        except ValueError:
            weight = math.nan
        if not (math.isfinite(weight) and weight >= 0):
            raise InputError(
                f'{self.file} has the weight "{text}" in {where}: a weight is a number, 0 or more.'
            )
        return weight

    def _box_of(self, where: str, row: list[Any]) -> Box | None:
        if self.sides is not None:
            names, are_corners = self.sides
            values: Any = [row[self.place[name]] for name in names]
            if all(text_of(value) == "" for value in values):
                return None
            return box_of(self.file, where, values, are_corners)
        if self.box is None:
            return None
        value = row[self.place[self.box]]
        return None if value in (None, [], "") else box_of(self.file, where, value)


def one_label(file: Path, where: str, value: Any) -> str:
    """The label in a cell: text, or a list or JSON list of one text.

    Raises:
        InputError: there are several.
    """
    if isinstance(value, str) and value.lstrip().startswith(("[", "{")):
        try:
            value = json.loads(value)
        except (ValueError, RecursionError):
            return text_of(value)
    if isinstance(value, Mapping) and set(value) == {"choices"}:
        value = value["choices"]
    if isinstance(value, list):
        if len(value) > 1:
            raise InputError(
                f"{file} gives {len(value)} labels to the image in {where} "
                f"({some([text_of(v) for v in value])}): "
                "keep one of them."
            )
        value = value[0] if value else None
    if isinstance(value, Mapping):
        raise InputError(f"{file} has an object in place of the label in {where}: a label is a text.")
    return text_of(value)


def box_of(file: Path, where: str, value: Any, are_corners: bool = False) -> Box:
    """A box from `"x,y,w,h"`, `[x, y, w, h]` or four values.

    Args:
        file, where: for messages.
        value: as the table has it.
        are_corners: whether the last two values are the other corner, not width and height.

    Raises:
        InputError: it is not a box of pixels.
    """
    if isinstance(value, str):
        value = re.split(r"[\s,;]+", value.strip().strip("[]()").strip())
    try:
        x, y, w, h = (float(number) for number in value)
    except (TypeError, ValueError):
        raise InputError(
            f"{file} has a box in {where} that is not x,y,w,h in pixels: {text_of(value)[:80]!r}."
        ) from None
    if are_corners:
        w, h = w - x, h - y
    if not all(map(math.isfinite, (x, y, w, h))) or w <= 0 or h <= 0:
        raise InputError(
            f"{file} has a box without an area in {where} ({x:g}, {y:g}, {w:g}, {h:g}): width and height "
            "must be "
            "more than 0."
        )
    return (x, y, w, h)


def check_pixels(found: Found) -> None:
    """Raises InputError where all boxes are so small that they must be fractions of the image."""
    boxes = [entry for entry in found.entries if entry.box is not None]
    if boxes and all(max(entry.box) <= 1 for entry in boxes if entry.box):
        raise InputError(
            f"{found.file} has boxes of less than one pixel ({places([entry.where for entry in boxes])}): "
            "give "
            "x,y,w,h in pixels, not in fractions of the image."
        )
