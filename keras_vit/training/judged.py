"""The evaluation of a run that has ended: what metrics.json holds, of one or several labels per image."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_vit.data.pipeline import ImageData, Part
from keras_vit.evaluation.calibration import softmax
from keras_vit.evaluation.decision import judge_decision, rule_of
from keras_vit.evaluation.judge import fitted_temperature, judge
from keras_vit.evaluation.labels import judge_labels
from keras_vit.evaluation.trust import CalibrationImages, judge_trust
from keras_vit.runs.wanted import wanted_of
from keras_vit.training.config import TrainConfig
from keras_vit.training.learned import with_warning
from keras_vit.training.learned_labels import with_label_warning


def judge_run(
    config: TrainConfig,
    data: ImageData,
    *,
    logits: Mapping[Part, np.ndarray],
    last_logits: np.ndarray,
    calibration: CalibrationImages,
    training: np.ndarray,
    sides: tuple[int, int] | None,
    best_epoch: int = 1,
    last_epoch: int = 1,
) -> dict[str, Any]:
    """The content of `metrics.json`, without its rejection.

    Args:
        config: of the run.
        data: its images.
        logits: (n, classes) of the best model, by part; of the training images, those of `training`.
        last_logits: (n, classes) of the last model, of the test images.
        calibration: images that choose thresholds and weights of one class per image.
        training: positions in the training part.
        sides: height and width of the images as they came, the medians; `None` if unknown.
        best_epoch, last_epoch: from 1.
    """
    names, labels = data.class_names, data.labels("test")
    given: dict[str, Any] = dict(
        class_names=names,
        test_labels=labels,
        test_names=data.names("test"),
        test_logits_best=logits["test"],
        test_logits_last=last_logits,
        validation_labels=data.labels("validation"),
        validation_logits_best=logits["validation"],
        best_epoch=best_epoch,
        last_epoch=last_epoch,
    )
    if data.several:
        return with_label_warning(judge_labels(**given), config, data, sides, logits, training)
    temperature, _ = fitted_temperature(logits["validation"], data.labels("validation"))
    probabilities = calibration.logits
    if len(calibration.labels):
        probabilities = softmax(calibration.logits / temperature)
    decision = judge_decision(
        wanted_of(config.min_recall, config.costs, names),
        class_names=names,
        calibration=(probabilities, calibration.labels),
        source=calibration.source,
        test=(softmax(logits["test"] / temperature), labels),
    )
    rule = rule_of(decision)
    metrics = judge(**given, rule=rule, ordered=config.ordered is not None)
    metrics |= judge_trust(
        class_names=names,
        calibration=calibration,
        test_logits=logits["test"],
        test_labels=labels,
        temperature=temperature,
        accept_risk=config.accept_risk,
        rule=rule,
    )
    return with_warning(metrics | decision, config, data, sides, logits, training)
