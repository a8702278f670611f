"""Weights in the names of Hugging Face's transformers: ViT, DeiT, DINOv2, CLIP, SigLIP, I-JEPA and MAE.

transformers 5 names the parts of ViT, DeiT and DINOv2 otherwise than 4 in memory, but saves the names of 4;
both are read, and those of 4 are written. `config.json` has the heads, the activation and the epsilon,
`preprocessor_config.json` the mean, the standard deviation and the interpolation of the images.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_vit.errors import InputError
from keras_vit.model.weights import published
from keras_vit.model.weights.checkpoint import Checkpoint
from keras_vit.model.weights.families.checks import (
    check_arguments,
    check_shapes,
    check_used,
    count_blocks,
    preprocessing,
)
from keras_vit.model.weights.families.huggingface_names import (
    CLIP,
    DINOV2,
    DISTILLATION,
    GATED,
    REGISTERS,
    SCALES,
    VIT,
    Style,
    rules_of,
)
from keras_vit.model.weights.families.shapes import (
    axes,
    check_registers,
    class_names_of,
    converting,
    grid_of,
    has,
    heads_of,
    made,
)
from keras_vit.model.weights.families.timm import HEADS, IMAGENET
from keras_vit.model.weights.rules import apply
from keras_vit.model.weights.told import Told
from keras_vit.model.weights.weights import Weights

FAMILY = "huggingface"
Tensors = Mapping[str, np.ndarray]

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
INTERPOLATIONS = {2: "bilinear", 3: "bicubic"}  # as Pillow counts them
DINOV2_HEADS = {(384, 12): 6, (768, 12): 12, (1024, 24): 16, (1536, 40): 24}

# Parts of tensor names of other architectures, and what they are.
OTHERS = {
    r"\.blocks\.\d+\.": "windows of attention (Swin)",
    r"relative_position": "relative positions",
    r"\.lambda_1$": "a LayerScale and biases as in BEiT and Data2Vec",
    r"patch_embeddings\.backbone\.": "a convolutional network before the patches (hybrid)",
    r"rope|rotary": "rotary positions",
    r"mid_position_embeddings|detection_tokens": "detection tokens (YOLOS)",
}


# The names of transformers 5, and those of 4.
TODAY = (
    (r"^layers\.(\d+)\.mlp\.fc1\.", r"encoder.layer.\1.intermediate.dense."),
    (r"^layers\.(\d+)\.mlp\.fc2\.", r"encoder.layer.\1.output.dense."),
    (r"^layers\.(\d+)\.", r"encoder.layer.\1."),
    (r"^(encoder\.layer\.\d+\.attention)\.q_proj\.", r"\1.attention.query."),
    (r"^(encoder\.layer\.\d+\.attention)\.k_proj\.", r"\1.attention.key."),
    (r"^(encoder\.layer\.\d+\.attention)\.v_proj\.", r"\1.attention.value."),
    (r"^(encoder\.layer\.\d+\.attention)\.o_proj\.", r"\1.output.dense."),
    (r"^(encoder\.layer\.\d+\.mlp)\.down_proj\.", r"\1.weights_out."),
)


def recognises(checkpoint: Checkpoint) -> bool:
    """Whether a file has the names of transformers."""
    return any(re.search(rf"(^|\.)({VIT.patch}|{CLIP.patch})\.weight$", name) for name in checkpoint.tensors)


def read(checkpoint: Checkpoint, arguments: Mapping[str, Any]) -> Weights:
    """The weights of a file of transformers.

    Args:
        checkpoint: the file.
        arguments: what it does not tell: `num_heads`, `activation`, `norm_epsilon`, `mean`, `std`,
            `interpolation`; and `image_size`, the side or (height, width), for images that are not square.

    Raises:
        InputError: something is missing, has a wrong shape, is not told, or is of another architecture.
    """
    what, notes = checkpoint.origin.source, list(checkpoint.notes)
    settings = _settings(checkpoint)
    for pattern, architecture in OTHERS.items():
        found = next((name for name in checkpoint.tensors if re.search(pattern, name)), None)
        if found:
            raise InputError(f"{what} is of a model with {architecture}, which ViT does not have ({found}).")
    told = Told(arguments, settings, published.lookup(checkpoint.name) or {}, what)
    with converting(what):
        tensors, original = _names_of_4(checkpoint.tensors)
        style = _style(tensors)
        config = _config(tensors, style, told, notes)
    dinov2 = style in (DINOV2, GATED) and config["patch_size"] == 14
    pixels = IMAGENET if dinov2 or DISTILLATION in tensors else {}
    scaling = preprocessing(told, config["image_shape"][2], "bicubic", pixels)
    told.require()
    vit = made(config, what)
    check_arguments(arguments, vit, what)

    rules = rules_of(vit, style)
    check_used(rules, tensors, style.block, what)
    arrays, unused = apply(rules, tensors, what)
    check_shapes(arrays, vit, what)
    return Weights(
        family=FAMILY,
        config=vit,
        arrays=arrays,
        origin=checkpoint.origin,
        class_names=class_names_of(settings["id2label"], vit.num_classes),
        unused=tuple(original.get(name, name) for name in unused),
        told_by=dict(told.by),
        notes=tuple(notes),
        **scaling,
    )


def _settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """`config.json` and `preprocessor_config.json`, by the names of `ViTConfig`."""
    config = checkpoint.config or {}
    model, images = config.get("vision_config") or config, config.get("preprocessor") or {}
    act = model.get("hidden_act")
    if act is not None and act not in ACTIVATIONS:
        raise InputError(f"{checkpoint.origin.source} has the activation {act!r}, which ViT does not have.")
    return {
        "num_heads": model.get("num_attention_heads"),
        "activation": ACTIVATIONS.get(act or ""),
        "norm_epsilon": model.get("layer_norm_eps"),
        "image_size": model.get("image_size"),
        "registers": model.get("num_register_tokens"),
        "interpolation": INTERPOLATIONS.get(images.get("resample") or -1),
        "id2label": config.get("id2label"),
        **_pixels(images),
    }


def _pixels(images: Mapping[str, Any]) -> dict[str, Any]:
    """Mean and standard deviation of pixels in 0..1, from the settings of an image processor."""
    if images.get("do_normalize") is False:
        mean, std = np.zeros(1), np.ones(1)
    elif images.get("image_mean") is None or images.get("image_std") is None:
        return {}
    else:
        mean, std = np.atleast_1d(images["image_mean"]), np.atleast_1d(images["image_std"])
    # Of pixels in 0..255, times the factor.
    factor = 255.0 * (1.0 if images.get("do_rescale") is False else images.get("rescale_factor", 1 / 255))
    if abs(factor - 1.0) < 1e-3:  # the JSON of the factor has too few digits
        factor = 1.0
    return {"mean": (mean / factor).tolist(), "std": (std / factor).tolist()}


def _names_of_4(tensors: Tensors) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors by the names of transformers 4, without what stands before the ViT; and the old names."""
    patches = next(name for name in tensors if re.search(rf"(^|\.)({VIT.patch}|{CLIP.patch})\.weight$", name))
    before = re.split(rf"{VIT.patch}|{CLIP.patch}", patches)[0]
    renamed, original = {}, {}
    for name, tensor in tensors.items():
        new = name.removeprefix(before)
        for pattern, replacement in TODAY:
            new = re.sub(pattern, replacement, new)
        renamed[new], original[new] = tensor, name
    for gate in [name for name in renamed if ".mlp.gate_proj." in name]:
        both = [renamed.pop(gate), renamed.pop(gate.replace("gate_proj", "up_proj"), np.zeros(0))]
        if all(part.size for part in both):
            renamed[gate.replace("gate_proj", "weights_in")] = np.concatenate(both)
    for kind in ("weight", "bias"):  # of SigLIP's pooling, as torch packs queries, keys and values
        packed = renamed.pop(f"head.attention.in_proj_{kind}", None)
        if packed is not None:
            width = packed.shape[0] // 3
            renamed[f"head.attention.query.{kind}"] = packed[:width]
            renamed[f"head.attention.key_value.{kind}"] = packed[width:]
    return renamed, original


