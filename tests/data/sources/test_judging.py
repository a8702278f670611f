"""Images that judge a run: they need only classes that the run knows."""

import numpy as np
import pytest

from keras_vit.data.sources import load_image_set
from keras_vit.errors import InputError
from tests.helpers.trees import in_classes, pack, put

pytestmark = pytest.mark.same_on_every_backend

KNOWN = ("cat", "dog", "bird")

ENOUGH = {
    "one class": (["cat/1.png"], ["cat"]),
    "one class in a folder round it": (["new/cat/1.png"], ["cat"]),
    "a test part alone": (in_classes("test"), ["cat", "cat", "dog", "dog"]),
    "a validation part of one class": (["val/dog/1.png"], ["dog"]),
    "a train and a test part": (["train/cat/1.png", "test/dog/1.png"], ["cat", "dog"]),
    "folders inside a class": (["cat/line 1/1.png", "cat/line 2/1.png"], ["cat", "cat"]),
    "classes inside days": (
        ["monday/cat/1.png", "friday/cat/1.png", "friday/dog/1.png"],
        ["cat", "cat", "dog"],
    ),
    "file names": (["cat_1.png", "cat_2.png"], ["cat", "cat"]),
    "an empty folder beside it": (["cat/1.png", "dog/"], ["cat"]),
    "unlabelled images beside it": (["test/cat/1.png", "predict/1.png"], ["cat"]),
}


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize(("names", "labels"), ENOUGH.values(), ids=ENOUGH.keys())
def test_enough_to_judge(tmp_path, names, labels, packed):
    data = pack(tmp_path / "d.zip", *names) if packed else put(tmp_path / "d", *names)
    images = load_image_set(data, KNOWN)
    assert images.class_names == KNOWN
    assert [KNOWN[label] for label in images.labels] == labels
    assert images.parts is None


def test_the_folder_of_one_class(tmp_path, caplog):
    images = load_image_set(put(tmp_path / "cat", "1.png", "2.png"), KNOWN)
    assert images.labels.tolist() == [0, 0]
    assert 'all images are judged as "cat", the name of what holds them' in caplog.text


def test_the_zip_of_one_class(tmp_path):
    assert load_image_set(pack(tmp_path / "dog.zip", "1.png"), KNOWN).labels.tolist() == [1]


def test_classes_without_images_are_said(tmp_path, caplog):
    load_image_set(put(tmp_path / "d", "cat/1.png"), KNOWN)
    assert 'no images of 2 of the 3 classes: "bird", "dog"' in caplog.text


def test_unknown_classes_are_kept_to_be_named(tmp_path):
    images = load_image_set(put(tmp_path / "d", "cat/1.png", "frog/1.png"), KNOWN)
    assert images.class_names == (*KNOWN, "frog")
    assert images.labels.tolist() == [0, 3]


WRONG = {
    "no labels": (["1.png"], "Images without labels are for keras-vit predict"),
    "a table of labels": (["images/1.png", "labels.csv"], "labels.csv may hold the labels"),
    "a class in a class": (["cat/dog/1.png"], 'is in folders of two classes of the run ("cat", "dog")'),
    "nothing": ([], "holds no images"),
}


@pytest.mark.parametrize(("names", "message"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_judge(tmp_path, names, message):
    with pytest.raises(InputError) as error:
        load_image_set(put(tmp_path / "d", *names), KNOWN)
    assert message in str(error.value)


def test_a_class_called_like_a_part(tmp_path):
    images = load_image_set(put(tmp_path / "d", "test/car/1.png", "train/1.png"), ("car", "train"))
    assert sorted(zip(images.names, images.labels.tolist(), strict=True)) == [
        ("test/car/1.png", 0),
        ("train/1.png", 1),
    ]


@pytest.mark.parametrize("names", [("x", "y"), ("x_test", "y_test"), ("val_images", "val_labels")])
def test_arrays(tmp_path, names):
    arrays = np.zeros((2, 4, 4), np.uint8), np.array([1, 1])
    np.savez(tmp_path / "d.npz", **dict(zip(names, arrays, strict=True)))
    images = load_image_set(tmp_path / "d.npz", ("0", "1"))
    assert images.class_names == ("0", "1")
    assert images.labels.tolist() == [1, 1]
