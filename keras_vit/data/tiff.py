"""TIFF files whose pixels are more than 8 bits of gray or colour, read by tifffile.

What Pillow reads as it is meant, it reads: see `foreign`.
"""

import io
import logging
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from keras_vit.data.values import MOST_CHANNELS, UnreadableImage, Values, is_measured
from keras_vit.errors import InputError

logging.getLogger("tifffile").addHandler(
    logging.NullHandler()
)  # what it logs would be printed without a name

TiffPage = int | Literal["channels"] | None

STARTS = (b"II*\0", b"MM\0*", b"II+\0", b"MM\0+")
"""The first bytes, of both orders; the last two are of BigTIFF."""

WHITE_IS_ZERO, BLACK_IS_ZERO, RGB, PALETTE = 0, 1, 2, 3
"""Values of PhotometricInterpretation, TIFF 6.0."""

ALPHA = (1, 2)
"""Values of ExtraSamples that mean alpha; 0 is any other sample."""

REDUCED, MASK = 1, 4
"""Bits of NewSubfileType: smaller versions of another page, and masks."""

DNG_VERSION = 50706
"""A tag of camera's raw files."""

NO_COMPRESSION = 1
COUNTED = 1_000
"""Pages after which nobody counts."""

DAMAGED = "cannot be decoded: cut short or damaged"


@dataclass(frozen=True)
class TiffHeader:
    """What a TIFF says of itself.

    Args:
        directories: the positions in the file of its pages, without smaller versions of them and masks.
        height: of the page that is read, as stored.
        width: of it.
        samples: values per pixel, of all pages where pages are channels.
        bits: per value.
        kind: of the values, as numpy calls it: `"u"`, `"i"`, `"f"`.
        photometric: PhotometricInterpretation.
        extra: ExtraSamples.
        orientation: 1 to 8.
        compression: its number.
    """

    directories: tuple[int, ...]
    height: int
    width: int
    samples: int
    bits: int
    kind: str
    photometric: int
    extra: tuple[int, ...]
    orientation: int
    compression: int

    @property
    def has_alpha(self) -> bool:
        """Whether the last sample is marked as alpha."""
        colors = self.samples - 1
        return colors in (1, 3) and self.extra[-1:] != () and self.extra[-1] in ALPHA

    @property
    def channels(self) -> int:
        """Values per pixel without alpha."""
        if self.photometric == PALETTE:
            return 3
        return self.samples - self.has_alpha

    @property
    def is_picture(self) -> bool:
        """Whether it is gray or in colour with 8 bits at most, or a kind of colour that only Pillow knows."""
        if self.photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB):
            return self.bits <= 8 and self.kind == "u"
        return self.bits <= 8 and self.kind == "u" and self.channels in (1, 3)


def is_tiff(encoded: bytes) -> bool:
    """Whether the first bytes are those of a TIFF."""
    return encoded[:4] in STARTS


def tiff_header(encoded: bytes, tiff_page: TiffPage = None) -> TiffHeader:
    """What a TIFF says of the page that is read; nothing is decoded.

    Args:
        encoded: the file.
        tiff_page: the number of the page, from 1; `"channels"` takes all pages as channels; `None` refuses
            files with several.

    Raises:
        UnreadableImage: it is damaged, has several pages and nobody says which, or has no such page.
    """
    with _opened(encoded) as file:
        return _header(file, tiff_page)


