"""The least weights of classes with which their images are found, a stated share of them.

The weight of a class is chosen on images that the model was not trained on. Of m images of the class, the
rule finds the ceil((m + 1) r) that are easiest to find: then a new image of the class is found with a
probability of r, as with the thresholds of `prediction_sets`. Where several classes have a least recall, each
weight depends on the others: they rise in turns until all hold, which gives the least weights that do.
"""

import math
from collections.abc import Mapping

import numpy as np

from keras_vit.evaluation.decision_rule import TINY
from keras_vit.evaluation.prediction_sets import GAP

MOST = 1e12
"""The largest weight: a class with it is named wherever its probability is above 1e-12."""

TURNS = 5_000


def needed_images(images: int, recall: float) -> int:
    """How many of a class's images the rule must find, so that new ones are found with this share."""
    return min(images, math.ceil((images + 1) * recall - 1e-9))


def supported_recall(images: int) -> float:
    """The largest least recall that so many images of a class can support."""
    return images / (images + 1)


def images_for(recall: float) -> int | None:
    """How many images of a class support a least recall; `None` for 1, which no number supports."""
    return None if recall >= 1 else math.ceil(recall / (1 - recall) - 1e-9)


def fit_weights(
    probabilities: np.ndarray, labels: np.ndarray, recalls: Mapping[int, float], costs: np.ndarray | None
) -> np.ndarray | None:
    """The least weights, 1 or more, with which each class reaches its recall.

    Args:
        probabilities: (n, classes), calibrated.
        labels: int (n,).
        recalls: class -> least recall, above 0, 1 at most; each class has images.
        costs: as of `DecisionRule`.

    Returns:
        float64 (classes,), 1 for the classes without a least recall; `None` if no weights up to `MOST` do.
    """
    found = np.maximum(np.asarray(probabilities, np.float64), TINY)
    weights = np.ones(found.shape[1])
    of_class = {i: found[labels == i] for i in recalls}
    for _ in range(TURNS):
        changed = False
        for i, recall in recalls.items():
            wanted = _least_weight(of_class[i], i, recall, weights, costs)
            if wanted > weights[i]:
                weights[i], changed = wanted, True
        if weights.max() > MOST:
            return None
        if not changed:
            return weights
    return None


def most_found(probabilities: np.ndarray, labels: np.ndarray, i: int, costs: np.ndarray | None) -> int:
    """How many images of a class are found at the largest weight."""
    own = np.maximum(np.asarray(probabilities, np.float64), TINY)[labels == i]
    least = _weights_to_be_found(own, i, np.ones(own.shape[1]), costs)
    return int((least <= MOST).sum())


def _least_weight(
    own: np.ndarray, i: int, recall: float, weights: np.ndarray, costs: np.ndarray | None
) -> float:
    """The least weight of class `i`, given those of the others, in a gap that rounding does not close."""
    with np.errstate(divide="ignore"):
        steps = np.log(np.maximum(np.sort(_weights_to_be_found(own, i, weights, costs)), TINY))
    at = needed_images(len(steps), recall) - 1
    while at + 1 < len(steps) and steps[at + 1] - steps[at] <= GAP:
        at += 1
    return float(np.exp(min(steps[at] + GAP / 2, math.log(MOST) + 1)))


def _weights_to_be_found(
    own: np.ndarray, i: int, weights: np.ndarray, costs: np.ndarray | None
) -> np.ndarray:
    """Above which weight of class `i` each of its images is named so: (n,), perhaps inf."""
    weighted = own * weights
    others = np.delete(np.arange(own.shape[1]), i)
    if costs is None:
        return weighted[:, others].max(axis=1) / own[:, i]
    weighted[:, i] = 0  # what the other classes cost
    expected = weighted @ costs
    more = expected[:, i, None] - expected[:, others]  # of naming i than of naming another
    with np.errstate(divide="ignore", invalid="ignore"):
        needed = more / (own[:, i, None] * costs[i, others])
    needed = np.where(costs[i, others] > 0, needed, np.where(more >= 0, np.inf, 0))
    return needed.max(axis=1)
