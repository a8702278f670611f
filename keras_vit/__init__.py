"""Vision Transformers in Keras 3 for people with a few thousand images of their own."""

import sys
from typing import TYPE_CHECKING

from keras_vit.allocator import keep_freed_memory
from keras_vit.lazy import lazy_names
from keras_vit.process.backend import backend
from keras_vit.version import __version__

# Here, because Keras on JAX imports pyarrow, which starts a thread that uses malloc.
keep_freed_memory(backend())

# Each public name and where it lives. They are imported when first used: `keras-vit --help` answers
# without Keras, and TensorFlow stays out until images are read.
_HOMES = {
    "AddCLS": "model.layers",
    "AttentionPool": "model.layers",
    "EncoderBlock": "model.layers",
    "LayerScale": "model.layers",
    "MLP": "model.layers",
    "MeanPool": "model.layers",
    "PatchEmbed": "model.layers",
    "PositionEmbedding": "model.layers",
    "SelfAttention": "model.layers",
    "TokenPool": "model.layers",
    "ViT": "model.vit",
    "distribute": "distribution",
    "summary": "model.summary",
    "InputError": "errors",
    "ImageSet": "data.image_set",
    "Preprocessing": "data.preprocess",
    "ImageData": "data.pipeline",
    "load_data": "data.pipeline",
    "draw_steel_defects": "data.sources.steel",
    "load_image_set": "data.sources",
    "Augmentation": "data.augmentation",
    "Recipe": "training.recipe",
    "RECIPES": "training.recipe",
    "TrainConfig": "training.config",
    "train": "training.train",
    "Run": "runs.folder",
    "evaluate": "runs.evaluate",
    "predict": "runs.predict",
    "predict_stream": "runs.stream",
    "compare_runs": "runs.compare",
    "load_run": "runs.folder",
    "Ensemble": "runs.ensemble",
    "load_ensemble": "runs.ensemble",
    "export": "serving.bundle",
}

__all__ = sorted([*_HOMES, "__version__"])


__getattr__, __dir__ = lazy_names(__name__, _HOMES)


if TYPE_CHECKING:  # for editors and type checkers, which do not run the table
    from keras_vit.data.augmentation import Augmentation
    from keras_vit.data.image_set import ImageSet
    from keras_vit.data.pipeline import ImageData, load_data
    from keras_vit.data.preprocess import Preprocessing
    from keras_vit.data.sources import load_image_set
    from keras_vit.data.sources.steel import draw_steel_defects
    from keras_vit.distribution import distribute
    from keras_vit.errors import InputError
    from keras_vit.model.layers import (
        MLP,
        AddCLS,
        AttentionPool,
        EncoderBlock,
        LayerScale,
        MeanPool,
        PatchEmbed,
        PositionEmbedding,
        SelfAttention,
        TokenPool,
    )
    from keras_vit.model.summary import summary
    from keras_vit.model.vit import ViT
    from keras_vit.runs.compare import compare_runs
    from keras_vit.runs.ensemble import Ensemble, load_ensemble
    from keras_vit.runs.evaluate import evaluate
    from keras_vit.runs.folder import Run, load_run
    from keras_vit.runs.predict import predict
    from keras_vit.runs.stream import predict_stream
    from keras_vit.serving.bundle import export
    from keras_vit.training.config import TrainConfig
    from keras_vit.training.recipe import RECIPES, Recipe
    from keras_vit.training.train import train


if "keras" in sys.modules:
    # `import keras, keras_vit` is enough for `keras.saving.load_model`, which knows only what is registered.
    import keras_vit.model.vit
