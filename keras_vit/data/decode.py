"""From the bytes of a file to the pixels that a viewer shows, on every backend and in the served graph.

Everything here is made of operations that every TensorFlow has. Files that TensorFlow does not decode are
converted first, outside of the served graph: see `foreign`.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import tensorflow as tf

from keras_vit.data.gif import first_frame
from keras_vit.data.orientation import EXIF, contains, orientation, piece, turn
from keras_vit.data.tiff import TiffPage

WHITE = (255,)

plain_graph = tf.autograph.experimental.do_not_convert
"""For functions without Python's own loops and conditions on tensors: they are traced in half the time."""

RGB_MASKS = (0x00FF0000, 0x0000FF00, 0x000000FF)
"""Where a BMP with 32 bits per pixel and bit fields has its colours, as TensorFlow assumes."""


@dataclass(frozen=True)
class Decoding:
    """How the bytes of a file become pixels in 0..255; see `Preprocessing`.

    Args:
        background: what is seen where an image is transparent: one level or three, 0 to 255; `None` drops
            alpha, and the hidden colours appear.
        pixel_range: the values of files with 16 bits that become 0 and 255. Files with 8 bits are refused
            then, because their values have another meaning. `None`: each file has the range of its type.
        exif_orientation: whether pixels are turned as the file says.
        channels: of the run; `None` where there is none, and any number is read.
        tiff_page: which page of a TIFF is read, see `tiff.tiff_header`.
        inverts_values: see `values.to_pixels`.
        shown_channels: the channels of measurement, from 1, that people see; `None` for the first three.
    """

    background: tuple[int, ...] | None = WHITE
    pixel_range: tuple[float, ...] | None = None
    exif_orientation: bool = True
    channels: int | None = None
    tiff_page: TiffPage = None
    inverts_values: bool = False
    shown_channels: tuple[int, ...] | None = None


DEFAULT = Decoding()


@plain_graph
def decode_image(encoded: tf.Tensor, decoding: Decoding = DEFAULT) -> tf.Tensor:
    """Decodes the bytes of a JPEG, PNG, BMP, GIF or WebP file.

    Only the first frame of an animation is read.

    Args:
        encoded: scalar string tensor.
        decoding: a `Decoding`.

    Returns:
        float32 tensor (height, width, channels) in 0..255, with 1 or 3 channels, as the file has them; whole
        numbers, unless the file has 16 bits. Without a background there may be 2 or 4, the last one alpha.

    Raises:
        tf.errors.InvalidArgumentError: the bytes are not such a file, or are cut short, or the file has 8
            bits and the `decoding` a range.
    """
    pixels = tf.cond(
        has_16_bits(encoded),
        lambda: _stored_16_bits(encoded, decoding),
        lambda: tf.cast(_stored_8_bits(encoded, decoding), tf.float32),
    )
    return _turned(pixels, encoded, decoding)


def has_16_bits(encoded: tf.Tensor) -> tf.Tensor:
    """Whether a file is a PNG with 16 bits per channel: bool scalar."""
    return _starts_with(encoded, b"\x89PNG") & tf.equal(piece(encoded, 24, 1)[0], 16)


@plain_graph
def decode_8_bits(encoded: tf.Tensor, decoding: Decoding = DEFAULT) -> tf.Tensor:
    """`decode_image` for a file that has not 16 bits per channel: uint8."""
    return _turned(_stored_8_bits(encoded, decoding), encoded, decoding)


@plain_graph
def decode_16_bits(encoded: tf.Tensor, decoding: Decoding = DEFAULT) -> tf.Tensor:
    """`decode_image` for a PNG with 16 bits per channel: float32 in 0..255, not rounded."""
    return _turned(_stored_16_bits(encoded, decoding), encoded, decoding)


def are_plain(files: tf.Tensor) -> tf.Tensor:
    """Which files are a JPEG, or a PNG with 8 bits, without anything that changes how they are shown.

    That is an orientation or a transparent colour; alpha is not. The files may be damaged all the same.

    Args:
        files: string tensor (batch,).

    Returns:
        bool tensor (batch,).
    """
    header = tf.strings.join([tf.strings.substr(files, 0, 25), b"\0" * 25])
    is_jpeg = tf.equal(tf.strings.substr(header, 0, 2), b"\xff\xd8")
    is_png = tf.equal(tf.strings.substr(header, 0, 4), b"\x89PNG")
    is_png &= tf.not_equal(tf.strings.substr(header, 24, 1), b"\x10")

    def lack(mark):
        return tf.equal(tf.strings.split(files, mark, maxsplit=1).row_lengths(), 1)

    return (is_jpeg & lack(EXIF)) | (is_png & lack(b"eXIf") & lack(b"tRNS"))


@plain_graph
def decode_plain(encoded: tf.Tensor, decoding: Decoding = DEFAULT) -> tf.Tensor:
    """`decode_8_bits` for a file that `are_plain` finds, without a range: uint8, the same pixels."""
    pixels = tf.io.decode_image(encoded, channels=0, expand_animations=False)
    return pixels if decoding.background is None else on_background(pixels, rgb(decoding.background))


