"""Referral: the choices by counting, and the risk that they keep on synthetic images."""

import itertools

import numpy as np
import pytest

from keras_vit.evaluation.prediction_sets import GAP
from keras_vit.evaluation.selective import (
    MOST_CHOICES,
    choose,
    least_referred,
    risk_choices,
    risk_coverage,
    why_not,
)

pytestmark = pytest.mark.same_on_every_backend


def synthetic(rng, n, hard=0.3):
    """Confidence (n,) and whether the label is right: the less confident, the less often."""
    confidence = rng.normal(2, 1.5, n)
    return confidence, rng.uniform(0, 1, n) > hard / (1 + np.exp(2 * confidence))


def brute(confidence, right, risk):
    """The most images that one threshold answers at a risk, by trying all."""
    best = 0
    for value in np.unique(confidence):
        kept = confidence >= value
        if ((~right & kept).sum() + 1) / (kept.sum() + 1) <= risk:
            best = max(best, int(kept.sum()))
    return best


@pytest.mark.parametrize("seed", range(5))
def test_choices_answer_as_many_images_as_any_threshold(seed):
    confidence, right = synthetic(np.random.default_rng(seed), 200, hard=1.0)
    confidence = np.round(confidence, 1)  # with ties
    choices = risk_choices(confidence, right)
    for risk in (0.004, 0.01, 0.02, 0.05, 0.1, 0.2, 0.5):
        expected, found = brute(confidence, right, risk), choose(choices, risk)
        assert (found["images"] if found else 0) == expected
        if found:
            kept = confidence >= found["threshold"]
            assert (kept.sum(), (kept & ~right).sum()) == (found["images"], found["wrong"])
            assert np.abs(confidence - found["threshold"]).min() > GAP / 2.001


def test_choices_are_in_order():
    choices = risk_choices(*synthetic(np.random.default_rng(0), 20_000, hard=1.5))
    assert len(choices) == MOST_CHOICES
    for stricter, looser in itertools.pairwise(choices):
        assert stricter["risk"] < looser["risk"]
        assert stricter["images"] < looser["images"]
        assert stricter["threshold"] > looser["threshold"]
    assert all(row["risk"] == pytest.approx((row["wrong"] + 1) / (row["images"] + 1)) for row in choices)


def test_the_risk_is_kept_on_average():
    """Of the answered images, and of all: 400 calibrations with 300 images each, judged on 2,000 others."""
    rng = np.random.default_rng(1)
    for risk in (0.01, 0.02, 0.05):
        wrong = answered = images = 0
        for _ in range(400):
            chosen = choose(risk_choices(*synthetic(rng, 300)), risk)
            confidence, right = synthetic(rng, 2000)
            kept = confidence >= chosen["threshold"] if chosen else np.zeros(2000, bool)
            wrong, answered, images = wrong + (kept & ~right).sum(), answered + kept.sum(), images + 2000
        assert wrong / answered <= risk
        assert wrong / images <= risk
        assert answered / images > 0.3  # it refers no more than it must


@pytest.mark.parametrize(
    ("right", "risk", "images"),
    [
        ([True] * 99, 0.01, 99),
        ([True] * 98, 0.01, None),
        ([True] * 99 + [False], 0.01, 99),
        ([False] + [True] * 198, 0.01, 199),
        ([False] + [True] * 197, 0.01, None),
        ([False] * 20, 0.5, None),
        ([True] * 60 + [False] * 40, 0.999, 100),
        ([], 0.5, None),
    ],
)
def test_how_many_images_a_risk_takes(right, risk, images):
    confidence = np.arange(len(right))[::-1] + 0.5  # the first is the most confident
    chosen = choose(risk_choices(confidence, np.array(right, bool)), risk)
    assert (chosen["images"] if chosen else None) == images


def test_an_image_less_confident_than_all_is_referred():
    choices = risk_choices(np.arange(100.0), np.ones(100, bool))
    assert len(choices) == 1
    assert -GAP <= choices[0]["threshold"] < 0


@pytest.mark.parametrize(
    ("right", "risk", "message"),
    [
        (
            [True] * 144,
            0.005,
            "a risk of 0.5 % is not supported: that takes 199 calibration images without a mistake, there "
            "are 144; the least that they support is 0.69 %",
        ),
        (
            [False] * 3 + [True] * 297,
            0.01,
            "a risk of 1 % is not supported: the most confident of the 300 calibration images have too many "
            "mistakes; the least that they support is 1.33 %",
        ),
    ],
)
def test_a_risk_that_is_not_supported(right, risk, message):
    choices = risk_choices(-np.arange(len(right), dtype=float), np.array(right))
    assert choose(choices, risk) is None
    assert why_not(choices, risk, len(right)) == message
    least = float(message.split()[-2]) / 100
    assert choose(choices, least) is not None  # the number can be asked for


def test_the_curve_is_that_of_counting():
    confidence, right = synthetic(np.random.default_rng(2), 150)
    confidence = np.round(confidence, 1)
    curve = risk_coverage(confidence, right)
    values = np.unique(confidence)
    assert len(curve["referred"]) == len(values)
    for value, referred, accuracy in zip(values, curve["referred"], curve["accuracy"], strict=True):
        kept = confidence >= value
        assert referred == pytest.approx(1 - kept.mean())
        assert accuracy == pytest.approx(right[kept].mean())


def test_the_least_share_for_an_accuracy():
    curve = {"referred": [0.0, 0.1, 0.5], "accuracy": [0.9, 0.95, 0.99]}
    assert [least_referred(curve, goal) for goal in (0.9, 0.91, 0.99, 1.0)] == [0.0, 0.1, 0.5, None]


def test_a_long_curve_keeps_its_ends():
    curve = risk_coverage(*synthetic(np.random.default_rng(3), 5000))
    assert len(curve["referred"]) == 200
    assert curve["referred"][0] == 0
    assert curve["referred"][-1] == pytest.approx(1 - 1 / 5000)


@pytest.mark.parametrize("function", [risk_choices, risk_coverage])
@pytest.mark.parametrize(
    ("confidence", "right", "message"),
    [
        ([[1.0]], [True], "must have the shape"),
        ([1.0], [True, False], "must have the shape"),
        ([1.0], [1], "must have the shape"),
        ([np.nan], [True], "must be finite"),
        ([np.inf], [True], "must be finite"),
    ],
)
def test_wrong_input(function, confidence, right, message):
    with pytest.raises(ValueError, match=message):
        function(confidence, right)
