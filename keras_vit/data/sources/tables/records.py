"""Rows and columns of a table, whatever file they are in; all cells are text or come from JSON.

The csv module of Python and not pandas: labels stay the text that they are (001, NA, 1 and 1.0), and each row
knows its line for messages.
"""

import csv
import io
import json
import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path, PurePosixPath
from typing import Any

from keras_vit.data.sources.kinds import IMAGE_SUFFIXES, UNREAD_SUFFIXES
from keras_vit.data.sources.tables.entries import in_words
from keras_vit.data.sources.tables.text import read_text
from keras_vit.errors import InputError

DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "vertical bars"}
SAMPLE = 100
"""So many rows tell the delimiter."""

ROWS = 10_000_000
"""The most rows of a Parquet file."""


@dataclass
class Records:
    """The rows of a table.

    Args:
        columns: their names.
        rows: the place in the file, such as `"line 7"`, and the cells, as many as columns.
        notes: what the user must know, one line each.
    """

    columns: list[str]
    rows: list[tuple[str, list[Any]]]
    notes: list[str] = field(default_factory=list)


def read_delimited(path: Path) -> Records:
    """The rows of a CSV or TSV file.

    The delimiter is the one that gives most rows the same number of cells. A first row with the name of an
    image file is no header.

    Raises:
        InputError: it is not such a file; the message has the line.
    """
    notes: list[str] = []
    text = read_text(path, notes)
    usual = "\t" if path.suffix.lower() == ".tsv" else ","
    skip, delimiter = 0, None
    if told := re.match(r"sep=(.)\r?\n", text):  # for Excel
        delimiter, skip = told[1], 1
        text = text[told.end() :]
    if delimiter is None:
        delimiter = _delimiter(text, usual)
        if delimiter != usual:
            notes.append(f"read with {DELIMITERS[delimiter]} between the cells")
    rows = _rows(path, text, delimiter, skip)
    header = [cell.strip() for cell in rows[0][1]]
    if any(is_image_name(cell) for cell in header):
        if len(header) < 2:
            raise InputError(
                f"{path} has one column and no labels: add a column with the class of each image."
            )
        named = ["path", "label"] if is_image_name(header[0]) else ["label", "path"]
        columns = named + [f"column {i + 1}" for i in range(2, len(header))]
        notes.append(f"no header: the first column is the {named[0]}, the second the {named[1]}")
    else:
        columns, rows = _column_names(path, header), rows[1:]
    return Records(columns, _full(path, columns, rows, notes), notes)


def is_image_name(text: str) -> bool:
    """Whether a text is the name of an image file, by its suffix."""
    return PurePosixPath(text.strip()).suffix.lower() in IMAGE_SUFFIXES | UNREAD_SUFFIXES


def _delimiter(text: str, usual: str) -> str:
    def fits(delimiter):
        try:
            lines = csv.reader(io.StringIO(text[: 2**20], newline=""), delimiter=delimiter)
            widths = [len(row) for row in islice(lines, SAMPLE) if row]
        except csv.Error:
            return 0, 0, 0
        if not widths or widths[0] < 2:
            return 0, 0, 0
        return Counter(widths)[widths[0]] / len(widths), widths[0], delimiter == usual

    return max((usual, *(found for found in DELIMITERS if found != usual)), key=fits)


def _rows(path: Path, text: str, delimiter: str, skip: int) -> list[tuple[str, list[str]]]:
    rows, line = [], skip + 1
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    try:
        for row in reader:
            if any(cell.strip() for cell in row):
                rows.append((f"line {line}", row))
            line = skip + reader.line_num + 1
    except csv.Error as error:
        what = {
            "unexpected end of data": "a quotation mark that is not closed",
        }.get(str(error), f"a cell that cannot be read ({error})")
        raise InputError(f"{path} has {what}, in the row that begins in line {line}: correct it.") from error
    if not rows:
        raise InputError(f"{path} has no rows: give a table with a row for each image.")
    return rows


