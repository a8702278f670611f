"""The rejection of out-of-distribution images, fitted and judged at the end of a training run."""

import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_vit.data.image_set import Image, evenly
from keras_vit.data.pipeline import ImageData, pixel_dataset
from keras_vit.data.preprocess import Preprocessing, scale_pixels
from keras_vit.data.sources.steel import SOURCE
from keras_vit.evaluation.metrics import wilson_interval
from keras_vit.evaluation.ood import METHOD, SHARE, OODDetector, fit_ood_detector, why_too_few
from keras_vit.runs.ood_features import ood_features
from keras_vit.runs.ood_images import DRAWN, ood_example_images

if TYPE_CHECKING:
    import keras

MOST_TRAINING_IMAGES = 10_000  # more do not improve the centres, and delay the end of the training
BATCH_SIZE = 256


def judge_ood(
    model: "keras.Model",
    data: ImageData,
    features_of: Callable[[Sequence[Image]], np.ndarray] | None = None,
) -> tuple[OODDetector | None, dict[str, Any]]:
    """Fits the rejection of a trained model, and counts the images that it rejects.

    Args:
        model: a `ViT` on one device, which computes the features.
        data: the images it was trained on.
        features_of: gives the `ood_features` of images, where they are known already.

    Returns:
        The `OODDetector`, or `None`; and the entry of `metrics.json` on it: `method`; `threshold`;
        `share_allowed`, of images like the validation images; `fitted_on`, `"validation"` or the reason why
        nothing was fitted; `training_images` and `validation_images`; `rates`, a list of `name`, `images`,
        `rejected`, `share`, `interval` (Wilson, 95 %) and `left_out` (why there are no such images, or
        `None`) for the validation images, the test images and each kind of out-of-distribution images; empty
        if nothing was fitted.
    """
    training = rows_to_fit(data.labels("train"))
    judged: dict[str, Any] = {
        "method": METHOD,
        "threshold": None,
        "share_allowed": SHARE,
        "fitted_on": why_too_few(len(data.split.validation), SHARE),
        "training_images": len(training),
        "validation_images": len(data.split.validation),
        "rates": [],
    }
    if judged["fitted_on"]:
        return None, judged

    examples = ood_example_images(data.image_shape)
    left_out = {}
    if data.image_set.source == SOURCE:
        left_out[DRAWN] = "the run was trained on them"
    parts = {
        "training": data.image_set.take(data.split.train[training]).images,
        "validation": data.image_set.take(data.split.validation).images,
        "test": data.image_set.take(data.split.test).images,
        **{name: images for name, images in examples.items() if name not in left_out},
    }
    if features_of is None:
        features = features_by_part(model, parts, data.preprocessing)
    else:
        features = {name: features_of(images) for name, images in parts.items()}
    detector, judged["fitted_on"] = fit_ood_detector(
        features.pop("training"), data.labels("train")[training], features["validation"], SHARE
    )
    if detector:
        judged["threshold"] = detector.threshold
        judged["rates"] = [
            reject_rate(name, detector.rejects(features[name]))
            if name in features
            else {**reject_rate(name, []), "left_out": left_out[name]}
            for name in ("validation", "test", *examples)
        ]
    return detector, judged


def rows_to_fit(labels: np.ndarray) -> np.ndarray:
    """Positions of the training images that the clusters are fitted on, the same share of each class."""
    by_class = np.argsort(labels, kind="stable")
    return by_class[evenly(len(by_class), MOST_TRAINING_IMAGES)]


def features_by_part(
    model: "keras.Model", parts: dict[str, Sequence[Image]], preprocessing: Preprocessing
) -> dict[str, np.ndarray]:
    """The `ood_features` of images: float32 (n, features) for each of the parts.

    All parts go through the model as one sequence of batches, because each batch size is compiled separately.
    """
    dataset = pixel_dataset(next(iter(parts.values())), preprocessing)
    for images in itertools.islice(parts.values(), 1, None):
        dataset = dataset.concatenate(pixel_dataset(images, preprocessing))
    batches = dataset.map(lambda image: scale_pixels(image, preprocessing)).batch(BATCH_SIZE)
    found = ood_features(model).predict(batches, verbose=0)
    ends = np.cumsum([len(images) for images in parts.values()])
    return dict(zip(parts, np.split(found, ends[:-1]), strict=True))


def reject_rate(name: str, rejected: "np.ndarray | list[bool]") -> dict[str, Any]:
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
