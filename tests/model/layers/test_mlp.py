import math

import numpy as np
import pytest
from keras import ops

from keras_vit import MLP
from keras_vit.model.layers.activations import gelu as layer_gelu
from tests.helpers.checks import check_layer, gelu, random_input, randomize, to_numpy

CASES = {
    "gelu": (dict(mlp_dim=24), (4, 5, 8), 8 * 24 + 24 + 24 * 8 + 8),
    "swiglu": (dict(mlp_dim=24, activation="swiglu"), (4, 5, 8), 8 * 48 + 48 + 24 * 8 + 8),
    "quick gelu, no bias": (
        dict(mlp_dim=24, activation="quick_gelu", mlp_bias=False),
        (4, 5, 8),
        8 * 24 + 24 * 8,
    ),
    "swiglu, no bias": (dict(mlp_dim=6, activation="swiglu", mlp_bias=False), (4, 8), 8 * 12 + 6 * 8),
    "gelu by tanh": (dict(mlp_dim=6, activation="gelu_tanh"), (4, 8), 8 * 6 + 6 + 6 * 8 + 8),
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
        expected_weights=4 if kwargs.get("mlp_bias", True) else 2,
        expected_parameters=parameters,
    )


def test_gelu_is_the_exact_one():
    x = np.linspace(-6, 6, 101, dtype="float32")
    np.testing.assert_allclose(to_numpy(layer_gelu(ops.convert_to_tensor(x))), gelu(x), atol=1e-6)


# The published formulas.
FORMULAS = {
    "gelu": gelu,
    "gelu_tanh": lambda x: 0.5 * x * (1 + np.tanh(math.sqrt(2 / math.pi) * (x + 0.044715 * x**3))),
    "quick_gelu": lambda x: x / (1 + np.exp(-1.702 * x)),
    "relu": lambda x: np.where(x > 0, x, 0),
    "silu": lambda x: x / (1 + np.exp(-x)),
}


@pytest.mark.parametrize("activation", [*FORMULAS, "swiglu"])
@pytest.mark.parametrize("mlp_bias", [True, False])
def test_is_dense_activation_dense(activation, mlp_bias):
    layer = MLP(mlp_dim=6, activation=activation, mlp_bias=mlp_bias)
    x = random_input((2, 3, 4))
    layer.build(x.shape)
    randomize(layer, scale=1.0)
    expand, *expand_bias = layer.expand.get_weights()
    contract, *contract_bias = layer.contract.get_weights()
    hidden = x @ expand + sum(expand_bias)
    if activation == "swiglu":
        gate, value = hidden[..., :6], hidden[..., 6:]
        hidden = FORMULAS["silu"](gate) * value
    else:
        hidden = FORMULAS[activation](hidden)
    np.testing.assert_allclose(to_numpy(layer(x)), hidden @ contract + sum(contract_bias), atol=1e-4)


def test_the_activations_differ():
    """By more than the tolerance above, the three kinds of GELU too."""
    x = np.linspace(-3, 3, 61)
    values = [formula(x) for formula in FORMULAS.values()]
    for i, one in enumerate(values):
        assert all(abs(one - other).max() > 3e-4 for other in values[:i])


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
        dict(mlp_dim=4, activation="geluu"),
        "activation must be one of 'gelu', 'gelu_tanh', 'quick_gelu', 'relu', 'silu', 'swiglu', another name "
        "of keras.activations, or a function. Received: activation='geluu'",
    ),
    (dict(mlp_dim=4, activation=None), "or a function. Received: activation=None"),
    (dict(mlp_dim=4, activation=3), "or a function. Received: activation=3"),
    (dict(mlp_dim=4, mlp_bias=1), "mlp_bias must be true or false. Received: mlp_bias=1"),
    (dict(mlp_dim=4, dropout_rate=1.5), "dropout_rate must be 0.0 or more and below 1.0."),
]


@pytest.mark.parametrize(("kwargs", "message"), WRONG)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the text is compared below)
        MLP(**kwargs)
    assert message in str(caught.value)
