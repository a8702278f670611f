"""Whether a model learned anything: compared with always naming one class, and with a linear classifier."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

LEVEL = 0.01
"""How often chance may look like learning, or like a linear classifier that is better."""

LEVEL_OF_CHOSEN = 0.005
"""The same where validation images count too: they chose the epoch, which fits them by luck."""

LEVEL_OF_FEW = 0.1
"""The same where there are too few images of a class for even a perfect model to be below the others."""

RESAMPLES = 1_999

FEWEST_ERRORS = 7
"""With fewer mistakes of the model no other classifier is better at `LEVEL`: 0.5 ** 7 is 0.8 %."""

ALWAYS = 0.99
"""Share of the images from which on a model is said to name one class for all of them."""


@dataclass(frozen=True, eq=False)
class Named:
    """What a classifier named for labelled images.

    Args:
        labels: int (n,), the true classes.
        predicted: int (n,).
    """

    labels: np.ndarray
    predicted: np.ndarray

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def accuracy(self) -> float:
        return float((self.labels == self.predicted).mean())

    @property
    def balanced_accuracy(self) -> float:
        """The mean recall of the classes that have images."""
        return float(_balanced(self.labels, self.predicted))

    @property
    def chance(self) -> float:
        """The balanced accuracy of any answer that does not depend on the image."""
        return 1 / len(np.unique(self.labels))

    def most_frequent(self) -> tuple[int, float]:
        """The class that most images have, and their share: the accuracy of always naming it."""
        counts = np.bincount(self.labels)
        return int(counts.argmax()), float(counts.max() / len(self))

    def beats_chance(self, level: float = LEVEL) -> bool:
        """Whether the balanced accuracy is higher than chance explains.

        Args:
            level: how often chance may look like that; `LEVEL_OF_FEW` where there are too few images for even
                a perfect model to show it.
        """
        if len(np.unique(self.labels)) < 2:
            return True  # nothing can be said of one class
        if self.balanced_accuracy <= self.chance:
            return False
        by_chance = _chance_of(self)
        if by_chance <= level:
            return True
        perfect = _chance_of(Named(self.labels, self.labels))
        return perfect > level and by_chance <= max(perfect, LEVEL_OF_FEW)

    def figures(self) -> dict[str, Any]:
        return {
            "images": len(self),
            "accuracy": self.accuracy,
            "balanced_accuracy": self.balanced_accuracy,
            "most_frequent": self.most_frequent()[1],
        }


def judge_learning(
    class_names: Sequence[str],
    training: Named,
    validation: Named,
    test: Named,
    linear: Callable[[], Named],
    remedies: Sequence[str],
) -> tuple[str, dict[str, Any]] | None:
    """What must be said first of a model that is not better than an answer without looking.

    Args:
        class_names: one per class.
        training: images that it was trained on, or some of them.
        validation: may have no images.
        test: images that it was not trained on.
        linear: what a linear classifier that was fitted to thumbnails of training images names for the test
            images; called only where it matters.
        remedies: what to try, in words.

    Returns:
        `None` for a model that learned something; otherwise the warning, and the figures behind it.
    """
    held_out = test
    if len(validation):
        held_out = Named(
            np.concatenate([test.labels, validation.labels]),
            np.concatenate([test.predicted, validation.predicted]),
        )
    learned = test.beats_chance() or (
        test.balanced_accuracy > test.chance and held_out.beats_chance(LEVEL_OF_CHOSEN)
    )
    errors = int((test.labels != test.predicted).sum())
    if learned and errors < FEWEST_ERRORS:
        return None
    other = linear()
    if learned and not _is_better(other, test):
        return None
    advice = f"Try {_listed(remedies)}." if remedies else ""
    label, share = test.most_frequent()
    found = f"accuracy {test.accuracy:.1%}, balanced accuracy {test.balanced_accuracy:.1%}"
    always = (
        f"always naming {class_names[label]} gives {share:.1%} and {test.chance:.1%}"  # of accuracy, balanced
    )
    thumbnails = (
        f"a linear classifier of {SIDE}x{SIDE} thumbnails {other.accuracy:.1%} and "
        f"{other.balanced_accuracy:.1%}"
    )
    named, of_all = _named_most(test)
    if learned:
        first = "This model is worse than a linear classifier of thumbnails."
    elif training.beats_chance() and of_all < ALWAYS:
        first = (
            "This model learned nothing that holds for other images than its training images "
            f"({training.accuracy:.1%} of those are right)."
        )
        if not other.beats_chance():
            advice = f"Check the labels and the split first. {advice}"
    elif of_all >= ALWAYS:
        first = f"This model learned nothing: it names {class_names[named]} for {_share(of_all)} test images."
    else:
        first = "This model learned nothing: it is not better than an answer without looking at the image."
    if not learned and not training.beats_chance() and not other.beats_chance():
        advice = f"Check whether the images show their class and the labels are right. {advice}"
    text = f"{first} On the test images: {found}; {always}, {thumbnails}. {advice}".strip()
    return text, {
        "training": training.figures(),
        "test": test.figures(),
        "linear_on_thumbnails": other.figures(),
    }


SIDE = 8
"""Of the thumbnails, in pixels."""


def linear_answers(
    thumbnails: np.ndarray, labels: np.ndarray, others: np.ndarray, labels_of_others: np.ndarray
) -> Named:
    """What a logistic regression names that was fitted to thumbnails.

    Args:
        thumbnails: (n, width), of training images.
        labels: int (n,).
        others: (m, width), of the images to name.
        labels_of_others: int (m,).
    """
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits

    if len(np.unique(labels)) < 2:
        return Named(labels_of_others, np.full(len(others), labels[0]))
    with threadpool_limits(1):
        model = make_pipeline(StandardScaler(), LogisticRegression(C=0.02, max_iter=500, tol=1e-3))
        model.fit(thumbnails, labels)
        return Named(labels_of_others, model.predict(others))


def no_better_than_one_class(balanced_accuracy: float, counts: np.ndarray) -> bool:
    """Whether a balanced accuracy is that of a model that does not look: for a note during training.

    Args:
        balanced_accuracy: of the images.
        counts: int (classes,), images of each class.
    """
    counts = counts[counts > 0]
    if len(counts) < 2:
        return False
    chance = 1 / len(counts)
    error = np.sqrt((chance * (1 - chance) / counts).sum()) / len(counts)
    return bool(balanced_accuracy <= chance + 2 * error)


def _balanced(labels: np.ndarray, predicted: np.ndarray) -> np.ndarray:
    """Balanced accuracy over the last axis: (..., n) and (n,) to (...)."""
    counts = np.bincount(labels.reshape(-1, labels.shape[-1])[0])
    weight = 1 / (np.maximum(counts, 1) * np.count_nonzero(counts))
    return np.where(labels == predicted, weight[labels], 0.0).sum(axis=-1)


def _chance_of(named: Named) -> float:
    """How probable it is that shuffled labels fit as well: a permutation test, by scipy."""
    from scipy.stats import permutation_test

    found = permutation_test(
        (named.labels,),
        lambda labels, axis=-1: _balanced(labels, named.predicted),
        permutation_type="pairings",
        vectorized=True,
        alternative="greater",
        n_resamples=RESAMPLES,
        batch=max(1, 4_000_000 // len(named)),
        random_state=0,
    )
    return float(found.pvalue)


def _is_better(one: Named, other: Named) -> bool:
    """Whether a classifier is better than another on the same images: the exact test of McNemar."""
    from scipy.stats import binomtest

    a, b = one.predicted == one.labels, other.predicted == other.labels
    only_a, only_b = int((a & ~b).sum()), int((b & ~a).sum())
    if only_a <= only_b or one.balanced_accuracy <= other.balanced_accuracy:
        return False
    return binomtest(only_a, only_a + only_b, alternative="greater").pvalue <= LEVEL


def _named_most(named: Named) -> tuple[int, float]:
    counts = np.bincount(named.predicted)
    return int(counts.argmax()), float(counts.max() / len(named))


def _share(share: float) -> str:
    return "all" if share == 1 else f"{share:.1%} of the"


def _listed(words: Sequence[str]) -> str:
    return " and ".join(filter(None, [", ".join(words[:-1]), words[-1]]))
