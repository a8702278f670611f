"""Splits of images with several labels: each label has the same share in every part, as far as that goes.

Written by hand here, because scikit-learn stratifies one label only, and the package iterative-stratification
has no groups: an image would leave the other images of its part or patient.
"""

from collections.abc import Sequence

import numpy as np

from keras_vit.errors import InputError


def stratify(
    labels: np.ndarray, units: np.ndarray, shares: Sequence[float], seed: int, least: np.ndarray | None = None
) -> np.ndarray:
    """The part of each image, drawn by iterative stratification: int64 (n,), 0 to len(shares) - 1.

    The label with the fewest images left is handed out first, each unit with it to the part that still lacks
    most of it; images without any label count as a label of their own.

    Reference: K. Sechidis, G. Tsoumakas, I. Vlahavas, "On the stratification of multi-label data", ECML PKDD
    2011, algorithm 1, with units of several images in the place of images.

    Args:
        labels: uint8 (n, classes).
        units: int (n,), equal for images that stay in one part.
        shares: of each part; their sum is 1.
        seed: 0 to 2**32 - 1.
        least: int (parts,), of each label so many units are wanted in each part, wherever there are enough.
    """
    rng = np.random.RandomState(seed)
    _, first, unit_of = np.unique(units, return_index=True, return_inverse=True)
    count = len(first)
    rows = np.concatenate([labels, ~labels.any(axis=1, keepdims=True)], axis=1).astype(np.int64)
    held = np.zeros((count, rows.shape[1]), np.int64)  # images of a unit with each label
    np.add.at(held, unit_of, rows)
    size = np.bincount(unit_of, minlength=count)
    share = np.asarray(shares, np.float64)[:, None]
    wanted, wanted_images = share * held.sum(axis=0), share[:, 0] * len(labels)
    if least is not None:
        enough = (held > 0).sum(axis=0) >= np.sum(least)
        wanted[:, enough] = np.maximum(wanted[:, enough], np.asarray(least)[:, None])
    part = np.full(count, -1, np.int64)
    order = rng.permutation(count)
    order = order[np.argsort(-size[order], kind="stable")]  # large groups first, which fit nowhere later
    free = np.ones(count, bool)
    while free.any():
        left = (held[free] > 0).sum(axis=0)
        label = int(np.where(left > 0, left, count + 1).argmin())
        for unit in order[free[order] & (held[order, label] > 0)]:
            best = np.flatnonzero(wanted[:, label] == wanted[:, label].max())
            best = best[wanted_images[best] == wanted_images[best].max()]
            chosen = int(best[0] if len(best) == 1 else rng.choice(best))
            part[unit], free[unit] = chosen, False
            wanted[chosen] -= held[unit]
            wanted_images[chosen] -= size[unit]
    return part[unit_of]


TRIES = 20
"""Orders of the units that are tried before a split is called impossible."""


def draw(
    labels: np.ndarray, units: np.ndarray, pool: np.ndarray, fraction: float, keep: int, seed: int
) -> tuple[np.ndarray, np.ndarray]:
    """Draws `fraction` of the images in `pool`: (rest, drawn), int64 and sorted.

    A label with as many units as parts is in each of them. One that has fewer stays in the rest.

    Args:
        labels: uint8 (n, classes), of all images.
        units: int (n,), of all images.
        pool: positions.
        fraction: above 0, below 1.
        keep: how many units of each label stay, at least, where it has one more.
        seed: 0 to 2**32 - 1.

    Raises:
        InputError: half a sentence, where every order leaves a label or a part without images.
    """
    own, ids = labels[pool], units[pool]
    for attempt in range(TRIES):
        order = (seed + attempt * 1_000_003) % 2**32
        part = stratify(own, ids, (1 - fraction, fraction), order, np.array([keep, 1]))
        rest, drawn = pool[part == 0], pool[part == 1]
        if len(drawn) and (labels[rest].any(axis=0) | ~own.any(axis=0)).all():
            return rest, drawn
    chosen = _spared(own, ids, fraction, seed)
    if not chosen.any():
        raise InputError("whatever is drawn, a label has no training image left")
    return pool[~chosen], pool[chosen]


def _spared(labels: np.ndarray, units: np.ndarray, fraction: float, seed: int) -> np.ndarray:
    """Which images can be drawn one unit after the other, while each label keeps an image: bool (n,)."""
    left, chosen = labels.sum(axis=0, dtype=np.int64), np.zeros(len(labels), bool)
    for unit in np.random.RandomState(seed).permutation(np.unique(units)):
        own = units == unit
        less = left - labels[own].sum(axis=0)
        if ((less > 0) | (left == 0)).all() and (chosen | own).sum() <= max(1, round(fraction * len(labels))):
            left, chosen = less, chosen | own
    return chosen
