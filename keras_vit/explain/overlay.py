"""Small pictures with maps over them, for the report: without a plot, since a page has many."""

from collections.abc import Sequence

import numpy as np

from keras_vit.explain.figure import colours
from keras_vit.explain.placement import Box

SIDE = 96
"""Pixels of the longer side of one picture."""

GAP = 4  # white pixels between pictures


def strip(pixels: np.ndarray, maps: Sequence[np.ndarray], box: Box) -> np.ndarray:
    """A picture, and beside it the same picture under each map: uint8 (height, width, 3).

    Args:
        pixels: uint8 (height, width, 1 or 3).
        maps: each (rows, columns).
        box: where the maps lie on the picture.
    """
    from PIL import Image

    height, width = pixels.shape[:2]
    scale = SIDE / max(height, width)
    size = max(1, round(width * scale)), max(1, round(height * scale))
    image = Image.fromarray(pixels[..., 0] if pixels.shape[2] == 1 else pixels).convert("RGB")
    how = Image.Resampling.LANCZOS if scale < 1 else Image.Resampling.NEAREST
    small = np.asarray(image.resize(size, how), np.float32)
    rows = (np.arange(size[1]) + 0.5) * height / size[1]
    columns = (np.arange(size[0]) + 0.5) * width / size[0]
    parts = [small]
    for values in maps:
        colour = colours()(placed(normalised(values), rows, columns, box))
        parts += [np.full((size[1], GAP, 3), 255), small + colour[..., 3:] * (255 * colour[..., :3] - small)]
    return np.rint(np.concatenate(parts, axis=1)).astype(np.uint8)


def normalised(values: np.ndarray) -> np.ndarray:
    """From 0 to 1; zeros where all values are equal."""
    low, high = float(values.min()), float(values.max())
    return (values - low) / (high - low) if high > low else np.zeros_like(values)


def placed(values: np.ndarray, rows: np.ndarray, columns: np.ndarray, box: Box) -> np.ndarray:
    """A map at points of its picture, bilinear between the centres of patches; 0 outside of the map.

    Args:
        values: (map rows, map columns).
        rows, columns: coordinates in pixels of the picture.
        box: where the map lies on it.

    Returns:
        (len(rows), len(columns)).
    """
    from scipy.ndimage import map_coordinates

    share = [(rows - box.top) / (box.bottom - box.top), (columns - box.left) / (box.right - box.left)]
    at = np.meshgrid(*(s * side - 0.5 for s, side in zip(share, values.shape, strict=True)), indexing="ij")
    found = map_coordinates(values.astype(np.float64), at, order=1, mode="nearest")
    inside = [(s >= 0) & (s <= 1) for s in share]
    return np.where(inside[0][:, None] & inside[1][None], np.clip(found, 0, 1), 0.0)
