"""Corrupted copies of training images: made once, at the size that the images came in, and kept in memory."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_vit.data.augmentation import Augmentation
from keras_vit.data.corruptions import corrupted_copies, reduced
from keras_vit.data.image_set import ImageSet
from keras_vit.data.preprocess import Preprocessing, prepare_pixels
from keras_vit.data.probe import whole_pixels
from keras_vit.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf

MOST_BYTES = 2 * 2**30
"""Of all copies, prepared, as whole gray levels."""

IMAGES_AT_ONCE = 64
"""That are held in memory in their own size."""


def corrupted_pixels(
    images: ImageSet, preprocessing: Preprocessing, augmentation: Augmentation, seed: int
) -> np.ndarray:
    """Corrupted copies of images, prepared for the model.

    A corruption at the model's size would be another one: resizing 200 pixels to 28 averages noise out.

    Args:
        images: that can be read.
        preprocessing: of the model.
        augmentation: how many copies, and of which kinds.
        seed: of the draws.

    Returns:
        uint8 (copies * n, height, width, channels): the first copies of all images, then the second ones.

    Raises:
        InputError: they need more than `MOST_BYTES`.
    """
    copies = augmentation.corrupted_copies
    size = copies * len(images) * int(np.prod(preprocessing.image_shape))
    if size > MOST_BYTES:
        raise InputError(
            f"{copies} corrupted copies of {len(images):,} images take {size / 2**30:.1f} GiB, more than "
            f"{MOST_BYTES / 2**30:.0f}: lower --corrupted-copies, or --image-size."
        )
    found = np.zeros((copies, len(images), *preprocessing.image_shape), "uint8")
    for start in range(0, len(images), IMAGES_AT_ONCE):
        positions = range(start, min(start + IMAGES_AT_ONCE, len(images)))
        as_they_came = [reduced(whole_pixels(images.original(i), preprocessing.decoding)) for i in positions]
        made = corrupted_copies(as_they_came, copies, augmentation.corruptions, (seed, start))
        prepared = prepare_shown(made, preprocessing)
        found[:, start : start + len(positions)] = np.rint(prepared).reshape(
            copies, len(positions), *preprocessing.image_shape
        )
    return found.reshape(-1, *preprocessing.image_shape)


def prepare_shown(images: Sequence[np.ndarray], preprocessing: Preprocessing) -> np.ndarray:
    """What `whole_pixels` gives, prepared for a model.

    Args:
        images: uint8 (height, width, channels), of any sizes.
        preprocessing: of the model.

    Returns:
        float32 (n, height, width, channels) in 0..255.
    """
    import tensorflow as tf

    prepare = tf.function(
        lambda pixels: prepare_pixels(pixels, preprocessing),
        input_signature=[tf.TensorSpec([None, None, None], tf.uint8)],
    )
    with tf.device("CPU"):
        return np.stack([prepare(image).numpy() for image in images])


def copy_of_each(shape: Any, copies: int, seed: "tf.Tensor") -> "tf.Tensor":
    """Which copy is taken of the images of a shape: 0, the image itself, for half of them; or 1 to copies."""
    import tensorflow as tf

    drawn = tf.random.stateless_uniform(
        shape, tf.random.experimental.stateless_fold_in(seed, 0), -copies, copies, tf.int32
    )
    return tf.maximum(drawn + 1, 0)


def with_corrupted(read: Callable[..., Any], corrupted: np.ndarray, count: int) -> Callable[..., Any]:
    """A reader of indices (b,): those from `count` on are of the corrupted copies, see `ImageData`.

    Args:
        read: from a dataset of indices below `count` to one of images.
        corrupted: of `corrupted_pixels`.
        count: of the images without their copies.
    """
    import tensorflow as tf

    with tf.device("CPU"):
        copies = tf.convert_to_tensor(corrupted)

    def choose(images, indices):
        of_copies = tf.cast(tf.gather(copies, tf.maximum(indices - count, 0)), images.dtype)
        return tf.where((indices < count)[:, None, None, None], images, of_copies)

    def read_both(batches):
        images = read(batches.map(lambda indices: indices % count))
        return tf.data.Dataset.zip(images, batches).map(choose)

    return read_both
