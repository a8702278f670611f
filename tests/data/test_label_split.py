import numpy as np
import pytest

from keras_vit.data.folds import fold_of_each
from keras_vit.data.image_set import SPLIT_PARTS, ImageSet
from keras_vit.data.label_split import stratify
from keras_vit.data.split import split_image_set
from keras_vit.errors import InputError

pytestmark = pytest.mark.same_on_every_backend


def labelled(count=400, shares=(0.5, 0.2, 0.1, 0.05), seed=0):
    return (np.random.RandomState(seed).rand(count, len(shares)) < shares).astype(np.uint8)


def image_set(labels, groups=None):
    names = tuple(f"{i}.png" for i in range(len(labels)))
    classes = tuple(f"label {i}" for i in range(labels.shape[1]))
    return ImageSet("images", classes, [b""] * len(labels), names, labels, groups=groups)


def test_each_label_has_its_share_in_each_part():
    labels = labelled()
    part = stratify(labels, np.arange(400), (0.7, 0.1, 0.2), seed=3)
    for column in (*labels.T, ~labels.any(axis=1)):
        for i, share in enumerate((0.7, 0.1, 0.2)):
            assert abs(column[part == i].sum() - share * column.sum()) <= 3
    assert np.abs(np.bincount(part) - [280, 40, 80]).max() <= 3
    np.testing.assert_array_equal(part, stratify(labels, np.arange(400), (0.7, 0.1, 0.2), seed=3))
    assert (part != stratify(labels, np.arange(400), (0.7, 0.1, 0.2), seed=4)).any()


def test_groups_and_images_that_are_alike_stay_together():
    labels, rng = labelled(), np.random.RandomState(1)
    groups, alike = rng.randint(0, 90, 400), np.arange(400)
    alike[[40, 80, 120]] = [0, 1, 2]
    split = split_image_set(image_set(labels, tuple(map(str, groups))), alike=alike)
    part = np.empty(400, object)
    for name in SPLIT_PARTS:
        part[getattr(split, name)] = name
    for units in (groups, alike):
        for unit in np.unique(units):
            assert len(set(part[units == unit])) == 1
    for column in labels.T:
        assert column[split.train].any()


def test_rare_labels_are_for_training_first():
    labels = labelled()
    labels[:, 3] = 0
    labels[[5, 9, 77], 3] = 1
    split = split_image_set(image_set(labels))
    assert [int(labels[getattr(split, part), 3].sum()) for part in SPLIT_PARTS] == [1, 1, 1]
    labels[77, 3] = 0
    split = split_image_set(image_set(labels))
    assert labels[split.train, 3].any()


def test_few_images_with_many_labels():
    labels = np.array([[(k + i) % 7 == 0 for k in range(200)] for i in range(12)]).astype(np.uint8)
    split = split_image_set(image_set(labels), validation_fraction=0)
    assert labels[split.train].any(axis=0).all()
    assert len(split.test)


def test_each_image_is_tested_by_one_fold():
    labels = labelled()
    fold = fold_of_each(image_set(labels), 4, seed=0)
    assert np.abs(np.bincount(fold)[1:] - 100).max() <= 3
    for column in labels.T:
        counts = np.bincount(fold[column == 1], minlength=5)[1:]
        assert np.ptp(counts) <= 2


def test_a_label_of_one_image_has_no_folds():
    labels = labelled()
    labels[:, 3] = np.arange(400) == 7
    with pytest.raises(InputError, match='label "label 3" has 1 image'):
        fold_of_each(image_set(labels), 4, seed=0)
