"""State of one trial: restored from the trial it continues, saved at its end, released with its memory."""

import contextlib
import ctypes
import gc
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import keras
import keras_tuner
import numpy as np

from keras_vit.distribution import Distribution, current_distribution
from keras_vit.errors import InputError
from keras_vit.files import read_json, write_json
from keras_vit.search.schema import Number
from keras_vit.search.trial_files import RESULT
from keras_vit.text import say
from keras_vit.training.checkpoint import restore_checkpoint, save_checkpoint
from keras_vit.validation import check_plain

MOST_KILLS = 5  # times that a trial's process may be killed before the trial counts as failed


class TrialState(keras.callbacks.Callback):
    """Restores the state that a promoted trial had at its end, saves that of this one, and writes its result.

    Training stops if the loss becomes NaN or infinite; the epochs before count.

    Args:
        folder: of this trial.
        restore_from: folder of the trial that is promoted, or `None`.
    """

    def __init__(self, folder: Path, restore_from: Path | None = None):
        super().__init__()
        self.folder = folder
        self.restore_from = restore_from

    def __deepcopy__(self, memo):  # KerasTuner copies callbacks for each execution
        return TrialState(self.folder, self.restore_from)

    def on_train_begin(self, logs=None):
        self.history: list[dict] = []
        self.begin = time.perf_counter()
        if self.restore_from is not None and not restore_checkpoint(self.restore_from, self.model):
            raise keras_tuner.errors.FailedTrialError(
                f"{self.restore_from} has lost the state of the trial that was promoted."
            )

    def on_epoch_end(self, epoch, logs=None):
        logs = {name: float(value) for name, value in (logs or {}).items()}
        self.history.append({"epoch": epoch + 1, **logs})
        diverged = not np.isfinite(logs.get("loss", 0.0))
        if diverged:
            self.model.stop_training = True
        if diverged or epoch + 1 == self.params["epochs"]:
            save_checkpoint(self.folder, self.model, [{"epoch": epoch + 1}])

    def on_train_end(self, logs=None):
        if self.model.distribution.is_chief:
            result = {
                "seconds": round(time.perf_counter() - self.begin, 3),
                "parameters": self.model.count_params(),
                "history": self.history,
            }
            write_json(self.folder / RESULT, result)


@contextlib.contextmanager
def count_kills(file: Path, distribution: Distribution) -> Iterator[None]:
    """Counts how often the process of a trial is killed, and fails a trial whose processes are killed often.

    A trial that needs too much memory would otherwise be repeated forever.

    Args:
        file: holds the count while the trial runs.
        distribution: of the processes of the trial; the first one counts.

    Raises:
        keras_tuner.errors.FailedTrialError: after `MOST_KILLS` times.
    """

    def count() -> int:
        kills = 0
        if file.exists():
            try:
                kills = read_json(file)
                check_plain(Number, kills)
            except InputError:
                kills = 0
                say(f"{file} is damaged: how often its process was killed is counted from 0 again.")
        write_json(file, kills + 1)
        return kills

    kills = distribution.from_chief(count)
    try:
        if kills >= MOST_KILLS:
            raise keras_tuner.errors.FailedTrialError(
                f"The process of this trial was killed {kills} times: is the model too large for the memory?"
            )
        yield
    finally:
        if distribution.is_chief:
            file.unlink(missing_ok=True)


def release_memory() -> None:
    """Frees the memory that a trial has used, as far as the backend can.

    torch and JAX free all of it. TensorFlow keeps the programs that XLA has compiled until the process ends.
    """
    if current_distribution().num_devices == 1:  # it would close the scope of TensorFlow's strategies
        keras.backend.clear_session()
    if keras.backend.backend() == "jax":
        import jax

        jax.clear_caches()
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
