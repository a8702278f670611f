"""Every option of every layer, for checks that all must pass: the layer, and the shape of its input."""

import keras

from keras_vit import (
    MLP,
    AddCLS,
    AttentionPool,
    EncoderBlock,
    LayerScale,
    MeanPool,
    PatchEmbed,
    PositionEmbedding,
    SelfAttention,
    TokenPool,
)
from keras_vit.model.layers.batch_norm import BatchNorm
from keras_vit.model.layers.dropout import Dropout

IMAGES, TOKENS, MAP = (4, 8, 12, 3), (4, 6, 8), (4, 2, 3, 8)
KERNEL = dict(kernel_initializer="he_normal", kernel_regularizer="l2")
BLOCK = dict(num_heads=2, mlp_dim=12)


@keras.saving.register_keras_serializable(package="keras_vit_tests")
def cubed(x):
    """An activation of a user."""
    return x**3


LAYERS = {
    "patches": (PatchEmbed, dict(dim=8, patch_size=4), IMAGES),
    "patches, norm, no bias": (
        PatchEmbed,
        dict(dim=8, patch_size=4, patch_norm=True, patch_bias=False, norm_epsilon=1e-5, **KERNEL),
        IMAGES,
    ),
    "patches that are not square, map": (
        PatchEmbed,
        dict(dim=8, patch_size=(2, 4), feature_map=True),
        IMAGES,
    ),
    "patches, channels first": (
        PatchEmbed,
        dict(dim=8, patch_size=4, data_format="channels_first"),
        (4, 3, 8, 12),
    ),
    "conv stem": (PatchEmbed, dict(dim=8, patch_size=4, stem="conv", **KERNEL), IMAGES),
    "conv stem, channels first, map": (
        PatchEmbed,
        dict(dim=8, patch_size=(4, 4), stem="conv", data_format="channels_first", feature_map=True),
        (4, 3, 8, 12),
    ),
    "first tokens": (AddCLS, dict(use_distilled=True, num_registers=2), TOKENS),
    "learned positions": (PositionEmbedding, dict(grid=(1, 5)), TOKENS),
    "learned positions, registers": (
        PositionEmbedding,
        dict(grid=(1, 3), use_distilled=True, num_registers=1, class_position=False),
        TOKENS,
    ),
    "learned positions of a map": (PositionEmbedding, dict(grid=(3, 4), use_cls=False), MAP),
    "fixed positions": (PositionEmbedding, dict(grid=(2, 3), use_cls=False, kind="sincos2d"), TOKENS),
    "fixed positions of a map": (PositionEmbedding, dict(grid=(3, 4), use_cls=False, kind="sincos2d"), MAP),
    "attention": (SelfAttention, dict(num_heads=2), TOKENS),
    "attention, all options": (
        SelfAttention,
        dict(
            num_heads=2, head_dim=3, qkv_bias=False, qk_norm=True, projection_bias=False, dropout_rate=0.1,
            attention_dropout_rate=0.1, norm_epsilon=1e-5, seed=3, **KERNEL,
        ),
        TOKENS,
    ),
    "mlp of a user": (MLP, dict(mlp_dim=12, activation=cubed, dropout_rate=0.1, seed=3, **KERNEL), TOKENS),
    **{
        f"mlp, {name}": (MLP, dict(mlp_dim=12, activation=name), TOKENS)
        for name in ("gelu", "gelu_tanh", "quick_gelu", "relu", "silu", "swiglu", "glu", "mish", "leaky_relu")
    },
    "block": (EncoderBlock, BLOCK, TOKENS),
    "block, all options": (
        EncoderBlock,
        dict(
            **BLOCK, head_dim=3, qkv_bias=False, qk_norm=True, activation="swiglu", dropout_rate=0.1,
            attention_dropout_rate=0.1, drop_path_rate=0.1, layer_scale=0.1, projection_bias=False,
            mlp_bias=False, norm_epsilon=1e-5, seed=3, **KERNEL,
        ),
        TOKENS,
    ),
    "block, remat": (EncoderBlock, dict(**BLOCK, drop_path_rate=0.1, remat=True), TOKENS),
    "token pool": (TokenPool, dict(index=1), TOKENS),
    "mean pool": (MeanPool, dict(num_prefix_tokens=1), TOKENS),
    "attention pool": (AttentionPool, dict(**BLOCK, activation="gelu_tanh", num_prefix_tokens=1), TOKENS),
    "layer scale": (LayerScale, dict(initial_value=0.1), TOKENS),
    "dropout": (Dropout, dict(rate=0.5, noise_shape=(None, 1, 1), seed=3), TOKENS),
    "batch norm": (BatchNorm, dict(momentum=0.9), TOKENS),
}  # fmt: skip
"""Name -> class, arguments, shape of an input with its batch."""


def unknown_sizes(name):
    """The input shape with `None` for all sizes that a Keras user may leave open."""
    kind, given, shape = LAYERS[name]
    if kind is PatchEmbed:
        first = given.get("data_format") == "channels_first"
        return (None, 3, None, None) if first else (None, None, None, 3)
    return (*(None for _ in shape[:-1]), shape[-1])
