"""Boxes in images as images of their own."""

import io
import math
import os
from collections import defaultdict
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np

from keras_vit.data.sources.tables.entries import Box, in_words
from keras_vit.errors import InputError

TOTAL_LIMIT = 2 * 1024**3
"""Bytes of all crops together, which are held in memory."""


def crop(
    file: Path, paths: Sequence[Path], boxes: Sequence[Box | None], wheres: Sequence[str], notes: list[str]
) -> list[bytes]:
    """The bytes of a PNG file for each box; each file is decoded once.

    An image is turned as its Exif data say before it is cropped; 16 bits stay, and so does alpha. A box that
    reaches beyond its image is cut, which a note says. A file that cannot be read is returned as it is, for
    the audit to name.

    Args:
        file: the table, for messages.
        paths: of the images.
        boxes: one per path; `None` takes the whole file as it is.
        wheres: places in the table, for messages.
        notes: gets lines.

    Raises:
        InputError: a box lies outside its image, or the crops are larger than `TOTAL_LIMIT` together.
    """
    by_file: dict[Path, list[int]] = defaultdict(list)
    for i, path in enumerate(paths):
        by_file[path].append(i)
    found: list[bytes] = [b""] * len(paths)
    cut: list[int] = []

    def read(path: Path) -> int:
        positions = by_file[path]
        encoded = _bytes(path)
        pixels = None if all(boxes[i] is None for i in positions) else _pixels(encoded)
        for i in positions:
            box = boxes[i]
            if box is None or pixels is None:
                found[i] = encoded
                continue
            left, top, right, bottom = _edges(box)
            height, width = pixels.shape[:2]
            if right <= 0 or bottom <= 0 or left >= width or top >= height:
                raise InputError(
                    f"{file} has a box outside its image in {wheres[i]} ({', '.join(f'{v:g}' for v in box)}; "
                    f"{path.name} has {width} x {height} pixels): correct it."
                )
            if left < 0 or top < 0 or right > width or bottom > height:
                cut.append(i)
            found[i] = _png(pixels[max(top, 0) : bottom, max(left, 0) : right])
        return sum(len(found[i]) for i in positions)

    from keras_vit.data.probe import quiet_headers

    total = 0
    with quiet_headers(), ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        for size in pool.map(read, by_file):
            total += size
            if total > TOTAL_LIMIT:
                pool.shutdown(cancel_futures=True)
                raise InputError(
                    f"{file} has crops of more than {TOTAL_LIMIT // 1024**3} GiB: save them as files, and "
                    "give a "
                    "table of these."
                )
    number = sum(box is not None for box in boxes)
    notes.append(f"{in_words(number, 'image')} cropped from {in_words(len(by_file), 'file')} by their boxes")
    if cut:
        notes.append(
            f"{in_words(len(cut), 'box')} cut at the edge of the image, such as in {wheres[min(cut)]}"
        )
    return found


def _edges(box: Box) -> tuple[int, int, int, int]:
    """The whole pixels that a box touches: left, top, and the first ones right of and below it."""
    x, y, w, h = box
    slack = 1e-6  # of percentages that were made pixels
    return (
        math.floor(x + slack),
        math.floor(y + slack),
        max(math.ceil(x + w - slack), math.floor(x + slack) + 1),
        max(math.ceil(y + h - slack), math.floor(y + slack) + 1),
    )


def _bytes(path: Path) -> bytes:
    from keras_vit.data.probe import UnreadableImage, bytes_of

    try:
        return bytes_of(path)
    except UnreadableImage:
        return b""


def _pixels(encoded: bytes) -> np.ndarray | None:
    """What is stored in a file, turned as it says; `None` if it cannot be read.

    uint8 or uint16 pixels, or other values of a TIFF as they are. Of DICOM, whose window would be lost, it is
    what the window shows.
    """
    from keras_vit.data.decode import Decoding
    from keras_vit.data.probe import native_or_values, probe_image, to_uint8
    from keras_vit.data.values import UnreadableImage, Values

    try:
        found = native_or_values(encoded, None, None)
        if isinstance(found, Values) and found.shown is None and found.alpha is None:
            values = found.values
            if not found.inverted:
                return values
            if found.own is not None:  # so that the lowest value is black
                return (found.own[0] + found.own[1] - values).astype(values.dtype)
        # `None`: a background is laid under the crops later, as the run says.
        info, pixels = probe_image(encoded, Decoding(background=None), digest=False, thumbnail=False)
    except UnreadableImage:
        return None
    if info.bits != 8:
        return np.rint(pixels * 257).astype(np.uint16)
    return to_uint8(pixels)


def _png(pixels: np.ndarray) -> bytes:
    from PIL import Image as pil

    if pixels.dtype not in (np.uint8, np.uint16) or pixels.shape[-1] > 4:
        from keras_vit.data.tiff import write_tiff

        return write_tiff(pixels)
    if pixels.dtype == np.uint16:
        return _png_16(pixels)
    file = io.BytesIO()
    flat = pixels[..., 0] if pixels.shape[-1] == 1 else pixels
    pil.fromarray(np.ascontiguousarray(flat)).save(file, "PNG", compress_level=1)
    return file.getvalue()


def _png_16(pixels: np.ndarray) -> bytes:
    """Pillow writes no colours with 16 bits."""
    import tensorflow as tf

    with tf.device("/CPU:0"):
        return tf.io.encode_png(np.ascontiguousarray(pixels), compression=1).numpy()