def _turned(pixels, encoded, decoding):
    return turn(pixels, orientation(encoded)) if decoding.exif_orientation else pixels


def _stored_8_bits(encoded, decoding):
    if decoding.pixel_range is not None:
        refused = tf.debugging.Assert(
            tf.constant(False), [f"8 bits, but the range {decoding.pixel_range} is of files with 16 bits"]
        )
        with tf.control_dependencies([refused] if refused is not None else []):
            encoded = tf.identity(encoded)

    def other():
        pixels = tf.io.decode_image(with_alpha_if_animated(encoded), channels=0, expand_animations=False)
        return tf.cond(_starts_with(encoded, b"BM"), lambda: bmp_colors(pixels, encoded), lambda: pixels)

    def any_but_gif():
        return tf.cond(
            has_transparent_level(encoded), lambda: tf.io.decode_png(encoded, channels=4), lambda: other()
        )

    if decoding.background is None:
        return other()
    colors = rgb(decoding.background)
    return tf.cond(
        _starts_with(encoded, b"GIF"),
        lambda: first_frame(encoded, colors),
        lambda: on_background(any_but_gif(), colors),
    )


def _stored_16_bits(encoded, decoding):
    values = tf.cond(
        has_transparent_level(encoded),
        lambda: tf.io.decode_png(encoded, channels=4, dtype=tf.uint16),
        lambda: tf.io.decode_png(encoded, channels=0, dtype=tf.uint16),
    )
    values = tf.cast(values, tf.float32)
    low, high = (decoding.pixel_range or (0.0, 65535.0))[:2]  # more are of channels that no PNG has
    pixels = tf.clip_by_value((values - low) * (255.0 / (high - low)), 0.0, 255.0)
    channels = tf.shape(values)[-1]
    if decoding.background is not None:
        colors = tf.constant(_levels(decoding.background), tf.float32)

        def composed():
            share = values[..., -1:] / 65535.0
            return pixels[..., :-1] * share + colors * (1.0 - share)

        pixels = tf.cond(tf.equal(channels % 2, 0), composed, lambda: pixels)
    return pixels


def values_16_bits(encoded: tf.Tensor) -> tf.Tensor:
    """The stored values of a PNG with 16 bits, without alpha: uint16 (height, width, 1 or 3)."""
    values = tf.io.decode_png(encoded, channels=0, dtype=tf.uint16)
    return values[..., : tf.where(tf.shape(values)[-1] < 3, 1, 3)]


def rgb(levels: Sequence[int]) -> tuple[int, ...]:
    """Red, green and blue of one level or three."""
    return tuple(levels) * 3 if len(levels) == 1 else tuple(levels)


def _levels(background):
    """One level if the background is gray, so that a gray image stays one."""
    return tuple(background[:1] if len(set(background)) == 1 else background)


