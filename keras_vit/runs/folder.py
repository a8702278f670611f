"""The folder that a training run leaves, and that every other command takes."""

import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any

from keras_vit.data.preprocess import BEFORE, Preprocessing, recorded
from keras_vit.errors import InputError, first_line
from keras_vit.evaluation.decision import Wanted, require_supported, rule_of
from keras_vit.evaluation.decision_rule import DecisionRule
from keras_vit.evaluation.labels import thresholds_in
from keras_vit.evaluation.ood import FITTED_ON, OODDetector
from keras_vit.evaluation.prediction_sets import PredictionSets
from keras_vit.evaluation.trust import REFERRAL, CalibrationImages, fitted_sets, with_risk
from keras_vit.files import UNFINISHED, partial_of, read_json
from keras_vit.runs.calibration import CALIBRATION, read_calibration
from keras_vit.runs.decided_again import decided_again
from keras_vit.runs.images import IMAGES, ImageRecord, read_record
from keras_vit.runs.label_schema import LabelMetrics
from keras_vit.runs.out_of_fold import OUT_OF_FOLD
from keras_vit.runs.schema import Config, Metrics, check_history
from keras_vit.runs.wanted import Costs, MinRecall, wanted_of
from keras_vit.sealed import check_file, check_seal
from keras_vit.text import say
from keras_vit.validation import check_plain

if TYPE_CHECKING:
    import keras
    import numpy as np

    from keras_vit.explain.explanation import Explanation
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
BOUND = (IMAGES, HISTORY, METRICS, MODEL, REJECTION, ADAPTER, OUT_OF_FOLD, CALIBRATION)
"""The files whose hashes config.json holds. What is only for people to read is not among them."""

ENSEMBLE = "ensemble.json"
"""In the place of config.json, the settings of several runs, each in a folder below."""

TRAIN_AGAIN = "train the run again"
EARLIER = (
    "an earlier version of keras_vit trained this run. Whether its files belong together, and whether its "
    "images have changed, cannot be checked."
)
AS_STORED = (
    "it was trained on images as they are stored, so they are read like that: Exif orientation is ignored, "
    "alpha is dropped. Train again for images as a viewer shows them."
)
RESTORE = f"restore the files of the run, or {TRAIN_AGAIN}"


