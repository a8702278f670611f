"""Augmentation of batches inside tf.data, made of keras.layers.

Keras's layers keep their random state in a variable, from which a parallel or resumed pipeline would draw in
another order. Here every batch draws from its own seed, a function of the run's seed, the epoch and the step:
a resumed run sees exactly the images that an uninterrupted one sees.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import keras

from keras_vit.data.augmentation import Augmentation
from keras_vit.errors import InputError

if TYPE_CHECKING:
    import tensorflow as tf


class BatchSeed(keras.random.SeedGenerator):
    """The random seeds of one batch, without a state that is kept after it."""

    def __init__(self, seed: "tf.Tensor"):
        # Without the parent's __init__: its state would be a variable of the training backend.
        self.seed, self.drawn = seed, 0

    def next(self, ordered: bool = True) -> "tf.Tensor":
        import tensorflow as tf

        self.drawn += 1
        return tf.random.experimental.stateless_fold_in(self.seed, self.drawn)


def make_augment(augmentation: Augmentation, image_shape: tuple[int, int, int]) -> Callable[..., Any]:
    """The function that augments a batch.

    Args:
        augmentation: an `Augmentation`.
        image_shape: (height, width, channels).

    Returns:
        A function for tf.data of images, float32 (batch, height, width, channels) in 0..255, one-hot labels
        (batch, classes) and an int32 seed (2,), that returns images and labels. The result depends only on
        its arguments.

    Raises:
        InputError: the augmentation transposes, but the images are not square.
    """
    height, width, channels = image_shape
    if augmentation.transpose and height != width:
        raise InputError(
            f"transpose needs square images, these are {height}x{width}: use --no-transpose, or one side "
            "length."
        )
    steps = _image_layers(augmentation)
    mixes = _mix_layers(augmentation)
    left_out = augmentation.left_out(channels) is not None
    rand_augment = (
        _rand_augment(augmentation.rand_augment) if augmentation.rand_augment and not left_out else None
    )

    def augment(images, labels, seed):
        import tensorflow as tf

        seeds = BatchSeed(seed)
        if augmentation.transpose:
            images = _transpose_half(images, seeds.next())
        for layer in steps:
            images = _with_seed(layer, seeds)(images)
        if rand_augment:
            images = _each_separately(rand_augment, images, seeds.next())
        images = tf.clip_by_value(images, 0.0, 255.0)
        if len(mixes) == 2:
            first = tf.random.stateless_uniform((), seeds.next()) < 0.5
            inner = BatchSeed(seeds.next())
            images, labels = tf.cond(
                first,
                lambda: _mix(mixes[0], images, labels, inner),
                lambda: _mix(mixes[1], images, labels, inner),
            )
        elif mixes:
            images, labels = _mix(mixes[0], images, labels, seeds)
        return tf.ensure_shape(images, (None, height, width, channels)), labels

    return augment


def _image_layers(augmentation):
    # Some layers get a pair, because Keras takes a single number x for the range 0 to x.
    layers = []
    # Two layers, because Keras's "horizontal_and_vertical" draws once for both: it only rotates by 180
    # degrees.
    if augmentation.flip in ("horizontal", "both"):
        layers.append(keras.layers.RandomFlip("horizontal"))
    if augmentation.flip in ("vertical", "both"):
        layers.append(keras.layers.RandomFlip("vertical"))
    if augmentation.crop:
        # Whole pixels: interpolation would blur what distinguishes textures.
        layers.append(
            keras.layers.RandomTranslation(
                augmentation.crop, augmentation.crop, fill_mode="reflect", interpolation="nearest"
            )
        )
    if augmentation.brightness:
        layers.append(keras.layers.RandomBrightness(augmentation.brightness))
    if augmentation.contrast:
        layers.append(keras.layers.RandomContrast((augmentation.contrast, augmentation.contrast)))
    if augmentation.erasing:
        smallest = min(0.02, augmentation.erasing)
        layers.append(keras.layers.RandomErasing(factor=(0.5, 0.5), scale=(smallest, augmentation.erasing)))
    return layers


def _mix_layers(augmentation):
    layers = []
    if augmentation.mixup:
        layers.append(keras.layers.MixUp(alpha=augmentation.mixup))
    if augmentation.cutmix:
        layers.append(keras.layers.CutMix(factor=(augmentation.cutmix, augmentation.cutmix)))
    return layers


def _mix(layer, images, labels, seeds):
    mixed = _with_seed(layer, seeds)({"images": images, "labels": labels})
    return mixed["images"], mixed["labels"]


def _with_seed(layer, seeds):
    # Keras's own hook for data layers with randomness.
    layer._get_seed_generator = lambda backend=None: seeds
    return layer


def _transpose_half(images, seed):
    import tensorflow as tf

    chosen = tf.random.stateless_uniform((tf.shape(images)[0], 1, 1, 1), seed) < 0.5
    return tf.where(chosen, tf.transpose(images, (0, 2, 1, 3)), images)


def _rand_augment(magnitude):
    layer = keras.layers.RandAugment(num_ops=2, factor=magnitude)
    # Keras's own keeps at most int(8 * magnitude) bits: a low magnitude would leave a gray image blank. The
    # range of the paper is 8 bits down to 4.
    bits = 8 - round(4 * magnitude)
    layer.random_posterization = keras.layers.RandomPosterization(factor=(bits, bits))
    return layer


def _each_separately(layer, images, seed):
    """Applies a layer that draws once per call, as RandAugment does, with a separate draw per image."""
    import tensorflow as tf

    def one(item):
        image, number = item
        return _with_seed(layer, BatchSeed(tf.random.experimental.stateless_fold_in(seed, number)))(image)

    # Its colour operations need three channels.
    channels = images.shape[-1]
    colored = images if channels == 3 else tf.repeat(images, 3, axis=-1)
    numbers = tf.range(tf.shape(images)[0])
    colored = tf.map_fn(one, (colored, numbers), fn_output_signature=tf.float32)
    return colored if channels == 3 else tf.reduce_mean(colored, axis=-1, keepdims=True)
