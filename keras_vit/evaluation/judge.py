"""The whole judgement of a run: what metrics.json holds."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_vit.evaluation.calibration import (
    expected_calibration_error,
    fit_temperature,
    reliability_bins,
    softmax,
)
from keras_vit.evaluation.metrics import (
    checked_scores,
    classification_metrics,
    most_confident_mistakes,
)


def judge(
    *,
    class_names: Sequence[str],
    test_labels,
    test_names: Sequence[str],
    test_logits_best,
    test_logits_last,
    validation_labels,
    validation_logits_best,
    best_epoch: int,
    last_epoch: int,
) -> dict[str, Any]:
    """Judge the two models that a run leaves, ready for JSON.

    The best model is the best by validation: the test images choose nothing here, neither the epoch nor the
    temperature.

    Args:
        class_names: one a class.
        test_labels: int (n,).
        test_names: how each test image is called.
        test_logits_best: (n, classes), of the best model.
        test_logits_last: (n, classes), of the model after the last epoch.
        validation_labels: int (m,); m may be 0.
        validation_logits_best: (m, classes), of the best model.
        best_epoch: counted from 1.
        last_epoch: counted from 1.

    Returns:
        A dict: `class_names`; `best` and `last`, each an `epoch` with its `classification_metrics`;
        `calibration` of the best model on the test images (`temperature`, `fitted_on`, `validation_images`,
        `ece_before`, `ece_after`, `reliability_before`, `reliability_after`); `mistakes`, the most confident
        ones of the best model at that temperature. `fitted_on` is `"validation"`, or else the reason why the
        temperature is left at 1.

    Raises:
        ValueError: for shapes that do not fit, labels out of range, logits that are not finite, or no test
            images.
    """
    if not 1 <= best_epoch <= last_epoch:
        raise ValueError(
            "epochs count from 1 and the best is none after the last. "
            f"Received: best_epoch={best_epoch}, last_epoch={last_epoch}"
        )
    checked_scores(test_labels, test_logits_last, "test_logits_last")
    labels, logits = checked_scores(test_labels, test_logits_best, "test_logits_best")
    temperature, fitted_on = _temperature(validation_logits_best, validation_labels)
    before, after = softmax(logits), softmax(logits / temperature)
    return {
        "class_names": [str(name) for name in class_names],
        "best": {"epoch": int(best_epoch), **classification_metrics(labels, before, class_names)},
        "last": {
            "epoch": int(last_epoch),
            **classification_metrics(labels, softmax(test_logits_last), class_names),
        },
        "calibration": {
            "temperature": temperature,
            "fitted_on": fitted_on,
            "validation_images": len(validation_labels),
            "ece_before": expected_calibration_error(before, labels),
            "ece_after": expected_calibration_error(after, labels),
            "reliability_before": reliability_bins(before, labels),
            "reliability_after": reliability_bins(after, labels),
        },
        "mistakes": most_confident_mistakes(labels, after, test_names),
    }


def _temperature(logits, labels) -> tuple[float, str]:
    if len(labels) == 0:
        return 1.0, "nothing: there is no validation part"
    labels, logits = checked_scores(labels, logits, "validation_logits_best")
    if (np.argmax(logits, axis=1) == labels).all():
        # Every smaller temperature would fit better: the bound, not the data, would choose it.
        return 1.0, "nothing: every validation image is classified right, which fits any low temperature"
    return fit_temperature(logits, labels), "validation"
