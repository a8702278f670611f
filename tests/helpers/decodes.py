"""Counts how often TensorFlow decodes each image file, in graphs too."""

from collections import Counter
from contextlib import contextmanager

import pytest

from keras_vit.data import probe


@contextmanager
def counted():
    """Encoded bytes -> how often they were decoded within the `with` block."""
    import tensorflow as tf

    counts, decode = Counter(), tf.io.decode_image

    def count(encoded):
        counts[bytes(encoded)] += 1
        return encoded

    def counting(encoded, **options):
        encoded = tf.numpy_function(count, [encoded], tf.string)
        encoded.set_shape(())
        return decode(encoded, **options)

    probe._decoder.cache_clear()  # its graph does not count
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tf.io, "decode_image", counting)
        yield counts
    probe._decoder.cache_clear()
