"""Which folders are parts, which are classes, and which layouts can be read in two ways."""

import pytest

from keras_vit.data.sources import load_image_set
from keras_vit.data.sources.part_names import part_name
from keras_vit.errors import InputError
from tests.helpers.trees import in_classes, pack, put

pytestmark = pytest.mark.same_on_every_backend

NAMES = {
    "train": "train training Train TRAIN train_set training-set trainingSet TrainData train2017 trainset",
    "validation": "val valid validation val_data dev devset Validation_Set valid.images",
    "test": "test testing test_set testdata Test-Data TestSet test_images",
    "evaluation": "eval evaluation eval_data",
    "prediction": "pred predict prediction predict_set unlabeled",
}


@pytest.mark.parametrize(
    ("name", "role"), [(name, role) for role, names in NAMES.items() for name in names.split()]
)
def test_names_of_parts(name, role):
    assert part_name(name)[:2] == (role, True)


@pytest.mark.parametrize(
    ("name", "found"),
    [
        ("seg_train", ("train", False, "seg")),
        ("my_test_set", ("test", False, "my")),
        ("cats_val", ("validation", False, "cats")),
        ("train_wheel", ("train", False, "wheel")),
        ("crash_test_dummy", None),
        ("test_train_split", None),
        ("constraint", None),
        ("contest", None),
        ("valve", None),
        ("devil", None),
        ("data", None),
        ("1", None),
        ("", None),
        ("été", None),
    ],
)
def test_names_that_say_more_or_nothing(name, found):
    assert part_name(name) == found


PARTS = {
    "training_set": [*in_classes("training_set"), *in_classes("test_set")],
    "camel case": [*in_classes("trainData"), *in_classes("testData")],
    "years": [*in_classes("train2017"), *in_classes("test2017")],
    "prefixes": [*in_classes("my_train"), *in_classes("my_test")],
    "a folder in a folder of the same name": [
        *in_classes("seg_train/seg_train"),
        *in_classes("seg_test/seg_test"),
    ],
    "a part in a part": [*in_classes("train_data/train"), *in_classes("test_data/test")],
    "folders round everything": [*in_classes("archive/v1/train"), *in_classes("archive/v1/test")],
    "a part's name round everything": [*in_classes("training_data/train"), *in_classes("training_data/test")],
    "evaluation": [*in_classes("train"), *in_classes("eval")],
    "labelled predictions": [*in_classes("train"), *in_classes("predict")],
    "inside the classes": [*in_classes("cat", "train", "test"), *in_classes("dog", "train", "test")],
}


@pytest.mark.parametrize("packed", [False, True], ids=["folder", "zip"])
@pytest.mark.parametrize("names", PARTS.values(), ids=PARTS.keys())
def test_parts_are_not_classes(tmp_path, names, packed):
    images = load_image_set(pack(tmp_path / "d.zip", *names) if packed else put(tmp_path / "d", *names))
    assert images.class_names == ("cat", "dog")
    assert images.parts == ("train",) * 4 + ("test",) * 4
    assert images.labels.tolist() == [0, 0, 1, 1] * 2
    assert all(
        images.class_names[label] in name for name, label in zip(images.names, images.labels, strict=True)
    )
    assert all(
        "train" in name.rsplit("/", 2)[0] or name.split("/")[1] == "train" for name in images.names[:4]
    )


def test_what_the_parts_are_is_said(tmp_path, caplog):
    load_image_set(put(tmp_path / "d", *in_classes("training_set"), *in_classes("test_set")))
    assert "these folders are parts, not classes: test_set (test), training_set (train)" in caplog.text


UNLABELED = {
    "flat": ["test/1.png", "test/2.png"],
    "in a neutral folder": ["test/images/1.png", "test/images/2.png"],
    "in a folder of the same name": ["test/test/1.png", "test/test/2.png"],
    "in a folder that says unknown": ["test/unknown/1.png", "test/unknown/2.png"],
    "predict": ["predict/1.png", "predict/2.png"],
    "a prefix": ["seg_pred/seg_pred/1.png", "seg_pred/seg_pred/2.png"],
}


@pytest.mark.parametrize("names", UNLABELED.values(), ids=UNLABELED.keys())
def test_a_part_without_labels_is_announced_and_not_used(tmp_path, caplog, names):
    images = load_image_set(put(tmp_path / "d", *in_classes("train"), *names))
    assert images.class_names == ("cat", "dog")
    assert len(images) == 4
    assert images.parts is None
    assert "2 images without labels, not used" in caplog.text


def test_a_flat_part_whose_file_names_give_known_classes_is_used(tmp_path):
    images = load_image_set(put(tmp_path / "d", *in_classes("train"), "test/cat_1.png", "test/dog_1.png"))
    assert images.parts == ("train",) * 4 + ("test",) * 2
    assert images.labels.tolist() == [0, 0, 1, 1, 0, 1]


CLASSES = {
    "a class called test": ["car/1.png", "bus/1.png", "test/1.png"],
    "a class called train": ["car/1.png", "bus/1.png", "train/1.png"],
    "a class called valid": ["valid/1.png", "invalid/1.png"],
}


