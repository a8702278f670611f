"""The folder of a comparison: its settings, what each training gave, and how long things take here."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import numpy as np
from pydantic import Field

from keras_vit import locks
from keras_vit.comparison.config import EXTENDED, CompareConfig, to_dict
from keras_vit.errors import InputError
from keras_vit.files import read_json, write_json
from keras_vit.model.keras_file import save_whole
from keras_vit.sealed import check_seal, seal
from keras_vit.text import shown
from keras_vit.validation import Record, check_plain

if TYPE_CHECKING:
    import keras

CONFIG, RESULTS, SUMMARY, REPORT = "config.json", "results.csv", "comparison.json", "report.html"
CELLS, MEASURED, LOCK, MODELS = "cells", "measured.json", "lock", "models"
FIX = "remove it to train this again"


@dataclass(frozen=True)
class Cell:
    """One training of a comparison.

    Args:
        model: its name.
        per_class: number of training images per class, or `"all"`.
        fold: from 1; 0 without folds.
        repeat: from 0.
    """

    model: str
    per_class: int | str
    fold: int
    repeat: int

    @property
    def file(self) -> str:
        """The name of its file in the folder `CELLS`."""
        fold = f"-fold{self.fold}" if self.fold else ""
        return f"{self.model}-{self.per_class}{fold}-{self.repeat}.json"


class Result(Record):
    """The content of the file of a cell."""

    images: Annotated[int, Field(ge=1)]
    batch_size: Annotated[int, Field(ge=1)]
    steps: Annotated[int, Field(ge=0)]
    seconds: Annotated[float, Field(ge=0)]
    diverged: bool
    predicted: dict[str, list[Annotated[int, Field(ge=0)]]]


class OfModel(Record):
    """What was measured of one model: its size, and seconds.

    `begin` is until the first step is done, `image` that of a training step for each image of the batch,
    `one` the forward pass of one image, and `each_of_32` that of each image of a batch.
    """

    parameters: Annotated[int, Field(ge=0)]
    mult_adds: Annotated[int, Field(ge=0)]
    begin: Annotated[float, Field(ge=0)]
    image: Annotated[float, Field(ge=0)]
    one: Annotated[float, Field(ge=0)]
    each_of_32: Annotated[float, Field(ge=0)]


@contextlib.contextmanager
def locked(folder: Path) -> Iterator[None]:
    """Keeps a folder for this process; work files that dead ones have left are removed.

    Raises:
        InputError: the folder cannot be made or written to, or another process has it.
    """
    with locks.locked(folder / LOCK, f"Another comparison is running in {folder}") as lock:
        if (folder / CONFIG).is_file():
            lock.clear(folder)
            lock.clear(folder / CELLS)
        yield


def stored_config(config: CompareConfig) -> dict[str, Any] | None:
    """The content of the config.json of the comparison that is in the folder; `None` if there is none.

    Raises:
        InputError: the folder holds a comparison with other settings, or something else.
    """
    folder = config.folder
    file = folder / CONFIG
    others = [one.name for one in folder.iterdir() if one.name != LOCK] if folder.is_dir() else []
    if not others:
        return None
    if not file.is_file():
        raise InputError(f"{folder} holds other things ({shown(sorted(others)[0])}): choose another --out.")
    fix = "restore it, or choose another --out"
    found = read_json(file, fix=fix)
    if not isinstance(found, dict) or not isinstance(found.get("asked"), dict):
        raise InputError(f"{folder} holds something else than a comparison: choose another --out.")
    check_seal(file, found, fix)
    if not config.resume:
        raise InputError(
            f"{folder} holds a comparison: omit --no-resume to continue it, or choose another --out."
        )
    if (other := difference(found["asked"], to_dict(config))) is not None:
        raise InputError(
            f"{folder} holds a comparison with other settings ({other}): choose another --out, or give the "
            "settings that it has."
        )
    return found


def difference(stored: Mapping[str, Any], asked: Mapping[str, Any]) -> str | None:
    """The first setting that differs, in words. Where the data are, and which trainings, does not count."""
    for name in sorted(stored.keys() | asked.keys()):
        mine, theirs = stored.get(name), asked.get(name)
        if name in ("data", *EXTENDED) or mine == theirs:
            continue
        if isinstance(mine, Mapping) and isinstance(theirs, Mapping):
            if (found := difference(mine, theirs)) is not None:
                return found
            continue
        return f"{name.replace('_', '-')} {_words(mine)}, not {_words(theirs)}"
    return None


def _words(value: Any) -> str:
    if isinstance(value, list):
        return " ".join(map(str, value)) or "by default"
    return shown(str(value))


def write_config(folder: Path, content: Mapping[str, Any]) -> None:
    """Writes config.json, and makes the folder of the cells."""
    write_json(folder / CONFIG, seal(content, folder, ()))
    (folder / CELLS).mkdir(exist_ok=True)


def read_cell(folder: Path, cell: Cell, lengths: Mapping[str, int], classes: int) -> dict[str, Any] | None:
    """The result of a cell; `None` if it is not there.

    Args:
        folder: of the comparison.
        cell: which one.
        lengths: kind of the test images -> how many there are.
        classes: number of classes.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / CELLS / cell.file
    if not path.is_file():
        return None
    found = read_json(path, fix=FIX)
    try:
        check_plain(Result, found)
        for kind, length in lengths.items():
            named = found["predicted"].get(kind, [])
            if len(named) != length or max(named, default=0) >= classes:
                raise InputError("its answers are not those for the test images")
    except InputError as error:
        raise InputError(f"{path} is damaged ({str(error).rstrip('.')}): {FIX}.") from error
    return found


def write_cell(folder: Path, cell: Cell, content: Mapping[str, Any]) -> None:
    """Writes the result of a cell, whole."""
    (folder / CELLS).mkdir(exist_ok=True)
    write_json(folder / CELLS / cell.file, content)


def model_file(name: str) -> str:
    """Where the folder of a comparison holds a convolutional network, see `write_model`."""
    return f"{MODELS}/{name}.keras"


def write_model(folder: Path, name: str, model: "keras.Model") -> None:
    """Writes a convolutional network, whole: the advice may be to take it, and `train` makes ViTs only."""
    path = folder / model_file(name)
    path.parent.mkdir(exist_ok=True)
    save_whole(model, path)


def read_measured(folder: Path) -> dict[str, dict[str, float]]:
    """What was measured of the models so far, by name.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / MEASURED
    if not path.is_file():
        return {}
    found = read_json(path, fix="remove it to measure again")
    try:
        check_plain(dict[str, OfModel], found)
    except InputError as error:
        raise InputError(f"{path} is damaged ({error}): remove it to measure again.") from error
    return found


def plain(predicted: Mapping[str, np.ndarray]) -> dict[str, list[int]]:
    """Answers, ready for JSON."""
    return {kind: [int(label) for label in labels] for kind, labels in predicted.items()}
