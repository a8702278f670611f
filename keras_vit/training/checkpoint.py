"""What a run saves while it trains, so that an interruption at any moment loses at most one epoch."""

import json
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import keras
import numpy as np
from pydantic import Field, model_validator

from keras_vit.cache import hash_of
from keras_vit.claims import check_npz
from keras_vit.distribution import Distribution, distribution_of
from keras_vit.errors import InputError
from keras_vit.files import read_json, whole_file
from keras_vit.runs.folder import CONFIG
from keras_vit.runs.images import IMAGES
from keras_vit.sealed import FILES
from keras_vit.training.recipe import BestBy
from keras_vit.validation import Count, Record, check_plain

CHECKPOINT, BEST = "checkpoint.npz", "best.npz"
DAMAGED = (
    OSError,
    ValueError,
    KeyError,
    EOFError,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
    RuntimeError,
)
"""What reading a damaged file of numpy raises; an `InputError` of its schema is a ValueError."""


class Row(Record):
    epoch: Count


class State(Record):
    """The state in `checkpoint.npz`: one row per epoch."""

    history: list[Row]

    @model_validator(mode="after")
    def _in_order(self):
        epochs = [row.epoch for row in self.history]
        if epochs and epochs != list(range(epochs[0], epochs[0] + len(epochs))):
            raise ValueError("history does not have its epochs in order")
        return self


class BestState(Record):
    """The state in `best.npz`."""

    epoch: Count
    best: Annotated[list[float], Field(min_length=2, max_length=2)]


class Checkpoint(keras.callbacks.Callback):
    """Saves after each epoch all that training needs to continue as if it had not been interrupted.

    These are: weights, the optimizer with its moments and step count, moving averages, the states of random
    layers, and the history. They are saved at the start of the next epoch, when the weights that a moving
    average had replaced for the validation are back.

    With several processes the chief saves; the others only keep the history.

    Args:
        folder: the run's folder while it trains.
        history: a list of one dict per epoch, which this callback fills.
    """

    def __init__(self, folder: Path, history: list[dict]):
        super().__init__()
        self.path = folder / CHECKPOINT
        self.history = history

    def on_epoch_end(self, epoch, logs=None):
        row = {"epoch": epoch + 1, **{name: float(value) for name, value in (logs or {}).items()}}
        row["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self.history.append(row)

    def on_epoch_begin(self, epoch, logs=None):
        if self.history:
            save_checkpoint(self.path.parent, self.model, self.history)


class KeepBest(keras.callbacks.Callback):
    """Saves the weights of the best epoch by a validation figure; of equal ones, by validation loss.

    Without validation the last epoch counts as the best.

    Args:
        folder: the run's folder while it trains.
        early_stopping: epochs without a better one after which training stops; `None` for never.
        by: the figure.
    """

    def __init__(self, folder: Path, early_stopping: int | None = None, by: BestBy = "accuracy"):
        super().__init__()
        self.by = by
        self.path = folder / BEST
        self.early_stopping = early_stopping
        self.best: tuple[float, float] | None = None
        self.epoch = 0
        self.last_weights: list[np.ndarray] = []

    def restore(self, before_epoch: int, distribution: Distribution) -> None:
        """Continues from what an earlier part of the run saved, unless that epoch is trained again."""
        state = distribution.from_chief(
            lambda: load_arrays(self.path, BestState)[1] if self.path.is_file() else None
        )
        if state and state["epoch"] <= before_epoch:
            self.best, self.epoch = tuple(state["best"]), state["epoch"]

    def on_epoch_end(self, epoch, logs=None):
        # By now the weights are those that are evaluated: the moving average if the recipe has one.
        self.last_weights = self.model.get_weights()
        logs = logs or {}
        loss, figure = -logs.get("val_loss", 0.0), logs.get(f"val_{self.by}", float(epoch))
        # Without validation, the later epoch is the better one.
        found = (loss if self.by == "loss" and "val_loss" in logs else figure, loss)
        if self.best is None or found > self.best:
            self.best, self.epoch = found, epoch + 1
            if distribution_of(self.model).is_chief:
                arrays = {f"model_{i}": value for i, value in enumerate(self.last_weights)}
                state = {"epoch": self.epoch, "best": [float(x) for x in found], **_run_of(self.path.parent)}
                save_arrays(self.path, arrays, state)
        if self.early_stopping:
            late = epoch + 1 - self.epoch >= self.early_stopping
            # The last digits of a loss may differ between machines; all must stop at the same epoch.
            if distribution_of(self.model).from_chief(lambda: bool(late)):
                self.model.stop_training = True


def save_checkpoint(folder: Path, model: keras.Model, history: list[dict]) -> None:
    """Saves all that a compiled model needs to continue; with several processes the chief does.

    Args:
        folder: gets the file; an earlier one is replaced.
        model: after some training.
        history: one dict per epoch, so far.
    """
    distribution = distribution_of(model)
    if distribution.is_chief:
        arrays = {
            f"{kind}_{i}": value
            for kind, variables in _state(model).items()
            for i, value in enumerate(distribution.values(variables))
        }
        save_arrays(folder / CHECKPOINT, arrays, {"history": history, **_run_of(folder)})


def restore_checkpoint(folder: Path, model: keras.Model) -> list[dict]:
    """Sets a compiled model to the state in which its run was cut off.

    Args:
        folder: the run's folder while it trains.
        model: built and compiled as that of the run.

    Returns:
        The history so far; empty, with the model unchanged, if no epoch was finished.
    """
    distribution = distribution_of(model)
    path = folder / CHECKPOINT
    arrays: dict[str, np.ndarray] = {}

    def read() -> list[dict]:
        if not path.is_file():
            return []
        found, state = load_arrays(path, State)
        arrays.update(found)
        return state["history"]

    history = distribution.from_chief(read)
    if history:
        with distribution.scope():
            model.optimizer.build(model.trainable_variables)
            state = _state(model)
            distribution.from_chief(lambda: _check_arrays(path, arrays, state))
            for kind, variables in state.items():
                for i, variable in enumerate(variables):
                    found = arrays.get(f"{kind}_{i}", np.zeros(variable.shape, variable.dtype))
                    variable.assign(distribution.broadcast(found))
    return history


def load_best(folder: Path, model: keras.Model) -> list[np.ndarray]:
    """The weights of the best epoch for `set_weights`; in every process, from the chief's file.

    Raises:
        InputError: the file is damaged, or of another run.
    """
    distribution = distribution_of(model)
    weights, path = distribution.values(model.weights), folder / BEST
    arrays: dict[str, np.ndarray] = {}

    def read() -> None:
        arrays.update(load_arrays(path, BestState)[0])
        _check_arrays(path, arrays, {"model": model.weights})

    distribution.from_chief(read)
    if arrays:
        weights = [arrays[f"model_{i}"] for i in range(len(weights))]
    return [distribution.broadcast(array) for array in weights]


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any]) -> None:
    """Writes arrays and a state that is ready for JSON as one file, whole or not at all."""
    with whole_file(path, "wb") as file:
        np.savez(file, state=np.array(json.dumps(state)), **arrays)  # type: ignore[arg-type]


