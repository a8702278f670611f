"""The split: compared with an independent computation, on the real images, and with wrong input."""

import numpy as np
import pytest

from keras_vit.data.image_set import ImageSet
from keras_vit.data.sources import load_image_set
from keras_vit.data.split import Split, split_image_set, stratified_split
from keras_vit.errors import InputError
from tests.helpers.paths import SHARED

pytestmark = pytest.mark.same_on_every_backend

NEU_DET = SHARED / "data" / "neu-det"


def image_set(*counts, parts=None):
    labels = np.repeat(np.arange(len(counts)), counts)
    pixels = np.zeros((2, 2, 1), np.uint8)
    return ImageSet(
        source="the test",
        class_names=tuple(f"class{label}" for label in range(len(counts))),
        images=[pixels] * len(labels),
        names=tuple(map(str, range(len(labels)))),
        labels=labels,
        parts=parts,
    )


def expected_test(labels, number, seed):
    """The rule of the data README, written without our code."""
    generator = np.random.RandomState(seed)
    chosen = []
    for label in range(max(labels) + 1):
        members = np.array([i for i, other in enumerate(labels) if other == label])
        chosen += list(generator.permutation(members)[:number])
    return sorted(chosen)


@pytest.mark.parametrize("seed", range(5))
def test_stratified_split_is_the_rule_of_the_data_readme(seed):
    labels = np.random.default_rng(seed).permutation(np.repeat(np.arange(6), 300))
    rest, test = stratified_split(labels, 60, seed)
    assert test.tolist() == expected_test(labels.tolist(), 60, seed)
    assert rest.dtype == test.dtype == np.int64
    assert rest.tolist() == sorted(set(range(1800)) - set(test.tolist()))
    assert np.bincount(labels[test]).tolist() == [60] * 6


def test_stratified_split_pins_known_positions():
    # Computed once with numpy 2.4. The stream of RandomState is frozen, so these must never change.
    labels = np.repeat(np.arange(2), 10)
    assert stratified_split(labels, 3, 0)[1].tolist() == [2, 4, 8, 11, 13, 15]


def test_stratified_split_takes_a_number_per_class():
    labels = [0] * 5 + [1] * 5
    _, test = stratified_split(labels, [1, 4], 0)
    assert np.bincount(np.asarray(labels)[test]).tolist() == [1, 4]


def test_split_image_set_draws_the_test_first():
    images = image_set(300, 300, 300)
    split = split_image_set(images, seed=3)
    assert split.test.tolist() == stratified_split(images.labels, 60, 3)[1].tolist()
    assert [len(split.train), len(split.validation), len(split.test)] == [648, 72, 180]
    assert np.bincount(images.labels[split.validation]).tolist() == [24, 24, 24]
    together = np.concatenate([split.train, split.validation, split.test])
    assert sorted(together.tolist()) == list(range(900))


def test_same_seed_same_split_other_seed_other_split():
    images = image_set(30, 30)
    first, again, other = (split_image_set(images, seed=seed) for seed in (0, 0, 1))
    assert all(
        np.array_equal(getattr(first, part), getattr(again, part)) for part in ("train", "validation", "test")
    )
    assert not np.array_equal(first.test, other.test)
    assert not np.array_equal(first.validation, other.validation)


@pytest.mark.parametrize(
    ("count", "fractions", "sizes"),
    [
        (3, {}, (1, 1, 1)),
        (10, {}, (7, 1, 2)),
        (10, {"validation_fraction": 0}, (8, 0, 2)),
        (2, {"validation_fraction": 0}, (1, 0, 1)),
        (10, {"test_fraction": 0.99}, (1, 1, 8)),
        (10, {"validation_fraction": 0.99}, (1, 7, 2)),
        (25, {"test_fraction": 0.1}, (20, 2, 3)),  # 2.5 rounds up
    ],
)
def test_fractions_are_rounded_and_leave_one_for_training(count, fractions, sizes):
    split = split_image_set(image_set(count, 300), **fractions)
    labels = image_set(count, 300).labels
    found = tuple(int((labels[part] == 0).sum()) for part in (split.train, split.validation, split.test))
    assert found == sizes


def test_given_parts_are_kept():
    parts = ("train", "validation", "test", "train") * 2
    split = split_image_set(image_set(4, 4, parts=parts), seed=7)
    assert (split.train.tolist(), split.validation.tolist(), split.test.tolist()) == (
        [0, 3, 4, 7],
        [1, 5],
        [2, 6],
    )


