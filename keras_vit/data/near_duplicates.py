"""Images that show the same thing: saved again, resized, lit differently, or taken a few millimetres apart.

Thumbnails of plain surfaces correlate by their lighting alone: by 0.99 between images of the NEU database
that have nothing else in common. Therefore a smooth surface (all cubic polynomials, then the means of rows
and columns) is subtracted from each thumbnail first. The rest, the marks on the surface, is compared at 49
displacements.

Measured on the 1,800 images of NEU: at the threshold 0.8 there are 22 pairs, and all of them show the same
spot of steel; one of them is the same image twice. The most similar pair of different spots reaches 0.753.
All copies that were saved as JPEG of quality 30, got noise of 5 gray levels, were scaled to half the size or
darkened by a fifth stay above 0.8; of those displaced by 3 of 200 pixels, half do.
"""

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

THRESHOLD = 0.8
LIMIT = 10_000  # images: the time grows with the square; 1,800 take 1.2 s of one core, 10,000 about 40 s
LISTED_PAIRS = 1_000
REACH = 3  # thumbnail pixels: a tenth of the side
FLAT = 0.5  # gray levels: with less detail than this (root mean square) an image is not compared
BLOCK = 2_048


class Pairs(NamedTuple):
    """What `find_near_duplicates` found.

    Args:
        firsts, seconds: positions first < second, most alike first, at most `LISTED_PAIRS`.
        likeness: of these pairs, float32, 0.8 to 1.
        found: how many pairs there are.
        groups: int64 (n,), equal for thumbnails that pairs connect, listed or not: the first of them.
    """

    firsts: np.ndarray
    seconds: np.ndarray
    likeness: np.ndarray
    found: int
    groups: np.ndarray


def find_near_duplicates(thumbnails: np.ndarray, digests: Sequence[bytes]) -> Pairs:
    """Pairs of thumbnails that show the same thing.

    The likeness of two images is the largest correlation of their details over displacements of up to a
    tenth of the side. Mirrored and inverted copies are not searched for: on steel that finds textures that
    are only similar. Images with almost no detail are never near duplicates.

    Args:
        thumbnails: float32 (n, side, side), gray in 0..255.
        digests: fingerprints of the pixels, one per image; pairs with equal ones are exact duplicates and
            left out.
    """
    n = len(thumbnails)
    details = _details(thumbnails.astype(np.float32))
    _, identity = np.unique(np.asarray(digests, dtype="S16"), return_inverse=True)
    best: list[tuple[np.ndarray, np.ndarray, np.ndarray]] = []
    found, groups = 0, np.arange(n, dtype=np.int64)
    for a in range(0, n, BLOCK):
        for b in range(a, n, BLOCK):
            likeness = _likeness(details[a : a + BLOCK], None if a == b else details[b : b + BLOCK])
            rows, columns = np.nonzero(likeness >= THRESHOLD)
            new = (rows + a < columns + b) & (identity[rows + a] != identity[columns + b])
            rows, columns = rows[new], columns[new]
            found += len(rows)
            values = likeness[rows, columns]
            first = np.argsort(-values, kind="stable")[:LISTED_PAIRS]
            best.append((rows[first] + a, columns[first] + b, values[first]))
            # With those of the blocks before as edges, not all pairs: there may be millions.
            before = np.stack([groups, np.arange(n)], axis=1)
            groups = connected(n, np.concatenate([before, np.stack([rows + a, columns + b], axis=1)]))
    firsts, seconds, values = (np.concatenate(column) for column in zip(*best, strict=True))
    order = np.argsort(-values, kind="stable")[:LISTED_PAIRS]
    return Pairs(firsts[order], seconds[order], np.minimum(values[order], 1.0), found, groups)


def connected(count: int, edges: np.ndarray | Sequence[tuple[int, int]]) -> np.ndarray:
    """The first position of the connected component of each of `count` positions: int64 (count,)."""
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    rows, columns = np.asarray(edges, dtype=np.int64).reshape(-1, 2).T
    graph = coo_array((np.ones(len(rows), np.int8), (rows, columns)), shape=(count, count))
    _, component = connected_components(graph, directed=False)
    _, first = np.unique(component, return_index=True)
    return first[component].astype(np.int64)


def _details(thumbnails):
    """The thumbnails without a smooth surface and without straight rows and columns."""
    n, side, _ = thumbnails.shape
    y, x = np.meshgrid(np.linspace(-1, 1, side), np.linspace(-1, 1, side), indexing="ij")
    cubic = np.stack([y**i * x**j for i in range(4) for j in range(4 - i)], axis=-1)
    basis = np.linalg.qr(cubic.reshape(-1, cubic.shape[-1]))[0].astype(np.float32)
    flat = thumbnails.reshape(n, -1)
    left = (flat - (flat @ basis) @ basis.T).reshape(thumbnails.shape)
    return left - left.mean(1, keepdims=True) - left.mean(2, keepdims=True) + left.mean((1, 2), keepdims=True)


def _window(details, dy, dx):
    """The middle of each image, displaced: unit vectors (n, pixels); zeros if there is no detail."""
    side = details.shape[1] - REACH
    window = details[:, REACH + dy : side + dy, REACH + dx : side + dx].reshape(len(details), -1)
    window = window - window.mean(1, keepdims=True)
    norm = np.linalg.norm(window, axis=1, keepdims=True)
    return np.where(norm > FLAT * np.sqrt(window.shape[1]), window / np.maximum(norm, 1e-6), 0.0)


def _likeness(a, b=None):
    """The largest correlation over displacements, float32 (len(a), len(b)); of a with itself if b is None."""
    a_middle = _window(a, 0, 0)
    b_middle = a_middle if b is None else _window(b, 0, 0)
    best = a_middle @ b_middle.T
    for dy in range(REACH + 1):
        for dx in range(-REACH, REACH + 1):
            # a displaced against b, and b against a: each needs only half of the displacements.
            if (dy, dx) > (0, 0):
                np.maximum(best, _window(a, dy, dx) @ b_middle.T, out=best)
                if b is not None:
                    np.maximum(best, a_middle @ _window(b, dy, dx).T, out=best)
    return best if b is not None else np.maximum(best, best.T)
