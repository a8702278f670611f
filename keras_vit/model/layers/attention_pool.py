from typing import Any

import keras
from keras import layers, ops

from keras_vit.model.config import NORM_EPSILON, Activation, check_fields, check_pool_heads
from keras_vit.model.layers.base import ViTLayer
from keras_vit.model.layers.mlp import MLP


@keras.saving.register_keras_serializable(package="keras_vit")
class AttentionPool(ViTLayer):
    """Pools tokens by the attention of one learned query, then adds an MLP of the result.

    The multi-head attention pooling ("map") of Zhai et al. 2021 (https://arxiv.org/abs/2106.04560), with the
    weights of big_vision's `MAPHead`. The head width is `dim // num_heads`.

    Args:
        num_heads: number of heads; it divides dim.
        mlp_dim: width of the MLP.
        activation: of the MLP, see `MLP`.
        norm_epsilon: of the layer normalisation before the MLP.

    Input shape:
        `(batch, tokens, dim)`.

    Output shape:
        `(batch, dim)`.

    Example:
        >>> AttentionPool(num_heads=4, mlp_dim=128)(keras.random.normal((2, 49, 64))).shape
        (2, 64)
    """

    def __init__(
        self,
        num_heads: int,
        mlp_dim: int,
        activation: Activation = "gelu",
        norm_epsilon: float = NORM_EPSILON,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_fields(num_heads=num_heads, norm_epsilon=norm_epsilon)
        self.num_heads = num_heads
        self.mlp_dim = mlp_dim
        self.activation = activation
        self.norm_epsilon = norm_epsilon
        dtype = self.dtype_policy
        self.norm = layers.LayerNormalization(epsilon=norm_epsilon, dtype=dtype, name="norm")
        self.mlp = MLP(mlp_dim, activation=activation, dtype=dtype, name="mlp")

    def build(self, input_shape):
        batch, _, dim = input_shape
        check_pool_heads(dim, self.num_heads)
        self.probe = self.add_weight(shape=(1, 1, dim), initializer="glorot_uniform", name="probe")
        dtype = self.dtype_policy
        self.query = layers.Dense(dim, dtype=dtype, name="query")
        self.key_value = layers.Dense(2 * dim, dtype=dtype, name="key_value")
        self.projection = layers.Dense(dim, dtype=dtype, name="projection")
        self.query.build((1, 1, dim))
        self.key_value.build(input_shape)
        self.projection.build((batch, 1, dim))
        self.norm.build((batch, 1, dim))
        self.mlp.build((batch, 1, dim))

    def call(self, tokens):
        count, dim = tokens.shape[1:]
        head_dim = dim // self.num_heads
        query = ops.reshape(self.query(self.probe), (self.num_heads, head_dim))  # h k
        key_value = ops.reshape(self.key_value(tokens), (-1, count, 2, self.num_heads, head_dim))  # b n 2 h k
        # Fused attention gains nothing for one query, and that of JAX has no float16 on CPUs.
        scores = ops.einsum("hk,bnhk->bhn", query, key_value[:, :, 0]) * head_dim**-0.5
        attention = ops.softmax(ops.cast(scores, "float32"), axis=-1)  # b h n
        out = ops.einsum("bhn,bnhk->bhk", ops.cast(attention, scores.dtype), key_value[:, :, 1])  # b h k
        x = self.projection(ops.reshape(out, (-1, 1, dim)))  # b 1 d
        x = x + self.mlp(self.norm(x))
        return ops.squeeze(x, axis=1)  # b d

    def compute_output_shape(self, input_shape):
        return (input_shape[0], input_shape[-1])

    def get_config(self):
        config = super().get_config()
        config.update(
            num_heads=self.num_heads,
            mlp_dim=self.mlp_dim,
            activation=self.activation,
            norm_epsilon=self.norm_epsilon,
        )
        return config
