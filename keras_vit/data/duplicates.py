"""Which images show the same thing: copies, and near duplicates of them."""

from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_vit.data.near_duplicates import LIMIT, connected, find_near_duplicates
from keras_vit.data.reading import ReadImages


@dataclass(frozen=True)
class Duplicates:
    """What `find_duplicates` found, by the positions of the images.

    Args:
        exact: groups of two images or more with the same decoded pixels; three equal channels count as one.
        near: (first, second, likeness), most alike first, at most `near_duplicates.LISTED_PAIRS`, without
            exact duplicates.
        near_found: how many near duplicates there are.
        near_skipped: why they were not searched for, or `None`.
        groups: int64 (n,), equal for images that copies and near duplicates connect; the position of the
            first of them.
    """

    exact: list[list[int]]
    near: list[tuple[int, int, float]]
    near_found: int
    near_skipped: str | None
    groups: np.ndarray


def find_duplicates(images: ReadImages) -> Duplicates:
    """The copies and near duplicates among images that were read with their fingerprints."""
    by_digest = defaultdict(list)
    for i, info in enumerate(images.infos):
        if info is not None:
            by_digest[info.digest].append(i)
    exact = [group for group in by_digest.values() if len(group) > 1]
    edges = [(group[0], i) for group in exact for i in group[1:]]
    readable = images.readable
    near: list[tuple[int, int, float]] = []
    found, skipped = 0, None
    if len(images.infos) > LIMIT:  # `read_images` has made no thumbnails
        skipped = f"not searched for: more than {LIMIT:,} images take too long"
    elif readable:
        infos: list[Any] = [images.infos[i] for i in readable]
        pairs = find_near_duplicates(
            np.stack([info.thumbnail for info in infos]), [info.digest for info in infos]
        )
        found = pairs.found
        near = [
            (readable[i], readable[j], float(like))
            for i, j, like in zip(pairs.firsts, pairs.seconds, pairs.likeness, strict=True)
        ]
        edges += [(readable[first], readable[i]) for i, first in enumerate(pairs.groups) if i != first]
    return Duplicates(exact, near, found, skipped, connected(len(images.infos), edges))
