"""What the readers of the families share: sizes that come from shapes, and arguments that contradict them."""

import math
from collections.abc import Iterable, Mapping
from typing import Any, get_args

import numpy as np

from keras_vit.errors import InputError
from keras_vit.model.config import ViTConfig
from keras_vit.model.weights.rules import Rule, some
from keras_vit.model.weights.told import Told
from keras_vit.model.weights.weights import Interpolation

OF_THE_FILE = (
    "dim",
    "depth",
    "num_heads",
    "mlp_dim",
    "head_dim",
    "stem",
    "num_registers",
    "position",
    "qkv_bias",
    "qk_norm",
    "activation",
    "norm_epsilon",
    "pre_norm",
    "final_norm",
    "patch_bias",
    "patch_norm",
    "projection_bias",
    "mlp_bias",
    "class_token",
    "class_position",
)
"""Arguments of `ViT` that weights decide: another value would make other outputs of them."""


def check_arguments(arguments: Mapping[str, Any], config: ViTConfig, what: str) -> None:
    """Raises InputError if an argument of the user contradicts what the tensors say.

    Args:
        arguments: of the user.
        config: of the weights, made with those arguments that tensors cannot tell.
        what: the file, for messages.
    """
    found = {"mlp_dim": config.mlp_width, "head_dim": head_dim(config), "class_token": config.use_cls}
    for name in OF_THE_FILE:
        given, real = arguments.get(name), found.get(name, getattr(config, name))
        if given is not None and given != real:
            raise InputError(f"{what} is of a model with {name}={real!r}: leave out {name}={given!r}.")
    scale = arguments.get("layer_scale")
    if (
        scale is not None and config.layer_scale is None
    ):  # where the file has scales, their first value is lost
        raise InputError(f"{what} is of a model without LayerScale: leave out layer_scale={scale!r}.")


def head_dim(config: ViTConfig) -> int:
    """Width of an attention head, given or by default."""
    return config.head_dim or config.dim // config.num_heads


def square_grid(rows: int, what: str) -> tuple[int, int]:
    """(rows, columns) of the patches of a square image, from the rows of a position table.

    Raises:
        InputError: no square has as many.
    """
    side = math.isqrt(rows)
    if side * side != rows:
        raise InputError(
            f"{what} has positions for {rows} patches, which no square image gives: only weights for square "
            "images can be read."
        )
    return side, side


def fixed_grid(told: Told, patch_size: int) -> tuple[int, int]:
    """(rows, columns) of the patches of a model whose positions are not in the file, by its `image_size`.

    Raises:
        InputError: the patches do not divide it. Where nobody tells it, `told.require()` raises.
    """
    size = told.get("image_size")
    sides = (patch_size,) if size is None else tuple(np.atleast_1d(size).tolist())
    if not all(isinstance(side, int) and side > 0 and side % patch_size == 0 for side in sides):
        raise InputError(
            f"image_size must be a multiple of the patches of {told.what}, {patch_size} pixels. "
            f"Received: {size!r}"
        )
    return sides[0] // patch_size, sides[-1] // patch_size


