"""Google's weights, `.npz` files of flax: the first ViT and big_vision.

https://github.com/google-research/vision_transformer (`vit_jax/models_vit.py`) and
https://github.com/google-research/big_vision (`big_vision/models/vit.py`). Both leave the arguments of flax
at their defaults: the epsilon of a layer normalisation is 1e-6, and `nn.gelu` is the approximation by tanh.
(timm runs the same weights with the exact GELU.) Both scale pixels to [-1, 1] and resize bilinearly.
"""

import math
import re
from collections.abc import Iterator, Mapping
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
    fixed_grid,
    preprocessing,
    square_grid,
)
from keras_vit.model.weights.families.layouts import Layout
from keras_vit.model.weights.rules import Rule, apply, same
from keras_vit.model.weights.told import Told
from keras_vit.model.weights.weights import Weights

FAMILY = "google"

PREFIXES = ("opt/target/", "params/img/", "params/", "img/", "")
BLOCKS = "Transformer/encoderblock_"
SCAN = "Transformer/encoderblock/"
"""Of blocks that big_vision keeps in one tensor, the first axis of which counts the blocks."""
INLINED = ("probe", "MlpBlock_0/", "MultiHeadDotProductAttention_0/", "LayerNorm_0/")
"""Attention pooling at the top, as big_vision had it in the beginning."""
FLAX = Layout(norm=("scale", "bias"), dense=("kernel", "bias"))
PIXELS = {"mean": 0.5, "std": 0.5}

Tensors = Mapping[str, np.ndarray]


def recognises(checkpoint: Checkpoint) -> bool:
    """Whether a file has the names of Google's ViT."""
    return _prefix(checkpoint.tensors) is not None


def _prefix(tensors: Tensors) -> str | None:
    """What stands before all names: `"params/"`, ...; `None` if it is no ViT of Google's."""
    for prefix in PREFIXES:
        if f"{prefix}embedding/kernel" in tensors and any(
            name.startswith(f"{prefix}Transformer/") for name in tensors
        ):
            return prefix
    return None


def read(checkpoint: Checkpoint, arguments: Mapping[str, Any]) -> Weights:
    """The weights of a file of Google's.

    Args:
        checkpoint: the file.
        arguments: `activation` and `norm_epsilon` in place of the defaults of flax; `mean`, `std`,
            `interpolation`; and `image_size` for fixed positions, which are not in the file.

    Raises:
        InputError: something is missing, has a wrong shape, or is of another architecture.
    """
    what = checkpoint.origin.source
    prefix = _prefix(checkpoint.tensors) or ""
    tensors = _today(checkpoint.tensors, prefix)
    if any(name.startswith(("conv_root/", "block1/")) for name in tensors):
        raise InputError(f"{what} is a hybrid: a ResNet makes its patches, which ViT does not have.")
    told = Told(arguments, checkpoint.config or {}, published.lookup(checkpoint.name) or {}, what)
    config = _config(tensors, told, what)
    scaling = preprocessing(told, config["image_shape"][2], "bilinear", PIXELS)
    told.require()
    made = ViTConfig(**config)
    check_arguments(arguments, made, what)

    rules = list(_rules(made, tensors))
    check_used(rules, tensors, "Transformer/", what)
    arrays, unused = apply(rules, tensors, what)
    check_shapes(arrays, made, what)
    others = tuple(name for name in checkpoint.tensors if not name.startswith(prefix))
    return Weights(
        family=FAMILY,
        config=made,
        arrays=arrays,
        origin=checkpoint.origin,
        unused=(*(prefix + name for name in unused), *others),
        told_by=dict(told.by),
        notes=checkpoint.notes,
        **scaling,
    )


def _today(tensors: Tensors, prefix: str) -> dict[str, np.ndarray]:
    """The tensors by the names of big_vision's `MAPHead_0` and of separate blocks, without the prefix."""
    named = {}
    for name, tensor in tensors.items():
        if not name.startswith(prefix):
            continue
        name = name.removeprefix(prefix)
        if name.startswith(INLINED):
            name = f"MAPHead_0/{name}"
        if name.startswith(SCAN):
            for i, part in enumerate(tensor):
                named[f"{BLOCKS}{i}/{name.removeprefix(SCAN)}"] = part
        else:
            named[name] = tensor
    return named


