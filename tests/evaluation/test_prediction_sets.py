"""Prediction sets against conformal p-values by their definition, and their coverage on synthetic images."""

import numpy as np
import pytest
from scipy.special import logit, softmax

from keras_vit.evaluation.prediction_sets import (
    GAP,
    OWN_IMAGES,
    PredictionSets,
    below,
    fit_thresholds,
    log_odds,
)

pytestmark = pytest.mark.same_on_every_backend


def synthetic(rng, n, classes=4, sharpness=2.0, prior=None):
    """Logits (n, classes) and labels (n,) of a classifier that is often right, and unsure where it is not."""
    labels = rng.choice(classes, n, p=prior)
    logits = rng.normal(0, 1, (n, classes)) + sharpness * np.eye(classes)[labels]
    return logits * rng.uniform(0.5, 3, (n, 1)), labels


def p_values(scores, labels, of_new, groups):
    """By the definition: the share of calibration images of the group that are no more typical, it too."""
    found = np.zeros(of_new.shape)
    of_true = scores[np.arange(len(labels)), labels]
    for i, group in enumerate(groups):
        alike = of_true[np.isin(labels, group)]
        found[:, i] = ((alike[None] <= of_new[:, i, None]).sum(axis=1) + 1) / (len(alike) + 1)
    return found


