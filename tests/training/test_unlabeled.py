"""Whole runs with few labelled images, and with others that have no label."""

import csv
import json

import numpy as np
import pytest
from PIL import Image

import keras_vit
from keras_vit.data.augmentation import Augmentation
from keras_vit.data.pipeline import read_pixels
from keras_vit.errors import InputError
from keras_vit.training.probe import _mirrored
from tests.helpers import tiny


@pytest.fixture
def few(tmp_path, monkeypatch):
    """A folder with two labelled images per class and six of the test, and one without labels."""
    monkeypatch.setenv("KERAS_VIT_CACHE", str(tmp_path / "cache"))
    rng = np.random.default_rng(0)
    for part, each in (("train", 2), ("test", 6)):
        for name in tiny.CLASSES:
            (tmp_path / "data" / part / name).mkdir(parents=True)
            for i in range(each):
                pixels = Image.fromarray(tiny.pixels(name, rng))
                pixels.save(tmp_path / "data" / part / name / f"{i}.png")
    (tmp_path / "more").mkdir()
    for i in range(30):
        Image.fromarray(tiny.pixels(tiny.CLASSES[i % 3], rng)).save(tmp_path / "more" / f"{i}.png")
    return tmp_path


def train(folder, weights, **settings):
    settings = {"validation_fraction": 0.0, "data": str(folder / "data"), **settings}
    with tiny.size():
        return keras_vit.train(init=str(weights), recipe=keras_vit.RECIPES["probe"], **settings)


@pytest.mark.long
def test_a_run_learns_from_images_without_labels(few, trained, capsys):
    """Fewer images than a batch are enough, and no validation part is needed."""
    (few / "more" / "broken.png").write_bytes(b"no image")
    test_image = few / "data" / "test" / "dots" / "0.png"
    (few / "more" / "leak.png").write_bytes(test_image.read_bytes())
    run = train(few, trained[0], unlabeled=str(few / "more"), out=few / "run")
    printed = capsys.readouterr().out
    assert "unreadable images without labels: broken.png: " in printed
    assert (
        f"images without labels: 30 in {few / 'more'}; left out: 1 unreadable, 1 as in the test part"
        in printed
    )
    with open(run.path / "unlabeled.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [f"{i}.png" for i in range(30)]
    told = run.metrics["unlabeled"]
    trusted = sum(row["trusted"] == "yes" for row in rows)
    assert (told["images"], told["trusted"]) == (30, trusted)
    assert f"labels: {trusted} of 30 spread ones are trusted" in printed
    right = np.mean([row["label"] == tiny.CLASSES[i % 3] for i, row in enumerate(rows)])
    assert right > 0.6
    assert run.metrics["probe"]["fitted_to"] == 6 + trusted
    assert run.metrics["probe"]["computed"] == 6 + 18 + 30
    assert json.loads((run.path / "config.json").read_text())["train"]["unlabeled"] == str(few / "more")
    page = (run.path / "report.html").read_text()
    assert f"{trusted} of 30 images got a label that is trusted" in page
    assert "Left out: 1 as in the test part." in page
    again = train(few, trained[0], unlabeled=str(few / "more"), out=few / "again")
    assert (again.metrics["probe"]["computed"], again.metrics["probe"]["from_cache"]) == (0, 54)
    for before, after in zip(run.model.get_weights(), again.model.get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)


@pytest.mark.long
def test_few_images_are_fitted_with_their_mirror_images(few, trained):
    run = train(few, trained[0], out=few / "run")
    assert run.metrics["probe"]["fitted_to"] == 4 * 6
    assert run.metrics["probe"]["computed"] == 6 + 18 + 3 * 6
    assert "unlabeled" not in run.metrics
    assert not (run.path / "unlabeled.csv").exists()
    assert run.metrics["best"]["accuracy"] > 0.5


class Pixels:
    """In place of a reader of features: the features of an image are its pixels."""

    def __call__(self, images):
        return np.stack([image.ravel() for image in images])

    def of_head(self, features):
        return features


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    ("flip", "ways"),
    [("none", []), ("horizontal", [1]), ("vertical", [0]), ("both", [1, 0, (0, 1)])],
)
def test_the_recipe_says_which_mirror_images_are_added(flip, ways, few):
    data = keras_vit.load_data(few / "data", (8, 8, 1), batch_size=2, augmentation=Augmentation(flip=flip))
    pixels = read_pixels(data.image_set.take(data.split.train).images, data.preprocessing)
    found = _mirrored(Pixels(), data)
    assert len(found) == len(ways)
    for rows, way in zip(found, ways, strict=True):
        np.testing.assert_array_equal(rows, [np.flip(image, way).ravel() for image in pixels])


def test_a_folder_that_cannot_be_used_leaves_nothing_behind(few, trained):
    with pytest.raises(InputError, match="is not a folder: give the folder that holds the images"):
        train(few, trained[0], unlabeled=str(few / "nowhere"), out=few / "run")
    assert not list(few.glob("run*"))
