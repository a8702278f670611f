"""Labels in a table: CSV, TSV, JSON lines, Parquet, and the exports of tools for labelling."""

import os
from collections.abc import Callable, Sequence
from pathlib import Path

from keras_vit.data.image_set import Image, ImageSet
from keras_vit.data.sources.part_names import part_name
from keras_vit.data.sources.tables import exports
from keras_vit.data.sources.tables.assemble import assemble, listed, merged
from keras_vit.data.sources.tables.columns import Columns
from keras_vit.data.sources.tables.entries import Found, TableOptions
from keras_vit.data.sources.tables.records import (
    Records,
    read_delimited,
    read_json_lines,
    read_parquet,
)
from keras_vit.errors import InputError

__all__ = ["READERS", "TableOptions", "is_export", "list_table", "read_export", "read_table"]

READERS: dict[str, Callable[[Path], Records | Found] | None] = {
    ".csv": read_delimited,
    ".tsv": read_delimited,
    ".jsonl": read_json_lines,
    ".ndjson": read_json_lines,
    ".parquet": read_parquet,
    ".txt": exports.read_list,
    ".json": None,  # these two need the options
    ".xml": None,
}
"""The suffix of a table, in lower case -> what reads it."""

EXPORTS = ("_classes.csv", "_annotations.coco.json", "_annotations.csv")
"""Names of the tables that Roboflow writes into the folder of each part, the plainest first."""


def read_table(
    path: Path, classes: Sequence[str] | None = None, options: TableOptions | None = None
) -> ImageSet:
    """The images of a table as an image set of `Path`s, or of the bytes of crops.

    Args:
        path: of the table; relative paths in it count from its folder.
        classes: as `load_image_set` takes them.
        options: how it is read.

    Raises:
        InputError: the table cannot be used; the message has the line.
    """
    options = options or TableOptions()
    return assemble(read_found(path, options), options, classes)


def list_table(path: Path, options: TableOptions) -> tuple[dict[str, Image], tuple[str, ...]]:
    """The images of a table that need no labels, by their names, and what the user must know.

    Raises:
        InputError: the table cannot be used; the message has the line.
    """
    found = read_found(path, options, needs_label=False)
    images = listed(found, options)
    return images, tuple(found.notes)


def read_found(path: Path, options: TableOptions, needs_label: bool = True) -> Found:
    """What a table says, before any image of it is looked for.

    Raises:
        InputError: it cannot be read.
    """
    suffix = path.suffix.lower()
    if suffix == ".xml":
        return exports.read_cvat_xml(path, options)
    reader = READERS[suffix]
    found = exports.read_json(path, options) if reader is None else reader(path)
    if isinstance(found, Found):
        return found
    if exports.is_label_studio(found):
        return exports.label_studio(path, found, options)
    return Columns(path, found, options, needs_label).found()


def is_export(folder: Path) -> bool:
    """Whether a folder has the folders of parts with their tables, as Roboflow exports them."""
    return bool(_tables_in(folder))


def read_export(
    folder: Path, classes: Sequence[str] | None = None, options: TableOptions | None = None
) -> ImageSet:
    """The images of such a folder; arguments and errors as `read_table`."""
    options = options or TableOptions()
    tables = [(part, read_found(file, options)) for part, file in _tables_in(folder)]
    return assemble(merged(folder, tables), options, classes)


def _tables_in(folder: Path) -> list[tuple[str, Path]]:
    """The part and the table of each folder that has one; those of one name only."""
    try:
        with os.scandir(folder) as entries:
            below = sorted(folder / entry.name for entry in entries if entry.is_dir())
    except OSError as error:
        raise InputError(f"The folder {folder} cannot be read: {error.strerror}.") from error
    for name in EXPORTS:
        found = [
            (told.role, path / name)
            for path in below
            if (told := part_name(path.name)) and told.is_sure and (path / name).is_file()
        ]
        if found:
            return found
    return []
