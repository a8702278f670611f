"""Small image files for the tests of reading, and a summary of an image set."""

import io

import numpy as np
from PIL import Image

from keras_vit.data.sources.steel import draw_steel_defects


def encoded(seed=0, kind="PNG", size=(8, 8)):
    pixels = np.random.default_rng(seed).integers(0, 256, size, dtype=np.uint8)
    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, kind)
    return buffer.getvalue()


PNG = encoded()


def rows(images):
    """The name, class and part of each image."""
    parts = images.parts or (None,) * len(images)
    return [(n, images.class_names[k], p) for n, k, p in zip(images.names, images.labels, parts, strict=True)]


def write_drawn(folder, images_per_class):
    """Class folders of small drawn defects."""
    drawn = draw_steel_defects(images_per_class=images_per_class, size=32)
    for name, pixels in zip(drawn.names, drawn.images, strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[..., 0]).save(path)
