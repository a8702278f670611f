"""A `ViT` as the model of Hugging Face's transformers that computes the same: its config and tensors."""

from typing import Any

import numpy as np

from keras_vit.model.config import ViTConfig
from keras_vit.model.weights.equivalents import (
    Arrays,
    simplest,
    with_biases,
    with_class_rows,
    with_head_on_both,
    with_layer_scale,
    without_patch_bias,
)
from keras_vit.model.weights.families.huggingface import INTERPOLATIONS
from keras_vit.model.weights.families.huggingface_names import CLIP, DINOV2, GATED, VIT, Style, rules_of
from keras_vit.model.weights.families.shapes import refuse
from keras_vit.model.weights.images import Images
from keras_vit.model.weights.rules import invert

# "swiglu" is a kind of MLP there, whose gate is a SiLU.
NAMES = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_pytorch_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swiglu": "silu",
}


def to_huggingface(
    config: ViTConfig, arrays: Arrays, images: Images
) -> tuple[Arrays, dict[str, Any], dict[str, Any]]:
    """The tensors by the names of transformers 4, which 5 reads too, and its two JSON files.

    Args:
        config: of the model.
        arrays: its weights by path; changed in place.
        images: how images are prepared for it.

    Returns:
        Tensors by name, `config.json`, and `preprocessor_config.json`.

    Raises:
        InputError: transformers has no model for an option of this one.
    """
    config = simplest(config, arrays)
    kind = _kind(config)
    _refuse(config, kind, images)
    config = with_class_rows(with_biases(config, arrays, ["projection_bias", "mlp_bias"]), arrays)
    config = (without_patch_bias if kind == "clip_vision_model" else _with_patch_bias)(config, arrays)
    style, before, classes = VIT, f"{kind}.", "ViTForImageClassification"
    if kind == "clip_vision_model":
        style, before, classes = CLIP, "vision_model.", "CLIPVisionModel"
    elif kind == "ijepa":
        classes = "IJepaForImageClassification"
    elif kind == "deit":
        classes = "DeiTForImageClassificationWithTeacher"
    elif kind.startswith("dinov2"):
        style = GATED if config.activation == "swiglu" else DINOV2
        config = with_layer_scale(config, arrays)
        name = "Dinov2WithRegisters" if config.num_registers else "Dinov2"
        classes = f"{name}ForImageClassification" if config.num_classes else f"{name}Model"
        before = before if config.num_classes else ""
        if config.num_classes:
            config = with_head_on_both(config, arrays)
    tensors = invert(rules_of(config, style, before), arrays)
    if style is CLIP:  # without the axis of the batch
        for name in (before + style.class_token, before + style.positions):
            tensors[name] = tensors[name][0] if name.endswith(".weight") else tensors[name].reshape(-1)
    if kind.startswith("dinov2"):
        tensors[f"{before}embeddings.mask_token"] = np.zeros((1, config.dim), "float32")
    return tensors, _config(config, kind, classes, style, images), _processor(config, images)


def _kind(config: ViTConfig) -> str:
    """`model_type` of the model of transformers that computes the same."""
    if config.use_distilled:
        return "deit"
    if config.pre_norm:
        return "clip_vision_model"
    if not config.use_cls:
        return "ijepa"
    if config.num_registers:
        return "dinov2_with_registers"
    plain = config.pooling == "token" and config.activation != "swiglu" and config.layer_scale is None
    return "vit" if plain else "dinov2"


