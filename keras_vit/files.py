"""Files that are there whole or not at all."""

import contextlib
import csv
import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from keras_vit.errors import InputError


@contextlib.contextmanager
def whole_file(path: Path, mode: str = "w", **options) -> Iterator[IO[Any]]:
    """A file to write into: beside its path, and renamed to it when the block has ended.

    Where the block fails, what stood at the path stays, and nothing is left beside it.

    Args:
        path: of the file.
        mode: `"w"` or `"wb"`.
        **options: of `open`; the encoding of text is UTF-8.
    """
    beside = path.with_name(path.name + ".new")
    if "b" not in mode:
        options.setdefault("encoding", "utf-8")
    try:
        with open(beside, mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # or a power cut may leave the new name with nothing behind it
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)  # on a full disk it would take the room that is left
        raise


def partial_of(folder: Path) -> Path:
    """Where a run lives until it is finished: a sibling, so that the last step is a rename."""
    folder = folder if folder.name else folder.absolute()  # `.` has no name of its own
    return folder.with_name(folder.name + ".partial")


def read_json(path: Path):
    """Raises InputError where the file is not JSON."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path} cannot be read ({error}): train the run again.") from error


def write_text(path: Path, text: str) -> None:
    """Writes a file whole or not at all."""
    with whole_file(path) as file:
        file.write(text)


def write_json(path: Path, value) -> None:
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_history(path: Path, history: list[dict]) -> None:
    """One row an epoch."""
    with whole_file(path, newline="") as file:
        writer = csv.DictWriter(file, fieldnames=list(history[0]))
        writer.writeheader()
        writer.writerows(history)
