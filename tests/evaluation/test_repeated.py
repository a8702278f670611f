import numpy as np
import pytest

from keras_vit.evaluation.metrics import wilson_interval
from keras_vit.evaluation.repeated import Estimate, estimate_accuracy, estimate_difference

pytestmark = pytest.mark.same_on_every_backend


def answers(*counts, images=100):
    """A repeat per count, whose first images are right."""
    return np.arange(images)[None, :] < np.array(counts)[:, None]


def test_one_repeat_has_the_wilson_interval():
    found = estimate_accuracy(answers(90))
    assert (found.low, found.high) == wilson_interval(90, 100)


def test_the_same_repeat_again_tells_nothing_new():
    one, many = estimate_accuracy(answers(90)), estimate_accuracy(answers(90, 90, 90))
    assert many.mean == pytest.approx(0.9)
    assert (many.low, many.high) == pytest.approx((one.low, one.high), abs=0.01)


def test_repeats_that_differ_widen_the_interval():
    alike, unlike = estimate_accuracy(answers(90, 90, 90)), estimate_accuracy(answers(80, 90, 100))
    assert unlike.mean == alike.mean
    assert unlike.high - unlike.low > 1.5 * (alike.high - alike.low)


@pytest.mark.parametrize("right", [answers(10, images=10), answers(10, 10, images=10)])
def test_all_right_is_not_certain_with_few_images(right):
    found = estimate_accuracy(right)
    assert found.low < 0.8
    assert found.high == 1.0


def test_images_of_one_part_count_as_one():
    right = np.repeat(answers(18, images=20), 10, axis=1)
    clusters = np.repeat(np.arange(20), 10)
    found, alone = estimate_accuracy(right, clusters), estimate_accuracy(answers(18, images=20))
    apart = estimate_accuracy(right, np.arange(200))
    assert found.high - found.low == pytest.approx(alone.high - alone.low, rel=0.25)
    assert found.high - found.low > 2 * (apart.high - apart.low)


@pytest.mark.parametrize(("better", "worse"), [(10, 2), (30, 20), (0, 0), (25, 0)])
def test_a_difference_is_that_of_agresti_and_min(better, worse):
    images = 400
    first, second = np.ones((1, images), bool), np.ones((1, images), bool)
    second[0, :better] = False
    first[0, better : better + worse] = False
    found = estimate_difference(first, second)
    # Their formula, with the normal quantile.
    difference = (better - worse) / (images + 2)
    variance = (better + worse + 1 - (better - worse) ** 2 / (images + 2)) / (images + 2) ** 2
    half = 1.96 * np.sqrt(variance)
    assert found.mean == pytest.approx((better - worse) / images)
    assert (found.low, found.high) == pytest.approx((difference - half, difference + half), abs=4e-4)


def test_the_interval_is_not_narrower_than_a_bootstrap_of_images_and_repeats():
    rng = np.random.default_rng(0)
    hard, luck = rng.normal(size=200), rng.normal(size=5)
    first = rng.normal(size=(5, 200)) + hard + luck[:, None] + 1.0 > 0
    second = rng.normal(size=(5, 200)) + hard + luck[:, None] + 0.5 > 0
    found = estimate_difference(first, second)
    values, means = first.astype(float) - second, []
    for _ in range(2000):
        rows, columns = rng.integers(0, 5, 5), rng.integers(0, 200, 200)
        means.append(values[np.ix_(rows, columns)].mean())
    low, high = np.quantile(means, [0.025, 0.975])
    assert found.high - found.low == pytest.approx(high - low, rel=0.35)
    assert found.mean == pytest.approx(values.mean())


def test_the_first_repeats_count_where_one_model_has_fewer():
    assert estimate_difference(answers(90, 50), answers(80)) == estimate_difference(answers(90), answers(80))


@pytest.mark.parametrize(
    ("low", "high", "certain"), [(0.1, 0.2, True), (-0.2, -0.1, True), (-0.1, 0.1, False), (0.0, 0.1, False)]
)
def test_a_difference_is_certain_where_its_interval_has_one_sign(low, high, certain):
    assert Estimate((low + high) / 2, low, high).is_certain is certain