def read_tiff(encoded: bytes, tiff_page: TiffPage = None, channels: int | None = None) -> Values:
    """The values of a TIFF.

    Args:
        encoded: the file.
        tiff_page: as `tiff_header`.
        channels: of the run. Where these are channels of measurement, alpha is one of them.

    Raises:
        UnreadableImage: it is damaged, or of a kind that is not read, or has values that are not finite.
    """
    with _opened(encoded) as file:
        header = _header(file, tiff_page)
        if header.photometric not in (WHITE_IS_ZERO, BLACK_IS_ZERO, RGB):
            raise UnreadableImage(
                f"a TIFF with {header.bits} bits per value of a kind of colour that is not read: save it as "
                "gray, RGB, or channels"
            )
        pages = header.directories if tiff_page == "channels" else [header.directories[(tiff_page or 1) - 1]]
        values = np.concatenate([_decoded(file, number, encoded) for number in pages], axis=-1)
    alpha = None
    if header.has_alpha and not is_measured(channels):
        top = np.iinfo(values.dtype).max if values.dtype.kind == "u" else 1
        alpha = np.clip(values[..., -1:].astype(np.float32) / top, 0, 1)
        values = values[..., :-1]
    if values.dtype.kind == "f":
        check_finite(values)
    values = oriented(_narrow(values), header.orientation)
    if alpha is not None:
        alpha = oriented(alpha, header.orientation)
    own = {"uint8": (0.0, 255.0), "uint16": (0.0, 65535.0), "bool": (0.0, 1.0)}.get(str(values.dtype))
    if values.dtype == bool:
        values, own = np.where(values, np.uint8(255), np.uint8(0)), (0.0, 255.0)
    return Values(values, own, header.photometric == WHITE_IS_ZERO, alpha)


def check_finite(values: np.ndarray) -> None:
    """Raises `UnreadableImage` if a value is NaN or infinite."""
    wrong = values.size - int(np.isfinite(values).sum())
    if wrong:
        raise UnreadableImage(
            f"{wrong:,} of its {values.size:,} values are NaN or infinite: replace them, or leave the image "
            "out"
        )


def oriented(values: np.ndarray, orientation: int) -> np.ndarray:
    """Values (height, width, channels) turned as a viewer does; see `orientation` for the numbers."""
    if orientation >= 5:
        values = values.transpose(1, 0, 2)
    if orientation in (2, 3, 6, 7):
        values = values[:, ::-1]
    if orientation in (3, 4, 7, 8):
        values = values[::-1]
    return np.ascontiguousarray(values)


def write_tiff(values: np.ndarray, inverted: bool = False) -> bytes:
    """A TIFF in memory with these values (height, width, channels), without compression."""
    import tifffile

    file = io.BytesIO()
    tifffile.imwrite(
        file,
        values[..., 0] if values.shape[-1] == 1 else np.ascontiguousarray(values),
        photometric="miniswhite" if inverted else "rgb" if values.shape[-1] == 3 else "minisblack",
        planarconfig=None if values.shape[-1] == 1 else "contig",
        extrasamples=[0] * (values.shape[-1] - 1) if values.shape[-1] not in (1, 3) else None,
        metadata=None,
    )
    return file.getvalue()


class _opened:
    """A TIFF in memory, opened by tifffile; whatever it raises becomes `UnreadableImage`."""

    def __init__(self, encoded: bytes) -> None:
        self.encoded = encoded

    def __enter__(self) -> Any:
        import tifffile

        try:
            self.file = tifffile.TiffFile(io.BytesIO(self.encoded))
        except Exception as error:  # on damaged files it raises a dozen kinds of exception
            raise UnreadableImage("damaged or cut short: its header cannot be read") from error
        return self.file

    def __exit__(self, kind: Any, error: BaseException | None, trace: Any) -> None:
        self.file.close()
        if isinstance(error, Exception) and not isinstance(error, UnreadableImage | InputError):
            raise UnreadableImage(DAMAGED) from error


