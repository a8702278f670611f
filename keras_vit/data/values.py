"""What a file stores beyond 8 bits of gray or colour: values in its own units, which a range makes pixels of.

Nothing here imports TensorFlow: the client of a server decodes such files too.
"""

from dataclasses import dataclass

import numpy as np

COLORS = (1, 3)
"""Numbers of channels that are gray, or red, green and blue. Others are channels of measurement."""

MOST_CHANNELS = 32


class UnreadableImage(Exception):
    """An image cannot be read. The message is the reason, written to follow the image's name and a colon."""


@dataclass(frozen=True)
class Values:
    """The values of one image.

    Args:
        values: (height, width, channels), of the type that is stored, or float32 where that was converted;
            turned as the file says, without alpha.
        own: the values that become black and white where a run has no range; `None` if the type has none.
        inverted: whether the lowest value is white, and the highest black.
        alpha: float32 (height, width, 1) in 0..1, or `None`.
        shown: float32 pixels (height, width, channels) in 0..255, where the file says how it is shown and
            that is more than a range; they count in place of `own`.
        has_window: whether the file itself says which values become black and white.
    """

    values: np.ndarray
    own: tuple[float, float] | None
    inverted: bool = False
    alpha: np.ndarray | None = None
    shown: np.ndarray | None = None
    has_window: bool = False

    @property
    def stored(self) -> str:
        """The type of the values: `"uint8"`, `"uint16"`, `"float32"`, ..."""
        return str(self.values.dtype)


def is_measured(channels: int | None) -> bool:
    """Whether so many channels are of measurement, so that none of them is a colour or alpha."""
    return channels is not None and channels not in COLORS


def channels_to_show(count: int, wanted: tuple[int, ...] | None) -> list[int]:
    """The positions of the channels of measurement that people see."""
    return [i - 1 for i in wanted] if wanted else [0, 1, 2] if count > 2 else [0]


def lows_and_highs(pixel_range: tuple[float, ...]) -> tuple[np.ndarray, np.ndarray]:
    """A range as two arrays: float32 (1,) for all channels, or (channels,)."""
    ends = np.asarray(pixel_range, np.float64)
    return ends[0::2].astype(np.float32), ends[1::2].astype(np.float32)


def to_pixels(
    found: Values,
    pixel_range: tuple[float, ...] | None,
    background: tuple[int, ...] | None,
    inverts_values: bool = False,
) -> np.ndarray:
    """The pixels that values become.

    Args:
        found: the values.
        pixel_range: of the run, low and high for all channels or for each; `None` for the file's own.
        background: what is seen where an image is transparent; `None` keeps alpha as the last channel.
        inverts_values: whether inverted values of 16 bits are inverted before the range, not after it.

    Returns:
        (height, width, channels) in 0..255: uint8 if these are the values, or else float32.

    Raises:
        UnreadableImage: there is no range for such values, or one with another number of channels.
    """
    pixels = _scaled(found, pixel_range, inverts_values)
    if found.alpha is None:
        return pixels
    if background is None:
        return np.concatenate([pixels.astype(np.float32), 255 * found.alpha], axis=-1)
    levels = np.array(background[:1] if len(set(background)) == 1 else background, np.float32)
    return pixels.astype(np.float32) * found.alpha + levels * (1 - found.alpha)


def _scaled(found, pixel_range, inverts_values):
    values, inverted = found.values, found.inverted
    if pixel_range is None:
        if found.shown is not None:
            return found.shown
        if found.own is None:
            raise UnreadableImage(
                f"its values are {found.stored}, and nothing says which of them are black and white: train "
                "with --window LOW HIGH, or without --window dtype"
            )
        if values.dtype == np.uint8:
            return 255 - values if inverted else values
        pixel_range = found.own
    low, high = lows_and_highs(pixel_range)
    if low.size not in (1, values.shape[-1]):
        raise UnreadableImage(
            f"it has {values.shape[-1]} channels, and the range of values is for {low.size}"
        )
    if inverted and inverts_values and values.dtype == np.uint16:
        values, inverted = 65535 - values, False
    scaled = (values.astype(np.float32) - low) * (np.float32(255) / (high - low))
    pixels = np.clip(scaled, 0, 255, dtype=np.float32)
    return 255 - pixels if inverted else pixels
