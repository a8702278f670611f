import numpy as np
import pytest
from scipy.stats import binom

from keras_vit.evaluation.pairs import compare_answers, difference_interval, holm, in_words, mcnemar

pytestmark = pytest.mark.same_on_every_backend


@pytest.mark.parametrize(("b", "c"), [(0, 0), (1, 0), (1, 7), (3, 3), (34, 3), (400, 461)])
def test_mcnemar_is_the_two_sided_binomial_test(b, c):
    n = b + c
    tail = binom.cdf(min(b, c), n, 0.5)
    assert mcnemar(b, c) == pytest.approx(min(1.0, 2 * tail))
    assert mcnemar(b, c) == pytest.approx(mcnemar(c, b))


def test_published_example():
    """M. W. Fagerland, S. Lydersen, P. Laake, Statistics in Medicine 33 (2014) 2850: 1, 1, 7, 12 children."""
    assert mcnemar(1, 7) == pytest.approx(0.070, abs=5e-4)
    assert difference_interval(1, 1, 7, 12) == pytest.approx((0.026, 0.507), abs=5e-4)
    assert difference_interval(1, 7, 1, 12) == pytest.approx((-0.507, -0.026), abs=5e-4)


@pytest.mark.parametrize("table", [(40, 0, 0, 0), (0, 0, 0, 7), (1, 0, 0, 0), (0, 5, 0, 0), (0, 0, 9, 0)])
def test_intervals_of_extreme_tables_are_in_range(table):
    low, high = difference_interval(*table)
    difference = (table[2] - table[1]) / sum(table)
    assert -1 <= low <= difference <= high <= 1
    assert high > low


def test_intervals_cover_the_true_difference():
    rng = np.random.default_rng(0)
    shares = np.array([0.80, 0.04, 0.09, 0.07])
    drawn = rng.multinomial(200, shares, size=400)
    inside = [low <= 0.05 <= high for low, high in (difference_interval(*row) for row in drawn.tolist())]
    assert 0.93 <= np.mean(inside) <= 0.98


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.9, 0.8]) == [1.0, 1.0]
    assert holm([0.2]) == [0.2]
    assert holm([]) == []


def test_a_table_by_hand():
    labels = np.array([0, 0, 0, 1, 1, 1])
    first = np.array([0, 0, 1, 1, 0, 0])
    second = np.array([0, 1, 0, 1, 1, -1])  # the last is a class that the first does not know
    found = compare_answers(labels, [first, second], ("a", "b", "c"))
    assert found["images"] == 6
    assert [one["correct"] for one in found["accuracy"]] == [3, 4]
    (row,) = found["against_first"]
    assert [row[key] for key in ("both", "only_first", "only_this", "neither")] == [2, 1, 2, 1]
    assert row["difference"] == pytest.approx(1 / 6)
    assert row["p_value"] == row["p_adjusted"] == 1.0
    assert found["per_class"] == [
        {"name": "a", "images": 3, "correct": [2, 2]},
        {"name": "b", "images": 3, "correct": [1, 2]},
    ]


@pytest.mark.parametrize(
    ("only_first", "only_this", "beginning"),
    [
        (3, 34, "new is better than old: 98.5% instead of 83.0% of 200 images"),
        (34, 3, "new is worse than old: 83.0% instead of 98.5%"),
        (2, 3, "No difference between new and old is shown, it may be chance"),
        (0, 0, "new and old are right on the same images"),
    ],
)
def test_the_answer_in_words(only_first, only_this, beginning):
    labels = np.zeros(200, int)
    first, second = np.zeros(200, int), np.zeros(200, int)
    second[:only_first] = 1
    first[only_first : only_first + only_this] = 1
    found = in_words(compare_answers(labels, [first, second], ("a", "b")), 1, ("old", "new"))
    assert found.startswith(beginning)
