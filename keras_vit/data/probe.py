"""Reads one image safely: whether it can be decoded, its kind and size, the fingerprint of its pixels."""

import io
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from hashlib import blake2b
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_vit.cache import IMAGE_BYTES
from keras_vit.data.damage import decoder_warning
from keras_vit.data.dicom import dicom_shape, is_dicom
from keras_vit.data.foreign import (
    CONVERTED,
    DICOM,
    FORMATS,
    name_of_other_kind,
    read_foreign,
    stored_type,
    to_png,
)
from keras_vit.data.image_set import Image
from keras_vit.data.tiff import TiffPage, is_tiff, tiff_header
from keras_vit.data.values import (
    COLORS,
    UnreadableImage,
    Values,
    channels_to_show,
    is_measured,
    to_pixels,
)
from keras_vit.files import read_bytes

if TYPE_CHECKING:
    from keras_vit.data.decode import Decoding

KINDS = "JPEG, PNG, BMP, GIF, WebP, TIFF, DICOM or AVIF"
MAX_PIXELS = 100_000_000
MAX_BYTES = IMAGE_BYTES  # of one file: far above what MAX_PIXELS of photographs take
HEADER = 132  # bytes, which tell the kind of a file and the bits of a PNG
DOUBTFUL = {b"ftypavif": "an AVIF", b"ftypavis": "an AVIF"}
"""Beginnings of files of which Pillow reads some kinds and calls the others unknown."""
WITH_PAGES = ("GIF", "WEBP", "AVIF", "PNG")
STARTS = (b"\xff\xd8", b"\x89PNG", b"GIF8", b"BM", b"RIFF")
THUMBNAIL = 32  # pixels per side
LUMA = np.array((0.299, 0.587, 0.114), np.float32)


@dataclass(frozen=True, slots=True)
class ImageInfo:
    """What the audit keeps of an image.

    Args:
        kind: one of `FORMATS`, or `"array"` for pixels in memory.
        height: of the decoded pixels, as a viewer shows them.
        width: of the decoded pixels.
        channels: of the decoded pixels, without alpha.
        digest: fingerprint of the decoded pixels, three equal channels counted as one; empty if nobody asked.
        thumbnail: float32 (32, 32), gray, in 0..255; `None` if nobody asked.
        bits: per channel that are read: 8, 16, or 32 for other numbers.
        stored: the type of the values that are stored, such as `"uint16"` or `"float32"`.
        converted: whether Pillow reads the file and TensorFlow does not, so that a served graph cannot.
        warning: what the decoder complains about, as half a sentence; `None` if it is content.
        has_more: whether the file has further pages or frames, which are not read.
    """

    kind: str
    height: int
    width: int
    channels: int
    digest: bytes
    thumbnail: np.ndarray | None
    bits: int = 8
    converted: bool = False
    warning: str | None = None
    has_more: bool = False
    stored: str = "uint8"