def _style(tensors: Tensors) -> Style:
    if f"{CLIP.patch}.weight" in tensors:
        return CLIP
    if f"{GATED.block}0.{GATED.expand}.weight" in tensors:
        return GATED
    return DINOV2 if f"{DINOV2.block}0.{DINOV2.expand}.weight" in tensors else VIT


def _config(tensors: dict[str, np.ndarray], style: Style, told: Told, notes: list[str]) -> dict[str, Any]:
    """Arguments of `ViTConfig`; fills in tensors where an exact equivalent takes the place of what is not."""
    what, block = told.what, f"{style.block}0."
    dim, channels, patch_size, width = axes(tensors, f"{style.patch}.weight", 4, what)
    if patch_size != width:
        raise InputError(f"{what} has patches of {patch_size}x{width} pixels: ViT has square patches.")
    depth = count_blocks(tensors, style.block)
    inner = axes(tensors, f"{block}{style.qkv[0]}.weight", 2, what)[0]
    cls, distilled = style.class_token in tensors, DISTILLATION in tensors
    if style is CLIP:
        for name in (style.positions, style.class_token):
            if name in tensors:
                tensors[name] = tensors[name].reshape(1, -1, tensors[name].shape[-1])
    rows = axes(tensors, style.positions, 3, what)[1]
    grid, _ = grid_of(rows, (cls + distilled,), patch_size, told, strict=True)
    registers = axes(tensors, REGISTERS, 3, what)[1] if REGISTERS in tensors else 0
    check_registers(told.sources[1][1].get("registers"), registers, what)
    if distilled and has(tensors, "classifier"):
        _distillation_as_register(tensors, style, notes)
        distilled, registers = False, 1
    biases = [f"{block}{name}.bias" in tensors for name in style.qkv]
    if any(biases) and not all(biases):
        lacking = [name for name, there in zip(style.qkv, biases, strict=True) if not there]
        _fill_biases(tensors, style.block, lacking, notes)
    classes = "cls_classifier" if distilled else "classifier"
    head = has(tensors, classes)
    num_classes, seen = axes(tensors, f"{classes}.weight", 2, what) if head else (0, dim)
    pooling, final_norm = _pooling(tensors, style, cls, distilled, seen == 2 * dim)
    published_size = HEADS.get((dim, depth)) if style in (VIT, CLIP) else DINOV2_HEADS.get((dim, depth))
    known = published_size is not None  # only then is the rest of these families
    epsilon = {VIT: 1e-12, CLIP: 1e-5 if cls else 1e-6}.get(style, 1e-6)
    activation = None if style is CLIP else "gelu"
    gated = style is GATED
    return {
        "image_shape": (grid[0] * patch_size, grid[1] * patch_size, channels),
        "num_classes": num_classes,
        "patch_size": patch_size,
        "dim": dim,
        "depth": depth,
        "mlp_dim": axes(tensors, f"{block}{style.contract}.weight", 2, what)[1],
        "num_registers": registers,
        "pooling": pooling,
        "qkv_bias": any(biases),
        "activation": "swiglu" if gated else told.get("activation", activation if known else None),
        "layer_scale": 1e-5 if f"{block}{SCALES[0]}" in tensors else None,
        "norm_epsilon": told.get("norm_epsilon", epsilon if known else None) or 1e-6,
        "pre_norm": has(tensors, "pre_layrnorm"),
        "final_norm": final_norm,
        "patch_bias": not has(tensors, "pre_layrnorm") or f"{style.patch}.bias" in tensors,
        "class_token": None if cls == pooling.startswith("token") else cls,
        **heads_of(told, dim, inner, None, published_size),
    }


