"""Cross-validation: which images each of several runs is tested on, so that every image is tested once."""

import dataclasses
import warnings

import numpy as np

from keras_vit.data.image_set import ImageSet
from keras_vit.data.label_split import stratify
from keras_vit.data.split import TRIES, Split, joined, single_where_few, split_image_set, units_of
from keras_vit.errors import InputError


def fold_split(
    image_set: ImageSet,
    *,
    folds: int,
    fold: int,
    seed: int = 0,
    validation_fraction: float = 0.1,
    merge_validation: bool = False,
    alike: np.ndarray | None = None,
) -> Split:
    """The split of one fold: its test part is the images that no other fold is tested on.

    The folds are those of `StratifiedKFold` of scikit-learn, or of `StratifiedGroupKFold` where images have
    groups or are alike, shuffled by the seed. The validation part is drawn from the rest as `split_image_set`
    does.

    Args:
        image_set: without parts of its own.
        folds: their number, 2 or more.
        fold: which one, 1 to `folds`.
        seed, validation_fraction, merge_validation, alike: as of `split_image_set`.

    Raises:
        InputError: the images have parts of their own, or a class has too few images or groups.
    """
    tested = fold_of_each(image_set, folds, seed, alike)
    parts = tuple("test" if own == fold else "train" for own in tested.tolist())
    return split_image_set(
        dataclasses.replace(image_set, parts=parts),
        seed=seed,
        validation_fraction=validation_fraction,
        merge_validation=merge_validation,
        alike=alike,
    )


def fold_of_each(image_set: ImageSet, folds: int, seed: int, alike: np.ndarray | None = None) -> np.ndarray:
    """The fold that tests each image: int64 (n,), 1 to `folds`.

    Arguments and errors as `fold_split`.
    """
    own = set(image_set.parts or ()) - {"train"}
    if own:
        raise InputError(
            f"{image_set.source} has parts of its own ({', '.join(sorted(own))}), and --folds tests every "
            "image once: put all images into one folder per class, or omit --folds; --seeds keeps the parts."
        )
    labels, groups = image_set.labels, None
    if image_set.several:
        return _folds_of_labels(image_set, folds, seed, units_of(image_set, alike))
    if image_set.groups is not None:
        groups = joined(image_set.groups, alike)
    elif alike is not None:
        groups = single_where_few(labels, alike, np.arange(len(labels)), folds)
        if len(np.unique(groups)) == len(groups):
            groups = None  # none are alike
    _check_classes(image_set, folds, None if image_set.groups is None else groups)
    wanted = np.unique(labels)
    for attempt in range(1 if groups is None else TRIES):
        found = _drawn(labels, folds, (seed + attempt * 1_000_003) % 2**32, groups)
        counts = [np.isin(wanted, labels[found == fold]).all() for fold in range(1, folds + 1)]
        if all(counts):
            return found
    raise InputError(
        f"The groups of {image_set.source} leave one of {folds} folds without images of a class in every "
        "order that was tried: give fewer folds, or use smaller groups."
    )


def _folds_of_labels(image_set: ImageSet, folds: int, seed: int, units: np.ndarray) -> np.ndarray:
    """`fold_of_each` of images with several labels: each label has the same share in each fold."""
    for name, column in zip(image_set.class_names, image_set.labels.T, strict=True):
        count = len(np.unique(units[column == 1]))
        if count < 2:
            raise InputError(
                f'The label "{name}" has {count} image{"s" * (count != 1)} or group of images in '
                f"{image_set.source}, and with --folds {folds} the fold that is tested on it would have none "
                "to learn from: add images, or remove the label."
            )
    for attempt in range(TRIES):
        order = (seed + attempt * 1_000_003) % 2**32
        found = 1 + stratify(image_set.labels, units, [1 / folds] * folds, order)
        others = [image_set.labels[found != fold].any(axis=0).all() for fold in range(1, folds + 1)]
        if all(others) and len(np.unique(found)) == folds:
            return found
    raise InputError(
        f"The groups of {image_set.source} leave one of {folds} folds without images, or a label without "
        "training images, in every order that was tried: give fewer folds, or use smaller groups."
    )


def _drawn(labels: np.ndarray, folds: int, seed: int, groups: np.ndarray | None) -> np.ndarray:
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    found = np.zeros(len(labels), np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)  # of few images per class: they are checked here
        for number, (_, test) in enumerate(
            kind(folds, shuffle=True, random_state=seed).split(labels, labels, groups), 1
        ):
            found[test] = number
    return found


def _check_classes(image_set: ImageSet, folds: int, groups: np.ndarray | None) -> None:
    """Raises InputError where a class has fewer images, or groups of images, than there are folds."""
    for label, name in enumerate(image_set.class_names):
        places = np.flatnonzero(image_set.labels == label)
        count = len(places) if groups is None else len(np.unique(groups[places]))
        what = "image" if groups is None else "group"
        if count < folds:
            raise InputError(
                f'Class "{name}" has {count} {what}{"s" * (count != 1)} in {image_set.source}, and --folds '
                f"{folds} takes one of them for the test of each fold: give fewer folds, or add {what}s to "
                "the class."
            )
