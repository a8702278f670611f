"""What is done with a finished run: judge it again, or ask it about images."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_vit.data.image_set import ImageSet
from keras_vit.data.pipeline import pixel_dataset
from keras_vit.data.preprocess import scale_pixels
from keras_vit.data.probe import look_at_all
from keras_vit.data.sources import load_image_set
from keras_vit.data.split import split_image_set
from keras_vit.errors import InputError
from keras_vit.evaluation.calibration import softmax
from keras_vit.evaluation.metrics import classification_metrics
from keras_vit.evaluation.ood import rejection_features
from keras_vit.runs.folder import Run, load_run

BATCH_SIZE = 256


@dataclass(frozen=True)
class Prediction:
    """What a run says of one image.

    Args:
        image: its name.
        label: the likeliest class; `None` where the image cannot be read.
        confidence: the calibrated probability of `label`.
        probabilities: class name -> calibrated probability.
        error: why the image cannot be read, or `None`.
        reject: whether the answer is not to be used: the image is unlike the training images, as far as the
            run has learned to tell (see `Run.rejection`), or cannot be read.
    """

    image: str
    label: str | None
    confidence: float | None
    probabilities: dict[str, float]
    error: str | None = None
    reject: bool = False


def predict(run: Run | str | Path, images: Sequence[str | Path]) -> list[Prediction]:
    """Classifies image files with the best model of a run.

    Args:
        run: a run or its folder.
        images: paths of image files.

    Returns:
        One `Prediction` an image, in order. An image that cannot be read has an `error` and spoils no other.

    Raises:
        InputError: the run cannot be used.
    """
    run = run if isinstance(run, Run) else load_run(run)
    paths = [Path(image) for image in images]
    _, errors = look_at_all(paths)
    readable = [path for path, error in zip(paths, errors, strict=True) if error is None]
    logits = predict_logits(run, readable)
    probabilities = iter(softmax(logits / run.temperature) if len(logits) else ())
    rejects = iter(predict_rejects(run, readable))
    return [
        Prediction(str(path), None, None, {}, error, reject=True)
        if error
        else _prediction(str(path), run.class_names, next(probabilities), next(rejects))
        for path, error in zip(paths, errors, strict=True)
    ]


def _prediction(name, class_names, probabilities, reject):
    best = int(np.argmax(probabilities))
    by_class = {key: float(value) for key, value in zip(class_names, probabilities, strict=True)}
    return Prediction(name, class_names[best], float(probabilities[best]), by_class, reject=bool(reject))


def evaluate(run: Run | str | Path, data: str | None = None) -> dict:
    """Judges the best model of a run on its test images, or on all images of other data.

    Args:
        run: a run or its folder.
        data: what `load_image_set` takes, with classes that the run knows; `None` for the run's own test
            images, which must be where they were.

    Returns:
        What `keras_vit.evaluation.metrics.classification_metrics` gives, and `source`.

    Raises:
        InputError: the run or the images cannot be used, or the classes differ.
    """
    run = run if isinstance(run, Run) else load_run(run)
    image_set = images_to_judge(run, data)
    place = {name: i for i, name in enumerate(run.class_names)}
    labels = np.array([place[image_set.class_names[label]] for label in image_set.labels])
    probabilities = softmax(predict_logits(run, image_set.images) / run.temperature)
    return {
        "source": image_set.source,
        **classification_metrics(labels, probabilities, run.class_names),
    }


def images_to_judge(run: Run, data: str | None = None) -> ImageSet:
    """The readable test images of a run, or all images of other data.

    Arguments and errors as `evaluate`.
    """
    own = data is None
    image_set = load_image_set(run.config["train"]["data"] if own else data)
    unknown = sorted(set(image_set.class_names) - set(run.class_names))
    if unknown:
        raise InputError(
            f"{image_set.source} has classes that the run was not trained on ({', '.join(unknown)}): "
            f"give images of {', '.join(run.class_names)}."
        )
    image_set = _readable(image_set, skip=own and run.config["train"]["skip_unreadable"])
    return image_set.take(_own_split(run, image_set).test) if own else image_set


def training_images(run: Run) -> ImageSet:
    """The readable training images of a run, which must be where they were.

    Raises:
        InputError: they are gone or have changed.
    """
    image_set = load_image_set(run.config["train"]["data"])
    image_set = _readable(image_set, skip=run.config["train"]["skip_unreadable"])
    return image_set.take(_own_split(run, image_set).train)


def _readable(image_set, skip):
    _, errors = look_at_all(image_set.images)
    bad = [name for name, error in zip(image_set.names, errors, strict=True) if error]
    if bad and not skip:
        raise InputError(
            f"{image_set.source} has {len(bad)} unreadable images ({', '.join(bad[:10])}): remove them."
        )
    return image_set.take([i for i, error in enumerate(errors) if not error])


def _own_split(run, image_set):
    settings = run.config["train"]
    split = split_image_set(
        image_set,
        seed=settings["seed"],
        test_fraction=settings["test_fraction"],
        validation_fraction=settings["validation_fraction"],
    )
    found, known = len(split.test), run.config["data"]["counts"]["test"]
    if found != known:
        raise InputError(
            f"{image_set.source} gives {found} test images, the run had {known}: the data have changed. "
            "Train again, or judge them as other data with --data."
        )
    return split


def predict_logits(run: Run, images) -> np.ndarray:
    """Logits (n, classes) of images that are known to be readable."""
    if not len(images):
        return np.zeros((0, len(run.class_names)), "float32")
    return run.model.predict(_batches(run, images), verbose=0)


def predict_rejects(run: Run, images) -> np.ndarray:
    """Which images are unlike the training images: bool (n,), of images that are known to be readable.

    None are where the run has not learned to tell: too few validation images, or an earlier version.
    """
    rejection = run.rejection if "rejection" in run.metrics else None
    if rejection is None or not len(images):
        return np.zeros(len(images), bool)
    return rejection.rejects(rejection_features(run.model).predict(_batches(run, images), verbose=0))


def _batches(run, images):
    return pixel_dataset(images, run.preprocessing).map(scale_pixels).batch(BATCH_SIZE)
