"""The out-of-distribution example images, and the rates counted on them."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_vit.data.sources.steel import draw_steel_defects
from keras_vit.evaluation.metrics import wilson_interval
from keras_vit.runs import ood
from keras_vit.runs.ood_images import ood_example_images, texture_windows

pytestmark = pytest.mark.same_on_every_backend


def test_the_example_images_are_always_the_same():
    first, again = ood_example_images((28, 20, 3)), ood_example_images((28, 20, 3))
    assert {name: len(images) for name, images in first.items()} == {
        "drawn defects": 120,
        "textures": 48,
        "noise": 60,
        "flat gray": 52,
    }
    for name, images in first.items():
        assert {image.shape for image in images} == {images[0].shape}, name
        assert all(image.dtype == np.uint8 for image in images)
        assert all(np.array_equal(a, b) for a, b in zip(images, again[name], strict=True))
    assert first["noise"][0].shape == first["flat gray"][0].shape == (28, 20, 3)
    assert all(image.min() == image.max() for image in first["flat gray"])
    assert np.array_equal(first["drawn defects"][25], draw_steel_defects(images_per_class=6).images[6 + 5])


def test_the_textures_are_the_pictures_that_came_with_scikit_image():
    import skimage

    windows = iter(texture_windows())
    for name in ("brick", "grass", "gravel"):
        with Image.open(Path(skimage.__file__).parent / "data" / f"{name}.png") as file:
            picture = np.asarray(file)
        rows = [np.concatenate([next(windows)[..., 0] for _ in range(4)], axis=1) for _ in range(4)]
        assert np.array_equal(np.concatenate(rows), picture)
    assert next(windows, None) is None


@pytest.mark.parametrize(("images", "expected"), [(50, 50), (100, 100), (400, 100)])
def test_training_images_are_drawn_equally_from_all_classes(images, expected, monkeypatch):
    monkeypatch.setattr(ood, "MOST_TRAINING_IMAGES", 100)
    labels = np.random.default_rng(0).permutation(
        np.repeat([0, 1, 2], [images // 2, images // 4, images // 4])
    )
    chosen = ood.rows_to_fit(labels)
    assert len(set(chosen)) == len(chosen) <= expected
    counts = np.bincount(labels[chosen])
    np.testing.assert_allclose(counts / counts.sum(), [0.5, 0.25, 0.25], atol=0.03)


@pytest.mark.parametrize(
    ("rejected", "share"), [([True, False, True, True], 0.75), ([False], 0.0), ([], None)]
)
def test_the_rate_of_a_kind(rejected, share):
    found = ood.reject_rate("noise", np.array(rejected, bool))
    assert found == {
        "name": "noise",
        "images": len(rejected),
        "rejected": sum(rejected),
        "share": share,
        "interval": list(wilson_interval(sum(rejected), len(rejected))) if rejected else None,
        "left_out": None,
    }
