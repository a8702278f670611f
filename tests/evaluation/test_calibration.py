"""Calibration against counts by hand, scipy and models of known temperature; the evaluation of a run."""

import json

import numpy as np
import pytest
from scipy.special import log_softmax
from scipy.special import softmax as scipy_softmax

from keras_vit.evaluation import (
    classification_metrics,
    expected_calibration_error,
    fit_temperature,
    judge,
    reliability_bins,
    softmax,
)

pytestmark = pytest.mark.same_on_every_backend


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.int64])
def test_softmax_agrees_with_scipy(dtype):
    logits = (np.random.default_rng(0).normal(0, 5, (4, 3, 6))).astype(dtype)
    assert softmax(logits) == pytest.approx(scipy_softmax(logits.astype(np.float64), axis=-1))


def test_softmax_of_large_logits_is_finite():
    assert softmax([[1e4, 0.0], [-1e30, -1e30]]) == pytest.approx(np.array([[1, 0], [0.5, 0.5]]))


def drawn(temperature, images=4000, classes=5, seed=0):
    """Logits, and labels drawn from softmax(logits / temperature), so that the true temperature is known."""
    rng = np.random.default_rng(seed)
    logits = rng.normal(0, 3, (images, classes))
    return logits, (log_softmax(logits / temperature, axis=1) + rng.gumbel(size=logits.shape)).argmax(axis=1)


@pytest.mark.parametrize("temperature", [0.5, 1.0, 1.7, 3.0])
def test_fit_temperature_finds_the_true_temperature(temperature):
    logits, labels = drawn(temperature)
    assert fit_temperature(logits, labels) == pytest.approx(temperature, rel=0.08)


def test_fit_temperature_is_the_best_of_a_grid():
    logits, labels = drawn(1.7, images=50)
    grid = np.geomspace(0.05, 20, 4001)
    losses = [-log_softmax(logits / t, axis=1)[np.arange(50), labels].mean() for t in grid]
    assert fit_temperature(logits, labels) == pytest.approx(grid[np.argmin(losses)], rel=2e-3)


def test_fit_temperature_ignores_a_shift_and_the_dtype():
    logits, labels = drawn(1.7, images=300)
    expected = fit_temperature(logits, labels)
    assert fit_temperature(logits + np.arange(300)[:, None], labels) == pytest.approx(expected)
    assert fit_temperature(logits.astype(np.float32), labels.astype(np.int32)) == pytest.approx(
        expected, rel=1e-4
    )


@pytest.mark.parametrize(
    ("logits", "labels", "expected"),
    [
        ([[2.0, 0.0], [0.0, 3.0]], [0, 1], 0.05),  # all right: a lower temperature is better
        ([[2.0, 0.0], [0.0, 3.0]], [1, 0], 20.0),  # all wrong: a higher temperature is better
        ([[1.0, 0.0]], [0], 0.05),
        ([[3e4, -3e4]], [1], 20.0),
    ],
)
def test_fit_temperature_stays_in_its_bounds(logits, labels, expected):
    got = fit_temperature(logits, labels)
    assert 0.05 <= got <= 20
    assert got == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize(
    ("logits", "labels", "message"),
    [
        (np.zeros((0, 3)), np.zeros(0, np.int64), "at least one image"),
        ([[np.inf, 0.0]], [0], "the training has diverged"),
        ([[1.0, 0.0]], [2], r"0\.\.1"),
    ],
)
def test_fit_temperature_refuses(logits, labels, message):
    with pytest.raises(ValueError, match=message):
        fit_temperature(logits, labels)


# Confidences 0.9, 0.9, 0.8, 0.6, 0.55 and, on the edge of two bins, 0.6; the first, third and last are right.
CONFIDENCES = np.array([0.9, 0.9, 0.8, 0.6, 0.55, 0.6])
RIGHT = np.array([True, False, True, False, False, True])
PROBABILITIES = np.stack([CONFIDENCES, 1 - CONFIDENCES], axis=1)
LABELS = np.where(RIGHT, 0, 1)


def test_expected_calibration_error_by_hand():
    # Five bins: (0.4, 0.6] holds 0.6, 0.55 and 0.6, one right; (0.6, 0.8] holds 0.8, right;
    # (0.8, 1] holds 0.9 and 0.9, one right.
    expected = 3 / 6 * abs(1 / 3 - 1.75 / 3) + 1 / 6 * abs(1 - 0.8) + 2 / 6 * abs(1 / 2 - 0.9)
    assert expected_calibration_error(PROBABILITIES, LABELS, bins=5) == pytest.approx(expected)
    # One bin: the accuracy against the mean confidence.
    assert expected_calibration_error(PROBABILITIES, LABELS, bins=1) == pytest.approx(abs(3 / 6 - 4.35 / 6))


def test_reliability_bins_by_hand():
    got = reliability_bins(PROBABILITIES, LABELS, bins=5)
    assert [b["count"] for b in got] == [0, 0, 3, 1, 2]
    assert got[0] == pytest.approx({"low": 0, "high": 0.2, "count": 0, "confidence": None, "accuracy": None})
    assert got[4] == pytest.approx({"low": 0.8, "high": 1, "count": 2, "confidence": 0.9, "accuracy": 0.5})
    json.dumps(got, allow_nan=False)


