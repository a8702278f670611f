"""Whether a model learned anything, against labels whose answer is known."""

import numpy as np
import pytest
from sklearn.metrics import balanced_accuracy_score

from keras_vit.evaluation.learned import (
    LEVEL_OF_CHOSEN,
    Named,
    judge_learning,
    linear_answers,
    no_better_than_one_class,
)

pytestmark = pytest.mark.same_on_every_backend

NAMES = ("a", "b", "c")
RNG = np.random.default_rng(0)
EVEN = np.repeat(np.arange(3), 20)
UNEVEN = np.repeat(np.arange(3), (142, 30, 28))
NOTHING = Named(EVEN[:0], EVEN[:0])


def with_errors(labels, count):
    predicted = labels.copy()
    wrong = np.linspace(0, len(labels) - 1, count).astype(int)
    predicted[wrong] = (predicted[wrong] + 1) % 3
    return Named(labels, predicted)


def warning_of(test, *, training=None, validation=NOTHING, linear=None, remedies=("more images",)):
    def answers():
        return linear or Named(test.labels, np.zeros_like(test.labels))

    found = judge_learning(NAMES, training or test, validation, test, answers, remedies)
    return found and found[0]


def test_figures():
    named = Named(UNEVEN, RNG.permutation(UNEVEN))
    assert named.balanced_accuracy == pytest.approx(balanced_accuracy_score(named.labels, named.predicted))
    assert named.most_frequent() == (0, 0.71)
    assert named.chance == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("test", "message"),
    [
        (Named(UNEVEN, np.zeros_like(UNEVEN)), "learned nothing: it names a for all test images"),
        (Named(UNEVEN, np.where(np.arange(200) == 150, 1, 0)), "it names a for 99.5% of the test images"),
        (Named(EVEN, np.tile(np.arange(3), 20)), "not better than an answer without looking"),
        (Named(EVEN, (EVEN + 1) % 3), "not better than an answer without looking"),  # swapped folders
        (Named(np.repeat([0, 1], (99, 1)), np.zeros(100, int)), "it names a for all test images"),
        # The one image of a class is right by luck: of 61 images 9 are given that name.
        (Named(np.repeat([0, 1], (60, 1)), np.repeat([1, 0, 1], (8, 52, 1))), "not better than an answer"),
    ],
)
def test_models_that_learned_nothing(test, message):
    found = warning_of(test)
    assert message in found
    assert found.endswith("Try more images.")
    assert f"accuracy {test.accuracy:.1%}, balanced accuracy {test.balanced_accuracy:.1%}" in found


@pytest.mark.parametrize(
    "test",
    [
        Named(EVEN, EVEN),
        with_errors(EVEN, 20),
        with_errors(UNEVEN, 40),
        Named(np.arange(3), np.arange(3)),  # too few to show anything, and all right
        Named(np.repeat([0, 1], (99, 1)), np.repeat([0, 1], (99, 1))),
        Named(EVEN[:20], EVEN[:20]),  # one class: nothing can be said
    ],
)
def test_models_that_learned(test):
    assert warning_of(test) is None


def test_what_was_learned_by_heart():
    found = warning_of(Named(EVEN, np.tile(np.arange(3), 20)), training=Named(EVEN, EVEN))
    assert "nothing that holds for other images than its training images (100.0% of those" in found
    assert "Check the labels and the split first." in found


def test_few_test_images_are_judged_with_those_of_validation():
    test, more = with_errors(EVEN[::7], 4), with_errors(EVEN, 10)
    assert warning_of(test) is not None
    assert warning_of(test, validation=more) is None


def test_validation_images_that_chose_the_epoch_must_show_more():
    """12 of 36 images of six classes are right: chance gives as many once in about a hundred draws."""
    both = Named(np.repeat(np.arange(6), 6), np.tile(np.arange(6), 6))
    right = [1, 2, 8, 15, 22, 29]
    both.predicted[right] = both.labels[right]
    assert both.beats_chance()
    assert not both.beats_chance(LEVEL_OF_CHOSEN)


def test_a_linear_classifier_that_is_better():
    test = with_errors(EVEN, 24)
    assert "worse than a linear classifier" in warning_of(test, linear=Named(EVEN, EVEN))
    assert warning_of(test, linear=with_errors(EVEN, 22)) is None


def test_linear_answers_find_what_is_in_the_thumbnails():
    rows = np.eye(3)[EVEN] + 0.1 * RNG.normal(size=(60, 3))
    assert linear_answers(rows, EVEN, rows, EVEN).accuracy == 1
    assert linear_answers(rows, np.zeros_like(EVEN), rows, EVEN).accuracy == pytest.approx(1 / 3)


@pytest.mark.parametrize(
    ("value", "counts", "expected"),
    [(0.34, [90, 30, 30], True), (0.6, [90, 30, 30], False), (1.0, [5], False)],
)
def test_the_note_during_training(value, counts, expected):
    assert no_better_than_one_class(value, np.array(counts)) is expected


def test_noise_is_seldom_taken_for_learning():
    """By the definition of the level, in 1 % of the cases: 100 draws give 0 to 5 with 99.9 %."""
    draws = [Named(EVEN, RNG.permutation(EVEN)) for _ in range(100)]
    assert sum(named.beats_chance() for named in draws) <= 5
