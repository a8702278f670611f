"""Which labels are probably wrong: confident learning on answers to images that were not learned from.

C. G. Northcutt, L. Jiang and I. L. Chuang, "Confident Learning: Estimating Uncertainty in Dataset Labels",
Journal of Artificial Intelligence Research 70, 2021; their library is cleanlab.
"""

import warnings
from dataclasses import dataclass

import numpy as np

from keras_vit.errors import InputError

STRENGTH = 0.005
"""Inverse strength of the L2 penalty of the classifier: a weaker one learns wrong labels by heart."""

FOLDS = 5
REPEATS = 3
ROUNDS = 2
SURE, LIKELY = 4.0, 2.0
"""How many times as probable as the own label another must be."""

LEAST_WEIGHT = 0.02
"""Of an image whose label the others doubt."""

FEWEST = 2
"""Images of a class, or groups of them, from which its labels are judged."""


@dataclass(frozen=True)
class Suspects:
    """What is known of each label.

    Args:
        quality: float64 (n,), the probability of the label that the image has: low where it is doubtful.
        suggested: int64 (n,), the most probable label.
        named: bool (n,), whether the label is probably wrong.
    """

    quality: np.ndarray
    suggested: np.ndarray
    named: np.ndarray


def require_cleanlab() -> None:
    """Raises InputError where cleanlab is not installed."""
    try:
        import cleanlab  # noqa: F401
    except ImportError as error:
        raise InputError(
            f'Finding wrong labels needs cleanlab: pip install "keras-vit-defects[audit]". ({error})'
        ) from error


def find_wrong(labels: np.ndarray, probabilities: np.ndarray) -> Suspects:
    """The labels that are probably wrong: another one is much more probable.

    Confident learning counts how many labels of each class are wrong, and names as many of the least
    probable. That misses some where probabilities are sure, and names too many where two classes are alike.
    So a label is named where another is `SURE` times as probable, or where confident learning names it and
    another is `LIKELY` times as probable.

    Args:
        labels: int (n,), one of each class at least.
        probabilities: (n, classes), of answers that did not learn from the image.
    """
    from cleanlab.filter import find_label_issues

    own = probabilities[np.arange(len(labels)), labels]
    odds = probabilities.max(axis=1) / np.maximum(own, 1e-12)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        counted = np.asarray(find_label_issues(labels, probabilities, n_jobs=1), bool)
    named = (odds > SURE) | (counted & (odds > LIKELY))
    return Suspects(own, probabilities.argmax(axis=1), named)


def out_of_fold(features: np.ndarray, labels: np.ndarray, groups: np.ndarray, num_classes: int) -> np.ndarray:
    """The probability of each class of each image, by classifiers that did not learn from it: (n, classes).

    A logistic regression of the standardised features is fitted `1 + ROUNDS` times. From the second time on,
    an image counts as much as the answers before believed its label, so that wrong labels teach less and
    less. The mean over several draws of the folds is taken.

    Args:
        features: (n, width).
        labels: int (n,).
        groups: int (n,), equal for images that show the same thing: they stay in one fold.
        num_classes: of the answer.
    """
    from threadpoolctl import threadpool_limits

    weight = np.ones(len(labels))
    with threadpool_limits(1):  # the products are small: threads wait for each other longer than they compute
        for turn in range(1 + ROUNDS):
            found = np.mean(
                [
                    _one_draw(features, labels, groups, num_classes, weight, turn * REPEATS + draw)
                    for draw in range(REPEATS)
                ],
                axis=0,
            )
            own = found[np.arange(len(labels)), labels]
            weight = np.maximum(own / found.max(axis=1), LEAST_WEIGHT)
    return found


def _one_draw(
    features: np.ndarray,
    labels: np.ndarray,
    groups: np.ndarray,
    num_classes: int,
    weight: np.ndarray,
    seed: int,
) -> np.ndarray:
    from sklearn.linear_model import LogisticRegression
    from sklearn.model_selection import StratifiedGroupKFold

    found = np.zeros((len(labels), num_classes))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of classes with fewer images than folds
        parts = list(
            StratifiedGroupKFold(FOLDS, shuffle=True, random_state=seed).split(features, labels, groups)
        )
    for training, test in parts:
        mean, std = features[training].mean(axis=0), features[training].std(axis=0) + 1e-6
        model = LogisticRegression(C=STRENGTH, max_iter=1000, tol=1e-3)
        model.fit((features[training] - mean) / std, labels[training], sample_weight=weight[training])
        found[np.ix_(test, model.classes_)] = model.predict_proba((features[test] - mean) / std)
    return found
