"""Whether a run with several labels learned anything: its average precision against that of not looking."""

import math
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_vit.data.pipeline import ImageData, Part
from keras_vit.evaluation.learned_labels import judge_label_learning
from keras_vit.text import say
from keras_vit.training.config import TrainConfig
from keras_vit.training.learned import BASELINES, WARNING, AfterFirstEpochs, remedies
from keras_vit.training.recipe import AVERAGE_PRECISION


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


class SayNoLabelLearned(AfterFirstEpochs):
    """Prints after the first epochs that the model is not better than an answer without looking, if so."""

    def found(self, logs):
        shares = self.data.targets("train").mean(axis=0)
        chance = float(shares.mean())
        error = math.sqrt(float((shares * (1 - shares)).mean()) / len(self.data.split.train))
        judged = {"training": logs[AVERAGE_PRECISION]}
        if f"val_{AVERAGE_PRECISION}" in logs:
            judged["validation"] = logs[f"val_{AVERAGE_PRECISION}"]
        if judged["training"] > chance + 2 * error:
            return None
        found = " and ".join(f"{value:.1%} on the {part} images" for part, value in judged.items())
        return f"its mean average precision is {found}, and an answer without looking gives {chance:.1%}"
