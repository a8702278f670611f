from typing import Any

import keras
from keras import layers, ops

from keras_vit.model.config import NORM_EPSILON, check_fields, check_heads
from keras_vit.model.layers.attend import (
    attended,
    attention_of,
    flash_attention_for,
    fused_is_slower,
)
from keras_vit.model.layers.dropout import Dropout, part_seed
from keras_vit.model.layers.kernels import Given, KernelLayer
from keras_vit.model.layers.masks import attention_mask_of
from keras_vit.model.layers.sizes import check_first
from keras_vit.validation import Seed


@keras.saving.register_keras_serializable(package="keras_vit")
class SelfAttention(KernelLayer):
    """Multi-head self-attention with one fused projection to queries, keys and values.

    Vaswani et al. 2017 (https://arxiv.org/abs/1706.03762). It uses the fused attention of the backend. The
    attention itself, and dropout on it, are computed step by step instead.

    Args:
        num_heads: number of heads.
        head_dim: width of a head; `None` means `dim // num_heads`, and num_heads must divide dim.
        qkv_bias: whether the fused projection has a bias.
        qk_norm: whether the queries and keys of each head are layer-normalised (Dehghani et al. 2023,
            https://arxiv.org/abs/2302.05442), which keeps large models stable.
        dropout_rate: dropout on the output.
        attention_dropout_rate: dropout on the attention.
        projection_bias: whether the output projection has a bias.
        norm_epsilon: of the normalisation of queries and keys.
        kernel_initializer: of the kernels of the two projections.
        kernel_regularizer: of these kernels.
        seed: of the dropout: a whole number, or `None` for a random one.

    Call arguments:
        return_attention: whether to return the attention too.
        first: number of tokens, from the first on, to compute the output of; they look at all tokens. `None`
            computes all. A mask of the input stays that of all tokens.
        attention_mask: `(tokens, tokens)`, `(batch, tokens, tokens)` or `(batch, heads, tokens, tokens)`:
            False where a token (the axis before the last) does not look at another (the last axis).
        padding_mask: `(batch, tokens)`, False for tokens that none looks at.
        mask, x_mask: as padding_mask; Keras passes the mask of the input here.
        attention_change: added to the attention, `(batch, heads, tokens or first, tokens)`, which is then
            computed step by step. The gradient with respect to zeros here is that of the attention.

    Input shape:
        `(batch, tokens, dim)`; the number of tokens may be `None`.

    Output shape:
        The input shape, or `(batch, first, dim)`. The attention is float32,
        `(batch, heads, tokens or first, tokens)`; its last axis sums to 1.

    Example:
        >>> SelfAttention(num_heads=4, head_dim=64)(keras.random.normal((2, 50, 64))).shape
        (2, 50, 64)
    """

    def __init__(
        self,
        num_heads: int,
        head_dim: int | None = None,
        qkv_bias: bool = True,
        qk_norm: bool = False,
        dropout_rate: float = 0.0,
        attention_dropout_rate: float = 0.0,
        projection_bias: bool = True,
        norm_epsilon: float = NORM_EPSILON,
        kernel_initializer: Given = "glorot_uniform",
        kernel_regularizer: Given = None,
        seed: Seed | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_fields(
            num_heads=num_heads,
            head_dim=head_dim,
            dropout_rate=dropout_rate,
            attention_dropout_rate=attention_dropout_rate,
            projection_bias=projection_bias,
            norm_epsilon=norm_epsilon,
        )
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.qkv_bias = qkv_bias
        self.qk_norm = qk_norm
        self.dropout_rate = dropout_rate
        self.attention_dropout_rate = attention_dropout_rate
        self.projection_bias = projection_bias
        self.norm_epsilon = norm_epsilon
        self._set_kernels(kernel_initializer, kernel_regularizer)
        self.seed = seed
        dtype = self.dtype_policy
        self.dropout = Dropout(dropout_rate, seed=seed, dtype=dtype, name="dropout")
        self.attention_dropout = Dropout(
            attention_dropout_rate, seed=part_seed(seed, 1), dtype=dtype, name="attention_dropout"
        )
        self.input_spec = layers.InputSpec(ndim=3)
        self.supports_masking = True

    def build(self, input_shape):
        batch, tokens, dim = input_shape
        check_heads(dim, self.num_heads, self.head_dim)
        self.input_spec = layers.InputSpec(ndim=3, axes={-1: dim})
        self.width = self.head_dim or dim // self.num_heads
        inner = self.num_heads * self.width
        self.qkv = self._dense(3 * inner, "qkv", self.qkv_bias)
        self.projection = self._dense(dim, "projection", self.projection_bias)
        self.qkv.build(input_shape)
        self.projection.build((batch, tokens, inner))
        self.dropout.build(input_shape)
        self.attention_dropout.build((batch, self.num_heads, tokens, tokens))
        if self.qk_norm:
            options = dict(epsilon=self.norm_epsilon, dtype=self.dtype_policy)
            self.query_norm = layers.LayerNormalization(**options, name="query_norm")
            self.key_norm = layers.LayerNormalization(**options, name="key_norm")
            self.query_norm.build((batch, tokens, self.num_heads, self.width))
            self.key_norm.build((batch, tokens, self.num_heads, self.width))

    def call(
        self,
        x,
        training=None,
        return_attention=False,
        attention_mask=None,
        padding_mask=None,
        mask=None,
        x_mask=None,
        first=None,
        attention_change=None,
    ):
        tokens = ops.shape(x)[1]  # x.shape has None where TensorFlow does not know it
        mask = attention_mask_of(
            mask, x_mask, padding_mask, attention_mask=attention_mask, tokens=x.shape[1]
        )  # b 1|h 1|n n
        qkv = ops.reshape(self.qkv(x), (-1, tokens, 3, self.num_heads, self.width))  # b n 3 h k
        query, key, value = _split(qkv)  # b n h k
        if first is not None:
            check_first(first, x.shape[1])
            query = query[:, :first]
            mask = mask if mask is None or mask.shape[-2] == 1 else mask[:, :, :first]
        if self.qk_norm:
            query, key = self.query_norm(query), self.key_norm(key)
        dropped = training and self.attention_dropout_rate
        changed = attention_change is not None
        if return_attention or changed or dropped or fused_is_slower(query):
            attention = attention_of(query, key, mask)  # b h n n
            if changed:
                attention = attention + ops.cast(attention_change, attention.dtype)
            out = attended(self.attention_dropout(attention, training=training), value)  # b n h k
        else:
            flash = flash_attention_for(query, key, training)
            out = ops.dot_product_attention(query, key, value, mask=mask, flash_attention=flash)  # b n h k
        tokens = tokens if first is None else first
        out = ops.reshape(out, (-1, tokens, self.num_heads * self.width))  # b n (h k)
        out = self.dropout(self.projection(out), training=training)  # b n d
        return (out, attention) if return_attention else out

    def attend(self, x: Any, training: bool | None = None) -> Any:
        """The output and the attention: `return_attention=True`."""
        return self(x, training=training, return_attention=True)

    def compute_output_spec(self, x, training=None, return_attention=False, first=None, **masks):
        batch, tokens, dim = x.shape
        check_first(first, tokens)
        given = tokens if first is None else first
        out = keras.KerasTensor((batch, given, dim), self.compute_dtype)
        if not return_attention:
            return out
        return out, keras.KerasTensor((batch, self.num_heads, given, tokens), "float32")

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        config = super().get_config()
        config.update(
            num_heads=self.num_heads,
            head_dim=self.head_dim,
            qkv_bias=self.qkv_bias,
            qk_norm=self.qk_norm,
            dropout_rate=self.dropout_rate,
            attention_dropout_rate=self.attention_dropout_rate,
            projection_bias=self.projection_bias,
            norm_epsilon=self.norm_epsilon,
            seed=self.seed,
        )
        return config


def _split(qkv):
    """(batch, tokens, 3, heads, width) as queries, keys and values.

    The gradient of an index is as large as all three. On TensorFlow XLA sees through that, and is slower with
    other ways; torch and JAX are faster with these ways.
    """
    match keras.backend.backend():
        case "torch":
            return ops.unstack(qkv, 3, axis=2)  # b n h k
        case "jax":
            return [ops.squeeze(one, axis=2) for one in ops.split(qkv, 3, axis=2)]  # b n h k
    return qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]  # b n h k
