"""Images from an .npz file, and the errors for wrong files."""

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
    ({"x": X / 255, "y": Y}, "x must be uint8 pixels, 0 to 255. Received: float64"),
    ({"x": X[0], "y": Y}, "Received: (5, 6)"),
    ({"x": X[:, None], "y": Y}, "with 1, 3 or 4 channels. Received: (4, 1, 5, 6)"),
    (
        {"x": X, "y": np.eye(4)[Y]},
        "y must be one integer or text per image, shape (n,). Received: float64 (4, 4)",
    ),
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
