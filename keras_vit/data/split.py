"""Which images are for training, which for validation, and which for the test at the end."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_vit.data.image_set import SPLIT_PARTS, ImageSet
from keras_vit.errors import InputError


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
) -> Split:
    """Splits an image set, class by class, into train, validation and test.

    From each class, `test_fraction` of its images (rounded, at least one) are drawn for the test by
    `stratified_split(labels, ..., seed)`: 60 of 300. Then `validation_fraction` of the rest of each class
    (rounded, at least one) is drawn for validation by the same rule, with another seed that follows from
    `seed`: 24 of 240. At least one image of each class stays for training.

    An image set that comes with parts keeps them; a part that it lacks is drawn from its train part.

    Args:
        image_set: an `ImageSet`.
        seed: 0 to 2**32 - 1; the same seed gives the same split.
        test_fraction: above 0, below 1.
        validation_fraction: 0 or more, below 1; 0 draws no validation part.
        merge_validation: whether the validation images, of the source or drawn, are added to the training
            images at the end; the test images are the same either way.

    Raises:
        InputError: a fraction or the seed is out of range, or a class has too few images.
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

    if draw_test:
        train, test = _draw(image_set.labels, train, test_fraction, 1 + draw_validation, seed)
    if draw_validation:
        own_seed = int(np.random.SeedSequence([seed, 1]).generate_state(1)[0])
        train, validation = _draw(image_set.labels, train, validation_fraction, 1, own_seed)
    if merge_validation:
        train, validation = np.union1d(train, validation), validation[:0]
    return Split(train, validation, test)


def _draw(labels, pool, fraction, keep, seed):
    """Draws `fraction` of each class in `pool`, at least one and at most all but `keep`: (rest, drawn)."""
    _, counts = np.unique(labels[pool], return_counts=True)
    wanted = np.clip(np.floor(counts * fraction + 0.5).astype(int), 1, counts - keep)
    rest, drawn = stratified_split(labels[pool], wanted, seed)
    return pool[rest], pool[drawn]


def _check_class_sizes(image_set, train, draw_test, draw_validation):
    jobs = ["training"] + ["validation"] * draw_validation + ["test"] * draw_test
    counts = np.bincount(image_set.labels[train], minlength=len(image_set.class_names)).tolist()
    for name, count in zip(image_set.class_names, counts, strict=True):
        if count < len(jobs):
            each = " and ".join([", ".join(jobs[:-1]), jobs[-1]]) if len(jobs) > 1 else jobs[0]
            raise InputError(
                f'Class "{name}" has {count} image{"s" * (count != 1)} in {image_set.source}; it needs at '
                f"least {len(jobs)}: one each for {each}. Add images to the class, or remove the class."
            )
