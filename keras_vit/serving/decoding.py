"""Decoding that never fails a batch: bytes that are not an image become one black pixel, with a mark.

TensorFlow's decoders fail the whole graph for one bad file, and a graph cannot catch an error. A tf.data
pipeline can: `ignore_errors` drops the element whose decoding failed, and another one takes its place. This
module uses only operations that every TensorFlow has.
"""

import tensorflow as tf

from keras_vit.data.declared_pixels import declared_pixels, result_or
from keras_vit.data.decode import DEFAULT, Decoding, decode_image

# One frame of 8K video. A file of a few kilobytes can declare more pixels, and need gigabytes to decode.
MAX_PIXELS = 2**25


def decode_or_blank(encoded: tf.Tensor, decoding: Decoding = DEFAULT) -> tuple[tf.Tensor, tf.Tensor]:
    """The pixels of an image file, or one black pixel if it cannot be decoded.

    Args:
        encoded: scalar string tensor, the bytes of a file.
        decoding: how they become pixels.

    Returns:
        float32 tensor (height, width, channels) in 0..255, as `decode_image` gives it; and a bool scalar,
        whether the bytes are a JPEG, PNG, BMP, GIF or WebP file that can be decoded and has at most
        `MAX_PIXELS` pixels.
    """
    nothing = tf.zeros((0, 1, 1))
    pixels = tf.cond(
        declared_pixels(encoded) <= MAX_PIXELS,
        lambda: result_or(lambda file: decode_image(file, decoding), encoded, nothing),
        lambda: nothing,
    )
    decoded = tf.size(pixels) > 0
    return tf.cond(decoded, lambda: pixels, lambda: tf.zeros((1, 1, 1))), decoded
