"""What a point of a space stands for: arguments of `ViT`, a recipe, and what the model would cost."""

import math
from collections.abc import Iterator
from dataclasses import replace
from itertools import pairwise
from typing import Any

from keras_vit.data.augmentation import Augmentation
from keras_vit.model.config import SIZES
from keras_vit.training.recipe import Recipe

CROP = 0.2
"""share of the side that an augmentation of strength 1 shifts by at most"""


def vit_arguments(values: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `ViT` at a point, without image_shape and num_classes.

    What the space does not know, such as `head_hidden_dim`, is that of the point's size in
    `keras_vit.model.config`.
    """
    return {
        **SIZES[values["model"]].arguments,
        "depth": values["depth"],
        "num_heads": values["num_heads"],
        "dim": values["dim"],
        "patch_size": values["patch_size"],
        "mlp_dim": values["mlp_ratio"] * values["dim"],
        "stem": values["stem"],
        "drop_path_rate": values["drop_path_rate"],
    }


def recipe_at(values: dict[str, Any], base: Recipe | None = None) -> Recipe:
    """The recipe at a point, with what the space does not know taken from another."""
    strength = values["augmentation"]
    augmentation = Augmentation(flip="both", crop=CROP * strength) if strength else Augmentation()
    return replace(
        base or Recipe(),
        learning_rate=values["learning_rate"],
        weight_decay=values["weight_decay"],
        batch_size=values["batch_size"],
        augmentation=augmentation,
        epochs=values["epochs"],
    )


def count_parameters(values: dict[str, Any], image_shape: tuple[int, int, int], num_classes: int) -> int:
    """The parameters of the model at a point, without building it: those `keras_vit.summary` counts."""
    arguments = vit_arguments(values)
    dim, mlp_dim, inner = arguments["dim"], arguments["mlp_dim"], _width_of_heads(arguments)
    # A linear patch has a bias a channel; a convolution the four numbers of its batch norm.
    of_channel = 1 if arguments["stem"] == "linear" else 4
    stem = sum((inputs + of_channel) * outputs for inputs, outputs, _ in _stem(arguments, image_shape))
    tokens = dim + _tokens(arguments, image_shape) * dim  # the class token, and a position each
    qkv = (dim + arguments.get("qkv_bias", True)) * 3 * inner
    norms = 2 * 2 * dim
    block = norms + qkv + (inner + 1) * dim + (dim + 1) * mlp_dim + (mlp_dim + 1) * dim
    head = sum((inputs + 1) * outputs for inputs, outputs in _head(arguments, num_classes))
    return stem + tokens + arguments["depth"] * block + 2 * dim + head


def count_mult_adds(values: dict[str, Any], image_shape: tuple[int, int, int], num_classes: int) -> int:
    """The mult-adds of one image, forward, without building the model: those `keras_vit.summary` counts."""
    arguments = vit_arguments(values)
    dim, mlp_dim, inner = arguments["dim"], arguments["mlp_dim"], _width_of_heads(arguments)
    stem = sum(inputs * outputs * places for inputs, outputs, places in _stem(arguments, image_shape))
    tokens = _tokens(arguments, image_shape)
    block = tokens * (4 * dim * inner + 2 * dim * mlp_dim) + 2 * tokens * tokens * inner
    head = sum(inputs * outputs for inputs, outputs in _head(arguments, num_classes))
    return stem + arguments["depth"] * block + head


def _width_of_heads(arguments) -> int:
    """Of all heads together."""
    heads = arguments["num_heads"]
    return heads * (arguments.get("head_dim") or arguments["dim"] // heads)


def _tokens(arguments, image_shape) -> int:
    patch = arguments["patch_size"]
    return (image_shape[0] // patch) * (image_shape[1] // patch) + 1


def _stem(arguments, image_shape) -> Iterator[tuple[int, int, int]]:
    """(inputs a channel, channels, places) of each product of the stem."""
    height, width, channels = image_shape
    dim, patch = arguments["dim"], arguments["patch_size"]
    if arguments["stem"] == "linear":
        yield patch * patch * channels, dim, (height // patch) * (width // patch)
        return
    count = int(math.log2(patch))
    widths = [channels, *(dim // 2 ** (count - i) for i in range(count - 1)), dim]
    for i, (before, after) in enumerate(pairwise(widths), 1):
        yield 9 * before, after, (height // 2**i) * (width // 2**i)


def _head(arguments, num_classes):
    hidden = arguments.get("head_hidden_dim")
    return pairwise([arguments["dim"], *([hidden] if hidden else []), num_classes])
