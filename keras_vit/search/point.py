"""What a point of a space means: a model, its cost, and a recipe."""

import math
from dataclasses import replace
from typing import Any

from keras_vit.data.augmentation import Augmentation
from keras_vit.model import cost
from keras_vit.model.config import SIZES, ViTConfig
from keras_vit.training.recipe import Recipe

CROP = 0.2
"""the largest shift by an augmentation of strength 1, as a fraction of the side"""

LIKE_RECIPE = ("layer_decay", "lora_rank")
"""Fields of spaces of fine-tuning that are those of the recipe."""


def vit_arguments(values: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `ViT` at a point, without image_shape and num_classes.

    Arguments that a space does not have, such as `head_hidden_dim`, are those of the point's size in
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


def vit_config(values: dict[str, Any], image_shape: tuple[int, int, int], num_classes: int) -> ViTConfig:
    """The model at a point."""
    return ViTConfig(image_shape=image_shape, num_classes=num_classes, **vit_arguments(values))


def recipe_at(values: dict[str, Any], base: Recipe | None = None) -> Recipe:
    """The recipe at a point; what a space does not set is that of `base`."""
    changes: dict[str, Any] = {name: values[name] for name in LIKE_RECIPE if name in values}
    if "unfrozen_share" in values:
        changes["unfrozen_blocks"] = unfrozen_blocks(values["unfrozen_share"], values["depth"])
    return replace(
        base or Recipe(),
        learning_rate=values["learning_rate"],
        weight_decay=values["weight_decay"],
        batch_size=values["batch_size"],
        augmentation=augmentation_at(values["augmentation"]),
        epochs=values["epochs"],
        **changes,
    )


def augmentation_at(strength: float) -> Augmentation:
    """The random changes to training images that a strength of 0 to 1 stands for."""
    # Rounded: 0.2 * 0.75 is 0.15000000000000002.
    return Augmentation(flip="both", crop=round(CROP * strength, 12)) if strength else Augmentation()


def unfrozen_blocks(share: float, depth: int) -> int | None:
    """The number of blocks that a share of them is; `None`, which is everything, for all of them."""
    # A part is taken off: 0.3 * 10 must not become 4.
    return None if share == 1.0 else math.ceil(share * depth - 1e-9)


def in_words(values: dict[str, Any]) -> str:
    """What is particular to a point, in a few words."""
    if "num_heads" in values:
        return f"depth {values['depth']}, heads {values['num_heads']}, dim {values['dim']}"
    names = ("layer_decay", "unfrozen_share", "lora_rank")
    return ", ".join(f"{name.replace('_', ' ')} {values[name]:g}" for name in names if name in values)


def count_parameters(values: dict[str, Any], image_shape: tuple[int, int, int], num_classes: int) -> int:
    """The parameters of the model at a point, without building it."""
    return cost.count_parameters(vit_config(values, image_shape, num_classes))


def count_mult_adds(values: dict[str, Any], image_shape: tuple[int, int, int], num_classes: int) -> int:
    """The mult-adds of one image, forward, of the model at a point, without building it."""
    return cost.count_mult_adds(vit_config(values, image_shape, num_classes))
