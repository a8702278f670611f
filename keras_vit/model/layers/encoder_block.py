from typing import Any

import keras
from keras import layers

from keras_vit.model.config import NORM_EPSILON, check_fields, check_remat
from keras_vit.model.layers.activations import activation_config, as_activation
from keras_vit.model.layers.dropout import Dropout, part_seed
from keras_vit.model.layers.kernels import Given, KernelLayer
from keras_vit.model.layers.layer_scale import LayerScale
from keras_vit.model.layers.masks import attention_mask_of
from keras_vit.model.layers.mlp import MLP
from keras_vit.model.layers.residual import residual
from keras_vit.model.layers.self_attention import SelfAttention
from keras_vit.validation import Seed


@keras.saving.register_keras_serializable(package="keras_vit")
class EncoderBlock(KernelLayer):
    """One pre-norm Transformer block: x + attention(norm(x)), then x + mlp(norm(x)).

    Dosovitskiy et al. 2020 (https://arxiv.org/abs/2010.11929), with the options that came later.

    Args:
        num_heads: see `SelfAttention`.
        mlp_dim: see `MLP`.
        head_dim: see `SelfAttention`.
        qkv_bias: see `SelfAttention`.
        qk_norm: see `SelfAttention`.
        activation: see `MLP`.
        dropout_rate: dropout on the output of the attention and in the MLP.
        attention_dropout_rate: see `SelfAttention`.
        drop_path_rate: stochastic depth (Huang et al. 2016, https://arxiv.org/abs/1603.09382): the chance
            that an image skips a branch in training.
        layer_scale: initial value of a `LayerScale` on each branch; `None` means no `LayerScale`.
        remat: whether training computes the branches again in the backward pass to save memory. It cannot be
            used with dropout. Stochastic depth is drawn outside of the branches and works.
        norm_epsilon: what the layer normalisations add to the variance.
        projection_bias: see `SelfAttention`.
        mlp_bias: see `MLP`.
        kernel_initializer: of the kernels of the attention and the MLP.
        kernel_regularizer: of these kernels.
        seed: of all dropout: a whole number, or `None` for random ones.

    Call arguments:
        return_attention: whether to return the attention too.
        first: see `SelfAttention`.
        attention_mask, padding_mask, mask, x_mask, attention_change: see `SelfAttention`.

    Input shape:
        `(batch, tokens, dim)`; the number of tokens may be `None`.

    Output shape:
        The input shape, or `(batch, first, dim)`. The attention has the shape
        `(batch, heads, tokens or first, tokens)`.

    Example:
        >>> EncoderBlock(num_heads=4, mlp_dim=128)(keras.random.normal((2, 50, 64))).shape
        (2, 50, 64)
    """

    def __init__(
        self,
        num_heads: int,
        mlp_dim: int,
        head_dim: int | None = None,
        qkv_bias: bool = True,
        qk_norm: bool = False,
        activation: Given = "gelu",
        dropout_rate: float = 0.0,
        attention_dropout_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        layer_scale: float | None = None,
        remat: bool = False,
        norm_epsilon: float = NORM_EPSILON,
        projection_bias: bool = True,
        mlp_bias: bool = True,
        kernel_initializer: Given = "glorot_uniform",
        kernel_regularizer: Given = None,
        seed: Seed | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_fields(drop_path_rate=drop_path_rate, norm_epsilon=norm_epsilon)
        if remat:
            check_remat(dropout_rate, attention_dropout_rate)
        self.num_heads = num_heads
        self.mlp_dim = mlp_dim
        self.head_dim = head_dim
        self.qkv_bias = qkv_bias
        self.qk_norm = qk_norm
        self.activation = as_activation(activation)
        self.dropout_rate = dropout_rate
        self.attention_dropout_rate = attention_dropout_rate
        self.drop_path_rate = drop_path_rate
        self.layer_scale = layer_scale
        self.remat = remat
        self.norm_epsilon = norm_epsilon
        self.projection_bias = projection_bias
        self.mlp_bias = mlp_bias
        self._set_kernels(kernel_initializer, kernel_regularizer)
        self.seed = seed
        kernel: dict[str, Any] = dict(
            kernel_initializer=self.kernel_initializer, kernel_regularizer=self.kernel_regularizer
        )
        dtype = self.dtype_policy
        # First: the weights of a model are in the order of its layers, and checkpoints have these two first.
        self.attention_scale = self.mlp_scale = None
        if layer_scale is not None:
            self.attention_scale = LayerScale(layer_scale, dtype=dtype, name="attention_scale")
            self.mlp_scale = LayerScale(layer_scale, dtype=dtype, name="mlp_scale")
        self.attention_norm = layers.LayerNormalization(
            epsilon=norm_epsilon, dtype=dtype, name="attention_norm"
        )
        self.attention = SelfAttention(
            num_heads,
            head_dim=head_dim,
            qkv_bias=qkv_bias,
            qk_norm=qk_norm,
            dropout_rate=dropout_rate,
            attention_dropout_rate=attention_dropout_rate,
            projection_bias=projection_bias,
            norm_epsilon=norm_epsilon,
            **kernel,
            seed=seed,
            dtype=dtype,
            name="attention",
        )
        self.mlp_norm = layers.LayerNormalization(epsilon=norm_epsilon, dtype=dtype, name="mlp_norm")
        self.mlp = MLP(
            mlp_dim,
            activation=self.activation,
            dropout_rate=dropout_rate,
            mlp_bias=mlp_bias,
            **kernel,
            seed=part_seed(seed, 2),
            dtype=dtype,
            name="mlp",
        )
        # One draw per image: the mask is (batch, 1, 1).
        self.drop_path = Dropout(
            drop_path_rate,
            noise_shape=(None, 1, 1),
            seed=part_seed(seed, 3),
            dtype=dtype,
            name="drop_path",
        )
        self.input_spec = layers.InputSpec(ndim=3)
        self.supports_masking = True

    def build(self, input_shape):
        self.input_spec = layers.InputSpec(ndim=3, axes={-1: input_shape[-1]})
        for layer in (self.attention_norm, self.attention, self.mlp_norm, self.mlp, self.drop_path):
            layer.build(input_shape)
        for scale in (self.attention_scale, self.mlp_scale):
            if scale is not None:
                scale.build(input_shape)

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
        mask = attention_mask_of(
            mask, x_mask, padding_mask, attention_mask=attention_mask, tokens=x.shape[1]
        )  # b 1|h 1|n n

        def attention_branch(x):  # b n d, and b h n n if wanted
            out = self.attention(
                self.attention_norm(x),
                training=training,
                return_attention=return_attention,
                first=first,
                attention_mask=mask,
                attention_change=attention_change,
            )
            if return_attention:
                return _scaled(out[0], self.attention_scale), out[1]
            return _scaled(out, self.attention_scale)

        def mlp_branch(x):  # b n d
            return _scaled(self.mlp(self.mlp_norm(x), training=training), self.mlp_scale)

        if self.remat and training:
            attention_branch, mlp_branch = keras.remat(attention_branch), keras.remat(mlp_branch)
        branch = attention_branch(x)
        if return_attention:
            branch, attention = branch
        x = residual(x[:, :first], self.drop_path(branch, training=training))  # b n d
        x = residual(x, self.drop_path(mlp_branch(x), training=training))  # b n d
        return (x, attention) if return_attention else x

    def attend(self, x: Any) -> Any:
        """The output and the attention: `return_attention=True` without dropout."""
        return self(x, training=False, return_attention=True)

    def compute_output_spec(self, x, training=None, return_attention=False, first=None, **masks):
        return self.attention.compute_output_spec(x, return_attention=return_attention, first=first)

    def load_own_variables(self, store):
        # In files of version 0.1.0 the two scales are weights of the block.
        if self.attention_scale is not None and self.mlp_scale is not None and len(store.keys()) == 2:
            self.attention_scale.load_from_block(store["0"])
            self.mlp_scale.load_from_block(store["1"])
        else:
            super().load_own_variables(store)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        config = super().get_config()
        config.update(
            num_heads=self.num_heads,
            mlp_dim=self.mlp_dim,
            head_dim=self.head_dim,
            qkv_bias=self.qkv_bias,
            qk_norm=self.qk_norm,
            activation=activation_config(self.activation),
            dropout_rate=self.dropout_rate,
            attention_dropout_rate=self.attention_dropout_rate,
            drop_path_rate=self.drop_path_rate,
            layer_scale=self.layer_scale,
            remat=self.remat,
            norm_epsilon=self.norm_epsilon,
            projection_bias=self.projection_bias,
            mlp_bias=self.mlp_bias,
            seed=self.seed,
        )
        return config


def _scaled(branch, scale):
    return branch if scale is None else scale(branch)
