"""The statistics of a search compared with numpy, scipy and counts by hand."""

import dataclasses
import math
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from keras_vit.evaluation import search_analysis as analysis
from keras_vit.evaluation.search_analysis import Hyperparameter
from keras_vit.evaluation.trials import SearchRecord, TrialRecord, best_trial
from tests.search import synthetic

pytestmark = pytest.mark.same_on_every_backend


def trial(trial_id="0000", score=0.5, epochs=1, status="COMPLETED", **more):
    given = {"values": {}, "bracket": 0, "rung": 0, "initial_epoch": 0, **more}
    return TrialRecord(trial_id=trial_id, status=status, score=score, epochs=epochs, **given)


def many(values, scores, epochs=1, name="x"):
    return [
        trial(f"{epochs}-{i}", float(score), epochs, values={name: value})
        for i, (value, score) in enumerate(zip(values, scores, strict=True))
    ]


def dominated(costs, accuracies, i):
    return any(
        costs[j] <= costs[i]
        and accuracies[j] >= accuracies[i]
        and (costs[j], accuracies[j]) != (costs[i], accuracies[i])
        for j in range(len(costs))
    )


@pytest.mark.parametrize("seed", range(10))
def test_no_other_trial_dominates_the_front(seed):
    rng = np.random.default_rng(seed)
    costs, accuracies = rng.integers(0, 12, 60).tolist(), rng.integers(0, 12, 60).tolist()
    front = analysis.pareto_front(costs, accuracies)
    assert set(front) == {i for i in range(60) if not dominated(costs, accuracies, i)}
    assert [costs[i] for i in front] == sorted(costs[i] for i in front)


@pytest.mark.parametrize(
    ("costs", "front"),
    [
        ([], []),
        ([None, math.nan], []),
        ([None, 3.0, math.nan, 2.0], [3, 1]),
        ([math.inf, 1.0, 1.0], [2]),
    ],
)
def test_unknown_costs_are_not_on_the_front(costs, front):
    assert analysis.pareto_front(costs, [0.1, 0.9, 0.95, 0.5][: len(costs)]) == front


def test_a_rank_correlation_is_that_of_ranks():
    rng = np.random.default_rng(1)
    values, scores = rng.uniform(0, 1, 20), rng.integers(0, 9, 20) / 10
    (effect,) = analysis.effects(many(values.tolist(), scores), [Hyperparameter("x")])
    ranks = np.corrcoef(stats.rankdata(values), stats.rankdata(scores))[0, 1]
    assert effect.size == pytest.approx(ranks)
    assert effect.p == pytest.approx(stats.spearmanr(values, scores).pvalue)
    assert (effect.epochs, effect.trials, effect.best) == (1, 20, None)


def test_the_effect_of_a_choice_is_a_difference_of_medians():
    rng = np.random.default_rng(2)
    values = ["conv", "linear", "none"] * 6 + ["rare"] * 2
    scores = rng.uniform(0, 1, 20)
    (effect,) = analysis.effects(many(values, scores), [Hyperparameter("x", tuple(sorted(set(values))))])
    groups = {v: scores[[u == v for u in values]] for v in ("conv", "linear", "none")}
    medians = {name: np.median(group) for name, group in groups.items()}
    assert effect.size == pytest.approx(max(medians.values()) - min(medians.values()))
    assert medians[effect.best] - medians[effect.worst] == pytest.approx(effect.size)
    assert effect.p == pytest.approx(stats.kruskal(*groups.values()).pvalue)
    assert effect.trials == 18


def test_only_trials_of_the_same_epochs_are_compared():
    rng = np.random.default_rng(3)
    short, long = rng.uniform(0, 1, 10), rng.uniform(2, 3, 10)
    trials = many(short.tolist(), 0.3 + short / 10, 1) + many(long.tolist(), 0.9 - long / 10, 9)
    trials += many([1.0, 2.0], [0.5, 0.6], 3)  # too few
    found = analysis.effects(trials, [Hyperparameter("x")])
    assert [(e.epochs, e.size) for e in found] == [(1, pytest.approx(1)), (9, pytest.approx(-1))]


@pytest.mark.parametrize(
    ("values", "scores"),
    [
        ([1.0] * 10, np.arange(10) / 10),
        (list(range(10)), [0.5] * 10),
        ([None] * 10, np.arange(10) / 10),
        (list(range(7)), np.arange(7) / 10),
        ([], []),
    ],
    ids=["equal values", "equal accuracies", "unknown values", "too few", "none"],
)
@pytest.mark.parametrize("choices", [False, True])
def test_effects_may_be_missing(values, scores, choices):
    known = sorted({value for value in values if value is not None})
    assert (
        analysis.effects(many(values, scores), [Hyperparameter("x", tuple(known) if choices else None)]) == []
    )


