"""What images have in common, which a model for them is chosen by: their size, and whether they are gray."""

import io
import math
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import NamedTuple

import numpy as np

from keras_vit.data.dicom import dicom_shape, is_dicom
from keras_vit.data.foreign import FORMATS
from keras_vit.data.image_set import Image
from keras_vit.data.probe import HEADER, MAX_BYTES, bytes_of, probe_image, quiet_headers
from keras_vit.data.tiff import PALETTE, TiffHeader, TiffPage, is_tiff, tiff_header
from keras_vit.data.values import UnreadableImage, is_measured
from keras_vit.errors import InputError
from keras_vit.files import read_bytes

BLOCK = 8
"""Side in pixels of the blocks that JPEG encodes."""

JPEG_NOISE = 3.0
"""How far the channels of a gray image may be apart, on average over a block, in gray levels of 255."""

PIXEL_NOISE = 64
"""The same for a single pixel."""

CHUNK = 64
"""Images that are decoded before the search for colour may end."""

HEADERS = 1_024
"""Images whose headers wait for a thread at once: a future of each of a million would take a gigabyte."""

ORIENTATION, TURNED = 0x0112, (5, 6, 7, 8)
"""EXIF's tag, and its values for an image that is shown with its sides exchanged."""

MOST_PIXELS, STEP = 128, 8
"""For images of which nobody has chosen the shape: the largest side, and what it is a multiple of."""

GRAY_MODES = ("1", "L", "I", "F", "I;16", "I;16L", "I;16B", "I;16N")
"""Pillow's modes without colour and alpha, behind which a background in colour may be seen: images that have
them need not be decoded."""


class _Header(NamedTuple):
    height: int
    width: int
    is_gray: bool  # False where only the pixels can tell
    channels: int = 3  # other numbers than 1 and 3 are of measurement


