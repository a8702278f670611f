"""The features that published weights give images: computed once, and kept in the user's cache."""

import dataclasses
import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from keras_vit.cache import RowCache, hash_of, image_hashes
from keras_vit.data.image_set import Image
from keras_vit.data.pipeline import pixel_dataset, without_autotuning
from keras_vit.data.preprocess import Preprocessing, scale_pixels
from keras_vit.errors import InputError
from keras_vit.runs.ood_features import ood_features
from keras_vit.text import say
from keras_vit.validation import to_plain

if TYPE_CHECKING:
    import keras

    from keras_vit.model.vit import ViT

VERSION = "2"
"""Changes where the same weights and images give other features than before."""

BATCH_SIZE = 64
HEAD_FIELDS = ("num_classes", "dropout_rate", "attention_dropout_rate", "drop_path_rate", "remat")
"""Arguments of a ViT that its features do not depend on."""


@dataclass
class FeatureReader:
    """Gives the features of images, from the cache where it has them.

    The features are those of `ood_features`, whose last columns are the input of the layers that classify.

    Args:
        model: a `ViT` with the weights.
        preprocessing: of the images.
        weights_hash: of the weights' files; `None` keeps nothing in the cache.

    Attributes:
        computed: how many images went through the model so far.
        found: how many were in the cache.
    """

    model: "ViT"
    preprocessing: Preprocessing
    weights_hash: str | None

    def __post_init__(self):
        self.computed = self.found = 0
        self._cache = RowCache(self._key()) if self.weights_hash else None
        self._known: dict[str, np.ndarray] = self._cache.read() if self._cache else {}
        self._extract: keras.Model | None = None

    def __call__(self, images: Sequence[Image], sources: Sequence[Image] | None = None) -> np.ndarray:
        """The features of images that can be read: float32 (n, features).

        Args:
            images: prepared for the model, or as they came.
            sources: the same as they came, whose content names the features in the cache; `None` if `images`
                are these.
        """
        hashes = image_hashes(images if sources is None else sources)
        missing = {key: i for i, key in enumerate(hashes) if key not in self._known}
        if missing:
            rows = self._compute([images[i] for i in missing.values()])
            made = dict(zip(missing, rows, strict=True))
            self._known |= made
            if self._cache:
                try:
                    self._cache.add(made)
                except (OSError, InputError) as error:
                    say(f"The features are not kept in the cache: {error}")
                    self._cache = None
        self.computed += len(missing)
        self.found += len(hashes) - len(missing)
        if not hashes:
            return np.zeros((0, 0), "float32")
        return np.stack([self._known[key] for key in hashes])

    def of_head(self, features: np.ndarray) -> np.ndarray:
        """What the head sees of features: float32 (n, width). A hidden layer before it is computed here."""
        import keras

        config = self.model.config
        inputs = features[:, -config.feature_width :]
        if not config.head_hidden_dim:
            return inputs
        hidden = self.model.get_layer("head_hidden")(inputs)
        hidden = self.model.get_layer(f"head_{config.head_activation}")(hidden)
        return keras.ops.convert_to_numpy(keras.ops.cast(hidden, "float32"))

    def _compute(self, images: Sequence[Image]) -> np.ndarray:
        import keras

        if self._extract is None:
            self._extract = ood_features(self.model)
            if keras.backend.backend() == "tensorflow":
                self._extract.compile(jit_compile=True)  # without XLA, TensorFlow is slower on CPUs
        # Full batches only: each size is compiled once.
        extra = -len(images) % min(BATCH_SIZE, len(images))
        filled = [*images, *([images[-1]] * extra)]
        pixels = pixel_dataset(filled, self.preprocessing)
        batches = pixels.map(lambda x: scale_pixels(x, self.preprocessing)).batch(
            min(BATCH_SIZE, len(images)), drop_remainder=True
        )
        found = self._extract.predict(without_autotuning(batches.prefetch(2)), verbose=0)
        return np.asarray(found, "float32")[: len(images)]

    def _key(self) -> str:
        config = {
            name: value
            for name, value in dataclasses.asdict(self.model.config).items()
            if name not in HEAD_FIELDS
        }
        settings = [config, to_plain(self.preprocessing), self.model.get_config()["dtype"]]
        return hash_of(VERSION, str(self.weights_hash), json.dumps(settings, sort_keys=True))