def probe_image(
    image: Image, decoding: "Decoding | None" = None, digest: bool = True, thumbnail: bool = True
) -> tuple[ImageInfo, np.ndarray]:
    """Reads and decodes one image, once. Many images are read by `reading.read_images`, in threads.

    Args:
        image: a file, its bytes, or pixels; of uint8 pixels with 2 or 4 channels the last one is alpha,
            unless the `decoding` is for channels of measurement.
        decoding: how a file becomes pixels; `None` for the defaults.
        digest: whether the fingerprint is computed.
        thumbnail: whether the thumbnail is made.

    Returns:
        What is known of it, and its pixels (height, width, channels) in 0..255: uint8, or float32 for a file
        with more than 8 bits per channel.

    Raises:
        UnreadableImage: the image cannot be decoded, is larger than the limits of this module, or has 8 bits
            where the `decoding` has a range of 16 bits.
    """
    from keras_vit.data.decode import DEFAULT

    decoding = decoding or DEFAULT
    if isinstance(image, np.ndarray):
        pixels = image
        if image.dtype == np.uint8:
            _check_bits(8, decoding)
            pixels = _without_alpha(image, decoding)
        _check_channels(pixels, decoding)
        return _info("array", pixels, 8, digest, thumbnail), pixels
    encoded = bytes_of(image)
    kind, has_more = _check_header(encoded, decoding.tiff_page)
    warning, stored = None, "uint8"
    converted = is_converted(encoded, kind)
    found = read_foreign(encoded, kind, decoding.tiff_page, decoding.channels) if converted else encoded
    if isinstance(found, Values):
        bits, stored = _bits_of_values(found, decoding), found.stored
        _check_bits(bits, decoding)
        pixels = _pixels_of(found, decoding)
    else:
        bits = bits_of(found)
        stored = "uint16" if bits == 16 else stored
        _check_bits(bits, decoding)
        pixels = _decode(found, bits, decoding)
    _check_channels(pixels, decoding)
    if not converted:
        warning = decoder_warning(encoded, kind)
    info = _info(kind, pixels, bits, digest, thumbnail)
    return replace(info, converted=converted, warning=warning, has_more=has_more, stored=stored), pixels


def stored_values(image: Image, decoding: "Decoding") -> np.ndarray | None:
    """The values of an image with more than 8 bits in the units of its file, without alpha.

    Args:
        image: a file or its bytes; of pixels in memory nothing is known.
        decoding: with the channels and the page of the run.

    Returns:
        (height, width, channels); `None` if it has 8 bits.

    Raises:
        UnreadableImage: it cannot be read.
    """
    if isinstance(image, np.ndarray):
        return None
    encoded = bytes_of(image)
    found = native_or_values(encoded, decoding.tiff_page, decoding.channels)
    if isinstance(found, Values):
        if found.inverted and decoding.inverts_values and found.values.dtype == np.uint16:
            return 65535 - found.values
        return None if found.values.dtype == np.uint8 else found.values
    encoded = found
    if bits_of(encoded) == 8:
        return None
    import tensorflow as tf

    from keras_vit.data.decode import values_16_bits

    try:
        with tf.device("/CPU:0"):
            return values_16_bits(tf.constant(encoded)).numpy()
    except tf.errors.OpError as error:
        raise UnreadableImage("cannot be decoded: cut short or damaged") from error


def native_or_values(encoded: bytes, tiff_page: TiffPage, channels: int | None) -> bytes | Values:
    """The bytes of a file that TensorFlow decodes; of another file a PNG of the picture, or its values.

    Args:
        encoded: the file.
        tiff_page: of a TIFF, see `tiff.tiff_header`.
        channels: of the run.

    Raises:
        UnreadableImage: the file is damaged, or of a kind that is not read.
    """
    kind, _ = _check_header(encoded, tiff_page)
    return read_foreign(encoded, kind, tiff_page, channels) if is_converted(encoded, kind) else encoded


def native_or_pixels(encoded: bytes, decoding: "Decoding") -> bytes | np.ndarray:
    """The bytes of a file that TensorFlow decodes; of another file a PNG of the picture, or its pixels.

    Raises:
        UnreadableImage: the file is damaged, or of a kind that is not read, or has no such values.
    """
    found = native_or_values(encoded, decoding.tiff_page, decoding.channels)
    if not isinstance(found, Values):
        return found
    _check_bits(_bits_of_values(found, decoding), decoding)
    pixels = _pixels_of(found, decoding)
    _check_channels(pixels, decoding)
    return pixels


def _bits_of_values(found, decoding):
    if found.values.dtype == np.uint8 or (decoding.pixel_range is None and found.has_window):
        return 8
    return 16 if found.values.dtype == np.uint16 else 32


def _pixels_of(found, decoding):
    count = found.values.shape[-1]
    if decoding.channels in COLORS and count not in COLORS:
        raise UnreadableImage(
            f"it has {count} channels of measurement, and the run takes {decoding.channels}: --channels "
            f"{count} takes them"
        )
    return to_pixels(
        found,
        decoding.pixel_range,
        None if is_measured(decoding.channels) else decoding.background,
        decoding.inverts_values,
    )


