"""The rule that names a class: against expected costs and recalls that are counted one by one."""

import itertools

import numpy as np
import pytest

from keras_vit.evaluation.decision import (
    DECISION,
    Wanted,
    decision_of_run,
    judge_decision,
    notices,
    rule_of,
)
from keras_vit.evaluation.decision_rule import DecisionRule, decision_figures
from keras_vit.evaluation.recall_weights import fit_weights, images_for, needed_images

pytestmark = pytest.mark.same_on_every_backend

NAMES = ("a", "b", "c")


def drawn(images=300, classes=3, seed=0):
    """Labels, and probabilities that are right more often than not."""
    rng = np.random.default_rng(seed)
    labels = np.r_[np.arange(classes), rng.integers(0, classes, images - classes)]
    logits = rng.normal(0, 1.5, (images, classes)) + 2 * np.eye(classes)[labels]
    each = np.exp(logits)
    return each / each.sum(axis=1, keepdims=True), labels


def recalls(rule, probabilities, labels):
    named = rule.decide(probabilities)
    return {i: np.mean(named[labels == i] == i) for i in np.unique(labels)}


COSTS = np.array([[0, 1, 3.0], [20, 0, 5], [2, 0.5, 0]])


@pytest.mark.parametrize("costs", [None, COSTS], ids=["weights", "costs"])
def test_the_least_expected_cost_one_by_one(costs):
    probabilities, _ = drawn()
    weights = np.array([1, 4, 0.3])
    table = np.ones((3, 3)) - np.eye(3) if costs is None else costs
    for row, named in zip(probabilities, DecisionRule(weights, costs).decide(probabilities), strict=True):
        expected = [sum(row[i] * weights[i] * table[i, j] for i in range(3)) for j in range(3)]
        assert named == int(np.argmin(expected))


def test_equal_costs_name_the_likeliest():
    probabilities, _ = drawn()
    assert (DecisionRule(np.ones(3)).decide(probabilities) == probabilities.argmax(axis=1)).all()
    # Where it is 0 or 1, naming either costs nothing: then the likelier of them is named.
    costs = np.array([[0, 0, 1], [0, 0, 1], [1, 1, 0.0]])
    assert DecisionRule(np.ones(3), costs).decide([[0.3, 0.4, 0.3]]).tolist() == [1]


@pytest.mark.parametrize("costs", [None, COSTS], ids=["weights", "costs"])
def test_a_class_is_surely_named_from_its_probability_on(costs):
    rule = DecisionRule(np.array([1, 4, 0.3]), costs)
    rng = np.random.default_rng(0)
    for i, least in enumerate(rule.surely_from()):
        others = rng.dirichlet([0.3, 0.3], 2000)
        for share, all_named in ((least + 1e-3, True), (least - 1e-2, False)):
            rows = np.insert(others * (1 - share), i, share, axis=1)
            corners = np.insert(np.eye(2) * (1 - share), i, share, axis=1)
            assert (rule.decide(np.r_[rows, corners]) == i).all() == all_named


@pytest.mark.parametrize("costs", [None, COSTS], ids=["weights", "costs"])
@pytest.mark.parametrize("wanted", [{0: 0.9}, {1: 0.98}, {0: 0.8, 1: 0.7}, {2: 1.0}])
def test_weights_reach_the_recalls_and_no_smaller_ones_do(wanted, costs):
    probabilities, labels = drawn()
    weights = fit_weights(probabilities, labels, wanted, costs)
    found = recalls(DecisionRule(weights, costs), probabilities, labels)
    counts = np.bincount(labels)
    for i, recall in wanted.items():
        assert found[i] >= needed_images(counts[i], recall) / counts[i] - 1e-12 >= recall - 1e-9
        if weights[i] > 1.02:
            less = weights * np.where(np.arange(3) == i, 0.99, 1)
            once = recalls(DecisionRule(less, costs), probabilities, labels)[i]
            assert once < needed_images(counts[i], recall) / counts[i]
    assert all(weights[i] == 1 for i in range(3) if i not in wanted)


def test_a_recall_that_is_reached_changes_nothing():
    probabilities, labels = drawn()
    assert fit_weights(probabilities, labels, {0: 0.3}, None).tolist() == [1, 1, 1]


