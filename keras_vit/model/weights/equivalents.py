"""The same function in other weights: what lets a `ViT` be written for a library with fewer options.

Each function changes arrays by path in place and returns the config that they then belong to. The model
computes what it did before.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_vit.model.config import ViTConfig
from keras_vit.model.layers.position_embedding import sincos2d_table

Arrays = dict[str, np.ndarray]

TOKENS, TABLE = "add_cls/tokens", "position_embedding/table"
PATCH_BIAS, HEAD = "patch_embed/projection/bias", "head/kernel"


def simplest(config: ViTConfig, arrays: Arrays) -> ViTConfig:
    """A learned position table in place of the fixed one, and the simplest of options that mean the same."""
    if config.position == "sincos2d":
        arrays[TABLE] = sincos2d_table(config.grid, config.dim)[None]
        config = dataclasses.replace(config, position="learned", class_position=False)
    if config.pooling == "token" and config.final_norm == "pooled":
        config = dataclasses.replace(config, final_norm="tokens")  # of the one token that is pooled
    if config.pooling == "all" and not config.num_first_tokens:
        config = dataclasses.replace(config, pooling="gap")
    if not config.use_cls:
        config = dataclasses.replace(config, class_position=True)  # there is nothing to have one
    return config


def with_class_rows(config: ViTConfig, arrays: Arrays) -> ViTConfig:
    """Rows of zeros in the position table for the class token and the distillation token."""
    if config.use_cls and not config.class_position:
        rows = np.zeros((1, config.use_cls + config.use_distilled, config.dim), "float32")
        arrays[TABLE] = np.concatenate([rows, arrays[TABLE]], axis=1)
    return dataclasses.replace(config, class_position=True)


def without_class_rows(config: ViTConfig, arrays: Arrays) -> ViTConfig:
    """The positions of the class token and of the distillation token as parts of these tokens."""
    first = config.use_cls + config.use_distilled
    if first and config.class_position:
        tokens = arrays[TOKENS].copy()
        tokens[:, :first] += arrays[TABLE][:, :first]
        arrays[TOKENS], arrays[TABLE] = tokens, arrays[TABLE][:, first:]
    return dataclasses.replace(config, class_position=not first)


def with_biases(config: ViTConfig, arrays: Arrays, options: Sequence[str]) -> ViTConfig:
    """Biases of zeros where there are none.

    Args:
        config: of the model.
        arrays: of it.
        options: of `patch_bias`, `projection_bias`, `mlp_bias`, those that are to be True.
    """
    layers = {
        "patch_bias": ["patch_embed/projection"],
        "projection_bias": [f"block_{i}/attention/projection" for i in range(config.depth)],
        "mlp_bias": [f"block_{i}/mlp/{name}" for i in range(config.depth) for name in ("expand", "contract")],
    }
    for option in options:
        for layer in layers[option] if not getattr(config, option) else ():
            arrays[f"{layer}/bias"] = np.zeros(arrays[f"{layer}/kernel"].shape[1], "float32")
    changes: dict[str, Any] = dict.fromkeys(options, True)
    return dataclasses.replace(config, **changes)


def without_patch_bias(config: ViTConfig, arrays: Arrays) -> ViTConfig:
    """The bias of the patch projection as a part of the positions of the patches."""
    if config.patch_bias:
        table, patches = arrays[TABLE].copy(), config.grid[0] * config.grid[1]
        table[:, table.shape[1] - patches :] += arrays.pop(PATCH_BIAS)
        arrays[TABLE] = table
    return dataclasses.replace(config, patch_bias=False)


def with_layer_scale(config: ViTConfig, arrays: Arrays) -> ViTConfig:
    """A LayerScale of ones where there is none."""
    if config.layer_scale is None:
        for i in range(config.depth):
            for branch in ("attention", "mlp"):
                arrays[f"block_{i}/{branch}_scale/scale"] = np.ones(config.dim, "float32")
    return dataclasses.replace(config, layer_scale=config.layer_scale or 1.0)


def with_head_on_both(config: ViTConfig, arrays: Arrays) -> ViTConfig:
    """A head on the class token beside the mean of the patch tokens: zeros for the one it does not see."""
    if config.pooling != "token+gap" and config.num_classes:
        kernel = arrays[HEAD]
        parts = [kernel, np.zeros_like(kernel)]
        arrays[HEAD] = np.concatenate(parts if config.pooling == "token" else parts[::-1])
    return dataclasses.replace(config, pooling="token+gap", class_token=None)
