"""What happens to images on a production line: noise, blur, other light, compression, a turned camera.

After D. Hendrycks, T. Dietterich, "Benchmarking neural network robustness to common corruptions and
perturbations", ICLR 2019 (https://arxiv.org/abs/1903.12261): each kind at several strengths. Here three
strengths, and kinds that occur where parts are photographed. The filter is scipy's, JPEG and the rotation are
Pillow's.
"""

import io
from collections.abc import Callable, Sequence
from typing import Any, Literal, get_args

import numpy as np

from keras_vit.data.values import is_measured

Corruption = Literal["noise", "blur", "motion", "contrast", "brightness", "uneven", "jpeg", "rotate"]
KINDS: tuple[Corruption, ...] = get_args(Corruption)

STRENGTHS = (1, 2, 3)

NOISE = (8, 16, 32)  # standard deviation, gray levels
BLUR = (1, 2, 3)  # standard deviation, pixels of SIDE
MOTION = (5, 9, 15)  # pixels of SIDE
CONTRAST = (0.7, 0.5, 0.3)  # share of the distance from the mean that is left
BRIGHTNESS = (20, 40, 60)  # gray levels
UNEVEN = (0.2, 0.4, 0.6)  # share by which the light grows to one side, and falls to the other
QUALITY = (40, 20, 8)  # of JPEG
ANGLE = (3, 6, 12)  # degrees

SIDE = 200
"""The shorter side, in pixels, that the lengths above are for; they grow with that of the image."""

MOST_PIXELS = 512
"""The shorter side of larger images is reduced to this first: a pixel's noise would average out."""


def corrupt(
    image: np.ndarray, kind: Corruption, strength: int, rng: np.random.RandomState | np.random.Generator
) -> np.ndarray:
    """One image with one corruption.

    Args:
        image: (height, width, channels) in 0..255.
        kind: one of `KINDS`.
        strength: 1, 2 or 3.
        rng: draws the noise, and which way an image gets brighter or is turned.

    Returns:
        uint8, of the same shape.

    Raises:
        ValueError: there is no such kind or strength.
    """
    if kind not in KINDS or strength not in STRENGTHS:
        raise ValueError(
            f"kind must be one of {KINDS}, and strength one of {STRENGTHS}. Received: {kind!r}, {strength!r}"
        )
    pixels, i = np.asarray(image, "float64"), strength - 1
    sign = rng.choice([-1, 1])
    match kind:
        case "noise":
            pixels = pixels + rng.normal(0, NOISE[i], pixels.shape)
        case "blur":
            pixels = _blurred(pixels, BLUR[i] * _scale(pixels))
        case "motion":
            pixels = _moved(pixels, MOTION[i] * _scale(pixels))
        case "contrast":
            pixels = (pixels - pixels.mean()) * CONTRAST[i] + pixels.mean()
        case "brightness":
            pixels = pixels + sign * BRIGHTNESS[i]
        case "uneven":
            pixels = pixels * (1 + sign * UNEVEN[i] * _ramp(pixels.shape, rng.random() < 0.5))
        case "jpeg":
            pixels = _compressed(pixels, QUALITY[i])
        case "rotate":
            pixels = _turned(pixels, float(sign) * ANGLE[i])
    return _whole(pixels)


def corrupted_copies(
    images: Sequence[np.ndarray], copies: int, kinds: Sequence[Corruption], seed: Sequence[int]
) -> list[np.ndarray]:
    """Each image with corruptions of random kinds at random strengths.

    Args:
        images: uint8 (height, width, channels), of any sizes.
        copies: of each image.
        kinds: that are drawn from.
        seed: whole numbers. A copy depends on these, its image's position and its own number alone.

    Returns:
        The first copies of all images, then the second ones, and so on.
    """
    found = []
    for copy in range(copies):
        for position, image in enumerate(images):
            rng = np.random.default_rng((*seed, position, copy))
            kind = kinds[int(rng.integers(len(kinds)))]
            found.append(corrupt(image, kind, int(rng.integers(1, 4)), rng))
    return found


def reduced(image: np.ndarray) -> np.ndarray:
    """An image of at most `MOST_PIXELS` on its shorter side: uint8 (height, width, channels)."""
    from PIL import Image as pil

    height, width = image.shape[:2]
    if min(height, width) <= MOST_PIXELS:
        return image
    scale = MOST_PIXELS / min(height, width)
    size = (round(width * scale), round(height * scale))
    return _by_pillow(image, lambda picture: picture.resize(size, pil.Resampling.BOX))


def _scale(pixels: np.ndarray) -> float:
    return min(pixels.shape[:2]) / SIDE


def _blurred(pixels: np.ndarray, sigma: float) -> np.ndarray:
    from scipy.ndimage import gaussian_filter

    return gaussian_filter(pixels, (sigma, sigma, 0))


def _moved(pixels: np.ndarray, length: float) -> np.ndarray:
    """The mean over a horizontal shift of so many pixels, at least 2."""
    steps = max(2, round(length))
    return np.mean([np.roll(pixels, step - steps // 2, axis=1) for step in range(steps)], axis=0)


def _ramp(shape: tuple[int, ...], across: bool) -> np.ndarray:
    """-1 to 1 across one of the axes, broadcast over the other and the channels."""
    if across:
        return np.linspace(-1, 1, shape[1])[None, :, None]
    return np.linspace(-1, 1, shape[0])[:, None, None]


def _compressed(pixels: np.ndarray, quality: int) -> np.ndarray:
    from PIL import Image as pil

    def through_jpeg(picture):
        buffer = io.BytesIO()
        picture.save(buffer, "JPEG", quality=quality)
        return pil.open(buffer)

    return _by_pillow(_whole(pixels), through_jpeg)


def _turned(pixels: np.ndarray, degrees: float) -> np.ndarray:
    """Rotated about the centre; the corners get the mean colour."""
    from PIL import Image as pil

    if is_measured(pixels.shape[-1]):
        each = np.split(pixels, pixels.shape[-1], axis=-1)
        return np.concatenate([_turned(channel, degrees) for channel in each], axis=-1)
    fill = [int(level) for level in pixels.mean(axis=(0, 1))]
    return _by_pillow(
        _whole(pixels),
        lambda picture: picture.rotate(
            degrees, pil.Resampling.BILINEAR, fillcolor=fill[0] if len(fill) == 1 else tuple(fill)
        ),
    )


def _by_pillow(pixels: np.ndarray, change: Callable[[Any], Any]) -> np.ndarray:
    """Pixels, uint8 (height, width, channels), changed by Pillow; channels of measurement one by one."""
    from PIL import Image as pil

    if is_measured(pixels.shape[-1]):
        each = np.split(pixels, pixels.shape[-1], axis=-1)
        return np.concatenate([_by_pillow(channel, change) for channel in each], axis=-1)
    picture = pil.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
    changed = np.asarray(change(picture))
    return changed[..., None] if changed.ndim == 2 else changed


def _whole(pixels: np.ndarray) -> np.ndarray:
    return pixels.clip(0, 255).astype("uint8")
