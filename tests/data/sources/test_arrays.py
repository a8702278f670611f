"""Images from an .npz file, and the errors for wrong files."""

import io
import zipfile

import numpy as np
import pytest

from keras_vit.data.sources import load_image_set
from keras_vit.errors import InputError

pytestmark = pytest.mark.same_on_every_backend

X = np.arange(4 * 5 * 6, dtype=np.uint8).reshape(4, 5, 6)
Y = np.array([1, 0, 1, 0])

NPZ = {
    "x and y": ({"x": X, "y": Y}, ("0", "1"), [1, 0, 1, 0], ["x[0]", "x[1]", "x[2]", "x[3]"], None),
    "images and labels, named": (
        {
            "images": X[..., None],
            "labels": Y[:, None].astype(np.uint8),
            "class_names": np.array(["ok", "bad"]),
        },
        ("ok", "bad"),
        [1, 0, 1, 0],
        ["images[0]", "images[1]", "images[2]", "images[3]"],
        None,
    ),
    "labels in words": (
        {"x": np.stack([X] * 3, -1), "y": np.array(["ok", "bad", "ok", "bad"])},
        ("bad", "ok"),
        [1, 0, 1, 0],
        ["x[0]", "x[1]", "x[2]", "x[3]"],
        None,
    ),
    "labels with gaps, in the order of the numbers": (
        {"x": X, "y": np.array([10, 9, 10, 9])},
        ("9", "10"),
        [1, 0, 1, 0],
        ["x[0]", "x[1]", "x[2]", "x[3]"],
        None,
    ),
    "as Keras saves MNIST": (
        {"x_train": X[:3], "y_train": Y[:3], "x_test": X[3:], "y_test": Y[3:]},
        ("0", "1"),
        [1, 0, 1, 0],
        ["x_train[0]", "x_train[1]", "x_train[2]", "x_test[0]"],
        ("train", "train", "train", "test"),
    ),
    "as MedMNIST": (
        {
            "train_images": X[:2],
            "train_labels": Y[:2, None],
            "val_images": X[2:3],
            "val_labels": Y[2:3, None],
            "test_images": X[3:],
            "test_labels": Y[3:, None],
        },
        ("0", "1"),
        [1, 0, 1, 0],
        ["train_images[0]", "train_images[1]", "val_images[0]", "test_images[0]"],
        ("train", "train", "validation", "test"),
    ),
}


@pytest.mark.parametrize(("arrays", "class_names", "labels", "names", "parts"), NPZ.values(), ids=NPZ.keys())
def test_npz(tmp_path, arrays, class_names, labels, names, parts):
    np.savez_compressed(tmp_path / "data.npz", **arrays)
    images = load_image_set(tmp_path / "data.npz")
    assert images.class_names == class_names
    assert images.labels.tolist() == labels
    assert images.labels.dtype == np.int64
    assert list(images.names) == names
    assert images.parts == parts
    for found, expected in zip(images.images, X, strict=True):
        assert found.dtype == np.uint8
        assert found.shape[:2] == (5, 6)
        assert (found == expected[..., None]).all()


SPELLINGS = {
    "valid": ("x_train", "y_train", "x_valid", "y_valid"),
    "capitals": ("X_train", "Y_train", "X_val", "Y_val"),
    "MedMNIST": ("train_images", "train_labels", "val_images", "val_labels"),
    "the other way round": ("images_train", "labels_train", "images_dev", "labels_dev"),
    "glued": ("xtrain", "ytrain", "xvalidation", "yvalidation"),
    "camel": ("trainX", "trainY", "validX", "validY"),
    "data and targets": ("train_data", "train_targets", "validation_data", "validation_targets"),
}


@pytest.mark.parametrize("names", SPELLINGS.values(), ids=SPELLINGS.keys())
def test_the_names_of_parts(tmp_path, names, caplog):
    np.savez(tmp_path / "data.npz", **dict(zip(names, (X, Y, X[:2], Y[:2]), strict=True)))
    images = load_image_set(tmp_path / "data.npz")
    assert images.parts == ("train",) * 4 + ("validation",) * 2
    assert images.labels.tolist() == [1, 0, 1, 0, 1, 0]
    assert not caplog.text


