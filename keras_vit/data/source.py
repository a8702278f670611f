"""Images of any kind as one tensor, and the function that prepares one element of it for tf.data."""

import os
from collections.abc import Callable, Sequence
from functools import cache
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_vit.data.image_set import Image
from keras_vit.data.preprocess import Preprocessing, prepare_file, prepare_pixels
from keras_vit.data.probe import native_or_pixels
from keras_vit.data.values import is_measured

if TYPE_CHECKING:
    import tensorflow as tf


def make_source(
    images: Sequence[Image], preprocessing: Preprocessing
) -> "tuple[tf.Tensor, Callable[[tf.Tensor], tf.Tensor]]":
    """Images as one tensor, and the function that prepares one element of it: float32 in 0..255."""
    import tensorflow as tf

    from keras_vit.data.decode import are_plain, decode_plain

    def unchanged(pixels):
        return pixels

    def from_pixels(pixels):
        return prepare_pixels(pixels, preprocessing)

    @tf.function(input_signature=[tf.TensorSpec([], tf.string)], autograph=False)
    def prepare_native(encoded):
        return prepare_file(encoded, preprocessing)

    def prepare_any(encoded):
        found = native_or_pixels(encoded, preprocessing.decoding)
        with tf.device("CPU"):
            if isinstance(found, bytes):
                return prepare_native(tf.constant(found)).numpy()
            return preparer(preprocessing, found.dtype)(tf.constant(found)).numpy()

    def from_any_bytes(encoded):
        prepared = tf.numpy_function(prepare_any, [encoded], tf.float32, stateful=False)
        return tf.ensure_shape(prepared, preprocessing.image_shape)

    def from_bytes(encoded):
        # Most files are plain. For the others the decoding has some thousand operations, and even to skip
        # them takes longer than decoding a small image: 2.4 ms of CPU in all, and 0.8 with them outside of
        # this graph.
        if preprocessing.pixel_range is not None or is_measured(preprocessing.image_shape[2]):
            return from_any_bytes(encoded)
        return tf.cond(
            are_plain(encoded[None])[0],
            lambda: prepare_pixels(
                tf.cast(decode_plain(encoded, preprocessing.decoding), tf.float32), preprocessing
            ),
            lambda: from_any_bytes(encoded),
        )

    def from_path(path):
        return from_bytes(tf.io.read_file(path))

    prepared = is_prepared(images[0], preprocessing)
    with tf.device("CPU"):
        if isinstance(images[0], np.ndarray):
            stacked = np.stack(list(images))  # type: ignore[arg-type]
            # Not tf.constant, which would copy them once more.
            return tf.convert_to_tensor(stacked), unchanged if prepared else from_pixels
        if isinstance(images[0], bytes):
            return tf.constant(list(images)), from_bytes
        # The bytes of the names: not all of them are UTF-8.
        return tf.constant([os.fsencode(str(path)) for path in images]), from_path


def is_prepared(image: Image, preprocessing: Preprocessing) -> bool:
    """Whether an image is what `read_pixels` returns: preparing it once more would not change it."""
    return (
        isinstance(image, np.ndarray)
        and image.dtype == np.float32
        and image.shape == preprocessing.image_shape
    )


@cache
def preparer(preprocessing: Preprocessing, dtype: np.dtype) -> Any:
    """`prepare_pixels` as a graph, for images of any size: traced once."""
    import tensorflow as tf

    return tf.function(
        lambda pixels: prepare_pixels(pixels, preprocessing),
        input_signature=[tf.TensorSpec([None, None, None], tf.as_dtype(dtype))],
        autograph=False,
    ).get_concrete_function()
