"""Small images for the tests of what is read, and what an image set says of them."""

import io

import numpy as np
from PIL import Image


def encoded(seed=0, kind="PNG", size=(8, 8)):
    pixels = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


PNG = encoded()


def rows(images):
    """(name, class, part) of each image."""
    parts = images.parts or (None,) * len(images)
    return [(n, images.class_names[k], p) for n, k, p in zip(images.names, images.labels, parts, strict=True)]