def test_significance_follows_benjamini_and_hochberg():
    rng = np.random.default_rng(4)
    names = [f"x{i}" for i in range(12)]
    scores = rng.uniform(0, 1, 30)
    noise = {name: rng.uniform(0, 1, 30) for name in names}
    noise["x0"], noise["x1"] = scores + rng.normal(0, 0.1, 30), -scores + rng.normal(0, 0.4, 30)
    trials = [
        trial(str(i), float(s), values={name: float(noise[name][i]) for name in names})
        for i, s in enumerate(scores)
    ]
    found = analysis.effects(trials, [Hyperparameter(name) for name in names])
    ordered = sorted(effect.p for effect in found)
    under = [p for k, p in enumerate(ordered, 1) if p <= 0.05 * k / len(ordered)]
    assert {e.name for e in found if e.significant} == {e.name for e in found if e.p <= max(under)}
    assert {"x0"} <= {e.name for e in found if e.significant} < set(names)


def test_the_share_of_epochs_is_the_r2_of_a_regression_on_them():
    trials = synthetic.search().trials
    scores = np.array([t.score for t in trials])
    dummies = np.array([[t.epochs == e for e in (1, 3, 9)] for t in trials], dtype=float)
    left = scores - dummies @ np.linalg.lstsq(dummies, scores, rcond=None)[0]
    assert analysis.share_of_epochs(trials) == pytest.approx(1 - left.var() / scores.var())
    assert analysis.share_of_epochs([t for t in trials if t.epochs == 3]) is None
    assert analysis.share_of_epochs([]) is None


def test_standard_scores_are_taken_within_the_same_epochs():
    trials, heights = analysis.standard_scores(synthetic.search().trials)
    for epochs in (1, 3):
        scores = [t.score for t in trials if t.epochs == epochs]
        assert heights[[t.epochs == epochs for t in trials]] == pytest.approx(stats.zscore(scores))


def test_the_forest_finds_the_planted_effects():
    record = synthetic.search()
    found = analysis.importance(record.trials, analysis.hyperparameters(record))
    assert found.r2 > 0.5
    assert set(found.shares) == set(synthetic.SEARCHED)
    assert max(found.shares, key=found.shares.get) == "stem"
    assert found.shares["stem"][0] > 5 * max(found.shares[n][0] for n in synthetic.SEARCHED if n != "stem")


def test_the_shares_of_two_planted_effects_are_those_of_their_variances():
    rng = np.random.default_rng(5)
    a, b = rng.uniform(0, 1, 400), rng.uniform(0, 1, 400)
    trials = [
        trial(str(i), float(0.4 * a[i] + 0.2 * b[i]), values={"a": float(a[i]), "b": float(b[i])})
        for i in range(400)
    ]
    shares = analysis.importance(trials, [Hyperparameter("a"), Hyperparameter("b")]).shares
    assert shares["a"][0] == pytest.approx(0.8, abs=0.1)
    assert shares["b"][0] == pytest.approx(0.2, abs=0.1)


def test_noise_has_no_importances():
    rng = np.random.default_rng(6)
    found = analysis.importance(
        many(rng.uniform(0, 1, 60).tolist(), rng.uniform(0, 1, 60)), [Hyperparameter("x")]
    )
    assert found.r2 < 0.2
    assert found.shares == {}


def test_a_promoted_trial_does_not_leak_its_point():
    """Each point has its own accuracy, which a forest would know if the point were in two folds."""
    rng = np.random.default_rng(7)
    points, chance = rng.uniform(0, 1, (20, 3)), rng.uniform(0, 0.1, 20)
    trials = [
        trial(
            f"{i}-{e}",
            float(0.3 * step + chance[i]),
            e,
            values=dict(zip("abc", points[i].tolist(), strict=True)),
        )
        for step, e in enumerate((1, 3, 9))
        for i in range(20)
    ]
    found = analysis.importance(trials, [Hyperparameter(name) for name in "abc"])
    assert (found.trials, found.points) == (60, 20)
    assert found.r2 < 0.2


@pytest.mark.parametrize(
    ("trials", "names"),
    [
        ([], "x"),
        (many(range(19), np.arange(19) / 20), "x"),
        (many(range(30), [0.5] * 30), "x"),
        (many([1, 2, 3] * 10, np.arange(30) / 30), "x"),
        (many(range(30), np.arange(30) / 30), ""),
        ([t for e in range(6) for t in many(range(7), np.arange(7) / 10, e + 1)], "x"),
    ],
    ids=["none", "too few", "all equal", "few points", "nothing searched", "few of the same epochs"],
)
def test_no_forest_without_enough_trials(trials, names):
    found = analysis.importance(trials, [Hyperparameter(name) for name in names])
    assert (found.r2, found.shares) == (None, {})


