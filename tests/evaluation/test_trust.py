"""What `metrics.json` says on prediction sets and referral, and what it becomes again."""

import json

import numpy as np
import pytest

from keras_vit.errors import InputError
from keras_vit.evaluation.prediction_sets import log_odds
from keras_vit.evaluation.trust import (
    FOLDS,
    CalibrationImages,
    fitted_sets,
    judge_trust,
    lines_of_run,
    referral_figures,
    set_figures,
    with_risk,
)
from keras_vit.runs.schema import Referral, Sets
from keras_vit.validation import check_plain

pytestmark = pytest.mark.same_on_every_backend

NAMES = ["a", "b", "c"]
TEMPERATURE = 1.7


def synthetic(seed, n, sharpness=4.0):
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, 3, n)
    return (rng.normal(0, 1, (n, 3)) + sharpness * np.eye(3)[labels]).astype("float32"), labels


def judged(n=300, accept_risk=None, sharpness=4.0, source=FOLDS):
    logits, labels = synthetic(1, n, sharpness)
    test_logits, test_labels = synthetic(2, 500, sharpness)
    return judge_trust(
        class_names=NAMES,
        calibration=CalibrationImages(logits, labels, source),
        test_logits=test_logits,
        test_labels=test_labels,
        temperature=TEMPERATURE,
        accept_risk=accept_risk,
    )


@pytest.mark.parametrize("accept_risk", [None, 0.01, 0.2, 0.0001])
def test_json_becomes_the_same_sets(accept_risk):
    metrics = judged(accept_risk=accept_risk)
    metrics = json.loads(json.dumps(metrics))
    check_plain(Sets, metrics["prediction_sets"])
    check_plain(Referral, metrics["referral"])
    sets = fitted_sets(metrics)
    logits, labels = synthetic(2, 500)
    odds = log_odds(logits / TEMPERATURE)
    found, referral = metrics["prediction_sets"]["test"], metrics["referral"]["test"]
    holds = sets.members(odds)[np.arange(500), labels]
    assert found["covered"] == holds.sum()
    assert 0.9 < found["coverage"] < 0.99
    assert found["mean_size"] == pytest.approx(sets.members(odds).sum(axis=1).mean())
    refers, right = sets.refers(odds), odds.argmax(axis=1) == labels
    assert (referral["referred"], referral["right"]) == (refers.sum(), (right & ~refers).sum())
    if accept_risk is None:
        alone = sets.members(odds).sum(axis=1) == 1
        alone &= sets.members(odds)[np.arange(500), odds.argmax(axis=1)]
        assert (refers == ~alone).all()
    elif accept_risk == 0.0001:
        assert refers.all()
        assert "least that they support is 0.34 %" in metrics["referral"]["unsupported"]
        assert lines_of_run(metrics)[1].startswith("refer: all images go to a person, since a risk of 0.01 %")
    else:
        assert 0 < refers.sum() < 500
        assert (~right & ~refers).sum() / (~refers).sum() <= 2 * accept_risk
        assert (
            with_risk(judged(), accept_risk, "run")["referral"]["threshold"]
            == metrics["referral"]["threshold"]
        )


@pytest.mark.parametrize(
    ("n", "reason"),
    [
        (0, "nothing: there is no validation part"),
        (18, "nothing: sets of 95 % take 19 calibration images, there are 18"),
    ],
)
def test_too_few_calibration_images(n, reason):
    metrics = judged(n)
    assert set(metrics) == {"prediction_sets"}
    assert metrics["prediction_sets"]["fitted_on"] == reason
    check_plain(Sets, metrics["prediction_sets"])
    assert fitted_sets(metrics) is None
    assert lines_of_run(metrics) == [f"no prediction sets: {reason.removeprefix('nothing: ')}"]
    with pytest.raises(InputError, match="has no calibrated confidence for an accepted risk"):
        with_risk(metrics, 0.1, "run")


def test_metrics_of_earlier_versions():
    assert fitted_sets({"class_names": NAMES}) is None
    assert with_risk({}, None, "run") == {}
    with pytest.raises(InputError, match=r"run has no calibrated confidence .*an earlier version trained it"):
        with_risk({}, 0.1, "run")


