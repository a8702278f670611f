"""Batch normalization against numpy, on one replica and on several that share a batch."""

import numpy as np
import pytest
from keras import ops

from keras_vit.model.layers.batch_norm import BatchNorm
from tests.helpers.checks import (
    check_fit,
    check_mixed_precision,
    check_saving,
    check_weights,
    functional,
    predict,
    random_input,
    randomize,
    to_numpy,
)

CASES = {
    "images": (dict(), (8, 3, 5, 4)),
    "tokens, slowly": (dict(momentum=0.9), (8, 6, 4)),
    "vectors, another epsilon": (dict(momentum=0.5, epsilon=0.1), (8, 4)),
}
cases = pytest.mark.parametrize(("kwargs", "shape"), CASES.values(), ids=CASES.keys())


def made(kwargs, shape):
    """A layer with random weights, and its input."""
    layer = BatchNorm(**kwargs)
    layer.build((None, *shape[1:]))
    return randomize(layer), random_input(shape, seed=1) * 2 + 3


# The formulas of the paper, in numpy.


def normalized(x, mean, variance, gamma, beta, epsilon):
    return (x - mean) / np.sqrt(variance + epsilon) * gamma + beta


def statistics(x):
    flat = x.reshape(-1, x.shape[-1]).astype("float64")
    return flat.mean(axis=0), ((flat - flat.mean(axis=0)) ** 2).mean(axis=0)


def trained(layer, x):
    """The output and the moving statistics of a training step, computed from the weights before it."""
    gamma, beta, *moving = (np.asarray(weight, "float64") for weight in layer.get_weights())
    now = statistics(x)
    m = layer.momentum
    return (
        normalized(x, *now, gamma, beta, layer.epsilon),
        [m * old + (1 - m) * new for old, new in zip(moving, now, strict=True)],
    )


@pytest.mark.parametrize("case", ["images", "vectors, another epsilon"])
def test_is_a_layer(case):
    kwargs, shape = CASES[case]
    layer, x = made(kwargs, shape)
    check_weights(layer, count=4, parameters=16, non_trainable=2)
    rebuilt = BatchNorm.from_config(layer.get_config())
    assert rebuilt.get_config() == layer.get_config()
    assert layer.compute_output_shape(shape) == shape
    y = to_numpy(layer(x))
    model = functional(rebuilt, shape)
    rebuilt.set_weights(layer.get_weights())
    # The last batch is smaller: in inference an image's output does not depend on its neighbours.
    np.testing.assert_allclose(predict(model, x, batch_size=len(x) - 1), y, atol=1e-5)
    check_saving(model, x)
    check_mixed_precision(BatchNorm, kwargs, layer, x, y, "mixed_bfloat16")
    check_fit(model, rebuilt, x, y, ())


def test_weights_are_in_the_order_of_the_checkpoints():
    layer, _ = made(*CASES["images"])
    names = [weight.name for weight in layer.weights]
    assert names == ["gamma", "beta", "moving_mean", "moving_variance"]


def test_first_weights():
    layer = BatchNorm()
    layer.build((None, 4))
    np.testing.assert_array_equal(layer.get_weights(), [[1] * 4, [0] * 4, [0] * 4, [1] * 4])


@cases
def test_inference_uses_the_moving_statistics_and_keeps_them(kwargs, shape):
    layer, x = made(kwargs, shape)
    before = layer.get_weights()
    gamma, beta, mean, variance = before
    expected = normalized(x, mean, variance, gamma, beta, layer.epsilon)
    for given in (dict(), dict(training=False)):
        np.testing.assert_allclose(to_numpy(layer(x, **given)), expected, atol=1e-5)
    np.testing.assert_array_equal(layer.get_weights(), before)


