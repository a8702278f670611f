"""The checks for every layer, and numpy versions to compare the layers with."""

import inspect
import json
import math
import tempfile
from pathlib import Path

import keras
import numpy as np
from keras import ops

# The error allowed in half precision, relative to the norm of the float32 output.
MIXED_PRECISION = {"mixed_bfloat16": ("bfloat16", 2e-2), "mixed_float16": ("float16", 3e-3)}


def check_layer(
    layer_class,
    init_kwargs,
    input_shape,
    *,
    expected_output_shape,
    expected_weights,
    expected_parameters,
    expected_non_trainable=0,
    no_gradient=(),
):
    """Checks all that a layer must do, for one combination of options.

    Args:
        layer_class: the layer.
        init_kwargs: its arguments.
        input_shape: with the batch size, which is 4 or more so that stochastic depth keeps an image.
        expected_output_shape: with the batch size.
        expected_weights: number of weights.
        expected_parameters: number of values in them.
        expected_non_trainable: number of weights that training does not change by gradient.
        no_gradient: ends of the paths of weights whose gradient is exactly zero in theory.
    """
    layer = layer_class(**init_kwargs)
    check_config(layer_class, init_kwargs, layer)

    layer.build((None, *input_shape[1:]))
    check_weights(layer, expected_weights, expected_parameters, expected_non_trainable)
    x = random_input(input_shape)
    y = layer(x)
    assert tuple(y.shape) == expected_output_shape
    assert layer.compute_output_shape(input_shape) == expected_output_shape
    assert layer.compute_output_shape((None, *input_shape[1:])) == (None, *expected_output_shape[1:])
    # The call makes no weights: build has made all of them.
    check_weights(layer, expected_weights, expected_parameters, expected_non_trainable)

    # A layer that its first, symbolic, call builds.
    rebuilt = layer_class.from_config(layer.get_config())
    model = functional(rebuilt, input_shape)
    assert tuple(model.output.shape) == (None, *expected_output_shape[1:])
    check_weights(rebuilt, expected_weights, expected_parameters, expected_non_trainable)
    rebuilt.set_weights(layer.get_weights())
    y = to_numpy(y)
    assert np.isfinite(y).all()
    # A compiled model gives the same as a call. The last batch is smaller: no image depends on its batch.
    np.testing.assert_allclose(predict(model, x, batch_size=len(x) - 1), y, atol=1e-5)

    check_saving(model, x)
    for policy in MIXED_PRECISION:
        check_mixed_precision(layer_class, init_kwargs, layer, x, y, policy)
    if expected_weights > expected_non_trainable:
        check_fit(model, rebuilt, x, y, no_gradient)


def check_config(layer_class, init_kwargs, layer):
    config = layer.get_config()
    arguments = inspect.signature(layer_class.__init__).parameters.values()
    own = {a.name: a.default for a in arguments if a.name != "self" and a.kind is not a.VAR_KEYWORD}
    assert set(config) == set(own) | {"name", "trainable", "dtype"}
    for name, default in own.items():
        expected = init_kwargs.get(name, default)
        if name == "data_format" and expected is None:
            expected = keras.config.image_data_format()  # as Keras's convolutions keep it
        assert config[name] == expected, name
    assert layer_class.from_config(config).get_config() == config
    # The config is JSON.
    stored = json.loads(json.dumps(keras.saving.serialize_keras_object(layer)))
    restored = keras.saving.deserialize_keras_object(stored)
    assert type(restored) is layer_class
    assert restored.get_config() == config


def check_weights(layer, count, parameters, non_trainable):
    assert len(layer.weights) == count
    assert sum(math.prod(weight.shape) for weight in layer.weights) == parameters
    assert len(layer.non_trainable_weights) == non_trainable
    paths = [weight.path for weight in layer.weights]
    assert len(set(paths)) == len(paths), "two weights of one name"


def check_saving(model, x):
    expected = to_numpy(model(x))
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "model.keras"
        model.save(path)
        loaded = keras.saving.load_model(path)
    np.testing.assert_array_equal(to_numpy(loaded(x)), expected)


def check_mixed_precision(layer_class, init_kwargs, layer, x, y, policy):
    dtype, tolerance = MIXED_PRECISION[policy]
    mixed = layer_class(**init_kwargs, dtype=policy)
    mixed.build((None, *x.shape[1:]))
    assert all(weight.dtype == "float32" for weight in mixed.weights)
    mixed.set_weights(layer.get_weights())
    model = functional(mixed, x.shape)
    assert model.output.dtype == dtype
    error = np.linalg.norm(predict(model, x) - y) / np.linalg.norm(y)
    assert error < tolerance, f"{policy}: {error}"


def check_fit(model, layer, x, y, no_gradient):
    """One compiled step of fit changes every weight."""
    # Adam changes a weight even if its gradient is tiny, as after a LayerScale of 1e-5.
    model.compile(keras.optimizers.Adam(1e-2, epsilon=1e-12), loss="mse", jit_compile=False)
    before = layer.get_weights()
    history = model.fit(x, y + random_input(y.shape), batch_size=len(x), verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    for weight, old in zip(layer.weights, before, strict=True):
        new = to_numpy(weight)
        assert np.isfinite(new).all(), weight.path
        if not weight.path.endswith(tuple(no_gradient) or ("\0",)):
            assert not np.array_equal(new, old), f"{weight.path} got no gradient"


def functional(layer, input_shape):
    images = keras.Input(input_shape[1:])
    return keras.Model(images, layer(images))


def predict(model, x, batch_size=None):
    # Compiled, because some operations fail only then. In a direct call, JAX compiles each operation alone.
    return model.predict(x, batch_size=batch_size or len(x), verbose=0).astype("float32")


def random_input(shape, seed=0):
    return np.random.default_rng(seed).normal(size=shape).astype("float32")


def randomize(layer, seed=0, scale=0.3):
    """Replaces the initial weights: zeros in biases and ones in norms would hide mistakes.

    Variances are positive.
    """
    rng = np.random.default_rng(seed)
    for weight in layer.weights:
        value = rng.normal(scale=scale, size=weight.shape)
        weight.assign(np.abs(value) + 0.5 if "variance" in weight.path else value + to_numpy(weight))
    return layer


def to_numpy(x):
    return ops.convert_to_numpy(ops.cast(x, "float32"))


# The formulas of the papers in NumPy, written independently of the layers.


def softmax(x):
    e = np.exp(x - x.max(axis=-1, keepdims=True))
    return e / e.sum(axis=-1, keepdims=True)


def layer_norm(x, gamma, beta, epsilon=1e-6):
    mean = x.mean(axis=-1, keepdims=True)
    variance = ((x - mean) ** 2).mean(axis=-1, keepdims=True)
    return (x - mean) / np.sqrt(variance + epsilon) * gamma + beta


def gelu(x):
    return np.vectorize(lambda v: v * 0.5 * (1 + math.erf(v / math.sqrt(2))))(x)


def attention(query, key, value):
    """Of one image and one head: (tokens, width) each; the output and the weights."""
    weights = softmax(query @ key.T / math.sqrt(query.shape[-1]))
    return weights @ value, weights
