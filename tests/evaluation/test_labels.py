import numpy as np
import pytest

from keras_vit.evaluation.labels import (
    FEWEST,
    HALF,
    best_threshold,
    fit_thresholds,
    judge_labels,
    label_metrics,
    sigmoid,
    thresholds_in,
)
from keras_vit.evaluation.learned_labels import judge_label_learning
from keras_vit.evaluation.ordered import order_figures

pytestmark = pytest.mark.same_on_every_backend

NAMES = ("a", "b", "c")


def answers(count=120, noise=1.0, seed=0):
    rng = np.random.RandomState(seed)
    targets = (rng.rand(count, 3) < (0.5, 0.3, 0.1)).astype(np.uint8)
    return targets, 4.0 * targets - 2 + noise * rng.randn(count, 3) * 2


def f1_of(targets, named):
    both = targets.sum() + named.sum()
    return 2 * (targets & named).sum() / both if both else 0.0


@pytest.mark.parametrize("seed", range(5))
def test_the_threshold_has_the_highest_f1(seed):
    targets, logits = answers(seed=seed)
    p = sigmoid(logits[:, 0])
    chosen = best_threshold(targets[:, 0], p)
    own = f1_of(targets[:, 0], p >= chosen)
    assert own == pytest.approx(max(f1_of(targets[:, 0], p >= one) for one in p))
    assert chosen not in p  # half way between two images, so that rounding changes no label


def test_labels_of_few_images_keep_a_half():
    targets = np.zeros((40, 3), int)
    targets[:FEWEST, 0] = targets[: FEWEST - 1, 1] = 1
    targets[: 41 - FEWEST, 2] = 1
    thresholds, own = fit_thresholds(targets, np.random.RandomState(0).rand(40, 3))
    assert own.tolist() == [True, False, False]
    assert thresholds[1:].tolist() == [HALF, HALF]


def test_metrics_by_hand():
    targets = np.array([[1, 0, 0], [1, 1, 0], [0, 1, 0], [0, 0, 0]])
    p = np.array([[0.9, 0.2, 0.1], [0.3, 0.8, 0.1], [0.6, 0.4, 0.2], [0.1, 0.1, 0.6]])
    found = label_metrics(targets, p, [0.5, 0.5, 0.5], NAMES)
    assert (found["images"], found["correct"]) == (4, 1)
    first, second, third = found["per_class"]
    assert first["average_precision"] == pytest.approx((1 + 2 / 3) / 2)  # ranks 1 and 3
    assert (first["precision"], first["recall"], first["f1"]) == (0.5, 0.5, 0.5)
    assert second["average_precision"] == 1
    assert second["recall"] == 0.5
    assert third["average_precision"] is None
    assert third["recall"] is None
    assert third["precision"] == 0
    assert found["mean_average_precision"] == pytest.approx((5 / 6 + 1) / 2)
    assert found["micro_f1"] == pytest.approx(2 * 2 / (4 + 4))
    assert found["prevalence"] == 0.5
    assert found["labels_per_image"] == 1


WRONG = {
    "a target of 2": ([[2, 0, 0]], [[0.5] * 3], "0 and 1"),
    "another shape": ([[1, 0]], [[0.5] * 3], "shape"),
    "logits": ([[1, 0, 0]], [[5.0, 0, 0]], "0..1"),
    "NaN": ([[1, 0, 0]], [[np.nan, 0, 0]], "diverged"),
}


@pytest.mark.parametrize(("targets", "p", "told"), WRONG.values(), ids=WRONG)
def test_wrong_arguments(targets, p, told):
    with pytest.raises(ValueError, match=told):
        label_metrics(targets, p, [0.5] * 3, NAMES)


def judged(**changes):
    (test, test_logits), (validation, validation_logits) = answers(seed=1), answers(seed=2)
    given = dict(
        class_names=NAMES,
        test_labels=test,
        test_names=[f"{i}.png" for i in range(len(test))],
        test_logits_best=test_logits,
        test_logits_last=test_logits,
        validation_labels=validation,
        validation_logits_best=validation_logits,
        best_epoch=1,
        last_epoch=2,
    )
    return test, judge_labels(**(given | changes))


def test_the_last_epoch_is_judged_at_the_same_logits():
    _, found = judged()
    for key in ("accuracy", "macro_f1", "mean_average_precision"):
        assert found["best"][key] == pytest.approx(found["last"][key])
    assert thresholds_in(found).tolist() == pytest.approx(
        [row["threshold"] for row in found["best"]["per_class"]]
    )


def test_mistakes_are_wrong_and_the_worst_come_first():
    test, found = judged()
    for mistake in found["mistakes"]:
        assert mistake["missed"] == bool(test[mistake["index"], mistake["label"]])
        assert mistake["true"] == np.flatnonzero(test[mistake["index"]]).tolist()
    off = [abs(m["probability"] - m["missed"]) for m in found["mistakes"] if m["label"] == 0]
    assert off == sorted(off, reverse=True)


def test_without_a_validation_part_all_thresholds_are_a_half():
    _, found = judged(validation_labels=np.zeros((0, 3), int), validation_logits_best=np.zeros((0, 3)))
    assert [row["threshold"] for row in found["thresholds"]["labels"]] == [HALF] * 3
    assert found["calibration"]["temperature"] == 1


LEARNED = {"learned": (1.0, None), "noise": (0.0, "learned nothing: it is not better")}


@pytest.mark.parametrize(("share", "told"), LEARNED.values(), ids=LEARNED)
def test_a_run_that_learned_nothing_says_so(share, told):
    targets, logits = answers()
    noise = np.random.RandomState(5).randn(*logits.shape)
    part = (targets, share * logits + (1 - share) * noise)
    found = judge_label_learning(NAMES, part, (targets[:0], logits[:0]), part, ["more images", "more epochs"])
    assert (
        found is None if told is None else told in found[0] and "Try more images and more epochs" in found[0]
    )


def test_only_the_training_images_were_learned():
    targets, logits = answers()
    noise = np.random.RandomState(6).randn(*logits.shape)
    text, _ = judge_label_learning(
        NAMES, (targets, logits), (targets[:0], noise[:0]), (targets, noise), ["x"]
    )
    assert "other images than its training images" in text


def test_ordered_figures_by_hand():
    matrix = np.array([[3, 1, 0], [0, 2, 0], [1, 0, 3]])
    found = order_figures(matrix)
    assert found["mean_absolute_error"] == pytest.approx((1 + 2) / 10)
    assert found["neighbour_mistakes"] == 0.5
    weights = np.array([[0, 1, 4], [1, 0, 1], [4, 1, 0]])
    expected = np.outer(matrix.sum(axis=1), matrix.sum(axis=0)) / 10
    assert found["quadratic_kappa"] == pytest.approx(
        1 - (weights * matrix).sum() / (weights * expected).sum()
    )


def test_ordered_figures_without_mistakes():
    assert order_figures(np.diag([2, 3])) == {
        "mean_absolute_error": 0.0,
        "quadratic_kappa": 1.0,
        "neighbour_mistakes": None,
    }
    assert order_figures(np.diag([2, 0]))["quadratic_kappa"] is None
