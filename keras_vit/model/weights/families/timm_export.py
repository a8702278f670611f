"""A `ViT` as timm's Hub has models: `config.json` and tensors that `timm.create_model` takes."""

from typing import Any

import numpy as np

from keras_vit.model.config import ViTConfig
from keras_vit.model.weights.equivalents import (
    Arrays,
    simplest,
    with_biases,
    with_class_rows,
    without_patch_bias,
)
from keras_vit.model.weights.families.shapes import refuse
from keras_vit.model.weights.families.timm import rules_of
from keras_vit.model.weights.images import Images
from keras_vit.model.weights.rules import invert

# config.json cannot hold the epsilon of the norms or the kind of MLP, so they come from an architecture that
# has them; all else is in `model_args`.
PLAIN, EPSILON_5 = "vit_base_patch16_224", "vit_base_patch16_clip_224"
GATED, DISTILLED = "vit_giant_patch14_dinov2", "deit_base_distilled_patch16_224"
POOLINGS = {"token": "token", "gap": "avg", "map": "map", "all": "avg", "token+distilled": "token"}
CROPS = {"stretch": "squash", "crop": "center", "pad": "border"}


def to_timm(config: ViTConfig, arrays: Arrays, images: Images) -> tuple[Arrays, dict[str, Any]]:
    """The tensors by timm's names, and `config.json`.

    Args:
        config: of the model.
        arrays: its weights by path; changed in place.
        images: how images are prepared for it.

    Raises:
        InputError: timm has no place for an option of the model.
    """
    config = simplest(config, arrays)
    distilled, gated = config.use_distilled, config.activation == "swiglu"
    refuse("timm", {
        f'stem="{config.stem}"': config.stem != "linear",
        "patch_norm=True": config.patch_norm,
        f"head_dim={config.head_dim}": config.head_dim not in (None, config.dim // config.num_heads),
        f"head_hidden_dim={config.head_hidden_dim}": config.head_hidden_dim is not None,
        f'pooling="{config.pooling}"': config.pooling not in POOLINGS,
        f"norm_epsilon={config.norm_epsilon}": config.norm_epsilon not in ((1e-6,) if gated or distilled
                                                                           else (1e-6, 1e-5)),
        'activation="swiglu" with pooling="map" or "token+distilled"':
            gated and (distilled or config.pooling == "map"),
        'registers with pooling="token+distilled"': distilled and config.num_registers > 0,
        f'final_norm="{config.final_norm}" with pooling="token+distilled"':
            distilled and config.final_norm == "pooled",
    })  # fmt: skip
    config = _as_timm(config, arrays)
    architecture = DISTILLED if distilled else GATED if gated else PLAIN
    architecture = EPSILON_5 if config.norm_epsilon == 1e-5 else architecture
    tensors = invert(rules_of(config), arrays)
    with_positions = config.num_registers and config.use_cls and config.class_position
    if with_positions:  # timm has positions for registers too, then
        first = np.zeros((1, config.num_registers, config.dim), "float32")
        table = tensors["pos_embed"]
        tensors["pos_embed"] = np.concatenate([table[:, :1], first, table[:, 1:]], axis=1)
    return tensors, {
        "architecture": architecture,
        "num_classes": config.num_classes,
        "num_features": config.dim,
        "global_pool": POOLINGS[config.pooling],
        **({"label_names": list(images.class_names)} if images.class_names else {}),
        "model_args": _arguments(config, gated),
        "pretrained_cfg": {
            "input_size": [config.image_shape[2], *config.image_shape[:2]],
            "fixed_input_size": True,
            "interpolation": images.interpolation,
            "crop_pct": 1.0,
            "crop_mode": CROPS[images.aspect],
            "mean": list(images.mean),
            "std": list(images.std),
            "num_classes": config.num_classes,
            "pool_size": None,
            "first_conv": "patch_embed.proj",
            "classifier": ["head", "head_dist"] if distilled else "head",
            **({"license": images.licence} if images.licence else {}),
        },
    }


def _as_timm(config: ViTConfig, arrays: Arrays) -> ViTConfig:
    """The same model with the biases and positions that timm has in such a model."""
    if config.use_distilled:
        config = with_class_rows(config, arrays)
    if config.pre_norm:
        config = without_patch_bias(config, arrays)
    else:
        config = with_biases(config, arrays, ["patch_bias"])
    if config.projection_bias != config.mlp_bias:
        config = with_biases(config, arrays, ["projection_bias", "mlp_bias"])
    return config


def _arguments(config: ViTConfig, gated: bool) -> dict[str, Any]:
    """Arguments of timm's `VisionTransformer`."""
    width = config.mlp_width * (2 if gated else 1)
    arguments: dict[str, Any] = {
        "img_size": list(config.image_shape[:2]),
        "patch_size": config.patch_size,
        "in_chans": config.image_shape[2],
        "num_classes": config.num_classes,
        "global_pool": POOLINGS[config.pooling],
        "embed_dim": config.dim,
        "depth": config.depth,
        "num_heads": config.num_heads,
        "mlp_ratio": (width + 0.25) / config.dim,  # timm rounds dim * mlp_ratio down
        "qkv_bias": config.qkv_bias,
        "qk_norm": config.qk_norm,
        "proj_bias": config.projection_bias,
        "init_values": config.layer_scale or 0.0,
        "class_token": config.use_cls,
        "no_embed_class": not (config.use_cls and config.class_position),
        "reg_tokens": config.num_registers,
        "pre_norm": config.pre_norm,
        "final_norm": config.final_norm != "none",
        "fc_norm": config.final_norm == "pooled",
        "pool_include_prefix": config.pooling == "all",
    }
    if not gated:
        arguments["act_layer"] = config.activation
    return arguments
