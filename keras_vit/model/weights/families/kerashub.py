"""Weights of KerasHub (https://github.com/keras-team/keras-hub): presets and `.keras` files.

`ViTBackbone` and `ViTImageClassifier`, `DeiTBackbone` and `DeiTImageClassifier`, `DINOV2Backbone`. A preset
is a folder with `config.json` and `model.weights.h5`, and for a classifier `task.json` and
`task.weights.h5`. KerasHub itself is not needed.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from keras_vit.errors import InputError
from keras_vit.model.config import ViTConfig
from keras_vit.model.weights.checkpoint import Checkpoint
from keras_vit.model.weights.families.checks import (
    check_arguments,
    check_shapes,
    check_used,
    preprocessing,
    square_grid,
)
from keras_vit.model.weights.families.kerashub_names import (
    DEIT,
    DINOV2,
    GATED,
    Kind,
    Parts,
    Tensors,
    depth_of,
    heads_of,
    kind_of,
    mlp_of,
    parts_of,
    preset_names,
)
from keras_vit.model.weights.families.layouts import Layout
from keras_vit.model.weights.rules import Rule, apply, same
from keras_vit.model.weights.told import CONFIG, Told
from keras_vit.model.weights.weights import Weights

FAMILY = "kerashub"

KERAS = Layout(norm=("vars/0", "vars/1"), dense=("vars/0", "vars/1"))


def recognises(checkpoint: Checkpoint) -> bool:
    """Whether a file has the names of KerasHub's ViT, DeiT or DINOv2."""
    return kind_of(preset_names(checkpoint.tensors)) is not None


def read(checkpoint: Checkpoint, arguments: Mapping[str, Any]) -> Weights:
    """The weights of a preset or a file of KerasHub.

    Args:
        checkpoint: with the configs of the preset, or of the `.keras` file. Of a file of weights alone the
            arguments must tell the rest.
        arguments: `mean` and `std` for a preset without a preprocessor; for a file of weights alone also
            `norm_epsilon`, and `pooling` if it has a head.

    Raises:
        InputError: something is missing, has a wrong shape, or is not told.
    """
    what = checkpoint.origin.source
    named = preset_names(checkpoint.tensors)
    tensors = {name: checkpoint.tensors[real] for name, real in named.items()}
    kind = kind_of(named)
    assert kind is not None  # of `recognises`
    backbone, task, converter = _configs(checkpoint.config or {})
    notes = list(checkpoint.notes)
    settings = {
        "norm_epsilon": backbone.get("layer_norm_epsilon"),
        **_scaling(converter, notes),
    }
    told = Told(arguments, settings, {}, what)
    config = _config(kind, tensors, backbone, task, told, what, notes)
    scaling = preprocessing(told, config["image_shape"][2], "bilinear")
    told.require()
    made = ViTConfig(**config)
    check_arguments(arguments, made, what)

    rules = list(_rules(kind, made, tensors))
    check_used(rules, tensors, kind.blocks, what)
    arrays, unused = apply(rules, tensors, what)
    check_shapes(arrays, made, what)
    return Weights(
        family=FAMILY,
        config=made,
        arrays=arrays,
        origin=checkpoint.origin,
        unused=tuple(named[name] for name in unused),
        told_by=dict(told.by),
        notes=tuple(notes),
        **scaling,
    )


def _configs(config: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any], dict[str, Any]]:
    """Arguments of the backbone, the classifier and the image converter, each empty if there is none."""
    task = config.get("task") or (config if "backbone" in (config.get("config") or {}) else {})
    task = task.get("config") or {}
    backbone = (config if not task or config.get("task") else task["backbone"]).get("config") or {}
    preprocessor = (config.get("preprocessor") or task.get("preprocessor") or {}).get("config") or {}
    converter = config.get("image_converter") or preprocessor.get("image_converter") or {}
    return dict(backbone), dict(task), dict(converter.get("config") or {})


