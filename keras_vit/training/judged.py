"""The evaluation of a run that has ended: accuracy, the rule that names classes, sets and referral."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_vit.data.pipeline import ImageData, Part
from keras_vit.evaluation.calibration import softmax
from keras_vit.evaluation.decision import judge_decision, rule_of
from keras_vit.evaluation.judge import fitted_temperature, judge
from keras_vit.evaluation.trust import CalibrationImages, judge_trust
from keras_vit.runs.wanted import wanted_of
from keras_vit.training.config import TrainConfig


def judge_run(
    config: TrainConfig,
    data: ImageData,
    logits: Mapping[Part, np.ndarray],
    last_logits: np.ndarray,
    calibration: CalibrationImages,
    best_epoch: int = 1,
    last_epoch: int = 1,
) -> dict[str, Any]:
    """The content of `metrics.json`, without its warning and its rejection.

    Args:
        config: of the run.
        data: its images.
        logits: (n, classes) of the best model, of the validation and of the test images.
        last_logits: (n, classes) of the last model, of the test images.
        calibration: images that choose thresholds and weights.
        best_epoch, last_epoch: from 1.
    """
    names, labels = data.class_names, data.labels("test")
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
    metrics = judge(
        class_names=names,
        test_labels=labels,
        test_names=data.names("test"),
        test_logits_best=logits["test"],
        test_logits_last=last_logits,
        validation_labels=data.labels("validation"),
        validation_logits_best=logits["validation"],
        best_epoch=best_epoch,
        last_epoch=last_epoch,
        rule=rule,
    )
    metrics |= judge_trust(
        class_names=names,
        calibration=calibration,
        test_logits=logits["test"],
        test_labels=labels,
        temperature=temperature,
        accept_risk=config.accept_risk,
        rule=rule,
    )
    return metrics | decision
