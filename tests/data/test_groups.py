"""Groups of images that a split keeps whole: told by names, folders or columns, or found as duplicates."""

import dataclasses

import numpy as np
import pytest
from PIL import Image
from sklearn.model_selection import StratifiedGroupKFold

from keras_vit.data.audit import audit_split
from keras_vit.data.folds import fold_split
from keras_vit.data.groups import with_groups
from keras_vit.data.image_set import ImageSet
from keras_vit.data.near_duplicates import connected
from keras_vit.data.sources import load_image_set
from keras_vit.data.split import crossing, same_split, split_image_set
from keras_vit.errors import InputError
from keras_vit.training.config import TrainConfig, from_dict, to_dict
from tests.helpers.paths import SHARED

pytestmark = pytest.mark.same_on_every_backend

PIXELS = np.zeros((2, 2, 1), np.uint8)


def named(names, labels=None, **options):
    labels = np.zeros(len(names), np.int64) if labels is None else np.asarray(labels)
    classes = tuple(f"class{i}" for i in range(labels.max() + 1))
    return ImageSet("the test", classes, [PIXELS] * len(names), tuple(names), labels, **options)


def of_counts(*counts, **options):
    labels = np.repeat(np.arange(len(counts)), counts)
    return named([str(i) for i in range(len(labels))], labels, **options)


@pytest.mark.parametrize(
    ("group_by", "names", "same"),
    [
        ("parent", ["a/p1/1.jpg", "a/p2/1.jpg", "b/p1/2.jpg"], [0, 1, 0]),
        ("regex:part(\\d+)", ["a/part1_1.jpg", "a/part12_1.jpg", "b/part1_9.jpg"], [0, 1, 0]),
        ("regex:^[^_]+", ["a/x_1.jpg", "a/x_2.jpg", "b/x_1.jpg"], [0, 0, 1]),
        ("regex:(day\\d)_(strip\\d)", ["day1_strip2", "day2_strip2", "day1_strip2b"], [0, 1, 0]),
        ("regex:part(\\d)?", ["part", "part1", "part"], [0, 1, 0]),
    ],
)
def test_groups_by_names(group_by, names, same):
    found = with_groups(named(names), group_by)
    positions = np.unique(np.asarray(found.groups), return_index=True)
    first = [positions[1][list(positions[0]).index(group)] for group in found.groups]
    assert [first.index(one) for one in first] == [same.index(one) for one in same]
    assert found.notes == (
        f"2 groups of 3 images, by --group-by {group_by}: each stays in one part of the split",
    )


def test_groups_of_a_table_are_kept_and_told():
    columns = {"group": ("a", "a", "b"), "strip": ("1", "", "1")}
    images = named(["1", "2", "3"], groups=columns["group"], columns=columns)
    assert with_groups(images, None).groups == ("a", "a", "b")
    assert with_groups(images, None).notes == (
        "2 groups of 3 images, by the table: each stays in one part of the split",
    )
    found = with_groups(images, "column:strip")
    assert (found.groups[0], len(set(found.groups))) == ("1", 2)
    assert found.notes[1] == "--group-by column:strip finds no group for 2: each stands alone"
    assert with_groups(named(["1"]), None).groups is None
    with pytest.raises(InputError, match=r"has no column 'x'\. It has group, strip: give --group-by column:"):
        with_groups(images, "column:x")
    with pytest.raises(InputError, match="has no columns: use regex:EXPRESSION or parent"):
        with_groups(named(["1"]), "column:strip")


def test_images_without_a_group_stand_alone_and_are_named():
    found = with_groups(named(["part1_1", "part1_2", "x", "y"]), "regex:part\\d")
    assert len(set(found.groups)) == 3
    assert found.notes[1] == "--group-by regex:part\\d finds no group for x and 1 more: each stands alone"
    with pytest.raises(InputError, match="finds no group in the test, whose first image is named x"):
        with_groups(named(["x", "y"]), "regex:part\\d")


def test_folders_of_groups_below_those_of_classes(tmp_path):
    for place in ("a/s1/1", "a/s2/2", "b/s1/3", "b/s2/4"):
        path = tmp_path / f"{place}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (4, 4)).save(path)
    with pytest.raises(InputError, match="--group-by parent"):
        load_image_set(tmp_path)
    found = load_image_set(tmp_path, group_by="parent")
    assert (found.class_names, found.groups) == (("a", "b"), ("s1", "s2", "s1", "s2"))
    assert found.names == ("a/s1/1.png", "a/s2/2.png", "b/s1/3.png", "b/s2/4.png")