def test_training_time_includes_the_continued_trials():
    trials = [
        trial("a", seconds=1.0),
        trial("b", seconds=2.0, promoted_from="a"),
        trial("c", seconds=4.0, promoted_from="b"),
        trial("d", seconds=None),
        trial("e", seconds=1.0, promoted_from="d"),
        trial("f", seconds=1.0, promoted_from="gone"),
        trial("g", seconds=math.nan),
    ]
    wanted = {"a": 1.0, "b": 3.0, "c": 7.0, "d": None, "e": None, "f": None, "g": None}
    assert analysis.total_seconds(trials) == wanted


def test_epoch_gains_are_measured_on_promoted_trials():
    trials = [
        trial("a", 0.5, 1),
        trial("b", 0.6, 1),
        trial("c", 0.7, 3, promoted_from="a"),
        trial("d", 0.9, 3, promoted_from="b"),
        trial("e", 0.8, 9, promoted_from="d"),
        trial("f", 0.1, 9),
        trial("g", None, 9, status="FAILED", promoted_from="c"),
    ]
    assert analysis.epoch_gains(trials) == [(1, 3, 2, pytest.approx(0.25)), (3, 9, 1, pytest.approx(-0.1))]


def test_rungs_are_counted():
    trials = [
        trial("a", 0.5, 1, bracket=1),
        trial("b", 0.6, 1, bracket=1),
        trial("c", None, 1, bracket=1, status="FAILED"),
        trial("d", None, 3, bracket=1, rung=1, status="RUNNING", promoted_from="b"),
        trial("e", 0.7, 3),
    ]
    keys = ("bracket", "rung", "trials", "epochs", "best", "median", "promoted", "failed")
    wanted = [(1, 0, 3, 1, 0.6, 0.55, 1, 1), (1, 1, 1, 3, None, None, 0, 0), (0, 0, 1, 3, 0.7, 0.7, 0, 0)]
    assert analysis.rungs(trials) == [dict(zip(keys, row, strict=True)) for row in wanted]


def test_of_equal_scores_the_longest_trial_is_the_best():
    trials = [trial("a", 0.9, 3), trial("b", 0.9, 9), trial("c", None), trial("d", math.nan), trial("e", 0.1)]
    trials.append(trial("f", 1.0, status="RUNNING"))
    assert best_trial(trials).trial_id == "b"
    assert best_trial(trials[2:4]) is None
    assert SearchRecord(Path("search"), {}, trials).best == trials[1]


def test_a_trial_without_a_score_has_no_accuracy():
    assert trial(score=0.25).accuracy == 0.25
    with pytest.raises(ValueError, match=r"trial 0000 has no score\. Its status: FAILED"):
        _ = trial(score=None, status="FAILED").accuracy


@pytest.mark.parametrize("correct", [0, 1, 137, 144])
def test_the_validation_score_has_its_interval(correct):
    result = analysis.validation_score(trial(score=correct / 144), 144)
    wanted = stats.binomtest(correct, 144).proportion_ci(method="wilson")
    assert result["accuracy_interval"] == pytest.approx([wanted.low, wanted.high])
    assert (result["correct"], result["images"]) == (correct, 144)
    assert analysis.validation_score(trial(score=0.5), None) == {"accuracy": 0.5}


@pytest.mark.parametrize(
    ("setting", "values", "wanted"),
    [
        ({"low": 2, "high": 8, "log": False}, [3, 4], Hyperparameter("x", ends=(2, 8))),
        ({"low": 1, "high": 9, "log": False}, [3], Hyperparameter("x", log=True, ends=(1, 9))),
        ({"low": 0.0, "high": 9.0}, [3.0], Hyperparameter("x", ends=(0.0, 9.0))),
        ({"low": 1e-3, "high": 2e-3, "log": True}, [1e-3], Hyperparameter("x", log=True, ends=(1e-3, 2e-3))),
        ({"values": [4, 2, 8]}, [4], Hyperparameter("x", choices=(2, 4, 8))),
        ({"values": ["b", "a"]}, ["a"], Hyperparameter("x", choices=("a", "b"))),
        (None, [1, 20, None], Hyperparameter("x", log=True, ends=(1, 20))),
        (None, ["b", None, "a"], Hyperparameter("x", choices=("a", "b"))),
        (None, [True, False], Hyperparameter("x", choices=(False, True))),
        (None, [], Hyperparameter("x")),
    ],
)
def test_axes_follow_the_space_or_the_values(setting, values, wanted):
    record = synthetic.search(sizes=((1,),))
    config = {"searched": ["x"], **({"space_fields": {"x": setting}} if setting else {})}
    trials = many(values, [0.5] * len(values))
    assert analysis.hyperparameters(dataclasses.replace(record, config=config, trials=trials)) == [wanted]
