"""Images with several labels: thresholds, metrics per label and overall, and the evaluation of a run."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from keras_vit.evaluation.calibration import (
    expected_calibration_error,
    fit_temperature,
    reliability_bins,
    softmax,
)
from keras_vit.evaluation.judge import UNCALIBRATED
from keras_vit.evaluation.metrics import require_finite, wilson_interval

TASK, SEVERAL = "task", "several labels"
"""Entry of metrics.json that only a run with several labels has, and its value."""

THRESHOLDS = "thresholds"
"""Entry of metrics.json: from which probability on an image gets each label."""

AVERAGES = ("mean_average_precision", "micro_average_precision")

HALF = 0.5
"""The threshold of a label that too few validation images have."""

FEWEST = 5
"""Validation images with a label, and without it, that a threshold of its own takes."""

EXAMPLES = 3
"""Wrong images that are shown of each label."""

SHOWN_LABELS = 20
"""Labels of which wrong images are shown: a page of hundreds would be large."""


def sigmoid(logits: ArrayLike) -> np.ndarray:
    """Logits to float64 probabilities, each by itself. By scipy."""
    from scipy import special

    return special.expit(np.asarray(logits, dtype=np.float64))


def checked_labels(targets: ArrayLike, scores: ArrayLike, what: str) -> tuple[np.ndarray, np.ndarray]:
    """`targets` as int64 (n, labels) of 0 and 1, and `scores` as float64 of the same shape.

    Raises:
        ValueError: the shapes differ, a target is neither 0 nor 1, or a score is not finite.
    """
    targets, scores = np.asarray(targets), np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or len(scores) < 1 or targets.shape != scores.shape:
        raise ValueError(
            f"targets and {what} must both have the shape (images, labels). "
            f"Received: {targets.shape} and {scores.shape}"
        )
    if not np.isin(targets, (0, 1)).all():
        raise ValueError("targets must be 0 and 1")
    require_finite(scores, what)
    return targets.astype(np.int64), scores


def best_threshold(targets: np.ndarray, probabilities: np.ndarray) -> float:
    """The threshold with the highest F1 on some images, half way to the next lower probability.

    Of equal F1 the highest threshold is taken. By scikit-learn.

    Args:
        targets: (n,) of 0 and 1, with at least one 1.
        probabilities: (n,).
    """
    from sklearn.metrics import precision_recall_curve

    precision, recall, found = precision_recall_curve(targets, probabilities)
    f1 = 2 * precision * recall / np.maximum(precision + recall, 1e-12)
    chosen = float(found[len(found) - 1 - int(f1[: len(found)][::-1].argmax())])
    lower = probabilities[probabilities < chosen]
    return (chosen + float(lower.max())) / 2 if len(lower) else chosen / 2


def fit_thresholds(targets: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """From which probability on an image gets each label, and which labels have a threshold of their own.

    The threshold of a label is the one with the highest F1. A label that fewer than `FEWEST` images have, or
    have not, gets `HALF`.

    Args:
        targets: (n, labels) of 0 and 1, of images that the model was not trained on; n may be 0.
        probabilities: (n, labels), calibrated.

    Returns:
        float64 (labels,) and bool (labels,).
    """
    number = targets.shape[1]
    thresholds, own = np.full(number, HALF), np.zeros(number, bool)
    for i in range(number):
        positive = int(targets[:, i].sum())
        if min(positive, len(targets) - positive) >= FEWEST:
            thresholds[i], own[i] = best_threshold(targets[:, i], probabilities[:, i]), True
    return thresholds, own


def label_metrics(
    targets: ArrayLike,
    probabilities: ArrayLike,
    thresholds: ArrayLike,
    class_names: Sequence[str],
    named: ArrayLike | None = None,
) -> dict[str, Any]:
    """The metrics of a model of several labels on a set of images, ready for JSON. By scikit-learn.

    Args:
        targets: (n, labels) of 0 and 1.
        probabilities: (n, labels) in 0..1.
        thresholds: (labels,); an image gets a label from this probability on.
        class_names: one name per label.
        named: (n, labels) of 0 and 1, the labels that images get, where not all have the same thresholds.

    Returns:
        A dict: `images`; `correct`, of how many all labels are right, as a fraction `accuracy` with its
        `accuracy_interval` (Wilson, 95 %); `mean_average_precision`, the mean over the labels that some
        images have (macro), and `micro_average_precision` over all decisions; `macro_f1`, the mean F1 of the
        labels that occur as a label or as an answer, and `micro_f1`; `log_loss`, nats per decision;
        `labels_per_image`; `prevalence`, the mean share of images with a label, which is the average
        precision of an answer without looking; `per_class`, rows of `name`, `average_precision`,
        `precision`, `recall`, `f1`, `threshold` and `support`, the number of images with the label. What no
        image tells is None.

    Raises:
        ValueError: the shapes do not match, a target is neither 0 nor 1, or a probability is not in 0..1.
    """
    from sklearn.metrics import average_precision_score, f1_score, log_loss, precision_recall_fscore_support

    targets, probabilities = checked_labels(targets, probabilities, "probabilities")
    thresholds = np.asarray(thresholds, np.float64)
    if probabilities.min() < 0 or probabilities.max() > 1:
        raise ValueError("probabilities must be in 0..1 (are these logits?)")
    if not len(class_names) == len(thresholds) == targets.shape[1]:
        raise ValueError(
            f"class_names and thresholds must be one per label, {targets.shape[1]}. "
            f"Received: {len(class_names)} and {len(thresholds)}"
        )
    named = np.asarray(probabilities >= thresholds if named is None else named, np.int64)
    precision, recall, f1, support = precision_recall_fscore_support(
        targets, named, average=None, zero_division=np.nan
    )
    occurs = support > 0
    average = np.full(len(thresholds), np.nan)
    for i in np.flatnonzero(occurs):
        average[i] = average_precision_score(targets[:, i], probabilities[:, i])
    images, correct = len(targets), int((named == targets).all(axis=1).sum())
    has_any = bool(targets.any())
    return {
        "images": images,
        "correct": correct,
        "accuracy": correct / images,
        "accuracy_interval": list(wilson_interval(correct, images)),
        "mean_average_precision": float(average[occurs].mean()) if has_any else None,
        "micro_average_precision": float(average_precision_score(targets.ravel(), probabilities.ravel()))
        if has_any
        else None,
        "macro_f1": _mean(f1),
        "micro_f1": _known(f1_score(targets, named, average="micro", zero_division=np.nan)),
        "log_loss": float(log_loss(targets.ravel(), probabilities.ravel(), labels=[0, 1])),
        "labels_per_image": float(targets.sum(axis=1).mean()),
        "prevalence": float(targets[:, occurs].mean()) if has_any else None,
        "per_class": [
            {
                "name": str(name),
                "average_precision": _known(average[i]),
                "precision": _known(precision[i]),
                "recall": _known(recall[i]),
                "f1": _known(f1[i]),
                "threshold": float(thresholds[i]),
                "support": int(support[i]),
            }
            for i, name in enumerate(class_names)
        ],
    }


def judge_labels(
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
) -> dict[str, Any]:
    """`judge`, for images with several labels: (n, labels) of 0 and 1.

    Temperature and thresholds are those of the validation images; the test images choose nothing.

    Returns:
        A dict: `task`; `class_names`; `best` and `last`, each an `epoch` with its `label_metrics`, and
        `log_loss_uncalibrated`; `thresholds` (`fitted_on`, `validation_images`, and per label in `labels`:
        `name`, `threshold`, `positives` among the validation images, and `own`, whether these have chosen
        it); `calibration` of single decisions, as `judge` has it; `mistakes`, up to `EXAMPLES` wrong images
        for each of the first `SHOWN_LABELS` labels: `label`, `name`, `index`, `true` (the labels of the
        image), `missed` (or else named wrongly), `probability`.
    """
    labels, logits = checked_labels(test_labels, test_logits_best, "test_logits_best")
    _, last_logits = checked_labels(test_labels, test_logits_last, "test_logits_last")
    targets = np.asarray(validation_labels)
    of_validation = np.asarray(validation_logits_best, np.float64)
    temperature, fitted_on = temperature_of(targets, of_validation)
    thresholds, own = fit_thresholds(targets, sigmoid(of_validation / temperature))
    before, after = sigmoid(logits), sigmoid(logits / temperature)
    best = label_metrics(labels, after, thresholds, class_names)
    # At the same logits, so that the two differ by the model alone.
    raised = sigmoid(_log_odds(thresholds) * temperature)
    last = label_metrics(labels, sigmoid(last_logits), raised, class_names)
    last[UNCALIBRATED] = last.pop("log_loss")
    pairs = [decisions(labels, values) for values in (before, after)]
    positives = targets.sum(axis=0) if len(targets) else np.zeros(len(class_names), int)
    return {
        TASK: SEVERAL,
        "class_names": [str(name) for name in class_names],
        "best": {
            "epoch": int(best_epoch),
            **best,
            UNCALIBRATED: label_metrics(labels, before, raised, class_names)["log_loss"],
        },
        "last": {"epoch": int(last_epoch), **last},
        THRESHOLDS: {
            "fitted_on": "validation" if own.any() else "nothing: no label has enough validation images",
            "validation_images": len(targets),
            "labels": [
                {"name": str(name), "threshold": float(value), "positives": int(count), "own": bool(alone)}
                for name, value, count, alone in zip(class_names, thresholds, positives, own, strict=True)
            ],
        },
        "calibration": {
            "temperature": temperature,
            "fitted_on": fitted_on,
            "validation_images": len(targets),
            "ece_before": expected_calibration_error(pairs[0][1], pairs[0][0]),
            "ece_after": expected_calibration_error(pairs[1][1], pairs[1][0]),
            "reliability_before": reliability_bins(pairs[0][1], pairs[0][0]),
            "reliability_after": reliability_bins(pairs[1][1], pairs[1][0]),
        },
        "mistakes": wrong_examples(labels, after, thresholds, test_names),
    }


def decisions(targets: np.ndarray, probabilities: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Each label of each image as a question of two answers: targets (n * labels,), (n * labels, 2)."""
    p = probabilities.ravel()
    return targets.ravel().astype(np.int64), np.stack([1 - p, p], axis=1)


