"""The interface between a model or a run and its devices. The base class is one device."""

import contextlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np

from keras_vit.errors import DistributionError, InputError, first_line

entered: list["Distribution"] = []
"""The `distribute()`s that this process is inside of, the innermost last."""
known: list["Distribution"] = []
"""All that were ever entered or adopted and have more than one device, the last one first."""


def distribution_of(model: Any) -> "Distribution":
    """The devices that a model is trained on; one device for a model that does not say it."""
    found = getattr(model, "distribution", None)
    return found if isinstance(found, Distribution) else Distribution()


@dataclass(frozen=True)
class ProcessShare:
    """Batches that hold only this process's share of each global batch, in the same order in all processes.

    Args:
        batches: a tf.data.Dataset of (images, labels) batches, each of `global batch / processes` images.
    """

    batches: Any


class Distribution:
    """Devices that train one model together; used as a context manager.

    A model that is built inside stays on these devices: `fit`, `evaluate` and `predict` work inside and
    afterwards. Processes are numbered from 0. Process 0 is the chief, the only one that writes files.
    """

    was_entered = False
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
        if entered and entered[-1].num_devices > 1:
            raise InputError("This distribute() is inside another one: leave that one first.")
        self.remember()
        self.was_entered = True
        entered.append(self)
        self._open = contextlib.ExitStack()
        self._open.enter_context(self.scope())
        return self

    def __exit__(self, *error: Any) -> bool | None:
        entered.pop()
        return self._open.__exit__(*error)

    def __str__(self) -> str:
        if self.num_devices == 1:
            return "one device"
        text = f"{self.engine} on {self.num_devices} devices"
        if self.num_processes > 1:
            text += f" of {self.num_processes} processes"
        if self.model_devices > 1:
            text += f", {self.model_devices} per copy of the model"
        return text

    def scope(self) -> contextlib.AbstractContextManager:
        """The backend's own context; it can be entered many times."""
        return contextlib.nullcontext()

    def remember(self) -> None:
        """Adds these devices to those that models may belong to."""
        if self.num_devices > 1 and self not in known:
            known.insert(0, self)

    # For runs

    def describe(self, batch_size: int) -> dict:
        """What the `config.json` of a run records about its devices.

        Args:
            batch_size: images per step, on all devices together.

        Raises:
            InputError: the batch size is not a multiple of the number of replicas.
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
        """Raises InputError if the replicas cannot have equal shares of a batch."""
        if batch_size % self.num_replicas:
            below = batch_size // self.num_replicas * self.num_replicas
            nearest = below or self.num_replicas
            raise InputError(
                f"A batch of {batch_size} images cannot be shared equally by {self.num_replicas} devices: "
                f"use a batch size of {nearest} or another multiple of {self.num_replicas}."
            )

    def from_chief(self, compute: Callable[[], Any]) -> Any:
        """Calls `compute` in the chief only, and returns its result in every process.

        Args:
            compute: a function whose result JSON can hold.

        Raises:
            InputError: the one that the chief raised, in every process, so that no process waits forever.
        """
        if self.num_processes == 1:
            return compute()
        answer: dict[str, Any] = {}
        if self.is_chief:
            try:
                answer = {"value": compute()}
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
        """The chief's values of an array, in every process. All processes pass the same shape and dtype."""
        return array

    def values(self, variables: Iterable[Any]) -> list[np.ndarray]:
        """The whole values of variables, also of those that are split over devices."""
        return [keras.ops.convert_to_numpy(variable) for variable in variables]

    def lost(self, error: Exception) -> DistributionError | None:
        """A clear error if `error` was caused by the end of another process, otherwise `None`."""
        return None

    # For models

    def owns(self, model: keras.Model) -> bool:
        """Whether a model was built on these devices, as far as its weights tell."""
        return False

    def check_home(self, model: keras.Model) -> None:
        """Raises InputError if the weights of a model are not on these devices."""

    def check_model(self, model: keras.Model) -> None:
        """Raises InputError if this model cannot be trained correctly on these devices."""

    def check_compile(self, model: keras.Model, arguments: dict) -> dict:
        """Returns the arguments of `compile` for these devices.

        Raises:
            InputError: with one of them the results would differ from one device.
        """
        return arguments

    def prepare_optimizer(self, model: keras.Model) -> None:
        """Makes the optimizer of a compiled model use the gradients of all replicas."""

    def known_batches(self, arguments: dict, is_fit: bool) -> dict:
        """Returns the arguments of `fit`, `evaluate` or `predict` with batches of known shapes."""
        return arguments

    def spec_of(self, batches: Any) -> Any:
        """Shapes and dtypes of the batches of a dataset; `None` of other inputs."""
        return getattr(batches, "element_spec", None)

    def fit_arguments(self, model: keras.Model, arguments: dict) -> dict:
        """Returns the arguments of `fit` that Keras gets.

        Args:
            arguments: those of the user; the batches are global, or a `ProcessShare`.

        Raises:
            InputError: the batches cannot be shared equally.
        """
        return arguments

    def callbacks(self, model: keras.Model) -> list[keras.callbacks.Callback]:
        """Callbacks that `fit` needs besides those of the user."""
        return []

    def before_a_batch(self, model: keras.Model) -> None:
        """What `train_on_batch` needs before its first step."""

    def evaluating(self) -> contextlib.AbstractContextManager:
        """The context of `evaluate` and `predict`: every process sees all images."""
        return contextlib.nullcontext()

    def evaluate_arguments(self, arguments: dict) -> dict:
        """Returns the arguments of `evaluate` that Keras gets."""
        return arguments

    def predict(
        self, model: keras.Model, keras_predict: Callable[..., np.ndarray], x: Any, **arguments: Any
    ) -> np.ndarray:
        """The predictions for all rows of `x`, in every process."""
        return keras_predict(x, **arguments)

    def step_arguments(self, arguments: tuple) -> tuple:
        """Converts the arguments of a training or test step of Keras, which have its batch."""
        return arguments

    def step_logs(self, logs: dict) -> dict:
        """Converts the logs that a training or test step of Keras returns."""
        return logs

    def tracked_loss(self, loss: Any, rows: Any) -> Any:
        """The loss of a training step, with the gradient of this replica and the value to be logged.

        Args:
            loss: the mean over the rows of this replica.
            rows: their number.
        """
        return loss

    def gather(self, values: Any) -> Any:
        """The same structure of tensors, with the rows of all replicas."""
        return values


def lost_process(error: Exception) -> DistributionError:
    """The clear error for an error that was caused by the end of another process."""
    reason = first_line(error)[:200]
    return DistributionError(
        f"Another process of this run has ended or cannot be reached ({reason}). Start all processes again "
        "with the same command: training continues after the last finished epoch."
    )


def built_outside(devices: Distribution) -> InputError:
    """The error for a model that was built on other devices than those that are in use."""
    return InputError(
        f"This model was built outside of this {_place(devices)}, so its weights are not on these devices: "
        "build it inside."
    )


def made_outside(devices: Distribution) -> InputError:
    """The error for an optimizer that was made before its devices were in use."""
    return InputError(
        f"This optimizer was made outside of {_place(devices)}: make it inside, or compile the model there."
    )


def _place(devices: Distribution) -> str:
    return "distribute()" if devices.was_entered else devices.engine