def _refuse(config: ViTConfig, kind: str, images: Images) -> None:
    height, width = config.image_shape[:2]
    dinov2 = kind.startswith("dinov2")
    poolings = {
        "deit": ["token+distilled"], "ijepa": ["gap"], "vit": ["token"], "clip_vision_model": ["token"],
    }.get(kind, ["token", "gap", "token+gap"] if config.num_classes else ["token"])  # fmt: skip
    gated = config.activation == "swiglu"
    clip = kind == "clip_vision_model"
    refuse("transformers", {
        f'stem="{config.stem}"': config.stem != "linear",
        "patch_norm=True": config.patch_norm,
        "qk_norm=True": config.qk_norm,
        f"head_dim={config.head_dim}": config.head_dim not in (None, config.dim // config.num_heads),
        f"head_hidden_dim={config.head_hidden_dim}": config.head_hidden_dim is not None,
        f'final_norm="{config.final_norm}"': config.final_norm != "tokens",
        f'pooling="{config.pooling}" ({kind})': config.pooling not in poolings,
        f"a head ({kind})": clip and config.num_classes > 0,
        f"qkv_bias=False ({kind})": clip and not config.qkv_bias,
        f"layer_scale ({kind})": config.layer_scale is not None and not dinov2,
        f'activation="swiglu" ({kind})': gated and not dinov2,
        f"registers ({kind})": config.num_registers > 0 and not dinov2,
        f"mlp_dim={config.mlp_width} with dim={config.dim} ({kind})": dinov2 and _ratio(config) is None,
        f"images of {height}x{width} ({kind})": height != width and (clip or dinov2),
        'aspect="pad"': images.aspect == "pad",
        f'aspect="crop" with images of {height}x{width}': images.aspect == "crop" and height != width,
    })  # fmt: skip


def _ratio(config: ViTConfig) -> int | None:
    """`mlp_ratio` of DINOv2, a whole number; `None` if none gives the width of the MLP."""
    for ratio in range(1, 65):
        width = config.dim * ratio
        if config.activation == "swiglu":
            width = (int(width * 2 / 3) + 7) // 8 * 8
        if width == config.mlp_width:
            return ratio
    return None


def _with_patch_bias(config: ViTConfig, arrays: Arrays) -> ViTConfig:
    return with_biases(config, arrays, ["patch_bias"])


def _config(config: ViTConfig, kind: str, classes: str, style: Style, images: Images) -> dict[str, Any]:
    height, width, channels = config.image_shape
    names = images.class_names or tuple(f"LABEL_{i}" for i in range(config.num_classes))
    made: dict[str, Any] = {
        "architectures": [classes],
        "model_type": kind,
        "hidden_size": config.dim,
        "num_hidden_layers": config.depth,
        "num_attention_heads": config.num_heads,
        "hidden_act": NAMES[config.activation],
        "layer_norm_eps": config.norm_epsilon,
        "image_size": height if height == width else [height, width],
        "patch_size": config.patch_size,
        "num_channels": channels,
        "id2label": {str(i): name for i, name in enumerate(names)},
        "label2id": {name: i for i, name in enumerate(names)},
        "torch_dtype": "float32",
    }
    if kind.startswith("dinov2"):
        made |= {
            "mlp_ratio": _ratio(config),
            "qkv_bias": config.qkv_bias,
            "layerscale_value": 1.0,
            "use_swiglu_ffn": style is GATED,
        }
        if config.num_registers:
            made["num_register_tokens"] = config.num_registers
        return made
    made["intermediate_size"] = config.mlp_width
    return made if kind == "clip_vision_model" else made | {"qkv_bias": config.qkv_bias}


def _processor(config: ViTConfig, images: Images) -> dict[str, Any]:
    """`preprocessor_config.json`: stretched to the size, or the shorter side to it and the middle cut out."""
    height, width = config.image_shape[:2]
    size = {"height": height, "width": width}
    crop = images.aspect == "crop"
    resample = next(number for number, name in INTERPOLATIONS.items() if name == images.interpolation)
    made = {
        "image_processor_type": "CLIPImageProcessor" if crop else "ViTImageProcessor",
        "do_resize": True,
        "size": {"shortest_edge": height} if crop else size,
        "resample": resample,
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": list(images.mean),
        "image_std": list(images.std),
    }
    return made | {"do_center_crop": True, "crop_size": size} if crop else made
