"""The whole evaluation of a run: what `metrics.json` holds."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from keras_vit.evaluation.calibration import (
    expected_calibration_error,
    fit_temperature,
    reliability_bins,
    softmax,
)
from keras_vit.evaluation.decision_rule import DecisionRule
from keras_vit.evaluation.metrics import (
    checked_scores,
    classification_metrics,
    most_confident_mistakes,
)

UNCALIBRATED = "log_loss_uncalibrated"
"""The log loss without the temperature. `log_loss` is always that of the probabilities that a run answers."""


def judge(
    *,
    class_names: Sequence[str],
    test_labels: ArrayLike,
    test_names: Sequence[str],
    test_logits_best: ArrayLike,
    test_logits_last: ArrayLike,
    validation_labels: ArrayLike,
    validation_logits_best: ArrayLike,
    best_epoch: int,
    last_epoch: int,
    ordered: bool = False,
    rule: DecisionRule | None = None,
) -> dict[str, Any]:
    """Evaluates the two models of a run, that of the best and that of the last epoch. Ready for JSON.

    The best epoch was chosen on the validation images. The test images choose nothing here, neither the
    epoch nor the temperature.

    Args:
        class_names: One name per class.
        test_labels: int (n,).
        test_names: One name per test image.
        test_logits_best: (n, classes), of the best model.
        test_logits_last: (n, classes), of the model after the last epoch.
        validation_labels: int (m,); m may be 0.
        validation_logits_best: (m, classes), of the best model.
        best_epoch: Counted from 1.
        last_epoch: Counted from 1.
        ordered: Whether the classes go from the lowest to the highest.
        rule: That names the classes of the best model; `None` names the likeliest, as for the last model.

    Returns:
        A dict: `class_names`; `best` and `last`, each an `epoch` with its `classification_metrics`, those of
        `best` at the temperature, and `log_loss_uncalibrated`, which `last` has in place of `log_loss`;
        `calibration` of the best model on the test images (`temperature`, `fitted_on`, `validation_images`,
        `ece_before`, `ece_after`, `reliability_before`, `reliability_after`); `mistakes`, the most confident
        mistakes of the best model at that temperature. `fitted_on` is `"validation"`, or the reason why the
        temperature stays at 1.

    Raises:
        ValueError: The shapes do not match, a label is out of range, logits are not finite, or there are no
            test images.
    """
    if not 1 <= best_epoch <= last_epoch:
        raise ValueError(
            "epochs count from 1, and the best epoch must not be after the last. "
            f"Received: best_epoch={best_epoch}, last_epoch={last_epoch}"
        )
    checked_scores(test_labels, test_logits_last, "test_logits_last")
    labels, logits = checked_scores(test_labels, test_logits_best, "test_logits_best")
    validation_labels = np.asarray(validation_labels)
    temperature, fitted_on = fitted_temperature(validation_logits_best, validation_labels)
    before, after = softmax(logits), softmax(logits / temperature)
    named = None if rule is None else rule.decide(after)
    last = classification_metrics(labels, softmax(test_logits_last), class_names, ordered=ordered)
    last[UNCALIBRATED] = last.pop("log_loss")  # no temperature was fitted to this model
    return {
        "class_names": [str(name) for name in class_names],
        "best": {
            "epoch": int(best_epoch),
            **classification_metrics(labels, after, class_names, named, ordered),
            UNCALIBRATED: classification_metrics(labels, before, class_names)["log_loss"],
        },
        "last": {"epoch": int(last_epoch), **last},
        "calibration": {
            "temperature": temperature,
            "fitted_on": fitted_on,
            "validation_images": len(validation_labels),
            "ece_before": expected_calibration_error(before, labels),
            "ece_after": expected_calibration_error(after, labels),
            "reliability_before": reliability_bins(before, labels),
            "reliability_after": reliability_bins(after, labels),
        },
        "mistakes": most_confident_mistakes(labels, after, test_names, named=named),
    }


def fitted_temperature(logits: ArrayLike, labels: np.ndarray) -> tuple[float, str]:
    """The temperature of a run, and what it was fitted on: see `judge`.

    Args:
        logits: (n, classes) of the validation images.
        labels: int (n,), n may be 0.
    """
    if len(labels) == 0:
        return 1.0, "nothing: there is no validation part"
    labels, logits = checked_scores(labels, logits, "validation_logits_best")
    if (np.argmax(logits, axis=1) == labels).all():
        # The smaller the temperature, the better the fit: the lower bound would choose it, not the data.
        return 1.0, "nothing: every validation image is classified right, which fits any low temperature"
    return fit_temperature(logits, labels), "validation"
