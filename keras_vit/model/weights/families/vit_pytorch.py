"""Weights in the names of vit-pytorch (https://github.com/lucidrains/vit-pytorch): `ViT` and `SimpleViT`.

The names changed three times. Version 0.6 had `patch_to_embedding` and `layers.0.0.fn.fn.to_qkv`, 0.7 has
`to_patch_embedding.1`, 0.15 `layers.0.0.fn.to_qkv`; today's `layers.0.0.to_qkv` came with a layer
normalisation at the end of the transformer instead of in the head. Since 1.0 there are layer normalisations
before and after the patch projection.

Its files hold no config. Neither the heads nor the activation, the epsilon, the mean and the standard
deviation of the pixels can be read off them.
"""

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
    patch_and_channels,
    preprocessing,
    square_grid,
)
from keras_vit.model.weights.rules import Rule, apply, dense, same
from keras_vit.model.weights.told import SHAPES, Told
from keras_vit.model.weights.weights import Weights

FAMILY = "vit-pytorch"

BLOCKS = "transformer.layers."
QKV = re.compile(r"transformer\.layers\.0\.0\.((?:fn\.){0,2})to_qkv\.weight")
Tensors = Mapping[str, np.ndarray]


def recognises(checkpoint: Checkpoint) -> bool:
    """Whether a file has the names of vit-pytorch."""
    return any(QKV.fullmatch(name) for name in checkpoint.tensors)


def read(checkpoint: Checkpoint, arguments: Mapping[str, Any]) -> Weights:
    """The weights of a file of vit-pytorch.

    Args:
        checkpoint: the file.
        arguments: what it does not tell: `num_heads`, `activation`, `norm_epsilon`, `mean` and `std`;
            `image_size` for a `SimpleViT`, whose positions are not in the file; and `pooling="all"` for a
            model of an earlier version with `pool="mean"`.

    Raises:
        InputError: something is missing, has a wrong shape, or is not told.
    """
    what, tensors = checkpoint.origin.source, checkpoint.tensors
    row = published.lookup(checkpoint.name) or published.by_shapes(checkpoint) or {}
    told = Told(arguments, _settings(checkpoint.config), row, what)
    notes = list(checkpoint.notes)

    names = _Names(tensors, what)
    config, interpolation = _config(names, tensors, told, what, notes)
    scaling = preprocessing(told, config["image_shape"][2], interpolation)
    told.require()
    made = _made(config, tensors, names, notes, what)
    check_arguments(arguments, made, what)

    rules = list(_rules(made, names, tensors, what))
    check_used(rules, tensors, BLOCKS, what)
    arrays, unused = apply(rules, tensors, what)
    check_shapes(arrays, made, what)
    # An empty class token is what today's versions have with pool="mean".
    unused = tuple(name for name in unused if tensors[name].size)
    return Weights(
        family=FAMILY,
        config=made,
        arrays=arrays,
        origin=checkpoint.origin,
        unused=unused,
        told_by=dict(told.by),
        notes=tuple(notes),
        **scaling,
    )


class _Names:
    """Where the parts of a model stand in the names of its version."""

    def __init__(self, tensors: Tensors, what: str):
        self.fn = next(match[1] for match in map(QKV.fullmatch, tensors) if match)
        # The residual connection was a module of its own, whose norm stands beside the inner function.
        self.norm = "fn." if self.fn == "fn.fn." else ""
        self.patch = _linear(tensors, "to_patch_embedding", what) or _linear(
            tensors, "patch_to_embedding", what
        )
        self.early = any(name.startswith("patch_to_embedding") for name in tensors)
        if len(self.patch) != 1:
            raise InputError(
                f"{what} has no linear projection of patches, such as to_patch_embedding.1.weight."
            )
        self.simple = any(name.startswith("linear_head") for name in tensors)
        head = "linear_head" if self.simple else "mlp_head"
        self.head = _linear(tensors, head, what)
        if len(self.head) > 2:
            raise InputError(f"{what} has a head of {len(self.head)} layers, where ViT has at most two.")
        first = f"{head}.0"
        self.head_norm = first if _is_vector(tensors, f"{first}.weight") else None

    def block(self, i: int) -> str:
        return f"{BLOCKS}{i}."


def _linear(tensors: Tensors, prefix: str, what: str) -> list[str]:
    """Names, without `.weight`, of the linear layers of a module or of a sequence of modules, in order."""
    found = {}
    for name, tensor in tensors.items():
        match = re.fullmatch(rf"({re.escape(prefix)}(?:\.(\d+))?)\.weight", name)
        if match and tensor.ndim >= 2:
            if tensor.ndim > 2:
                raise InputError(f"{what} has a convolution {name}, where ViT has a linear layer.")
            found[int(match[2] or 0)] = match[1]
    return [found[i] for i in sorted(found)]


def _is_vector(tensors: Tensors, name: str) -> bool:
    return name in tensors and tensors[name].ndim == 1