def _header(file: Any, tiff_page: TiffPage) -> TiffHeader:
    directories: list[int] = []
    for number, page in enumerate(file.pages):
        if number >= COUNTED:
            break
        if not number and (DNG_VERSION in page.tags or int(page.subfiletype or 0) & REDUCED):
            # The first image of a camera's raw file is a small preview.
            raise UnreadableImage(
                "a RAW image, which is not read: develop it, and save it as PNG, TIFF or JPEG"
            )
        if not int(page.subfiletype or 0) & (REDUCED | MASK):
            directories.append(number)
    if not directories:
        raise UnreadableImage("damaged or cut short: its header cannot be read")
    count = len(directories)
    if tiff_page is None and count > 1:
        many = f"more than {COUNTED:,}" if count >= COUNTED else str(count)
        raise UnreadableImage(
            f"a TIFF with {many} pages: --tiff-page 1 reads the first one of each file, --tiff-page channels "
            "reads the pages as channels"
        )
    if isinstance(tiff_page, int) and tiff_page > count:
        raise UnreadableImage(f"a TIFF with {count} page{'s' * (count > 1)}, so there is no page {tiff_page}")
    number = directories[tiff_page - 1 if isinstance(tiff_page, int) else 0]
    header = _header_of_page(file.pages[number], tuple(directories))
    if tiff_page != "channels" or count == 1:
        return header
    if count > MOST_CHANNELS:
        raise UnreadableImage(
            f"a TIFF with {count} pages, and at most {MOST_CHANNELS} channels are read: save those that count"
        )
    samples = 0
    for other in directories:
        found = _header_of_page(file.pages[other], ())
        if (found.height, found.width) != (header.height, header.width):
            raise UnreadableImage(
                f"a TIFF whose pages differ in size, {header.width} x {header.height} and {found.width} x "
                f"{found.height} pixels: pages that are channels have one size"
            )
        if (found.bits, found.kind) != (header.bits, header.kind):
            raise UnreadableImage("a TIFF whose pages have values of different types: save them in one")
        samples += found.samples
    photometric = WHITE_IS_ZERO if header.photometric == WHITE_IS_ZERO else BLACK_IS_ZERO
    return TiffHeader(
        tuple(directories), header.height, header.width, samples, header.bits, header.kind, photometric,
        (), header.orientation, header.compression,
    )  # fmt: skip


def _header_of_page(page: Any, directories: tuple[int, ...]) -> TiffHeader:
    bits = page.bitspersample
    bits = max(bits) if isinstance(bits, tuple) else int(bits)
    if page.imagedepth > 1:
        raise UnreadableImage("a TIFF of a volume, which is not read: save its planes as files")
    kind = page.dtype.kind if page.dtype is not None else "u" if bits <= 8 else "?"
    if kind not in "buif":
        raise UnreadableImage(
            "a TIFF with values of a kind that is not read: save it with whole numbers or float32"
        )
    orientation = page.tags.valueof(274, 1)
    return TiffHeader(
        directories=directories,
        height=int(page.imagelength),
        width=int(page.imagewidth),
        samples=int(page.samplesperpixel),
        bits=bits,
        kind="u" if kind == "b" else kind,
        photometric=int(page.photometric),
        extra=tuple(int(value) for value in _sequence(page.extrasamples)),
        orientation=orientation if orientation in range(1, 9) else 1,
        compression=int(page.compression),
    )


def _sequence(value: Any) -> Sequence[Any]:
    return () if value is None else value if isinstance(value, Sequence) else (value,)


def _decoded(file: Any, number: int, encoded: bytes) -> np.ndarray:
    """One page as (height, width, samples), as stored."""
    page = file.pages[number]
    _check_complete(page, len(encoded))
    if int(page.compression) != NO_COMPRESSION or page.bitspersample in (10, 12, 14, 24):
        _require_codecs(page)
    values = page.asarray(maxworkers=1)
    axes = page.axes
    if axes not in ("YX", "YXS", "SYX"):
        raise UnreadableImage(
            f"a TIFF whose page has the axes {axes}, which are not read: save its planes as files"
        )
    if axes == "YX":
        return values[..., None]
    return np.moveaxis(values, 0, -1) if axes == "SYX" else values


def _check_complete(page: Any, size: int) -> None:
    """Raises if a strip or a tile lies beyond the end of the file; one without bytes is empty by intent."""
    for offset, count in zip(page.dataoffsets, page.databytecounts, strict=False):
        if offset + count > size:
            raise UnreadableImage(DAMAGED)


def _require_codecs(page: Any) -> None:
    """tifffile's own fallbacks do not limit what they inflate."""
    try:
        import imagecodecs  # noqa: F401
    except ImportError as error:
        name = getattr(page.compression, "name", "another method")
        raise InputError(
            f"A TIFF file is compressed by {name}, which needs imagecodecs: "
            'pip install "keras-vit-defects[tiff]".'
        ) from error


def _narrow(values: np.ndarray) -> np.ndarray:
    """The values in a type that float32 holds: uint8, uint16 and int16 stay."""
    if values.dtype == bool or str(values.dtype) in ("uint8", "uint16", "int16", "float32"):
        return values.astype(values.dtype.newbyteorder("="), copy=False)
    if values.dtype == np.int8:
        return values.astype(np.int16)
    narrowed = values.astype(np.float32)
    check_finite(narrowed)
    return narrowed
