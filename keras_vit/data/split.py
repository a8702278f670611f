"""Which images are for training, which for validation, and which for the test at the end."""

import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Literal

import numpy as np

from keras_vit.data import label_split
from keras_vit.data.image_set import SPLIT_PARTS, ImageSet
from keras_vit.data.near_duplicates import connected
from keras_vit.data.targets import counts_of
from keras_vit.errors import InputError

SplitDuplicates = Literal["together", "keep"]
"""Whether images that show the same thing are drawn together, or each where chance puts it."""


def settings_with_split(plain: dict[str, Any]) -> dict[str, Any]:
    """All settings of a run or a search as a version wrote them that may have drawn each image by itself."""
    return {"split_duplicates": "keep", **plain}


@dataclass(frozen=True)
class Split:
    """Positions in an image set, int64 and sorted; no position is in two of the three parts."""

    train: np.ndarray
    validation: np.ndarray
    test: np.ndarray


def stratified_split(
    labels: np.ndarray | Sequence[int], test_per_class: int | Sequence[int] = 60, seed: int = 0
) -> tuple[np.ndarray, np.ndarray]:
    """Draws the same number of test images from each class: the split of every figure in this project.

    `rng = numpy.random.RandomState(seed)`; for each class in ascending order,
    `rng.permutation(indices_of_class)[:test_per_class]` are the test images of that class. NumPy never
    changes the stream of RandomState, so the split is the same on every machine and with every NumPy.

    Args:
        labels: integers (n,).
        test_per_class: one number for all classes, or one per class that occurs, in ascending order of the
            labels.
        seed: 0 to 2**32 - 1.

    Returns:
        (rest, test): int64 positions in `labels`, both sorted.

    Raises:
        InputError: the seed is out of range, or a class has fewer images than are to be drawn.
    """
    labels = np.asarray(labels)
    if not 0 <= seed < 2**32:
        raise InputError(f"seed must be between 0 and {2**32 - 1}. Received: seed={seed}")
    classes, counts = np.unique(labels, return_counts=True)
    wanted = np.broadcast_to(test_per_class, classes.shape)
    rng = np.random.RandomState(seed)
    drawn = []
    for label, count, number in zip(classes, counts, wanted, strict=True):
        if not 0 <= number <= count:
            raise InputError(f"Class {label} has {count} images, so {number} of them cannot be drawn.")
        drawn.append(rng.permutation(np.flatnonzero(labels == label))[:number])
    test = np.sort(np.concatenate([np.empty(0, np.int64), *drawn])).astype(np.int64)
    rest = np.setdiff1d(np.arange(len(labels), dtype=np.int64), test)
    return rest, test


def split_image_set(
    image_set: ImageSet,
    *,
    seed: int = 0,
    test_fraction: float = 0.2,
    validation_fraction: float = 0.1,
    merge_validation: bool = False,
    alike: np.ndarray | None = None,
) -> Split:
    """Splits an image set, class by class, into train, validation and test.

    From each class, `test_fraction` of its images (rounded, at least one) are drawn for the test by
    `stratified_split(labels, ..., seed)`: 60 of 300. Then `validation_fraction` of the rest of each class
    (rounded, at least one) is drawn for validation by the same rule, with another seed that follows from
    `seed`: 24 of 240. At least one image of each class stays for training.

    Images that are alike are drawn together, and count as the class of the first of them. Where a class has
    fewer of them than parts, its images count as single ones.

    Where the image set has groups, its parts are folds of scikit-learn's `StratifiedGroupKFold`, with as many
    folds as come nearest to the fraction; of these the one whose share of each class is nearest to it.
    Images that are alike join their groups.

    Where images have several labels, `label_split.stratify` gives each label the same share in each part;
    images that are alike, and those of a group, stay together.

    An image set that comes with parts keeps them; a part that it lacks is drawn from its train part.

    Args:
        image_set: an `ImageSet`.
        seed: 0 to 2**32 - 1; the same seed gives the same split.
        test_fraction: above 0, below 1.
        validation_fraction: 0 or more, below 1; 0 draws no validation part.
        merge_validation: whether the validation images, of the source or drawn, are added to the training
            images at the end; the test images are the same either way.
        alike: integers (n,), equal for images that show the same thing, see `duplicates.find_duplicates`;
            `None` if each image counts as a single one.

    Raises:
        InputError: a fraction or the seed is out of range, a class has too few images, or too few groups.
    """
    if not 0 < test_fraction < 1:
        raise InputError(
            f"test_fraction must be above 0 and below 1. Received: test_fraction={test_fraction}"
        )
    if not 0 <= validation_fraction < 1:
        raise InputError(
            "validation_fraction must be 0 or more and below 1. "
            f"Received: validation_fraction={validation_fraction}"
        )
    everything = np.arange(len(image_set), dtype=np.int64)
    parts = np.asarray(image_set.parts if image_set.parts is not None else ["train"] * len(image_set))
    train, validation, test = (everything[parts == part] for part in SPLIT_PARTS)
    draw_test = not len(test)
    draw_validation = not len(validation) and validation_fraction > 0
    _check_class_sizes(image_set, train, draw_test, draw_validation)

    draw = _drawer(image_set, train, 1 + draw_test + draw_validation, alike)
    if draw_test:
        train, test = draw(train, test_fraction, 1 + draw_validation, seed)
    if draw_validation:
        own_seed = int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])
        train, validation = draw(train, validation_fraction, 1, own_seed)
    if merge_validation:
        train, validation = np.union1d(train, validation), validation[:0]
    return Split(train, validation, test)