def temperature_of(targets: np.ndarray, logits: np.ndarray) -> tuple[float, str]:
    """The temperature of the logits of single labels, and what it was fitted on, as `judge` says it."""
    if not len(targets):
        return 1.0, "nothing: there is no validation part"
    targets, logits = checked_labels(targets, logits, "validation_logits_best")
    if ((logits > 0) == targets).all():
        return 1.0, "nothing: every validation image is classified right, which fits any low temperature"
    pairs = np.stack([np.zeros(logits.size), logits.ravel()], axis=1)  # softmax of these is the sigmoid
    return fit_temperature(pairs, targets.ravel()), "validation"


def wrong_examples(
    targets: np.ndarray, probabilities: np.ndarray, thresholds: np.ndarray, names: Sequence[str]
) -> list[dict[str, Any]]:
    """The wrong decisions of each label that are furthest from the truth: see `judge_labels`."""
    found = []
    for i in range(min(targets.shape[1], SHOWN_LABELS)):
        p, true = probabilities[:, i], targets[:, i] == 1
        wrong = np.flatnonzero((p >= thresholds[i]) != true)
        for index in wrong[np.argsort(-np.abs(p - true)[wrong], kind="stable")][:EXAMPLES]:
            found.append(
                {
                    "label": i,
                    "name": str(names[index]),
                    "index": int(index),
                    "true": np.flatnonzero(targets[index]).tolist(),
                    "missed": bool(true[index]),
                    "probability": float(p[index]),
                }
            )
    return found


