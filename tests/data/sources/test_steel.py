"""The drawn defects: the same on every machine, of the right form, and not separable by brightness."""

import hashlib
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from keras_vit.data.sources.steel import draw_steel_defects

pytestmark = pytest.mark.same_on_every_backend

CLASSES = ("crazing", "inclusion", "patches", "pitted_surface", "rolled-in_scale", "scratches")

DIGEST = """
import hashlib
from keras_vit.data.sources.steel import draw_steel_defects
print(hashlib.sha256(b"".join(i.tobytes() for i in draw_steel_defects(7, 2, 64).images)).hexdigest())
"""


def pixels(*args):
    return np.stack(draw_steel_defects(*args).images)


def test_form_is_that_of_the_neu_database():
    images = draw_steel_defects(images_per_class=2)
    assert images.source == "drawn steel defects"
    assert images.class_names == CLASSES
    assert images.names == tuple(f"{name}/{name}_{k}.png" for name in CLASSES for k in (1, 2))
    assert images.labels.dtype == np.int64
    np.testing.assert_array_equal(images.labels, np.repeat(np.arange(6), 2))
    assert images.parts is None
    assert all(isinstance(i, np.ndarray) and i.shape == (200, 200, 1) for i in images.images)
    assert all(i.dtype == np.uint8 for i in images.images)


@pytest.mark.parametrize("size", [16, 33, 256])
def test_size(size):
    assert pixels(0, 1, size).shape == (6, size, size, 1)


def test_another_process_draws_the_same_images():
    other = subprocess.run([sys.executable, "-c", DIGEST], capture_output=True, text=True, check=True)
    assert other.stdout.strip() == hashlib.sha256(pixels(7, 2, 64).tobytes()).hexdigest()


def test_fewer_images_are_the_first_of_each_class():
    few, many = pixels(3, 2, 32), pixels(3, 5, 32)
    np.testing.assert_array_equal(few.reshape(6, 2, -1), many.reshape(6, 5, -1)[:, :2])


def test_all_images_differ():
    drawn = np.concatenate([pixels(0, 4, 32), pixels(1, 4, 32)])
    assert len(np.unique(drawn.reshape(len(drawn), -1), axis=0)) == len(drawn)


def test_one_scene_at_every_size():
    fine = pixels(0, 4, 200).astype(np.float64).reshape(24, 8, 25, 8, 25).mean((2, 4))
    coarse = pixels(0, 4, 64).astype(np.float64).reshape(24, 8, 8, 8, 8).mean((2, 4))
    assert np.abs(fine - coarse).mean() < 5  # of 255; two different scenes differ by about 50


def test_brightness_varies_within_each_class_and_overlaps_between_them():
    means = pixels(0, 40, 32).reshape(6, 40, -1).mean(axis=2)
    low, high = np.quantile(means, [0.2, 0.8], axis=1)
    assert np.all(high - low > 50)
    assert low.max() < high.min()


@pytest.mark.long
def test_a_linear_classifier_on_pixels_fails():
    from sklearn.linear_model import LogisticRegression
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from threadpoolctl import threadpool_limits  # installed with scikit-learn

    images = draw_steel_defects()
    random = np.random.RandomState(0)
    test = np.concatenate([300 * label + random.permutation(300)[:60] for label in range(6)])
    train = np.setdiff1d(np.arange(1800), test)
    for side, tol in ((28, 1e-3), (64, 1e-2)):
        x = np.stack([resized(image, side).ravel() for image in images.images])
        linear = make_pipeline(StandardScaler(), LogisticRegression(max_iter=2000, tol=tol))
        with threadpool_limits(1):  # on a busy machine, BLAS threads may wait for each other for minutes
            linear.fit(x[train], images.labels[train])
        assert linear.score(x[train], images.labels[train]) > 0.6  # it has learned the training images
        assert linear.score(x[test], images.labels[test]) < 0.6


def resized(image, side):
    # The bilinear filter of PIL is antialiased: it widens when it reduces an image.
    return np.asarray(Image.fromarray(image[:, :, 0]).resize((side, side), Image.Resampling.BILINEAR))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"images_per_class": 0},
            "images_per_class must be an integer, 1 or more. Received: images_per_class=0",
        ),
        ({"images_per_class": 2.0}, "images_per_class must be an integer, 1 or more. .*=2.0"),
        ({"images_per_class": True}, "images_per_class must be an integer, 1 or more. .*=True"),
        ({"size": 15}, "size must be an integer, 16 or more. Received: size=15"),
        ({"size": (200, 200)}, r"size must be an integer, 16 or more. Received: size=\(200, 200\)"),
        ({"seed": -1}, "seed must be an integer, 0 or more. Received: seed=-1"),
        ({"seed": None}, "seed must be an integer, 0 or more. Received: seed=None"),
    ],
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(ValueError, match=message):
        draw_steel_defects(**arguments)