def same_split(first: Split, second: Split) -> bool:
    """Whether two splits have the same images in each part."""
    return all(np.array_equal(getattr(first, part), getattr(second, part)) for part in SPLIT_PARTS)


def crossing(split: Split, groups: np.ndarray | Sequence[str]) -> int:
    """How many groups have images in two parts of a split or in all three."""
    _, number = np.unique(np.asarray(groups), return_inverse=True)
    within = np.zeros((3, number.max(initial=0) + 1), bool)
    for row, part in zip(within, SPLIT_PARTS, strict=True):
        row[number[getattr(split, part)]] = True
    return int((within.sum(axis=0) > 1).sum())


def _drawer(image_set: ImageSet, pool: np.ndarray, jobs: int, alike: np.ndarray | None) -> Callable:
    """The function (pool, fraction, keep, seed) -> (rest, drawn) for images with or without groups."""
    labels = image_set.labels
    if image_set.several:
        return partial(_draw_labels, image_set, units_of(image_set, alike))
    if image_set.groups is None:
        if alike is None:
            return partial(_draw, labels)
        return partial(_draw_together, labels, single_where_few(labels, alike, pool, jobs))
    groups = joined(image_set.groups, alike)
    _check_groups(image_set, groups, pool, jobs)
    return partial(_draw_groups, image_set, groups)


def joined(groups: Sequence[str], alike: np.ndarray | None) -> np.ndarray:
    """The number of the group of each image, where images that are alike join their groups: int64 (n,)."""
    _, number = np.unique(np.asarray(groups), return_inverse=True)
    if alike is None:
        return number
    everything = np.arange(len(number))
    edges = [np.stack([everything, first_places(other)], 1) for other in (number, alike)]
    # The lowest number of the groups that became one, so that others are drawn in the order that they had.
    lowest = np.full(len(number), len(number))
    component = connected(len(number), np.concatenate(edges))
    np.minimum.at(lowest, component, number)
    return lowest[component]


def units_of(image_set: ImageSet, alike: np.ndarray | None) -> np.ndarray:
    """What stays in one part: the group, the images that are alike, or the image: int64 (n,)."""
    if image_set.groups is not None:
        return joined(image_set.groups, alike)
    return np.arange(len(image_set)) if alike is None else first_places(alike)


def _draw_labels(image_set, units, pool, fraction, keep, seed):
    try:
        return label_split.draw(image_set.labels, units, pool, fraction, keep, seed)
    except InputError as error:
        raise InputError(
            f"{image_set.source} cannot be split: {error}. Use smaller groups, or give the split in a "
            "table's column part."
        ) from None


def first_places(values: np.ndarray) -> np.ndarray:
    """The first position of each value: int64 (n,)."""
    _, first, inverse = np.unique(values, return_index=True, return_inverse=True)
    return first[inverse].astype(np.int64)


def _draw(labels, pool, fraction, keep, seed):
    """Draws `fraction` of each class in `pool`, at least one and at most all but `keep`: (rest, drawn)."""
    rest, drawn = stratified_split(labels[pool], _wanted(labels[pool], fraction, keep), seed)
    return pool[rest], pool[drawn]


def _wanted(labels, fraction, keep):
    _, counts = np.unique(labels, return_counts=True)
    return np.clip(np.floor(counts * fraction + 0.5).astype(int), 1, counts - keep)


