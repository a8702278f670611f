"""The rejection of out-of-distribution images, fitted and judged at the end of a training run."""

import dataclasses
import itertools
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_vit.data.corrupted import corrupted_pixels
from keras_vit.data.image_set import Image, evenly
from keras_vit.data.pipeline import ImageData, pixel_dataset
from keras_vit.data.preprocess import Preprocessing, scale_pixels
from keras_vit.data.sources.steel import SOURCE
from keras_vit.evaluation.metrics import wilson_interval
from keras_vit.evaluation.ood import SHARE, OODDetector, why_too_few
from keras_vit.evaluation.ood_fit import METHOD, Pieces, fit_ood_detector, own_covariances
from keras_vit.runs.ood_features import ood_columns, ood_features
from keras_vit.runs.ood_images import DRAWN, ood_example_images
from keras_vit.text import say

if TYPE_CHECKING:
    import keras

YOURS = "your examples"
COPIES, HELD_OUT_COPIES = "training copies", "validation copies"

GAUSSIANS = (
    "half, three quarters",
    "texture and head",
    "texture and half, three quarters",
    "half, three quarters, last",
    "texture and half",
    "texture and head, half",
    "head",
)
"""Which columns of `ood_features` the Gaussians judge: those of one Gaussian are joined by "and", several
Gaussians by a comma. On development images the second was the best for models that were trained from scratch,
and the third for published weights; the first is nearly as good there, and rejects fewer images of the same
kind that are a little blurred or compressed: see benchmarks/accuracy.md."""

FEWEST_EXAMPLES = 20
"""Of the user's own: with fewer, half of them are too few to choose by."""

MOST_TRAINING_IMAGES = 10_000  # more do not improve the centres, and delay the end of the training
BATCH_SIZE = 256


def judge_ood(
    model: "keras.Model",
    data: ImageData,
    features_of: Callable[[Sequence[Image]], np.ndarray] | None = None,
    pretrained: bool = False,
    given: "Sequence[Image]" = (),
) -> tuple[OODDetector | None, dict[str, Any]]:
    """Fits the rejection of a trained model, and counts the images that it rejects.

    Args:
        model: a `ViT` on one device, which computes the features.
        data: the images it was trained on.
        features_of: gives the `ood_features` of images, where the weights are frozen. The threshold then
            follows from folds of the training images.
        pretrained: whether the model began with published weights, see `GAUSSIANS`.
        given: the user's own examples of what is to be rejected. Half of them choose between the `GAUSSIANS`,
            the other half are counted; fewer than `FEWEST_EXAMPLES` are only counted.

    Returns:
        The `OODDetector`, or `None`; and the entry of `metrics.json` on it: `method`; `threshold`;
        `share_allowed`, of images like the training images; `fitted_on`, `"validation"`, `"training folds"`
        or the reason why nothing was fitted; `training_images` and `validation_images`; `features`, what the
        Gaussians judge; `bytes`, what they take in a bundle or another format; `shared_covariance`, how many
        classes have no covariance of their own; `with_copies`, whether a corrupted copy of each of these
        images counts as one, as the run was trained; `chosen_by`, how many of the user's examples chose the
        features; `rates`, a list of `name`, `images`, `rejected`, `share`, `interval` (Wilson, 95 %) and
        `left_out` (why there are no such images, or `None`) for the validation images, the test images and
        each kind of out-of-distribution images; empty
        if nothing was fitted.
    """
    labels = clusters_of(data)
    training = rows_to_fit(labels)
    labels = labels[training]
    in_folds = features_of is not None
    name = "half, three quarters" if pretrained else "texture and head"
    judged: dict[str, Any] = {
        "method": METHOD_OF_LABELS if data.several else METHOD,
        "threshold": None,
        "share_allowed": SHARE,
        "fitted_on": why_too_few(
            *((len(training), SHARE, "training") if in_folds else (len(data.split.validation), SHARE))
        ),
        "training_images": len(training),
        "validation_images": len(data.split.validation),
        "with_copies": data.augmentation.corrupted_copies > 0,
        "rates": [],
    }
    if judged["fitted_on"]:
        return None, judged

    examples = ood_example_images(data.image_shape)
    left_out = {}
    if data.image_set.source == SOURCE:
        left_out[DRAWN] = "the run was trained on them"
    for part in ("validation", "test"):
        if not len(getattr(data.split, part)):
            left_out[part] = f"there is no {part} part"
    choosing, counted = halves(given)
    parts = {
        "training": data.image_set.take(data.split.train[training]).images,
        "validation": data.image_set.take(data.split.validation).images,
        "test": data.image_set.take(data.split.test).images,
        **({YOURS: counted} if len(counted) else {}),
        **({"choosing": choosing} if len(choosing) else {}),
        **examples,
    }
    parts = {name: images for name, images in parts.items() if name not in left_out}
    parts |= copies_to_accept(data, training)
    if features_of is None:
        features = features_by_part(model, parts, data.preprocessing)
    else:
        features = {name: features_of(images) for name, images in parts.items()}
    held_out = features.get("validation", np.zeros((0, 0)))
    own, columns = features.pop("training"), ood_columns(model)
    image_of = np.arange(len(own))
    if COPIES in features:
        own = np.concatenate([own, features.pop(COPIES)])
        labels, image_of = np.tile(labels, 2), np.tile(image_of, 2)
    if HELD_OUT_COPIES in features:
        held_out = np.concatenate([held_out, features.pop(HELD_OUT_COPIES)])
    to_choose = features.pop("choosing", None)

    def fit(name: str) -> tuple[OODDetector | None, str]:
        return fit_ood_detector(own, labels, held_out, SHARE, pieces_of(name, columns), in_folds, image_of)

    detector, judged["fitted_on"] = fit(name)
    if detector is None:
        return None, judged
    if to_choose is not None:
        rejected = detector.rejects(to_choose).mean()
        for other in GAUSSIANS:
            tried, _ = fit(other)
            if tried and tried.rejects(to_choose).mean() > rejected:
                name, detector, rejected = other, tried, tried.rejects(to_choose).mean()
    shown = [YOURS] if len(counted) else []
    alone = own_covariances(_counts(labels), pieces_of(name, columns))
    if not alone.all():
        why = (
            "each has few images" if alone.any() or len(labels) < 20 * len(alone) else "theirs would be large"
        )
        say(f"rejection: {int((~alone).sum())} of {len(alone)} classes share a covariance: {why}")
    judged |= {
        "threshold": detector.threshold,
        "features": name,
        "bytes": detector.num_bytes,
        "shared_covariance": int((~alone).sum()),
        "chosen_by": len(choosing),
        "rates": [
            reject_rate(kind, detector.rejects(features[kind]))
            if kind in features
            else {**reject_rate(kind, []), "left_out": left_out[kind]}
            for kind in ("validation", "test", *shown, *examples)
        ],
    }
    return detector, judged


