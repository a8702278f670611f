"""THE preprocessing: one TensorFlow function for training, prediction and the served graph, on every backend.

An image is decoded to the pixels that a viewer shows (`decode`), converted to gray or RGB and resized, and
its pixels are scaled. The steps are separate functions because augmentation comes between the resize and the
scaling. `preprocess` is all of them.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Annotated, Any, Literal

import numpy as np
from pydantic import Field

from keras_vit.data.values import COLORS, MOST_CHANNELS, is_measured
from keras_vit.errors import InputError
from keras_vit.validation import Count, Shape, from_plain, validated

if TYPE_CHECKING:
    import tensorflow as tf

    from keras_vit.data.decode import Decoding

Aspect = Literal["stretch", "crop", "pad"]
Interpolation = Literal["bilinear", "bicubic"]

Means = Annotated[tuple[Annotated[float, Field(ge=0.0, le=1.0)], ...], Field(strict=False)]
Deviations = Annotated[tuple[Annotated[float, Field(gt=0.0, le=1.0)], ...], Field(strict=False)]
"""One number for each channel, or one for all, of pixels in 0..1; a list is accepted too."""

Levels = Annotated[tuple[Annotated[int, Field(ge=0, le=255)], ...], Field(strict=False)]
"""A gray level, or red, green and blue; a list is accepted too."""

Range = Annotated[tuple[float, ...], Field(strict=False)]
"""The lowest and the highest value in the units of the files; a list is accepted too."""

TiffPages = Count | Literal["channels"]
"""Which page of a TIFF is read, from 1, or that its pages are channels."""

ShownChannels = Annotated[tuple[Count, ...], Field(strict=False)]
"""One or three channels, from 1; a list is accepted too."""

BEFORE: dict[str, Any] = {
    "background": None,
    "pixel_range": None,
    "exif_orientation": False,
    "tiff_page": 1,
    "inverts_values": True,
}
"""What earlier runs did, whose records do not say it: alpha was dropped, nothing was turned, of several pages
the first was read, and 16 bits of which 0 is white were inverted before their range."""

LOWEST, HIGHEST = -0.5, 255.5
"""The pixels that a model takes: what rounds to 0..255. Others are on another scale, or damaged."""

HALF = (0.5,)
"""The mean and the standard deviation that scale pixels to [-1, 1]."""

# ITU-R BT.601, what PIL's convert("L") and tf.image.rgb_to_grayscale use.
LUMA = (0.299, 0.587, 0.114)


@validated
class Preprocessing:
    """How an image of any size becomes an array of one size.

    Args:
        image_shape: (height, width, channels) of the model's input; 1 channel is gray, 3 is RGB, and other
            numbers, up to 32, are channels of measurement, without colour and alpha.
        aspect: what happens to an image of another aspect ratio. `"stretch"` resizes both sides
            independently; `"crop"` keeps the ratio and cuts the longer side at the centre; `"pad"` keeps the
            ratio and fills the shorter side with zeros.
        mean: subtracted from the pixels, which are first divided by 255: one number in 0..1 for each channel,
            or one for all. `None` means 0.5.
        std: the pixels are then divided by it: numbers above 0 and at most 1, as many as of `mean` or one.
            `None` means 0.5. With both at `None`, pixels are scaled to [-1, 1].
        interpolation: of the resize. `"bilinear"` is antialiased and keeps fractions of gray levels;
            `"bicubic"` is that of Pillow, which most published weights were trained with.
        background: what is seen where an image is transparent: a gray level, or red, green and blue, 0 to
            255. `None` drops alpha, as in earlier runs.
        pixel_range: the values of images with more than 8 bits per channel that become black and white, in
            the units of the files: two numbers, or two for each channel of measurement. Images with 8 bits
            are refused then, because their values mean something else. `None`: each image has the range of
            its type, 0 to 65535 or 0 to 255, or the window that its DICOM file names.
        exif_orientation: whether an image is turned as its Exif data say. `False` is what earlier runs
            did.
        tiff_page: which page of a TIFF is read, from 1; `"channels"` reads the pages as channels; `None`
            refuses files with several.
        inverts_values: whether 16 bits of which 0 is white are inverted before the range, as earlier runs
            did.
        shown_channels: of channels of measurement, the one or three that people see as gray or as red, green
            and blue; `None` for the first three.

    Raises:
        InputError: there are too many channels, `mean` or `std` do not fit them, or a range is empty.
    """

    image_shape: Shape
    aspect: Aspect = "stretch"
    mean: Means | None = None
    std: Deviations | None = None
    interpolation: Interpolation = "bilinear"
    background: Levels | None = (255,)
    pixel_range: Range | None = None
    exif_orientation: bool = True
    tiff_page: TiffPages | None = None
    inverts_values: bool = False
    shown_channels: ShownChannels | None = None

    def __post_init__(self) -> None:
        channels = self.image_shape[2]
        if channels > MOST_CHANNELS:
            raise InputError(
                f"Images are read as 1 channel (gray), 3 (RGB), or up to {MOST_CHANNELS} of measurement. "
                f"Received: image_shape={self.image_shape}"
            )
        for name, numbers in (("mean", self.mean), ("std", self.std)):
            if numbers is not None and len(numbers) not in (1, channels):
                wanted = f"{channels} numbers, one for each channel, or one" if channels > 1 else "one number"
                raise InputError(f"{name} must be {wanted}. Received: {name}={numbers}")
        if self.background is not None and len(self.background) not in (1, 3):
            raise InputError(
                "background must be one gray level, or red, green and blue. "
                f"Received: background={self.background}"
            )
        if self.pixel_range is not None:
            check_range(self.pixel_range, channels)
        shown = self.shown_channels
        if shown is not None and (len(shown) not in (1, 3) or max(shown) > channels or channels in COLORS):
            raise InputError(
                f"show_channels must be one or three of the channels 1 to {channels} of measurement. "
                f"Received: show_channels={shown}"
                if channels not in COLORS
                else "show_channels is for channels of measurement, and these images have "
                f"{channels}: leave it out, or give --channels too."
            )

    @property
    def decoding(self) -> "Decoding":
        """How the bytes of a file become pixels."""
        from keras_vit.data.decode import Decoding

        return Decoding(
            self.background,
            self.pixel_range,
            self.exif_orientation,
            self.image_shape[2],
            self.tiff_page,
            self.inverts_values,
            self.shown_channels,
        )

    def numbers(self) -> dict[str, list[float]]:
        """`mean` and `std` with one number for each channel, also where they are `None`, ready for JSON."""
        channels = self.image_shape[2]
        given = {"mean": self.mean or HALF, "std": self.std or HALF}
        return {
            name: list(values * channels if len(values) == 1 else values) for name, values in given.items()
        }


def check_range(pixel_range: tuple[float, ...], channels: int | None = None) -> None:
    """Raises an `InputError` if a range is empty, or not of these channels."""
    pairs = list(zip(pixel_range[0::2], pixel_range[1::2], strict=False))
    for_each = channels is None or (is_measured(channels) and len(pairs) == channels)
    if len(pixel_range) % 2 or not pairs or not (len(pairs) == 1 or for_each):
        raise InputError(
            "pixel_range (--window) must be two values, or two for each channel of measurement. "
            f"Received: pixel_range={pixel_range}"
        )
    if any(low >= high for low, high in pairs):
        raise InputError(
            f"pixel_range (--window) must have the lower value first. Received: pixel_range={pixel_range}"
        )


def recorded(plain: Any) -> Preprocessing:
    """The preprocessing that a run has recorded, of this version or an earlier one.

    A run keeps what it was trained with: see `BEFORE`.

    Raises:
        InputError: the record is damaged.
    """
    return from_plain(Preprocessing, {**BEFORE, **plain} if isinstance(plain, Mapping) else plain)


def to_channels(pixels: "tf.Tensor", channels: int) -> "tf.Tensor":
    """Converts pixels with 1, 2, 3 or 4 channels to gray or RGB, where alpha is dropped.

    Channels of measurement are not converted: pixels must have as many.

    Pixels have no alpha any more when they come here, unless the run drops it: see `decode.on_background`.

    The number of channels may be unknown until the graph runs: one graph takes gray and colour files.

    Args:
        pixels: tensor (height, width, 1 | 2 | 3 | 4), any number type.
        channels: of the run.

    Returns:
        float32 tensor (height, width, channels) with the same range.
    """
    import tensorflow as tf

    found = tf.shape(pixels)[-1]
    if is_measured(channels):
        as_many = tf.debugging.assert_equal(found, channels, f"images must have {channels} channels")
        with tf.control_dependencies([as_many] if as_many is not None else []):
            return tf.cast(pixels, tf.float32)
    if channels == 1:
        return tf.cond(found < 3, lambda: tf.cast(pixels[..., :1], tf.float32), lambda: luma(pixels))
    colors = tf.cast(pixels[..., : tf.where(found < 3, 1, 3)], tf.float32)  # two are gray with alpha
    return tf.broadcast_to(colors, tf.concat([tf.shape(colors)[:-1], [3]], axis=0))


def luma(pixels: "tf.Tensor") -> "tf.Tensor":
    """The gray level of colours: (..., 3 or more) to float32 (..., 1)."""
    import tensorflow as tf

    weighted = tf.cast(pixels[..., :3], tf.float32) * tf.constant(LUMA)
    # Adding three slices is faster than TensorFlow's sum over an axis of three.
    return weighted[..., :1] + weighted[..., 1:2] + weighted[..., 2:]


def resize_image(pixels: "tf.Tensor", preprocessing: Preprocessing) -> "tf.Tensor":
    """Resizes pixels to the size of the model's input, antialiased, still in 0..255.

    Args:
        pixels: float32 tensor (height, width, channels).
        preprocessing: a `Preprocessing`.

    Returns:
        float32 tensor `preprocessing.image_shape`.
    """
    import tensorflow as tf

    height, width, channels = preprocessing.image_shape
    if preprocessing.aspect == "pad":
        resized = resize_with_border(pixels, height, width, preprocessing.interpolation)
    else:
        if preprocessing.aspect == "crop":
            pixels = central_window(pixels, height, width)
        resized = resize_to(pixels, (height, width), preprocessing.interpolation)
    return tf.ensure_shape(resized, (height, width, channels))


def resize_to(pixels: "tf.Tensor", size: Any, interpolation: Interpolation) -> "tf.Tensor":
    """Resizes pixels to a size (height, width), a tuple or a tensor, whatever their ratio.

    `"bicubic"` is Pillow's: first all rows, then all columns, each rounded to whole numbers in 0..255. In one
    pass without rounding, tf.image.resize differs from Pillow by up to 8 gray levels at edges, where the
    cubic overshoots. In two passes, on photographs and on X-SDD, at least 995 of 1000 values were the same
    and the others differed by 1, rarely by 2.
    """
    import tensorflow as tf

    if interpolation == "bilinear":
        return tf.image.resize(pixels, size, antialias=True)
    for sides in ((tf.shape(pixels)[0], size[1]), (size[0], size[1])):
        pixels = cubic_pass(pixels, tf.stack(sides))
    return pixels


def cubic_pass(pixels: "tf.Tensor", size: "tf.Tensor") -> "tf.Tensor":
    """One pass of `resize_to`; pixels that have the size already are not even rounded, as in Pillow."""
    import tensorflow as tf

    def resized():
        exact = tf.image.resize(pixels, size, "bicubic", antialias=True)
        return tf.clip_by_value(tf.floor(exact + 0.5), 0.0, 255.0)

    return tf.cond(tf.reduce_all(tf.equal(tf.shape(pixels)[:2], size)), lambda: pixels, resized)


def central_window(pixels: "tf.Tensor", height: int, width: int) -> "tf.Tensor":
    """The largest window at the centre of `pixels` with the ratio height : width."""
    import tensorflow as tf

    found = tf.cast(tf.shape(pixels)[:2], tf.float32)
    side = tf.minimum(found[0] / height, found[1] / width)
    window = tf.maximum(1, tf.cast(tf.round([side * height, side * width]), tf.int32))
    start = (tf.shape(pixels)[:2] - window) // 2
    return tf.image.crop_to_bounding_box(pixels, start[0], start[1], window[0], window[1])


def resize_with_border(
    pixels: "tf.Tensor", height: int, width: int, interpolation: Interpolation
) -> "tf.Tensor":
    """Resizes `pixels` in their own ratio, as large as height x width allows, with zeros around them.

    tf.image.resize_with_pad fails if the shorter side would be less than one pixel.
    """
    import tensorflow as tf

    found = tf.cast(tf.shape(pixels)[:2], tf.float32)
    scale = tf.minimum(height / found[0], width / found[1])
    size = tf.maximum(1, tf.cast(tf.round(found * scale), tf.int32))
    resized = resize_to(pixels, size, interpolation)
    top, left = (height - size[0]) // 2, (width - size[1]) // 2
    return tf.image.pad_to_bounding_box(resized, top, left, height, width)


def scale_pixels(pixels: Any, preprocessing: Preprocessing) -> Any:
    """Scales pixels from 0..255 to what the model takes: (pixels / 255 - mean) / std.

    Args:
        pixels: (..., height, width, channels), an array, or a tensor of TensorFlow or of a Keras model.
        preprocessing: a `Preprocessing`; [-1, 1] if it has neither a `mean` nor a `std`.
    """
    if preprocessing.mean is None and preprocessing.std is None:
        return pixels / 127.5 - 1.0
    mean, std = map(one_or_array, (preprocessing.mean, preprocessing.std))
    return (pixels / 255.0 - mean) / std


def one_or_array(numbers: tuple[float, ...] | None) -> float | np.ndarray:
    """The mean or the standard deviation of a `Preprocessing`, ready for arithmetic with pixels."""
    numbers = numbers or HALF
    return numbers[0] if len(set(numbers)) == 1 else np.array(numbers, "float32")


def prepare_pixels(pixels: "tf.Tensor", preprocessing: Preprocessing) -> "tf.Tensor":
    """Converts decoded pixels to the model's size and channels, still in 0..255, before augmentation.

    Args:
        pixels: tensor (height, width, 1 to 4) in 0..255; with 2 or 4 channels the last one is alpha.
        preprocessing: a `Preprocessing`.

    Returns:
        float32 tensor `preprocessing.image_shape`.
    """
    from keras_vit.data.decode import on_background, rgb

    if preprocessing.background is not None and not is_measured(preprocessing.image_shape[2]):
        pixels = on_background(pixels, rgb(preprocessing.background))
    return resize_image(to_channels(pixels, preprocessing.image_shape[2]), preprocessing)


def prepare_file(encoded: "tf.Tensor", preprocessing: Preprocessing) -> "tf.Tensor":
    """`prepare_pixels` of the pixels of a file that TensorFlow decodes."""
    from keras_vit.data.decode import decode_image

    return prepare_pixels(decode_image(encoded, preprocessing.decoding), preprocessing)


def preprocess(encoded: "tf.Tensor", preprocessing: Preprocessing) -> "tf.Tensor":
    """Makes the model's input of the bytes of one image file.

    Args:
        encoded: scalar string tensor.
        preprocessing: a `Preprocessing`.

    Returns:
        float32 tensor `preprocessing.image_shape`, scaled as `scale_pixels` does.
    """
    return scale_pixels(prepare_file(encoded, preprocessing), preprocessing)
