"""The last part of a ViT: from the tokens after the last block to the logits."""

from typing import Any

import keras
from keras import layers

from keras_vit.model.config import options_of
from keras_vit.model.layers import AttentionPool
from keras_vit.model.layers.activations import gelu
from keras_vit.model.layers.dropout import Dropout

LAST: dict[str, Any] = dict(data_format="channels_last")
"""As `image_shape` says, whatever the configuration of Keras."""


FIRST_TOKENS = {"token": 1, "token+distilled": 2}
"""How many first tokens are enough for a pooling; the others need all."""


def pooled_tokens(x, config):
    """The tokens that the pooling uses, of those after the last block: all, or as many as are enough."""
    match config.pooling:
        case "token":
            return x[:, 0]  # b d
        case "token+distilled":
            return x[:, :2]  # b 2 d
        case "gap" | "map":
            return x[:, config.num_first_tokens :]  # b n d
    return x  # b k+n d


def pool(x, config, dtype, new):
    """From the tokens of `pooled_tokens` to what the head sees."""
    match config.pooling:
        case "gap" | "all":
            return new(layers.GlobalAveragePooling1D(**LAST, dtype=dtype, name="pool"))(x)  # b d
        case "map":
            options = {**options_of(AttentionPool, config), "activation": config.pool_activation}
            return new(AttentionPool(**options, dtype=dtype, name="pool"))(x)  # b d
        case "token+gap":
            patches = x[:, config.num_first_tokens :]  # b n d
            mean = layers.GlobalAveragePooling1D(**LAST, dtype=dtype, name="pool")(patches)  # b d
            return layers.Concatenate(dtype=dtype, name="pool_both")([x[:, 0], mean])  # b 2d
        case "token+distilled":
            return layers.Flatten(**LAST, dtype=dtype, name="pool_both")(x)  # b 2d
    return x  # b d


def head(x, config, dtype, new):
    """From what the head sees to the logits."""
    if config.head_hidden_dim:
        x = new(layers.Dense(config.head_hidden_dim, dtype=dtype, name="head_hidden"))(x)  # b m
        activation = gelu if config.head_activation == "gelu" else config.head_activation
        x = layers.Activation(activation, dtype=dtype, name=f"head_{config.head_activation}")(x)
        x = Dropout(config.dropout_rate, dtype=dtype, name="head_dropout")(x)
    # Half-precision logits make the loss overflow.
    return new(layers.Dense(config.num_classes, dtype=of_head(dtype), name="head"))(x)  # b classes


def of_head(dtype):
    """The policy of the last layer: float32, unless a map names another one for it."""
    if not isinstance(dtype, keras.dtype_policies.DTypePolicyMap):
        return "float32"
    return keras.dtype_policies.DTypePolicyMap("float32", {path: dtype[path] for path in dtype})
