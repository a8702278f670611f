"""Whether a run learned anything: what is printed while it trains, and the warning of its end."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_vit.data.audit import Audit
from keras_vit.data.image_set import evenly
from keras_vit.data.pipeline import ImageData, Part, read_pixels
from keras_vit.distribution import distribution_of
from keras_vit.evaluation.learned import SIDE, Named, judge_learning, linear_answers, no_better_than_one_class
from keras_vit.text import say
from keras_vit.training.balance import class_counts, is_uneven
from keras_vit.training.config import NONE, TrainConfig
from keras_vit.training.recipe import Recipe

WARNING, BASELINES = "warning", "baselines"
"""Entries of metrics.json that only a run has that learned nothing. The first one is its first key."""

MOST = 1_000
"""Images that a linear classifier is fitted to, and training images that the model is judged on."""

FIRST_EPOCHS = 5
"""After so many epochs, and two after the warm-up, the run says if it has learned nothing so far."""


def with_warning(
    metrics: dict[str, Any],
    config: TrainConfig,
    data: ImageData,
    sides: tuple[int, int] | None,
    logits: Mapping[Part, np.ndarray],
    training: np.ndarray,
) -> dict[str, Any]:
    """The content of metrics.json, with the warning as its first key where the run learned nothing.

    Args:
        metrics: of `judge`.
        config: of the run.
        data: its images.
        sides: height and width of the images as they came, the medians; `None` if unknown.
        logits: (n, classes) by part; of the training images, those of `training`.
        training: positions in the training part.
    """

    def linear() -> Named:
        some = evenly(len(data.split.train), MOST)
        return linear_answers(
            _thumbnails(data, data.split.train[some]),
            data.labels("train")[some],
            _thumbnails(data, data.split.test),
            data.labels("test"),
        )

    found = judge_learning(
        data.class_names,
        training=Named(data.labels("train")[training], logits["train"].argmax(axis=1)),
        validation=Named(data.labels("validation"), logits["validation"].argmax(axis=1)),
        test=Named(data.labels("test"), logits["test"].argmax(axis=1)),
        linear=linear,
        remedies=remedies(config, data, sides),
    )
    if found is None:
        return metrics
    text, figures = found
    say(f"warning: {text}")
    return {WARNING: text, **metrics, BASELINES: figures}


def remedies(config: TrainConfig, data: ImageData, sides: tuple[int, int] | None) -> list[str]:
    """What to try after a run that learned nothing, the most promising first."""
    found = []
    if config.init == NONE:
        found.append("published weights (--init auto)")
    recipe = config.recipe
    if (
        not data.several
        and recipe.class_weights is None
        and recipe.sampling != "balanced"
        and is_uneven(class_counts(data))
    ):
        found.append("class weights (--class-weights balanced)")
    height, width, _ = data.image_shape
    if sides is not None and height * width < sides[0] * sides[1]:
        found.append(f"larger images (--image-size, they have {sides[0]}x{sides[1]} pixels)")
    if recipe.tune == "head":
        found.append("training all weights (--recipe finetune)")
    elif recipe.epochs < 30:
        found.append("more epochs (--epochs 30)")
    return found or ["more images per class"]


class AfterFirstEpochs(keras.callbacks.Callback):
    """Prints one line after the first epochs, where a subclass has something to say."""

    def __init__(self, data: ImageData, recipe: Recipe):
        super().__init__()
        self.data = data
        self.epoch = max(FIRST_EPOCHS, math.ceil(recipe.warmup_epochs) + 2)

    def on_epoch_end(self, epoch, logs=None):
        if epoch + 1 != self.epoch or not distribution_of(self.model).is_chief:
            return
        if found := self.found(logs or {}):
            say(f"after {epoch + 1} epochs the model has learned nothing yet: {found}")

    def found(self, logs: Mapping[str, float]) -> str | None:
        """How little was learned, by the figures of the epoch; `None` if enough was."""
        raise NotImplementedError


class SayNothingLearned(AfterFirstEpochs):
    """Prints after the first epochs that the model names one class only, if it does.

    It reads the recall of each class from the metric `balanced_accuracy` of `compile_model`.
    """

    def found(self, logs):
        counts = class_counts(self.data)
        judged = {"training": (logs["balanced_accuracy"], counts)}
        if "val_balanced_accuracy" in logs:
            validation = np.bincount(self.data.labels("validation"), minlength=self.data.num_classes)
            judged["validation"] = (logs["val_balanced_accuracy"], validation)
        if not all(no_better_than_one_class(value, total) for value, total in judged.values()):
            return None
        found = " and ".join(f"{value:.1%} on the {part} images" for part, (value, _) in judged.items())
        name = self.data.class_names[int(counts.argmax())]
        return (
            f"its balanced accuracy is {found}, and always naming {name} gives "
            f"{1 / np.count_nonzero(counts):.1%}"
        )


def _thumbnails(data: ImageData, positions: Sequence[int] | np.ndarray) -> np.ndarray:
    """Small pictures of images as rows: float32 (n, width)."""
    import tensorflow as tf

    found = []
    for begin in range(0, len(positions), 256):
        images = data.image_set.take(positions[begin : begin + 256]).images
        with tf.device("CPU"):
            small = tf.image.resize(read_pixels(images, data.preprocessing), (SIDE, SIDE), method="area")
        found.append(small.numpy().reshape(len(images), -1))
    return np.concatenate(found)


def sides_of(audit: Audit) -> tuple[int, int] | None:
    """The medians of height and width in pixels of the images as they came; `None` if none can be read."""
    if not audit.height:
        return None
    return round(audit.height["median"]), round(audit.width["median"])