METHOD_OF_LABELS = "Mahalanobis distance to all training images, at several depths"


def clusters_of(data: ImageData) -> np.ndarray:
    """Which training images form a cloud of their own: int64 (n,). With several labels all are one."""
    return np.zeros(len(data.split.train), np.int64) if data.several else data.labels("train")


def copies_to_accept(data: ImageData, training: np.ndarray) -> dict[str, list[Image]]:
    """Corrupted copies of images, one of each, which a model that was trained on such images must accept.

    Args:
        data: of the run.
        training: positions of the training images that the clusters are fitted on.

    Returns:
        `COPIES` and, where there is a validation part, `HELD_OUT_COPIES`, prepared for the model. Empty
        where the run makes no copies.
    """
    if not data.augmentation.corrupted_copies:
        return {}
    found = {COPIES: [image.astype("float32") for image in data.corrupted[training]]}
    if len(data.split.validation):
        once = dataclasses.replace(data.augmentation, corrupted_copies=1)
        images = data.image_set.take(data.split.validation)
        copies = corrupted_pixels(images, data.preprocessing, once, data.seed)
        found[HELD_OUT_COPIES] = [image.astype("float32") for image in copies]
    return found


def _counts(labels: np.ndarray) -> np.ndarray:
    return np.unique(labels, return_counts=True)[1]


def pieces_of(name: str, columns: dict[str, tuple[int, int]]) -> list[Pieces]:
    """The columns of each of the Gaussians that a text of `GAUSSIANS` describes."""
    return [[columns[part] for part in each.split(" and ")] for each in name.split(", ")]


def halves(images: Sequence[Image]) -> tuple[list[Image], list[Image]]:
    """The examples that choose the features, and those that are counted: each second one, if they suffice."""
    if len(images) < FEWEST_EXAMPLES:
        return [], list(images)
    return list(images[::2]), list(images[1::2])


def rows_to_fit(labels: np.ndarray) -> np.ndarray:
    """Positions of the training images that the clusters are fitted on, the same share of each class."""
    by_class = np.argsort(labels, kind="stable")
    return by_class[evenly(len(by_class), MOST_TRAINING_IMAGES)]


def features_by_part(
    model: "keras.Model", parts: dict[str, Sequence[Image]], preprocessing: Preprocessing
) -> dict[str, np.ndarray]:
    """The `ood_features` of images: float32 (n, features) for each of the parts.

    All parts go through the model as one sequence of batches of one size, because each size is compiled
    separately: some of the first images fill the last batch.
    """
    dataset = pixel_dataset(next(iter(parts.values())), preprocessing)
    for images in itertools.islice(parts.values(), 1, None):
        dataset = dataset.concatenate(pixel_dataset(images, preprocessing))
    count = sum(map(len, parts.values()))
    number = -(-count // BATCH_SIZE)
    size = -(-count // number)
    dataset = dataset.concatenate(dataset.take(number * size - count))
    batches = dataset.map(lambda image: scale_pixels(image, preprocessing)).batch(size)
    found = ood_features(model).predict(batches, verbose=0)[:count]
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
