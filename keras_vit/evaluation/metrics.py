"""Classification metrics, per class and overall, and the most confident mistakes."""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from keras_vit.evaluation.ordered import order_figures


def wilson_interval(correct: int, total: int, confidence: float = 0.95) -> tuple[float, float]:
    """The Wilson score interval of a proportion, such as the accuracy on a finite test set. By scipy.

    It stays inside 0..1 and is accurate near both ends, where the usual `p ± 1.96 s` is not.

    Reference: E. B. Wilson, "Probable inference, the law of succession, and statistical inference",
    Journal of the American Statistical Association 22 (1927) 209-212.

    Args:
        correct: Number of correct answers, 0..total.
        total: Number of answers, at least 1.
        confidence: Coverage of the interval, between 0 and 1.

    Returns:
        `(low, high)`, as fractions.

    Raises:
        ValueError: The counts or the confidence are out of range.
    """
    from scipy.stats import binomtest

    if not 0 <= correct <= total or total < 1:
        raise ValueError(
            "correct must lie in 0..total, and total must be at least 1. "
            f"Received: correct={correct}, total={total}"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1. Received: {confidence}")
    interval = binomtest(correct, total).proportion_ci(confidence, method="wilson")
    return float(interval.low), float(interval.high)


def checked_scores(labels: ArrayLike, scores: ArrayLike, what: str) -> tuple[np.ndarray, np.ndarray]:
    """`labels` as int64 (n,) and `scores` (logits or probabilities) as float64 (n, classes).

    Args:
        labels: (n,), integers in 0..classes-1.
        scores: (n, classes), finite, with at least one image and two classes.
        what: Name of the scores in an error message.

    Raises:
        ValueError: The labels or the scores are not as described.
    """
    labels, scores = np.asarray(labels), np.asarray(scores, dtype=np.float64)
    if scores.ndim != 2 or len(scores) < 1 or scores.shape[1] < 2:
        raise ValueError(
            f"{what} must have the shape (images, classes), with at least one image and two classes. "
            f"Received: {scores.shape}"
        )
    if labels.shape != scores.shape[:1] or not np.issubdtype(labels.dtype, np.integer):
        raise ValueError(
            f"labels must be {len(scores)} integers, one for each row of {what}. "
            f"Received: shape {labels.shape}, dtype {labels.dtype}"
        )
    if labels.min() < 0 or labels.max() >= scores.shape[1]:
        raise ValueError(
            f"labels must lie in 0..{scores.shape[1] - 1}, the columns of {what}. "
            f"Received: {labels.min()}..{labels.max()}"
        )
    require_finite(scores, what)
    return labels.astype(np.int64), scores


def require_finite(scores: np.ndarray, what: str) -> None:
    """Raises `ValueError` if a score of an image, (n, classes), is not finite."""
    broken = int((~np.isfinite(scores)).any(axis=1).sum())
    if broken:
        raise ValueError(
            f"{what} must be finite. Received: NaN or infinity for {broken} of {len(scores)} images; "
            "the training has diverged"
        )


def checked_probabilities(labels: ArrayLike, probabilities: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    """As `checked_scores`, for rows that are at least 0 and sum to 1.

    Rows that are off by the rounding of float16 are divided by their sum.
    """
    labels, probabilities = checked_scores(labels, probabilities, "probabilities")
    sums = probabilities.sum(axis=1, keepdims=True)
    if probabilities.min() < 0 or np.abs(sums - 1).max() > 1e-2:
        raise ValueError(
            "probabilities must be at least 0 and sum to 1 in each row (are these logits?). "
            f"Received: least value {probabilities.min():.4g}, sums {sums.min():.4g}..{sums.max():.4g}"
        )
    return labels, probabilities / sums


def classification_metrics(
    labels: ArrayLike,
    probabilities: ArrayLike,
    class_names: Sequence[str],
    named: np.ndarray | None = None,
    ordered: bool = False,
) -> dict[str, Any]:
    """The metrics of a classifier on a set of labelled images, ready for JSON. By scikit-learn.

    Args:
        labels: int (n,), the true classes.
        probabilities: (n, classes), rows that sum to 1.
        class_names: One name per column.
        named: int (n,), the classes that the images are called; `None` for the likeliest. The log loss is
            that of the probabilities.
        ordered: Whether the classes go from the lowest to the highest.

    Returns:
        A dict: `images`, `correct`, `accuracy`, `accuracy_interval` (Wilson, 95 %), `balanced_accuracy` (the
        mean recall of the classes that have images), `macro_f1` (the mean F1 of the classes that occur, as a
        label or as a prediction), `log_loss` (nats per image), `per_class` (a list of `name`, `precision`,
        `recall`, `f1`, `support`) and `confusion_matrix` (rows are true classes, columns predicted ones); of
        ordered classes also `keras_vit.evaluation.ordered.order_figures`. A quotient 0 / 0 (the precision of
        a class that is never predicted, the recall of a class without images) is None, which means unknown,
        rather than 0.

    Raises:
        ValueError: The shapes do not match, a label is out of range, or a row is not a probability
            distribution.
    """
    from sklearn.metrics import confusion_matrix, log_loss, precision_recall_fscore_support

    labels, probabilities = checked_probabilities(labels, probabilities)
    if len(class_names) != probabilities.shape[1]:
        raise ValueError(
            f"class_names must be one per column of probabilities, {probabilities.shape[1]}. "
            f"Received: {len(class_names)}"
        )
    classes = np.arange(len(class_names))
    predicted = probabilities.argmax(axis=1) if named is None else named
    precision, recall, f1, support = precision_recall_fscore_support(
        labels, predicted, labels=classes, zero_division=np.nan
    )
    correct, images = int((predicted == labels).sum()), len(labels)
    matrix = confusion_matrix(labels, predicted, labels=classes)
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
        "confusion_matrix": matrix.tolist(),
        **(order_figures(matrix) if ordered else {}),
    }


def most_confident_mistakes(
    labels: ArrayLike,
    probabilities: ArrayLike,
    names: Sequence[str],
    limit: int = 12,
    named: np.ndarray | None = None,
) -> list[dict[str, Any]]:
    """The wrong predictions with the highest confidence, the most confident first.

    Check these images first: they have a wrong label, show a second defect, or reveal a weakness of the
    model.

    Args:
        labels: int (n,), the true classes.
        probabilities: (n, classes), rows that sum to 1.
        names: One name per image.
        limit: Maximum number of mistakes.
        named: int (n,), the classes that the images are called; `None` for the likeliest.

    Returns:
        A list of dicts: `name`, `index` (position in `labels`), `true` and `predicted` (class numbers),
        `confidence` (the probability of the predicted class), `probability_of_true`.

    Raises:
        ValueError: As `classification_metrics`, or the number of names is not the number of images.
    """
    labels, probabilities = checked_probabilities(labels, probabilities)
    if len(names) != len(labels):
        raise ValueError(f"names must be one per image, {len(labels)}. Received: {len(names)}")
    if limit < 0:
        raise ValueError(f"limit must be at least 0. Received: {limit}")
    predicted = probabilities.argmax(axis=1) if named is None else named
    confidence = probabilities[np.arange(len(labels)), predicted]
    wrong = np.flatnonzero(predicted != labels)
    kept = wrong[np.argsort(-confidence[wrong], kind="stable")][:limit]
    return [
        {
            "name": str(names[i]),
            "index": int(i),
            "true": int(labels[i]),
            "predicted": int(predicted[i]),
            "confidence": float(confidence[i]),
            "probability_of_true": float(probabilities[i, labels[i]]),
        }
        for i in kept
    ]


def _known(number: float) -> float | None:
    """None for NaN."""
    return None if np.isnan(number) else float(number)
