"""One look at each image: whether it decodes, its size, the fingerprint and the thumbnail of its pixels."""

import io
import os
import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path

import numpy as np

from keras_vit.data.image_set import Image

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")
MAX_PIXELS = 100_000_000
MAX_BYTES = 512 * 1024**2  # of one file: far above what MAX_PIXELS of photographs take
THUMBNAIL = 32  # pixels a side
LUMA = np.array((0.299, 0.587, 0.114), np.float32)


@dataclass(frozen=True)
class Look:
    """What the audit keeps of an image.

    Args:
        kind: `"JPEG"`, `"PNG"`, `"BMP"`, `"GIF"`, `"WEBP"`, or `"array"` for pixels in memory.
        height, width, channels: of the decoded pixels.
        digest: fingerprint of the decoded pixels, three equal channels counted as one.
        thumbnail: float32 (32, 32), gray, in 0..255.
    """

    kind: str
    height: int
    width: int
    channels: int
    digest: bytes
    thumbnail: np.ndarray


class Unusable(Exception):
    """An image cannot be read; the message is the reason, made to follow its name and a colon."""


def look_at_all(images: Sequence[Image]) -> tuple[list[Look | None], list[str | None]]:
    """(looks, reasons), one each an image: a `Look`, or the reason why the image cannot be read."""
    # Four at most: each may hold one image of 100 million pixels.
    with _quiet_headers(), ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool:
        found = list(pool.map(_look_or_reason, images))
    return [look for look, _ in found], [reason for _, reason in found]


def why_unreadable(image: Image) -> str | None:
    """Why this image cannot be read, as half a sentence, or None if it can be."""
    return look_at_all([image])[1][0]


def _look_or_reason(image):
    try:
        return _look(image), None
    except Unusable as reason:
        return None, str(reason)


def _look(image):
    if isinstance(image, np.ndarray):
        kind, pixels = "array", image
    else:
        encoded = _read(image)
        kind = _check_header(encoded)
        pixels = _decode(encoded)
    height, width, channels = pixels.shape
    if channels == 3 and (pixels[..., :1] == pixels[..., 1:]).all():
        pixels = np.ascontiguousarray(pixels[..., :1])
    digest = blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return Look(kind, height, width, channels, digest.digest(), _thumbnail(pixels))


def _read(image):
    if isinstance(image, Path):
        try:
            if image.stat().st_size > MAX_BYTES:
                raise Unusable(f"more than the {MAX_BYTES // 1024**2} MiB allowed; scale it down")
            image = image.read_bytes()
        except OSError as error:
            raise Unusable(f"cannot be opened ({error.strerror})") from error
    if not image:
        raise Unusable("empty, 0 bytes")
    return image


@contextmanager
def _quiet_headers():
    """PIL without its own limit on pixels and its warnings: the limit here is `MAX_PIXELS`."""
    from PIL import Image as pil

    limit = pil.MAX_IMAGE_PIXELS
    pil.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        pil.MAX_IMAGE_PIXELS = limit


def _check_header(encoded):
    """The format; raises before anything is decoded if the file is no image or too large a one."""
    from PIL import Image as pil
    from PIL import UnidentifiedImageError

    try:
        with pil.open(io.BytesIO(encoded), formats=FORMATS) as header:
            kind, (width, height) = header.format, header.size
    except UnidentifiedImageError as error:
        raise Unusable("no readable JPEG, PNG, BMP, GIF or WebP image, whatever its name says") from error
    except Exception as error:  # on damaged headers PIL raises a dozen kinds of exception
        raise Unusable("damaged or cut short: its header cannot be read") from error
    if width * height > MAX_PIXELS:
        raise Unusable(
            f"{width} x {height} pixels is more than the {MAX_PIXELS // 1_000_000} million allowed; scale "
            f"it down"
        )
    if kind == "GIF" and _pixels_to_decode(encoded) > MAX_PIXELS:  # PIL knows only the screen they move on
        raise Unusable(
            f"its frames have more than the {MAX_PIXELS // 1_000_000} million pixels allowed together; take "
            f"one of them"
        )
    return "JPEG" if kind == "MPO" else kind  # a JPEG with a second picture behind it


def _pixels_to_decode(encoded) -> float:
    import tensorflow as tf

    with tf.device("/CPU:0"):
        return float(_declared_pixels()(tf.constant(encoded)))


@cache
def _declared_pixels():
    import tensorflow as tf

    from keras_vit.data.declared_pixels import declared_pixels

    # As a graph: its loop takes a step for each 255 bytes.
    return tf.function(declared_pixels, input_signature=[tf.TensorSpec([], tf.string)])


def _decode(encoded):
    import tensorflow as tf

    from keras_vit.data.preprocess import decode_image

    try:
        with tf.device("/CPU:0"):
            return decode_image(tf.constant(encoded)).numpy()
    except tf.errors.OpError as error:
        raise Unusable("cannot be decoded: cut short or damaged") from error


def _thumbnail(pixels):
    """Float, not uint8: what tells two textures apart is often less than one gray level."""
    from PIL import Image as pil

    step = max(1, min(pixels.shape[:2]) // (32 * THUMBNAIL))
    small = pixels[::step, ::step]
    gray = small[..., :3] @ LUMA if small.shape[-1] >= 3 else small[..., 0].astype(np.float32)
    size = (THUMBNAIL, THUMBNAIL)
    return np.asarray(pil.fromarray(np.ascontiguousarray(gray)).resize(size, pil.Resampling.BOX))