def _draw_together(labels, alike, pool, fraction, keep, seed):
    """`_draw` of units of images that are alike, in the same random order: others are drawn as before."""
    rng = np.random.RandomState(seed)
    chosen = np.zeros(len(labels), bool)
    unit = alike[pool]
    first_of = dict(zip(unit[::-1], pool[::-1], strict=True))
    size = dict(zip(*np.unique(unit, return_counts=True), strict=True))
    for label, number in zip(np.unique(labels[pool]), _wanted(labels[pool], fraction, keep), strict=True):
        drawn = (first_of[alike[i]] for i in rng.permutation(pool[labels[pool] == label]))
        order = list(dict.fromkeys(first for first in drawn if labels[first] == label))
        free = number
        taken: list[int] = []
        for first in order:
            if size[alike[first]] <= free and len(taken) < len(order) - keep:
                taken.append(first)
                free -= size[alike[first]]
        # Where none is as small as that, the smallest.
        taken = taken or sorted(order, key=lambda first: size[alike[first]])[:1]
        chosen[pool[np.isin(unit, alike[taken])]] = True
    return pool[~chosen[pool]], pool[chosen[pool]]


def single_where_few(labels: np.ndarray, alike: np.ndarray, pool: np.ndarray, jobs: int) -> np.ndarray:
    """`alike` with images of their own where a class would have fewer units than parts."""
    alike = first_places(alike)
    changed = True
    while changed:
        changed = False
        firsts = pool[np.unique(alike[pool], return_index=True)[1]]
        for label in np.unique(labels[pool]):
            members = pool[labels[pool] == label]
            if (labels[firsts] == label).sum() < jobs and len(np.unique(alike[members])) < len(members):
                units = np.isin(alike, alike[members])
                alike[units] = np.flatnonzero(units)
                changed = True
                break
    return alike


TRIES = 20
"""Orders of the groups that are tried before a split is called impossible."""


def _draw_groups(image_set, groups, pool, fraction, keep, seed):
    from sklearn.model_selection import StratifiedGroupKFold

    labels, ids = image_set.labels[pool], groups[pool]
    classes, counts = np.unique(labels, return_counts=True)
    wanted_folds = min(max(2, round(1 / fraction)), len(np.unique(ids)))
    best, distance = None, np.inf
    for attempt in range(TRIES):
        # Fewer folds where none of as many as are wanted has each class.
        folds = min(max(2, wanted_folds - attempt // 2), counts.max())
        order = (seed + attempt * 1_000_003) % 2**32
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", UserWarning)  # a class with fewer images than folds: checked here
            found = list(
                StratifiedGroupKFold(folds, shuffle=True, random_state=order).split(ids, labels, ids)
            )
        for rest, drawn in found:
            left = [len(np.unique(ids[rest][labels[rest] == label])) for label in classes]
            share = np.array([(labels[drawn] == label).sum() for label in classes]) / counts
            if min(left) >= keep and min(share) > 0 and abs(share - fraction).sum() < distance:
                best, distance = (rest, drawn), abs(share - fraction).sum()
        if best is not None:
            return pool[best[0]], pool[best[1]]
    raise InputError(
        f"The groups of {image_set.source} leave a class without images in one part of every split that was "
        "tried: use smaller groups, or give the split in folders or in a table's column part."
    )


def _check_groups(image_set, groups, pool, jobs):
    labels = image_set.labels[pool]
    for label, name in enumerate(image_set.class_names):
        number = len(np.unique(groups[pool][labels == label]))
        if number < jobs:
            raise InputError(
                f'The images of class "{name}" are in {number} group{"s" * (number != 1)} in '
                f"{image_set.source}; it needs at least {jobs}, one for each part of the split, since a "
                "group stays in one part. Use smaller groups, add images, or remove the class."
            )


def _check_class_sizes(image_set, train, draw_test, draw_validation):
    jobs = ["training"] + ["validation"] * draw_validation + ["test"] * draw_test
    counts = counts_of(image_set.labels[train], len(image_set.class_names)).tolist()
    if image_set.several:  # of a label that few images have, some parts have none
        if len(train) < len(jobs):
            raise InputError(f"{image_set.source} has {len(train)} images: give more, or omit a part.")
        jobs = jobs[:1]
    for name, count in zip(image_set.class_names, counts, strict=True):
        if count < len(jobs):
            each = " and ".join([", ".join(jobs[:-1]), jobs[-1]]) if len(jobs) > 1 else jobs[0]
            raise InputError(
                f'Class "{name}" has {count} image{"s" * (count != 1)} in {image_set.source}; it needs at '
                f"least {len(jobs)}: one each for {each}. Add images to the class, or remove the class."
            )