@pytest.mark.parametrize("names", [("X", "y"), ("data", "target"), ("image", "label"), ("arr_0", "arr_1")])
def test_the_names_of_a_pair(tmp_path, names):
    np.savez(tmp_path / "data.npz", **dict(zip(names, (X, Y), strict=True)))
    assert load_image_set(tmp_path / "data.npz").labels.tolist() == [1, 0, 1, 0]


def test_arrays_that_are_not_used_are_named_and_not_read(tmp_path, caplog):
    other = np.array([{}], dtype=object)  # would run code if it were read
    np.savez(tmp_path / "data.npz", x_train=X, y_train=Y, x_test=X, pickled=other, masks=X)
    images = load_image_set(tmp_path / "data.npz")
    assert images.parts is None
    assert "arrays that are not used: x_test, pickled, masks" in caplog.text


CONVERTED = {
    "floats of 0 to 1": (lambda x: x / 255, "float64 pixels of 0 to 1 are multiplied by 255 and rounded"),
    "floats of 0 to 255": (lambda x: x * 1.0, "float64 pixels of 0 to 255 are rounded to uint8"),
    "integers": (lambda x: x.astype(">i8"), "pixels of 0 to 255 are converted to uint8"),
    "16 bits with values of 8": (lambda x: x.astype("uint16"), "uint16 pixels of 0 to 255 are converted"),
    "channels first": (lambda x: x[:, None], "channels first (4, 1, 5, 6) is read as channels last"),
}


@pytest.mark.parametrize(("change", "line"), CONVERTED.values(), ids=CONVERTED.keys())
def test_other_pixels_are_converted_and_announced(tmp_path, caplog, change, line):
    pixels = np.where(np.arange(6) == 5, 255, X).astype(np.uint8)
    np.savez(tmp_path / "data.npz", x=change(pixels), y=Y)
    images = load_image_set(tmp_path / "data.npz")
    for found, expected in zip(images.images, pixels, strict=True):
        assert found.dtype == np.uint8
        np.testing.assert_array_equal(found, expected[..., None])
    assert line in caplog.text
    assert line in images.notes[0]


def test_channels_first_keeps_the_colours(tmp_path):
    colours = np.random.default_rng(0).integers(0, 256, (4, 5, 6, 3), dtype=np.uint8)
    np.savez(tmp_path / "data.npz", x=np.moveaxis(colours, -1, 1), y=Y)
    np.testing.assert_array_equal(np.stack(load_image_set(tmp_path / "data.npz").images), colours)


@pytest.mark.parametrize(
    ("labels", "line"),
    [
        (np.eye(2)[Y], "one-hot rows of 2 are read as the positions of their ones"),
        (np.eye(2, dtype=bool)[Y], "one-hot rows of 2"),
        (Y * 1.0, "float64 labels are read as whole numbers"),
        (Y == 1, "False is read as class 0, True as class 1"),
    ],
)
def test_other_labels_are_converted_and_announced(tmp_path, caplog, labels, line):
    np.savez(tmp_path / "data.npz", x=X, y=labels)
    assert load_image_set(tmp_path / "data.npz").labels.tolist() == [1, 0, 1, 0]
    assert line in caplog.text


def test_labels_in_words_are_in_natural_order(tmp_path):
    np.savez(tmp_path / "data.npz", x=X, y=np.array(["10", "9", "1", "b\n"]))
    assert load_image_set(tmp_path / "data.npz").class_names == ("1", "9", "10", "b")


def test_an_array_that_claims_more_than_it_has(tmp_path):
    """numpy would take the memory for all of it before it reads."""
    header = io.BytesIO()
    claim = {"descr": "|u1", "fortran_order": False, "shape": (10**12, 8, 8)}
    np.lib.format.write_array_header_1_0(header, claim)
    np.savez(tmp_path / "data.npz", y=Y)
    with zipfile.ZipFile(tmp_path / "data.npz", "a") as archive:
        archive.writestr("x.npy", header.getvalue() + bytes(64))
    with pytest.raises(InputError, match=r"damaged \(x claims the shape"):
        load_image_set(tmp_path / "data.npz")


