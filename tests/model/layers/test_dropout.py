"""Dropout: masks follow the definition, and each replica draws its own from the same random state."""

import numpy as np
import pytest

from keras_vit.model.layers.dropout import Dropout
from tests.helpers.checks import check_layer, random_input, to_numpy

CASES = {
    "some": (dict(rate=0.3), (4, 5, 8)),
    "none": (dict(rate=0), (4, 8)),
    "images": (dict(rate=0.5), (4, 3, 3, 2)),
    "stochastic depth": (dict(rate=0.2, noise_shape=(None, 1, 1)), (4, 5, 8)),
}
SEED = 17


def in_state(layer, call=0):
    """The layer, with a known random state before its next draw."""
    layer.build((None, 8))
    layer.seed_generator.state.assign(np.array([SEED, call]))
    return layer


def masks(layer, calls=1, shape=(64, 32)):
    """Which values are kept, for each of `count` calls."""
    return [to_numpy(layer(np.ones(shape, "float32"), training=True)) != 0 for _ in range(calls)]


@pytest.mark.parametrize("case", CASES)
def test_is_a_layer(case):
    kwargs, shape = CASES[case]
    check_layer(
        Dropout, kwargs, shape, expected_output_shape=shape, expected_weights=0, expected_parameters=0
    )


@pytest.mark.parametrize("case", CASES)
def test_is_off_in_inference(case):
    kwargs, shape = CASES[case]
    layer, x = Dropout(**kwargs), random_input(shape)
    for given in (dict(), dict(training=False), dict(training=None)):
        np.testing.assert_array_equal(to_numpy(layer(x, **given)), x)


@pytest.mark.parametrize("rate", [0, 0.0])
def test_rate_0_changes_nothing_and_has_no_variable(rate):
    layer, x = Dropout(rate), random_input((4, 8))
    np.testing.assert_array_equal(to_numpy(layer(x, training=True)), x)
    assert layer.variables == []


def test_its_random_state_is_its_only_variable():
    layer = Dropout(0.5, name="dropout")
    layer.build((None, 8))
    (state,) = layer.variables
    assert state.path == "dropout/seed_generator/seed_generator_state"
    assert tuple(state.shape) == (2,)


@pytest.mark.parametrize("rate", [0.05, 0.3, 0.5, 0.9])
def test_a_fraction_of_rate_is_zero_and_the_rest_is_scaled(rate):
    x = random_input((100, 400)) + 10  # no value is zero
    y = to_numpy(Dropout(rate)(x, training=True))
    kept = y != 0
    # 5 standard deviations of a binomial share.
    assert (~kept).mean() == pytest.approx(rate, abs=5 * np.sqrt(rate * (1 - rate) / x.size))
    np.testing.assert_allclose(y[kept], x[kept] / (1 - rate), rtol=1e-6)


@pytest.mark.parametrize(
    ("noise_shape", "shared"), [((None, 1, 1), (1, 2)), ((None, 1, None), (1,)), ((1, None, None), (0,))]
)
def test_axes_of_1_in_noise_shape_are_dropped_together(noise_shape, shared):
    x = random_input((60, 7, 9)) + 10
    y = to_numpy(Dropout(0.5, noise_shape)(x, training=True))
    kept = y != 0
    np.testing.assert_array_equal(kept.all(axis=shared), kept.any(axis=shared))
    assert 0.2 < kept.mean() < 0.8
    np.testing.assert_allclose(y[kept], 2 * x[kept], rtol=1e-6)


def test_the_same_state_draws_the_same_mask():
    first, second = masks(in_state(Dropout(0.5)), 2)
    again, second_again = masks(in_state(Dropout(0.5)), 2)
    np.testing.assert_array_equal(first, again)
    np.testing.assert_array_equal(second, second_again)
    assert 0.4 < (first != second).mean() < 0.6


def test_a_resumed_run_draws_the_same_masks():
    uninterrupted, layer = in_state(Dropout(0.5)), in_state(Dropout(0.5), 7)
    masks(uninterrupted)
    layer.seed_generator.state.assign(uninterrupted.seed_generator.state)
    np.testing.assert_array_equal(masks(layer), masks(uninterrupted))


def test_two_layers_draw_different_masks():
    one, other = masks(Dropout(0.5)), masks(Dropout(0.5))
    assert 0.4 < np.not_equal(one, other).mean() < 0.6


def replica_masks(monkeypatch, replica, calls, replicas=2):
    """The values that a replica keeps, and the random state afterwards. All replicas share one state."""
    monkeypatch.setattr("keras_vit.model.layers.dropout.num_replicas", lambda: replicas)
    monkeypatch.setattr("keras_vit.model.layers.dropout.replica_id", lambda: replica)
    layer = in_state(Dropout(0.5))
    return masks(layer, calls), to_numpy(layer.seed_generator.state)


def test_replicas_draw_different_masks_from_the_same_state(monkeypatch):
    drawn = [replica_masks(monkeypatch, replica, 1, replicas=4)[0][0] for replica in range(4)]
    for i, mask in enumerate(drawn):
        assert 0.4 < mask.mean() < 0.6
        for other in drawn[:i]:
            assert 0.4 < (mask != other).mean() < 0.6


def test_the_state_advances_equally_on_every_replica(monkeypatch):
    states = [replica_masks(monkeypatch, replica, 3)[1] for replica in (0, 1)]
    np.testing.assert_array_equal(*states)
    np.testing.assert_array_equal(states[0], [SEED, 3])


def test_replica_0_draws_what_one_device_draws(monkeypatch):
    alone = masks(in_state(Dropout(0.5)), 2)
    np.testing.assert_array_equal(replica_masks(monkeypatch, 0, 2)[0], alone)


def test_no_replica_repeats_a_mask_of_another_step(monkeypatch):
    one, other = (replica_masks(monkeypatch, replica, 5)[0] for replica in (0, 1))
    repeated = [(i, j) for i in range(5) for j in range(5) if np.array_equal(one[i], other[j])]
    assert repeated == []


@pytest.mark.parametrize("rate", [-0.1, 1, 1.0, 1.5, float("nan")])
def test_wrong_rates(rate):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the text is compared below)
        Dropout(rate)
    limits = "0.0 or more and below 1.0" if rate == rate else "a finite number"
    assert str(caught.value) == f"rate must be {limits}. Received: rate={rate}"
