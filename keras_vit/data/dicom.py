"""DICOM files, read by pydicom: pixels alone. Nothing else of a file is kept, named or printed.

Source: DICOM PS3.3, C.7.6.3 (the pixels), C.11.1 (rescale) and C.11.2 (the window).
"""

import io
import logging
import warnings
from typing import Any

import numpy as np

from keras_vit.data.tiff import check_finite
from keras_vit.data.values import UnreadableImage, Values
from keras_vit.errors import InputError

logging.getLogger("pydicom").addHandler(logging.NullHandler())

PREAMBLE = 128
GRAY = ("MONOCHROME1", "MONOCHROME2")
DAMAGED = "a DICOM file that cannot be decoded: cut short or damaged"


def is_dicom(encoded: bytes) -> bool:
    """Whether the first bytes are those of a DICOM file."""
    return encoded[PREAMBLE : PREAMBLE + 4] == b"DICM"


def dicom_shape(encoded: bytes) -> tuple[int, int, int]:
    """Height, width and channels that a file states; no pixel is read.

    Raises:
        UnreadableImage: it is damaged, or has no image, or several.
        InputError: pydicom is not installed.
    """
    return _shape(_dataset(encoded, header_only=True))


def values_of_dicom(encoded: bytes) -> str:
    """`"window"` if a file says how it is shown, or has colours; `"uint8"` or `"uint16"` otherwise.

    Raises: as `dicom_shape`.
    """
    data = _dataset(encoded, header_only=True)
    _shape(data)
    if str(data.get("PhotometricInterpretation", "")) not in GRAY or _has_window(data):
        return "window"
    return "uint8" if int(data.get("BitsStored", 16)) <= 8 and not _is_rescaled(data) else "uint16"


def read_dicom(encoded: bytes) -> Values:
    """The values of a DICOM file in the units of its rescale slope and intercept, and its window.

    Raises: as `dicom_shape`; `UnreadableImage` also if its pixels cannot be decoded.
    """
    data = _dataset(encoded, header_only=False)
    _shape(data)
    is_gray = str(data.get("PhotometricInterpretation", "")) in GRAY
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # they may quote what the file says of a patient
            stored = _pixels(data)
            if not is_gray:
                return _colors(data, stored)
            return _gray(data, stored)
    except UnreadableImage:
        raise
    except Exception as error:  # on damaged files pydicom raises a dozen kinds of exception
        raise UnreadableImage(DAMAGED) from error


def _dataset(encoded: bytes, header_only: bool) -> Any:
    try:
        import pydicom
    except ImportError as error:
        raise InputError('DICOM files need pydicom: pip install "keras-vit-defects[dicom]".') from error
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pydicom.dcmread(io.BytesIO(encoded), stop_before_pixels=header_only)
    except Exception as error:
        raise UnreadableImage(DAMAGED) from error


def _shape(data: Any) -> tuple[int, int, int]:
    try:
        height, width = int(data.get("Rows", 0) or 0), int(data.get("Columns", 0) or 0)
        frames, samples = int(data.get("NumberOfFrames", 1) or 1), int(data.get("SamplesPerPixel", 1) or 1)
    except Exception as error:
        raise UnreadableImage(DAMAGED) from error
    if not height or not width:
        raise UnreadableImage("a DICOM file without an image")
    if frames > 1:
        raise UnreadableImage(
            f"a DICOM file with {frames} frames, of which none is chosen: save the frames that count as files"
        )
    palette = str(data.get("PhotometricInterpretation", "")) == "PALETTE COLOR"
    return height, width, 3 if palette else samples


def _pixels(data: Any) -> np.ndarray:
    from pydicom.pixels import get_decoder

    syntax = data.file_meta.TransferSyntaxUID
    if syntax.is_compressed and syntax.is_transfer_syntax:
        try:
            is_available = get_decoder(syntax).is_available
        except NotImplementedError:
            is_available = False
        if not is_available:
            raise UnreadableImage(
                f'a DICOM file compressed by "{syntax.name}", which is not decoded here: pip install '
                '"pylibjpeg[all]", or save it without compression'
            )
    return data.pixel_array


