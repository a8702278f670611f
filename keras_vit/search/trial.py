"""What one trial brings back, keeps, and gives back at its end."""

import contextlib
import ctypes
import gc
import sys
import time
from pathlib import Path

import keras
import keras_tuner
import numpy as np

from keras_vit.distribution import current_distribution
from keras_vit.files import read_json, write_json
from keras_vit.search.trial_files import RESULT
from keras_vit.training.checkpoint import restore_checkpoint, save_checkpoint

MOST_KILLS = 5  # times that a trial's process may be killed before the trial counts as failed


class TrialState(keras.callbacks.Callback):
    """Brings back what a promoted trial had at its end, keeps what this one has, and says how it went.

    Training stops where the loss is no number any more: the epochs before count.

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
def counted(file: Path, distribution):
    """Counts how often the process of a trial is killed in it, and fails a trial that kills its processes.

    One that is too large for the memory would else be begun again for ever.

    Args:
        file: holds the count while the trial runs.
        distribution: of the processes of the trial; the first counts.

    Raises:
        keras_tuner.errors.FailedTrialError: after `MOST_KILLS` times.
    """

    def count():
        kills = read_json(file) if file.is_file() else 0
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
    """Gives back what a trial has taken, as far as the backend lets it go.

    torch and JAX give all back. TensorFlow keeps the programs that XLA has compiled until the process ends.
    """
    if current_distribution().num_devices == 1:  # it would close the scope of TensorFlow's strategies
        keras.backend.clear_session()
    if keras.backend.backend() == "jax":
        import jax

        jax.clear_caches()
    gc.collect()
    if sys.platform == "linux":
        ctypes.CDLL(None).malloc_trim(0)