@pytest.mark.parametrize(
    ("wanted", "message"),
    [
        ("regex:(", r"group_by must be regex: and a regular expression \(missing \), unterminated"),
        ("regex:", "group_by must be column:NAME, regex:EXPRESSION or parent"),
        ("column:", "group_by must be column:NAME, regex:EXPRESSION or parent"),
        ("folder", "group_by must be column:NAME, regex:EXPRESSION or parent"),
    ],
)
def test_wrong_group_by(wanted, message):
    with pytest.raises(InputError, match=message):
        TrainConfig(group_by=wanted)


@pytest.mark.parametrize("seed", range(3))
def test_a_split_keeps_groups_whole_and_classes_in_each_part(seed):
    rng = np.random.default_rng(seed)
    groups = np.repeat(np.arange(60), rng.integers(1, 9, 60))
    labels = rng.integers(3, size=len(groups))
    images = named(list(map(str, range(len(groups)))), labels, groups=tuple(map(str, groups)))
    split = split_image_set(images, seed=seed)
    assert crossing(split, images.groups) == 0
    share = len(split.test) / len(groups)
    assert 0.13 < share < 0.27
    for part in (split.train, split.validation, split.test):
        assert set(labels[part]) == {0, 1, 2}
    together = np.concatenate([split.train, split.validation, split.test])
    assert sorted(together) == list(range(len(groups)))
    assert same_split(split, split_image_set(images, seed=seed))


def test_the_test_part_is_a_fold_of_scikit_learn():
    groups = np.repeat(np.arange(40), 5)
    labels = np.repeat(np.arange(2), 100)
    images = named(list(map(str, range(200))), labels, groups=tuple(map(str, groups)))
    names = np.unique(images.groups, return_inverse=True)[1]  # scikit-learn shuffles them in this order
    folds = StratifiedGroupKFold(5, shuffle=True, random_state=4).split(labels, labels, names)
    assert split_image_set(images, seed=4).test.tolist() in [test.tolist() for _, test in folds]


@pytest.mark.parametrize(
    ("groups", "labels", "message"),
    [
        ("aaaabcde", "00001111", 'images of class "class0" are in 1 group in the test; it needs at least 3'),
        ("aabbcdef", "00001111", 'images of class "class0" are in 2 groups in the test; it needs at least 3'),
    ],
)
def test_too_few_groups(groups, labels, message):
    images = named(list(map(str, range(8))), [int(label) for label in labels], groups=tuple(groups))
    with pytest.raises(InputError, match=message):
        split_image_set(images)


def test_groups_that_no_split_can_keep():
    # Three groups for three parts, and class 2 is in two of them only, but in four with its own.
    labels = [0, 0, 0, 1, 1, 1, 2, 2, 2, 2]
    groups = tuple("abcabcabab")
    images = named(list(map(str, range(10))), labels, groups=groups)
    with pytest.raises(InputError, match='images of class "class2" are in 2 groups'):
        split_image_set(images)
    # The groups of classes 0 and 1 put c and d into one part, those of class 2 into two.
    labels = [0, 0, 0, 1, 1, 1, 2, 2, 2]
    images = named(list(map(str, range(9))), labels, groups=tuple("abcabdacd"))
    with pytest.raises(InputError, match="leave a class without images in one part of every split"):
        split_image_set(images)


def test_without_duplicates_the_split_is_the_old_one():
    images = of_counts(30, 17, 8)
    for seed in range(3):
        alike = np.arange(len(images))
        assert same_split(split_image_set(images, seed=seed, alike=alike), split_image_set(images, seed=seed))


@pytest.mark.parametrize("seed", range(5))
def test_duplicates_are_drawn_together_and_the_counts_stay(seed):
    images = of_counts(100, 100)
    rng = np.random.default_rng(seed)
    edges = np.sort(rng.integers(100, size=(15, 2)) + 100 * rng.integers(2, size=(15, 1)), axis=1)
    alike = connected(200, edges)
    split = split_image_set(images, seed=seed, alike=alike)
    assert crossing(split, alike) == 0
    alone = split_image_set(images, seed=seed)
    moved = set(split.test) - set(alone.test)
    assert len(moved) <= 2 * len(edges)  # most images are where they would be without duplicates
    assert np.bincount(images.labels[split.test]).tolist() == [20, 20]
    assert np.bincount(images.labels[split.validation]).tolist() == [8, 8]


