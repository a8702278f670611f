"""The decoding of the served graph for one file, in its own size."""

import tensorflow as tf

from keras_vit.data.decode import DEFAULT
from keras_vit.serving.decoding import decode_checked


def decode_or_blank(encoded, decoding=DEFAULT):
    """The pixels, float32 (height, width, channels), or one black pixel; and whether the file is decoded."""
    results = tf.data.Dataset.from_tensors(encoded).map(lambda file: decode_checked(file, decoding))
    blank = tf.data.Dataset.from_tensors(tf.zeros((0, 1, 1)))
    pixels = results.ignore_errors().concatenate(blank).take(1).get_single_element()
    decoded = tf.size(pixels) > 0
    return tf.cond(decoded, lambda: pixels, lambda: tf.zeros((1, 1, 1))), decoded