def test_log_odds_of_probabilities():
    logits = np.random.default_rng(0).normal(0, 3, (50, 5))
    np.testing.assert_allclose(log_odds(logits), logit(softmax(logits, axis=1)), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(
    ("logits", "expected"),
    [
        ([50.0, 0.0, 0.0], [50 - np.log(2), -50, -50]),  # softmax is 1 - 4e-22, in float64 too
        ([0.0, 0.0], [0, 0]),
        ([7.0, 7.0, -1e4], [0, 0, -1e4 - 7 - np.log(2)]),
        ([1e3, -1e3], [2000, -2000]),
    ],
)
def test_log_odds_that_probabilities_cannot_tell(logits, expected):
    found = log_odds([logits])[0]
    if logits == [1e3, -1e3]:  # the sum over the others underflows: some number that is large enough
        assert found[0] > 80
        assert found[1] == pytest.approx(-2000)
    else:
        np.testing.assert_allclose(found, expected, atol=1e-8)


CASES = {
    "each class has its own": (dict(n=400), [[0], [1], [2], [3]]),
    "two classes share one": (dict(n=300, prior=(0.45, 0.45, 0.06, 0.04)), [[0], [1], [2, 3], [2, 3]]),
    "all share one": (dict(n=100), [[0, 1, 2, 3]] * 4),
    "a rare class has that of all": (
        dict(n=300, prior=(0.33, 0.33, 0.33, 0.01)),
        [[0], [1], [2], [0, 1, 2, 3]],
    ),
    "a class is missing": (dict(n=300, prior=(0.3, 0.3, 0.4, 0.0)), [[0], [1], [2], [0, 1, 2, 3]]),
}


@pytest.mark.parametrize(("settings", "groups"), CASES.values(), ids=CASES.keys())
@pytest.mark.parametrize("level", [0.9, 0.95])
def test_sets_are_those_of_p_values(settings, groups, level):
    rng = np.random.default_rng(1)
    logits, labels = synthetic(rng, **settings)
    scores = log_odds(logits)
    thresholds, own = fit_thresholds(scores, labels, level)
    assert own.tolist() == [len(group) == 1 for group in groups]
    of_new = log_odds(synthetic(rng, 2000)[0])
    expected = p_values(scores, labels, of_new, groups) > 1 - level + 1e-9
    members = PredictionSets(thresholds, level).members(of_new)
    near = np.abs(of_new - thresholds) < 4 * GAP
    assert near.mean() < 0.01
    assert (members == expected)[~near].all()
    assert 0.2 < expected.mean() < 0.8


@pytest.mark.parametrize(
    ("n", "prior", "low", "high"),
    [(800, None, 0.95, 0.96), (144, None, 0.95, 0.965), (300, (0.5, 0.4, 0.06, 0.04), 0.95, 0.965)],
)
def test_coverage_over_many_splits(n, prior, low, high):
    """The guarantee is for the mean over calibration images; 300 of them give it to about 0.2 %."""
    rng = np.random.default_rng(2)
    coverages = []
    for _ in range(300):
        thresholds, _ = fit_thresholds(*_scored(synthetic(rng, n, prior=prior)))
        scores, labels = _scored(synthetic(rng, 500, prior=prior))
        coverages.append(PredictionSets(thresholds).members(scores)[np.arange(500), labels].mean())
    assert low - 0.002 <= np.mean(coverages) <= high


def test_coverage_of_each_class_where_classes_are_not_alike():
    rng = np.random.default_rng(3)
    covered = np.zeros((2, 3))
    for _ in range(100):
        scores, labels = _scored(_unlike(rng, 600))
        own, _ = fit_thresholds(scores, labels)
        pooled = np.full(3, np.quantile(scores[np.arange(600), labels], 0.05))
        scores, labels = _scored(_unlike(rng, 600))
        for row, thresholds in enumerate((own, pooled)):
            holds = PredictionSets(thresholds).members(scores)[np.arange(600), labels]
            covered[row] += [holds[labels == i].mean() / 100 for i in range(3)]
    assert (np.abs(covered[0] - 0.953) < 0.01).all()
    assert covered[1].min() < 0.9  # one threshold for all fails the class that is hard


def _unlike(rng, n):
    labels = rng.integers(0, 3, n)
    return rng.normal(0, 1, (n, 3)) + np.array([5.0, 4.0, 1.0])[labels, None] * np.eye(3)[labels], labels


def _scored(images):
    logits, labels = images
    return log_odds(logits), labels


def test_the_threshold_is_in_a_gap():
    rng = np.random.default_rng(4)
    scores, labels = _scored(synthetic(rng, 4000, classes=2))
    thresholds, own = fit_thresholds(scores, labels)
    assert own.all()
    for i, found in enumerate(thresholds):
        assert np.abs(scores[labels == i, i] - found).min() > GAP / 2.001


@pytest.mark.parametrize(
    ("scores", "expected"),
    [
        ([1.0, 0.0], 1 - GAP / 2),
        ([1.0, 1.0, 1.0, 0.0], 1 - GAP / 2),
        ([1.0, 1.0 - GAP / 2, 0.0], 1 - GAP),
        ([1.0], 1.0 - GAP / 2),
        ([-3.0, -3.0], -3.0 - GAP / 2),
    ],
)
def test_below(scores, expected):
    assert below(np.array(scores)) == pytest.approx(expected, abs=1e-12)


@pytest.mark.parametrize(("n", "fitted"), [(0, False), (1, False), (18, False), (19, True), (38, True)])
def test_too_few_images(n, fitted):
    scores, labels = _scored(synthetic(np.random.default_rng(5), max(n, 1)))
    thresholds, own = fit_thresholds(scores[:n], labels[:n])
    assert (thresholds is not None) == fitted
    assert not own.any()
    if fitted:
        assert len(set(thresholds)) == 1


def test_a_class_needs_its_images_for_its_own_threshold():
    rng = np.random.default_rng(6)
    for n, own in ((OWN_IMAGES - 1, False), (OWN_IMAGES, True)):
        labels = np.repeat([0, 1], [n, 100])
        assert fit_thresholds(rng.normal(0, 1, (len(labels), 2)), labels)[1].tolist() == [own, True]


def test_nan_is_in_no_set_and_is_referred():
    odds = np.array([[np.nan, np.nan], [3.0, -3.0]])
    for refer_below in (None, 1.0):
        sets = PredictionSets(np.array([0.0, 0.0]), refer_below=refer_below)
        assert sets.members(odds).tolist() == [[False, False], [True, False]]
        assert sets.refers(odds).tolist() == [True, False]


@pytest.mark.parametrize(
    ("odds", "by_set", "by_confidence"),
    [
        ([2.0, -2.0], False, False),
        ([0.5, -0.5], False, True),
        ([0.1, -0.1], True, True),
        ([-2.0, -3.0], True, True),
    ],
)
def test_who_is_referred(odds, by_set, by_confidence):
    thresholds = np.array([0.4, -0.2])
    assert PredictionSets(thresholds).refers([odds]).tolist() == [by_set]
    assert PredictionSets(thresholds, refer_below=1.0).refers([odds]).tolist() == [by_confidence]


GOOD = dict(scores=np.zeros((40, 3)), labels=np.zeros(40, int))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (dict(level=0.0), "level must lie between 0 and 1"),
        (dict(level=1.0), "level must lie between 0 and 1"),
        (dict(labels=np.full(40, 3)), r"labels must lie in 0\.\.2"),
        (dict(labels=np.zeros(39, int)), "labels must be 40 integers"),
        (dict(labels=np.zeros(40)), "labels must be 40 integers"),
        (dict(scores=np.full((40, 3), np.nan)), "must be finite"),
        (dict(scores=np.zeros(40)), "must have the shape"),
    ],
)
def test_wrong_input(change, message):
    with pytest.raises(ValueError, match=message):
        fit_thresholds(**{**GOOD, **change})
