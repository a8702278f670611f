import numpy as np
import pytest

from keras_vit import AttentionPool
from tests.helpers.checks import attention, check_layer, gelu, layer_norm, random_input, randomize, to_numpy

# The probe, four dense layers of attention (two of them fused), the norm and the MLP, at dim 8.
PARAMETERS = 8 + 4 * (8 * 8 + 8) + 2 * 8 + 8 * 12 + 12 + 12 * 8 + 8


@pytest.mark.parametrize("num_heads", [1, 4])
def test_is_a_layer(num_heads):
    check_layer(
        AttentionPool,
        dict(num_heads=num_heads, mlp_dim=12),
        (4, 5, 8),
        expected_output_shape=(4, 8),
        expected_weights=13,
        expected_parameters=PARAMETERS,
    )


def test_options_are_a_layer():
    check_layer(
        AttentionPool,
        dict(num_heads=2, mlp_dim=12, activation="gelu_tanh", norm_epsilon=1e-5),
        (4, 5, 8),
        expected_output_shape=(4, 8),
        expected_weights=13,
        expected_parameters=PARAMETERS,
    )


@pytest.mark.parametrize("options", [dict(), dict(activation="relu", norm_epsilon=1e-2)], ids=str)
def test_is_attention_of_one_query_and_an_mlp(options):
    layer = AttentionPool(num_heads=2, mlp_dim=12, **options)
    x = random_input((3, 5, 8))
    epsilon = options.get("norm_epsilon", 1e-6)
    activation = gelu if not options else lambda x: np.maximum(x, 0)
    layer.build(x.shape)
    randomize(layer)

    def dense(layer, x):
        kernel, bias = layer.get_weights()
        return x @ kernel + bias

    query = dense(layer.query, to_numpy(layer.probe)[0])
    for tokens, out in zip(x, to_numpy(layer(x)), strict=True):
        key, value = np.split(dense(layer.key_value, tokens), 2, axis=-1)
        heads = [
            attention(query[:, part], key[:, part], value[:, part])[0] for part in (slice(4), slice(4, 8))
        ]
        pooled = dense(layer.projection, np.concatenate(heads, axis=-1))
        normed = layer_norm(pooled, *layer.norm.get_weights(), epsilon)
        hidden = activation(dense(layer.mlp.expand, normed))
        expected = pooled + dense(layer.mlp.contract, hidden)
        np.testing.assert_allclose(out, expected[0], atol=1e-4)


WRONG = [
    (dict(num_heads=0, mlp_dim=12), "num_heads must be 1 or more. Received: num_heads=0"),
    (
        dict(num_heads=3, mlp_dim=12),
        "num_heads must divide dim in attention pooling. Received: num_heads=3, dim=8",
    ),
    (dict(num_heads=2, mlp_dim=8, activation="x"), "activation must be one of 'gelu', "),
    (dict(num_heads=2, mlp_dim=8, norm_epsilon=0.1), "norm_epsilon must be above 0.0 and 0.01 at most."),
    (dict(num_heads=2, mlp_dim=0), "mlp_dim must be 1 or more. Received: mlp_dim=0"),
]


@pytest.mark.parametrize(("kwargs", "message"), WRONG)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the text is compared below)
        AttentionPool(**kwargs).build((None, 5, 8))
    assert message in str(caught.value)
