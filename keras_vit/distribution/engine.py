"""What a model and a run ask of the devices they are on. This is the answer of one device."""

import contextlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_vit.errors import DistributionError, InputError, first_line

_current: list["Distribution"] = []


def current_distribution() -> "Distribution":
    """The innermost `distribute()` that is open; one device where none is."""
    return _current[-1] if _current else Distribution()


def distribution_of(model) -> "Distribution":
    """The devices that a model was built on; one device for a model that is not of this package."""
    return getattr(model, "distribution", Distribution())


@dataclass(frozen=True)
class ProcessShare:
    """Batches that hold only this process's share of each global batch, in the same order everywhere.

    Args:
        batches: a tf.data.Dataset of (images, labels), each of `global batch / processes` images.
    """

    batches: Any


class Distribution:
    """Devices that train one model together; used as a context manager.

    A model that is built inside stays there: `fit`, `evaluate` and `predict` work inside and afterwards.
    Processes are counted from 0; the one of number 0 is the chief, which alone writes files.
    """

    kind = "none"
    engine = "one device"
    num_devices = 1
    num_replicas = 1
    model_devices = 1
    num_processes = 1
    process_id = 0

    @property
    def is_chief(self) -> bool:
        return self.process_id == 0

    def __enter__(self) -> "Distribution":
        if _current and _current[-1].num_devices > 1:
            raise InputError("This is inside another distribute(): leave that one first.")
        _current.append(self)
        self._open = contextlib.ExitStack()
        self._open.enter_context(self.scope())
        return self

    def __exit__(self, *error):
        _current.pop()
        return self._open.__exit__(*error)

    def __str__(self):
        if self.num_devices == 1:
            return "one device"
        text = f"{self.engine} on {self.num_devices} devices"
        if self.num_processes > 1:
            text += f" of {self.num_processes} processes"
        if self.model_devices > 1:
            text += f", {self.model_devices} to a copy of the model"
        return text

    def scope(self):
        """The backend's own context; it can be entered again and again."""
        return contextlib.nullcontext()

    # What a run asks.

    def describe(self, batch_size: int) -> dict:
        """What the config of a run says of its devices.

        Args:
            batch_size: images a step, on all devices together.

        Raises:
            InputError: the devices do not divide it.
        """
        self.check_batch_size(batch_size)
        return {
            "kind": self.kind,
            "engine": self.engine,
            "devices": self.num_devices,
            "processes": self.num_processes,
            "replicas": self.num_replicas,
            "model_devices": self.model_devices,
            "global_batch_size": batch_size,
            "batch_size_per_replica": batch_size // self.num_replicas,
            "learning_rate_rule": "that of one device: the global batch does not grow with the devices",
        }

    def check_batch_size(self, batch_size: int) -> None:
        """Raises InputError where the replicas cannot have equal shares of a batch."""
        if batch_size % self.num_replicas:
            below = batch_size // self.num_replicas * self.num_replicas
            nearest = below or self.num_replicas
            raise InputError(
                f"A batch of {batch_size} images cannot be shared equally by {self.num_replicas} devices: "
                f"use a batch size of {nearest} or another multiple of {self.num_replicas}."
            )

    def from_chief(self, ask: Callable[[], Any]):
        """What `ask` returns to the chief, for every process; only the chief calls it.

        Args:
            ask: a function whose result JSON can hold.

        Raises:
            InputError: the chief's, in every process, so that none waits for the others.
        """
        if self.num_processes == 1:
            return ask()
        answer: dict[str, Any] = {}
        if self.is_chief:
            try:
                answer = {"value": ask()}
            except InputError as error:
                answer = {"error": str(error)}
        answer = json.loads(self._broadcast_text(json.dumps(answer)))
        if "error" in answer:
            raise InputError(answer["error"])
        return answer["value"]

    def _broadcast_text(self, text: str) -> str:
        encoded = np.frombuffer(text.encode(), "uint8")
        length = int(self.broadcast(np.array([len(encoded)], "int32"))[0])
        padded = encoded if self.is_chief else np.zeros(length, "uint8")
        return self.broadcast(padded.astype("int32")).astype("uint8").tobytes().decode()

    def broadcast(self, array: np.ndarray) -> np.ndarray:
        """The chief's values of an array, in every process. All give the same shape and dtype."""
        return array

    def values(self, variables) -> list[np.ndarray]:
        """Whole values of variables, those cut over devices too."""
        return [keras.ops.convert_to_numpy(variable) for variable in variables]

    def lost(self, error: Exception) -> DistributionError | None:
        """The clear error for one that another process's end has caused; `None` for any other error."""
        return None

    # What a model asks.

    def check_model(self, model) -> None:
        """Raises InputError where this model cannot be trained right on these devices."""
        _refuse_foreign_scopes()

    def check_compile(self, model, arguments: dict) -> dict:
        """The arguments of `compile` as they are to be.

        Raises:
            InputError: one of them would give other results than on one device.
        """
        return arguments

    def prepare_optimizer(self, model) -> None:
        """Makes the optimizer of a compiled model see the gradients of all replicas."""

    def fit_arguments(self, model, arguments: dict) -> dict:
        """The arguments of `fit` as Keras is to get them.

        Args:
            arguments: as a user gives them: batches are global, or a `ProcessShare`.

        Raises:
            InputError: the batches cannot be shared equally.
        """
        return arguments

    def judging(self):
        """A context in which every process sees all images, for `evaluate` and `predict`."""
        return contextlib.nullcontext()

    def evaluate_arguments(self, arguments: dict) -> dict:
        """The arguments of `evaluate` as Keras is to get them."""
        return arguments

    def predict(self, model, keras_predict, x, **arguments):
        return keras_predict(x, **arguments)

    def step_logs(self, logs):
        """What a training or test step reports, from what Keras makes of it."""
        return logs

    def tracked_loss(self, loss):
        """A loss with the gradient of this replica's and the value of all replicas' together."""
        return loss

    def gather(self, values):
        """A structure of tensors with the rows of all replicas."""
        return values


def lost_process(error: Exception) -> DistributionError:
    """The clear error for one that the end of another process has caused."""
    reason = first_line(error)[:200]
    return DistributionError(
        f"Another process of this run has ended or cannot be reached ({reason}). Start all processes again "
        "with the same command: training goes on from the last finished epoch."
    )


def _refuse_foreign_scopes():
    """Refuses ways to distribute that Keras takes without a word and gets wrong."""
    if keras.backend.backend() != "jax" and keras.distribution.distribution() is not None:
        raise InputError(
            f"keras.distribution does nothing on the {keras.backend.backend()} backend, all would run on one "
            "device: use keras_vit.distribute() instead."
        )
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        if tf.distribute.has_strategy():
            name = type(tf.distribute.get_strategy()).__name__
            raise InputError(
                f"This is in the scope of TensorFlow's own {name}, where clipping, batch norms and dropout "
                "differ from one device, and some strategies give wrong numbers: use keras_vit.distribute() "
                "instead."
            )
