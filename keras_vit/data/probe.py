"""Reads one image safely: whether it can be decoded, its kind and size, the fingerprint of its pixels."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

from keras_vit.cache import IMAGE_BYTES
from keras_vit.data.image_set import Image
from keras_vit.files import read_bytes

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP")
MAX_PIXELS = 100_000_000
MAX_BYTES = IMAGE_BYTES  # of one file: far above what MAX_PIXELS of photographs take
THUMBNAIL = 32  # pixels per side
LUMA = np.array((0.299, 0.587, 0.114), np.float32)


@dataclass(frozen=True)
class ImageInfo:
    """What the audit keeps of an image.

    Args:
        kind: `"JPEG"`, `"PNG"`, `"BMP"`, `"GIF"`, `"WEBP"`, or `"array"` for pixels in memory.
        height: of the decoded pixels.
        width: of the decoded pixels.
        channels: of the decoded pixels.
        digest: fingerprint of the decoded pixels, three equal channels counted as one.
        thumbnail: float32 (32, 32), gray, in 0..255.
    """

    kind: str
    height: int
    width: int
    channels: int
    digest: bytes
    thumbnail: np.ndarray


class UnreadableImage(Exception):
    """An image cannot be read. The message is the reason, written to follow the image's name and a colon."""


def probe_image(image: Image) -> tuple[ImageInfo, np.ndarray]:
    """Reads and decodes one image, once. Many images are read by `reading.read_images`, in threads.

    Returns:
        What is known of it, and its pixels, uint8 (height, width, 1 to 4).

    Raises:
        UnreadableImage: the image cannot be decoded, or is larger than the limits of this module.
    """
    if isinstance(image, np.ndarray):
        kind, pixels = "array", image
    else:
        encoded = _read(image)
        kind = _check_header(encoded)
        pixels = _decode(encoded)
    return _info(kind, pixels), pixels


def why_unreadable(image: Image) -> str | None:
    """Why an image cannot be read, as half a sentence; `None` if it can be."""
    try:
        with quiet_headers():
            probe_image(image)
    except UnreadableImage as reason:
        return str(reason)
    return None


@contextmanager
def quiet_headers() -> Iterator[None]:
    """PIL without its own limit on pixels and its warnings: `MAX_PIXELS` is the limit here.

    Around all threads that call `probe_image`, because PIL's limit is a global variable.
    """
    from PIL import Image as pil

    limit = pil.MAX_IMAGE_PIXELS
    pil.MAX_IMAGE_PIXELS = None
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    finally:
        pil.MAX_IMAGE_PIXELS = limit


def _info(kind, pixels):
    height, width, channels = pixels.shape
    if channels == 3 and (pixels[..., :1] == pixels[..., 1:]).all():
        pixels = np.ascontiguousarray(pixels[..., :1])
    digest = blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return ImageInfo(kind, height, width, channels, digest.digest(), _thumbnail(pixels))


def _read(image):
    if isinstance(image, Path):
        try:
            image = read_bytes(image, MAX_BYTES)
        except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
            raise UnreadableImage(f"cannot be opened ({getattr(error, 'strerror', error)})") from error
    if not image:
        raise UnreadableImage("empty, 0 bytes")
    return image


def _check_header(encoded):
    """The format; raises before anything is decoded if the file is not an image or is too large."""
    from PIL import Image as pil
    from PIL import UnidentifiedImageError

    try:
        with pil.open(io.BytesIO(encoded), formats=FORMATS) as header:
            kind, (width, height) = header.format, header.size
    except UnidentifiedImageError as error:
        raise UnreadableImage(
            "not a readable JPEG, PNG, BMP, GIF or WebP image, whatever its name says"
        ) from error
    except Exception as error:  # on damaged headers PIL raises a dozen kinds of exception
        raise UnreadableImage("damaged or cut short: its header cannot be read") from error
    millions = MAX_PIXELS // 1_000_000
    if width * height > MAX_PIXELS:
        raise UnreadableImage(
            f"{width} x {height} pixels is more than the {millions} million allowed; scale it down"
        )
    if kind == "GIF" and _pixels_to_decode(encoded) > MAX_PIXELS:  # PIL knows the size of the screen only
        raise UnreadableImage(
            f"its frames have more than the {millions} million pixels allowed together; take one of them"
        )
    return "JPEG" if kind == "MPO" else kind  # a JPEG with a second picture behind it


def _pixels_to_decode(encoded: bytes) -> float:
    import tensorflow as tf

    with tf.device("/CPU:0"):
        return float(_declared_pixels()(tf.constant(encoded)))


def _decode(encoded):
    import tensorflow as tf

    try:
        with tf.device("/CPU:0"):
            return _decoder()(tf.constant(encoded)).numpy()
    except tf.errors.OpError as error:
        raise UnreadableImage("cannot be decoded: cut short or damaged") from error


@cache
def _declared_pixels() -> Any:
    import tensorflow as tf

    from keras_vit.data.declared_pixels import declared_pixels

    # As a graph: its loop takes a step for each 255 bytes.
    return tf.function(declared_pixels, input_signature=[tf.TensorSpec([], tf.string)])


@cache
def _decoder() -> Any:
    import tensorflow as tf

    from keras_vit.data.preprocess import decode_image

    # As a graph: one call from Python per image, instead of one per operation.
    return tf.function(decode_image, input_signature=[tf.TensorSpec([], tf.string)])


def _thumbnail(pixels):
    """Float, not uint8: what distinguishes two textures is often less than one gray level."""
    from PIL import Image as pil

    step = max(1, min(pixels.shape[:2]) // (32 * THUMBNAIL))
    small = pixels[::step, ::step]
    gray = small[..., :3] @ LUMA if small.shape[-1] >= 3 else small[..., 0].astype(np.float32)
    size = (THUMBNAIL, THUMBNAIL)
    return np.asarray(pil.fromarray(np.ascontiguousarray(gray)).resize(size, pil.Resampling.BOX))
