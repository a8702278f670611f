"""Low-rank additions to the kernels of a ViT, which are trained in place of the kernels.

LoRA, Hu et al. 2021 (https://arxiv.org/abs/2106.09685): a kernel W becomes W + alpha / rank * A B, where A
has `rank` columns and B as many rows. B begins with zeros, so the model begins as it was.
"""

from collections.abc import Collection, Mapping

import keras
import numpy as np

from keras_vit.errors import InputError
from keras_vit.model.arguments import without_parts
from keras_vit.model.layers import EncoderBlock
from keras_vit.model.vit import ViT

A, B = "lora_kernel_a", "lora_kernel_b"
"""The names that Keras gives to the two factors."""


def enable_lora(model: ViT, rank: int, kernels: Collection[str]) -> None:
    """Gives kernels of every block of a ViT a low-rank addition. It says nothing of what is trained.

    Args:
        model: with its weights; an addition that it has already, of the same rank, stays.
        rank: of the additions; their alpha is equal to it.
        kernels: `"qkv"` and `"projection"` of the attention, `"mlp"` for both of the MLP.

    Raises:
        InputError: the model has additions of another rank, or at other kernels.
    """
    wanted = {
        f"block_{i}/{name}": layer
        for i in range(model.config.depth)
        for name, layer in _kernels_of(model.get_layer(f"block_{i}"), kernels).items()
    }
    present = {name: layer.lora_rank for name, layer in lora_layers(model).items()}
    if present and present != dict.fromkeys(wanted, rank):
        raise InputError(
            f"This model has LoRA already, of rank {max(present.values())} at {len(present)} kernels: merge "
            "it with merge_lora before you enable another."
        )
    if not present:
        for layer in wanted.values():
            layer.enable_lora(rank)


def lora_layers(model: ViT) -> dict[str, keras.layers.Dense]:
    """The layers that have an addition, by names such as `"block_0/attention/qkv"`, in order."""
    return {
        f"block_{i}/{name}": layer
        for i in range(model.config.depth)
        for name, layer in _kernels_of(model.get_layer(f"block_{i}"), ("qkv", "projection", "mlp")).items()
        if layer.lora_enabled
    }


def merge_lora(model: ViT) -> ViT:
    """A new, plain ViT on one device that computes the same: each addition becomes part of its kernel.

    What a recipe has frozen is not frozen in it.

    A model without additions is copied.

    Args:
        model: a `ViT`; it stays as it is.
    """
    plain = ViT.from_config(without_parts(model.get_config()))
    values = merged(values_by_path(model), {name: scale(layer) for name, layer in lora_layers(model).items()})
    for variable in plain.weights:
        variable.assign(values[variable.path])
    return plain


def values_by_path(model: ViT) -> dict[str, np.ndarray]:
    """The weights of a ViT by their paths, such as `"block_0/attention/qkv/kernel"`."""
    return dict(zip((weight.path for weight in model.weights), model.get_weights(), strict=True))


def merged(values: Mapping[str, np.ndarray], scales: Mapping[str, float]) -> dict[str, np.ndarray]:
    """Weights without additions.

    Args:
        values: by path, with those of the additions.
        scales: by layer that has an addition, what the product of the factors is multiplied by.

    Returns:
        A new dict.
    """
    found = dict(values)
    for name, factor in scales.items():
        product = found.pop(f"{name}/{A}") @ found.pop(f"{name}/{B}")
        kernel = found[f"{name}/kernel"]
        found[f"{name}/kernel"] = (kernel + factor * product).astype(kernel.dtype)
    return found


def scale(layer: keras.layers.Dense) -> float:
    """What the product of the two factors of a layer is multiplied by."""
    return layer.lora_alpha / layer.lora_rank


def _kernels_of(block: EncoderBlock, kernels: Collection[str]) -> dict[str, keras.layers.Dense]:
    """Layers of a block by their names below it."""
    attention, mlp = block.attention, block.mlp
    named = {
        "attention/qkv": ("qkv", attention.qkv),
        "attention/projection": ("projection", attention.projection),
        "mlp/expand": ("mlp", mlp.expand),
        "mlp/contract": ("mlp", mlp.contract),
    }
    return {name: layer for name, (kind, layer) in named.items() if kind in kernels}
