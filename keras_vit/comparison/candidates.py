"""The models of a comparison by name: what they are called, how they are built, and their recipes."""

import dataclasses
from collections.abc import Callable, Mapping, Sequence

import keras

from keras_vit.comparison.config import CompareConfig, ModelName
from keras_vit.comparison.convolutional import plain_cnn, resnet, resnet_width
from keras_vit.comparison.trainer import Probe, Trainer
from keras_vit.data.image_set import ImageSet
from keras_vit.model.config import ViTConfig, variant_arguments
from keras_vit.model.cost import count_mult_adds
from keras_vit.model.vit import ViT
from keras_vit.training.config import NONE, TrainConfig
from keras_vit.training.recipe import RECIPE_CHANGES, RECIPES, Recipe
from keras_vit.training.start import Start

VITS: tuple[ModelName, ...] = ("vit", "defect-conv", "probe", "finetune")
"""The others are convolutional."""


def titles_of(scratch: TrainConfig, start: Start | None) -> dict[str, str]:
    """What pages and sentences call the models.

    Args:
        scratch: the settings of the models from scratch, with the model that the images chose.
        start: of the published weights; `None` without.
    """
    patch = patch_of(scratch)
    of_weights = start.name if start else ""
    return {
        "cnn": "a plain CNN",
        "resnet": "a ResNet",
        "vit": f"the study's ViT (defect/{patch})",
        "defect-conv": f"the ViT defect-conv/{patch}",
        "probe": f"the probe of {of_weights}",
        "finetune": f"fine-tuned {of_weights}",
    }


def patch_of(scratch: TrainConfig) -> int:
    """The patch size of the ViTs from scratch."""
    return variant_arguments(scratch.size)["patch_size"]


def recipes_of(config: CompareConfig) -> dict[str, Recipe]:
    """The recipe of each model: that of the settings, and for published weights as much of it as they share.

    Fine-tuning has its own rates and a fifth of the epochs, as its recipe has; the images, the augmentation,
    the batches, the smoothing of the labels and the treatment of uneven classes are the same.
    """
    base = config.train.recipe
    shared = {
        name: getattr(base, name)
        for name in (
            "augmentation",
            "batch_size",
            "class_weights",
            "sampling",
            "precision",
            "label_smoothing",
        )
    }
    share = RECIPES["finetune"].epochs / RECIPES["default"].epochs
    epochs = max(1, round(base.epochs * share))
    tuned = dataclasses.replace(
        RECIPES["finetune"],
        epochs=epochs,
        warmup_epochs=RECIPES["finetune"].warmup_epochs * epochs / RECIPES["finetune"].epochs,
        **shared,
    )
    # The warm-up is a share of the run, whose default is that of the default recipe.
    scratch = dataclasses.replace(
        base, warmup_epochs=base.warmup_epochs * base.epochs / RECIPES["default"].epochs
    )
    probe = dataclasses.replace(RECIPES["probe"], **shared)
    return {
        **dict.fromkeys(("cnn", "resnet"), dataclasses.replace(scratch, xla=_xla_of_convolutions())),
        **dict.fromkeys(("vit", "defect-conv"), scratch),
        "probe": probe,
        "finetune": tuned,
    }


def _xla_of_convolutions() -> bool | None:
    """On CPUs TensorFlow's own convolutions are as fast as XLA's (171 ms per step of 32 small images both
    ways), and need no compiling, which took 13 and 25 s."""
    return False if keras.backend.backend() == "tensorflow" else None


def make_trainers(
    config: CompareConfig,
    scratch: TrainConfig,
    start: Start | None,
    class_names: Sequence[str],
    image_set: ImageSet,
) -> dict[str, Trainer | Probe]:
    """What trains each model, by its name.

    Args:
        config: of the comparison.
        scratch: see `titles_of`.
        start: of the published weights; `None` without.
        class_names: of the images.
        image_set: the images as they came.
    """
    shape, classes, patch = scratch.image_shape, len(class_names), patch_of(scratch)
    recipes, dtype = recipes_of(config), config.train.recipe.precision

    def vit(variant: str) -> Callable[[], ViT]:
        return lambda: ViT.from_variant(variant, image_shape=shape, num_classes=classes, dtype=dtype)

    like = ViTConfig(image_shape=shape, num_classes=classes, **variant_arguments(f"defect-conv/{patch}"))
    width = resnet_width(shape, count_mult_adds(like))
    builders: Mapping[str, Callable[[], keras.Model]] = {
        "cnn": lambda: plain_cnn(shape, classes, dtype),
        "resnet": lambda: resnet(shape, classes, width, dtype),
        "vit": vit(f"defect/{patch}"),
        "defect-conv": vit(f"defect-conv/{patch}"),
    }
    found: dict[str, Trainer | Probe] = {}
    probe = None
    if start is not None:
        probe = Probe(_from_weights("probe", start, config, class_names), recipes["probe"], start, image_set)
    for name in config.names:
        if name in builders:
            found[name] = Trainer(builders[name], recipes[name])
        elif name == "probe":
            assert probe is not None
            found[name] = probe
        else:
            assert start is not None
            make = _from_weights(name, start, config, class_names)
            found[name] = Trainer(make, recipes[name], probe)
    return found


def _from_weights(
    name: str, start: Start, config: CompareConfig, class_names: Sequence[str]
) -> Callable[[], ViT]:
    changes = dict(RECIPE_CHANGES.get(name, {}))
    settings = dataclasses.replace(config.train, recipe=recipes_of(config)[name], changes=changes)
    return lambda: start.build(settings, class_names)


def scratch_config(train: TrainConfig) -> TrainConfig:
    """The settings of the models from scratch: those of the comparison without its published weights."""
    return dataclasses.replace(train, init=NONE, mean=None, std=None, interpolation=None)
