"""What the files of a run hold: one schema per file, checked where the file is read."""

from itertools import pairwise
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from keras_vit.data.image_set import SPLIT_PARTS
from keras_vit.data.targets import names_from_json
from keras_vit.errors import InputError
from keras_vit.evaluation.ood import FITTED_ON
from keras_vit.files import read_table
from keras_vit.text import shown
from keras_vit.validation import Count, Record, Seed, check_plain

UNLABELED, UNREADABLE = "unlabeled", "unreadable"
"""Parts of images.csv beside those of the split: trained on without a label; left out."""

Share = Annotated[float, Field(ge=0.0, le=1.0)]
NotNegative = Annotated[float, Field(ge=0.0)]
Number = Annotated[int, Field(ge=0)]
Name = Annotated[str, Field(min_length=1)]
Names = Annotated[list[Name], Field(min_length=2)]
Shape = Annotated[list[Count], Field(min_length=3, max_length=3)]
Sha256 = Annotated[str, Field(pattern="^[0-9a-f]{64}$")]


def _check_classes(names: list[str]) -> None:
    if len(set(names)) < len(names):
        raise ValueError("class_names has a name twice")


class Counts(Record):
    train: Count
    validation: Number
    test: Count


class Data(Record):
    source: str
    class_names: Names
    counts: Counts
    root: str | None = None
    root_from_run: str | None = None
    several_labels: bool = False


class Train(Record):
    """What of the settings is needed to find the images again."""

    data: str | None
    seed: Seed
    test_fraction: Annotated[float, Field(gt=0.0, le=0.9)]
    validation_fraction: Annotated[float, Field(ge=0.0, le=0.9)]
    aspect: str
    skip_unreadable: bool
    merge_validation: bool = False


class VitConfig(Record):
    num_classes: Count
    image_shape: Shape


class Shown(Record):
    """The preprocessing, which is a declaration of its own: see `Run.preprocessing`."""

    image_shape: Any


class Config(Record):
    """`config.json`"""

    data: Data
    train: Train
    image_shape: Shape
    vit: VitConfig = Field(alias="model_config")
    preprocessing: Shown | None = None
    weights: dict[str, Any] | None = None
    command: str
    versions: dict[str, str | None]

    @model_validator(mode="after")
    def _agrees(self):
        _check_classes(self.data.class_names)
        if len(self.data.class_names) != self.vit.num_classes:
            raise ValueError(
                f"data.class_names has {len(self.data.class_names)} names, and the model "
                f"{self.vit.num_classes} classes"
            )
        shapes = [self.vit.image_shape, self.preprocessing.image_shape if self.preprocessing else None]
        for shape in filter(None, shapes):
            if isinstance(shape, list) and shape != self.image_shape:
                raise ValueError(f"image_shape is {self.image_shape} in one place and {shape} in another")
        return self


class ClassRow(Record):
    name: Name
    precision: Share | None
    recall: Share | None
    f1: Share | None
    support: Number


class Judged(Record):
    epoch: Count
    images: Count
    correct: Number
    accuracy: Share
    accuracy_interval: Annotated[list[Share], Field(min_length=2, max_length=2)]
    balanced_accuracy: Share
    macro_f1: Share
    log_loss: NotNegative | None = None
    log_loss_uncalibrated: NotNegative | None = None
    per_class: list[ClassRow]
    confusion_matrix: list[list[Number]]
    mean_absolute_error: NotNegative | None = None
    quadratic_kappa: Annotated[float, Field(ge=-1.0, le=1.0)] | None = None
    neighbour_mistakes: Share | None = None

    @model_validator(mode="after")
    def _agrees(self):
        rows, matrix = self.per_class, self.confusion_matrix
        if len(matrix) != len(rows) or any(len(row) != len(rows) for row in matrix):
            raise ValueError("confusion_matrix does not have a row and a column per class")
        if [sum(row) for row in matrix] != [row.support for row in rows]:
            raise ValueError("confusion_matrix contradicts the support of the classes")
        right = sum(matrix[i][i] for i in range(len(rows)))
        if (self.images, self.correct) != (sum(map(sum, matrix)), right):
            raise ValueError("images and correct contradict the confusion_matrix")
        if abs(self.accuracy - self.correct / self.images) > 1e-9:
            raise ValueError("accuracy is not correct / images")
        return self


class Calibration(Record):
    temperature: Annotated[float, Field(gt=0.0)]
    fitted_on: str
    validation_images: Number
    ece_before: Share
    ece_after: Share


class Rate(Record):
    name: Name
    images: Number
    rejected: Number
    share: Share | None


class Rejected(Record):
    threshold: Annotated[float, Field(gt=0.0)] | None = None
    share_allowed: Share
    fitted_on: str
    rates: list[Rate]

    @model_validator(mode="after")
    def _agrees(self):
        given = "threshold" in self.model_fields_set
        if given and (self.threshold is None) == (self.fitted_on in FITTED_ON):
            raise ValueError("threshold and fitted_on contradict each other")
        return self


Finite = Annotated[float, Field(allow_inf_nan=False)]
Risk = Annotated[float, Field(gt=0.0, le=1.0)]


class SetClass(Record):
    name: Name
    images: Number
    own_threshold: bool
    threshold: Finite | None


class SetFigures(Record):
    images: Count
    covered: Number
    coverage: Share
    mean_size: NotNegative
    empty: Share
    several: Share


