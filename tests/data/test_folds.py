"""Folds: every image is tested once, and groups stay together."""

import numpy as np
import pytest

from keras_vit.data.folds import fold_of_each, fold_split
from keras_vit.data.image_set import ImageSet
from keras_vit.errors import InputError

pytestmark = pytest.mark.same_on_every_backend

NAMES = ("dots", "lines", "plain")


def images_of(counts=(20, 12, 7), parts=None, groups=None):
    labels = np.repeat(np.arange(len(counts)), counts)
    pixels = np.zeros((len(labels), 4, 4, 1), "uint8")
    names = tuple(f"{i}.png" for i in range(len(labels)))
    return ImageSet("images", NAMES[: len(counts)], pixels, names, labels, parts=parts, groups=groups)


@pytest.mark.parametrize("folds", [2, 3, 5, 7])
@pytest.mark.parametrize("merge_validation", [False, True])
def test_every_image_is_tested_once(folds, merge_validation):
    image_set = images_of((20, 14, 9))
    tested = np.zeros(len(image_set), int)
    for fold in range(1, folds + 1):
        split = fold_split(image_set, folds=folds, fold=fold, merge_validation=merge_validation)
        whole = np.concatenate([split.train, split.validation, split.test])
        assert np.array_equal(np.sort(whole), np.arange(len(image_set)))
        assert (len(split.validation) == 0) == merge_validation
        tested[split.test] += 1
        counts = np.bincount(image_set.labels[split.test], minlength=3)
        assert np.all(np.abs(counts - np.array([20, 14, 9]) / folds) < 1)
    assert np.all(tested == 1)


def test_the_seed_decides():
    image_set = images_of()
    first, again, other = (fold_of_each(image_set, 5, seed) for seed in (0, 0, 1))
    assert np.array_equal(first, again)
    assert not np.array_equal(first, other)


def test_groups_never_cross():
    rng = np.random.default_rng(0)
    groups = tuple(
        f"{label}-{number}"
        for label, count in enumerate((40, 40, 30))
        for number in rng.integers(0, 10, count)
    )
    image_set = images_of((40, 40, 30), groups=groups)
    found = fold_of_each(image_set, 4, 0)
    for group in set(groups):
        assert len(set(found[[own == group for own in groups]])) == 1
    assert set(found) == {1, 2, 3, 4}


@pytest.mark.parametrize(
    ("image_set", "folds", "message"),
    [
        (images_of((20, 12, 4)), 5, 'Class "plain" has 4 images in images, and --folds 5 takes one of them'),
        (images_of((20, 1)), 2, 'Class "lines" has 1 image in images'),
        (
            images_of((6, 6), groups=("a",) * 6 + ("b", "c", "d") * 2),
            2,
            'Class "dots" has 1 group in images, and --folds 2',
        ),
        (
            images_of((4, 4), parts=("train",) * 6 + ("test", "validation")),
            2,
            r"images has parts of its own \(test, validation\), and --folds tests every image once",
        ),
    ],
)
def test_what_cannot_be_cut_into_folds(image_set, folds, message):
    with pytest.raises(InputError, match=message):
        fold_split(image_set, folds=folds, fold=1)


def test_parts_that_are_all_for_training_are_none():
    image_set = images_of((6, 6), parts=("train",) * 12)
    assert set(fold_of_each(image_set, 2, 0)) == {1, 2}


def test_groups_that_leave_a_fold_without_a_class():
    """Dots and lines need c and d in one fold, plain needs them in two."""
    image_set = images_of((3, 3, 3), groups=("a", "b", "c", "a", "b", "d", "c", "d", "e"))
    with pytest.raises(InputError, match="leave one of 3 folds without images of a class in every order"):
        fold_of_each(image_set, 3, 0)


def test_another_order_of_the_groups_is_tried():
    """With the first one, scikit-learn's folds leave one without a class."""
    image_set = images_of((6, 6), groups=tuple(map(str, [0, 1, 2, 2, 2, 0, 0, 0, 0, 3, 2, 3])))
    found = fold_of_each(image_set, 3, 0)
    for fold in (1, 2, 3):
        assert set(image_set.labels[found == fold]) == {0, 1}


@pytest.mark.parametrize("groups", [None, tuple(f"g{i // 2}" for i in range(39))])
def test_images_that_are_alike_are_tested_together(groups):
    image_set = images_of((20, 12, 7), groups=groups)
    alike = np.arange(39)
    alike[[3, 25, 31]], alike[[10, 11, 12]] = 3, 10
    splits = [fold_split(image_set, folds=3, fold=fold, alike=alike) for fold in (1, 2, 3)]
    tested = np.concatenate([split.test for split in splits])
    assert np.array_equal(np.sort(tested), np.arange(39))
    for split in splits:
        for part in (split.train, split.validation, split.test):
            for together in ([3, 25, 31], [10, 11, 12], *([[20, 21]] if groups else [])):
                assert np.isin(together, part).sum() in (0, len(together))


def test_a_class_of_few_images_that_are_alike_is_cut_all_the_same():
    alike = np.array([0, 1, 2, 3, 4, 4, 4, 4])
    found = fold_of_each(images_of((4, 4)), 4, 0, alike)
    assert sorted(found[4:]) == [1, 2, 3, 4]
