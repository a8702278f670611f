"""Wrong labels among features whose true classes are known."""

import numpy as np
import pytest

from keras_vit.evaluation import wrong_labels
from keras_vit.evaluation.outliers import FEWEST, find_outliers
from keras_vit.evaluation.wrong_labels import find_wrong, out_of_fold, require_cleanlab

pytestmark = pytest.mark.same_on_every_backend


def clouds(each=40, width=300, classes=3, apart=2.0):
    """Gaussian clouds, one per class: features (n, width) and labels."""
    rng = np.random.default_rng(0)
    centers = apart * rng.normal(size=(classes, width))
    labels = np.repeat(np.arange(classes), each)
    return centers[labels] + rng.normal(size=(len(labels), width)), labels


def test_swapped_labels_are_named_and_the_right_ones_suggested():
    features, truth = clouds()
    labels = truth.copy()
    swapped = [3, 17, 50, 61, 90, 111]
    labels[swapped] = (truth[swapped] + [1, 2, 1, 2, 1, 2]) % 3
    found = find_wrong(labels, out_of_fold(features, labels, np.arange(len(labels)), 3))
    assert set(np.flatnonzero(found.named)) == set(swapped)
    assert (found.suggested[swapped] == truth[swapped]).all()
    assert set(np.argsort(found.quality)[: len(swapped)]) == set(swapped)


def test_of_right_labels_none_is_named():
    features, labels = clouds()
    assert not find_wrong(labels, out_of_fold(features, labels, np.arange(len(labels)), 3)).named.any()


def test_an_image_is_not_judged_by_what_shows_the_same():
    """Copies with the same wrong label would confirm each other."""
    features, truth = clouds()
    labels, groups = truth.copy(), np.arange(len(truth))
    features = np.concatenate([features, np.repeat(features[:1], 12, axis=0)])
    labels = np.concatenate([labels, np.full(12, 1)])
    labels[0] = 1
    together = np.concatenate([groups, np.zeros(12, int)])
    apart = np.arange(len(labels))
    own = [out_of_fold(features, labels, each, 3)[0, 1] for each in (together, apart)]
    assert own[0] < 0.5 * own[1]


@pytest.mark.parametrize(
    ("own", "best", "named"),
    [
        (0.5, 0.5, False),
        (0.21, 0.79, False),  # less than four times as probable, and too few for confident learning
        (0.15, 0.85, True),
    ],
)
def test_a_label_is_named_where_another_is_much_more_probable(own, best, named):
    labels = np.array([0] * 20 + [1] * 20)
    probabilities = np.where(labels[:, None] == [0, 1], 0.99, 0.01)
    probabilities[0] = own, best
    found = find_wrong(labels, probabilities)
    assert found.named[0] == named
    assert not found.named[1:].any()
    assert found.quality[0] == own


def test_a_missing_package_is_told_in_a_sentence(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "cleanlab", None)
    with pytest.raises(wrong_labels.InputError, match=r'pip install "keras-vit-defects\[audit\]"'):
        require_cleanlab()


def test_what_is_far_from_all_classes_is_an_outlier():
    features, labels = clouds(each=60, width=8)
    features[5] = 12.0
    far = find_outliers(features, labels, [((0, 8),)], np.arange(len(labels)))
    assert far.argmax() == 5
    assert far[5] > 3.5
    assert (np.delete(far, 5) < 3.5).mean() > 0.98


@pytest.mark.parametrize(
    "features", [np.ones((80, 4)), np.random.default_rng(0).normal(size=(FEWEST - 1, 4))]
)
def test_without_a_spread_there_are_no_outliers(features):
    labels = np.arange(len(features)) % 2
    assert not find_outliers(features, labels, [((0, 4),)], np.arange(len(labels))).any()
