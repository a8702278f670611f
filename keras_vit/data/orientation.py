"""The orientation that a file states for its pixels, read with TensorFlow operations: in a served graph too.

Cameras store the rows of their sensor and write into the Exif data how a viewer has to turn them. Everything
here is made of operations that every TensorFlow has, and damaged Exif data mean that nothing is turned.
"""

import tensorflow as tf

ORIENTATION = 0x0112  # the tag of TIFF 6.0 (page 36) that Exif uses
WHOLE_NUMBERS = {3: 2, 4: 4, 8: 2, 9: 4}
"""TIFF's types of whole numbers, and their bytes."""

EXIF = b"Exif\0\0"


def orientation(encoded: tf.Tensor) -> tf.Tensor:
    """How a viewer turns the pixels of a file.

    Sources: Exif 2.32 (4.5.4 and 4.7.2), the PNG specification's eXIf chunk (third edition, 11.3.4.5), and
    RFC 9649 (2.7.1.5) for WebP. What is only in XMP does not count, as in browsers.

    Args:
        encoded: scalar string tensor, the bytes of a file.

    Returns:
        int32 scalar, 1 to 8 as TIFF numbers them; 1, as they are stored, where the file states nothing that
        is valid.
    """
    start = tf.strings.substr(tf.strings.join([encoded, b"\0" * 16]), 0, 16)
    kinds = [
        (tf.equal(tf.strings.substr(start, 0, 2), b"\xff\xd8"), EXIF, _in_jpeg),
        (tf.equal(tf.strings.substr(start, 0, 4), b"\x89PNG"), b"eXIf", _in_png),
        (tf.equal(tf.strings.substr(start, 8, 4), b"WEBP"), b"EXIF", _in_webp),
    ]
    exif = tf.constant(b"")
    for is_kind, mark, find in kinds:
        # Most files have no such mark, and finding that out is much faster than walking through their parts.
        exif = tf.cond(
            is_kind & contains(encoded, mark),
            lambda find=find: find(encoded),
            lambda exif=exif: tf.identity(exif),
        )
    return tf.cond(tf.equal(exif, b""), lambda: tf.constant(1), lambda: _in_tiff(exif))


def turn(pixels: tf.Tensor, stated: tf.Tensor) -> tf.Tensor:
    """Turns and mirrors pixels (height, width, channels) as an `orientation` says."""

    def when(numbers, change):
        hit = tf.reduce_any(tf.equal(stated, numbers))
        return lambda image: tf.cond(hit, lambda: change(image), lambda: image)

    def turned():
        image = when([5, 6, 7, 8], lambda image: tf.transpose(image, (1, 0, 2)))(pixels)
        image = when([2, 3, 6, 7], lambda image: tf.reverse(image, [1]))(image)
        return when([3, 4, 7, 8], lambda image: tf.reverse(image, [0]))(image)

    return tf.cond(tf.equal(stated, 1), lambda: pixels, turned)


def contains(encoded: tf.Tensor, mark: bytes) -> tf.Tensor:
    """Whether some bytes are in a file: bool scalar."""
    return tf.size(tf.strings.split(encoded, mark, maxsplit=1)) > 1


def piece(encoded: tf.Tensor, at: tf.Tensor | int, size: int) -> tf.Tensor:
    """Bytes from a position as int32 (size,); zeros after the end of the file."""
    found = tf.strings.substr(encoded, tf.clip_by_value(at, 0, tf.strings.length(encoded)), size)
    padded = tf.strings.substr(tf.strings.join([found, b"\0" * size]), 0, size)
    return tf.ensure_shape(tf.cast(tf.io.decode_raw(padded, tf.uint8), tf.int32), (size,))


def _part(encoded, at, size):
    """A part of a file as a string; what lies after its end is left out."""
    length = tf.strings.length(encoded)
    at = tf.clip_by_value(at, 0, length)
    return tf.strings.substr(encoded, at, tf.clip_by_value(size, 0, length - at))


def _number(found, size, little):
    """The number of two or four bytes, int32 (size, ...): int32 (...), -1 if it does not fit."""
    first = tf.unstack(found, size)
    digits = [tf.where(little, first[-1 - i], first[i]) for i in range(size)]
    number = digits[0]
    for digit in digits[1:]:
        number = 256 * number + digit
    return number if size < 4 else tf.where(digits[0] > 127, -1, number)


