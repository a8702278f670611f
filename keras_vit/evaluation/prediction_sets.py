"""Prediction sets: for each image the classes that it may be, which hold the true one with a stated share.

Split conformal prediction: V. Vovk, A. Gammerman, G. Shafer, "Algorithmic learning in a random world", 2005.
A class is in the set of an image if its score is not lower than that of nearly all calibration images of the
class. The score is the probability of the class, which gives the smallest sets on average: M. Sadinle,
J. Lei, L. Wasserman, "Least ambiguous set-valued classifiers with bounded error levels", Journal of the
American Statistical Association 114 (2019). Thresholds per class are Mondrian conformal prediction.

Here the probability is written as its log-odds, log(p / (1 - p)), which orders images alike: 0.99999 and
0.999999 are one number for float32 and a threshold of 1e-4, but not for their log-odds.

Written by hand, because a threshold has to be a constant of the served graph, and to lie where rounding
errors decide about no image: see docs/decisions.md.
"""

from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from keras_vit.evaluation.metrics import checked_scores
from keras_vit.evaluation.ood import least_images

LEVEL = 0.95  # of the sets hold the true class, at least, on average

OWN_IMAGES = 39
"""Calibration images of a class for a threshold of its own. From 19 to 38 the threshold would be the lowest
score of all: one wrong label would put the class into nearly every set."""

GAP = 2e-3
"""A gap between log-odds in whose middle rounding errors decide about no image. In float32, logits differ by
1e-5 to 1e-4 between backends, devices and formats."""

TINY = np.finfo(np.float32).tiny


@dataclass(frozen=True, eq=False)
class PredictionSets:
    """Which classes an image may be, and whether a person should look at it.

    Args:
        thresholds: float64 (classes,), the lowest log-odds with which each class is in a set.
        level: fraction of the sets that hold the true class, at least, on average.
        refer_below: a person should look at images whose label has lower log-odds; `None` for images whose
            set is not the label alone. With thresholds per class, another class can be alone in the set.
    """

    thresholds: np.ndarray
    level: float = LEVEL
    refer_below: float | None = None

    def members(self, log_odds: ArrayLike) -> np.ndarray:
        """Which classes are in the sets: (n, classes) to bool (n, classes). NaN is in none."""
        return np.asarray(log_odds, dtype=np.float64) >= self.thresholds

    def refers(self, log_odds: ArrayLike, label: np.ndarray | None = None) -> np.ndarray:
        """Which images a person should look at: (n, classes) to bool (n,). NaN is referred.

        Args:
            log_odds: (n, classes).
            label: int (n,), the classes that the images are called; `None` for the likeliest.
        """
        log_odds = np.asarray(log_odds, dtype=np.float64)
        rows, label = np.arange(len(log_odds)), log_odds.argmax(axis=1) if label is None else label
        if self.refer_below is not None:
            return ~(log_odds[rows, label] >= self.refer_below)
        members = self.members(log_odds)
        has_label = members[rows, label]
        return ~(has_label & (members.sum(axis=1) == 1))


def log_odds(logits: ArrayLike) -> np.ndarray:
    """log(p / (1 - p)) of each class, for p = softmax(logits): (n, classes) to float64 (n, classes).

    1 - p is the sum over the other classes, so it does not vanish for a p near 1.
    """
    logits = np.asarray(logits, dtype=np.float64)
    away = logits - logits.max(axis=1, keepdims=True)  # at most 0
    each = np.exp(away)
    is_largest = np.arange(logits.shape[1]) == logits.argmax(axis=1)[:, None]
    rest = np.where(is_largest, 0, each).sum(axis=1, keepdims=True)
    others = np.where(is_largest, rest, rest + 1 - each)
    return away - np.log(np.maximum(others, TINY))


def fit_thresholds(
    scores: ArrayLike, labels: ArrayLike, level: float = LEVEL
) -> tuple[np.ndarray | None, np.ndarray]:
    """The lowest log-odds with which each class is in a set.

    A class with `OWN_IMAGES` or more has a threshold of its own, which keeps the level for the images of that
    class. The other classes share one, which keeps it for their images together; if they are too few even
    together, it is that of all images, which keeps it for no class in particular.

    Args:
        scores: log-odds (n, classes) of images that the model was not trained on.
        labels: int (n,), their true classes.
        level: above 0, below 1.

    Returns:
        The thresholds, float64 (classes,), or `None` if the images are too few; and bool (classes,), whether
        the threshold is of the class alone.

    Raises:
        ValueError: The shapes do not match, a label is out of range, or a score is not finite.
    """
    if not 0 < level < 1:
        raise ValueError(f"level must lie between 0 and 1. Received: {level}")
    scores = np.asarray(scores, dtype=np.float64)
    classes = scores.shape[-1]
    if not len(scores):
        return None, np.zeros(classes, bool)
    labels, scores = checked_scores(labels, scores, "scores")
    of_true = scores[np.arange(len(labels)), labels]
    own = np.bincount(labels, minlength=classes) >= max(OWN_IMAGES, least_images(1 - level))
    if len(labels) < least_images(1 - level):
        return None, np.zeros(classes, bool)
    together = of_true[~own[labels]]
    pooled = threshold(together if len(together) >= least_images(1 - level) else of_true, level)
    found = [threshold(of_true[labels == i], level) if own[i] else pooled for i in range(classes)]
    return np.array(found), own


def threshold(scores: np.ndarray, level: float) -> float:
    """The score that a new image of the same kind reaches with a probability of at least `level`.

    Of n images and a new one, each is equally likely to have the lowest score. So the floor((n + 1)(1 -
    level))-th lowest of the n scores keeps the guarantee, and any lower number too.

    Args:
        scores: (n,), finite; n is at least `least_images(1 - level)`.
        level: above 0, below 1.
    """
    ordered = np.sort(scores)[::-1]
    rank = int(np.ceil((len(ordered) + 1) * level - 1e-9))
    return below(ordered[rank - 1 :])


def below(scores: np.ndarray) -> float:
    """A threshold below the first of some scores, in a gap that is wider than `GAP`.

    Args:
        scores: sorted downwards, one or more.

    Returns:
        Half of `GAP` below the upper end of the first gap that is wide enough. With few images gaps are wide,
        and their middle would make the sets larger.
    """
    for high, low in pairwise([*scores.tolist(), -np.inf]):
        if high - low > GAP:
            return float(high - GAP / 2)
    raise AssertionError("the last gap has no end")
