"""The first frame of a GIF as a viewer shows it, with TensorFlow operations: in a served graph too.

TensorFlow makes transparent pixels black, and its image is as wide as the widest frame and as high as the
highest, not what the file states. So the bytes are changed before they are decoded: the transparent entry of
the colour table becomes the background, and the first frame moves to the corner.

Source: the GIF89a specification, sections 18 to 23.
"""

from collections.abc import Sequence

import tensorflow as tf

from keras_vit.data.orientation import piece

FRAME, EXTENSION, CONTROL = 0x2C, 0x21, 0xF9


def first_frame(encoded: tf.Tensor, background: Sequence[int]) -> tf.Tensor:
    """The first frame on a background.

    Args:
        encoded: scalar string tensor, the bytes of a GIF.
        background: red, green and blue, 0 to 255.

    Returns:
        uint8 tensor (height, width, 3) of the size that the file states, or larger if the frame is.

    Raises:
        tf.errors.InvalidArgumentError: the bytes are not such a file, or are cut short.
    """
    at, control = _first_frame_at(encoded)
    left, top, width, height = _sides(piece(encoded, at + 1, 8))
    screen_width, screen_height = _sides(piece(encoded, 6, 4))
    frame_flags, flags = piece(encoded, at + 9, 1)[0], piece(encoded, control + 3, 1)[0]
    is_transparent = (control > 0) & tf.equal(flags % 2, 1)
    index = piece(encoded, control + 6, 1)[0]
    table = tf.where(frame_flags >= 128, at + 10, 13)
    own_size = tf.where(frame_flags >= 128, frame_flags, piece(encoded, 10, 1)[0])
    has_entry = is_transparent & (own_size >= 128) & (index < 2 ** (own_size % 8 + 1))

    changed = _with(encoded, at + 1, b"\0\0\0\0")
    changed = tf.cond(
        is_transparent,
        lambda: _with(changed, control + 3, tf.gather([bytes([n & 0xFE]) for n in range(256)], flags)),
        lambda: changed,
    )
    changed = tf.cond(
        has_entry, lambda: _with(changed, table + 3 * index, bytes(background)), lambda: changed
    )
    pixels = tf.io.decode_image(changed, channels=3, expand_animations=False)
    canvas = tf.stack([tf.maximum(screen_height, top + height), tf.maximum(screen_width, left + width)])

    def placed():
        frame = pixels[:height, :width]
        borders = [[top, canvas[0] - top - height], [left, canvas[1] - left - width], [0, 0]]
        inside = tf.pad(tf.ones_like(frame, tf.bool), borders)
        return tf.where(inside, tf.pad(frame, borders), tf.constant(list(background), tf.uint8))

    fills = tf.reduce_all(tf.equal(tf.shape(pixels)[:2], canvas)) & tf.reduce_all(
        tf.equal([height, width], canvas)
    )
    return tf.cond(fills, lambda: pixels, placed)


def _first_frame_at(encoded):
    """The position of the first frame, and that of the control block before it, or 0."""
    end = tf.strings.length(encoded)

    def step(at, control, _):
        found = piece(encoded, at, 2)
        is_extension = tf.equal(found[0], EXTENSION)
        control = tf.where(is_extension & tf.equal(found[1], CONTROL), at, control)
        after = tf.cond(is_extension, lambda: _after_blocks(encoded, at + 2), lambda: at)
        return after, control, is_extension

    flags = piece(encoded, 10, 1)[0]
    first = 13 + tf.where(flags >= 128, 3 * 2 ** (flags % 8 + 1), 0)
    at, control, _ = tf.while_loop(
        lambda at, _, goes_on: goes_on & (at < end), step, (first, tf.constant(0), tf.constant(True))
    )
    return at, control


def _after_blocks(encoded, first):
    """The position after a chain of blocks, which ends with an empty one."""
    end = tf.strings.length(encoded)
    at, _ = tf.while_loop(
        lambda at, goes_on: goes_on & (at < end),
        lambda at, _: (at + 1 + piece(encoded, at, 1)[0], piece(encoded, at, 1)[0] > 0),
        (first, tf.constant(True)),
    )
    return at


def _sides(found):
    """Numbers of two bytes, the least significant first."""
    return tf.unstack(found[::2] + 256 * found[1::2])


def _with(encoded, at, value):
    """The file with other bytes from a position on; unchanged if they would go past its end."""
    end, size = tf.strings.length(encoded), tf.strings.length(value)

    def changed():
        rest = tf.strings.substr(encoded, at + size, end)
        return tf.strings.join([tf.strings.substr(encoded, 0, at), value, rest])

    return tf.cond((at >= 0) & (at + size <= end), changed, lambda: encoded)