def _check_channels(pixels, decoding):
    count, wanted = pixels.shape[-1], decoding.channels
    if wanted is None:
        return
    if is_measured(wanted) and count != wanted:
        raise UnreadableImage(
            f"it has {count} channel{'s' * (count > 1)}, and the run takes {wanted} of measurement (alpha is "
            "none of them)"
        )
    if not is_measured(wanted) and count > 4:
        raise UnreadableImage(
            f"it has {count} channels, and the run takes {wanted}: --channels {count} takes them"
        )


def is_converted(encoded: bytes, kind: str) -> bool:
    """Whether TensorFlow does not decode such a file, so that `foreign.to_png` has to."""
    return kind in CONVERTED or (kind == "BMP" and not _is_plain_bmp(encoded))


def bits_of(encoded: bytes) -> int:
    """The bits per channel that are read of a file that TensorFlow decodes: 16 for such a PNG, or else 8."""
    return 16 if encoded[:4] == b"\x89PNG" and encoded[24:25] == b"\x10" else 8


def stored_type_of(image: Image, decoding: "Decoding") -> str | None:
    """The type of the values of an image by its header: `"uint8"`, `"uint16"`, `"float32"`, ...

    Returns:
        `"window"` for a DICOM file that says how it is shown; `None` for what is not an image that is read.
    """
    if isinstance(image, np.ndarray):
        return "uint8"
    try:
        head = read_bytes(image, MAX_BYTES, HEADER) if isinstance(image, Path) else image[:HEADER]
        if is_tiff(head) or is_dicom(head):
            return stored_type(bytes_of(image), decoding.tiff_page)
    except (OSError, ValueError, UnreadableImage):
        return None
    if head.startswith(STARTS) or head[4:8] == b"ftyp":
        return "uint16" if bits_of(head) == 16 else "uint8"
    return None


def shown_pixels(image: Image, decoding: "Decoding | None" = None) -> np.ndarray:
    """An image in its original size, for people to see: uint8 (height, width, 1 or 3).

    Of channels of measurement it has those that the `decoding` names.

    Raises:
        UnreadableImage: as `probe_image`.
    """
    return to_show(whole_pixels(image, decoding), decoding)


def whole_pixels(image: Image, decoding: "Decoding | None" = None) -> np.ndarray:
    """An image in its original size with all channels but alpha: uint8 (height, width, channels).

    Raises:
        UnreadableImage: as `probe_image`.
    """
    if isinstance(image, np.ndarray) and decoding is not None:  # pixels that were kept have had their range
        decoding = replace(decoding, pixel_range=None)
    with quiet_headers():
        pixels = probe_image(image, decoding)[1]
    if decoding is None or not is_measured(decoding.channels):  # two are gray with alpha, four RGB with alpha
        pixels = pixels[..., : 1 if pixels.shape[-1] < 3 else 3]
    return to_uint8(pixels)


def to_show(pixels: np.ndarray, decoding: "Decoding | None") -> np.ndarray:
    """The channels that people see: those that are named, or the first three; of two the first.

    Args:
        pixels: (..., channels).
        decoding: of a run; `None` for none.

    Returns:
        (..., 1 or 3).
    """
    if pixels.shape[-1] in COLORS:
        return pixels
    return pixels[
        ..., channels_to_show(pixels.shape[-1], None if decoding is None else decoding.shown_channels)
    ]


def to_uint8(pixels: np.ndarray) -> np.ndarray:
    """Pixels in 0..255 as whole numbers."""
    return pixels if pixels.dtype == np.uint8 else np.rint(np.clip(pixels, 0, 255)).astype(np.uint8)


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


