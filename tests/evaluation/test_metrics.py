"""Metrics compared with published numbers, scipy and counts by hand."""

import json

import numpy as np
import pytest
from scipy.stats import binomtest

from keras_vit.evaluation import classification_metrics, most_confident_mistakes, wilson_interval

pytestmark = pytest.mark.same_on_every_backend

# Newcombe, "Two-sided confidence intervals for the single proportion", Statistics in Medicine 17 (1998),
# table I, method 3 (the score method without continuity correction).
NEWCOMBE = [
    (81, 263, 0.2553, 0.3662),
    (15, 148, 0.0624, 0.1605),
    (0, 20, 0.0000, 0.1611),
    (1, 29, 0.0061, 0.1718),
]


@pytest.mark.parametrize(("correct", "total", "low", "high"), NEWCOMBE)
def test_wilson_interval_is_the_published_one(correct, total, low, high):
    assert wilson_interval(correct, total) == pytest.approx((low, high), abs=5e-5)


@pytest.mark.parametrize("confidence", [0.5, 0.9, 0.95, 0.999])
@pytest.mark.parametrize(("correct", "total"), [(0, 1), (1, 1), (281, 360), (359, 360), (360, 360), (3, 7)])
def test_wilson_interval_agrees_with_scipy(correct, total, confidence):
    expected = binomtest(correct, total).proportion_ci(confidence, method="wilson")
    assert wilson_interval(correct, total, confidence) == pytest.approx(
        (expected.low, expected.high), abs=1e-9
    )


def test_wilson_interval_of_the_reference_run():
    """281 of 360, by hand: (0.780556 + 0.005335 ± 0.043084) / 1.010671."""
    assert wilson_interval(281, 360) == pytest.approx((0.77759 - 0.04263, 0.77759 + 0.04263), abs=1e-5)


@pytest.mark.parametrize(("correct", "ends"), [(0, 0), (10, 1)])
def test_wilson_interval_ends_are_exact(correct, ends):
    assert ends in wilson_interval(correct, 10)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 0), r"total=0"),
        ((0, 0), r"total=0"),
        ((-1, 5), r"correct=-1"),
        ((6, 5), r"correct=6, total=5"),
        ((1, 5, 0.0), r"confidence must lie between 0 and 1. Received: 0.0"),
        ((1, 5, 95), r"Received: 95"),
    ],
)
def test_wilson_interval_refuses(arguments, message):
    with pytest.raises(ValueError, match=message):
        wilson_interval(*arguments)


# Six images: a is right twice and predicted as b once, b is right once and predicted as a once, c is right.
LABELS = np.array([0, 0, 0, 1, 1, 2])
PROBABILITIES = np.array(
    [
        [0.8, 0.1, 0.1],
        [0.5, 0.3, 0.2],
        [0.2, 0.6, 0.2],
        [0.1, 0.7, 0.2],
        [0.9, 0.05, 0.05],
        [0.0, 0.4, 0.6],
    ]
)


