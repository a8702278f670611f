"""The evaluation of a run at its end: what metrics.json holds, of one class per image or of several labels."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_vit.data.pipeline import ImageData, Part
from keras_vit.evaluation.judge import judge
from keras_vit.evaluation.labels import judge_labels
from keras_vit.evaluation.trust import CalibrationImages, judge_trust
from keras_vit.training.config import TrainConfig
from keras_vit.training.learned import with_warning
from keras_vit.training.learned_labels import with_label_warning


def judge_run(
    config: TrainConfig,
    data: ImageData,
    *,
    logits: Mapping[Part, np.ndarray],
    last_test_logits: np.ndarray,
    training: np.ndarray,
    best_epoch: int,
    last_epoch: int,
    sides: tuple[int, int] | None,
    calibration: CalibrationImages | None = None,
) -> dict[str, Any]:
    """The content of metrics.json, without the entry on rejection.

    Args:
        config: of the run.
        data: its images.
        logits: (n, classes) of the best model, by part; of the training images, those of `training`.
        last_test_logits: (n, classes), of the last epoch.
        training: positions in the training part.
        best_epoch, last_epoch: counted from 1.
        sides: height and width of the images as they came, the medians; `None` if unknown.
        calibration: images that decide the prediction sets; `None` for the validation images.
    """
    given: dict[str, Any] = dict(
        class_names=data.class_names,
        test_labels=data.labels("test"),
        test_names=data.names("test"),
        test_logits_best=logits["test"],
        test_logits_last=last_test_logits,
        validation_labels=data.labels("validation"),
        validation_logits_best=logits["validation"],
        best_epoch=best_epoch,
        last_epoch=last_epoch,
    )
    if data.several:
        found = judge_labels(**given)
        return with_label_warning(found, config, data, sides, logits, training)
    found = judge(**given, ordered=config.ordered is not None)
    found |= judge_trust(
        class_names=data.class_names,
        calibration=calibration or CalibrationImages(logits["validation"], data.labels("validation")),
        test_logits=logits["test"],
        test_labels=data.labels("test"),
        temperature=found["calibration"]["temperature"],
        accept_risk=config.accept_risk,
    )
    return with_warning(found, config, data, sides, logits, training)