WRONG_NPZ = [
    (
        {"a": X, "b": Y},
        "has no images and labels under a known name. It must hold x and y, images and labels, or",
    ),
    ({"x": X}, "has no array y. It must hold x and y"),
    ({"x_test": X, "y_test": Y}, "has no images and labels under a known name"),
    (
        {"x": X, "y": Y, "x_train": X, "y_train": Y},
        "has x and y as well as arrays for train and test. Keep one",
    ),
    ({"x": X, "y": Y[:3]}, "x has 4 images, but y has 3 labels."),
    (
        {"x_train": X.astype("uint16") * 200, "y_train": Y, "x_test": X / 127.5 - 1, "y_test": Y},
        "has images of several types, float64, uint16: their values may not have one meaning",
    ),
    ({"x": X.astype("int64") % 2, "y": Y}, "If 1 is white: x = (x * 255).astype('uint8')"),
    ({"x": X * np.nan, "y": Y}, "x has values that are not finite"),
    (
        {"x_train": X / 255, "y_train": Y, "x_test": X * 1.0, "y_test": Y},
        "Some are of 0 to 1 and some are not: x_train = (x_train * 255).round().astype('uint8')",
    ),
    ({"x": X[0], "y": Y}, "Received: (5, 6)"),
    ({"x": np.stack([X] * 7, 1), "y": Y}, "with 1 to 32 channels. Received: (4, 7, 5, 6)"),
    (
        {"x": np.zeros((4, 784), np.uint8), "y": Y},
        "Received: (4, 784). If each row is a square gray image: x = x.reshape(-1, 28, 28)",
    ),
    (
        {"x": np.zeros((5, 6, 3, 7), np.uint8), "y": Y},
        "If the images are counted by the last axis: x = np.moveaxis(x, -1, 0)",
    ),
    ({"x": X, "y": np.full((4, 2), 0.5)}, "this takes the likeliest: y = y.argmax(axis=1)"),
    (
        {"x": X, "y": np.ones((4, 2), int)},
        "one integer or text per image, shape (n,). Received: int64 (4, 2)",
    ),
    ({"x": X, "y": Y + 0.5}, "one integer or text per image, shape (n,). Received: float64 (4,)"),
    ({"x": X, "images": X, "y": Y}, "has x and images, which may both be the images. Keep one of them."),
    ({"x_train": X, "y_train": Y, "x_val": X}, "has no array y_val. It must hold"),
    (
        {"x_train": X, "y_train": Y, "x_test": X, "y_test": Y + 5},
        "has no training images of the classes 5, 6, but images of other parts",
    ),
    ({"x": X, "y": np.array(["a", "", "a", "b"])}, "gives a class without a name"),
    ({"x": X, "y": np.array(["a", " ", "a", "b"])}, "gives a class without a name"),
    ({"x": X, "y": Y, "class_names": np.array(["", "b"])}, "gives a class without a name"),
    ({"x": X, "y": Y, "class_names": np.array(["e\u0301", "\xe9"])}, "must be two or more different texts"),
    ({"x": X, "y": Y * 0}, 'holds only one class, "0". A classifier needs two or more.'),
    ({"x": X, "y": Y, "class_names": np.array(["a"])}, "class_names must be two or more different texts"),
    (
        {"x": X, "y": Y + 1, "class_names": np.array(["a", "b"])},
        "a label is 2, but class_names has 2 names, so labels go from 0 to 1.",
    ),
    ({"x": X, "y": Y * 0, "class_names": np.array(["a", "b"])}, 'holds only one class, "a"'),
    ({"x": X[:0], "y": Y[:0]}, "holds no images: its arrays are empty."),
    (
        {"x": X, "y": np.array([1, "a", None, 0], dtype=object)},
        "holds Python objects, which are not loaded for safety",
    ),
]


@pytest.mark.parametrize(("arrays", "message"), WRONG_NPZ)
def test_wrong_npz(tmp_path, arrays, message):
    path = tmp_path / "data.npz"
    np.savez(path, **arrays)
    with pytest.raises(InputError) as error:
        load_image_set(path)
    assert message in str(error.value)
    assert str(path) in str(error.value)


def test_npz_cut_short(tmp_path):
    path = tmp_path / "data.npz"
    np.savez(path, x=X, y=Y)
    path.write_bytes(path.read_bytes()[:-40])
    with pytest.raises(InputError, match=r"is not an \.npz file, or it is damaged .* Write it again"):
        load_image_set(path)
