"""Which weights of a ViT a recipe trains, and from which step on."""

from collections.abc import Iterator

import keras

from keras_vit.errors import InputError
from keras_vit.model.config import ViTConfig
from keras_vit.model.layers import EncoderBlock
from keras_vit.model.vit import ViT
from keras_vit.training.lora import A, B, enable_lora
from keras_vit.training.recipe import Recipe

HEAD = ("head_hidden", "head")
"""The layers that classify. What they see is `ViT.extractor("features")`."""


def check_tuning(recipe: Recipe, config: ViTConfig) -> None:
    """Checks that a recipe suits a model, before any weight is read.

    Raises:
        InputError: the recipe wants more blocks than there are, a rank that a kernel does not have, or a
            head that the model does not have.
    """
    blocks = recipe.unfrozen_blocks
    if blocks is not None and blocks > config.depth:
        raise InputError(
            f"unfrozen_blocks must be {config.depth} at most, the blocks of this model. "
            f"Received: unfrozen_blocks={blocks}"
        )
    if recipe.tune == "lora" and recipe.lora_rank > config.dim:
        raise InputError(
            f"lora_rank must be {config.dim} at most, the width of this model. "
            f"Received: lora_rank={recipe.lora_rank}"
        )
    if (recipe.tune != "all" or blocks == 0) and config.num_classes == 0:
        raise InputError("This model has no head to train: give num_classes.")


def choose_trained(model: keras.Model, recipe: Recipe) -> None:
    """Freezes the weights of a ViT that a recipe does not train, before the model is compiled.

    - `tune="all"`: every weight; with `unfrozen_blocks=n` those of the head and of the last n blocks. The
      last layer normalisation of tokens belongs to the last block; attention pooling and a normalisation
      after pooling belong to the head.
    - `tune="head"`: only the layers that classify.
    - `tune="lora"`: these, and low-rank additions to kernels of the blocks, which are made here.

    Batch norm of a conv stem keeps its statistics where the stem is frozen, and during gradual unfreezing.

    Args:
        model: a `ViT` with its first weights. Any model will do for a recipe that trains every weight.
        recipe: the `Recipe`.

    Raises:
        InputError: see `check_tuning`; or the model is not a `ViT`.
    """
    if recipe.tune == "all" and recipe.unfrozen_blocks is None and recipe.unfreeze_every is None:
        return
    vit = require_vit(model)
    check_tuning(recipe, vit.config)
    if recipe.tune == "lora":
        enable_lora(vit, recipe.lora_rank, recipe.lora_on)
    for layer, level in levels(vit):
        if recipe.unfrozen_blocks is not None:
            layer.trainable = level > vit.config.depth - recipe.unfrozen_blocks
        elif recipe.tune == "lora" and isinstance(layer, EncoderBlock):
            for weight in layer.weights:
                weight.trainable = weight.name in (A, B)
        elif recipe.tune != "all":
            layer.trainable = layer.name in HEAD
    if recipe.unfreeze_every is not None and vit.config.stem != "linear":
        # Its moving statistics would change before its turn comes.
        for norm in vit.get_layer("patch_embed").norms:
            norm.trainable = False


def require_vit(model: keras.Model) -> ViT:
    """The model, if it is a ViT.

    Raises:
        InputError: it is another model, whose blocks are not known.
    """
    if not isinstance(model, ViT):
        raise InputError(
            "tune, layer_decay, unfrozen_blocks and unfreeze_every are for a keras_vit.ViT. "
            f"Received: {type(model).__name__}"
        )
    return model


def levels(model: ViT) -> Iterator[tuple[keras.layers.Layer, int]]:
    """Each layer of a ViT and its level: 0 before the first block, i + 1 for block i, depth + 1 for the head.

    As in timm's `param_groups_layer_decay`: the last layer normalisation of tokens is at the level of the
    last block, attention pooling and a normalisation after pooling are at that of the head.
    """
    level = 0
    for layer in model.layers:
        if isinstance(layer, EncoderBlock):
            level += 1
            yield layer, level
        elif level < model.config.depth or (layer.name == "norm" and model.config.normalises_tokens):
            yield layer, level
        else:
            yield layer, level + 1
