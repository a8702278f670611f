"""How many pixels a file declares, known before TensorFlow decodes it: in a served graph too.

Everything here is made of operations that every TensorFlow has.
"""

import numpy as np
import tensorflow as tf

HEADER = 32  # bytes, which hold the size of every format but JPEG and GIF


def declared_pixels(encoded: tf.Tensor, may_be_gif: bool = True) -> tf.Tensor:
    """Height times width, as the header of a file states it.

    Sources: PNG (RFC 2083, 4.1.1), GIF89a (20, in each frame), BMP (Microsoft's
    BITMAPCOREHEADER and BITMAPINFOHEADER), WebP (RFC 9649, 2.5 to 2.7).

    Args:
        encoded: scalar string tensor.
        may_be_gif: `False` for a file that is known not to be a GIF: the graph is smaller.

    Returns:
        float32 scalar; 0 if there is no such header, since decoding will fail then; infinity if a PNG has
        another chunk before its header, which TensorFlow would skip.

    Raises:
        tf.errors.InvalidArgumentError: the header of a JPEG is damaged.
    """
    # A header that is cut short is filled up with zeros.
    header = tf.strings.substr(tf.strings.join([encoded, b"\0" * HEADER]), 0, HEADER)
    start = tf.strings.substr(header, 0, 2)
    is_jpeg, is_gif = tf.equal(start, b"\xff\xd8"), tf.equal(start, b"GI")

    def other():
        return _pixels_at_fixed_offsets(header)

    def gif_or_other():
        return tf.cond(is_gif, lambda: _gif_pixels(encoded), other) if may_be_gif else other()

    return tf.cond(is_jpeg, lambda: _jpeg_pixels(encoded), gif_or_other)


def _jpeg_pixels(encoded):
    shape = tf.io.extract_jpeg_shape(encoded)
    return _product(shape[0], shape[1])


def _gif_pixels(encoded):
    """The pixels of all frames together, or of what encloses them or of the screen if that is more.

    TensorFlow decodes all of them, and then fills an image as wide as the widest and as high as the highest.
    The first frame is put on a screen of the size that the header states.
    """
    # Zeros after the end stop the loop.
    byte = tf.cast(tf.io.decode_raw(tf.strings.join([encoded, b"\0" * 32]), tf.uint8), tf.int32)
    end = tf.size(byte) - 16

    def colors(flags):
        """Size in bytes of the table of colours that the flags of a screen or a frame announce."""
        return tf.where(flags >= 128, 3 * 2 ** (flags % 8 + 1), 0)

    def step(at, pixels, largest, in_blocks):
        found = byte[at]
        is_frame = ~in_blocks & tf.equal(found, 0x2C)
        frame = byte[at : at + 10]
        side = frame[1::2] + 256 * tf.concat([frame[2::2], [0]], 0)  # left, top, width, height, flags
        size = tf.where(is_frame, side[2:4], 0)
        pixels += _product(size[0], size[1])
        after_frame = at + 11 + colors(frame[9])
        after = tf.where(in_blocks, at + 1 + found, tf.where(is_frame, after_frame, at + 2))
        goes_on = in_blocks | is_frame | tf.equal(found, 0x21)
        # A chain of blocks ends with an empty one.
        in_blocks = tf.where(in_blocks, found > 0, goes_on)
        at = tf.minimum(tf.where(goes_on, after, end), end)
        corner = tf.where(is_frame, side[:2] + side[2:4], 0)
        return at, pixels, tf.maximum(largest, corner), in_blocks

    screen = byte[6:10:2] + 256 * byte[7:10:2]
    start = tf.minimum(13 + colors(byte[10]), end)
    _, pixels, largest, _ = tf.while_loop(
        lambda at, *_: at < end,
        step,
        (start, 0.0, screen, tf.constant(False)),
    )
    return tf.maximum(pixels, _product(largest[0], largest[1]))


def _pixels_at_fixed_offsets(header):
    byte = tf.cast(tf.io.decode_raw(header, tf.uint8), tf.int32)

    def number(at, size, step=1):
        """The number in `size` bytes from `at`, the least significant first; last with `step` -1."""
        offsets = [at + i for i in range(size)][::step]
        # In float32: what a damaged header claims may not fit in an int32.
        return tf.add_n([tf.cast(byte[offset], tf.float32) * 256.0**i for i, offset in enumerate(offsets)])

    # PNG and WebP have the name of their first chunk at the same offset.
    start, kind = tf.strings.substr(header, 0, 2), tf.strings.substr(header, 12, 4)
    # 14 bits for each side.
    lossless = byte[21] + 2**8 * byte[22] + 2**16 * byte[23] + 2**24 * (byte[24] % 16)
    png = tf.where(tf.equal(kind, b"IHDR"), number(16, 4, -1) * number(20, 4, -1), np.inf)
    cases = [
        (tf.equal(start, b"\x89P"), png),
        (tf.equal(start, b"BM") & tf.equal(byte[14], 12), number(18, 2) * number(20, 2)),
        (tf.equal(start, b"BM"), _signed(number(18, 4)) * _signed(number(22, 4))),
        (tf.equal(kind, b"VP8X"), (number(24, 3) + 1) * (number(27, 3) + 1)),
        (tf.equal(kind, b"VP8L"), _product(lossless % 2**14 + 1, lossless // 2**14 % 2**14 + 1)),
        (tf.equal(kind, b"VP8 "), number(26, 2) % 2**14 * (number(28, 2) % 2**14)),
    ]
    found = tf.zeros(())
    for holds, pixels in reversed(cases):
        found = tf.where(holds, pixels, found)
    return found


def _product(height, width):
    return tf.cast(height, tf.float32) * tf.cast(width, tf.float32)


def _signed(number):
    """The size of a BMP's side: its height is negative if its rows run downwards."""
    return tf.minimum(number, 2.0**32 - number)