@cases
def test_training_uses_the_batch_and_moves_the_statistics(kwargs, shape):
    layer, x = made(kwargs, shape)
    for _ in range(2):
        expected, moving = trained(layer, x)
        np.testing.assert_allclose(to_numpy(layer(x, training=True)), expected, atol=1e-5)
        np.testing.assert_allclose(layer.get_weights()[2:], moving, rtol=1e-5)


def test_a_frozen_layer_is_in_inference_mode():
    layer, x = made(*CASES["images"])
    layer.trainable = False
    before, expected = layer.get_weights(), to_numpy(layer(x))
    np.testing.assert_allclose(to_numpy(layer(x, training=True)), expected, atol=1e-6)
    np.testing.assert_array_equal(layer.get_weights(), before)


# Several replicas. Each has the layer, the same weights and its share of the batch.


def run_replicas(monkeypatch, kwargs, shares, policy=None):
    """The layers and outputs of the replicas in one training step.

    The replicas run one after the other, in several rounds. An exchange gives the right values once all
    exchanges before it did, so one more round than there are exchanges is enough.
    """
    exchanged = []
    monkeypatch.setattr("keras_vit.model.layers.batch_norm.num_replicas", lambda: len(shares))
    for _ in range(5):
        given, layers, outputs = [], [], []
        for share in shares:
            own = []

            def mean_over_replicas(value, rows, own=own, exchanged=tuple(exchanged)):
                own.append(to_numpy(value))
                known = exchanged[len(own) - 1] if len(own) <= len(exchanged) else own[-1]
                return ops.convert_to_tensor(known)

            monkeypatch.setattr("keras_vit.model.layers.batch_norm.mean_over_replicas", mean_over_replicas)
            layer = BatchNorm(**kwargs, dtype=policy)
            layer.build((None, *share.shape[1:]))
            randomize(layer)
            outputs.append(layer(share, training=True))
            layers.append(layer)
            given.append(own)
        before, exchanged = exchanged, np.mean(given, axis=0)
        if np.array_equal(before, exchanged):
            return layers, outputs
    raise AssertionError("The exchanges do not converge.")


@cases
@pytest.mark.parametrize("replicas", [2, 4])
def test_replicas_use_the_whole_batch(kwargs, shape, replicas, monkeypatch):
    layer, x = made(kwargs, shape)
    x[: len(x) // 2] += 5  # the shares differ in mean and variance
    x[-1] *= 3
    expected, moving = trained(layer, x)
    layers, outputs = run_replicas(monkeypatch, kwargs, np.split(x, replicas))
    np.testing.assert_allclose(np.concatenate([to_numpy(y) for y in outputs]), expected, atol=1e-5)
    for layer in layers:
        np.testing.assert_allclose(layer.get_weights()[2:], moving, rtol=1e-5)


def test_replicas_in_half_precision_keep_statistics_in_float32(monkeypatch):
    kwargs, shape = CASES["images"]
    layer, x = made(kwargs, shape)
    x = to_numpy(ops.cast(x, "bfloat16"))  # the input of the layer in half precision
    expected, moving = trained(layer, x)
    layers, outputs = run_replicas(monkeypatch, kwargs, np.split(x, 2), "mixed_bfloat16")
    for layer, y, part in zip(layers, outputs, np.split(expected, 2), strict=True):
        assert "bfloat16" in str(y.dtype)
        np.testing.assert_allclose(to_numpy(y), part, atol=0.05)
        np.testing.assert_allclose(layer.get_weights()[2:], moving, rtol=1e-5)


@pytest.mark.parametrize("frozen", [False, True])
def test_replicas_in_inference_exchange_nothing(frozen, monkeypatch):
    layer, x = made(*CASES["images"])
    layer.trainable = not frozen
    expected = to_numpy(layer(x))
    monkeypatch.setattr("keras_vit.model.layers.batch_norm.num_replicas", lambda: 2)
    monkeypatch.setattr("keras_vit.model.layers.batch_norm.mean_over_replicas", pytest.fail)
    np.testing.assert_array_equal(to_numpy(layer(x, training=frozen)), expected)
