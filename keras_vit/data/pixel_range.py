"""Which values of images with more than 8 bits become black and white: chosen once, and kept by the run.

A camera of 12 bits fills a sixteenth of the range of its files, in poor light a hundredth. Scaled as the type
of the file says, as a viewer does, all its images are black.
"""

from collections import Counter
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Annotated, Literal

import numpy as np
from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from keras_vit.data.image_set import Image, ImageSet, evenly
from keras_vit.data.preprocess import Preprocessing, Range, check_range
from keras_vit.data.probe import stored_type_of, stored_values
from keras_vit.data.split import Split
from keras_vit.data.values import UnreadableImage, is_measured
from keras_vit.errors import InputError

if TYPE_CHECKING:
    from keras_vit.data.decode import Decoding


def _percent(text: str) -> str:
    try:
        is_right = text.endswith("%") and 0 <= float(text[:-1]) <= 100
    except ValueError:
        is_right = False
    if not is_right:
        raise PydanticCustomError(
            "told", "auto, dtype, values such as 100 4095, or percentiles such as 1% 99%"
        )
    return text


Percentiles = Annotated[
    tuple[Annotated[str, AfterValidator(_percent)], Annotated[str, AfterValidator(_percent)]],
    Field(strict=False),
]
"""Two percentiles of the values of the training images, such as `("1%", "99%")`."""

PixelRange = Literal["auto", "dtype"] | Range | Percentiles

PERCENTILES = (0.1, 99.9)
"""Of the values of the training images: a few hot or dead pixels do not decide."""

MEASURED_IMAGES = 500
MEASURED_VALUES = 10_000  # of each image
OUTSIDE = 0.99
"""The share of the values outside of a window from which on one line warns."""

WORDS = {
    "uint8": "8 bits per channel",
    "uint16": "16 bits per channel",
    "window": "a DICOM window of their own",
}

Chosen = tuple[float, ...] | None


def choose_range(
    wanted: PixelRange, image_set: ImageSet, split: Split, preprocessing: "Preprocessing | Decoding"
) -> tuple[Chosen, str | None]:
    """The range of the values of some images, for `Preprocessing.pixel_range`.

    Args:
        wanted: `"auto"`: if all images have more than 8 bits per channel, the range that holds 99.8 % of the
            values of the training images, for each channel of measurement its own; DICOM files with windows
            keep these; `"dtype"`: each image has the range of its type; or two values, lowest first, or two
            for each channel; or two percentiles of the values of the training images, such as
            `("1%", "99%")`.
        image_set: all images.
        split: which of them are for training.
        preprocessing: that the images are read with, or its decoding.

    Returns:
        The range, `None` if each image has that of its type; and a line that says so, `None` if all images
        have 8 bits.

    Raises:
        InputError: the images have values of different types, and nobody says what they mean; or a range is
            given, and all images have 8 bits.
    """
    decoding = preprocessing.decoding if isinstance(preprocessing, Preprocessing) else preprocessing
    found = [stored_type_of(image, decoding) for image in image_set.images]
    counts = Counter(kind for kind in found if kind is not None)
    train = [image_set.images[i] for i in split.train]
    if wanted not in ("auto", "dtype") and counts and counts.keys() <= {"uint8"}:
        raise InputError(
            f"All images in {image_set.source} have 8 bits per channel, so --window {_told(wanted)} has "
            "nothing to choose: leave it out."
        )
    if wanted == "dtype" or not counts.keys() - {"uint8"}:
        return None, _line_of_types(counts)
    if not isinstance(wanted, str) and not isinstance(wanted[0], str):
        chosen = tuple(float(value) for value in wanted)
        check_range(chosen, decoding.channels)
        return chosen, _line_of_window(chosen, train, decoding)
    if wanted == "auto" and counts.keys() <= {"uint8", "window"}:
        both = f"{counts['window']:,} of {counts.total():,} images" if counts["uint8"] else "the images"
        return None, (
            f"{both} are shown as their DICOM files say, by the window of each; --window LOW HIGH sets one "
            "for all, in the units of the files"
        )
    _check_one_type(counts, found, image_set)
    percentiles = PERCENTILES if wanted == "auto" else tuple(float(text[:-1]) for text in wanted)
    if percentiles[0] >= percentiles[1]:
        raise InputError(f"The lower percentile comes first. Received: --window {_told(wanted)}")
    chosen = measured_range(train, decoding, percentiles)
    share = f"{percentiles[1] - percentiles[0]:.3g} % of those of the training images"
    kind = next(iter(counts)) if len(counts) == 1 else "uint16"
    return chosen, (
        f"{WORDS.get(kind, kind)}; the values {_between(chosen)}, {share}, become black to white; --window "
        "(--pixel-range) sets another range"
    )