def _scaling(converter: Mapping[str, Any], notes: list[str]) -> dict[str, Any]:
    """Mean and standard deviation of an image converter, which computes pixels * scale + offset."""
    if not converter:
        return {}
    made: dict[str, Any] = {}
    scale, offset = converter.get("scale"), converter.get("offset")
    if scale is not None:
        std = 1.0 / (255.0 * np.atleast_1d(np.asarray(scale, "float64")))
        mean = -np.atleast_1d(np.asarray(0.0 if offset is None else offset, "float64")) * std
        std, mean = np.broadcast_arrays(std, mean)
        made = {name: tuple(round(float(x), 7) for x in a) for name, a in (("mean", mean), ("std", std))}
    interpolation = converter.get("interpolation", "bilinear")
    if interpolation in ("bilinear", "bicubic"):
        made["interpolation"] = interpolation
    else:
        notes.append(f"images were resized by {interpolation}, which is not known here")
    return made


def _config(
    kind: Kind,
    tensors: Tensors,
    backbone: Mapping[str, Any],
    task: Mapping[str, Any],
    told: Told,
    what: str,
    notes: list[str],
) -> dict[str, Any]:
    block = f"{kind.blocks}/"
    attention = f"{block}{kind.attention}"
    kernel, query = (
        _axes(tensors, name, axes, what)
        for name, axes in ((f"{kind.patches}/vars/0", 4), (f"{attention}/query_dense/vars/0", 3))
    )
    if kernel[0] != kernel[1]:
        raise InputError(f"{what} has patches of {kernel[0]}x{kernel[1]} pixels, where ViT has square ones.")
    patch_size, _, channels, dim = kernel
    expand, _ = mlp_of(kind, tensors)
    width = _axes(tensors, f"{block}{expand}/vars/0", 2, what)[1]
    gated = (expand, _) == GATED
    heads = heads_of(tensors)
    rows, tokens = _tokens(kind, tensors, what)
    config: dict[str, Any] = {
        "num_classes": tensors[f"{heads[-1]}/vars/0"].shape[1] if heads else 0,
        "patch_size": patch_size,
        "dim": dim,
        "depth": depth_of(kind, tensors),
        "num_heads": query[1],
        "head_dim": None if query[1] * query[2] == dim else query[2],
        "mlp_dim": width // 2 if gated else width,
        "num_registers": tokens - 1 if tokens else 0,
        "head_hidden_dim": tensors[f"{heads[0]}/vars/0"].shape[1] if len(heads) == 2 else None,
        "head_activation": "tanh",
        "qkv_bias": f"{attention}/query_dense/vars/1" in tensors,
        "activation": told.get("activation", shapes="swiglu" if gated else "gelu"),
        "norm_epsilon": told.get("norm_epsilon", shapes=1e-6 if kind is DINOV2 else None),
        "patch_bias": f"{kind.patches}/vars/1" in tensors,
        "projection_bias": f"{attention}/output_dense/vars/1" in tensors,
        "mlp_bias": f"{block}{expand}/vars/1" in tensors,
    }
    if len(heads) != 2:
        del config["head_activation"]
    if kind is DINOV2:
        config["layer_scale"] = float(backbone.get("layer_scale_init_value", 1.0))
    grid = _grid(backbone, rows, patch_size, what)
    config["image_shape"] = (grid[0] * patch_size, grid[1] * patch_size, channels)
    config |= _pooling(bool(tokens), bool(heads), task, told)
    if task.get("activation"):
        notes.append(f"the classifier ends with {task['activation']}; ViT returns its logits")
    if kind is DEIT:
        notes.append("the distillation token is read but not pooled: here it is a register")
    return config


def _pooling(use_cls: bool, has_head: bool, task: Mapping[str, Any], told: Told) -> dict[str, Any]:
    """What the classifier pools: an argument tells it only where `task.json` does not.

    KerasHub's `"gap"` is the mean over all tokens, the class token and registers too.
    """
    pooling = task.get("pooling")
    if pooling is not None:
        told.by["pooling"] = CONFIG
    elif not use_cls:
        pooling = "gap"
    else:
        pooling = told.get("pooling", shapes=None if has_head else "token")
    if not use_cls:
        return {"pooling": "gap"}
    return {"pooling": "all", "class_token": True} if pooling in ("gap", "all") else {"pooling": "token"}


def _axes(tensors: Tensors, name: str, count: int, what: str) -> tuple[int, ...]:
    if name not in tensors or tensors[name].ndim != count:
        raise InputError(f"{what} lacks {name} of {count} axes: the file is incomplete, or of another model.")
    return tensors[name].shape


