"""The figures of the benchmarks' rows; nothing is measured."""

import os

import pytest

from benchmarks import growth, latency

pytestmark = pytest.mark.same_on_every_backend


@pytest.mark.parametrize("power", [0.0, 1.0, 2.0])
def test_the_exponent_of_a_series(power):
    sizes = (10, 100, 1_000, 10_000)
    assert growth.exponent(sizes, tuple(3 * size**power for size in sizes)) == pytest.approx(power)


def test_a_ratio_is_that_of_the_same_turn():
    row = latency.row("ours", [0.001, 0.004, 0.009], [0.002, 0.004, 0.006])
    assert row == (
        "ours",
        len(os.sched_getaffinity(0)),
        4.0,
        pytest.approx(1.0),
        (pytest.approx(0.75), pytest.approx(1.25)),
    )
