"""Vision Transformers in Keras 3 for people with a few thousand images of their own."""

from importlib import import_module
from typing import TYPE_CHECKING

__version__ = "0.1.0"

# Each public name and where it lives. They are imported when first used: `keras-vit --help` answers
# without Keras, and TensorFlow stays out until images are read.
_HOMES = {
    "AddCLS": "layers",
    "AttentionPool": "layers",
    "EncoderBlock": "layers",
    "MLP": "layers",
    "PatchEmbed": "layers",
    "PositionEmbedding": "layers",
    "SelfAttention": "layers",
    "ViT": "vit",
    "summary": "summary",
    "InputError": "errors",
    "ImageSet": "data.image_set",
    "Preprocessing": "data.preprocess",
    "load_data": "data.pipeline",
    "load_image_set": "data.images",
    "Augmentation": "data.augmentation",
    "Recipe": "training.recipe",
    "RECIPES": "training.recipe",
    "train": "training.run",
    "evaluate": "evaluation.verbs",
    "predict": "evaluation.verbs",
    "load_run": "training.run_folder",
}

__all__ = sorted([*_HOMES, "__version__"])


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'keras_vit' has no attribute {name!r}")
    value = getattr(import_module(f"keras_vit.{_HOMES[name]}"), name)
    globals()[name] = value
    return value


def __dir__():
    return __all__


if TYPE_CHECKING:
    from keras_vit.layers import (
        MLP,
        AddCLS,
        AttentionPool,
        EncoderBlock,
        PatchEmbed,
        PositionEmbedding,
        SelfAttention,
    )
    from keras_vit.vit import ViT
