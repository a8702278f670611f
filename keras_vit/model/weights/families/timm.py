"""Weights in the names of timm (https://github.com/huggingface/pytorch-image-models): `vit_*` and `deit*`.

The files of Meta's DeiT, DeiT III, MAE, DINO and DINOv2 have these names too, but for a few, and so are read
here.

`config.json` of timm's repositories names the architecture, the pooling, and how images are prepared. The
number of heads, the activation and the epsilon of the norms follow from the architecture, so they come from
the table of published names, or from `model_args`, which timm writes where a model differs from its name.

A file alone is read where the names and shapes of its tensors leave no doubt: where all architectures of
timm 1.0 that have such tensors agree (`HEADS` and `_pixels` below).
"""

import re
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_vit.errors import InputError
from keras_vit.model.config import ViTConfig
from keras_vit.model.weights import published
from keras_vit.model.weights.checkpoint import Checkpoint
from keras_vit.model.weights.families.checks import (
    check_arguments,
    check_shapes,
    check_used,
    count_blocks,
    preprocessing,
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
from keras_vit.model.weights.rules import Rule, apply, linear, norm, patch_kernel, same, tokens, two_heads
from keras_vit.model.weights.told import SHAPES, Told
from keras_vit.model.weights.weights import Weights

FAMILY = "timm"
PATCH = "patch_embed.proj.weight"
Tensors = Mapping[str, np.ndarray]

# (dim, depth) -> heads, where all vit_* and deit* of timm 1.0.31 that have these two agree. The one exception
# is vit_base_patch16_gap_224 (16 heads), of which no weights were published.
HEADS = {
    (192, 12): 3, (256, 10): 4, (256, 14): 4, (320, 14): 5, (384, 12): 6, (384, 36): 6, (512, 12): 8,
    (512, 20): 8, (640, 12): 10, (768, 12): 12, (832, 21): 13, (896, 12): 14, (896, 18): 14, (1024, 24): 16,
    (1152, 27): 16, (1280, 32): 16, (1408, 40): 16, (1664, 48): 16,
}  # fmt: skip

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
HALF = {"mean": (0.5, 0.5, 0.5), "std": (0.5, 0.5, 0.5)}
ASSUMED = dict(HALF)
"""Of a file alone with the tensors of a plain ViT, which models of either mean have."""

ACTIVATIONS = {
    "gelu": "gelu",
    "gelu_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
    "silu": "silu",
    "swish": "silu",
}
# Activation and epsilon that timm 1.0.31 gives the architectures that config.json may name; the first counts.
ARCHITECTURES = {
    r"vit_\w+_clip_quickgelu_\d+": ("quick_gelu", 1e-5),
    r"vit_\w+_clip_\d+": ("gelu", 1e-5),
    r"vit_((base_patch32|(so400m|giantopt)_patch16)_siglip_\w+|large_patch16_siglip_(gap_)?512)": (
        "gelu_tanh",
        1e-6,
    ),
    r"(vit|deit|deit3|flexivit|eva_large|test_vit)\w*": ("gelu", 1e-6),
}
POOLINGS = {"token": "token", "avg": "gap", "map": "map"}

# Parts of tensor names of other architectures, and what they are.
OTHERS = {
    r"rel_pos|relative_position": "relative positions",
    r"\brope\b|freqs_cos": "rotary positions",
    r"\.attns\.|\.ffns\.|\.in_proj\.|\.attn_out_proj\.": "attention and MLP in parallel",
    r"\.attn\.norm\.|\.mlp\.norm\.|ffn_ln|inner_attn_ln": "layer normalisations inside of the branches",
    r"^patch_embed\.backbone\.": "a convolutional network before the patches (hybrid)",
    r"^patch_embed\.proj\.\d": "several convolutions before the patches",
    r"^patch_embed\.norm\.": "a normalisation of the embedded patches alone",
    r"\.attn\.gate\.": "gated attention",
    r"\.attn\.q_bias$": "biases of queries and values alone (BEiT, EVA)",
    r"\.lambda_q\d?": "differential attention",
    r"^blocks_token_only\.": "class attention (CaiT)",
}
POST_NORM = ("vit_base_patch16_rpn_224",)
"""Architectures whose blocks have the norms behind their branches, under the names of those before them."""


def recognises(checkpoint: Checkpoint) -> bool:
    """Whether a file has the names of timm's ViT."""
    names = checkpoint.tensors
    return any(name.startswith("patch_embed.") for name in names) and any(
        name.startswith("blocks.0.") for name in names
    )


def read(checkpoint: Checkpoint, arguments: Mapping[str, Any]) -> Weights:
    """The weights of a file of timm.

    Args:
        checkpoint: the file.
        arguments: what it does not tell: `num_heads`, `activation`, `norm_epsilon`, `mean`, `std`,
            `interpolation`; `image_size`, the side or (height, width), for images that are not square; and
            `pooling` for a file alone with a norm behind the pooling and a class token.

    Raises:
        InputError: something is missing, has a wrong shape, is not told, or is of another architecture.
    """
    what, settings, notes = checkpoint.origin.source, _settings(checkpoint), list(checkpoint.notes)
    told = Told(arguments, settings, _row(checkpoint, settings), what)
    with converting(what):
        tensors = _today(checkpoint.tensors, notes)
        _refuse_others(tensors, settings, what)
        config, tensors = _config(tensors, told, notes, what)
        check_registers(settings["registers"], config["num_registers"], what)
    pixels = _pixels(tensors, config)
    scaling = preprocessing(told, config["image_shape"][2], "bicubic", pixels)
    if pixels is ASSUMED and told.by.get("mean") == SHAPES:
        told.by |= dict.fromkeys(("mean", "std"), "assumed")
        notes.append(
            "mean and std are assumed: 0.5, as of the vit_* that Google trained (augreg). DeiT, DINO and MAE "
            "have the same tensors with mean 0.485 0.456 0.406 and std 0.229 0.224 0.225: give these for one "
            "of them"
        )
    told.require()
    vit = made(config, what)
    check_arguments(arguments, vit, what)

    rules = rules_of(vit)
    check_used(rules, tensors, "blocks.", what)
    arrays, unused = apply(rules, tensors, what)
    check_shapes(arrays, vit, what)
    return Weights(
        family=FAMILY,
        config=vit,
        arrays=arrays,
        origin=checkpoint.origin,
        class_names=class_names_of(settings["class_names"], vit.num_classes),
        unused=unused,
        told_by=dict(told.by),
        notes=tuple(notes),
        **scaling,
    )


def _settings(checkpoint: Checkpoint) -> dict[str, Any]:
    """`config.json` of timm, by the names of `ViTConfig` where these have a place for it."""
    config = checkpoint.config or {}
    args, images = config.get("model_args") or {}, config.get("pretrained_cfg") or {}
    pool = args.get("global_pool") or config.get("global_pool") or None
    if pool is not None and pool not in POOLINGS:
        raise InputError(f"{checkpoint.origin.source} pools by {pool!r}, which ViT does not do.")
    if args.get("pool_include_prefix"):
        if pool != "avg":
            raise InputError(
                f"{checkpoint.origin.source} pools the class token and registers by attention, "
                "which ViT does not do."
            )
        pool = "all"
    act, size = args.get("act_layer"), images.get("input_size") or (None,)
    if act is not None and act not in ACTIVATIONS:
        raise InputError(f"{checkpoint.origin.source} has the activation {act!r}, which ViT does not have.")
    architecture = config.get("architecture") or ""
    activation, epsilon = of_architecture(architecture)
    epsilon = 1e-6 if args.get("norm_layer") else epsilon  # of timm's layers where a model names another
    registers = re.search(r"_reg(\d+)_", architecture)  # they are a part of the names of architectures
    interpolation = images.get("interpolation")
    labels = config.get("label_names") or images.get("label_names") or {}
    return {
        "architecture": architecture,
        "tag": images.get("tag"),
        "num_heads": args.get("num_heads"),
        "activation": ACTIVATIONS.get(act or "") or activation,
        "norm_epsilon": epsilon,
        "pooling": POOLINGS.get(pool or "", pool),
        "registers": args.get("reg_tokens") or (int(registers[1]) if registers else None),
        "image_size": args.get("img_size") or size[1:] or None,
        "mean": images.get("mean"),
        "std": images.get("std"),
        "interpolation": interpolation if interpolation in ("bilinear", "bicubic") else None,
        "class_names": labels if isinstance(labels, Mapping) else dict(enumerate(labels)),
    }


def of_architecture(name: str) -> tuple[str | None, float | None]:
    """Activation and epsilon of an architecture of timm, which the tensors do not tell."""
    known = (values for pattern, values in ARCHITECTURES.items() if re.fullmatch(pattern, name))
    return next(known, (None, None))


def _row(checkpoint: Checkpoint, settings: Mapping[str, Any]) -> Mapping[str, Any]:
    """The row of the table of published names, by the name of the source or of the architecture."""
    architecture, tag = settings["architecture"], settings["tag"]
    for name in (checkpoint.name, f"{architecture}.{tag}" if tag else None, architecture):
        row = published.lookup(name) if name else None
        if row:
            return row
    return {}


def _today(tensors: Tensors, notes: list[str]) -> dict[str, np.ndarray]:
    """The tensors by the names that timm has today."""
    renamed: dict[str, np.ndarray] = {}
    for name, tensor in tensors.items():
        today = re.sub(r"^register_tokens$", "reg_token", name)  # DINOv2
        today = re.sub(r"(?<=\.mlp\.)w12\.", "fc1.", re.sub(r"(?<=\.mlp\.)w3\.", "fc2.", today))  # DINOv2
        today = re.sub(r"^(blocks\.\d+)\.gamma_([12])$", r"\1.ls\2.gamma", today)  # DeiT III
        renamed[today] = tensor
    for name in [name for name in renamed if ".mlp.fc1_g." in name]:
        value = name.replace("fc1_g", "fc1_x")
        if value in renamed:
            both = [renamed.pop(name), renamed.pop(value)]
            renamed[name.replace("fc1_g", "fc1")] = np.concatenate(both)
    changed = renamed.keys() - tensors.keys()
    if changed:
        notes.append(f"{len(changed)} tensors have other names in timm: {min(changed)}, ...")
    return renamed


def _refuse_others(tensors: Tensors, settings: Mapping[str, Any], what: str) -> None:
    for pattern, architecture in OTHERS.items():
        found = next((name for name in tensors if re.search(pattern, name)), None)
        if found:
            raise InputError(f"{what} is of a model with {architecture}, which ViT does not have ({found}).")
    if "blocks.0.norm1.weight" in tensors and "blocks.0.norm1.bias" not in tensors:
        raise InputError(f"{what} is of a model with RMS normalisation, which ViT does not have.")
    if settings["architecture"] in POST_NORM:
        raise InputError(
            f"{what} is of {settings['architecture']}, whose norms stand behind the branches of the blocks "
            "(post-norm), which ViT does not have."
        )
    if "pos_embed" not in tensors:
        raise InputError(f"{what} has no table of positions (pos_embed), which ViT needs.")


def _config(
    tensors: dict[str, np.ndarray], told: Told, notes: list[str], what: str
) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    """Arguments of `ViTConfig`, and the tensors without positions of registers."""
    dim, channels, patch_size, width = axes(tensors, PATCH, 4, what)
    if patch_size != width:
        raise InputError(f"{what} has patches of {patch_size}x{width} pixels: ViT has square patches.")
    cls, distilled = "cls_token" in tensors, "dist_token" in tensors
    registers = axes(tensors, "reg_token", 3, what)[1] if "reg_token" in tensors else 0
    rows, first = axes(tensors, "pos_embed", 3, what)[1], cls + distilled
    grid, positions = grid_of(rows, (0, first, first + registers), patch_size, told)
    if registers and positions == first + registers:
        tensors = _without_register_positions(tensors, first, registers)
        notes.append("the positions of the registers were added to the registers themselves")
        positions -= registers
    block = "blocks.0."
    inner = axes(tensors, f"{block}attn.qkv.weight", 2, what)[0] // 3
    expand = axes(tensors, f"{block}mlp.fc1.weight", 2, what)[0]
    mlp_dim = axes(tensors, f"{block}mlp.fc2.weight", 2, what)[1]
    depth = count_blocks(tensors, "blocks.")
    attention_pool, pre_norm = "attn_pool.latent" in tensors, has(tensors, "norm_pre")
    pooled = has(tensors, "fc_norm")
    # CLIP and SigLIP were published with two activations each, under the same tensors.
    plain = not pre_norm and not attention_pool and (cls or registers > 0 or pooled)
    swiglu = expand == 2 * mlp_dim
    pooling = _pooling(cls, distilled, attention_pool, pooled, told)
    head = has(tensors, "head")
    hidden = head and has(tensors, "pre_logits.fc")
    config = {
        "image_shape": (grid[0] * patch_size, grid[1] * patch_size, channels),
        "num_classes": axes(tensors, "head.weight", 2, what)[0] if head else 0,
        "patch_size": patch_size,
        "dim": dim,
        "depth": depth,
        "mlp_dim": mlp_dim,
        "num_registers": registers,
        "pooling": pooling,
        "head_hidden_dim": axes(tensors, "pre_logits.fc.weight", 2, what)[0] if hidden else None,
        "head_activation": "tanh" if hidden else "gelu",
        "qkv_bias": f"{block}attn.qkv.bias" in tensors,
        "qk_norm": f"{block}attn.q_norm.weight" in tensors,
        "activation": "swiglu" if swiglu else told.get("activation", "gelu" if plain else None),
        "layer_scale": 1e-5 if f"{block}ls1.gamma" in tensors else None,
        "norm_epsilon": told.get("norm_epsilon", 1e-5 if pre_norm else 1e-6),
        "pre_norm": pre_norm,
        "final_norm": "pooled" if pooled else "tokens" if has(tensors, "norm") else "none",
        "patch_bias": not pre_norm or "patch_embed.proj.bias" in tensors,
        "projection_bias": f"{block}attn.proj.bias" in tensors,
        "mlp_bias": f"{block}mlp.fc1.bias" in tensors,
        "class_token": None if cls == pooling.startswith("token") else cls,
        "class_position": positions > 0 or not cls,
    }
    head_dim = axes(tensors, f"{block}attn.q_norm.weight", 1, what)[0] if config["qk_norm"] else None
    config |= heads_of(told, dim, inner, head_dim, HEADS.get((dim, depth)))
    return config, tensors


def _without_register_positions(tensors: Tensors, first: int, registers: int) -> dict[str, np.ndarray]:
    """timm adds positions to registers; here they are part of the registers, which is the same."""
    table, end = tensors["pos_embed"], first + registers
    return {
        **tensors,
        "reg_token": tensors["reg_token"] + table[:, first:end],
        "pos_embed": np.delete(table, slice(first, end), axis=1),
    }


def _pooling(cls: bool, distilled: bool, attention_pool: bool, pooled: bool, told: Told) -> str:
    if attention_pool:
        return "map"
    if distilled:
        return "token+distilled"
    found = told.sources[1][1].get("pooling")  # of config.json
    if found is not None:
        return found
    if cls and pooled:  # as MAE's fine-tuned models, which pool by the mean; but the tensors do not tell
        return told.get("pooling", "gap")
    return "token" if cls else "gap"


def _pixels(tensors: Tensors, config: Mapping[str, Any]) -> dict[str, Any]:
    """Mean and standard deviation of the pixels where the tensors tell: {} where they do not."""
    cls, scaled = "cls_token" in tensors, config["layer_scale"] is not None
    registers, patch_size = config["num_registers"], config["patch_size"]
    if config["image_shape"][2] != 3 or config["pre_norm"] or not config["qkv_bias"]:
        return {}
    if "dist_token" in tensors:
        return IMAGENET  # DeiT
    if cls and scaled and patch_size == 14 and registers in (0, 4):
        return IMAGENET  # DINOv2
    if cls and scaled and not config["class_position"] and not registers:
        return IMAGENET  # DeiT III
    if config["pooling"] == "map" or (registers and not cls):
        return HALF  # SigLIP; the small models with registers of timm
    if cls and not scaled and not registers:
        return ASSUMED
    return {}


def rules_of(config: ViTConfig) -> list[Rule]:
    """The weights of `ViT` and timm's tensors, in both directions."""
    c = config
    rules = [patch_kernel("patch_embed/projection/kernel", PATCH, c.image_shape[2], c.patch_size)]
    rules += [same("patch_embed/projection/bias", "patch_embed.proj.bias")] * c.patch_bias
    first = {"cls_token": int(c.use_cls), "dist_token": int(c.use_distilled), "reg_token": c.num_registers}
    first = {name: count for name, count in first.items() if count}
    if first:
        rules.append(tokens("add_cls/tokens", list(first), list(first.values())))
    rules.append(same("position_embedding/table", "pos_embed"))
    if c.pre_norm:
        rules += norm("pre_norm", "norm_pre")
    for i in range(c.depth):
        rules += _block_rules(f"block_{i}", f"blocks.{i}", c)
    if c.final_norm != "none":
        rules += norm("norm", "fc_norm" if c.final_norm == "pooled" else "norm")
    if c.pooling == "map":
        rules.append(same("pool/probe", "attn_pool.latent"))
        for ours, theirs in (("query", "q"), ("key_value", "kv"), ("projection", "proj")):
            rules += linear(f"pool/{ours}", f"attn_pool.{theirs}")
        rules += norm("pool/norm", "attn_pool.norm")
        rules += linear("pool/mlp/expand", "attn_pool.mlp.fc1")
        rules += linear("pool/mlp/contract", "attn_pool.mlp.fc2")
    if c.head_hidden_dim:
        rules += linear("head_hidden", "pre_logits.fc")
    if c.num_classes:
        rules += two_heads("head", ("head", "head_dist")) if c.use_distilled else linear("head", "head")
    return rules


def _block_rules(ours: str, theirs: str, c: ViTConfig) -> list[Rule]:
    rules = norm(f"{ours}/attention_norm", f"{theirs}.norm1")
    rules += linear(f"{ours}/attention/qkv", f"{theirs}.attn.qkv", c.qkv_bias)
    if c.qk_norm:
        rules += norm(f"{ours}/attention/query_norm", f"{theirs}.attn.q_norm")
        rules += norm(f"{ours}/attention/key_norm", f"{theirs}.attn.k_norm")
    rules += linear(f"{ours}/attention/projection", f"{theirs}.attn.proj", c.projection_bias)
    rules += norm(f"{ours}/mlp_norm", f"{theirs}.norm2")
    # Both have the gate of a SwiGLU in the first half.
    rules += linear(f"{ours}/mlp/expand", f"{theirs}.mlp.fc1", c.mlp_bias)
    rules += linear(f"{ours}/mlp/contract", f"{theirs}.mlp.fc2", c.mlp_bias)
    if c.layer_scale is not None:
        rules.append(same(f"{ours}/attention_scale/scale", f"{theirs}.ls1.gamma"))
        rules.append(same(f"{ours}/mlp_scale/scale", f"{theirs}.ls2.gamma"))
    return rules