@pytest.mark.parametrize(
    ("given", "sizes"),
    [
        (("train", "test"), (18, 2, 20)),
        (("train", "validation"), (16, 20, 4)),
        (("train",), (28, 4, 8)),
    ],
)
def test_a_missing_part_is_drawn_from_train(given, sizes):
    parts = tuple(np.resize(given, 20)) * 2
    split = split_image_set(image_set(20, 20, parts=parts))
    assert tuple(len(part) for part in (split.train, split.validation, split.test)) == sizes
    assert {parts[i] for i in split.train} == {"train"}
    kept = {"test": split.test, "validation": split.validation}
    for part in given[1:]:
        assert kept[part].tolist() == [i for i, found in enumerate(parts) if found == part]


@pytest.mark.parametrize(
    "parts", [None, ("train",), ("train", "test"), ("train", "validation", "test", "train")]
)
@pytest.mark.parametrize("counts", [(40, 60), (5, 30), (3, 12)])
def test_merged_validation_images_train_and_the_test_part_is_the_same(parts, counts):
    images = image_set(*counts, parts=parts and tuple(np.resize(parts, sum(counts))))
    for fractions in ({}, {"test_fraction": 0.5, "validation_fraction": 0.3}):
        split = split_image_set(images, seed=2, **fractions)
        merged = split_image_set(images, seed=2, merge_validation=True, **fractions)
        assert merged.test.tolist() == split.test.tolist()
        assert len(merged.validation) == 0
        assert len(split.validation) > 0
        assert merged.train.tolist() == sorted([*split.train, *split.validation])
        assert merged.train.dtype == merged.validation.dtype == np.int64


@pytest.mark.parametrize("seed", range(3))
def test_without_validation_the_test_part_is_the_same(seed):
    images = image_set(300, 250, 17)
    split = split_image_set(images, seed=seed)
    rest = split_image_set(images, seed=seed, validation_fraction=0)
    assert rest.test.tolist() == split.test.tolist()
    assert rest.train.tolist() == split_image_set(images, seed=seed, merge_validation=True).train.tolist()


WRONG = [
    (
        lambda: split_image_set(image_set(1, 9)),
        'Class "class0" has 1 image in the test; it needs at least 3: one each for training, validation and '
        "test. "
        "Add images to the class, or remove the class.",
    ),
    (lambda: split_image_set(image_set(9, 0)), 'Class "class1" has 0 images'),
    (
        lambda: split_image_set(image_set(1, 9), validation_fraction=0),
        "at least 2: one each for training and test",
    ),
    (lambda: split_image_set(image_set(9, 9), test_fraction=0), "test_fraction must be above 0"),
    (lambda: split_image_set(image_set(9, 9), test_fraction=1.0), "Received: test_fraction=1.0"),
    (
        lambda: split_image_set(image_set(9, 9), validation_fraction=-0.1),
        "Received: validation_fraction=-0.1",
    ),
    (lambda: split_image_set(image_set(9, 9), seed=-1), "Received: seed=-1"),
    (lambda: stratified_split([0, 0, 1], 2), "Class 1 has 1 images, so 2 of them cannot be drawn."),
    (
        lambda: split_image_set(
            image_set(3, 3, parts=("test", "validation", "test", "train", "validation", "test"))
        ),
        'Class "class0" has 0 images in the test; it needs at least 1: one each for training.',
    ),
]


@pytest.mark.parametrize(("call", "message"), WRONG)
def test_wrong_input(call, message):
    with pytest.raises(InputError) as error:
        call()
    assert message in str(error.value)


def test_neu_det():
    if not NEU_DET.is_dir():
        pytest.skip(f"the NEU images are not in {NEU_DET}")
    images = load_image_set(NEU_DET)
    split = split_image_set(images, seed=0)
    assert [len(split.train), len(split.validation), len(split.test)] == [1296, 144, 360]
    assert split.test.tolist() == expected_test(images.labels.tolist(), 60, 0)
    assert isinstance(split, Split)
    assert images.names[:2] == ("crazing/crazing_1.jpg", "crazing/crazing_2.jpg")
    # Computed from the text of the data README with numpy alone.
    assert [images.names[i] for i in split.test[:3]] == NEU_TEST_BEGINS


NEU_TEST_BEGINS = ["crazing/crazing_6.jpg", "crazing/crazing_8.jpg", "crazing/crazing_9.jpg"]