def probabilities_of(metrics: Mapping[str, Any], logits: np.ndarray) -> np.ndarray:
    """The calibrated probabilities of a run, of either kind: float64 (n, classes)."""
    scaled = logits / metrics["calibration"]["temperature"]
    return sigmoid(scaled) if metrics.get(TASK) == SEVERAL else softmax(scaled)


def figures_of_logits(targets: np.ndarray, logits: np.ndarray) -> dict[str, float]:
    """The figures of an epoch: `accuracy` of single decisions, `loss` and `average_precision`."""
    found = label_metrics(targets, sigmoid(logits), np.full(targets.shape[1], HALF), [""] * targets.shape[1])
    return {
        "accuracy": float(((logits > 0) == targets).mean()),
        "average_precision": found["mean_average_precision"] or 0.0,
        "loss": found["log_loss"],
    }


def thresholds_in(metrics: Mapping[str, Any]) -> np.ndarray | None:
    """The thresholds of a run of several labels, float32 (labels,); `None` for a run of one label."""
    if metrics.get(TASK) != SEVERAL:
        return None
    return np.array([row["threshold"] for row in metrics[THRESHOLDS]["labels"]], np.float32)


def labels_in_words(found: Mapping[str, Any]) -> str:
    """`"mean average precision 91.2% (micro 92.0%), F1 85.0% (micro 86.1%), all labels right 70.0% ..."`

    Args:
        found: what `label_metrics` gives.
    """
    low, high = found["accuracy_interval"]
    return (
        f"mean average precision {_percent(found['mean_average_precision'])} (micro "
        f"{_percent(found['micro_average_precision'])}), mean F1 {_percent(found['macro_f1'])} (micro "
        f"{_percent(found['micro_f1'])}), all labels right {found['accuracy']:.1%} ({found['correct']} of "
        f"{found['images']}; 95 % interval {low:.1%} to {high:.1%})"
    )


def thresholds_in_words(found: Mapping[str, Any]) -> str | None:
    """Which labels have no threshold of their own; `None` if all have.

    Args:
        found: the entry `THRESHOLDS`.
    """
    names = [row["name"] for row in found["labels"] if not row["own"]]
    if not names:
        return None
    few = f"fewer than {FEWEST} of the {found['validation_images']} validation images have or lack it"
    which = "all labels" if len(names) == len(found["labels"]) else ", ".join(names)
    return f"threshold {HALF} where {few}: {which}"


def _log_odds(probabilities: np.ndarray) -> np.ndarray:
    from scipy import special

    return special.logit(np.clip(probabilities, 1e-12, 1 - 1e-12))


def _mean(values: np.ndarray) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def _known(number: float) -> float | None:
    return None if np.isnan(number) else float(number)


def _percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"