def _tokens(kind: Kind, tensors: Tensors, what: str) -> tuple[int, int]:
    """Rows of the position table that are of patches, and the number of tokens before the patches."""
    parts = parts_of(kind, tensors, what)
    tokens = sum(tensors[name].shape[-2] for name in parts.tokens)
    # Registers of DINOv2 have no position.
    return tensors[parts.table].shape[-2] - (bool(tokens) if kind is DINOV2 else tokens), tokens


def _grid(backbone: Mapping[str, Any], rows: int, patch_size: int, what: str) -> tuple[int, int]:
    shape = backbone.get("image_shape")
    if shape is None:
        return square_grid(rows, what)
    # With data_format="channels_first" the channels come first.
    height, width = shape[1:] if shape[0] < shape[-1] and shape[0] in (1, 3) else shape[:2]
    grid = (height // patch_size, width // patch_size)
    if grid[0] * grid[1] != rows:
        raise InputError(
            f"{what} has positions for {rows} patches; its config has images of {height}x{width}."
        )
    return grid


def _rules(kind: Kind, config: ViTConfig, tensors: Tensors) -> Iterator[Rule]:
    yield from KERAS.patch_rules(
        "patch_embed/projection", kind.patches, config.patch_size, config.image_shape[2], config.patch_bias
    )
    yield from _first_rules(kind, config, tensors)
    expand, contract = mlp_of(kind, tensors)
    for i in range(config.depth):
        ours, theirs = f"block_{i}", f"{kind.blocks}{f'_{i}' if i else ''}/"
        attention = f"{theirs}{kind.attention}/"
        parts = [f"{attention}{name}_dense" for name in ("query", "key", "value")]
        heads = config.num_heads
        yield from KERAS.norm_rules(f"{ours}/attention_norm", theirs + kind.norms[0])
        yield from KERAS.heads_rules(f"{ours}/attention/qkv", parts, heads, config.qkv_bias)
        yield from KERAS.output_rules(
            f"{ours}/attention/projection", f"{attention}output_dense", heads, config.projection_bias
        )
        yield from KERAS.norm_rules(f"{ours}/mlp_norm", theirs + kind.norms[1])
        yield from KERAS.dense_rules(f"{ours}/mlp/expand", theirs + expand, config.mlp_bias)
        yield from KERAS.dense_rules(f"{ours}/mlp/contract", theirs + contract, config.mlp_bias)
        if config.layer_scale is not None:
            for part, scale in zip(("attention", "mlp"), kind.scales, strict=True):
                yield same(f"{ours}/{part}_scale/scale", f"{theirs}{scale}/vars/0")
    yield from KERAS.norm_rules("norm", kind.norm)
    names = heads_of(tensors)
    for ours, theirs in zip(("head_hidden", "head")[-len(names) :] if names else (), names, strict=True):
        yield from KERAS.dense_rules(ours, theirs)


def _first_rules(kind: Kind, config: ViTConfig, tensors: Tensors) -> Iterator[Rule]:
    """Tokens before the patches, and positions."""
    parts = parts_of(kind, tensors, "")
    if kind is DEIT:
        yield from _distilled_rules(parts)
        return
    if parts.tokens:
        yield Rule(
            "add_cls/tokens",
            parts.tokens,
            lambda *tokens: np.concatenate(tokens, axis=1),
            lambda a: np.split(a, [1], axis=1) if len(parts.tokens) == 2 else [a],
        )
    shape = tensors[parts.table].shape
    yield Rule(
        "position_embedding/table",
        (parts.table,),
        lambda a: a.reshape(1, *a.shape[-2:]),
        lambda a: [a.reshape(shape)],
    )


def _distilled_rules(parts: Parts) -> Iterator[Rule]:
    """DeiT without its second head: the distillation token is a register, which takes up its position."""

    def one_way(array):
        raise NotImplementedError("weights are not written in the names of KerasHub")

    yield Rule(
        "add_cls/tokens",
        (*parts.tokens, parts.table),
        lambda cls, distilled, table: np.concatenate([cls, distilled + table[:, 1:2]], axis=1),
        one_way,
    )
    yield Rule("position_embedding/table", (parts.table,), lambda a: np.delete(a, 1, axis=1), one_way)
