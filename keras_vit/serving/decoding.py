"""Decoding that spoils no batch: bytes that are no image come out as one black pixel, marked.

TensorFlow's decoders fail the whole graph for one bad file, and a graph cannot catch an error. A tf.data
pipeline can: `ignore_errors` leaves out the element whose decoding failed, and another takes its place. All
in here is made of operations that any TensorFlow has.
"""

import tensorflow as tf

from keras_vit.data.declared_pixels import declared_pixels, result_or
from keras_vit.data.preprocess import decode_image

# One frame of 8K video. A file of a few kilobytes can claim to be larger, and take gigabytes to decode.
MAX_PIXELS = 2**25


def decode_or_blank(encoded):
    """The pixels of an image file, or one black pixel where there are none.

    Args:
        encoded: scalar string tensor, the bytes of a file.

    Returns:
        uint8 tensor (height, width, 1 to 4); and a bool scalar, whether the bytes are a JPEG, PNG, BMP, GIF
        or WebP file that can be decoded and has at most `MAX_PIXELS` pixels.
    """
    nothing = tf.zeros((0, 1, 1), tf.uint8)
    pixels = tf.cond(
        declared_pixels(encoded) <= MAX_PIXELS,
        lambda: result_or(decode_image, encoded, nothing),
        lambda: nothing,
    )
    decoded = tf.size(pixels) > 0
    return tf.cond(decoded, lambda: pixels, lambda: tf.zeros((1, 1, 1), tf.uint8)), decoded
