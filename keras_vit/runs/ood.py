"""Images that no run should take for its own: what every run's rejection is judged on.

They come with the package or with scikit-image, and nothing is fitted on them: the threshold follows from
the validation images alone. The features were chosen once, on other pictures (photographs, handwritten
digits, NEU's images for a model of the drawn ones) and on the flat gray ones here; on the others they were
only judged.
"""

import itertools
from typing import Any

import numpy as np

from keras_vit.data.image_set import Image, evenly
from keras_vit.data.pipeline import ImageData, pixel_dataset
from keras_vit.data.preprocess import Preprocessing, scale_pixels
from keras_vit.data.sources.steel import SOURCE, draw_steel_defects
from keras_vit.evaluation.metrics import wilson_interval
from keras_vit.evaluation.ood import (
    METHOD,
    SHARE,
    Rejection,
    fit_rejection,
    rejection_features,
    why_too_few,
)

MOST_TRAINING_IMAGES = 10_000  # more make the centres no better, and the end of the training late
BATCH_SIZE = 256
DRAWN_PER_CLASS = 20
TEXTURES = ("brick", "grass", "gravel")  # from https://cc0textures.com, 512 x 512 pixels, inside scikit-image
TEXTURE_SIDE = 128  # 16 windows a texture that do not overlap
NOISE_IMAGES = 60


def foreign_images(image_shape: tuple[int, int, int]) -> dict[str, list[Image]]:
    """Foreign images by the name of their kind, always the same ones.

    Args:
        image_shape: of what the model gets: noise is drawn at that size, since a smaller size would even it
            out.

    Returns:
        `"drawn defects"`: 120 gray images of 200 x 200 of `keras_vit.data.sources.steel`. `"textures"`: 48
        windows of scikit-image's gray pictures of bricks, grass and gravel. `"noise"`: 60 images, half of
        them uniform, half Gaussian. `"flat gray"`: one image for each fifth gray level. All uint8 (height,
        width, channels).
    """
    rng = np.random.default_rng(0)
    half = (NOISE_IMAGES // 2, *image_shape)
    noise = [*rng.uniform(0, 255, half), *rng.normal(128, 40, half)]
    return {
        "drawn defects": list(draw_steel_defects(images_per_class=DRAWN_PER_CLASS).images),
        "textures": texture_windows(),
        "noise": [np.clip(np.rint(image), 0, 255).astype("uint8") for image in noise],
        "flat gray": [np.full(image_shape, level, "uint8") for level in range(0, 256, 5)],
    }


def texture_windows() -> list[Image]:
    """Uint8 (128, 128, 1) windows of scikit-image's textures."""
    from skimage import data

    return [
        picture[y : y + TEXTURE_SIDE, x : x + TEXTURE_SIDE, None]
        for name in TEXTURES
        for picture in [getattr(data, name)()]
        for y in range(0, picture.shape[0] - TEXTURE_SIDE + 1, TEXTURE_SIDE)
        for x in range(0, picture.shape[1] - TEXTURE_SIDE + 1, TEXTURE_SIDE)
    ]


def judge_rejection(model, data: ImageData) -> tuple[Rejection | None, dict[str, Any]]:
    """Fits the rejection of a trained model, and counts what it rejects.

    Args:
        model: a `ViT` on one device, which gives its features here.
        data: the images it was trained on.

    Returns:
        The `Rejection`, or `None`, and what `metrics.json` says of it: `method`; `threshold`;
        `share_allowed`, of images like those for validation; `fitted_on`, `"validation"` or else the reason
        why there is none; `training_images` and `validation_images`; `rates`, a list of `name`, `images`,
        `rejected`, `share`, `interval` (Wilson, 95 %) and `left_out` (why there are no such images, or
        `None`) for the validation, the test and the foreign images, empty where nothing was fitted.
    """
    training = rows_to_fit(data.labels("train"))
    told: dict[str, Any] = {
        "method": METHOD,
        "threshold": None,
        "share_allowed": SHARE,
        "fitted_on": why_too_few(len(data.split.validation), SHARE),
        "training_images": len(training),
        "validation_images": len(data.split.validation),
        "rates": [],
    }
    if told["fitted_on"]:
        return None, told

    foreign = foreign_images(data.image_shape)
    left_out = {}
    if data.image_set.source == SOURCE:
        left_out["drawn defects"] = "the run was trained on them"
    parts = {
        "training": data.image_set.take(data.split.train[training]).images,
        "validation": data.image_set.take(data.split.validation).images,
        "test": data.image_set.take(data.split.test).images,
        **{name: images for name, images in foreign.items() if name not in left_out},
    }
    features = features_by_part(model, parts, data.preprocessing)
    rejection, told["fitted_on"] = fit_rejection(
        features.pop("training"), data.labels("train")[training], features["validation"], SHARE
    )
    if rejection:
        told["threshold"] = rejection.threshold
        told["rates"] = [
            reject_rate(name, rejection.rejects(features[name]))
            if name in features
            else {**reject_rate(name, []), "left_out": left_out[name]}
            for name in ("validation", "test", *foreign)
        ]
    return rejection, told


def rows_to_fit(labels) -> np.ndarray:
    """Which training images the clouds are fitted on: int (n,), the same share of each class."""
    by_class = np.argsort(labels, kind="stable")
    return by_class[evenly(len(by_class), MOST_TRAINING_IMAGES)]


def features_by_part(model, parts: dict[str, list], preprocessing: Preprocessing) -> dict[str, np.ndarray]:
    """The `rejection_features` of images: float32 (n, features) for each of the parts.

    All go through the model in one row of batches: each size of a batch would be compiled for itself.
    """
    dataset = pixel_dataset(next(iter(parts.values())), preprocessing)
    for images in itertools.islice(parts.values(), 1, None):
        dataset = dataset.concatenate(pixel_dataset(images, preprocessing))
    batches = dataset.map(scale_pixels).batch(BATCH_SIZE)
    found = rejection_features(model).predict(batches, verbose=0)
    ends = np.cumsum([len(images) for images in parts.values()])
    return dict(zip(parts, np.split(found, ends[:-1]), strict=True))


def reject_rate(name: str, rejected) -> dict[str, Any]:
    """How many images of a kind are rejected, ready for JSON."""
    images, found = len(rejected), int(np.sum(rejected))
    return {
        "name": name,
        "images": images,
        "rejected": found,
        "share": found / images if images else None,
        "interval": list(wilson_interval(found, images)) if images else None,
        "left_out": None,
    }