def _check_bits(bits, decoding):
    if bits == 8 and decoding.pixel_range is not None:
        low, high = decoding.pixel_range[:2]
        raise UnreadableImage(
            f"8 bits per channel, but the range of values, {low:g} to {high:g}, is for images with more; "
            "give the image as its camera has stored it"
        )


def _info(kind, pixels, bits, digest, thumbnail):
    height, width, channels = pixels.shape
    if (digest or thumbnail) and channels == 3 and (pixels[..., :1] == pixels[..., 1:]).all():
        pixels = np.ascontiguousarray(pixels[..., :1])
    found = _digest(pixels) if digest else b""
    return ImageInfo(kind, height, width, channels, found, _thumbnail(pixels) if thumbnail else None, bits)


def _digest(pixels):
    digest = blake2b(repr(pixels.shape).encode(), digest_size=16)
    digest.update(np.ascontiguousarray(pixels).data)
    return digest.digest()


def bytes_of(image: Path | bytes) -> bytes:
    """The bytes of an image file.

    Raises:
        UnreadableImage: it cannot be opened, is empty, is not a regular file, or has more than `MAX_BYTES`.
    """
    if isinstance(image, Path):
        try:
            image = read_bytes(image, MAX_BYTES)
        except (OSError, ValueError) as error:  # ValueError: a name with a zero byte
            raise UnreadableImage(f"cannot be opened ({getattr(error, 'strerror', error)})") from error
    if not image:
        raise UnreadableImage("empty, 0 bytes")
    return image


def _check_header(encoded, tiff_page):
    """The format, and whether there are further pages or frames.

    Raises before anything is decoded if the file is not an image or is too large.
    """
    if is_tiff(encoded):
        header = tiff_header(encoded, tiff_page)
        _check_size(header.width, header.height, header.samples)
        return "TIFF", tiff_page != "channels" and len(header.directories) > 1
    if is_dicom(encoded):
        height, width, channels = dicom_shape(encoded)
        _check_size(width, height, channels)
        return DICOM, False
    kind, width, height, has_more = _header_of_pillow(encoded)
    _check_size(width, height)
    if kind == "GIF" and _pixels_to_decode(encoded) > MAX_PIXELS:  # PIL knows the size of the screen only
        raise UnreadableImage(
            f"its frames have more than the {MAX_PIXELS // 1_000_000} million pixels allowed together; take "
            "one of them"
        )
    return kind, has_more


def _check_size(width, height, channels=1):
    millions = MAX_PIXELS // 1_000_000
    if width * height > MAX_PIXELS:
        raise UnreadableImage(
            f"{width} x {height} pixels is more than the {millions} million allowed; scale it down"
        )
    if width * height * channels > 4 * MAX_PIXELS:
        raise UnreadableImage(
            f"{width} x {height} pixels of {channels} channels are more than the {4 * millions} million "
            "values allowed; scale it down"
        )


def _header_of_pillow(encoded):
    """Kind, width, height, and whether there are further frames."""
    from PIL import Image as pil
    from PIL import UnidentifiedImageError

    try:
        with pil.open(io.BytesIO(encoded), formats=FORMATS) as header:
            kind, (width, height) = header.format, header.size
            has_more = kind in WITH_PAGES and _has_more(header)
    except UnidentifiedImageError as error:
        if name := name_of_other_kind(encoded):
            raise UnreadableImage(f"a {name} file, which is not read: save it as PNG or JPEG") from error
        for start, name in DOUBTFUL.items():
            if encoded.startswith(start) or encoded[4:12] == start:
                raise UnreadableImage(
                    f"{name} file that is damaged, or of a kind that is not read: save it as PNG"
                ) from error
        raise UnreadableImage(f"not a readable {KINDS} image, whatever its name says") from error
    except Exception as error:  # on damaged headers PIL raises a dozen kinds of exception
        raise UnreadableImage("damaged or cut short: its header cannot be read") from error
    return "JPEG" if kind == "MPO" else kind, width, height, has_more  # MPO: a second picture behind a JPEG


