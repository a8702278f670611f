"""The folder that a training run leaves, and that every other command takes."""

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_vit.data.preprocess import Preprocessing
from keras_vit.errors import InputError, first_line
from keras_vit.evaluation.ood import OODDetector
from keras_vit.files import partial_of, read_json
from keras_vit.validation import from_plain

if TYPE_CHECKING:
    import keras

    from keras_vit.model.weights.export import Format

CONFIG, MODEL, HISTORY, METRICS, REPORT, REJECTION, ADAPTER = (
    "config.json",
    "model.keras",
    "history.csv",
    "metrics.json",
    "report.html",
    "rejection.npz",
    "adapter.safetensors",
)
TRAIN_AGAIN = "train the run again"


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        path: its folder.
        config: the content of `config.json`: everything needed to repeat the run, versions too.
    """

    path: Path
    config: dict[str, Any]

    @cached_property
    def model(self) -> "keras.Model":
        """The best model by validation, a `ViT` that returns logits.

        Raises:
            InputError: the file is damaged or holds code.
        """
        return load_model(self.path / MODEL)

    @cached_property
    def answer_model(self) -> "keras.Model":
        """The model with its scaling, calibration and rejection: see `keras_vit.runs.answer.answer_model`.

        A run of an earlier version, which has learned no rejection, rejects nothing.
        """
        return self._answer_model(flips=False)

    @cached_property
    def _answer_model_with_flips(self) -> "keras.Model":
        return self._answer_model(flips=True)

    def answers(self, flips: bool = False) -> "keras.Model":
        """`answer_model`, or the one that also looks at the mirror images of each image."""
        return self._answer_model_with_flips if flips else self.answer_model

    def _answer_model(self, flips):
        from keras_vit.runs.answer import answer_model

        rejection = self.rejection if "rejection" in self.metrics else None
        return answer_model(self.model, self.temperature, rejection, self.preprocessing, flips)

    def export_weights(self, path: str | Path, format: "Format") -> Path:
        """Writes the weights of the best model as timm or Hugging Face's transformers load them.

        Args:
            path: of the new folder.
            format: `"timm"` or `"huggingface"`; see `keras_vit.model.weights.export.export_weights`.

        Returns:
            The folder, which has the class names and the normalisation too.

        Raises:
            InputError: there is such a folder, or the library has no place for an option of the model.
        """
        from keras_vit.model.weights.export import export_weights

        shown = self.preprocessing
        return export_weights(
            self.model,
            path,
            format,
            class_names=self.class_names,
            mean=shown.mean,
            std=shown.std,
            interpolation=shown.interpolation,
            aspect=shown.aspect,
            licence=(self.config.get("weights") or {}).get("licence"),
        )

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.config["data"]["class_names"])

    @property
    def preprocessing(self) -> Preprocessing:
        """How images become the input of the model; earlier versions recorded only the shape and the aspect.

        Raises:
            InputError: the record is damaged.
        """
        if "preprocessing" in self.config:
            return from_plain(Preprocessing, self.config["preprocessing"])
        return Preprocessing(tuple(self.config["image_shape"]), self.config["train"]["aspect"])

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The content of `metrics.json`: see `keras_vit.evaluation.judge`."""
        return read_json(self.path / METRICS, fix=TRAIN_AGAIN)

    @property
    def temperature(self) -> float:
        """The number that the logits are divided by, which calibrates the probabilities."""
        return self.metrics["calibration"]["temperature"]

    @cached_property
    def rejection(self) -> OODDetector | None:
        """Which images are unlike the training images.

        `None` if the run had too few validation images to learn it; `metrics["rejection"]["fitted_on"]` says
        why.

        Raises:
            InputError: an earlier version trained the run and learned no rejection, or the file is damaged.
        """
        if "rejection" not in self.metrics:
            raise InputError(
                f"An earlier version trained {self.path}, which did not learn to reject out-of-distribution "
                f"images: train again with `keras-vit train --config {self.path / CONFIG} --out NEW`."
            )
        if self.metrics["rejection"]["fitted_on"] != "validation":
            return None
        return OODDetector.load(self.path / REJECTION)


def load_run(path: str | Path) -> Run:
    """Opens a run folder.

    Args:
        path: the folder that `train` made.

    Raises:
        InputError: there is no such folder, the run is not finished, or a file is missing or damaged.
    """
    path = Path(path)
    if not path.is_dir() and partial_of(path).is_dir():
        raise InputError(
            f"The run {path} is not finished: continue it with `keras-vit train --out {path} --resume`."
        )
    if not path.is_dir():
        raise InputError(f"There is no run folder {path}: give the folder that `keras-vit train` made.")
    for name in (CONFIG, MODEL, METRICS):
        if not (path / name).is_file():
            raise InputError(
                f"{path} is not a run folder, it has no {name}: give one that `keras-vit train` made."
            )
    run = Run(path, read_json(path / CONFIG, fix=TRAIN_AGAIN))
    try:
        _ = run.class_names, run.preprocessing, run.temperature
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{path} has a damaged {CONFIG} or {METRICS} (no {error}): {TRAIN_AGAIN}."
        ) from error
    except InputError as error:
        raise InputError(
            f"{path} has a damaged {CONFIG} ({str(error).rstrip('.')}): {TRAIN_AGAIN}."
        ) from error
    return run


def load_model(path: str | Path) -> "keras.Model":
    """Reads a `.keras` file of this package, with Keras's safe mode on.

    Raises:
        InputError: the file is missing, damaged, or holds code (a Lambda layer).
    """
    import keras

    import keras_vit.model.vit  # noqa: F401  (registers ViT and its layers)

    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises exceptions of many types
        reason = first_line(error)
        if "Lambda" in str(error) or "unsafe" in str(error).lower():
            raise InputError(
                f"{path} holds code (a Lambda layer), which is not run: save the model without Lambda layers."
            ) from error
        raise InputError(f"{path} cannot be read as a Keras model ({reason}): train it again.") from error
