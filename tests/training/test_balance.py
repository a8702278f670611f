"""Weights of classes, and the order in which they are drawn."""

import json
from dataclasses import replace

import numpy as np
import pytest
import tensorflow as tf
from sklearn.utils.class_weight import compute_class_weight

from keras_vit.data.balanced_order import balanced_order
from keras_vit.data.image_set import ImageSet
from keras_vit.data.pipeline import ImageData
from keras_vit.data.preprocess import Preprocessing
from keras_vit.data.split import Split
from keras_vit.errors import InputError
from keras_vit.training.balance import choose_sampling, is_uneven, weights_of_classes
from keras_vit.training.recipe import RECIPES, Recipe

pytestmark = pytest.mark.same_on_every_backend

NAMES = ("crack", "hole", "scratch")
COUNTS = np.array([80, 15, 5])
LABELS = np.repeat(np.arange(3), COUNTS)


def test_balanced_weights_are_those_of_scikit_learn():
    expected = compute_class_weight("balanced", classes=np.arange(3), y=LABELS)
    assert weights_of_classes("balanced", COUNTS, NAMES) == pytest.approx(expected)
    assert weights_of_classes(None, COUNTS, NAMES) is None


def test_effective_weights():
    """Cui et al. 2019, equation 2, with N = 100."""
    number = (1 - 0.99**COUNTS) / (1 - 0.99)
    found = weights_of_classes("effective", COUNTS, NAMES)
    assert found * number == pytest.approx(np.full(3, found[0] * number[0]))
    assert (found * COUNTS).sum() == pytest.approx(100)


@pytest.mark.parametrize("suffix", [".csv", ".json"])
def test_weights_of_a_file(tmp_path, suffix):
    path = tmp_path / f"weights{suffix}"
    given = {"crack": 1, "hole": 2, "scratch": 4}
    rows = "class,weight\n" + "".join(f"{name},{value}\n" for name, value in given.items())
    path.write_text(json.dumps(given) if suffix == ".json" else rows)
    found = weights_of_classes(str(path), COUNTS, NAMES)
    assert found / found[0] == pytest.approx([1, 2, 4])
    assert (found * COUNTS).mean() == pytest.approx(COUNTS.mean())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("class,weight\ncrack,1\nhole,2\n", "no weight for the class scratch"),
        ("class,weight\ncrack,1\nhole,2\nscratch,-1\n", "gives scratch the number -1: it must be finite"),
        ("class,weight\ncrack,1\nhole,2\nscratch,many\n", "gives scratch the number many"),
        ("class,weight\ncrack,1\ncrack,2\n", "names the class crack twice"),
        ("class,weight\nrust,1\n", "names rust, which is not a class: the classes are crack, hole, scratch"),
        ("class,weight\ncrack,0\nhole,0\nscratch,0\n", "gives every training image the weight 0"),
        ("class\ncrack\n", "is not a table of classes"),
        ("", "is not a table of classes"),
        (None, "cannot be read as --class-weights"),
    ],
)
def test_files_that_are_refused(tmp_path, text, message):
    path = tmp_path / "weights.csv"
    if text is not None:
        path.write_text(text)
    with pytest.raises(InputError, match=message):
        weights_of_classes(str(path), COUNTS, NAMES)


def test_a_balanced_order_has_each_class_equally_often():
    one, same, other = (
        balanced_order(LABELS, 46, tf.constant([0, seed], tf.int32)).numpy() for seed in (1, 1, 2)
    )
    assert one.tolist() == same.tolist() != other.tolist()
    assert sorted(np.bincount(LABELS[one])) == [15, 15, 16]
    for label in range(3):
        times = np.bincount(one[LABELS[one] == label], minlength=100)[label == LABELS]
        assert times.max() - times.min() <= 1  # every image before one comes again


def test_images_decide_the_sampling():
    assert is_uneven(COUNTS)
    assert not is_uneven(np.array([40, 30, 20]))
    for name in ("default", "probe"):
        sampling, line = choose_sampling(RECIPES[name], COUNTS)
        assert sampling == "balanced"
        assert "have 5 to 80 training images" in line
    for recipe in (Recipe(sampling="uniform"), Recipe(class_weights="effective")):
        assert choose_sampling(recipe, COUNTS) == ("uniform", None)
    assert choose_sampling(RECIPES["default"], np.array([240] * 6)) == ("uniform", None)


def test_weights_of_classes_and_images_reach_the_batches():
    """Each image is its label as pixels, so its weight can be told."""
    pixels = np.repeat(LABELS, 16).reshape(-1, 4, 4, 1).astype(np.uint8)
    names = tuple(map(str, range(100)))
    of_image = np.where(LABELS == 1, 3.0, 1.0)
    image_set = ImageSet("arrays", NAMES, list(pixels), names, LABELS, weights=of_image)
    everything = np.arange(100)
    split = Split(everything, everything[:0], everything[:0])
    weights = weights_of_classes("balanced", COUNTS, NAMES)
    data = ImageData(image_set, split, Preprocessing((4, 4, 1)), 25, class_weights=weights)
    expected = weights * np.array([1, 3, 1]) / of_image.mean()
    for _, targets, weight in data.train.take(4):
        assert weight.numpy() == pytest.approx(expected[targets.numpy().argmax(axis=1)], rel=1e-5)
    assert data.train_weights() == pytest.approx(expected[LABELS])
    plain = replace(data, image_set=replace(image_set, weights=None), class_weights=None, balanced=True)
    _, targets = next(iter(plain.train))
    assert sorted(targets.numpy().sum(axis=0)) == pytest.approx([25 / 3] * 3, abs=8)
    assert np.bincount(LABELS, plain.train_weights()) == pytest.approx([100 / 3] * 3)
