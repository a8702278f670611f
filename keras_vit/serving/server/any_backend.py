"""The served graph of a run on JAX and torch: TensorFlow reads the images, the run's backend answers."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from keras_vit.serving.graph import ServedGraph

SIZES = (1, 8, 32)
"""Batches that the model gets: a batch is filled up to one of these, since JAX compiles for each size."""


class AnyBackendGraph(ServedGraph):
    """The methods of `ServedGraph`, called one operation after the other, with the model on any backend."""

    def _called(self, answers: keras.Model) -> Callable:
        def call(prepared: tf.Tensor, training: bool = False) -> dict[str, np.ndarray]:
            images = np.asarray(prepared)
            parts = [images[start : start + SIZES[-1]] for start in range(0, len(images), SIZES[-1])]
            found = [self._answer_part(answers, part) for part in parts or [images]]
            return {name: np.concatenate([part[name] for part in found]) for name in found[0]}

        return call

    @staticmethod
    def _answer_part(answers: keras.Model, images: np.ndarray) -> dict[str, np.ndarray]:
        size = next(size for size in SIZES if len(images) <= size)
        filled = np.concatenate([images, np.zeros((size - len(images), *images.shape[1:]), images.dtype)])
        found = answers.predict_on_batch(filled)
        return {name: np.asarray(values)[: len(images)] for name, values in found.items()}
