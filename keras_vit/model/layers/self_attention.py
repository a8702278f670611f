import keras
from keras import layers, ops

from keras_vit.model.layers.dropout import Dropout


@keras.saving.register_keras_serializable(package="keras_vit")
class SelfAttention(layers.Layer):
    """Multi-head self-attention with one fused projection to queries, keys and values.

    Vaswani et al. 2017 (https://arxiv.org/abs/1706.03762). The backend's fused attention is used in
    `call`; `attend` is the same computation step by step, for those who want the attention itself.
    Attention dropout needs that path too.

    Args:
        num_heads: how many heads.
        head_dim: width of a head; `None` means `dim // num_heads`, which must come out even.
        qkv_bias: whether the fused projection has a bias.
        qk_norm: whether queries and keys are layer-normalised by head (Dehghani et al. 2023,
            https://arxiv.org/abs/2302.05442), which keeps large models stable.
        dropout_rate: dropout on the output.
        attention_dropout_rate: dropout on the attention.

    Input shape:
        `(batch, tokens, dim)`.

    Output shape:
        The input shape.

    Example:
        >>> SelfAttention(num_heads=4, head_dim=64)(keras.random.normal((2, 50, 64))).shape
        (2, 50, 64)
    """

    def __init__(
        self,
        num_heads,
        head_dim=None,
        qkv_bias=True,
        qk_norm=False,
        dropout_rate=0.0,
        attention_dropout_rate=0.0,
        **kwargs,
    ):
        super().__init__(**kwargs)
        if num_heads < 1 or (head_dim is not None and head_dim < 1):
            raise ValueError(
                "num_heads and head_dim must be 1 or more. "
                f"Received: num_heads={num_heads}, head_dim={head_dim}"
            )
        self.num_heads = num_heads
        self.head_dim = head_dim
        self.qkv_bias = qkv_bias
        self.qk_norm = qk_norm
        self.dropout_rate = dropout_rate
        self.attention_dropout_rate = attention_dropout_rate
        self.dropout = Dropout(dropout_rate, dtype=self.dtype_policy)
        self.attention_dropout = Dropout(attention_dropout_rate, dtype=self.dtype_policy)

    def build(self, input_shape):
        batch, tokens, dim = input_shape
        if self.head_dim is None and dim % self.num_heads:
            raise ValueError(
                "num_heads must divide dim, unless head_dim is given. "
                f"Received: num_heads={self.num_heads}, dim={dim}"
            )
        self.width = self.head_dim or dim // self.num_heads
        inner = self.num_heads * self.width
        self.qkv = layers.Dense(3 * inner, use_bias=self.qkv_bias, dtype=self.dtype_policy, name="qkv")
        self.projection = layers.Dense(dim, dtype=self.dtype_policy, name="projection")
        self.qkv.build(input_shape)
        self.projection.build((batch, tokens, inner))
        if self.qk_norm:
            self.query_norm = layers.LayerNormalization(
                epsilon=1e-6, dtype=self.dtype_policy, name="query_norm"
            )
            self.key_norm = layers.LayerNormalization(epsilon=1e-6, dtype=self.dtype_policy, name="key_norm")
            self.query_norm.build((batch, tokens, self.num_heads, self.width))
            self.key_norm.build((batch, tokens, self.num_heads, self.width))

    def call(self, x, training=None):
        if (training and self.attention_dropout_rate) or self._is_jax_float16():
            return self.attend(x, training=training)[0]
        query, key, value = self._split(x)
        out = ops.dot_product_attention(query, key, value)  # b n h k
        return self._merge(out, training)  # b n d

    def attend(self, x, training=None):
        """The output and the attention: float32 (batch, heads, tokens, tokens), the last axis sums to 1."""
        query, key, value = self._split(x)
        scores = ops.einsum("bqhk,bvhk->bhqv", query, key) * self.width**-0.5  # b h n n
        # Half precision loses the small weights of a long row.
        attention = ops.softmax(ops.cast(scores, "float32"), axis=-1)
        dropped = self.attention_dropout(ops.cast(attention, value.dtype), training=training)
        out = ops.einsum("bhqv,bvhk->bqhk", dropped, value)  # b n h k
        return self._merge(out, training), attention

    def _is_jax_float16(self):
        # JAX's fused attention asks for a float16 product that CPUs do not have.
        return keras.backend.backend() == "jax" and self.compute_dtype == "float16"

    def _split(self, x):
        qkv = ops.reshape(self.qkv(x), (-1, x.shape[1], 3, self.num_heads, self.width))  # b n 3 h k
        query, key, value = qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]
        if self.qk_norm:
            query, key = self.query_norm(query), self.key_norm(key)
        return query, key, value

    def _merge(self, out, training):
        out = ops.reshape(out, (-1, out.shape[1], self.num_heads * self.width))  # b n (h k)
        return self.dropout(self.projection(out), training=training)  # b n d

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
        )
        return config
