"""What a run keeps while it trains, so that a cut at any moment loses one epoch at most."""

import json
import os
import zipfile
from pathlib import Path

import keras
import numpy as np

from keras_vit.errors import InputError

CHECKPOINT, BEST = "checkpoint.npz", "best.npz"


class Checkpoint(keras.callbacks.Callback):
    """Saves all that training needs to go on as if it had not been cut, after each epoch.

    That is: weights, optimizer with its moments and step count, moving averages, the states of random layers,
    the history. Written at the start of the next epoch, when weights that a moving average had replaced for
    the validation are back.

    Args:
        folder: the run's folder while it trains.
        history: a list of one dict an epoch, which this callback fills.
    """

    def __init__(self, folder: Path, history: list[dict]):
        super().__init__()
        self.path = folder / CHECKPOINT
        self.history = history
        self.torch_random: dict[str, np.ndarray] = {}

    def on_train_begin(self, logs=None):
        if self.history:
            arrays, _ = load_arrays(self.path)
            self.torch_random = {name: arrays[name] for name in arrays if name.startswith("torch_")}

    def on_train_batch_begin(self, batch, logs=None):
        # Not before: torch's loader draws from the generator when it begins.
        if self.torch_random:
            _set_torch_random(self.torch_random)
            self.torch_random = {}

    def on_epoch_end(self, epoch, logs=None):
        row = {"epoch": epoch + 1, **{name: float(value) for name, value in (logs or {}).items()}}
        row["learning_rate"] = float(keras.ops.convert_to_numpy(self.model.optimizer.learning_rate))
        self.history.append(row)

    def on_epoch_begin(self, epoch, logs=None):
        if self.history:
            arrays = {f"model_{i}": value for i, value in enumerate(_values(self.model.variables))}
            optimizer = _values(self.model.optimizer.variables)
            arrays.update({f"optimizer_{i}": value for i, value in enumerate(optimizer)})
            save_arrays(self.path, arrays | _torch_random(), {"history": self.history})


class KeepBest(keras.callbacks.Callback):
    """Keeps the weights of the best epoch by validation accuracy; of equal ones, the lower validation loss.

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
        self.epoch: int | None = None
        self.last_weights: list[np.ndarray] = []

    def restore(self, before_epoch: int) -> None:
        """Takes up what an earlier part of the run kept, unless it is of an epoch that is run again."""
        if self.path.is_file():
            _, state = load_arrays(self.path)
            if state["epoch"] <= before_epoch:
                self.best, self.epoch = tuple(state["best"]), state["epoch"]

    def on_epoch_end(self, epoch, logs=None):
        # By now the weights are those to be judged: the moving average where the recipe has one.
        self.last_weights = self.model.get_weights()
        logs = logs or {}
        found = (logs.get("val_accuracy", float(epoch)), -logs.get("val_loss", 0.0))
        if self.best is None or found > self.best:
            self.best, self.epoch = found, epoch + 1
            arrays = {f"model_{i}": value for i, value in enumerate(self.last_weights)}
            save_arrays(self.path, arrays, {"epoch": self.epoch, "best": [float(x) for x in found]})
        elif self.early_stopping and epoch + 1 - self.epoch >= self.early_stopping:
            self.model.stop_training = True


def restore_checkpoint(folder: Path, model) -> list[dict]:
    """Sets a compiled model to where its run was cut.

    Args:
        folder: the run's folder while it trains.
        model: built and compiled as the run's was.

    Returns:
        The history so far; empty, and the model left alone, where no epoch was finished.
    """
    if not (folder / CHECKPOINT).is_file():
        return []
    arrays, state = load_arrays(folder / CHECKPOINT)
    model.optimizer.build(model.trainable_variables)
    for kind, variables in (("model", model.variables), ("optimizer", model.optimizer.variables)):
        for i, variable in enumerate(variables):
            variable.assign(arrays[f"{kind}_{i}"])
    return state["history"]


def load_best(folder: Path) -> list[np.ndarray]:
    """The weights of the best epoch, as `model.set_weights` takes them."""
    arrays, _ = load_arrays(folder / BEST)
    return [arrays[f"model_{i}"] for i in range(len(arrays))]


def save_arrays(path: Path, arrays: dict[str, np.ndarray], state: dict) -> None:
    """Writes arrays and a JSON-ready state as one file, whole or not at all."""
    beside = path.with_name(path.name + ".new")
    try:
        with open(beside, "wb") as file:
            np.savez(file, state=np.array(json.dumps(state)), **arrays)  # type: ignore[arg-type]
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)  # on a full disk it would take the room that is left
        raise


def load_arrays(path: Path) -> tuple[dict[str, np.ndarray], dict]:
    """Raises InputError where the file is damaged."""
    try:
        with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
            arrays = {name: file[name] for name in file.files}
        return arrays, json.loads(str(arrays.pop("state")))
    except (ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise InputError(
            f"{path} is damaged ({error}): remove {path.parent}, and leave out --resume."
        ) from error


def _torch_random() -> dict[str, np.ndarray]:
    """The states of torch's own generators, which Keras's dropout draws from on that backend."""
    if keras.backend.backend() != "torch":
        return {}
    import torch

    on_gpus = torch.cuda.get_rng_state_all()
    return {
        "torch_cpu": torch.get_rng_state().numpy(),
        **{f"torch_gpu_{i}": state.numpy() for i, state in enumerate(on_gpus)},
    }


def _set_torch_random(states):
    import torch

    torch.set_rng_state(torch.from_numpy(states["torch_cpu"]))
    for i in range(min(len(states) - 1, torch.cuda.device_count())):
        torch.cuda.set_rng_state(torch.from_numpy(states[f"torch_gpu_{i}"]), i)


def _values(variables):
    return [keras.ops.convert_to_numpy(variable) for variable in variables]
