"""Which class an image is called, where that is not simply the likeliest: weights and costs of classes.

The rule is that of Bayes, the class with the least expected cost: C. Elkan, "The foundations of
cost-sensitive learning", IJCAI 2001. A weight is what it costs to miss an image of a class, so a least recall
and a table of costs lead to rules of one kind.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from keras_vit.evaluation.metrics import wilson_interval

TIE = 1e-5
"""Costs within this fraction of the least are equal: then the likeliest of their classes is named. A table
may charge the same for two classes, and rounding must not choose between them."""

TINY = 1e-30
"""Probabilities below count as this when weights are fitted: float32 has numbers down to 1e-38."""


@dataclass(frozen=True, eq=False)
class DecisionRule:
    """Names a class from calibrated probabilities.

    Without `costs`, the class with the largest probability times its weight. With `costs`, the class with the
    least expected cost, where every cost of a true class is multiplied by its weight.

    Args:
        weights: float64 (classes,), of the true classes, above 0.
        costs: float64 (classes, classes), of naming the column where it is the row, 0 on the diagonal; `None`
            where every mistake costs the same.
    """

    weights: np.ndarray
    costs: np.ndarray | None = None

    @property
    def table(self) -> np.ndarray:
        """The cost of naming the column where it is the row, weights included: (classes, classes)."""
        costs = 1 - np.eye(len(self.weights)) if self.costs is None else self.costs
        return self.weights[:, None] * costs

    def decide(self, probabilities: ArrayLike) -> np.ndarray:
        """Which class is named: (n, classes) to int64 (n,)."""
        found = np.asarray(probabilities, np.float64)
        if self.costs is None:
            scores = found * self.weights
            near = scores >= scores.max(axis=1, keepdims=True) * (1 - TIE)
        else:
            scores = found @ self.table
            near = scores <= scores.min(axis=1, keepdims=True) * (1 + TIE)
        return np.where(near, found, -1).argmax(axis=1)

    def margin(self, probabilities: ArrayLike) -> np.ndarray:
        """How far each decision is from changing, as a fraction of what decides it: (n, classes) to (n,)."""
        found = np.asarray(probabilities, np.float64)
        if self.costs is None:
            second, first = np.sort(found * self.weights, axis=1)[:, -2:].T
        else:
            first, second = -np.sort(found @ self.table, axis=1)[:, :2].T
            first, second = -second, -first
        return (first - second) / np.maximum(np.abs(first), TINY)

    def surely_from(self) -> np.ndarray:
        """From which probability each class is named whatever the others have: (classes,), 1 for never."""
        table = self.table
        least = np.zeros(len(table))
        for i, own in enumerate(table):
            more = np.maximum(table[:, i, None] - table, 0)  # what naming i costs more than j, of a true k
            more[i] = 0
            with np.errstate(divide="ignore", invalid="ignore"):
                needed = np.where(more > 0, more / (own + more), 0)
            needed[:, i] = 0
            least[i] = needed.max()
        return least


def decision_figures(
    class_names: Sequence[str],
    labels: np.ndarray,
    before: np.ndarray,
    after: np.ndarray,
    costs: np.ndarray | None = None,
) -> dict[str, Any]:
    """What a rule changes on labelled images, ready for JSON.

    Args:
        class_names: one per class.
        labels: int (n,), n at least 1.
        before: int (n,), the likeliest classes.
        after: int (n,), the classes that the rule names.
        costs: as of `DecisionRule`, without weights; `None` if nothing was said of costs.

    Returns:
        `images`; `changed`, how many get another class; `before` and `after`, each with `correct`,
        `accuracy`, `balanced_accuracy`, `cost` (the mean per image; None without costs) and `per_class`:
        `name`, `images`, `found`, `recall` with its `interval` (Wilson, 95 %), `named`, `false_alarms`
        (images of other classes that get this one) and `precision`. A quotient 0 / 0 is None.
    """
    return {
        "images": len(labels),
        "changed": int((before != after).sum()),
        "before": _named(class_names, labels, before, costs),
        "after": _named(class_names, labels, after, costs),
    }


def _named(
    class_names: Sequence[str], labels: np.ndarray, named: np.ndarray, costs: np.ndarray | None
) -> dict[str, Any]:
    right = named == labels
    rows: list[dict[str, Any]] = []
    for i, name in enumerate(class_names):
        images, count = int((labels == i).sum()), int((named == i).sum())
        found = int((right & (labels == i)).sum())
        rows.append(
            {
                "name": str(name),
                "images": images,
                "found": found,
                "recall": found / images if images else None,
                "interval": list(wilson_interval(found, images)) if images else None,
                "named": count,
                "false_alarms": count - found,
                "precision": found / count if count else None,
            }
        )
    recalls = [row["recall"] for row in rows if row["recall"] is not None]
    return {
        "correct": int(right.sum()),
        "accuracy": float(right.mean()),
        "balanced_accuracy": float(np.mean(recalls)),
        "cost": None if costs is None else float(costs[labels, named].mean()),
        "per_class": rows,
    }
