from typing import Any

import keras

from keras_vit.model.config import check_fields
from keras_vit.model.layers.activations import (
    GATED,
    activation_config,
    activation_function,
    as_activation,
)
from keras_vit.model.layers.dropout import Dropout
from keras_vit.model.layers.kernels import Given, KernelLayer
from keras_vit.validation import Seed


@keras.saving.register_keras_serializable(package="keras_vit")
class MLP(KernelLayer):
    """Two dense layers with an activation between them, applied to each token.

    `"gelu"` is the MLP of Dosovitskiy et al. 2020 (https://arxiv.org/abs/2010.11929). `"swiglu"` is the gated
    unit of Shazeer 2020 (https://arxiv.org/abs/2002.05202): the first layer gives a gate and a value, and the
    second takes `silu(gate) * value`. The others are for weights of other packages: `"gelu_tanh"` and
    `"quick_gelu"` are the two approximations of Hendrycks and Gimpel 2016 (https://arxiv.org/abs/1606.08415),
    by tanh and `x * sigmoid(1.702 * x)`.

    Args:
        mlp_dim: width between the two layers.
        activation: `"gelu"` (exact), `"gelu_tanh"`, `"quick_gelu"`, `"relu"`, `"silu"`, `"swiglu"`, any other
            name of `keras.activations`, or a function. `"glu"` is gated too, by a sigmoid.
        dropout_rate: dropout after each of the two layers.
        mlp_bias: whether the two layers have biases.
        kernel_initializer: of the kernels of the two layers.
        kernel_regularizer: of these kernels.
        seed: of the dropout: a whole number, or `None` for a random one.

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
        activation: Given = "gelu",
        dropout_rate: float = 0.0,
        mlp_bias: bool = True,
        kernel_initializer: Given = "glorot_uniform",
        kernel_regularizer: Given = None,
        seed: Seed | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_fields(mlp_dim=mlp_dim, dropout_rate=dropout_rate, mlp_bias=mlp_bias)
        self.mlp_dim = mlp_dim
        self.activation = as_activation(activation)
        self.dropout_rate = dropout_rate
        self.mlp_bias = mlp_bias
        self._set_kernels(kernel_initializer, kernel_regularizer)
        self.seed = seed
        width = 2 * mlp_dim if self.activation in GATED else mlp_dim
        self.expand = self._dense(width, "expand", mlp_bias)
        self.dropout = Dropout(dropout_rate, seed=seed, dtype=self.dtype_policy, name="dropout")
        self.supports_masking = True

    def build(self, input_shape):
        self.input_spec = keras.layers.InputSpec(min_ndim=2, axes={-1: input_shape[-1]})
        self.contract = self._dense(input_shape[-1], "contract", self.mlp_bias)
        self.expand.build(input_shape)
        self.contract.build((*input_shape[:-1], self.mlp_dim))
        self.dropout.build(input_shape)

    def call(self, x, training=None):
        x = self.expand(x)  # ... m, or ... 2m with a gate
        x = activation_function(self.activation)(x)  # ... m
        x = self.dropout(x, training=training)
        return self.dropout(self.contract(x), training=training)  # ... d

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        config = super().get_config()
        config.update(
            mlp_dim=self.mlp_dim,
            activation=activation_config(self.activation),
            dropout_rate=self.dropout_rate,
            mlp_bias=self.mlp_bias,
            seed=self.seed,
        )
        return config
