"""Cross-validation: which images each of several runs is tested on, so that every image is tested once."""

import dataclasses
import warnings

import numpy as np

from keras_vit.data.image_set import ImageSet
from keras_vit.data.split import Split, split_image_set
from keras_vit.errors import InputError


def fold_split(
    image_set: ImageSet,
    *,
    folds: int,
    fold: int,
    seed: int = 0,
    validation_fraction: float = 0.1,
    merge_validation: bool = False,
) -> Split:
    """The split of one fold: its test part is the images that no other fold is tested on.

    The folds are those of `StratifiedKFold` of scikit-learn, or of `StratifiedGroupKFold` where the images
    have groups, shuffled by the seed. The validation part is drawn from the rest as `split_image_set` does.

    Args:
        image_set: without parts of its own.
        folds: their number, 2 or more.
        fold: which one, 1 to `folds`.
        seed, validation_fraction, merge_validation: as of `split_image_set`.

    Raises:
        InputError: the images have parts of their own, or a class has too few images or groups.
    """
    tested = tested_in(image_set, folds, seed)
    parts = tuple("test" if own == fold else "train" for own in tested.tolist())
    return split_image_set(
        dataclasses.replace(image_set, parts=parts),
        seed=seed,
        validation_fraction=validation_fraction,
        merge_validation=merge_validation,
    )


def tested_in(image_set: ImageSet, folds: int, seed: int) -> np.ndarray:
    """The fold that tests each image: int64 (n,), 1 to `folds`.

    Arguments and errors as `fold_split`.
    """
    from sklearn.model_selection import StratifiedGroupKFold, StratifiedKFold

    own = set(image_set.parts or ()) - {"train"}
    if own:
        raise InputError(
            f"{image_set.source} has parts of its own ({', '.join(sorted(own))}), and --folds tests every "
            "image once: put all images into one folder per class, or omit --folds; --seeds keeps the parts."
        )
    groups = getattr(image_set, "groups", None)
    _check_classes(image_set, folds, groups)
    kind = StratifiedKFold if groups is None else StratifiedGroupKFold
    drawn = kind(folds, shuffle=True, random_state=seed)
    found = np.zeros(len(image_set), np.int64)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of few images per class: checked here, with their names
        for number, (_, test) in enumerate(drawn.split(image_set.labels, image_set.labels, groups), 1):
            found[test] = number
    _check_folds(image_set, folds, found)
    return found


def _check_classes(image_set: ImageSet, folds: int, groups: tuple[str, ...] | None) -> None:
    """Raises InputError where a class has fewer images, or groups of images, than there are folds."""
    for label, name in enumerate(image_set.class_names):
        places = np.flatnonzero(image_set.labels == label)
        count = len(places) if groups is None else len({groups[i] for i in places})
        what = "image" if groups is None else "group"
        if count < folds:
            raise InputError(
                f'Class "{name}" has {count} {what}{"s" * (count != 1)} in {image_set.source}, and --folds '
                f"{folds} takes one of them for the test of each fold: give fewer folds, or add {what}s to "
                "the class."
            )


def _check_folds(image_set: ImageSet, folds: int, found: np.ndarray) -> None:
    """Raises InputError where groups of uneven size leave a fold without test images of a class."""
    for fold in range(1, folds + 1):
        counts = np.bincount(image_set.labels[found == fold], minlength=len(image_set.class_names))
        if not counts.all():
            name = image_set.class_names[int(counts.argmin())]
            raise InputError(
                f"The groups of {image_set.source} leave fold {fold} of {folds} without test images of class "
                f'"{name}": give fewer folds, or another --seed.'
            )