@pytest.mark.parametrize(
    ("counts", "alike"),
    [
        ((6, 6), [0] * 12),  # everything is alike
        ((6, 6), [0] * 6 + list(range(6, 12))),  # a class of copies
        ((6, 6), [0, 0, 0, 0, 4, 5] + [0] * 3 + [9, 10, 11]),  # copies in two classes
        ((10, 10), [0] + [1] * 9 + list(range(10, 20))),
        ((10, 10), [0, 1] + [2] * 8 + list(range(10, 20))),
        ((3, 3), [0, 1, 2, 0, 1, 2]),  # each image is in both classes
    ],
)
def test_each_part_has_each_class_whatever_is_alike(counts, alike):
    images = of_counts(*counts)
    for seed in range(5):
        split = split_image_set(images, seed=seed, alike=np.asarray(alike))
        for part in (split.train, split.validation, split.test):
            assert set(images.labels[part]) == {0, 1}


def test_duplicates_join_groups():
    groups = tuple(map(str, np.repeat(np.arange(30), 2)))
    images = dataclasses.replace(of_counts(30, 30), groups=groups)
    alike = np.arange(60)
    alike[3] = 0  # of group 1 and group 0
    split = split_image_set(images, alike=alike)
    assert crossing(split, groups) == crossing(split, alike) == 0


def test_parts_of_the_source_are_kept():
    parts = ("train", "train", "test", "train", "train", "test")
    images = named(list("123456"), [0, 0, 0, 1, 1, 1], parts=parts, groups=tuple("aabccd"))
    with pytest.raises(InputError, match="in 1 group"):
        split_image_set(images)
    split = split_image_set(images, validation_fraction=0.0)
    assert split.test.tolist() == [2, 5]


def test_settings_of_an_earlier_version_keep_each_image_by_itself():
    plain = to_dict(TrainConfig())
    assert from_dict(plain).split_duplicates == "together"
    del plain["split_duplicates"]
    assert from_dict(plain).split_duplicates == "keep"
    assert from_dict({"seed": 1}).split_duplicates == "together"


@pytest.mark.skipif(not SHARED.is_dir(), reason="the real images are beside the project")
@pytest.mark.parametrize(("wanted", "leaks"), [("together", 0), ("keep", 10)])
def test_near_duplicates_of_neu(wanted, leaks):
    audit = audit_split(load_image_set(str(SHARED / "data" / "neu-det")), 0, wanted).audit
    assert len(audit.leaks) == leaks
    assert all(row["test"] == 60 and row["validation"] == 24 for row in audit.classes.values())


def test_groups_without_duplicates_have_one_split():
    groups = tuple(f"strip{i % 12}" for i in range(240))
    images = dataclasses.replace(of_counts(80, 80, 80), groups=groups)
    alone = split_image_set(images, seed=2)
    assert same_split(alone, split_image_set(images, seed=2, alike=np.arange(240)))
    folds = [fold_split(images, folds=3, fold=2, seed=1, alike=one) for one in (None, np.arange(240))]
    assert same_split(*folds)
    images = of_counts(80, 80, 80)
    folds = [fold_split(images, folds=3, fold=2, seed=1, alike=one) for one in (None, np.arange(240))]
    assert same_split(*folds)


def test_duplicates_are_told_by_any_numbers():
    """Those of images that were left out are not positions any more."""
    images = dataclasses.replace(of_counts(30, 30), groups=tuple(map(str, np.repeat(np.arange(30), 2))))
    alike = np.arange(60)
    alike[3] = 0
    for numbers in (alike, alike + 1000, alike[::-1].max() - alike):
        for one in (images, dataclasses.replace(images, groups=None)):
            split = split_image_set(one, alike=numbers)
            assert crossing(split, alike) == 0
    few = of_counts(4, 4)
    alike = np.array([7, 7, 7, 7, 5, 1, 2, 3])
    assert set(few.labels[split_image_set(few, alike=alike).test]) == {0, 1}
