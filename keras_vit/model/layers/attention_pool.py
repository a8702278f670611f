from typing import Any

import keras
from keras import layers, ops

from keras_vit.model.config import NORM_EPSILON, check_as, check_fields, check_pool_heads
from keras_vit.model.layers.activations import activation_config, as_activation
from keras_vit.model.layers.kernels import Given, KernelLayer
from keras_vit.model.layers.masks import attention_mask_of, masked
from keras_vit.model.layers.mean_pool import check_left
from keras_vit.model.layers.mlp import MLP


@keras.saving.register_keras_serializable(package="keras_vit")
class AttentionPool(KernelLayer):
    """Pools tokens by the attention of one learned query, then adds an MLP of the result.

    The multi-head attention pooling ("map") of Zhai et al. 2021 (https://arxiv.org/abs/2106.04560), with the
    weights of big_vision's `MAPHead`. The head width is `dim // num_heads`.

    Args:
        num_heads: number of heads; it divides dim.
        mlp_dim: width of the MLP.
        activation: of the MLP, see `MLP`.
        norm_epsilon: of the layer normalisation before the MLP.
        num_prefix_tokens: number of tokens before those of the patches, which it leaves out: the class token,
            the distillation token and the registers that `AddCLS` adds.
        kernel_initializer: of the kernels of the attention and the MLP.
        kernel_regularizer: of these kernels.

    Call arguments:
        mask: `(batch, tokens)`, False for tokens that it leaves out; Keras passes the mask of the input here.
        return_attention: whether to return the attention too.
        attention_change: added to the attention, see `SelfAttention`.

    Input shape:
        `(batch, tokens, dim)`; the number of tokens may be `None`.

    Output shape:
        `(batch, dim)`. The attention is `(batch, heads, patches)`; its last axis sums to 1.

    Example:
        >>> AttentionPool(num_heads=4, mlp_dim=128)(keras.random.normal((2, 49, 64))).shape
        (2, 64)
    """

    def __init__(
        self,
        num_heads: int,
        mlp_dim: int,
        activation: Given = "gelu",
        norm_epsilon: float = NORM_EPSILON,
        num_prefix_tokens: int = 0,
        kernel_initializer: Given = "glorot_uniform",
        kernel_regularizer: Given = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_fields(num_heads=num_heads, norm_epsilon=norm_epsilon)
        check_as("num_registers", num_prefix_tokens=num_prefix_tokens)
        self.num_heads = num_heads
        self.mlp_dim = mlp_dim
        self.activation = as_activation(activation)
        self.norm_epsilon = norm_epsilon
        self.num_prefix_tokens = num_prefix_tokens
        self._set_kernels(kernel_initializer, kernel_regularizer)
        dtype = self.dtype_policy
        self.norm = layers.LayerNormalization(epsilon=norm_epsilon, dtype=dtype, name="norm")
        self.mlp = MLP(
            mlp_dim,
            activation=self.activation,
            kernel_initializer=self.kernel_initializer,
            kernel_regularizer=self.kernel_regularizer,
            dtype=dtype,
            name="mlp",
        )
        self.input_spec = layers.InputSpec(ndim=3)
        self.supports_masking = True

    def build(self, input_shape):
        batch, _, dim = input_shape
        check_pool_heads(dim, self.num_heads)
        self.input_spec = layers.InputSpec(ndim=3, axes={-1: dim})
        self.probe = self.add_weight(shape=(1, 1, dim), initializer="glorot_uniform", name="probe")
        self.query = self._dense(dim, "query")
        self.key_value = self._dense(2 * dim, "key_value")
        self.projection = self._dense(dim, "projection")
        self.query.build((1, 1, dim))
        self.key_value.build(input_shape)
        self.projection.build((batch, 1, dim))
        self.norm.build((batch, 1, dim))
        self.mlp.build((batch, 1, dim))

    def call(self, tokens, mask=None, return_attention=False, attention_change=None):
        check_left(tokens.shape[1], self.num_prefix_tokens)
        if self.num_prefix_tokens:
            tokens = tokens[:, self.num_prefix_tokens :]  # b n d
            mask = None if mask is None else mask[:, self.num_prefix_tokens :]
        count, dim = ops.shape(tokens)[1], tokens.shape[-1]  # tokens.shape has None if TensorFlow lacks it
        head_dim = dim // self.num_heads
        probe = ops.reshape(self.probe, (1, 1, dim))  # a tensor: quantized layers take no variable
        query = ops.reshape(self.query(probe), (self.num_heads, head_dim))  # h k
        key_value = ops.reshape(self.key_value(tokens), (-1, count, 2, self.num_heads, head_dim))  # b n 2 h k
        # Fused attention gains nothing for one query, and that of JAX has no float16 on CPUs.
        scores = ops.einsum("hk,bnhk->bhn", query, key_value[:, :, 0]) * head_dim**-0.5
        mask = attention_mask_of(mask, tokens=tokens.shape[1])  # b 1 1 n
        attention = ops.softmax(masked(scores, mask if mask is None else mask[:, 0]), axis=-1)  # b h n
        if attention_change is not None:
            attention = attention + ops.cast(attention_change, attention.dtype)
        out = ops.einsum("bhn,bnhk->bhk", ops.cast(attention, scores.dtype), key_value[:, :, 1])  # b h k
        x = self.projection(ops.reshape(out, (-1, 1, dim)))  # b 1 d
        x = x + ops.cast(self.mlp(self.norm(x)), x.dtype)
        x = ops.squeeze(x, axis=1)  # b d
        return (x, attention) if return_attention else x

    def compute_mask(self, inputs, previous_mask=None):
        return None

    def compute_output_shape(self, input_shape):
        check_left(input_shape[1], self.num_prefix_tokens)
        return (input_shape[0], input_shape[-1])

    def get_config(self):
        config = super().get_config()
        config.update(
            num_heads=self.num_heads,
            mlp_dim=self.mlp_dim,
            activation=activation_config(self.activation),
            norm_epsilon=self.norm_epsilon,
            num_prefix_tokens=self.num_prefix_tokens,
        )
        return config
