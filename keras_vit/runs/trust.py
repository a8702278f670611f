"""How far the maps of a finished run can be believed, on its own test images."""

from collections.abc import Callable
from typing import Any

import numpy as np

from keras_vit.data.image_set import evenly
from keras_vit.data.pipeline import read_pixels
from keras_vit.explain.removal import removal_map
from keras_vit.explain.trust import mean_pixel, probabilities_of, trust
from keras_vit.runs.folder import Run
from keras_vit.runs.judged_images import own_images

IMAGES = 30
"""Test images that are measured: eleven orders of each take half a minute for a Ti/16 on one core."""

STEPS = 14


def removal_search(run: Run) -> Callable[[np.ndarray, int], np.ndarray]:
    """From a prepared image and a class to its `keras_vit.explain.removal.removal_map`.

    Raises:
        InputError: the training images of the run, whose mean replaces patches, are gone or have changed.
    """
    mean = mean_pixel(own_images(run).train.images, run.preprocessing)
    probabilities = probabilities_of(run.model, run.preprocessing, run.temperature, run.several)
    return lambda image, label: removal_map(probabilities, image, label, mean, run.model.config.grid)


def trust_of_run(run: Run, images: int = IMAGES) -> dict[str, Any]:
    """See `keras_vit.explain.trust.trust`.

    Args:
        run: the run, whose images are where they were.
        images: how many of its test images are measured, evenly spaced.

    Raises:
        InputError: the images are gone or have changed.
    """
    own = own_images(run)
    test, train = own.test, own.train
    sample = test.take(evenly(len(test), images)).images
    mean = mean_pixel(train.images, run.preprocessing)
    probabilities = probabilities_of(run.model, run.preprocessing, run.temperature, run.several)
    pixels = read_pixels(sample, run.preprocessing)
    return {
        "test_images": len(test),
        **trust(run.model, probabilities, np.asarray(pixels), run.preprocessing, mean, STEPS),
    }
