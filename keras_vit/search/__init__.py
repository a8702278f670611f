"""Search over the sizes and the training of a ViT, on top of KerasTuner (the extra `tune`)."""

from importlib import import_module
from typing import TYPE_CHECKING

# Each public name and where it lives. They are imported when first used: a space is plain values, and is
# read where neither Keras nor KerasTuner is.
_HOMES = {
    "Choice": "space",
    "Range": "space",
    "SearchSpace": "space",
    "ViTHyperModel": "hypermodel",
    "ViTHyperband": "hyperband",
}

__all__ = ["Choice", "Range", "SearchSpace", "ViTHyperModel", "ViTHyperband"]


def __getattr__(name):
    if name not in _HOMES:
        raise AttributeError(f"module 'keras_vit.search' has no attribute {name!r}")
    try:
        value = getattr(import_module(f"keras_vit.search.{_HOMES[name]}"), name)
    except ModuleNotFoundError as error:
        if error.name != "keras_tuner":
            raise
        raise ModuleNotFoundError(
            "keras_vit.search needs KerasTuner: install the extra `tune`.", name="keras_tuner"
        ) from error
    globals()[name] = value
    return value


def __dir__():
    return __all__


if TYPE_CHECKING:  # for editors and type checkers, which do not run the table
    from keras_vit.search.hyperband import ViTHyperband
    from keras_vit.search.hypermodel import ViTHyperModel
    from keras_vit.search.space import Choice, Range, SearchSpace