def _column_names(path: Path, header: Sequence[str]) -> list[str]:
    names = [name or f"column {i + 1}" for i, name in enumerate(header)]
    for name, count in Counter(names).items():
        if count > 1:
            raise InputError(f'{path} has {count} columns with the name "{name}": rename all but one.')
    return names


def _full(path, columns, rows, notes):
    """The rows with as many cells as there are columns."""
    while (
        columns
        and columns[-1].startswith("column ")
        and all(len(row) < len(columns) or not row[len(columns) - 1].strip() for _, row in rows)
    ):
        columns.pop()  # each line ends with a delimiter
    width, full = len(columns), []
    for where, row in rows:
        if len(row) > width:
            if any(cell.strip() for cell in row[width:]):
                raise InputError(
                    f"{path} has {in_words(len(row), 'cell')} in {where}, but {in_words(width, 'column')}: "
                    "put "
                    "a text that holds the delimiter in quotation marks."
                )
            row = row[:width]
        full.append((where, row + [""] * (width - len(row))))
    if not full:
        raise InputError(f"{path} has a header and no rows: give a table with a row for each image.")
    return full


def read_json_lines(path: Path) -> Records:
    """The rows of a file with a JSON object per line.

    Raises:
        InputError: a line is not a JSON object.
    """
    notes: list[str] = []
    found = []
    for number, line in enumerate(read_text(path, notes).split("\n"), 1):
        if line.strip():
            found.append((f"line {number}", parsed(path, line, f"in line {number}")))
    return records_of(path, found, notes)


def parsed(path: Path, text: str, where: str = "") -> Any:
    """The value of a JSON text.

    Raises:
        InputError: it is not JSON.
    """
    try:
        return json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(
            f"{path} is not JSON{f' {where}' if where else ''} ({error}): correct it."
        ) from error


def records_of(path: Path, found: Sequence[tuple[str, Any]], notes: list[str]) -> Records:
    """Objects of JSON as rows: a column per key.

    Raises:
        InputError: one of them is not an object.
    """
    columns: dict[str, None] = {}
    for where, row in found:
        if not isinstance(row, dict):
            raise InputError(
                f"{path} has no JSON object in {where}: each row must be one, with path and label."
            )
        columns |= dict.fromkeys(row)
    if not columns:
        raise InputError(f"{path} has no rows: give a table with a row for each image.")
    rows = [(where, [row.get(name) for name in columns]) for where, row in found]
    return Records(list(columns), rows, notes)


def read_parquet(path: Path) -> Records:
    """The rows of a Parquet file.

    Raises:
        InputError: pyarrow is not installed, or the file is damaged.
    """
    try:
        from pyarrow import ArrowException, parquet
    except ImportError as error:
        raise InputError(
            f'{path} needs pyarrow: pip install "keras-vit-defects[tables]", or save the table as CSV. '
            f"({error})"
        ) from error
    try:
        with parquet.ParquetFile(path) as file:
            if file.metadata.num_rows > ROWS:
                raise InputError(f"{path} has more than {ROWS:,} rows: give a smaller table.")
            table = file.read()
    except (ArrowException, OSError, ValueError) as error:
        raise InputError(f"{path} is not a Parquet file, or it is damaged ({error}).") from error
    names = _column_names(path, table.column_names)
    values = [column.to_pylist() for column in table.columns]
    rows = [(f"row {i + 1}", list(row)) for i, row in enumerate(zip(*values, strict=True))]
    if not rows:
        raise InputError(f"{path} has no rows: give a table with a row for each image.")
    return Records(names, rows)


def text_of(value: Any) -> str:
    """A cell as text: a whole number without decimals, nothing for what is missing."""
    if isinstance(value, str):
        return value.strip()
    if value is None:
        return ""
    if isinstance(value, float):
        if math.isnan(value):
            return ""
        return str(int(value)) if value.is_integer() else repr(value)
    if isinstance(value, bytes):
        return value.decode("utf-8", "backslashreplace").strip()
    return str(value).strip()
