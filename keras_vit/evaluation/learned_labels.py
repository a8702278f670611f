"""Whether a model of several labels learned anything: compared with an answer without looking."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_vit.evaluation.learned import LEVEL

RESAMPLES = 199
"""Shuffles of the images: one in 200 is the least share that they tell, which is below `LEVEL`."""

Judged = tuple[np.ndarray, np.ndarray]
"""Labels (n, classes) of 0 and 1, and logits of the same shape."""


def mean_average_precision(targets: np.ndarray, scores: np.ndarray) -> float:
    """The mean over the labels that some images have and some have not; NaN where there are none."""
    from sklearn.metrics import average_precision_score

    told = _told(targets)
    found = [average_precision_score(targets[:, i], scores[:, i]) for i in np.flatnonzero(told)]
    return float(np.mean(found)) if found else float("nan")


def prevalence(targets: np.ndarray) -> float:
    """The mean share of images with a label, of these labels: the average precision of not looking."""
    told = _told(targets)
    return float(targets[:, told].mean()) if told.any() else float("nan")


def beats_prevalence(targets: np.ndarray, scores: np.ndarray) -> bool:
    """Whether the mean average precision is higher than with the labels of other images: a permutation test.

    Where there are too few images for even a perfect model to show that, whether it is above the prevalence.
    """
    if not _told(targets).any():
        return True  # nothing can be said
    if mean_average_precision(targets, scores) <= prevalence(targets):
        return False
    return _chance_of(targets, scores) <= LEVEL or _chance_of(targets, targets.astype(float)) > LEVEL


def judge_label_learning(
    class_names: Sequence[str], training: Judged, validation: Judged, test: Judged, remedies: Sequence[str]
) -> tuple[str, dict[str, Any]] | None:
    """What must be said first of a model that is not better than an answer without looking at the image.

    Args:
        class_names: one per label.
        training: images that it was trained on, or some of them.
        validation: may have no images.
        test: images that it was not trained on.
        remedies: what to try, in words.

    Returns:
        `None` for a model that learned something; otherwise the warning, and the figures behind it.
    """
    if beats_prevalence(*test):
        return None
    if len(validation[0]) and mean_average_precision(*test) > prevalence(test[0]):
        both = [np.concatenate([one, other]) for one, other in zip(test, validation, strict=True)]
        if beats_prevalence(both[0], both[1]):
            return None
    first = "This model learned nothing: it is not better than an answer without looking at the image."
    advice = f"Try {' and '.join(filter(None, [', '.join(remedies[:-1]), *remedies[-1:]]))}."
    if beats_prevalence(*training):
        first = (
            "This model learned nothing that holds for other images than its training images (mean average "
            f"precision {mean_average_precision(*training):.1%} on those)."
        )
        advice = f"Check the labels and the split first. {advice}"
    figures = {
        part: {"images": len(one[0]), "mean_average_precision": mean_average_precision(*one)}
        | {"prevalence": prevalence(one[0])}
        for part, one in (("training", training), ("test", test))
    }
    found = figures["test"]
    text = (
        f"{first} On the test images: mean average precision {found['mean_average_precision']:.1%}; without "
        f"looking it is {found['prevalence']:.1%}, the mean share of images with a label. {advice}"
    )
    return text, figures


def _told(targets: np.ndarray) -> np.ndarray:
    """Labels that some of the images have, and some have not: bool (classes,)."""
    having = targets.astype(bool)
    return np.asarray(having.any(axis=0) & ~having.all(axis=0))


def _chance_of(targets: np.ndarray, scores: np.ndarray) -> float:
    """How probable it is that the labels of shuffled images fit as well.

    Written by hand here, because scikit-learn's average precision sorts anew each time, which takes minutes
    for 200 labels.
    """
    told = _told(targets)
    targets, order = targets[:, told].astype(np.float64), np.argsort(-scores[:, told], axis=0, kind="stable")
    ranks = np.arange(1, len(targets) + 1)[:, None]
    rng = np.random.default_rng(0)

    def mean_of(rows: np.ndarray) -> float:
        found = np.take_along_axis(rows, order, axis=0)
        return float(((found.cumsum(axis=0) / ranks * found).sum(axis=0) / found.sum(axis=0)).mean())

    own = mean_of(targets)
    reached = sum(mean_of(targets[rng.permutation(len(targets))]) >= own for _ in range(RESAMPLES))
    return (1 + reached) / (RESAMPLES + 1)
