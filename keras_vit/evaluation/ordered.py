"""Classes that are the steps of a scale: how far mistakes are from the truth."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

FIGURES = ("mean_absolute_error", "quadratic_kappa", "neighbour_mistakes")


def order_figures(confusion_matrix: ArrayLike) -> dict[str, Any]:
    """The figures of ordered classes, ready for JSON. The kappa is scikit-learn's.

    Reference: J. Cohen, "Weighted kappa", Psychological Bulletin 70 (1968) 213-220.

    Args:
        confusion_matrix: int (classes, classes), rows are true classes, columns predicted ones, both from the
            lowest to the highest.

    Returns:
        `mean_absolute_error`, in steps from a class to the next; `quadratic_kappa`, Cohen's kappa with the
        squares of the steps as weights, 1 for perfect and 0 for chance, None if all images have one class and
        get it; `neighbour_mistakes`, the fraction of the mistakes that are one step away, None without
        mistakes.
    """
    from sklearn.metrics import cohen_kappa_score

    matrix = np.asarray(confusion_matrix)
    true, predicted = np.nonzero(matrix)
    counts = matrix[true, predicted]
    steps = np.abs(true - predicted)
    wrong = int(counts[steps > 0].sum())
    one_class = len(np.union1d(true, predicted)) == 1
    kappa = None
    if not one_class:
        kappa = float(
            cohen_kappa_score(
                true, predicted, weights="quadratic", sample_weight=counts, labels=np.arange(len(matrix))
            )
        )
    return {
        "mean_absolute_error": float((steps * counts).sum() / counts.sum()),
        "quadratic_kappa": kappa,
        "neighbour_mistakes": float(counts[steps == 1].sum() / wrong) if wrong else None,
    }


def order_in_words(found: Mapping[str, Any]) -> str | None:
    """`"ordered classes: 0.12 steps from the truth on average, quadratic kappa 0.97, ..."`

    Args:
        found: of `classification_metrics`; `None` is returned if its classes have no order.
    """
    if FIGURES[0] not in found:
        return None
    kappa = "-" if found["quadratic_kappa"] is None else f"{found['quadratic_kappa']:.3f}"
    share = found["neighbour_mistakes"]
    mistakes = "no mistakes" if share is None else f"{share:.1%} of the mistakes name a neighbouring class"
    return (
        f"ordered classes: {found['mean_absolute_error']:.3f} steps from the truth on average, quadratic "
        f"kappa {kappa}, {mistakes}"
    )