def patch_and_channels(width: int, what: str) -> tuple[int, int]:
    """(patch_size, channels) of a patch of `width` numbers: p * p, 3 * p * p, else the fewest channels.

    A width cannot be both p * p and 3 * q * q.
    """
    for channels in (1, 3, 2, *range(4, width + 1)):
        side = math.isqrt(width // channels)
        if side * side * channels == width:
            return side, channels
    raise InputError(f"{what} has patches of {width} numbers, which are not squares.")


def count_blocks(names: Iterable[str], prefix: str) -> int:
    """How many blocks there are with names that begin with `prefix`, a number, and a dot or a slash."""
    found = {
        int(number)
        for name in names
        if name.startswith(prefix)
        for number in [name[len(prefix) :].replace("/", ".").partition(".")[0]]
        if number.isdecimal()
    }
    return max(found, default=-1) + 1


def check_shapes(arrays: Mapping[str, np.ndarray], config: ViTConfig, what: str) -> None:
    """Raises InputError for an array that does not have the shape that the config gives it.

    Those of a conv stem are left to the model.
    """
    dim, heads = config.dim, config.num_heads * head_dim(config)
    hidden = config.mlp_width * (2 if config.activation == "swiglu" else 1)
    width = config.head_hidden_dim or config.feature_width
    patch = config.patch_size**2 * config.image_shape[2]
    rows = (config.use_cls + config.use_distilled) * config.class_position + math.prod(config.grid)
    vector, square, pooled = (dim,), (dim, dim), config.mlp_width
    exact = {
        "patch_embed/projection/kernel": (patch, dim),
        "patch_embed/projection/bias": vector,
        "patch_embed/patch_norm/gamma": (patch,),
        "patch_embed/patch_norm/beta": (patch,),
        "patch_embed/embedding_norm/gamma": vector,
        "patch_embed/embedding_norm/beta": vector,
        "pre_norm/gamma": vector,
        "pre_norm/beta": vector,
        "position_embedding/table": (1, rows, dim),
        "pool/probe": (1, 1, dim),
        "pool/query/kernel": square,
        "pool/query/bias": vector,
        "pool/key_value/kernel": (dim, 2 * dim),
        "pool/key_value/bias": (2 * dim,),
        "pool/projection/kernel": square,
        "pool/projection/bias": vector,
        "pool/norm/gamma": vector,
        "pool/norm/beta": vector,
        "pool/mlp/expand/kernel": (dim, pooled),
        "pool/mlp/expand/bias": (pooled,),
        "pool/mlp/contract/kernel": (pooled, dim),
        "pool/mlp/contract/bias": vector,
        "add_cls/tokens": (1, config.num_first_tokens, dim),
        "head_hidden/kernel": (config.feature_width, config.head_hidden_dim),
        "head_hidden/bias": (config.head_hidden_dim,),
        "head/kernel": (width, config.num_classes),
        "head/bias": (config.num_classes,),
        "norm/gamma": (config.feature_width if config.final_norm == "pooled" else dim,),
        "norm/beta": (config.feature_width if config.final_norm == "pooled" else dim,),
    }
    ends = {
        "attention/qkv/kernel": (dim, 3 * heads),
        "attention/qkv/bias": (3 * heads,),
        "attention/projection/kernel": (heads, dim),
        "attention/query_norm/gamma": (head_dim(config),),
        "attention/query_norm/beta": (head_dim(config),),
        "attention/key_norm/gamma": (head_dim(config),),
        "attention/key_norm/beta": (head_dim(config),),
        "mlp/expand/kernel": (dim, hidden),
        "mlp/expand/bias": (hidden,),
        "mlp/contract/kernel": (config.mlp_width, dim),
    }
    for path, array in arrays.items():
        wanted = exact.get(path)
        if wanted is None and path.startswith("block_"):
            wanted = ends.get(path.partition("/")[2], (dim,))
        if wanted is not None and tuple(array.shape) != wanted:
            raise InputError(
                f"{what} has {path} of shape {tuple(array.shape)}, not {wanted}: the file is damaged, or of "
                "a model that is not known here."
            )


def check_used(rules: Iterable[Rule], names: Iterable[str], prefix: str, what: str) -> None:
    """Raises InputError for tensors of the blocks that `ViT` has no place for: another architecture."""
    used = {name for rule in rules for name in rule.theirs}
    others = [name for name in names if name.startswith(prefix) and name not in used]
    if others:
        raise InputError(f"{what} is of a model whose blocks have {some(others)}, which ViT does not have.")


def preprocessing(
    told: Told, channels: int, default: str, shapes: Mapping[str, Any] | None = None
) -> dict[str, Any]:
    """`mean`, `std` and `interpolation` for `Weights`, each told by somebody.

    Args:
        told: may lack the mean and the std, after which `told.require()` raises.
        channels: of the images.
        default: interpolation where nobody tells another: what the family's own code resizes with.
        shapes: `mean` and `std` where the tensors leave no doubt of them.
    """
    found = {name: told.get(name, (shapes or {}).get(name)) for name in ("mean", "std")}
    made: dict[str, Any] = {
        name: None if value is None else _per_channel(name, value, channels, told.what)
        for name, value in found.items()
    }
    interpolation = told.get("interpolation", shapes=default)
    if interpolation not in get_args(Interpolation):
        raise InputError(
            f"interpolation must be {' or '.join(get_args(Interpolation))} for {told.what}. "
            f"Received: interpolation={interpolation!r}"
        )
    return {**made, "interpolation": interpolation}


def _per_channel(name: str, value: Any, channels: int, what: str) -> tuple[float, ...]:
    """The mean or the standard deviation of pixels in 0..1, for each channel."""
    wanted = "above 0 and at most 1" if name == "std" else "in 0..1"
    try:
        numbers = tuple(float(x) for x in np.atleast_1d(value))
    except (TypeError, ValueError):
        numbers = (math.nan,)
    if not all(0 < x <= 1 or (x == 0 and name == "mean") for x in numbers):
        raise InputError(f"{name} must be {wanted}, since pixels are, for {what}. Received: {name}={value!r}")
    if len(numbers) not in (1, channels):
        raise InputError(
            f"{name} must be one number, or {channels}, one for each channel of {what}. "
            f"Received: {name}={numbers}"
        )
    return numbers * channels if len(numbers) == 1 else numbers