def _colors(data: Any, stored: np.ndarray) -> Values:
    from pydicom.pixels import apply_color_lut, convert_color_space

    photometric = str(data.PhotometricInterpretation)
    if photometric == "PALETTE COLOR":
        stored = apply_color_lut(stored, data)
        if stored.dtype == np.uint16:
            stored = (stored / 257).round().astype(np.uint8)
    elif photometric.startswith("YBR") and not data.file_meta.TransferSyntaxUID.is_compressed:
        stored = convert_color_space(stored, photometric, "RGB")
    if stored.dtype != np.uint8 or stored.ndim != 3:
        raise UnreadableImage(
            f"a DICOM file with {photometric} of {stored.dtype}, which is not read: save it as PNG"
        )
    return Values(stored, (0.0, 255.0), has_window=True)


def _gray(data: Any, stored: np.ndarray) -> Values:
    from pydicom.pixels import apply_modality_lut

    inverted = str(data.PhotometricInterpretation) == "MONOCHROME1"
    bits, signed = int(data.BitsStored), bool(int(data.get("PixelRepresentation", 0)))
    ends = np.array([-(2 ** (bits - 1)), 2 ** (bits - 1) - 1] if signed else [0, 2**bits - 1])
    if not _is_rescaled(data) and not _has_window(data) and bits <= 8 and not signed:
        pixels = np.rint(stored * (255 / ends[1])).astype(np.uint8)
        return Values(pixels[..., None], (0.0, 255.0), inverted)
    values = np.asarray(apply_modality_lut(stored, data), np.float32)[..., None]
    check_finite(values)
    if _has_window(data):
        shown = _windowed(data, values)
        return Values(values, None, inverted, shown=255 - shown if inverted else shown, has_window=True)
    if "ModalityLUTSequence" in data:
        own = (float(values.min()), float(values.max()))
    else:
        scaled = ends * float(data.get("RescaleSlope", 1) or 1) + float(data.get("RescaleIntercept", 0) or 0)
        own = (float(scaled.min()), float(scaled.max()))
    return Values(values, own if own[0] < own[1] else None, inverted)


def _is_rescaled(data: Any) -> bool:
    slope, intercept = data.get("RescaleSlope", 1), data.get("RescaleIntercept", 0)
    return "ModalityLUTSequence" in data or (slope, intercept) not in ((1, 0), (None, None))


def _has_window(data: Any) -> bool:
    return _window(data) is not None or "VOILUTSequence" in data


def _window(data: Any) -> tuple[float, float] | None:
    """Centre and width of the first window; `None` if there is none that can be used."""
    try:
        center, width = (float(_first(data[name].value)) for name in ("WindowCenter", "WindowWidth"))
    except Exception:  # missing, empty, or not a number
        return None
    return (center, width) if np.isfinite([center, width]).all() and width > 0 else None


def _first(value: Any) -> Any:
    return value if isinstance(value, int | float | str) else value[0]


def _windowed(data: Any, values: np.ndarray) -> np.ndarray:
    """The pixels that the window, or else the table, of a file makes of its values: float32 in 0..255."""
    window = _window(data)
    if window is None:
        from pydicom.pixels import apply_voi_lut

        top = 2 ** int(data.VOILUTSequence[0].LUTDescriptor[2]) - 1
        return (apply_voi_lut(values.astype(np.int64), data) * (255.0 / top)).astype(np.float32)
    center, width = window
    function = str(data.get("VOILUTFunction", "LINEAR") or "LINEAR")
    if function == "SIGMOID":
        return (255.0 / (1.0 + np.exp(-4.0 * (values.astype(np.float64) - center) / width))).astype(
            np.float32
        )
    if function != "LINEAR_EXACT":
        center, width = center - 0.5, width - 1.0
    if width <= 0:
        return np.where(values > center, np.float32(255), np.float32(0))
    low = center - width / 2
    return np.clip((values - low) * (255.0 / width), 0, 255).astype(np.float32)