def on_background(pixels: tf.Tensor, background: Sequence[int]) -> tf.Tensor:
    """Pixels with alpha on a background.

    Args:
        pixels: tensor (height, width, 1 to 4) in 0..255; with 2 or 4 channels the last one is alpha.
        background: red, green and blue.

    Returns:
        tensor (height, width, 1 or 3) of the same type, rounded if that is uint8; the same tensor if it has
        no alpha.
    """
    is_whole = pixels.dtype == tf.uint8
    kind = tf.int32 if is_whole else tf.float32
    levels = tf.constant(_levels(background), kind)

    def composed():
        colors, alpha = tf.cast(pixels[..., :-1], kind), tf.cast(pixels[..., -1:], kind)
        mixed = colors * alpha + levels * (255 - alpha)
        return tf.cast((mixed + 127) // 255 if is_whole else mixed / 255.0, pixels.dtype)

    return tf.cond(tf.equal(tf.shape(pixels)[-1] % 2, 0), composed, lambda: pixels)


def has_transparent_level(encoded: tf.Tensor) -> tf.Tensor:
    """Whether a file is a PNG without alpha in which one colour may be transparent.

    TensorFlow knows such a colour only if it is asked for alpha. In a PNG with a palette it always knows, and
    must not be asked.
    """
    is_plain = tf.reduce_any(tf.equal(piece(encoded, 25, 1)[0], [0, 2]))
    return tf.cond(
        _starts_with(encoded, b"\x89PNG") & is_plain,
        lambda: contains(encoded, b"tRNS"),
        lambda: tf.constant(False),
    )


def with_alpha_if_animated(encoded: tf.Tensor) -> tf.Tensor:
    """Sets the alpha flag of an animated WebP; the bytes of any other image are returned as they are.

    The frames of an animation are always decoded with alpha. If the header says that there is none,
    TensorFlow 2.21 writes it past the end of the pixels.

    Source: RFC 9649, 2.7, the flags of an extended WebP.
    """
    animated, alpha = 0x02, 0x10
    header = tf.strings.substr(tf.strings.join([encoded, b"\0" * 21]), 0, 21)
    flags = tf.cast(tf.io.decode_raw(tf.strings.substr(header, 20, 1), tf.uint8)[0], tf.int32)
    is_extended = tf.equal(tf.strings.substr(header, 8, 8), b"WEBPVP8X")
    has_alpha = tf.constant([bytes([value | alpha]) for value in range(256)])

    def rewritten():
        rest = tf.strings.substr(encoded, 21, tf.strings.length(encoded))
        return tf.strings.join([tf.strings.substr(header, 0, 20), tf.gather(has_alpha, flags), rest])

    return tf.cond(is_extended & tf.not_equal(flags & animated, 0), rewritten, lambda: encoded)


@plain_graph
def is_plain_bmp(encoded: tf.Tensor) -> tf.Tensor:
    """Whether TensorFlow reads the colours of a BMP as they are meant: bool scalar.

    It does not know other headers than BITMAPINFOHEADER and its successors, compression, or other bit fields.
    """
    header_size, bits = _number(encoded, 14), _number(encoded, 28) % 2**16
    compression = _number(encoded, 30)
    masks = tf.stack([_number(encoded, at) for at in (54, 58, 62)])
    known_masks = tf.equal(bits, 32) & tf.reduce_all(tf.equal(masks, RGB_MASKS))
    known_bits = tf.reduce_any(tf.equal(bits, [8, 24, 32]))
    return (
        _starts_with(encoded, b"BM")
        & (header_size >= 40)
        & ((tf.equal(compression, 0) & known_bits) | (tf.equal(compression, 3) & known_masks))
    )


def bmp_colors(pixels: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
    """The colours of a BMP: what TensorFlow decodes are indices if the file has a palette.

    The fourth byte of a pixel is alpha only where the header has a mask for it.

    Args:
        pixels: uint8 tensor (height, width, 1, 3 or 4), as TensorFlow decodes them.
        encoded: scalar string tensor, the file.

    Returns:
        uint8 tensor (height, width, 1, 3 or 4): 1 if all colours of a palette are gray.

    Raises:
        tf.errors.InvalidArgumentError: TensorFlow does not read such a BMP as it is meant.
    """
    checked = tf.debugging.Assert(is_plain_bmp(encoded), ["a BMP of another kind"])
    with tf.control_dependencies([checked] if checked is not None else []):
        pixels = tf.identity(pixels)
    has_alpha = tf.equal(_number(encoded, 30), 3) & (_number(encoded, 14) >= 56)
    has_alpha &= tf.not_equal(_number(encoded, 66), 0)
    channels = tf.shape(pixels)[-1]
    return tf.cond(
        tf.equal(channels, 1),
        lambda: apply_bmp_palette(pixels, encoded),
        lambda: tf.cond(has_alpha, lambda: pixels, lambda: pixels[..., :3]),
    )


def apply_bmp_palette(indices: tf.Tensor, encoded: tf.Tensor) -> tf.Tensor:
    """The colours of a BMP with 8 bits per pixel, whose indices TensorFlow takes for gray levels.

    Args:
        indices: uint8 tensor (height, width, 1).
        encoded: scalar string tensor, the file.

    Returns:
        uint8 tensor (height, width, 1 or 3): 1 if all colours of the palette are gray.
    """
    # The palette is between the header and the pixels: blue, green, red and one unused byte per colour.
    start, end = 14 + _number(encoded, 14), _number(encoded, 10)
    palette = tf.strings.substr(encoded, start, (end - start) // 4 * 4)
    colors = tf.reshape(tf.io.decode_raw(palette, tf.uint8), (-1, 4))[:, 2::-1]
    is_gray = tf.reduce_all(tf.equal(colors, colors[:, :1]))
    return tf.gather(colors[:, : tf.where(is_gray, 1, 3)], tf.cast(indices[..., 0], tf.int32))


@plain_graph
def is_native(encoded: tf.Tensor) -> tf.Tensor:
    """Whether a file is of a kind that TensorFlow decodes: bool scalar. It may be damaged all the same."""
    start = tf.strings.substr(tf.strings.join([encoded, b"\0" * 12]), 0, 12)
    known = tf.reduce_any(
        [
            tf.equal(tf.strings.substr(start, 0, 2), b"\xff\xd8"),
            tf.equal(tf.strings.substr(start, 0, 4), b"\x89PNG"),
            tf.equal(tf.strings.substr(start, 0, 4), b"GIF8"),
            tf.equal(tf.strings.substr(start, 8, 4), b"WEBP"),
        ]
    )
    return known | is_plain_bmp(encoded)


def _starts_with(encoded, mark):
    start = tf.strings.substr(tf.strings.join([encoded, b"\0" * len(mark)]), 0, len(mark))
    return tf.equal(start, mark)


def _number(encoded, at):
    """The four bytes from a position as an int32; 0 after the end of the file."""
    size = tf.strings.length(encoded)
    found = tf.strings.substr(encoded, tf.minimum(at, size), 4)
    return tf.io.decode_raw(tf.strings.substr(tf.strings.join([found, b"\0" * 4]), 0, 4), tf.int32)[0]
