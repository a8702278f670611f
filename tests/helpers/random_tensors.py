"""Tensors for tests of published weights: a fixture holds their names and shapes, not their values."""

import zlib
from collections.abc import Mapping, Sequence

import numpy as np

SHIFTS = ("bias", "beta")
STD = 0.1


def random_tensors(shapes: Mapping[str, Sequence[int]], seed: int = 0) -> dict[str, np.ndarray]:
    """Values that depend only on the name, the shape and the seed, whatever the order and the platform.

    Vectors that are not biases (the scales of norms, LayerScale) lie around 1, everything else around 0, with
    a standard deviation of 0.1.

    Args:
        shapes: name of a tensor -> its shape.
        seed: of all tensors.

    Returns:
        Name -> float32 array.
    """
    tensors = {}
    for name, shape in shapes.items():
        # The legacy generator: NumPy promises that its stream never changes.
        generator = np.random.RandomState(zlib.crc32(f"{seed}/{name}".encode()))
        values = STD * generator.standard_normal(tuple(shape))
        if len(shape) == 1 and not name.endswith(SHIFTS):
            values += 1.0
        tensors[name] = np.asarray(values, "float32")
    return tensors


def random_images(image_shape: Sequence[int], count: int = 2, seed: int = 0) -> np.ndarray:
    """Scaled pixels, float32 (count, height, width, channels), of mean 0 and standard deviation 1."""
    return np.random.RandomState(seed).standard_normal((count, *image_shape)).astype("float32")
