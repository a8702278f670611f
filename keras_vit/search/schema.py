"""What the files in the folder of a search hold: one schema per file, checked where the file is read."""

from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from keras_vit.validation import Count, Record, Seed

Share = Annotated[float, Field(ge=0.0, le=1.0)]
Number = Annotated[int, Field(ge=0)]
Seconds = Annotated[float, Field(ge=0.0)]


class Counts(Record):
    train: Count
    validation: Count
    test: Count


class Data(Record):
    source: str
    class_names: Annotated[list[Annotated[str, Field(min_length=1)]], Field(min_length=2)]
    counts: Counts
    root: str | None = None
    root_from_run: str | None = None


class Settings(Record):
    """`search.json`"""

    asked: dict[str, Any]
    backend: Literal["tensorflow", "jax", "torch"]
    fingerprint: str
    data: Data
    frozen: dict[str, Any]
    searched: list[str]
    image_shape: Annotated[list[Count], Field(min_length=3, max_length=3)]
    max_epochs: Count
    seed: Seed
    validation_images: Count

    @model_validator(mode="after")
    def _agrees(self):
        names = self.data.class_names
        if len(set(names)) < len(names):
            raise ValueError("class_names has a name twice")
        if self.validation_images != self.data.counts.validation:
            raise ValueError("validation_images and data.counts contradict each other")
        return self


class Point(Record):
    values: dict[str, Any]


class Trial(Record):
    """`trial.json`, which KerasTuner writes: what is read of it here."""

    trial_id: Annotated[str, Field(pattern="^[A-Za-z0-9]+$")]
    hyperparameters: Point
    status: Literal["RUNNING", "IDLE", "INVALID", "STOPPED", "COMPLETED", "FAILED"]
    score: Share | None = None

    @model_validator(mode="after")
    def _agrees(self):
        if self.status == "COMPLETED" and self.score is None:
            raise ValueError("it is completed and has no score")
        return self


class Row(Record):
    epoch: Count


class Result(Record):
    """`result.json` of a trial. A trial that has diverged has a loss that is not finite."""

    seconds: Seconds
    parameters: Count
    history: list[Row]


class Baseline(Record):
    """`baseline.json`"""

    name: str
    score: Share
    epochs: Count
    seconds: Seconds
    parameters: Count