def _walk(encoded, first, step):
    """The Exif data that the parts of a file hold, joined.

    Args:
        encoded: scalar string tensor.
        first: position of the first part.
        step: from the position of a part to that of the next one, to the Exif data in it or an empty string,
            and to whether it is the last one.
    """
    length = tf.strings.length(encoded)

    def body(at, exif, _):
        after, found, is_last = step(at)
        return tf.maximum(after, at + 1), tf.strings.join([exif, found]), ~is_last

    _, exif, _ = tf.while_loop(
        lambda at, _, goes_on: goes_on & (at < length),
        body,
        (tf.constant(first), tf.constant(b""), tf.constant(True)),
    )
    return exif


def _in_jpeg(encoded):
    def step(at):
        found = piece(encoded, at, 4)
        marker, size = found[1], 256 * found[2] + found[3]
        is_marker = tf.equal(found[0], 0xFF) & (marker > 0) & (marker < 0xFF)
        alone = ((marker >= 0xD0) & (marker <= 0xD8)) | tf.equal(marker, 1)  # without a size
        starts = is_marker & tf.equal(marker, 0xE1) & tf.equal(_part(encoded, at + 4, 6), EXIF)
        exif = tf.where(starts, _part(encoded, at + 10, size - 8), b"")
        after = tf.where(is_marker, tf.where(alone, at + 2, at + 2 + size), at + 1)
        return after, exif, is_marker & (tf.equal(marker, 0xDA) | tf.equal(marker, 0xD9))

    return _walk(encoded, 2, step)


def _in_png(encoded):
    def step(at):
        size, kind = _number(piece(encoded, at, 4), 4, little=False), _part(encoded, at + 4, 4)
        exif = tf.where(tf.equal(kind, b"eXIf"), _part(encoded, at + 8, size), b"")
        is_last = tf.equal(kind, b"IEND") | (size < 0) | (size > tf.strings.length(encoded)) | (exif != b"")
        return at + 12 + size, exif, is_last

    return _walk(encoded, 8, step)


def _in_webp(encoded):
    def step(at):
        kind, size = _part(encoded, at, 4), _number(piece(encoded, at + 4, 4), 4, little=True)
        exif = tf.where(tf.equal(kind, b"EXIF"), _part(encoded, at + 8, size), b"")
        is_last = (size < 0) | (size > tf.strings.length(encoded)) | (exif != b"")
        return at + 8 + size + size % 2, exif, is_last

    announces = tf.not_equal(piece(encoded, 20, 1)[0] & 0x08, 0) & tf.equal(_part(encoded, 12, 4), b"VP8X")
    return tf.cond(announces, lambda: _walk(encoded, 12, step), lambda: tf.constant(b""))


def _in_tiff(exif):
    """The orientation in Exif data, which are a TIFF file without an image."""
    tiff = tf.cond(
        tf.equal(_part(exif, 0, 6), EXIF), lambda: _part(exif, 6, tf.strings.length(exif)), lambda: exif
    )
    start = _part(tiff, 0, 4)
    little = tf.equal(tf.strings.substr(start, 0, 2), b"II")
    known = tf.reduce_any(tf.equal(start, [b"II*\0", b"MM\0*"]))
    at = _number(piece(tiff, 4, 4), 4, little)
    count = _number(piece(tiff, at, 2), 2, little)
    entries = _part(tiff, at + 2, 12 * count)
    entries = tf.strings.substr(entries, 0, tf.strings.length(entries) // 12 * 12)
    entry = tf.cast(tf.reshape(tf.io.decode_raw(entries, tf.uint8), (-1, 12)), tf.int32)
    tag, kind = (_number(tf.transpose(entry[:, i : i + 2]), 2, little) for i in (0, 2))
    is_single = tf.equal(_number(tf.transpose(entry[:, 4:8]), 4, little), 1)
    value = tf.zeros_like(tag)
    for number, size in WHOLE_NUMBERS.items():
        used = entry[:, 8 : 8 + size]
        low = tf.where(little, used[:, 0], used[:, -1])
        is_small = tf.equal(tf.reduce_sum(used, axis=1), low)
        value = tf.where(tf.equal(kind, number) & is_small, low, value)
    hits = tf.boolean_mask(value, tf.equal(tag, ORIENTATION) & is_single)
    stated = tf.concat([[1], hits], 0)[-1]
    return tf.where(known & (at >= 8) & (stated >= 1) & (stated <= 8), stated, 1)
