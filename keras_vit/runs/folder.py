"""The folder that a training run leaves, and that every other verb takes."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

from keras_vit.data.preprocess import Preprocessing
from keras_vit.errors import InputError, first_line
from keras_vit.files import partial_of, read_json

CONFIG, MODEL, HISTORY, METRICS, REPORT, REJECTION = (
    "config.json",
    "model.keras",
    "history.csv",
    "metrics.json",
    "report.html",
    "rejection.npz",
)


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        path: its folder.
        config: `config.json`: all that is needed to repeat it, versions too.
    """

    path: Path
    config: dict

    @cached_property
    def model(self):
        """The best model by validation, a `keras.Model` that returns logits.

        Raises:
            InputError: the file is damaged, or holds code.
        """
        return load_model(self.path / MODEL)

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.config["data"]["class_names"])

    @property
    def preprocessing(self) -> Preprocessing:
        return Preprocessing(tuple(self.config["image_shape"]), self.config["train"]["aspect"])

    @cached_property
    def metrics(self) -> dict:
        """`metrics.json`: see `keras_vit.evaluation.judge`."""
        return read_json(self.path / METRICS, "train the run again")

    @property
    def temperature(self) -> float:
        """What the logits are divided by to give calibrated probabilities."""
        return self.metrics["calibration"]["temperature"]

    @cached_property
    def rejection(self):
        """Which images are unlike the training images: a `keras_vit.evaluation.ood.Rejection`.

        `None` where the run had too few validation images to fit one; `metrics["rejection"]["fitted_on"]`
        says why.

        Raises:
            InputError: an earlier version trained the run and fitted none, or the file is damaged.
        """
        from keras_vit.evaluation.ood import Rejection

        if "rejection" not in self.metrics:
            raise InputError(
                f"{self.path} is of an earlier version, which did not learn to reject foreign images: train "
                f"again with `keras-vit train --config {self.path / CONFIG} --out NEW`."
            )
        if self.metrics["rejection"]["fitted_on"] != "validation":
            return None
        return Rejection.load(self.path / REJECTION)


def load_run(path) -> Run:
    """Opens a run folder.

    Args:
        path: the folder that `train` made.

    Raises:
        InputError: there is no such folder, the run is not finished, or a file is missing.
    """
    path = Path(path)
    if not path.is_dir() and partial_of(path).is_dir():
        raise InputError(
            f"The run {path} is not finished: go on with `keras-vit train --out {path} --resume`."
        )
    if not path.is_dir():
        raise InputError(f"There is no run folder {path}: give the folder that `keras-vit train` made.")
    for name in (CONFIG, MODEL, METRICS):
        if not (path / name).is_file():
            raise InputError(
                f"{path} is no run folder, it has no {name}: give one that `keras-vit train` made."
            )
    run = Run(path, read_json(path / CONFIG, "train the run again"))
    try:
        _ = run.class_names, run.preprocessing, run.temperature
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{path} has a damaged {CONFIG} or {METRICS} (no {error}): train the run again."
        ) from error
    return run


def load_model(path):
    """A `.keras` file of this package, with Keras's safe mode on.

    Raises:
        InputError: the file is missing, damaged, or holds code (a Lambda layer).
    """
    import keras

    import keras_vit.model.vit  # noqa: F401  (registers ViT and its layers)

    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises many kinds, and not always its own
        reason = first_line(error)
        if "Lambda" in str(error) or "unsafe" in str(error).lower():
            raise InputError(
                f"{path} holds code (a Lambda layer), which is not run: save the model without Lambda layers."
            ) from error
        raise InputError(f"{path} cannot be read as a Keras model ({reason}): train it again.") from error