def _config(tensors: Tensors, told: Told, what: str) -> dict[str, Any]:
    kernel = tensors["embedding/kernel"]
    if kernel.ndim != 4 or kernel.shape[0] != kernel.shape[1]:
        raise InputError(f"{what} has patches of shape {kernel.shape}, where ViT has square ones of pixels.")
    patch_size, _, channels, dim = kernel.shape
    block = f"{BLOCKS}0/"
    attention = _part(tensors, block, "MultiHeadDotProductAttention")
    query = tensors.get(f"{block}{attention}/query/kernel")
    dense = tensors.get(f"{block}{_part(tensors, block, 'MlpBlock')}/Dense_0/kernel")
    if query is None or dense is None or query.ndim != 3:
        raise InputError(f"{what} lacks the attention or the MLP of its first block.")
    position, use_cls = _position(tensors), "cls" in tensors
    pooling = "map" if "MAPHead_0/probe" in tensors else "token" if use_cls else "gap"
    config: dict[str, Any] = {
        "num_classes": tensors["head/kernel"].shape[-1] if "head/kernel" in tensors else 0,
        "patch_size": patch_size,
        "dim": dim,
        "depth": count_blocks(tensors, BLOCKS),
        "num_heads": query.shape[1],
        "head_dim": None if query.shape[1] * query.shape[2] == dim else query.shape[2],
        "mlp_dim": dense.shape[1],
        "pooling": pooling,
        "qkv_bias": f"{block}{attention}/query/bias" in tensors,
        "activation": told.get("activation", shapes="gelu_tanh"),
        "norm_epsilon": told.get("norm_epsilon", shapes=1e-6),
        "patch_bias": "embedding/bias" in tensors,
    }
    if use_cls and pooling == "map":
        config["class_token"] = True
    if position:
        rows = tensors[position].shape[-2]
        # First, the class token had a position; big_vision adds the positions before the token.
        class_position = use_cls and math.isqrt(rows - 1) ** 2 == rows - 1
        if use_cls and not class_position:
            config["class_position"] = False
        grid = square_grid(rows - class_position, what)
    else:
        config["position"] = "sincos2d"
        grid = fixed_grid(told, patch_size)
    config["image_shape"] = (grid[0] * patch_size, grid[1] * patch_size, channels)
    pool = tensors.get("MAPHead_0/MultiHeadDotProductAttention_0/query/kernel")
    if pool is not None and pool.shape[1:] != query.shape[1:]:
        raise InputError(
            f"{what} pools with heads (number, width) {pool.shape[1:]}, and its blocks have "
            f"{query.shape[1:]}: ViT has the same in both."
        )
    if config["num_classes"] and "pre_logits/kernel" in tensors:
        config |= {"head_hidden_dim": tensors["pre_logits/kernel"].shape[1], "head_activation": "tanh"}
    return config


def _position(tensors: Tensors) -> str | None:
    names = ("Transformer/posembed_input/pos_embedding", "Transformer/pos_embedding", "pos_embedding")
    return next((name for name in names if name in tensors), None)


def _part(tensors: Tensors, block: str, kind: str) -> str:
    """Name of the layer of a kind in a block: its number counts all layers first, those of its kind today."""
    pattern = re.compile(rf"{re.escape(block)}({kind}_\d+)/")
    return next((match[1] for name in tensors if (match := pattern.match(name))), f"{kind}_0")


def _rules(config: ViTConfig, tensors: Tensors) -> Iterator[Rule]:
    yield from FLAX.patch_rules(
        "patch_embed/projection", "embedding", config.patch_size, config.image_shape[2], config.patch_bias
    )
    if config.use_cls:
        yield same("add_cls/tokens", "cls")
    if position := _position(tensors):
        yield same("position_embedding/table", position)
    for i in range(config.depth):
        yield from _block(i, config, tensors)
    yield from FLAX.norm_rules("norm", "Transformer/encoder_norm")
    if config.pooling == "map":
        yield from _pool(config.num_heads)
    if config.head_hidden_dim:
        yield from FLAX.dense_rules("head_hidden", "pre_logits")
    if config.num_classes:
        yield from FLAX.dense_rules("head", "head")


def _block(i: int, config: ViTConfig, tensors: Tensors) -> Iterator[Rule]:
    ours, theirs = f"block_{i}", f"{BLOCKS}{i}/"
    # LayerNorm_2 if the number counts all layers of the block, LayerNorm_1 if only the norms.
    second = "LayerNorm_2" if f"{theirs}LayerNorm_2/scale" in tensors else "LayerNorm_1"
    yield from FLAX.norm_rules(f"{ours}/attention_norm", f"{theirs}LayerNorm_0")
    yield from FLAX.norm_rules(f"{ours}/mlp_norm", theirs + second)
    attention = theirs + _part(tensors, theirs, "MultiHeadDotProductAttention")
    parts = [f"{attention}/{name}" for name in ("query", "key", "value")]
    yield from FLAX.heads_rules(f"{ours}/attention/qkv", parts, config.num_heads, config.qkv_bias)
    yield from FLAX.output_rules(f"{ours}/attention/projection", f"{attention}/out", config.num_heads, True)
    mlp = theirs + _part(tensors, theirs, "MlpBlock")
    yield from FLAX.dense_rules(f"{ours}/mlp/expand", f"{mlp}/Dense_0")
    yield from FLAX.dense_rules(f"{ours}/mlp/contract", f"{mlp}/Dense_1")


def _pool(num_heads: int) -> Iterator[Rule]:
    attention = "MAPHead_0/MultiHeadDotProductAttention_0"
    yield same("pool/probe", "MAPHead_0/probe")
    yield from FLAX.heads_rules("pool/query", [f"{attention}/query"], num_heads, True)
    yield from FLAX.heads_rules("pool/key_value", [f"{attention}/key", f"{attention}/value"], num_heads, True)
    yield from FLAX.output_rules("pool/projection", f"{attention}/out", num_heads, True)
    yield from FLAX.norm_rules("pool/norm", "MAPHead_0/LayerNorm_0")
    yield from FLAX.dense_rules("pool/mlp/expand", "MAPHead_0/MlpBlock_0/Dense_0")
    yield from FLAX.dense_rules("pool/mlp/contract", "MAPHead_0/MlpBlock_0/Dense_1")
