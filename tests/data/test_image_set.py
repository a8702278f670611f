"""An image set in the classes of a run."""

from dataclasses import replace

import numpy as np
import pytest

from keras_vit.data.image_set import ImageSet
from keras_vit.data.split import split_image_set

pytestmark = pytest.mark.same_on_every_backend


def image_set(class_names, labels, parts=None):
    images = [np.full((2, 2, 1), i, np.uint8) for i in range(len(labels))]
    names = tuple(f"{class_names[label]}/{i}" for i, label in enumerate(labels))
    return ImageSet("here", tuple(class_names), images, names, np.array(labels, np.int64), parts)


def test_the_images_of_a_run_have_its_classes_in_its_order():
    found = image_set(["1", "2", "10"], [0, 0, 1, 2, 2]).in_classes(["1", "10", "2"])
    assert found.class_names == ("1", "10", "2")
    assert found.labels.tolist() == [0, 0, 1, 1, 2]
    assert found.names == ("1/0", "1/1", "10/3", "10/4", "2/2")
    assert [int(image[0, 0, 0]) for image in found.images] == [0, 1, 3, 4, 2]


def test_parts_stay_in_order():
    parts = ("train", "train", "test", "test")
    found = image_set(["1", "10"], [0, 1, 0, 1], parts).in_classes(["10", "1"])
    assert found.names == ("10/1", "1/0", "10/3", "1/2")
    assert found.parts == parts


def test_classes_without_images_count_and_unknown_ones_follow():
    found = image_set(["b", "x", "unused"], [0, 1]).in_classes(["a", "b"])
    assert found.class_names == ("a", "b", "x")
    assert found.labels.tolist() == [1, 2]


def test_names_are_compared_in_nfc_and_spelled_as_in_the_run():
    found = image_set(["Gr\xf6\xdfe"], [0]).in_classes(["Gro\u0308\xdfe", "a"])
    assert found.class_names == ("Gro\u0308\xdfe", "a")
    assert found.labels.tolist() == [0]


def test_a_split_drawn_again_is_that_of_an_earlier_version():
    """Earlier versions had the classes in the order 1, 10, 11, 2, from which the split follows."""
    before = sorted(str(i) for i in range(1, 12))
    old = image_set(before, np.repeat(np.arange(11), 7))
    now_names = [str(i) for i in range(1, 12)]
    order = [i for name in now_names for i in np.flatnonzero(old.labels == before.index(name))]
    new = image_set(now_names, np.repeat(np.arange(11), 7))
    new = ImageSet("here", tuple(now_names), new.images, tuple(old.names[i] for i in order), new.labels)
    again = new.in_classes(before)
    assert again.names == old.names
    assert again.labels.tolist() == old.labels.tolist()
    for part in ("train", "validation", "test"):
        now, then = getattr(split_image_set(again), part), getattr(split_image_set(old), part)
        assert now.tolist() == then.tolist()
    assert [new.names[i] for i in split_image_set(new).test] != [
        old.names[i] for i in split_image_set(old).test
    ]


def test_a_fingerprint_of_names_that_are_not_utf8():
    assert image_set(["a\udce9"], [0]).fingerprint() != image_set(["a"], [0]).fingerprint()


def test_groups_and_weights_go_with_their_images():
    found = image_set(["1", "10"], [0, 0, 1])
    found = replace(found, groups=("a", "a", "b"), weights=np.array([1.0, 0.5, 2.0]))
    taken = found.take([2, 1])
    assert (taken.groups, taken.weights.tolist()) == (("b", "a"), [2.0, 0.5])
    ordered = found.in_classes(["10", "1"])
    assert (ordered.groups, ordered.weights.tolist()) == (("b", "a", "a"), [2.0, 1.0, 0.5])
    assert image_set(["1"], [0]).take([0]).weights is None


@pytest.mark.parametrize("wrong", [{"groups": ("a",)}, {"weights": np.ones(3)}])
def test_one_group_and_one_weight_per_image(wrong):
    with pytest.raises(ValueError, match=f"{next(iter(wrong))} must have one per label, 2"):
        replace(image_set(["a", "b"], [0, 1]), **wrong)