def _has_more(header):
    try:
        return bool(header.is_animated)
    except Exception:  # on damaged frames PIL raises a dozen kinds of exception
        return False  # whatever is damaged there is not read


def _pixels_to_decode(encoded: bytes) -> float:
    import tensorflow as tf

    with tf.device("/CPU:0"):
        return float(_declared_pixels()(tf.constant(encoded)))


def _decode(encoded, bits, decoding):
    import tensorflow as tf

    try:
        with tf.device("/CPU:0"):
            return _decoder(bits, is_plain(encoded), decoding)(tf.constant(encoded)).numpy()
    except tf.errors.OpError as error:
        # libpng has the last word on a PNG. Of JPEG, Pillow may know kinds that TensorFlow does not.
        if encoded[:2] == b"\xff\xd8" and _pillow_reads(encoded):
            raise UnreadableImage("valid, but of a kind that is not read: save it as PNG") from error
        raise UnreadableImage("cannot be decoded: cut short or damaged") from error


def _without_alpha(pixels, decoding):
    from keras_vit.data.decode import on_background, rgb

    if pixels.shape[-1] not in (2, 4) or decoding.background is None or is_measured(decoding.channels):
        return pixels
    return on_background(pixels, rgb(decoding.background)).numpy()


def _pillow_reads(encoded):
    try:
        to_png(encoded)
    except UnreadableImage:
        return False
    return True


@cache
def _declared_pixels() -> Any:
    import tensorflow as tf

    from keras_vit.data.declared_pixels import declared_pixels

    # As a graph: its loop takes a step for each 255 bytes.
    return tf.function(declared_pixels, input_signature=[tf.TensorSpec([], tf.string)])


def is_plain(encoded: bytes) -> bool:
    """`decode.are_plain` for one file, without TensorFlow: most files are, and are decoded faster."""
    if encoded[:2] == b"\xff\xd8":
        return b"Exif\0\0" not in encoded
    is_png = encoded[:4] == b"\x89PNG" and encoded[24:25] != b"\x10"
    return is_png and b"eXIf" not in encoded and b"tRNS" not in encoded


@cache
def _decoder(bits: int, plain: bool, decoding: "Decoding") -> Any:
    import tensorflow as tf

    from keras_vit.data.decode import decode_8_bits, decode_16_bits, decode_plain

    # With a range of 16 bits, `_check_bits` has refused files with 8.
    decode = decode_16_bits if bits == 16 else decode_plain if plain else decode_8_bits
    # As a graph: one call from Python per image, instead of one per operation. As one concrete graph:
    # `tf.function` would look for it at each call.
    return tf.function(
        lambda encoded: decode(encoded, decoding), input_signature=[tf.TensorSpec([], tf.string)]
    ).get_concrete_function()


def _is_plain_bmp(encoded: bytes) -> bool:
    import tensorflow as tf

    with tf.device("/CPU:0"):
        return bool(_plain_bmp()(tf.constant(encoded[:128])))


@cache
def _plain_bmp() -> Any:
    import tensorflow as tf

    from keras_vit.data.decode import is_plain_bmp

    return tf.function(is_plain_bmp, input_signature=[tf.TensorSpec([], tf.string)])


def _thumbnail(pixels):
    """Float, not uint8: what distinguishes two textures is often less than one gray level."""
    from PIL import Image as pil

    step = max(1, min(pixels.shape[:2]) // (32 * THUMBNAIL))
    small = pixels[::step, ::step]
    count = small.shape[-1]
    if count > 4:  # of measurement
        gray = small.mean(axis=-1, dtype=np.float32)
    else:
        gray = small[..., :3] @ LUMA if count >= 3 else small[..., 0].astype(np.float32)
    size = (THUMBNAIL, THUMBNAIL)
    gray = np.ascontiguousarray(gray, np.float32)
    return np.asarray(pil.fromarray(gray).resize(size, pil.Resampling.BOX))
