"""What a run saves while it trains, so that an interruption at any moment loses at most one epoch."""

import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import keras
import numpy as np

from keras_vit.distribution import Distribution, distribution_of
from keras_vit.errors import InputError
from keras_vit.files import whole_file

CHECKPOINT, BEST = "checkpoint.npz", "best.npz"


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
    """Saves the weights of the best epoch by validation accuracy; of equal ones, by validation loss.

    Without validation the last epoch counts as the best.

    Args:
        folder: the run's folder while it trains.
        early_stopping: epochs without a better one after which training stops; `None` for never.
    """

    def __init__(self, folder: Path, early_stopping: int | None = None):
        super().__init__()
        self.path = folder / BEST
        self.early_stopping = early_stopping
        self.best: tuple[float, float] | None = None
        self.epoch = 0
        self.last_weights: list[np.ndarray] = []

    def restore(self, before_epoch: int, distribution: Distribution) -> None:
        """Continues from what an earlier part of the run saved, unless that epoch is trained again."""
        state = distribution.from_chief(lambda: load_arrays(self.path)[1] if self.path.is_file() else None)
        if state and state["epoch"] <= before_epoch:
            self.best, self.epoch = tuple(state["best"]), state["epoch"]

    def on_epoch_end(self, epoch, logs=None):
        # By now the weights are those that are evaluated: the moving average if the recipe has one.
        self.last_weights = self.model.get_weights()
        logs = logs or {}
        found = (logs.get("val_accuracy", float(epoch)), -logs.get("val_loss", 0.0))
        if self.best is None or found > self.best:
            self.best, self.epoch = found, epoch + 1
            if distribution_of(self.model).is_chief:
                arrays = {f"model_{i}": value for i, value in enumerate(self.last_weights)}
                save_arrays(self.path, arrays, {"epoch": self.epoch, "best": [float(x) for x in found]})
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
        save_arrays(folder / CHECKPOINT, arrays, {"history": history})


def restore_checkpoint(folder: Path, model: keras.Model) -> list[dict]:
    """Sets a compiled model to the state in which its run was cut off.

    Args:
        folder: the run's folder while it trains.
        model: built and compiled as that of the run.

    Returns:
        The history so far; empty, with the model unchanged, if no epoch was finished.
    """
    distribution = distribution_of(model)
    arrays: dict[str, np.ndarray] = {}
    state: dict = {"history": []}
    if distribution.is_chief and (folder / CHECKPOINT).is_file():
        arrays, state = load_arrays(folder / CHECKPOINT)
    history = distribution.from_chief(lambda: state["history"])
    if history:
        with distribution.scope():
            model.optimizer.build(model.trainable_variables)
            for kind, variables in _state(model).items():
                for i, variable in enumerate(variables):
                    found = arrays.get(f"{kind}_{i}", np.zeros(variable.shape, variable.dtype))
                    variable.assign(distribution.broadcast(found))
    return history


def load_best(folder: Path, model: keras.Model) -> list[np.ndarray]:
    """The weights of the best epoch for `set_weights`; in every process, from the chief's file."""
    distribution = distribution_of(model)
    weights = distribution.values(model.weights)
    if distribution.is_chief:
        arrays, _ = load_arrays(folder / BEST)
        weights = [arrays[f"model_{i}"] for i in range(len(weights))]
    return [distribution.broadcast(array) for array in weights]


def save_arrays(path: Path, arrays: Mapping[str, np.ndarray], state: Mapping[str, Any]) -> None:
    """Writes arrays and a state that is ready for JSON as one file, whole or not at all."""
    with whole_file(path, "wb") as file:
        np.savez(file, state=np.array(json.dumps(state)), **arrays)  # type: ignore[arg-type]


def load_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    """What `save_arrays` wrote.

    Raises:
        InputError: the file is damaged.
    """
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return arrays, json.loads(str(arrays.pop("state")))
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is damaged ({error}): remove {path.parent}, and leave out --resume."
        ) from error


def _state(model: keras.Model) -> dict[str, list]:
    """All variables that training changes, by the names that they have in the file."""
    return {"model": model.variables, "optimizer": model.optimizer.variables}