@dataclass(frozen=True)
class Run:
    """A finished run.

    Args:
        path: its folder.
        config: the content of `config.json`: everything needed to repeat the run, versions too.
        accept_risk: instead of the one that the run was trained with, see `accepting`; `None` for that.
        wanted: what is asked of the classes that are named, instead of what the run was trained with; see
            `deciding`.
    """

    path: Path
    config: dict[str, Any]
    accept_risk: float | None = None
    wanted: Wanted | None = None

    @cached_property
    def model(self) -> "keras.Model":
        """The best model by validation, a `ViT` that returns logits.

        Raises:
            InputError: the file is damaged, holds code, or is of another run.
        """
        check_file(self.path / MODEL, self.config, RESTORE)
        found = load_model(self.path / MODEL)
        _check_model(found, self)
        return found

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
        return answer_model(
            *(self.model, self.temperature, rejection, self.preprocessing, flips),
            sets=self.prediction_sets,
            rule=self.rule,
            thresholds=self.thresholds,
        )

    def explain(
        self, images: Sequence[str | Path], class_name: str | None = None, block: int | None = None
    ) -> "list[Explanation]":
        """What the best model looks at in image files.

        Args:
            images: paths of image files.
            class_name: the class that the gradient-weighted map speaks for; `None` is the likeliest one of
                each image.
            block: number of the block whose heads are shown, 0 for `block_0`; `None` is the last one, or the
                attention pooling where the model has one.

        Returns:
            One `keras_vit.explain.explanation.Explanation` per image, in order. An image that cannot be read
            gets an `error` and does not affect the others.

        Raises:
            InputError: there is no such class or block, or the run cannot be used.
        """
        return list(self.explanations(images, class_name, block))

    def explanations(
        self,
        images: Sequence[str | Path],
        class_name: str | None = None,
        block: int | None = None,
        removal: "Callable[[np.ndarray, int], np.ndarray] | None" = None,
    ) -> "Iterator[Explanation]":
        """`explain`, but each image is read when it is asked for: for more of them than memory holds.

        `removal` is what `keras_vit.runs.trust.removal_search` gives, for one more map.
        """
        from keras_vit.runs.explain import explanations

        return explanations(
            self.model,
            self.answer_model,
            self.preprocessing,
            self.class_names,
            images,
            class_name,
            block,
            removal,
        )

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
    def several(self) -> bool:
        """Whether its images may have several labels, or none."""
        return self.config["data"].get("several_labels", False)

    @property
    def ordered(self) -> bool:
        """Whether its classes go from the lowest to the highest."""
        return self.config["train"].get("ordered") is not None

    @property
    def thresholds(self) -> "np.ndarray | None":
        """From which probability on an image has each label; `None` for one class per image."""
        return thresholds_in(self.metrics)

    @cached_property
    def preprocessing(self) -> Preprocessing:
        """How images become the input of the model; earlier versions recorded only the shape and the aspect.

        Raises:
            InputError: the record is damaged.
        """
        if "preprocessing" in self.config:
            return recorded(self.config["preprocessing"])
        return Preprocessing(tuple(self.config["image_shape"]), self.config["train"]["aspect"], **BEFORE)

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The content of `metrics.json`: see `keras_vit.evaluation.judge`.

        Raises:
            InputError: the file is damaged, or of another run.
        """
        found = read_metrics(self.path, self.config, LabelMetrics if self.several else Metrics)
        if tuple(found["class_names"]) != self.class_names:
            raise InputError(
                f"{self.path / METRICS} has other class names than {CONFIG} beside it: {RESTORE}."
            )
        return found

    @cached_property
    def images(self) -> ImageRecord | None:
        """Which images the run has seen, and as what; `None` for a run of an earlier version.

        Raises:
            InputError: `images.csv` is damaged, or of another run.
        """
        check_file(self.path / IMAGES, self.config, RESTORE)
        return read_record(self.path, self.class_names, self.several)

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
        if self.metrics["rejection"]["fitted_on"] not in FITTED_ON:
            return None
        path = self.path / REJECTION
        check_file(path, self.config, RESTORE)
        found = OODDetector.load(path)
        if found.threshold != self.metrics["rejection"].get("threshold", found.threshold):
            raise InputError(f"{path} has another threshold than {METRICS} beside it: {RESTORE}.")
        return found

    @cached_property
    def prediction_sets(self) -> PredictionSets | None:
        """Which classes an image may be, and whether a person should look at it.

        `None` if the run had too few images to learn it, or an earlier version trained it.
        """
        return fitted_sets(self.settled)

    @cached_property
    def settled(self) -> Mapping[str, Any]:
        """`metrics`, with the rule and the referral that count: see `deciding` and `accepting`."""
        metrics = decided_again(self.metrics, self.wanted, self.calibration, self.class_names, self.path)
        return with_risk(metrics, self.accept_risk, self.path)

    @property
    def rule(self) -> DecisionRule | None:
        """Which class is named; `None` for the likeliest."""
        return rule_of(self.settled)

    @cached_property
    def calibration(self) -> CalibrationImages | None:
        """What the run answers about images that it was not trained on; `None` if it has kept none.

        Raises:
            InputError: the file is damaged, or of another run.
        """
        path = self.path / CALIBRATION
        check_file(path, self.config, RESTORE)
        return read_calibration(path, len(self.class_names)) if path.is_file() else None

    @property
    def accepts_risk(self) -> bool:
        """Whether images are referred by an accepted risk, and not by their prediction sets."""
        referral = self.metrics.get(REFERRAL) or {}
        return self.accept_risk is not None or referral.get("accepted_risk") is not None

    def accepting(self, risk: float | None) -> "Run":
        """The run with another accepted risk; the same for `None`. Nothing is written.

        Args:
            risk: at most this fraction of the images that are not referred to a person may have a wrong
                label, on average.

        Raises:
            InputError: it is not between 0 and 1, or the run has too few calibration images for it.
        """
        if risk is None:
            return self
        self._refuse_several("--accept-risk")
        found = replace(self, accept_risk=risk)
        _ = found.prediction_sets
        return found

    def _refuse_several(self, options: str) -> None:
        if self.several:
            raise InputError(
                f"{self.path} names several labels per image, each from its threshold on: omit {options}, "
                "which choose one class."
            )

    def deciding(self, min_recall: MinRecall = None, costs: Costs = None) -> "Run":
        """The run with another rule that names classes; the same for `None`. Nothing is written.

        Args:
            min_recall: class name -> least share of its images that is found; or words such as
                `"scratches=0.98"`.
            costs: a file of `keras_vit.runs.wanted.read_costs`.

        Raises:
            InputError: an argument cannot be used, the recalls cannot be reached, or the run has kept no
                images to choose by.
        """
        wanted = wanted_of(min_recall, costs, self.class_names)
        if wanted is None:
            return self
        self._refuse_several("--min-recall and --costs")
        found = replace(self, wanted=wanted)
        require_supported(found.settled, self.path)
        return found


def several_runs(path: str | Path) -> str | None:
    """What a folder of several runs is, as a sentence that names them; `None` for any other folder.

    For a command that takes one run.
    """
    folder = Path(path)
    if not (folder / ENSEMBLE).is_file():
        return None
    found = sorted(config.parent for config in folder.glob(f"*-[0-9]*/{CONFIG}"))
    names = [run.name for run in found if not run.name.endswith(UNFINISHED)]
    if not names:
        return f"{folder} is for several runs, and none of them is finished: add --resume to the training."
    names.sort(key=lambda name: int(name.rpartition("-")[2]))
    return f"{folder} holds {len(names)} runs, and this takes one: give {folder / names[0]}" + (
        f" (or {', '.join(names[1:])} there)." if names[1:] else "."
    )


def load_run(path: str | Path) -> Run:
    """Opens a run folder.

    Args:
        path: the folder that `train` made.

    Raises:
        InputError: there is no such folder, the run is not finished, or a file is missing or damaged; or it
            is the folder of several runs.
    """
    path = Path(path)
    if several := several_runs(path):
        raise InputError(several)
    partial = partial_of(path)
    if not path.is_dir() and (partial / CONFIG).is_file():
        command = shlex.join(["keras-vit", "train", "--out", str(path), "--resume"])
        raise InputError(f"The run {path} is not finished: continue it with `{command}`.")
    if not path.is_dir() and partial.is_dir():
        raise InputError(
            f"The run {path} was cut off before its settings were written: begin it again with the command "
            "that began it."
        )
    if not path.is_dir():
        raise InputError(f"There is no run folder {path}: give the folder that `keras-vit train` made.")
    for name in (CONFIG, MODEL, METRICS):
        if not (path / name).is_file():
            raise InputError(
                f"{path} is not a run folder, it has no {name}: give one that `keras-vit train` made."
            )
    config = read_json(path / CONFIG, fix=TRAIN_AGAIN)
    sealed = check_config(path / CONFIG, config, TRAIN_AGAIN)
    run = Run(path, config)
    try:
        _ = run.preprocessing
    except InputError as error:
        raise InputError(
            f"{path} has a damaged {CONFIG} ({str(error).rstrip('.')}): {TRAIN_AGAIN}."
        ) from error
    last_epoch, history = run.metrics["last"]["epoch"], path / HISTORY
    for name in (HISTORY, IMAGES):
        check_file(path / name, config, RESTORE)
    if history.exists():
        _checked(history, lambda: check_history(history, last_epoch))
    if not sealed:
        say(f"{path}: {EARLIER}", stream=sys.stderr)
    if not run.preprocessing.exif_orientation:
        say(f"{path}: {AS_STORED}", stream=sys.stderr)
    return run


def check_config(path: Path, config: Any, fix: str) -> bool:
    """Checks the `config.json` of a run, finished or not.

    Args:
        path: of the file.
        config: its content.
        fix: what to do if it is damaged, for the error message.

    Returns:
        Whether it is bound to the other files; an earlier version wrote one that is not.

    Raises:
        InputError: a value is missing or of another kind, or the file has changed since it was written.
    """
    _checked(path, lambda: check_plain(Config, config), fix)
    return check_seal(path, config, fix)


def read_metrics(folder: Path, config: dict[str, Any], schema: type) -> dict[str, Any]:
    """The content of `metrics.json` of a run, or of several.

    Args:
        folder: that holds it.
        config: the content of the sealed file beside it.
        schema: of the content, for `check_plain`.

    Raises:
        InputError: the file is damaged, or of another run.
    """
    path = folder / METRICS
    check_file(path, config, RESTORE)
    found = read_json(path, fix=TRAIN_AGAIN)
    _checked(path, lambda: check_plain(schema, found))
    return found


def _checked(path: Path, check: Callable[[], Any], fix: str = TRAIN_AGAIN) -> None:
    """Raises InputError that names the file if its check raises one."""
    try:
        check()
    except InputError as error:
        raise InputError(f"{path} is damaged ({str(error).rstrip('.')}): {fix}.") from error


def _check_model(model: Any, run: Run) -> None:
    """Raises InputError if a model is not the one that its config.json describes."""
    config, described = model.get_config(), run.config["model_config"]
    for name in described.keys() & config.keys() - {"name", "dtype", "trainable"}:
        ours, wanted = config[name], described[name]
        if (list(ours) if isinstance(ours, tuple) else ours) != wanted:
            raise InputError(
                f"{run.path / MODEL} has {name}={ours!r}, and {CONFIG} says {wanted!r}: {RESTORE}."
            )


def load_model(path: str | Path) -> "keras.Model":
    """Reads a `.keras` file of this package, with Keras's safe mode on.

    Raises:
        InputError: the file is missing, damaged, claims more than it holds, or holds code (a Lambda layer).
    """
    import keras

    import keras_vit.model.vit  # noqa: F401  (registers ViT and its layers)
    from keras_vit.distribution.accelerators import keep_tensorflow_off_gpus
    from keras_vit.model.keras_file import check_keras_file

    keep_tensorflow_off_gpus()
    check_keras_file(Path(path))
    try:
        return keras.saving.load_model(path, compile=False, safe_mode=True)
    except Exception as error:  # Keras raises exceptions of many types
        reason = first_line(error)
        if "Lambda" in str(error) or "unsafe" in str(error).lower():
            raise InputError(
                f"{path} holds code (a Lambda layer), which is not run: save the model without Lambda layers."
            ) from error
        raise InputError(f"{path} cannot be read as a Keras model ({reason}): train it again.") from error
