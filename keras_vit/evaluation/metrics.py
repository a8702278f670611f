"""How often the model is right, class by class, and where it is most sure and wrong."""

import math
from collections.abc import Sequence
from statistics import NormalDist
from typing import Any

import numpy as np


def wilson_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """The score interval of a proportion: where the true accuracy may well lie, given a finite test set.

    It stays inside 0..1 and is honest near both ends, where the usual `p ± 1.96 s` is not.

    Reference: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22 (1927) 209-212.

    Args:
        correct: how many are right, 0..total.
        total: of how many, at least 1.
        confidence: the coverage asked for, between 0 and 1.

    Returns:
        `(low, high)`, as fractions.

    Raises:
        ValueError: for counts that are no counts, or a confidence outside 0..1.
    """
    if not 0 <= correct <= total or total < 1:
        raise ValueError(
            f"correct must lie in 0..total, total be at least 1. Received: correct={correct}, total={total}"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1. Received: {confidence}")
    z2 = NormalDist().inv_cdf((1 + confidence) / 2) ** 2
    p = correct / total
    middle = (p + z2 / (2 * total)) / (1 + z2 / total)
    half = math.sqrt(z2 * p * (1 - p) / total + (z2 / (2 * total)) ** 2) / (1 + z2 / total)
    # At the ends the formula gives 0 and 1 but for the rounding.
    low = 0.0 if correct == 0 else middle - half
    high = 1.0 if correct == total else middle + half
    return low, high


def checked_scores(labels, scores, what: str) -> tuple[np.ndarray, np.ndarray]:
    """`labels` as int64 (n,) and `scores` (logits or probabilities) as float64 (n, classes), or a ValueError.

    Args:
        labels: (n,), whole numbers in 0..classes-1.
        scores: (n, classes), finite, with at least one image and two classes.
        what: how the message calls the scores.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or len(scores) < 1 or scores.shape[1] < 2:
        raise ValueError(
            f"{what} must have the shape (images, classes), with at least one image and two classes. "
            f"Received: {scores.shape}"
        )
    if labels.shape != scores.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels must be {len(scores)} whole numbers, one for each row of {what}. "
            f"Received: shape {labels.shape}, dtype {labels.dtype}"
        )
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise ValueError(
            f"labels must lie in 0..{scores.shape[1] - 1}, the columns of {what}. "
            f"Received: {labels.min()}..{labels.max()}"
        )
    broken = int((~np.isfinite(scores)).any(axis=1).sum())
    if broken:
        raise ValueError(
            f"{what} must be finite. Received: NaN or infinity for {broken} of {len(scores)} images; "
            "the training that gave them has diverged"
        )
    return labels.astype(np.int64), scores


def checked_probabilities(labels, probabilities) -> tuple[np.ndarray, np.ndarray]:
    """As `checked_scores`, for rows that are at least 0 and sum to 1; the error of float16 is evened out."""
    labels, probabilities = checked_scores(labels, probabilities, "probabilities")
    sums = probabilities.sum(axis=1, keepdims=True)
    if probabilities.min() < 0 or np.abs(sums - 1).max() > 1e-2:
        raise ValueError(
            "probabilities must be at least 0 and sum to 1 in each row (are these logits?). "
            f"Received: least value {probabilities.min():.4g}, sums {sums.min():.4g}..{sums.max():.4g}"
        )
    return labels, probabilities / sums


def classification_metrics(labels, probabilities, class_names: Sequence[str]) -> dict[str, Any]:
    """What a set of labelled images says of a classifier, ready for JSON. By scikit-learn.

    Args:
        labels: int (n,), the true classes.
        probabilities: (n, classes), rows that sum to 1.
        class_names: one a column.

    Returns:
        A dict: `images`, `correct`, `accuracy`, `accuracy_interval` (Wilson, 95 %), `balanced_accuracy` (the
        mean recall of the classes that have images), `macro_f1` (the mean F1 of the classes that occur, as a
        label or as a prediction), `log_loss` (nats an image), `per_class` (a list of `name`, `precision`,
        `recall`, `f1`, `support`) and `confusion_matrix` (rows are true classes, columns predicted ones). A
        quotient 0 / 0 (the precision of a class that is never predicted, the recall of one without images) is
        None: not known, rather than 0.

    Raises:
        ValueError: for shapes that do not fit, labels out of range, or rows that are no probabilities.
    """
    from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support

    labels, probabilities = checked_probabilities(labels, probabilities)
    if len(class_names) != probabilities.shape[1]:
        raise ValueError(
            f"class_names must be one a column of probabilities, {probabilities.shape[1]}. "
            f"Received: {len(class_names)}"
        )
    classes = np.arange(len(class_names))
    predicted = probabilities.argmax(axis=1)
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=classes, zero_division=np.nan
    )
    correct, images = int((predicted == labels).sum()), len(labels)
    return {
        "images": images,
        "correct": correct,
        "accuracy": correct / images,
        "accuracy_interval": list(wilson_interval(correct, images)),
        "balanced_accuracy": float(np.nanmean(recall)),
        "macro_f1": float(np.nanmean(f1)),
        "log_loss": float(log_loss(labels, probabilities, labels=classes)),
        "per_class": [
            {
                "name": str(name),
                "precision": _known(precision[i]),
                "recall": _known(recall[i]),
                "f1": _known(f1[i]),
                "support": int(support[i]),
            }
            for i, name in enumerate(class_names)
        ],
        "confusion_matrix": confusion_matrix(labels, predicted, labels=classes).tolist(),
    }


def most_confident_mistakes(
    labels, probabilities, names: Sequence[str], limit: int = 12
) -> list[dict[str, Any]]:
    """The wrongly classified images of which the model is most sure, the surest first.

    They are worth a look before anything else: a wrong label, a second defect in the picture, or a true blind
    spot.

    Args:
        labels: int (n,), the true classes.
        probabilities: (n, classes), rows that sum to 1.
        names: how each image is called.
        limit: how many at most.

    Returns:
        A list of dicts: `name`, `index` (position in `labels`), `true` and `predicted` (class numbers),
        `confidence` (the probability of the predicted class), `probability_of_true`.

    Raises:
        ValueError: as `classification_metrics`, or where the names are not one an image.
    """
    labels, probabilities = checked_probabilities(labels, probabilities)
    if len(names) != len(labels):
        raise ValueError(f"names must be one an image, {len(labels)}. Received: {len(names)}")
    if limit < 0:
        raise ValueError(f"limit must be at least 0. Received: {limit}")
    predicted, confidence = probabilities.argmax(axis=1), probabilities.max(axis=1)
    wrong = np.flatnonzero(predicted != labels)
    surest = wrong[np.argsort(-confidence[wrong], kind="stable")][:limit]
    return [
        {
            "name": str(names[i]),
            "index": int(i),
            "true": int(labels[i]),
            "predicted": int(predicted[i]),
            "confidence": float(confidence[i]),
            "probability_of_true": float(probabilities[i, labels[i]]),
        }
        for i in surest
    ]


def _known(number) -> float | None:
    return None if np.isnan(number) else float(number)
