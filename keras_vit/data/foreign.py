"""Files that TensorFlow does not decode, converted to PNG by Pillow: TIFF, AVIF, and the rarer kinds of BMP.

They become the bytes of a PNG with the same pixels, so that there is one preprocessing for all files. A
served graph has no Pillow: there, such a file cannot be decoded.
"""

import io
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from PIL import Image as pil

FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "AVIF")
"""The kinds of files that are read, as Pillow calls them."""

CONVERTED = ("TIFF", "AVIF")
"""Those of which TensorFlow decodes no file; some of BMP come in addition."""

OTHER_KINDS = (
    (4, (b"ftypheic", b"ftypheix", b"ftypheim", b"ftypheis", b"ftyphevc", b"ftypmif1", b"ftypmsf1"), "HEIC"),
    (0, (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"), "JPEG 2000"),
    (0, (b"\0\0\0\x0cJXL ", b"\xff\x0a"), "JPEG XL"),
    (4, (b"ftypcrx ",), "RAW"),
    (8, (b"CR\x02",), "RAW"),
    (0, (b"FUJIFILMCCD-RAW", b"IIRO", b"IIRS", b"IIU\0"), "RAW"),
    (0, (b"8BPS",), "Photoshop"),
    (0, (b"v/1\x01",), "OpenEXR"),
    (0, (b"%PDF",), "PDF"),
    (128, (b"DICM",), "DICOM"),
    (0, (b"SIMPLE  =",), "FITS"),
    (0, tuple(b"P%d%c" % (n, space) for n in range(1, 7) for space in b" \n\r\t"), "PNM"),
)
"""(position, first bytes there, name) of kinds of images that are not read."""

REDUCED, DNG_VERSION, BITS, PHOTOMETRIC = 254, 50706, 258, 262
"""Tags of TIFF 6.0 and of DNG."""


class UnreadableImage(Exception):
    """An image cannot be read. The message is the reason, written to follow the image's name and a colon."""


def name_of_other_kind(encoded: bytes) -> str | None:
    """What an image of a kind that is not read is called; `None` if its first bytes are not known."""
    for at, marks, name in OTHER_KINDS:
        if encoded[at : at + 32].startswith(marks):
            return name
    return None


def to_png(encoded: bytes) -> bytes:
    """The pixels of a file of `FORMATS` as a PNG, turned as the file says.

    Values of 16 bits are kept, and so is alpha; of several pages or frames the first is taken.

    Raises:
        UnreadableImage: the file is damaged, or its pixels are of a kind that has no equal in a PNG.
    """
    from PIL import Image as pil
    from PIL import ImageOps

    try:
        with pil.open(io.BytesIO(encoded), formats=FORMATS) as image:
            if image.format == "TIFF":
                _check_tiff(image)
            inverted = image.format == "TIFF" and _is_white_zero_of_16_bits(image)
            image.load()
            plain = _plain(ImageOps.exif_transpose(image), inverted)
    except UnreadableImage:
        raise
    except Exception as error:  # on damaged files PIL raises a dozen kinds of exception
        raise UnreadableImage("cannot be decoded: cut short or damaged") from error
    # Without the colour profile, the text and the Exif data of the file.
    png = io.BytesIO()
    pil.fromarray(np.asarray(plain)).save(png, "PNG", compress_level=1)
    return png.getvalue()


def has_16_bit_values(encoded: bytes) -> bool:
    """Whether `to_png` makes a PNG with 16 bits per channel of a file."""
    from PIL import Image as pil

    try:
        with pil.open(io.BytesIO(encoded), formats=CONVERTED) as image:
            return image.mode.startswith("I;16")
    except Exception:  # on damaged headers PIL raises a dozen kinds of exception
        return False


def _check_tiff(image: "pil.Image") -> None:
    tags = getattr(image, "tag_v2", {})
    if DNG_VERSION in tags or tags.get(REDUCED, 0) & 1:
        # The first image of a camera's raw file is a small preview.
        raise UnreadableImage("a RAW image, which is not read: develop it, and save it as PNG, TIFF or JPEG")
    bits = max(tags.get(BITS, (1,)))
    if bits > 8 and not image.mode.startswith("I;16"):
        raise UnreadableImage(
            f"a TIFF image with {bits} bits per value of a kind that is not read: save it as PNG with 16 "
            "bits per channel"
        )


def _is_white_zero_of_16_bits(image: "pil.Image") -> bool:
    """Whether 0 is white, which Pillow heeds for 8 bits and not for 16."""
    tags = getattr(image, "tag_v2", {})
    return tags.get(PHOTOMETRIC) == 0 and image.mode.startswith("I;16")


def _plain(image: "pil.Image", inverted: bool) -> "pil.Image | np.ndarray":
    """The image in a mode that a PNG has."""
    mode = image.mode
    if mode.startswith("I;16"):
        values = np.asarray(image).astype(np.uint16)
        return 65535 - values if inverted else values
    if mode == "1":
        return image.convert("L")
    if mode in ("L", "LA", "RGB", "RGBA"):
        return image
    if mode in ("P", "PA"):
        return image.convert("RGBA" if mode == "PA" or "transparency" in image.info else "RGB")
    if mode in ("La", "RGBa"):
        return image.convert(mode[:-1] + "A")
    if mode in ("CMYK", "YCbCr"):
        return image.convert("RGB")
    raise UnreadableImage(
        f"its pixels are of a kind that is not read (Pillow's mode {mode}): save it as PNG with 8 or 16 bits "
        "per channel"
    )
