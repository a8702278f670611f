"""Small images that differ from each other by a number."""

import io

import numpy as np
from PIL import Image


def gray(number: int) -> np.ndarray:
    """uint8 (8, 8, 1)."""
    return np.random.default_rng(number).integers(0, 256, (8, 8, 1), "uint8")


def png(number: int, kind: str = "PNG") -> bytes:
    """The same pixels in a file."""
    file = io.BytesIO()
    Image.fromarray(gray(number)[..., 0]).save(file, kind)
    return file.getvalue()
