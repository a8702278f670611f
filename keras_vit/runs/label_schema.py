"""What `metrics.json` of a run with several labels holds, checked where the file is read."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from keras_vit.runs.schema import Calibration, Name, Names, NotNegative, Number, Rejected, Share
from keras_vit.validation import Count, Record


class LabelRow(Record):
    name: Name
    average_precision: Share | None
    precision: Share | None
    recall: Share | None
    f1: Share | None
    threshold: Share
    support: Number


class LabelsJudged(Record):
    epoch: Count
    images: Count
    correct: Number
    accuracy: Share
    accuracy_interval: Annotated[list[Share], Field(min_length=2, max_length=2)]
    mean_average_precision: Share | None
    micro_average_precision: Share | None
    macro_f1: Share | None
    micro_f1: Share | None
    log_loss: NotNegative | None = None
    log_loss_uncalibrated: NotNegative | None = None
    per_class: list[LabelRow]

    @model_validator(mode="after")
    def _agrees(self):
        if abs(self.accuracy - self.correct / self.images) > 1e-9:
            raise ValueError("accuracy is not correct / images")
        if any(row.support > self.images for row in self.per_class):
            raise ValueError("a label has more images than there are")
        return self


class Threshold(Record):
    name: Name
    threshold: Share
    positives: Number
    own: bool


class Thresholds(Record):
    fitted_on: str
    validation_images: Number
    labels: list[Threshold]


class LabelMetrics(Record):
    """`metrics.json`"""

    warning: Name | None = None
    task: Literal["several labels"]
    class_names: Names
    best: LabelsJudged
    last: LabelsJudged
    thresholds: Thresholds
    calibration: Calibration
    rejection: Rejected | None = None

    @model_validator(mode="after")
    def _agrees(self):
        if len(set(self.class_names)) < len(self.class_names):
            raise ValueError("class_names has a name twice")
        for rows in (self.best.per_class, self.last.per_class, self.thresholds.labels):
            if [row.name for row in rows] != self.class_names:
                raise ValueError("per_class or thresholds has other names than class_names")
        if self.best.epoch > self.last.epoch:
            raise ValueError("best.epoch is after last.epoch")
        if [row.threshold for row in self.thresholds.labels] != [
            row.threshold for row in self.best.per_class
        ]:
            raise ValueError("best.per_class has other thresholds than thresholds")
        return self