@pytest.mark.parametrize(("label", "error"), [(0, 0.0), (1, 1.0)])
def test_full_confidence_falls_in_the_last_bin(label, error):
    assert reliability_bins([[1.0, 0.0]], [label])[-1]["count"] == 1
    assert expected_calibration_error([[1.0, 0.0]], [label]) == error


def test_expected_calibration_error_agrees_with_a_plain_loop():
    logits, labels = drawn(2.0, images=500)
    probabilities = softmax(logits)
    gaps = np.zeros(15)
    for row, label in zip(probabilities, labels, strict=True):
        gaps[min(int(row.max() * 15), 14)] += (row.argmax() == label) - row.max()
    assert expected_calibration_error(probabilities, labels) == pytest.approx(np.abs(gaps).sum() / 500)


def test_the_temperature_calibrates_an_overconfident_model():
    logits, labels = drawn(2.5)
    temperature = fit_temperature(logits[:2000], labels[:2000])
    before = expected_calibration_error(softmax(logits[2000:]), labels[2000:])
    after = expected_calibration_error(softmax(logits[2000:] / temperature), labels[2000:])
    assert after < before / 3


@pytest.mark.parametrize("bins", [0, -1])
def test_reliability_bins_refuses(bins):
    with pytest.raises(ValueError, match=f"bins must be at least 1. Received: {bins}"):
        reliability_bins(PROBABILITIES, LABELS, bins)


def judge_changed(**changes):
    logits, labels = drawn(2.0, images=300)
    worse, _ = drawn(2.0, images=300, seed=1)
    validation_logits, validation_labels = drawn(2.0, images=100, seed=2)
    arguments = {
        "class_names": ("a", "b", "c", "d", "e"),
        "test_labels": labels,
        "test_names": [f"{i}.png" for i in range(300)],
        "test_logits_best": logits,
        "test_logits_last": worse,
        "validation_labels": validation_labels,
        "validation_logits_best": validation_logits,
        "best_epoch": 7,
        "last_epoch": 10,
    }
    return judge(**(arguments | changes)), arguments | changes


def test_judge_has_all_parts():
    got, given = judge_changed()
    labels, logits = given["test_labels"], given["test_logits_best"]
    assert json.loads(json.dumps(got, allow_nan=False)) == got
    assert list(got) == ["class_names", "best", "last", "calibration", "mistakes"]
    assert got["class_names"] == ["a", "b", "c", "d", "e"]
    # The log loss is that of the probabilities that the run answers; that of the logits has another name.
    temperature = got["calibration"]["temperature"]
    answers = classification_metrics(labels, softmax(logits / temperature), "abcde")
    raw = classification_metrics(labels, softmax(logits), "abcde")
    assert raw["log_loss"] != answers["log_loss"]
    assert got["best"] == {"epoch": 7, **answers, "log_loss_uncalibrated": raw["log_loss"]}
    last = classification_metrics(labels, softmax(given["test_logits_last"]), "abcde")
    last["log_loss_uncalibrated"] = last.pop("log_loss")
    assert got["last"] == {"epoch": 10, **last}
    assert got["last"]["accuracy"] < got["best"]["accuracy"]

    calibration = got["calibration"]
    temperature = fit_temperature(given["validation_logits_best"], given["validation_labels"])
    assert (calibration["temperature"], calibration["fitted_on"]) == (temperature, "validation")
    assert calibration["validation_images"] == 100
    assert calibration["ece_before"] == expected_calibration_error(softmax(logits), labels)
    assert calibration["ece_after"] == expected_calibration_error(softmax(logits / temperature), labels)
    assert calibration["ece_after"] < calibration["ece_before"]
    assert sum(b["count"] for b in calibration["reliability_after"]) == 300

    mistake = got["mistakes"][0]
    row = softmax(logits / temperature)[mistake["index"]]
    assert mistake["name"] == f"{mistake['index']}.png"
    assert mistake["confidence"] == pytest.approx(row.max())
    assert mistake["true"] == labels[mistake["index"]] != mistake["predicted"]


@pytest.mark.parametrize(
    ("labels", "logits", "reason"),
    [
        (np.zeros(0, np.int64), np.zeros((0, 5)), "nothing: there is no validation part"),
        ([], [], "nothing: there is no validation part"),
        ([0, 1], 4 * np.eye(5)[:2], "nothing: every validation image is classified right"),
    ],
)
def test_judge_gives_the_reason_why_the_temperature_stays_at_1(labels, logits, reason):
    got, _ = judge_changed(validation_labels=labels, validation_logits_best=logits)
    calibration = got["calibration"]
    assert calibration["temperature"] == 1
    assert calibration["fitted_on"].startswith(reason)
    assert calibration["validation_images"] == len(labels)
    assert calibration["ece_before"] == calibration["ece_after"]


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"best_epoch": 0}, "epochs count from 1.*best_epoch=0"),
        ({"best_epoch": 11}, "best epoch must not be after the last.*best_epoch=11, last_epoch=10"),
        ({"test_logits_last": np.full((300, 5), np.nan)}, "test_logits_last must be finite.*300 of 300"),
        ({"test_logits_best": np.zeros((299, 5))}, "one for each row of test_logits_best"),
        ({"validation_logits_best": np.full((100, 5), np.inf)}, "validation_logits_best must be finite"),
        ({"test_names": ["x"]}, "names must be one per image, 300"),
        ({"class_names": "ab"}, "class_names must be one per column"),
    ],
)
def test_judge_refuses(changes, message):
    with pytest.raises(ValueError, match=message):
        judge_changed(**changes)
