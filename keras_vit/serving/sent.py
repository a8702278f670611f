"""What is sent to a bundle in place of a file that it does not decode: pixels, or values for its range."""

from dataclasses import dataclass

import numpy as np

from keras_vit.data.dicom import is_dicom
from keras_vit.data.tiff import TiffPage, is_tiff
from keras_vit.data.values import UnreadableImage, Values, is_measured, to_pixels

VALUES, IMAGES = "values", "images"
"""Signatures of a bundle: values in the units of the files, if the run has a range; pixels in 0..255."""


@dataclass(frozen=True)
class Sent:
    """One image for a signature that takes pixels.

    Args:
        signature: `"values"` or `"images"`.
        inputs: by name, a batch of one image.
    """

    signature: str
    inputs: dict[str, np.ndarray]


def may_be_foreign(encoded: bytes) -> bool:
    """Whether the first bytes are of a kind of which a bundle does not decode each file."""
    return is_tiff(encoded) or is_dicom(encoded) or encoded[:2] == b"BM" or encoded[4:8] == b"ftyp"


def to_send(
    encoded: bytes, channels: int | None, has_range: bool, tiff_page: TiffPage = None
) -> bytes | Sent:
    """What a bundle is asked about a file.

    Args:
        encoded: the file.
        channels: that the model takes; `None` if it converts gray and colour.
        has_range: whether the run has a range of values.
        tiff_page: which page of a TIFF is read.

    Returns:
        The file, or a PNG of its picture, if the bundle decodes that; or else its pixels or values.

    Raises:
        UnreadableImage: it is damaged, of a kind that is not read, or has other channels or values than the
            model takes.
    """
    if not may_be_foreign(encoded):
        return encoded
    from keras_vit.data.probe import native_or_values, quiet_headers

    with quiet_headers():
        found = native_or_values(encoded, tiff_page, channels)
    if not isinstance(found, Values):
        return found
    count = found.values.shape[-1]
    if is_measured(channels) and count != channels:
        raise UnreadableImage(f"it has {count} channels, and the model takes {channels}")
    if not is_measured(channels) and count not in (1, 3):
        raise UnreadableImage(f"it has {count} channels, and the model takes gray or colours")
    if has_range:
        if found.values.dtype == np.uint8:
            raise UnreadableImage("8 bits per channel, but the model takes values in the range of its run")
        if found.alpha is not None:
            raise UnreadableImage("more than 8 bits and alpha: save it without alpha, or as PNG")
        return Sent(
            VALUES,
            {"values": found.values[None].astype(np.float32), "inverted": np.array([found.inverted])},
        )
    return Sent(IMAGES, {"images": to_pixels(found, None, None)[None].astype(np.float32)})