class Overview:
    """The size and the colour of images, each found when it is first asked for.

    Images that cannot be read count for neither: the audit names them.

    Args:
        images: files, encoded bytes or pixels.
        background: what is seen where an image is transparent: a gray level, or red, green and blue.
        tiff_page: which page of a TIFF is read, see `tiff.tiff_header`.
    """

    def __init__(
        self, images: Sequence[Image], background: tuple[int, ...] = (255,), tiff_page: TiffPage = None
    ) -> None:
        self.images, self.background, self.tiff_page = images, background, tiff_page

    @cached_property
    def size(self) -> tuple[int, int] | None:
        """The medians of height and width in pixels, as shown; `None` if no image can be read."""
        found = [(header.height, header.width) for header in self._headers if header is not None]
        if not found:
            return None
        height, width = np.median(found, axis=0)
        return round(height), round(width)

    @cached_property
    def is_gray(self) -> bool:
        """Whether all images are gray, however many channels their files have.

        The first image in colour ends the search; gray images that are stored as RGB are all decoded.
        """
        pairs = zip(self.images, self._headers, strict=True)
        doubtful = [image for image, header in pairs if header is not None and not header.is_gray]
        with quiet_headers(), _pool() as pool:
            for start in range(0, len(doubtful), CHUNK):
                if not all(pool.map(self._looks_gray, doubtful[start : start + CHUNK])):
                    return False
        return True

    @cached_property
    def channels(self) -> dict[int, int]:
        """Number of channels -> position of the first image that has it, by the headers.

        Gray images and those in colour count as 3, since gray ones may be stored as RGB.
        """
        found: dict[int, int] = {}
        for i, header in enumerate(self._headers):
            if header is not None:
                found.setdefault(header.channels if is_measured(header.channels) else 3, i)
        return found

    @property
    def side(self) -> int:
        """The side of a square with as many pixels as the median image; 0 if no image can be read."""
        height, width = self.size or (0, 0)
        return round(math.sqrt(height * width))

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """A shape that keeps the colour, and as many pixels of the median image as square patches take in.

        Both sides are the same multiple of 8, up to 128 pixels.
        """
        side = max(min(self.side, MOST_PIXELS) // STEP * STEP, STEP)
        measured = [count for count in self.channels if is_measured(count)]
        return side, side, measured[0] if measured else 1 if self.is_gray else 3

    def _looks_gray(self, image: Image) -> bool:
        from keras_vit.data.decode import Decoding  # imports TensorFlow

        try:
            return is_gray(probe_image(image, Decoding(self.background, tiff_page=self.tiff_page))[1])
        except UnreadableImage:
            return True

    @cached_property
    def _headers(self) -> list[_Header | None]:
        found: list[_Header | None] = []
        with quiet_headers(), _pool() as pool:
            for start in range(0, len(self.images), HEADERS):
                found += pool.map(
                    lambda image: _header(image, self.tiff_page), self.images[start : start + HEADERS]
                )
        return found


def measured_channels(images: Sequence[Image], tiff_page: TiffPage = None) -> int | None:
    """The number of channels of measurement that all images have; `None` if there is none."""
    found = list(Overview(images, tiff_page=tiff_page).channels)
    return found[0] if len(found) == 1 and is_measured(found[0]) else None


def is_gray(pixels: np.ndarray) -> bool:
    """Whether an image has no colour but the noise that JPEG adds.

    Colour is a block of 8x8 pixels in which red or blue is more than 3 of 255 levels from green on average,
    or a pixel in which it is more than 64: a faint tint and one red pixel are, noise of single pixels is not.

    Args:
        pixels: uint8 or uint16 (height, width, 1 to 4); the fourth channel is alpha.
    """
    if pixels.shape[-1] < 3:
        return True
    if (pixels[..., 0] == pixels[..., 1]).all() and (pixels[..., 1] == pixels[..., 2]).all():
        return True
    colors = pixels[..., :3].astype(np.float32)
    if pixels.shape[-1] == 4:
        colors *= pixels[..., 3:] / np.float32(_highest(pixels))  # what is transparent is not seen
    apart = (colors[..., ::2] - colors[..., 1:2]) * (255 / _highest(pixels))
    return bool((np.abs(apart) <= PIXEL_NOISE).all() and (np.abs(_block_means(apart)) <= JPEG_NOISE).all())


def _highest(pixels: np.ndarray) -> int:
    return np.iinfo(pixels.dtype).max if pixels.dtype.kind == "u" else 255


def _block_means(values: np.ndarray) -> np.ndarray:
    """The mean of each block; those at the right and lower border are larger where pixels are left over."""
    for axis in (0, 1):
        starts = np.arange(0, max(values.shape[axis] - BLOCK + 1, 1), BLOCK)
        counts = np.diff(np.append(starts, values.shape[axis]))
        sums = np.add.reduceat(values, starts, axis=axis)
        values = sums / np.expand_dims(counts, [a for a in (0, 1, 2) if a != axis])
    return values


def _header(image: Image, tiff_page: TiffPage) -> _Header | None:
    from PIL import Image as pil

    if isinstance(image, np.ndarray):
        height, width, channels = image.shape
        return _Header(height, width, channels == 1, channels if channels > 4 else 3)
    try:
        head = image[:HEADER] if isinstance(image, bytes) else read_bytes(image, MAX_BYTES, HEADER)
        if is_tiff(head):
            return _header_of_tiff(tiff_header(bytes_of(image), tiff_page))
        if is_dicom(head):
            height, width, channels = dicom_shape(bytes_of(image))
            return _Header(height, width, channels == 1)
        with pil.open(io.BytesIO(image) if isinstance(image, bytes) else image, formats=FORMATS) as header:
            width, height = header.size
            # Of a PNG without this entry, Pillow would decode the pixels to see what comes after them.
            has_exif = header.format != "PNG" or "exif" in header.info
            if has_exif and header.getexif().get(ORIENTATION) in TURNED:
                height, width = width, height
            is_gray = header.mode in GRAY_MODES and "transparency" not in header.info
            return _Header(height, width, is_gray)
    except InputError:  # a package is missing
        raise
    except Exception:  # on damaged headers PIL raises a dozen kinds of exception
        return None


def _header_of_tiff(header: TiffHeader) -> _Header:
    height, width = header.height, header.width
    if header.orientation in TURNED:
        height, width = width, height
    # Of floating-point numbers nothing can be seen before there is a range.
    is_gray = header.samples == 1 and header.photometric != PALETTE
    return _Header(height, width, is_gray, header.channels)


def _pool() -> ThreadPoolExecutor:
    return ThreadPoolExecutor(min(4, os.cpu_count() or 1))  # each may hold one image of 100 million pixels