def test_new_images_are_found_as_often_on_average():
    """Of images like those that chose, the stated share is found, on average over draws."""
    shares = []
    for seed in range(150):
        probabilities, labels = drawn(60, seed=seed)
        rule = DecisionRule(fit_weights(probabilities, labels, {1: 0.9}, None))
        shares.append(recalls(rule, *drawn(400, seed=1000 + seed))[1])
    assert 0.9 <= np.mean(shares) < 0.96


@pytest.mark.parametrize(
    ("images", "recall", "needed"), [(49, 0.98, 49), (24, 0.98, 24), (100, 0.9, 91), (9, 0.9, 9), (3, 1, 3)]
)
def test_how_many_must_be_found(images, recall, needed):
    assert needed_images(images, recall) == needed
    enough = images_for(recall)
    assert (enough is not None and images >= enough) == ((images + 1) * recall <= images + 1e-9)


def judged(wanted, probabilities, labels, **more):
    return judge_decision(
        wanted, class_names=NAMES, calibration=(probabilities, labels), source="them", **more
    )


def test_the_entry_gives_the_rule_again():
    probabilities, labels = drawn()
    costs = COSTS + np.array([[1.0], [2], [0]])  # what is right may cost something, too
    metrics = judged(Wanted({"b": 0.99}, costs), probabilities, labels, test=drawn(90, seed=1))
    rule = rule_of(metrics)
    np.testing.assert_allclose(rule.costs, COSTS)
    entry = metrics[DECISION]
    after = entry["calibration"]["after"]
    named = rule.decide(probabilities)
    assert after["cost"] == pytest.approx(np.mean([costs[i, j] for i, j in zip(labels, named, strict=True)]))
    assert after["cost"] < entry["calibration"]["before"]["cost"]
    assert entry["test"]["images"] == 90
    text = "\n".join(decision_of_run(metrics))
    for part in ("the class with the least expected cost", "cost per image", "  b: recall"):
        assert part in text
    assert judged(None, probabilities, labels) == {}
    assert rule_of({}) is None


def test_too_few_images_and_a_class_that_is_named_always_are_told():
    probabilities, labels = drawn(40)
    count = int((labels == 0).sum())
    (few,) = notices(judged(Wanted({"a": 0.98}), probabilities, labels)[DECISION])[:1]
    assert "it takes 49 images" in few
    assert f"chosen by {count}" in few
    sure = np.array([[1e-4, 0.9, 0.0999]] * 20 + [[1e-4, 0.9, 0.0999]] * 80)
    entry = judged(Wanted({"a": 0.9}), sure, np.r_[np.zeros(20, int), np.ones(80, int)])[DECISION]
    assert "a is named for 100% of the other classes' images" in notices(entry)[-1]


def test_recalls_that_cannot_be_reached_leave_the_likeliest_class():
    labels = np.arange(2).repeat(50)
    same = np.full((100, 3), [0.5, 0.49, 0.01])
    metrics = judged(Wanted({"a": 0.9, "b": 0.9}), same, labels)
    assert rule_of(metrics) is None
    assert "a (0.9) and b (0.9) cannot reach their recalls together" in decision_of_run(metrics)[0]
    never = np.full((100, 3), [0.0, 1, 0])
    assert (
        "takes naming it for every image"
        in judged(Wanted({"a": 0.9}), never, labels)[DECISION]["unsupported"]
    )


def test_figures_count_what_is_named():
    labels, before = np.array([0, 0, 1, 1, 2]), np.array([0, 1, 1, 1, 2])
    found = decision_figures(NAMES, labels, before, np.array([0, 0, 0, 1, 2]), 1 - np.eye(3))
    assert found["changed"] == 2
    assert (found["before"]["cost"], found["after"]["cost"]) == (0.2, 0.2)
    row = found["after"]["per_class"][0]
    assert (row["found"], row["recall"], row["false_alarms"], row["precision"]) == (2, 1, 1, 2 / 3)
    for part, rows in itertools.product(("before", "after"), range(3)):
        low, high = found[part]["per_class"][rows]["interval"]
        assert low <= found[part]["per_class"][rows]["recall"] <= high
