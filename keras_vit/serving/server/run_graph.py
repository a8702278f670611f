"""The signatures of a run on any backend: TensorFlow reads the images, the run's backend answers."""

from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf

from keras_vit.serving.graph import ServedGraph, only

SIZES = (1, 8, 32)
"""Batches that JAX and torch get: a batch is filled up to one of these, since JAX compiles for each size."""


class RunGraph(ServedGraph):
    """The methods of `ServedGraph`, called one operation after the other, around one compiled model.

    A bundle has a graph per signature, each with the model in it. To make these takes 20 s of CPU for
    `defect-conv/4`, and this 5 s.
    """

    def _called(self, answers: keras.Model) -> Callable:
        if keras.backend.backend() == "tensorflow":
            return _on_tensorflow(answers)

        def call(prepared: tf.Tensor, training: bool = False) -> dict[str, np.ndarray]:
            images = np.asarray(prepared)
            parts = [images[start : start + SIZES[-1]] for start in range(0, len(images), SIZES[-1])]
            found = [_filled_up(answers, part) for part in parts or [images]]
            return {name: np.concatenate([part[name] for part in found]) for name in found[0]}

        return call

    def _answer_by_size(self, answer, prepared, usable):
        return answer(prepared, usable)  # the sizes are told apart in the compiled model


def _on_tensorflow(answers: keras.Model) -> Callable:
    compiled = tf.function(
        lambda images: tf.cond(
            tf.equal(tf.shape(images)[0], 1),
            lambda: answers(only(images)[None], training=False),
            lambda: answers(images, training=False),
        ),
        input_signature=[tf.TensorSpec([None, *answers.input.shape[1:]], tf.float32)],
        autograph=False,
    ).get_concrete_function()

    def call(prepared: tf.Tensor, training: bool = False) -> dict[str, tf.Tensor]:
        # TensorFlow's fused convolutions fail on an empty batch.
        images = prepared if len(prepared) else tf.zeros([1, *prepared.shape[1:]])
        return compiled(images)

    return call


def _filled_up(answers: keras.Model, images: np.ndarray) -> dict[str, np.ndarray]:
    """The outputs for a batch, which the model gets at one of the `SIZES`."""
    size = next(size for size in SIZES if len(images) <= size)
    filled = np.concatenate([images, np.zeros((size - len(images), *images.shape[1:]), images.dtype)])
    found = answers.predict_on_batch(filled)
    return {name: np.asarray(values)[: len(images)] for name, values in found.items()}
