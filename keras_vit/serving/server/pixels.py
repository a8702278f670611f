"""How many pixels an image file declares: known before it is decoded."""

from functools import cache
from typing import Any

import tensorflow as tf

from keras_vit.data.declared_pixels import declared_pixels


@cache
def _declared() -> Any:
    # As a graph: its loop over a GIF takes a step for each 255 bytes.
    return tf.function(declared_pixels, input_signature=[tf.TensorSpec([], tf.string)])


def pixels_of(file: bytes) -> float:
    """Height times width by the header of a file, of a GIF of all frames; 0 if there is no such header."""
    try:
        with tf.device("/CPU:0"):
            return float(_declared()(tf.constant(file)))
    except (tf.errors.OpError, ValueError):  # the header is damaged: the graph does not decode it
        return 0.0