def _pooling(tensors: Tensors, style: Style, cls: bool, distilled: bool, both: bool) -> tuple[str, str]:
    """Pooling and the place of the last norm, as the class of transformers with these tensors has them."""
    if distilled:
        return "token+distilled", "tokens"
    if both:  # Dinov2ForImageClassification
        return "token+gap", "tokens"
    if style is not CLIP:
        return "token" if cls else "gap", "tokens"
    if has(tensors, "classifier"):  # CLIPForImageClassification takes the mean before the norm
        return "gap", "none" if cls else "tokens"
    if "head.probe" in tensors:
        return "map", "tokens"
    return "token" if cls else "gap", "tokens"


def _distillation_as_register(tensors: dict[str, np.ndarray], style: Style, notes: list[str]) -> None:
    """DeiTForImageClassification has a distillation token that its head does not see: a register."""
    table = tensors[style.positions]
    tensors[REGISTERS] = np.add.reduce([tensors.pop(DISTILLATION), table[:, 1:2]])
    tensors[style.positions] = np.delete(table, 1, axis=1)
    notes.append("the distillation token, which the head does not see, is a register with its position in it")


def _fill_biases(tensors: dict[str, np.ndarray], block: str, names: Sequence[str], notes: list[str]) -> None:
    """Zeros for the biases that no block has, of queries, keys or values."""
    for name in names:
        pattern = re.compile(rf"{re.escape(block)}\d+\.{re.escape(name)}\.(weight|bias)")
        found = [match for match in map(pattern.fullmatch, tensors) if match]
        if not any(match[1] == "bias" for match in found):
            for match in found:
                zeros = np.zeros(len(tensors[match[0]]), "float32")
                tensors[match[0].removesuffix("weight") + "bias"] = zeros
            notes.append(f"the bias of {name}, which no block has, is zero")
