import keras
import numpy as np
import pytest
from keras import ops

from keras_vit import SelfAttention
from tests.helpers.checks import attention, check_layer, layer_norm, random_input, randomize, to_numpy

# A constant added to all keys adds the same number to all scores of a query. Softmax ignores it.
NO_GRADIENT = ("key_norm/beta",)

CASES = {
    "plain": (dict(num_heads=2), (4, 5, 8), 4, 8 * 24 + 24 + 8 * 8 + 8),
    "no qkv bias": (dict(num_heads=4, qkv_bias=False), (4, 5, 8), 3, 8 * 24 + 8 * 8 + 8),
    "free head width": (dict(num_heads=3, head_dim=4), (4, 5, 8), 4, 8 * 36 + 36 + 12 * 8 + 8),
    "qk norm": (dict(num_heads=2, qk_norm=True), (4, 5, 8), 8, 8 * 24 + 24 + 8 * 8 + 8 + 4 * 4),
    "qk norm, no bias of the projection": (
        dict(num_heads=2, qk_norm=True, norm_epsilon=1e-5, projection_bias=False),
        (4, 5, 8),
        7,
        8 * 24 + 24 + 8 * 8 + 4 * 4,
    ),
    "dropout": (
        dict(num_heads=2, dropout_rate=0.1, attention_dropout_rate=0.2),
        (4, 5, 8),
        4,
        8 * 24 + 24 + 8 * 8 + 8,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_is_a_layer(case):
    kwargs, shape, weights, parameters = CASES[case]
    check_layer(
        SelfAttention,
        kwargs,
        shape,
        expected_output_shape=shape,
        expected_weights=weights,
        expected_parameters=parameters,
        no_gradient=NO_GRADIENT,
    )


ORACLE = [
    dict(num_heads=2),
    dict(num_heads=3, head_dim=4, qkv_bias=False),
    dict(num_heads=2, qk_norm=True),
    dict(num_heads=2, qk_norm=True, norm_epsilon=1e-2, projection_bias=False),
]


@pytest.fixture(params=ORACLE, ids=str)
def layer(request):
    layer = SelfAttention(**request.param)
    layer.build((None, 5, 8))
    return randomize(layer)


def test_is_attention_by_hand(layer):
    x = random_input((2, 5, 8))
    heads, width = layer.num_heads, layer.head_dim or 8 // layer.num_heads
    kernel, *bias = layer.qkv.get_weights()
    qkv = x @ kernel + (bias[0] if bias else 0)
    query, key, value = (part.reshape(2, 5, heads, width) for part in np.split(qkv, 3, axis=-1))
    if layer.qk_norm:
        query = layer_norm(query, *layer.query_norm.get_weights(), layer.norm_epsilon)
        key = layer_norm(key, *layer.key_norm.get_weights(), layer.norm_epsilon)
    out, weights = np.zeros((2, 5, heads, width)), np.zeros((2, heads, 5, 5))
    for image, head in np.ndindex(2, heads):
        out[image, :, head], weights[image, head] = attention(
            query[image, :, head], key[image, :, head], value[image, :, head]
        )
    kernel, *bias = layer.projection.get_weights()
    expected = out.reshape(2, 5, -1) @ kernel + sum(bias)
    np.testing.assert_allclose(to_numpy(layer(x)), expected, atol=1e-4)
    by_steps, shown = layer.attend(x)
    np.testing.assert_allclose(to_numpy(by_steps), expected, atol=1e-4)
    np.testing.assert_allclose(to_numpy(shown), weights, atol=1e-5)


def test_fused_and_explicit_paths_agree(layer):
    x = random_input((3, 5, 8))
    out, weights = layer.attend(x)
    np.testing.assert_allclose(to_numpy(layer(x)), to_numpy(out), atol=1e-5)
    np.testing.assert_allclose(to_numpy(weights).sum(axis=-1), 1, atol=1e-6)
    assert to_numpy(weights).min() >= 0


def test_the_attention_in_a_functional_model(layer):
    x = random_input((3, 5, 8))
    tokens = keras.Input((5, 8))
    model = keras.Model(tokens, layer(tokens, return_attention=True))
    assert [tuple(y.shape) for y in model.outputs] == [(None, 5, 8), (None, layer.num_heads, 5, 5)]
    assert [y.dtype for y in model.outputs] == ["float32", "float32"]
    for ours, theirs in zip(model(x), layer(x, return_attention=True), strict=True):
        np.testing.assert_allclose(to_numpy(ours), to_numpy(theirs), atol=1e-6)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
def test_attention_is_float32_in_half_precision(dtype):
    layer = SelfAttention(num_heads=2, dtype=dtype)
    layer.build((None, 50, 8))
    _, weights = layer.attend(ops.cast(random_input((2, 50, 8)), layer.compute_dtype))
    assert "float32" in str(weights.dtype)
    np.testing.assert_allclose(to_numpy(weights).sum(axis=-1), 1, atol=1e-5)


def test_training_without_dropout_changes_nothing():
    layer = SelfAttention(num_heads=2)
    x = random_input((2, 5, 8))
    np.testing.assert_allclose(to_numpy(layer(x, training=True)), to_numpy(layer(x)), atol=1e-6)


@pytest.mark.parametrize("rate", ["dropout_rate", "attention_dropout_rate"])
def test_dropout_is_drawn_in_training_only(rate):
    layer = SelfAttention(num_heads=2, **{rate: 0.5})
    x = random_input((4, 9, 8))
    y = to_numpy(layer(x))
    np.testing.assert_array_equal(to_numpy(layer(x)), y)
    first, second = to_numpy(layer(x, training=True)), to_numpy(layer(x, training=True))
    assert abs(first - second).max() > 1e-3
    assert abs(first - y).max() > 1e-3


WRONG = [
    (dict(num_heads=0), None, "num_heads must be 1 or more. Received: num_heads=0"),
    (dict(num_heads=2.5), None, "num_heads must be a whole number. Received: num_heads=2.5"),
    (dict(num_heads=2, head_dim=0), None, "head_dim must be 1 or more. Received: head_dim=0"),
    (
        dict(num_heads=3),
        (None, 5, 8),
        "num_heads must divide dim, unless head_dim is given. Received: num_heads=3, dim=8",
    ),
    (
        dict(num_heads=2, dropout_rate=-0.1),
        None,
        "dropout_rate must be 0.0 or more and below 1.0. Received: dropout_rate=-0.1",
    ),
    (dict(num_heads=2, projection_bias="no"), None, "projection_bias must be true or false."),
    (dict(num_heads=2, norm_epsilon=1.0), None, "norm_epsilon must be above 0.0 and 0.01 at most."),
    (dict(num_heads=2, attention_dropout_rate=2), None, "Received: attention_dropout_rate=2"),
]


@pytest.mark.parametrize(("kwargs", "shape", "message"), WRONG)
def test_wrong_arguments(kwargs, shape, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the text is compared below)
        SelfAttention(**kwargs).build(shape)
    assert message in str(caught.value)
