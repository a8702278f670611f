"""The mean of several runs and its interval, against formulas written by hand."""

import numpy as np
import pytest
from scipy.stats import t

from keras_vit.evaluation.judge import judge
from keras_vit.evaluation.metrics import classification_metrics
from keras_vit.evaluation.repeats import corrected_interval, judge_repeats, mean_in_words

pytestmark = pytest.mark.same_on_every_backend

NAMES = ("dots", "lines", "plain")


def test_the_interval_of_a_worked_example():
    """Nadeau and Bengio's formula: 0.90, 0.92, 0.94 with 80 and 20 images; t(0.975, 2) = 4.3027."""
    half = 4.302652729911275 * np.sqrt((1 / 3 + 20 / 80) * 0.0004)
    found = corrected_interval([0.90, 0.92, 0.94], train=80, test=20)
    assert found == pytest.approx((0.92 - half, 0.92 + half), abs=1e-9)


def test_without_shared_images_it_is_the_usual_interval():
    values = np.random.default_rng(0).uniform(0.4, 0.6, 10)
    usual = t.interval(0.9, 9, values.mean(), values.std(ddof=1) / np.sqrt(10))
    assert corrected_interval(values, train=1e12, test=1, confidence=0.9) == pytest.approx(usual)


def test_it_covers_the_mean_of_runs_that_share_images():
    """Of 2,000 draws with the correlation that the correction assumes, test/(test + train)."""
    rng, k, rho = np.random.default_rng(0), 5, 0.2
    shared, own = rng.normal(size=(2000, 1)), rng.normal(size=(2000, k))
    values = 0.5 + 0.01 * (np.sqrt(rho) * shared + np.sqrt(1 - rho) * own)
    inside = 0
    for row in values:
        low, high = corrected_interval(row, train=80, test=20)
        inside += low <= 0.5 <= high
    assert 0.935 < inside / len(values) < 0.965


def test_it_stays_in_0_to_1_and_says_nothing_of_equal_runs():
    assert corrected_interval([0.2, 0.9], train=80, test=20) == (0.0, 1.0)
    assert corrected_interval([1.0, 1.0, 1.0], train=80, test=20) is None


@pytest.mark.parametrize(
    ("values", "train", "test", "confidence"),
    [([0.9], 80, 20, 0.95), ([0.9, 0.8], 0, 20, 0.95), ([0.9, 0.8], 80, 0, 0.95), ([0.9, 0.8], 80, 20, 1.0)],
)
def test_what_has_no_interval(values, train, test, confidence):
    with pytest.raises(ValueError, match="Received"):
        corrected_interval(values, train, test, confidence)


def judged(seed):
    """The metrics.json of a run that is tested on 12 images, and what it is computed from."""
    rng = np.random.default_rng(seed)
    labels, logits = np.repeat([0, 1, 2], [6, 4, 2]), rng.normal(size=(12, 3))
    metrics = judge(
        class_names=NAMES,
        test_labels=labels,
        test_names=[str(i) for i in range(12)],
        test_logits_best=logits,
        test_logits_last=logits,
        validation_labels=[],
        validation_logits_best=np.zeros((0, 3)),
        best_epoch=1,
        last_epoch=1,
    )
    exp = np.exp(logits)
    return metrics, labels, exp / exp.sum(axis=1, keepdims=True)


def test_the_figures_of_folds_and_of_seeds():
    runs = {f"fold-{i}": judged(i) for i in (1, 2, 3)}
    metrics, counts = {name: run[0] for name, run in runs.items()}, [{"train": 24, "test": 12}] * 3
    labels = np.concatenate([run[1] for run in runs.values()])
    probabilities = np.concatenate([run[2] for run in runs.values()])
    folds = judge_repeats("folds", metrics, counts, (labels, probabilities, probabilities.argmax(axis=1)))
    seeds = judge_repeats("seeds", metrics, counts, None)
    whole = classification_metrics(labels, probabilities, NAMES)
    assert folds["pooled"] == whole
    assert seeds["pooled"]["confusion_matrix"] == whole["confusion_matrix"]
    assert seeds["pooled"]["per_class"] == [pytest.approx(row) for row in whole["per_class"]]
    for name in ("accuracy", "balanced_accuracy"):
        values = [run["best"][name] for run in metrics.values()]
        assert folds["mean"][name] == seeds["mean"][name]
        assert folds["mean"][name]["mean"] == pytest.approx(np.mean(values))
        assert folds["mean"][name]["interval"] == pytest.approx(corrected_interval(values, 24, 12))
    assert [row["run"] for row in folds["runs"]] == list(runs)


def test_runs_that_learned_nothing_are_named_first():
    runs = {f"seed-{i}": judged(i)[0] for i in (0, 1, 2)}
    counts = [{"train": 24, "test": 12}] * 3
    assert "warning" not in judge_repeats("seeds", runs, counts, None)
    runs["seed-1"] = {"warning": "This model learned nothing: ...", **runs["seed-1"]}
    one = judge_repeats("seeds", runs, counts, None)
    assert next(iter(one)) == "warning"
    assert one["warning"].startswith("1 of the 3 runs warns that it learned nothing (seed-1):")
    assert [bool(row["warning"]) for row in one["runs"]] == [False, True, False]
    every = judge_repeats(
        "seeds", {name: {"warning": "x", **run} for name, run in runs.items()}, counts, None
    )
    assert every["warning"].startswith("All 3 runs warn that they learned nothing (seed-0, seed-1, seed-2):")


def test_in_words():
    found = {"mean": 0.983, "interval": [0.971, 0.996], "least": 0.978, "largest": 0.989}
    assert mean_in_words(found) == "98.3% (95 % interval 97.1% to 99.6%; runs from 97.8% to 98.9%)"
    assert mean_in_words({**found, "interval": None}) == "98.3% in every run"
