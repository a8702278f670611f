"""Files that TensorFlow does not decode: TIFF, DICOM, AVIF, and the rarer kinds of BMP.

Pictures become the bytes of a PNG with the same pixels, so that there is one preprocessing for all of them.
Others become `Values`. A served graph decodes neither: the client sends it their pixels.
"""

import io
from typing import TYPE_CHECKING

import numpy as np

from keras_vit.data.dicom import is_dicom, read_dicom, values_of_dicom
from keras_vit.data.tiff import RGB, WHITE_IS_ZERO, TiffPage, is_tiff, read_tiff, tiff_header
from keras_vit.data.values import UnreadableImage, Values, is_measured

if TYPE_CHECKING:
    from PIL import Image as pil

DICOM = "DICOM"
FORMATS = ("JPEG", "PNG", "BMP", "GIF", "WEBP", "TIFF", "AVIF")
"""The kinds of files that Pillow reads, as it calls them."""

KINDS = (*FORMATS, DICOM)
"""The kinds of files that are read."""

CONVERTED = ("TIFF", "AVIF", DICOM)
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
    (0, (b"SIMPLE  =",), "FITS"),
    (0, tuple(b"P%d%c" % (n, space) for n in range(1, 7) for space in b" \n\r\t"), "PNM"),
)
"""(position, first bytes there, name) of kinds of images that are not read."""


def name_of_other_kind(encoded: bytes) -> str | None:
    """What an image of a kind that is not read is called; `None` if its first bytes are not known."""
    for at, marks, name in OTHER_KINDS:
        if encoded[at : at + 32].startswith(marks):
            return name
    return None


def read_foreign(
    encoded: bytes, kind: str, tiff_page: TiffPage = None, channels: int | None = None
) -> Values | bytes:
    """What is in a file that TensorFlow does not decode.

    Args:
        encoded: the file.
        kind: of it, one of `KINDS`.
        tiff_page: of a TIFF, see `tiff.tiff_header`.
        channels: of the run; `None` where there is none.

    Returns:
        Of a picture with 8 bits per channel the bytes of a PNG, of others `Values`.

    Raises:
        UnreadableImage: it is damaged, or of a kind that is not read.
        InputError: a package for such files is not installed.
    """
    if kind == DICOM:
        return read_dicom(encoded)
    if kind != "TIFF":
        return to_png(encoded)
    header = tiff_header(encoded, tiff_page)
    place = header.directories[tiff_page - 1 if isinstance(tiff_page, int) else 0]
    is_one_page = tiff_page != "channels" or len(header.directories) == 1
    if is_one_page and not is_measured(channels):
        # A fourth sample beside red, green and blue that is not alpha is dropped where colours are asked for.
        is_rgbx = (
            header.photometric == RGB and header.samples == 4 and header.bits <= 8 and channels is not None
        )
        if header.is_picture or is_rgbx:
            return to_png(encoded, place)
        if (header.bits, header.kind, header.samples) == (16, "u", 1):
            return _gray_of_16_bits(encoded, place, header.photometric == WHITE_IS_ZERO)
    return read_tiff(encoded, tiff_page, channels)


def stored_type(encoded: bytes, tiff_page: TiffPage = None) -> str | None:
    """The type of the values of a TIFF or a DICOM file by its header, such as `"uint16"`.

    Returns:
        `"window"` for a DICOM file that says how it is shown; `None` for other files.

    Raises:
        UnreadableImage: as `read_foreign`.
    """
    if is_dicom(encoded):
        return values_of_dicom(encoded)
    if not is_tiff(encoded):
        return None
    header = tiff_header(encoded, tiff_page)
    names = {"u": "uint", "i": "int", "f": "float"}
    return "uint8" if header.bits <= 8 and header.kind == "u" else f"{names[header.kind]}{header.bits}"


def to_png(encoded: bytes, page: int = 0) -> bytes:
    """The pixels of a picture of `FORMATS` as a PNG, turned as the file says.

    Alpha is kept; of several frames the first is taken.

    Args:
        encoded: the file.
        page: the position of the page of a TIFF.

    Raises:
        UnreadableImage: the file is damaged, or its pixels are of a kind that has no equal in a PNG.
    """
    from PIL import Image as pil
    from PIL import ImageOps

    try:
        with pil.open(io.BytesIO(encoded), formats=FORMATS) as image:
            if page:
                image.seek(page)
            image.load()
            plain = _plain(ImageOps.exif_transpose(image))
    except UnreadableImage:
        raise
    except Exception as error:  # on damaged files PIL raises a dozen kinds of exception
        raise UnreadableImage("cannot be decoded: cut short or damaged") from error
    # Without the colour profile, the text and the Exif data of the file.
    png = io.BytesIO()
    pil.fromarray(np.asarray(plain)).save(png, "PNG", compress_level=1)
    return png.getvalue()


def _gray_of_16_bits(encoded: bytes, page: int, inverted: bool) -> Values:
    """By Pillow, which needs no other package for a compressed TIFF."""
    from PIL import Image as pil
    from PIL import ImageOps

    try:
        with pil.open(io.BytesIO(encoded), formats=("TIFF",)) as image:
            image.seek(page)
            image.load()
            if not image.mode.startswith("I;16"):
                raise UnreadableImage(f"a TIFF of a kind that is not read (Pillow's mode {image.mode})")
            values = np.asarray(ImageOps.exif_transpose(image)).astype(np.uint16)[..., None]
    except UnreadableImage:
        raise
    except Exception as error:
        raise UnreadableImage("cannot be decoded: cut short or damaged") from error
    return Values(values, (0.0, 65535.0), inverted)


def _plain(image: "pil.Image") -> "pil.Image":
    """The image in a mode that a PNG has."""
    mode = image.mode
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