@pytest.mark.parametrize(
    ("risk", "message"),
    [
        (0.0, "above 0 and below 1. Received: 0"),
        (1.0, "above 0 and below 1. Received: 1"),
        (-0.1, "above 0 and below 1"),
        (float("nan"), "above 0 and below 1"),
        (
            0.001,
            "run: a risk of 0.1 % is not supported: that takes 999 calibration images without a mistake, "
            "there are 300; the least that they support is 0.34 %: accept that, or train",
        ),
    ],
)
def test_risks_that_cannot_be_accepted(risk, message):
    with pytest.raises(InputError) as raised:
        with_risk(judged(), risk, "run")
    assert message in str(raised.value)


def test_test_images_decide_nothing():
    logits, labels = synthetic(1, 300)
    found = [
        judge_trust(
            class_names=NAMES,
            calibration=CalibrationImages(logits, labels),
            test_logits=values,
            test_labels=np.zeros(50, int),
            temperature=1.0,
            accept_risk=0.02,
        )
        for values in (np.zeros((50, 3)), np.random.default_rng(0).normal(0, 9, (50, 3)))
    ]
    assert found[0]["prediction_sets"]["classes"] == found[1]["prediction_sets"]["classes"]
    assert found[0]["referral"]["threshold"] == found[1]["referral"]["threshold"]
    assert found[0]["prediction_sets"]["test"] != found[1]["prediction_sets"]["test"]


def test_a_diverged_model():
    logits, labels = synthetic(1, 300)
    logits[7] = np.nan
    with pytest.raises(ValueError, match="must be finite"):
        judge_trust(
            class_names=NAMES,
            calibration=CalibrationImages(logits, labels),
            test_logits=logits,
            test_labels=labels,
            temperature=1.0,
        )


def test_pooled_thresholds_are_named():
    rng = np.random.default_rng(0)
    labels = np.repeat([0, 1, 2], [60, 50, 25])
    logits = rng.normal(0, 1, (135, 3)) + 4 * np.eye(3)[labels]
    metrics = judge_trust(
        class_names=NAMES,
        calibration=CalibrationImages(logits, labels),
        test_logits=logits,
        test_labels=labels,
        temperature=1.0,
    )
    assert (
        lines_of_run(metrics)[-1]
        == "one pooled threshold for classes with fewer than 39 calibration images: c"
    )
    assert [row["images"] for row in metrics["prediction_sets"]["classes"]] == [60, 50, 25]


def test_figures_by_hand():
    members = np.array([[1, 0, 0], [1, 1, 0], [0, 0, 0], [0, 1, 0]], bool)
    found = set_figures(NAMES, np.array([0, 1, 1, 0]), members)
    assert (found["covered"], found["mean_size"], found["empty"], found["several"]) == (2, 1.0, 0.25, 0.25)
    assert found["per_class"][0] == {"name": "a", "images": 2, "coverage": 0.5, "mean_size": 1.0}
    assert found["per_class"][2] == {"name": "c", "images": 0, "coverage": None, "mean_size": None}
    referral = referral_figures(np.array([True, False, False, False]), np.array([True, True, False, True]))
    assert (referral["share"], referral["answered"], referral["right"]) == (0.25, 3, 2)
    nobody = referral_figures(np.ones(2, bool), np.ones(2, bool))
    assert (nobody["accuracy"], nobody["interval"]) == (None, None)


DAMAGED = {
    "a threshold is missing": lambda m: m["prediction_sets"]["classes"][0].update(threshold=None),
    "a threshold is text": lambda m: m["prediction_sets"]["classes"][0].update(threshold="1"),
    "the level is 1": lambda m: m["prediction_sets"].update(level=1.0),
    "the count is another": lambda m: m["prediction_sets"].update(images=7),
    "a coverage above 1": lambda m: m["prediction_sets"]["test"].update(coverage=1.5),
    "no choices": lambda m: m["referral"].update(choices=[]),
    "a threshold without a risk": lambda m: m["referral"].update(threshold=1.0),
    "choices upside down": lambda m: m["referral"]["choices"].reverse(),
    "a risk of its own": lambda m: m["referral"]["choices"][0].update(risk=1e-4),
}


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED.keys())
def test_damaged_metrics(damage):
    metrics = judged(sharpness=2.0)
    damage(metrics)
    with pytest.raises(InputError):
        check_both(metrics)


def check_both(metrics):
    check_plain(Sets, metrics["prediction_sets"])
    check_plain(Referral, metrics["referral"])