def _told(wanted: object) -> str:
    return " ".join(map(str, wanted)) if isinstance(wanted, tuple | list) else str(wanted)


def _between(chosen: tuple[float, ...]) -> str:
    """`"from 3 to 4095"`, or for several channels `"from 3 to 4095 in channel 1, ..."`."""
    pairs = list(zip(chosen[0::2], chosen[1::2], strict=True))
    if len(pairs) == 1:
        return f"from {pairs[0][0]:g} to {pairs[0][1]:g}"
    told = [f"{low:g} to {high:g} in channel {i}" for i, (low, high) in enumerate(pairs[:4], 1)]
    more = [f"and ranges of their own in {len(pairs) - 4} more"] if len(pairs) > 4 else []
    return f"from {', '.join(told + more)}"


def _line_of_types(counts: Counter) -> str | None:
    if counts["uint16"]:
        return f"{counts['uint16']:,} have 16 bits per channel, of which 0 to 65535 become black to white"
    return None


def _line_of_window(chosen: tuple[float, ...], train: Sequence[Image], decoding: "Decoding") -> str:
    line = f"values {_between(chosen)} become black to white, as --window (--pixel-range) says"
    found = [values for values in _values(_some(train), decoding) if values.size]
    if not found:
        return line
    values = np.concatenate(found)
    low, high = np.array(chosen[0::2]), np.array(chosen[1::2])
    share = float(((values <= low) | (values >= high)).mean())
    if share < OUTSIDE:
        return line
    smallest, largest = values.min(), values.max()
    return (
        f"{line}; warning: {share:.1%} of the values of the training images lie outside, so that images are "
        f"nearly one level of gray: they go from {smallest:g} to {largest:g}"
    )


def _check_one_type(counts: Counter, found: list[str | None], image_set: ImageSet) -> None:
    """Raises an `InputError` if images have values of several types, which may not mean the same."""
    kinds = {"uint16" if kind == "window" else kind for kind in counts}
    if len(kinds) == 1:
        return
    told = [
        f"{counts[kind]:,} with {WORDS.get(kind, kind + ' values')}, the first "
        f"{image_set.names[found.index(kind)]}"
        for kind in sorted(counts)
    ]
    fix = "Give --pixel-range dtype (--window dtype) to scale each as its type says, or convert the images."
    if kinds - {"uint8", "uint16"}:
        fix = "Convert them to one type, or give --window LOW HIGH if the values mean the same."
    raise InputError(
        f"{image_set.source} holds images of several types: {'; '.join(told)}. Their values may not have one "
        f"meaning. {fix}"
    )


def line_of_range(pixel_range: Chosen) -> str | None:
    """What is said of the range that a run was begun with; `None` if each image has that of its type."""
    if pixel_range is None:
        return None
    return f"values {_between(pixel_range)} become black to white, as when the run began"


def measured_range(
    images: Sequence[Image], decoding: "Decoding", percentiles: tuple[float, ...] = PERCENTILES
) -> tuple[float, ...]:
    """The range of values that holds nearly all of those of images with more than 8 bits.

    Gray and colours share one, so that colours stay; each channel of measurement has its own. The ends are
    whole numbers where the values are. Up to 500 images are read, evenly spaced.

    Args:
        images: of which the values are read.
        decoding: how.
        percentiles: of the values, the lower one first.
    """
    found = [values for values in _values(_some(images), decoding) if values.size]
    if not found:  # none can be read, which the audit says
        return 0.0, 65535.0
    values = np.concatenate(found)
    chosen: list[float] = []
    for column in values.T:
        low, high = (float(end) for end in np.percentile(column, percentiles))
        if values.dtype.kind in "iu" or (column == np.rint(column)).all():
            low, high = float(np.floor(low)), float(np.ceil(high))
        step = 1.0 if low == np.rint(low) else abs(low) * 1e-6
        chosen += (low, high) if low < high else (low - step * (low > 0), low + step * (low <= 0))
    return tuple(chosen)


def _some(images: Sequence[Image]) -> list[Image]:
    return [images[i] for i in evenly(len(images), MEASURED_IMAGES)]


def _values(images: Sequence[Image], decoding: "Decoding") -> Iterator[np.ndarray]:
    """Some values of each image that can be read, at random: (n, 1), or (n, channels) of measurement."""
    from keras_vit.data.probe import quiet_headers

    generator = np.random.default_rng(0)
    with quiet_headers():
        for image in images:
            try:
                found = stored_values(image, decoding)
            except UnreadableImage:
                continue
            if found is None:
                continue
            columns = found.shape[-1] if is_measured(decoding.channels) else 1
            rows = found.reshape(-1, columns)
            if is_measured(decoding.channels) and columns != decoding.channels:
                continue
            if len(rows) > MEASURED_VALUES:
                rows = rows[generator.choice(len(rows), MEASURED_VALUES)]
            yield rows