@pytest.mark.parametrize("names", CLASSES.values(), ids=CLASSES.keys())
def test_flat_folders_are_all_classes_and_that_is_said(tmp_path, caplog, names):
    images = load_image_set(put(tmp_path / "d", *names))
    assert set(images.class_names) == {name.split("/")[0] for name in names}
    assert (
        "is read as a class, like the folders beside it. If it is a part, it needs class folders"
        in caplog.text
    )


def test_classes_whose_names_end_like_parts(tmp_path, caplog):
    images = load_image_set(put(tmp_path / "d", "bullet_train/1.png", "crash_test/1.png"))
    assert images.class_names == ("bullet_train", "crash_test")
    assert not caplog.text


def test_predictions_beside_classes_are_not_a_class(tmp_path, caplog):
    images = load_image_set(put(tmp_path / "d", "car/1.png", "bus/1.png", "predictions/1.png"))
    assert images.class_names == ("bus", "car")
    assert "predictions: 1 image without labels, not used" in caplog.text


def test_images_below_the_class_folders_are_announced(tmp_path, caplog):
    images = load_image_set(put(tmp_path / "d", "car/side/1.png", "car/front/1.png", "bus/1.png"))
    assert images.class_names == ("bus", "car")
    assert (
        "2 images in folders below the class folders count for the class above them, such as" in caplog.text
    )


TWO_WAYS = {
    "the same folders in folders": (
        [*in_classes("camera1"), *in_classes("camera2")],
        'the same folders ("cat", "dog") are in several of the folders "camera1", "camera2"',
    ),
    "folds": ([*in_classes("fold1"), *in_classes("fold2")], "either may be the classes"),
    "days in classes": (
        [*in_classes("cat", "monday", "friday"), *in_classes("dog", "monday", "friday")],
        'the same folders ("friday", "monday")',
    ),
    "two kinds of trains": (
        [*in_classes("bullet_train", "side", "front"), *in_classes("steam_train", "side", "front")],
        'the same folders ("front", "side")',
    ),
    "a part beside classes": (
        ["car/1.png", "bus/1.png", "test_set/1.png"],
        'the folder "test_set" is named after a part and holds no class folders',
    ),
    "class and part in one name": (
        ["cat_train/1.png", "cat_test/1.png", "dog_train/1.png"],
        'the folders "cat_test", "cat_train", "dog_train" are named after parts',
    ),
    "parts in some classes": (
        [*in_classes("cat", "train", "test"), "dog/1.png"],
        'there are parts ("test", "train") inside some of the folders "cat", "dog"',
    ),
    "three parts to judge on": (
        [*in_classes("train"), *in_classes("val"), *in_classes("test"), *in_classes("eval")],
        "there are a test, a validation and an evaluation part",
    ),
}


@pytest.mark.parametrize(("names", "message"), TWO_WAYS.values(), ids=TWO_WAYS.keys())
def test_what_can_be_read_in_two_ways_is_refused_with_the_layouts_that_work(tmp_path, names, message):
    with pytest.raises(InputError) as error:
        load_image_set(put(tmp_path / "d", *names))
    assert "can be read in two ways: " in str(error.value)
    assert message in str(error.value)
    assert "Layouts that work: CLASS/image.png; or train/CLASS/image.png" in str(error.value)


REFUSED = {
    "test folders beside class folders": (
        [*in_classes("test"), "cat/1.png", "dog/1.png"],
        'has the folders "test", and also "cat", "dog". Keep only',
    ),
    "parts and more": (
        [*in_classes("train_data"), *in_classes("test_data"), "extra/1.png"],
        'has the folders "test_data", "train_data", and also "extra". Keep only',
    ),
    "parts without classes": (["train/1.png", "test/1.png"], "gives no class"),
    "images and masks": (["images/1.png", "masks/1.png"], "looks like images with masks or annotations"),
    "images and labels": (["Images/1.png", "Labels/1.png"], "looks like images with masks or annotations"),
    "a folder too many in the parts": (
        [*in_classes("train/v1"), *in_classes("test/v1")],
        'of another class. If the folders in it are the classes ("cat", "dog"), move them up.',
    ),
    "a table beside the images": (
        ["images/1.png", "images/2.png", "labels.csv"],
        "labels.csv may hold the labels: give it instead: --data",
    ),
    "annotations of boxes": (
        ["images/train/1.png", "images/val/1.png", "labels/train/1.txt"],
        "labels/train/1.txt may hold the labels",
    ),
    "no labels at all": (
        ["1.png", "2.png"],
        "Images without labels are for keras-vit predict, or for --unlabeled",
    ),
    "names that a camera gives": (["IMG_1.png", "DSC_2.png"], "the file name DSC_2.png gives no class"),
}


@pytest.mark.parametrize(("names", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_layouts_without_classes_name_the_likely_reason(tmp_path, names, message):
    with pytest.raises(InputError) as error:
        load_image_set(put(tmp_path / "d", *names))
    assert message in str(error.value)


def test_classes_by_file_names_are_said(tmp_path, caplog):
    load_image_set(put(tmp_path / "d", "dent_1.png", "hole_2.png"))
    assert 'the file names give the classes: "dent", "hole"' in caplog.text