def _settings(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """A `config.json` that somebody put beside the file: our names, or the arguments of vit-pytorch."""
    config = dict(config or {})
    if "heads" in config:
        config.setdefault("num_heads", config["heads"])
    if config.get("pool") in ("cls", "mean"):
        config.setdefault("pooling", "token" if config["pool"] == "cls" else "all")
    return config


def _config(
    names: _Names, tensors: Tensors, told: Told, what: str, notes: list[str]
) -> tuple[dict[str, Any], str]:
    """The arguments of `ViTConfig`, and how images are resized by default."""
    block = names.block(0)
    dim = tensors[f"{block}0.{names.fn}to_qkv.weight"].shape[1]
    patch_size, channels = patch_and_channels(tensors[f"{names.patch[0]}.weight"].shape[1], what)
    config: dict[str, Any] = {
        "num_classes": len(tensors[f"{names.head[-1]}.weight"]) if names.head else 0,
        "patch_size": patch_size,
        "dim": dim,
        "depth": count_blocks(tensors, BLOCKS),
        "num_heads": told.get("num_heads"),
        "mlp_dim": len(tensors[_mlp(tensors, names, 0, what)[0] + ".weight"]),
        "head_hidden_dim": len(tensors[f"{names.head[0]}.weight"]) if len(names.head) == 2 else None,
        "qkv_bias": f"{block}0.{names.fn}to_qkv.bias" in tensors,
        "activation": told.get("activation"),
        "norm_epsilon": told.get("norm_epsilon"),
        "patch_bias": f"{names.patch[0]}.bias" in tensors,
        "patch_norm": _is_vector(tensors, "to_patch_embedding.1.weight"),
        "projection_bias": bool(_projection(tensors, names, 0)) and _bias(tensors, names),
        "mlp_bias": f"{_mlp(tensors, names, 0, what)[0]}.bias" in tensors,
        "num_registers": len(tensors["register_tokens"]) if "register_tokens" in tensors else 0,
    }
    class_rows = _class_token(tensors)
    if "pos_embedding" in tensors:
        table = tensors["pos_embedding"]
        grid = square_grid(table.shape[-2] - class_rows, what)
    else:
        config["position"] = "sincos2d"
        grid = fixed_grid(told, patch_size)
    config["image_shape"] = (grid[0] * patch_size, grid[1] * patch_size, channels)
    if class_rows:
        config["pooling"] = _pooling(tensors, told, notes)
        if config["pooling"] == "all":
            config["class_token"] = True
    else:
        config["pooling"] = "gap"
    return config, "bilinear"  # torchvision's


def _pooling(tensors: Tensors, told: Told, notes: list[str]) -> str:
    """Of a model with a class token: today's versions have none with `pool="mean"`, earlier ones do."""
    if tensors["cls_token"].ndim == 2:
        return "token"
    pooling = told.get("pooling", shapes="token")
    if pooling not in ("token", "all"):  # of another head, which `adapt` makes
        told.by["pooling"], pooling = SHAPES, "token"
    if told.by["pooling"] == SHAPES:
        notes.append('the head sees the class token; if the model had pool="mean", give pooling="all"')
    return pooling


def _class_token(tensors: Tensors) -> int:
    """Number of class tokens: 0 or 1."""
    return int("cls_token" in tensors and tensors["cls_token"].size > 0)


def _projection(tensors: Tensors, names: _Names, i: int) -> str | None:
    """Name of the output projection of the attention; a single head of the full width has none."""
    base = f"{names.block(i)}0.{names.fn}to_out"
    return next((name for name in (f"{base}.0", base) if f"{name}.weight" in tensors), None)


def _bias(tensors: Tensors, names: _Names) -> bool:
    return f"{_projection(tensors, names, 0)}.bias" in tensors


def _mlp(tensors: Tensors, names: _Names, i: int, what: str) -> tuple[str, str]:
    """Names of the two linear layers of the MLP."""
    found = _linear(tensors, f"{names.block(i)}1.{names.fn}net", what)
    if len(found) != 2:
        raise InputError(f"{what} has {len(found)} linear layers in the MLP of block {i}, where ViT has 2.")
    return found[0], found[1]


def _made(config: dict[str, Any], tensors: Tensors, names: _Names, notes: list[str], what: str) -> ViTConfig:
    """The config, with what depends on the number of heads and on the pooling."""
    width = tensors[f"{names.block(0)}0.{names.fn}to_qkv.weight"].shape[0] // 3
    heads = config["num_heads"]
    if not isinstance(heads, int) or heads < 1 or width % heads:
        raise InputError(
            f"{what} has queries of {width} numbers: num_heads must divide them. Received: {heads!r}"
        )
    if width != config["dim"]:
        config["head_dim"] = width // heads
    inner = "transformer.norm.weight" in tensors
    if inner and names.head_norm:
        raise InputError(f"{what} has layer normalisations at the end of the blocks and in the head.")
    if names.head_norm and config["pooling"] != "token":
        config["final_norm"] = "pooled"
    elif not inner and not names.head_norm:
        config["final_norm"] = "none"
    if _projection(tensors, names, 0) is None:
        notes.append("the attention has no output projection: ViT has one that changes nothing")
    return ViTConfig(**config)


def _rules(config: ViTConfig, names: _Names, tensors: Tensors, what: str) -> Iterator[Rule]:
    (patch,) = names.patch
    yield dense("patch_embed/projection/kernel", f"{patch}.weight")
    if config.patch_bias:
        yield same("patch_embed/projection/bias", f"{patch}.bias")
    if config.patch_norm:
        yield from _norm("patch_embed/patch_norm", "to_patch_embedding.1")
        yield from _norm("patch_embed/embedding_norm", "to_patch_embedding.3")
    if config.num_first_tokens:
        yield _tokens(config)
    if config.position == "learned":
        yield _as_shape("position_embedding/table", "pos_embedding", (1, -1, config.dim))
    for i in range(config.depth):
        yield from _block(i, config, names, tensors, what)
    if config.final_norm != "none":
        yield from _norm("norm", names.head_norm or "transformer.norm")
    if names.head:
        for ours, theirs in zip(("head_hidden", "head")[-len(names.head) :], names.head, strict=True):
            yield dense(f"{ours}/kernel", f"{theirs}.weight")
            yield same(f"{ours}/bias", f"{theirs}.bias")


def _block(i: int, config: ViTConfig, names: _Names, tensors: Tensors, what: str) -> Iterator[Rule]:
    ours, theirs = f"block_{i}", names.block(i)
    expand, contract = _mlp(tensors, names, i, what)
    # Today the norms are the first layers of the branches; before, they stood before them.
    norms = (
        (f"{theirs}0.{names.norm}norm", f"{theirs}1.{names.norm}norm")
        if names.fn
        else (f"{theirs}0.norm", f"{theirs}1.net.0")
    )
    yield from _norm(f"{ours}/attention_norm", norms[0])
    qkv = f"{theirs}0.{names.fn}to_qkv"
    if names.early and config.head_hidden_dim:
        yield _early_qkv(f"{ours}/attention/qkv/kernel", f"{qkv}.weight", config)
    elif names.early:
        raise InputError(
            f"{what} is of vit-pytorch 0.3 to 0.6, where attention was divided by the root of the width of a "
            "token or of a head; the file does not tell which. Save the model with a later version."
        )
    else:
        yield dense(f"{ours}/attention/qkv/kernel", f"{qkv}.weight")
    if config.qkv_bias:
        yield same(f"{ours}/attention/qkv/bias", f"{qkv}.bias")
    projection = _projection(tensors, names, i)
    if projection is None:
        yield Rule(
            f"{ours}/attention/projection/kernel",
            (),
            lambda: np.eye(config.dim, dtype="float32"),
            lambda a: [],
        )
    else:
        yield dense(f"{ours}/attention/projection/kernel", f"{projection}.weight")
    if config.projection_bias:
        yield same(f"{ours}/attention/projection/bias", f"{projection}.bias")
    yield from _norm(f"{ours}/mlp_norm", norms[1])
    for layer, name in (("expand", expand), ("contract", contract)):
        yield dense(f"{ours}/mlp/{layer}/kernel", f"{name}.weight")
        if config.mlp_bias:
            yield same(f"{ours}/mlp/{layer}/bias", f"{name}.bias")


def _norm(ours: str, theirs: str) -> tuple[Rule, Rule]:
    return same(f"{ours}/gamma", f"{theirs}.weight"), same(f"{ours}/beta", f"{theirs}.bias")


def _as_shape(ours: str, theirs: str, shape: tuple[int, ...]) -> Rule:
    """A tensor that the versions have with and without leading ones."""
    return Rule(ours, (theirs,), lambda a: a.reshape(shape), lambda a: [a.reshape(a.shape[1:])])


def _tokens(config: ViTConfig) -> Rule:
    """Class token and registers. Theirs stand behind the patches, which makes no difference to attention."""
    theirs = ("cls_token",) * config.use_cls + ("register_tokens",) * bool(config.num_registers)
    return Rule(
        "add_cls/tokens",
        theirs,
        lambda *parts: np.concatenate([part.reshape(-1, config.dim) for part in parts])[None],
        lambda a: np.split(a[0], [int(config.use_cls)]) if len(theirs) == 2 else [a[0]],
    )


def _early_qkv(ours: str, theirs: str, config: ViTConfig) -> Rule:
    """Until 0.2 queries were divided by the root of the token's width: ours take up the difference."""
    factor = np.float32((config.num_heads * (config.head_dim or config.dim // config.num_heads)) ** -0.5)
    factor *= np.float32((config.head_dim or config.dim // config.num_heads) ** 0.5)
    scales = np.repeat(np.array([factor, 1.0, 1.0], "float32"), config.dim)[:, None]
    return Rule(ours, (theirs,), lambda a: (a * scales).T, lambda a: [a.T / scales])