def test_classification_metrics_by_hand():
    got = classification_metrics(LABELS, PROBABILITIES, ("a", "b", "c"))
    assert json.loads(json.dumps(got, allow_nan=False)) == got
    assert (got["images"], got["correct"], got["accuracy"]) == (6, 4, 4 / 6)
    assert got["accuracy_interval"] == list(wilson_interval(4, 6))
    assert got["confusion_matrix"] == [[2, 1, 0], [1, 1, 0], [0, 0, 1]]
    assert got["balanced_accuracy"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert got["macro_f1"] == pytest.approx((2 / 3 + 1 / 2 + 1) / 3)
    assert got["log_loss"] == pytest.approx(-np.log([0.8, 0.5, 0.2, 0.7, 0.05, 0.6]).mean())
    assert got["per_class"][0] == pytest.approx(
        {"name": "a", "precision": 2 / 3, "recall": 2 / 3, "f1": 2 / 3, "support": 3}
    )
    assert [row["support"] for row in got["per_class"]] == [3, 2, 1]


def test_unknown_values_are_none():
    """b is never predicted, c has no images, d has neither."""
    probabilities = np.eye(4)[[0, 0, 0, 2]]
    got = classification_metrics([0, 0, 1, 1], probabilities, "abcd")
    a, b, c, d = got["per_class"]
    assert (a["precision"], a["recall"]) == (pytest.approx(2 / 3), 1)
    assert (b["precision"], b["recall"], b["f1"]) == (None, 0, 0)
    assert (c["precision"], c["recall"], c["f1"]) == (0, None, 0)
    assert (d["precision"], d["recall"], d["f1"], d["support"]) == (None, None, None, 0)
    assert got["balanced_accuracy"] == pytest.approx(1 / 2)
    assert got["macro_f1"] == pytest.approx((0.8 + 0 + 0) / 3)
    json.dumps(got, allow_nan=False)


def test_metrics_agree_with_scikit_learn_on_random_scores():
    from sklearn.metrics import balanced_accuracy_score, f1_score

    rng = np.random.default_rng(0)
    labels = rng.permutation(np.arange(200) % 7)
    probabilities = rng.dirichlet(np.ones(7), 200).astype(np.float32)
    got = classification_metrics(labels, probabilities, [str(i) for i in range(7)])
    predicted = probabilities.argmax(axis=1)
    assert got["balanced_accuracy"] == pytest.approx(balanced_accuracy_score(labels, predicted))
    assert got["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert np.sum(got["confusion_matrix"]) == 200
    assert np.trace(got["confusion_matrix"]) == got["correct"]


def test_float16_probabilities_are_accepted():
    got = classification_metrics(LABELS, PROBABILITIES.astype(np.float16), "abc")
    assert got["log_loss"] == pytest.approx(
        classification_metrics(LABELS, PROBABILITIES, "abc")["log_loss"], rel=1e-2
    )


HALVES = np.full((2, 2), 0.5)


@pytest.mark.parametrize(
    ("labels", "probabilities", "names", "message"),
    [
        ([0, 1, 0], HALVES, "ab", r"labels must be 2 integers.*shape \(3,\)"),
        ([0.0, 1.0], HALVES, "ab", r"labels must be 2 integers.*float64"),
        ([0, 2], HALVES, "ab", r"labels must lie in 0\.\.1.*Received: 0\.\.2"),
        ([-1, 0], HALVES, "ab", r"labels must lie in 0\.\.1.*Received: -1\.\.0"),
        ([0, 1], HALVES, "abc", r"class_names must be one per column of probabilities, 2\. Received: 3"),
        ([0, 1], [0.5, 0.5], "ab", r"must have the shape \(images, classes\).*Received: \(2,\)"),
        ([], np.zeros((0, 2)), "ab", r"at least one image.*Received: \(0, 2\)"),
        ([0], np.ones((1, 1)), "a", r"two classes.*Received: \(1, 1\)"),
        ([0, 1], [[0.5, np.nan], [0.5, 0.5]], "ab", r"must be finite.*1 of 2 images"),
        ([0, 1], [[3.0, -2.0], [0.5, 0.5]], "ab", r"are these logits\?"),
        ([0, 1], [[0.5, 0.6], [0.5, 0.5]], "ab", r"sum to 1"),
    ],
)
def test_classification_metrics_refuses(labels, probabilities, names, message):
    with pytest.raises(ValueError, match=message):
        classification_metrics(labels, probabilities, names)


def test_most_confident_mistakes():
    names = [f"image {i}" for i in range(6)]
    assert most_confident_mistakes(LABELS, PROBABILITIES, names) == [
        {
            "name": "image 4",
            "index": 4,
            "true": 1,
            "predicted": 0,
            "confidence": pytest.approx(0.9),
            "probability_of_true": pytest.approx(0.05),
        },
        {
            "name": "image 2",
            "index": 2,
            "true": 0,
            "predicted": 1,
            "confidence": pytest.approx(0.6),
            "probability_of_true": pytest.approx(0.2),
        },
    ]
    assert [m["index"] for m in most_confident_mistakes(LABELS, PROBABILITIES, names, limit=1)] == [4]
    assert most_confident_mistakes(LABELS, PROBABILITIES, names, limit=0) == []
    assert most_confident_mistakes([0, 1], np.eye(2), ["x", "y"]) == []


def test_equally_confident_mistakes_keep_their_order():
    got = most_confident_mistakes([1] * 20, [[0.75, 0.25]] * 20, [str(i) for i in range(20)])
    assert [m["index"] for m in got] == list(range(12))


@pytest.mark.parametrize(
    ("names", "limit", "message"),
    [
        (["x"], 12, "names must be one per image, 6. Received: 1"),
        (list("uvwxyz"), -1, "limit must be at least 0"),
    ],
)
def test_most_confident_mistakes_refuses(names, limit, message):
    with pytest.raises(ValueError, match=message):
        most_confident_mistakes(LABELS, PROBABILITIES, names, limit)