def load_arrays(path: Path, schema: Any = None) -> tuple[dict[str, np.ndarray], dict]:
    """What `save_arrays` wrote.

    Args:
        path: of the file.
        schema: of the state; `None` checks nothing.

    Raises:
        InputError: the file is damaged, or of another run than the `config.json` beside it.
    """
    try:
        check_npz(path)
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        state = json.loads(str(arrays.pop("state")))
        if schema is not None:
            check_plain(schema, state)
    except DAMAGED as error:
        raise _damaged(path, str(error)) from error
    run = _run_of(path.parent)
    if run and state.get("run", run["run"]) != run["run"]:
        raise _damaged(path, f"it is of another run than {CONFIG} beside it")
    return arrays, state


def _damaged(path: Path, reason: str) -> InputError:
    reason = reason.rstrip(".")
    return InputError(f"{path} is damaged ({reason}): remove {path.parent}, and leave out --resume.")


def _check_arrays(path: Path, arrays: Mapping[str, np.ndarray], wanted: Mapping[str, list]) -> None:
    """Raises InputError if a file does not hold exactly the values of some variables."""
    variables = {f"{kind}_{i}": one for kind, ones in wanted.items() for i, one in enumerate(ones)}
    if arrays.keys() != variables.keys():
        lost, more = sorted(variables.keys() - arrays.keys()), sorted(arrays.keys() - variables.keys())
        lacks = [f"it lacks {lost[0]}"] if lost else []
        raise _damaged(path, " and ".join([*lacks, *([f"it has an unknown {more[0]}"] if more else [])]))
    for name, variable in variables.items():
        found, shape = arrays[name], tuple(variable.shape)
        is_float = keras.backend.is_float_dtype(variable.dtype)
        if found.shape != shape or (found.dtype.kind == "f") != is_float:
            raise _damaged(
                path, f"{name} should be {shape} of {variable.dtype}, not {found.shape} {found.dtype}"
            )
        if is_float and _run_of(path.parent) and not np.isfinite(found).all():
            raise _damaged(path, f"{name} is not finite")


def _run_of(folder: Path) -> dict[str, str]:
    """What tells the run in a folder from others: its settings and images; empty for a trial of a search."""
    if not (folder / CONFIG).is_file():
        return {}
    config = read_json(folder / CONFIG)
    if not isinstance(config, dict) or not isinstance(config.get("train"), dict):
        return {}
    settings = {name: value for name, value in config["train"].items() if name != "data"}  # it may move
    return {"run": hash_of(json.dumps([settings, (config.get(FILES) or {}).get(IMAGES)], sort_keys=True))}


def _state(model: keras.Model) -> dict[str, list]:
    """All variables that training changes, by the names that they have in the file."""
    return {"model": model.variables, "optimizer": model.optimizer.variables}
