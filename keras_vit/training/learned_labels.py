"""Whether a run with several labels learned anything: its average precision against that of not looking."""

import math
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np

from keras_vit.data.pipeline import ImageData, Part
from keras_vit.distribution import distribution_of
from keras_vit.evaluation.learned_labels import judge_label_learning
from keras_vit.text import say
from keras_vit.training.config import TrainConfig
from keras_vit.training.learned import BASELINES, FIRST_EPOCHS, WARNING, remedies
from keras_vit.training.recipe import AVERAGE_PRECISION, Recipe


def with_label_warning(
    metrics: dict[str, Any],
    config: TrainConfig,
    data: ImageData,
    sides: tuple[int, int] | None,
    logits: Mapping[Part, np.ndarray],
    training: np.ndarray,
) -> dict[str, Any]:
    """`keras_vit.training.learned.with_warning`, for images with several labels."""
    found = judge_label_learning(
        data.class_names,
        training=(data.labels("train")[training], logits["train"]),
        validation=(data.labels("validation"), logits["validation"]),
        test=(data.labels("test"), logits["test"]),
        remedies=remedies(config, data, sides),
    )
    if found is None:
        return metrics
    text, figures = found
    say(f"warning: {text}")
    return {WARNING: text, **metrics, BASELINES: figures}


class SayNoLabelLearned(keras.callbacks.Callback):
    """Prints after the first epochs that the model is not better than an answer without looking, if so."""

    def __init__(self, data: ImageData, recipe: Recipe):
        super().__init__()
        self.data = data
        self.epoch = max(FIRST_EPOCHS, math.ceil(recipe.warmup_epochs) + 2)

    def on_epoch_end(self, epoch, logs=None):
        logs = logs or {}
        if epoch + 1 != self.epoch or not distribution_of(self.model).is_chief:
            return
        shares = self.data.targets("train").mean(axis=0)
        chance = float(shares.mean())
        error = math.sqrt(float((shares * (1 - shares)).mean()) / len(self.data.split.train))
        judged = {"training": logs[AVERAGE_PRECISION]}
        if f"val_{AVERAGE_PRECISION}" in logs:
            judged["validation"] = logs[f"val_{AVERAGE_PRECISION}"]
        if judged["training"] <= chance + 2 * error:
            found = " and ".join(f"{value:.1%} on the {part} images" for part, value in judged.items())
            say(
                f"after {epoch + 1} epochs the model has learned nothing yet: its mean average precision is "
                f"{found}, and an answer without looking gives {chance:.1%}"
            )
