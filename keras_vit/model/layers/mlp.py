import math
from typing import Any

import keras
from keras import layers, ops

from keras_vit.model.config import Activation, check_fields
from keras_vit.model.layers.base import ViTLayer
from keras_vit.model.layers.dropout import Dropout


@keras.saving.register_keras_serializable(package="keras_vit")
def gelu(x: Any) -> Any:
    """The exact GELU (Hendrycks and Gimpel 2016), written with erf, which every export format has."""
    return 0.5 * x * (1.0 + ops.erf(x / math.sqrt(2.0)))


ACTIVATIONS = {
    "gelu": gelu,
    "gelu_tanh": lambda x: ops.gelu(x, approximate=True),
    "quick_gelu": lambda x: x * ops.sigmoid(1.702 * x),
    "relu": ops.relu,
    "silu": ops.silu,
}
"""Those of one input by name; `"swiglu"` takes two."""


@keras.saving.register_keras_serializable(package="keras_vit")
class MLP(ViTLayer):
    """Two dense layers with an activation between them, applied to each token.

    `"gelu"` is the MLP of Dosovitskiy et al. 2020 (https://arxiv.org/abs/2010.11929). `"swiglu"` is the gated
    unit of Shazeer 2020 (https://arxiv.org/abs/2002.05202): the first layer gives a gate and a value, and the
    second takes `silu(gate) * value`. The others are for weights of other packages: `"gelu_tanh"` and
    `"quick_gelu"` are the two approximations of Hendrycks and Gimpel 2016 (https://arxiv.org/abs/1606.08415),
    by tanh and `x * sigmoid(1.702 * x)`.

    Args:
        mlp_dim: width between the two layers.
        activation: `"gelu"` (exact), `"gelu_tanh"`, `"quick_gelu"`, `"relu"`, `"silu"` or `"swiglu"`.
        dropout_rate: dropout after each of the two layers.
        mlp_bias: whether the two layers have biases.

    Input shape:
        `(..., dim)`.

    Output shape:
        The input shape.

    Example:
        >>> MLP(mlp_dim=128)(keras.random.normal((2, 50, 64))).shape
        (2, 50, 64)
    """

    def __init__(
        self,
        mlp_dim: int,
        activation: Activation = "gelu",
        dropout_rate: float = 0.0,
        mlp_bias: bool = True,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_fields(mlp_dim=mlp_dim, activation=activation, dropout_rate=dropout_rate, mlp_bias=mlp_bias)
        self.mlp_dim = mlp_dim
        self.activation = activation
        self.dropout_rate = dropout_rate
        self.mlp_bias = mlp_bias
        width = 2 * mlp_dim if activation == "swiglu" else mlp_dim
        self.expand = layers.Dense(width, use_bias=mlp_bias, dtype=self.dtype_policy, name="expand")
        self.dropout = Dropout(dropout_rate, dtype=self.dtype_policy)

    def build(self, input_shape):
        self.contract = layers.Dense(
            input_shape[-1], use_bias=self.mlp_bias, dtype=self.dtype_policy, name="contract"
        )
        self.expand.build(input_shape)
        self.contract.build((*input_shape[:-1], self.mlp_dim))

    def call(self, x, training=None):
        x = self.expand(x)  # ... m, or ... 2m with a gate
        if self.activation == "swiglu":
            gate, value = ops.split(x, 2, axis=-1)
            x = ops.silu(gate) * value  # ... m
        else:
            x = ACTIVATIONS[self.activation](x)
        x = self.dropout(x, training=training)
        return self.dropout(self.contract(x), training=training)  # ... d

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        config = super().get_config()
        config.update(
            mlp_dim=self.mlp_dim,
            activation=self.activation,
            dropout_rate=self.dropout_rate,
            mlp_bias=self.mlp_bias,
        )
        return config
