"""Which values of images with 16 bits per channel become black and white: chosen once, and kept by the run.

A camera of 12 bits fills a sixteenth of the range of its files, in poor light a hundredth. Scaled as the type
of the file says, as a viewer does, all its images are black.
"""

from collections.abc import Iterator, Sequence
from typing import Literal

import numpy as np

from keras_vit.data.image_set import Image, ImageSet, evenly
from keras_vit.data.preprocess import Range
from keras_vit.data.probe import UnreadableImage, bits_of_image, bytes_of, native_bytes
from keras_vit.data.split import Split
from keras_vit.errors import InputError

PixelRange = Literal["auto", "dtype"] | Range

PERCENTILES = (0.1, 99.9)
"""Of the values of the training images: a few hot or dead pixels do not decide."""

MEASURED_IMAGES = 500
MEASURED_VALUES = 10_000  # of each image


def choose_range(
    wanted: PixelRange, image_set: ImageSet, split: Split
) -> tuple[tuple[float, float] | None, str | None]:
    """The range of the values of some images, for `Preprocessing.pixel_range`.

    Args:
        wanted: `"auto"`: if all images have 16 bits per channel, the range that holds 99.8 % of the values of
            the training images; `"dtype"`: each image has the range of its type; or two values, lowest first.
        image_set: all images.
        split: which of them are for training.

    Returns:
        The range, `None` if each image has that of its type; and a line that says so, `None` if all images
        have 8 bits.

    Raises:
        InputError: some images have 8 bits and some 16, and the range is `"auto"`.
    """
    if not isinstance(wanted, str):
        low, high = wanted
        return (low, high), f"values from {low:g} to {high:g} become black to white, as --pixel-range says"
    bits = [bits_of_image(image) for image in image_set.images]
    counts = {number: bits.count(number) for number in (8, 16)}
    if not counts[16]:
        return None, None
    if wanted == "dtype":
        return None, f"{counts[16]:,} have 16 bits per channel, of which 0 to 65535 become black to white"
    if counts[8]:
        raise InputError(
            f"{image_set.source} holds {counts[16]:,} images with 16 bits per channel, the first "
            f"{image_set.names[bits.index(16)]}, and {counts[8]:,} with 8 bits, the first "
            f"{image_set.names[bits.index(8)]}: their values may not have one meaning. Give "
            "--pixel-range dtype to scale each as its type says, or convert the images."
        )
    low, high = measured_range([image_set.images[i] for i in split.train])
    share = PERCENTILES[1] - PERCENTILES[0]
    return (low, high), (
        f"16 bits per channel; the values from {low:g} to {high:g}, {share:.3g} % of those of the training "
        "images, become black to white; --pixel-range sets another range"
    )


def line_of_range(pixel_range: tuple[float, float] | None) -> str | None:
    """What is said of the range that a run was begun with; `None` if each image has that of its type."""
    if pixel_range is None:
        return None
    return (
        f"values from {pixel_range[0]:g} to {pixel_range[1]:g} become black to white, as when the run began"
    )


def measured_range(images: Sequence[Image]) -> tuple[float, float]:
    """The range of values that holds nearly all of those of images with 16 bits, two whole numbers.

    All channels share it, so that colours stay. Up to 500 images are read, evenly spaced.
    """
    chosen = [images[i] for i in evenly(len(images), MEASURED_IMAGES)]
    values = [found for found in _values(chosen) if found.size]
    if not values:
        return 0.0, 65535.0  # none can be read, which the audit says
    low, high = np.percentile(np.concatenate(values), PERCENTILES)
    low, high = float(np.floor(low)), float(np.ceil(high))
    return (low, high) if low < high else (low - (low > 0), low + (low == 0))


def _values(images: Sequence[Image]) -> Iterator[np.ndarray]:
    """Some values of each image that can be read, at random: uint16 (n,)."""
    import tensorflow as tf

    from keras_vit.data.decode import values_16_bits

    generator = np.random.default_rng(0)
    for image in images:
        if isinstance(image, np.ndarray):
            continue
        try:
            found = values_16_bits(tf.constant(native_bytes(bytes_of(image)))).numpy().reshape(-1)
        except (UnreadableImage, tf.errors.OpError):
            continue
        some = found.size > MEASURED_VALUES
        yield generator.choice(found, MEASURED_VALUES) if some else found
