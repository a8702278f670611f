"""Search over the sizes and the training of a ViT, on top of KerasTuner (the extra `tune`)."""

from typing import TYPE_CHECKING

from keras_vit.lazy import lazy_names

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


_get, __dir__ = lazy_names(__name__, _HOMES)


def __getattr__(name):
    try:
        return _get(name)
    except ModuleNotFoundError as error:
        if error.name != "keras_tuner":
            raise
        raise ModuleNotFoundError(
            "keras_vit.search needs KerasTuner: install the extra `tune`.", name="keras_tuner"
        ) from error


if TYPE_CHECKING:  # for editors and type checkers, which do not run the table
    from keras_vit.search.hyperband import ViTHyperband
    from keras_vit.search.hypermodel import ViTHyperModel
    from keras_vit.search.space import Choice, Range, SearchSpace
