"""Search over the sizes and the training of a ViT, on top of KerasTuner (the extra `tune`)."""

try:
    import keras_tuner  # noqa: F401
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("keras_vit.search needs KerasTuner: install the extra `tune`.") from error

from keras_vit.search.hyperband import ViTHyperband
from keras_vit.search.hypermodel import ViTHyperModel
from keras_vit.search.space import Choice, Range, SearchSpace

__all__ = ["Choice", "Range", "SearchSpace", "ViTHyperModel", "ViTHyperband"]