class Sets(Record):
    level: Annotated[float, Field(gt=0.0, lt=1.0)]
    fitted_on: str
    images: Number
    classes: list[SetClass]
    test: SetFigures | None

    @model_validator(mode="after")
    def _agrees(self):
        thresholds = {row.threshold is None for row in self.classes}
        if len(thresholds) != 1 or thresholds != {self.fitted_on.startswith("nothing: ")}:
            raise ValueError("prediction_sets: the thresholds contradict fitted_on")
        if sum(row.images for row in self.classes) != self.images:
            raise ValueError("prediction_sets: images is not the sum of those of the classes")
        return self


class Choice(Record):
    risk: Risk
    threshold: Finite
    images: Count
    wrong: Number


class Referral(Record):
    accepted_risk: Risk | None
    threshold: Finite | None
    unsupported: str | None
    choices: Annotated[list[Choice], Field(min_length=1)]

    @model_validator(mode="after")
    def _agrees(self):
        if (self.accepted_risk is None) and self.threshold is not None:
            raise ValueError("referral: a threshold without an accepted risk")
        if any(a.risk >= b.risk or a.images >= b.images for a, b in pairwise(self.choices)):
            raise ValueError("referral: the choices are not in order")
        if any(abs(row.risk - (row.wrong + 1) / (row.images + 1)) > 1e-9 for row in self.choices):
            raise ValueError("referral: a risk is not (wrong + 1) / (images + 1)")
        return self


class DecisionClass(Record):
    name: Name
    images: Number
    least_recall: Share | None
    weight: Annotated[float, Field(gt=0.0)] | None
    surely_from: Share | None


class Decision(Record):
    min_recall: dict[str, Annotated[float, Field(gt=0.0, le=1.0)]]
    costs: list[list[NotNegative]] | None
    fitted_on: str
    images: Number
    classes: list[DecisionClass]
    unsupported: str | None
    calibration: dict[str, Any] | None
    test: dict[str, Any] | None

    @model_validator(mode="after")
    def _agrees(self):
        if any((row.weight is None) != (self.unsupported is not None) for row in self.classes):
            raise ValueError("decision: the weights contradict unsupported")
        classes = len(self.classes)
        square = self.costs is None or [len(row) for row in self.costs] == [classes] * classes
        if not square:
            raise ValueError("decision: costs does not have a row and a column per class")
        return self


class Metrics(Record):
    """`metrics.json`"""

    warning: Name | None = None
    class_names: Names
    best: Judged
    last: Judged
    calibration: Calibration
    rejection: Rejected | None = None
    prediction_sets: Sets | None = None
    referral: Referral | None = None
    decision: Decision | None = None

    @model_validator(mode="after")
    def _agrees(self):
        _check_classes(self.class_names)
        for judged in (self.best, self.last):
            if [row.name for row in judged.per_class] != self.class_names:
                raise ValueError("per_class has other names than class_names")
        if self.best.epoch > self.last.epoch:
            raise ValueError("best.epoch is after last.epoch")
        if self.decision and [row.name for row in self.decision.classes] != self.class_names:
            raise ValueError("decision has other names than class_names")
        if self.prediction_sets is not None:
            if [row.name for row in self.prediction_sets.classes] != self.class_names:
                raise ValueError("prediction_sets has other names than class_names")
            if (self.referral is None) != (self.prediction_sets.test is None):
                raise ValueError("prediction_sets and referral contradict each other")
        elif self.referral is not None:
            raise ValueError("referral without prediction_sets")
        return self


class ImageRow(Record):
    """A row of `images.csv`: one image.

    Args:
        path: in the root of the data, or the name that the source gives the image.
        sha256: of the bytes of the file, or of the pixels of an array; empty if the file cannot be read.
        pixels: a fingerprint of the decoded pixels; empty if they cannot be decoded.
        label: the name of the class; empty for images without one.
        part: `"train"`, `"validation"`, `"test"`, `"unlabeled"` or `"unreadable"`.
    """

    path: Name
    sha256: Sha256 | Literal[""]
    pixels: Annotated[str, Field(pattern="^([0-9a-f]{32})?$")]
    label: str
    part: Literal["train", "validation", "test", "unlabeled", "unreadable"]

    @model_validator(mode="after")
    def _agrees(self):
        if (self.label == "") != (self.part == UNLABELED):
            raise ValueError("only images of the part unlabeled have no label")
        if self.part in SPLIT_PARTS and not self.sha256:
            raise ValueError("sha256 is missing")
        return self


def check_history(path: Path, last_epoch: int) -> None:
    """Checks `history.csv`: one row per epoch, and numbers in all cells that are filled.

    Raises:
        InputError: half a sentence that says what is wrong.
    """
    rows = read_table(path)
    try:
        epochs = [int(row["epoch"]) for row in rows]
        for row in rows:
            [float(cell) for cell in row.values() if cell]
    except (KeyError, ValueError, TypeError) as error:
        raise InputError(f"a cell is not a number ({error})") from None
    if epochs != list(range(1, last_epoch + 1)):
        raise InputError(f"it does not have one row for each of {last_epoch} epochs")


def check_rows(rows: list[dict[str, str]], class_names: tuple[str, ...], several: bool = False) -> None:
    """Checks the rows of `images.csv`.

    Args:
        rows: of the file.
        class_names: of the run.
        several: whether an image may have several labels, in a JSON list.

    Raises:
        InputError: half a sentence that says what is wrong.
    """
    if not rows:
        raise InputError("it has no images")
    check_plain(list[ImageRow], rows)
    texts = {row["label"] for row in rows} - {""}
    found = {name for text in texts for name in names_from_json(text)} if several else texts
    unknown = found - set(map(shown, class_names))
    if unknown:
        raise InputError(f"it has labels that are not classes of the run ({', '.join(sorted(unknown)[:5])})")
