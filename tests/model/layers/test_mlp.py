import numpy as np
import pytest
from keras import ops

from keras_vit import MLP
from keras_vit.model.layers.mlp import gelu as layer_gelu
from tests.helpers.checks import check_layer, gelu, random_input, randomize, to_numpy

CASES = {
    "gelu": (dict(mlp_dim=24), (4, 5, 8), 8 * 24 + 24 + 24 * 8 + 8),
    "swiglu": (dict(mlp_dim=24, activation="swiglu"), (4, 5, 8), 8 * 48 + 48 + 24 * 8 + 8),
    "dropout, one token": (dict(mlp_dim=16, dropout_rate=0.1), (4, 8), 8 * 16 + 16 + 16 * 8 + 8),
}


@pytest.mark.parametrize("case", CASES)
def test_is_a_layer(case):
    kwargs, shape, parameters = CASES[case]
    check_layer(
        MLP,
        kwargs,
        shape,
        expected_output_shape=shape,
        expected_weights=4,
        expected_parameters=parameters,
    )


def test_gelu_is_the_exact_one():
    x = np.linspace(-6, 6, 101, dtype="float32")
    np.testing.assert_allclose(to_numpy(layer_gelu(ops.convert_to_tensor(x))), gelu(x), atol=1e-6)


@pytest.mark.parametrize("activation", ["gelu", "swiglu"])
def test_is_dense_activation_dense(activation):
    layer = MLP(mlp_dim=6, activation=activation)
    x = random_input((2, 3, 4))
    layer.build(x.shape)
    randomize(layer)
    expand, expand_bias = layer.expand.get_weights()
    contract, contract_bias = layer.contract.get_weights()
    hidden = x @ expand + expand_bias
    if activation == "gelu":
        hidden = gelu(hidden)
    else:
        gate, value = hidden[..., :6], hidden[..., 6:]
        hidden = gate / (1 + np.exp(-gate)) * value
    np.testing.assert_allclose(to_numpy(layer(x)), hidden @ contract + contract_bias, atol=1e-5)


def test_dropout_is_drawn_in_training_only():
    layer = MLP(mlp_dim=64, dropout_rate=0.5)
    x = random_input((8, 9, 16))
    y = to_numpy(layer(x))
    np.testing.assert_array_equal(to_numpy(layer(x)), y)
    first, second = to_numpy(layer(x, training=True)), to_numpy(layer(x, training=True))
    assert (first == 0).mean() == pytest.approx(0.5, abs=0.1)  # the dropout of the output
    assert ((first == 0) != (second == 0)).any()


WRONG = [
    (dict(mlp_dim=0), "mlp_dim must be 1 or more. Received: mlp_dim=0"),
    (
        dict(mlp_dim=4, activation="relu"),
        "activation must be one of 'gelu', 'swiglu'. Received: activation='relu'",
    ),
    (dict(mlp_dim=4, dropout_rate=1.5), "dropout_rate must be 0.0 or more and below 1.0."),
]


@pytest.mark.parametrize(("kwargs", "message"), WRONG)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the text is compared below)
        MLP(**kwargs)
    assert message in str(caught.value)
