"""Judges a finished run again, on its own test images or on other images."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_vit.data.image_set import ImageSet
from keras_vit.data.reading import read_images
from keras_vit.data.sources import load_image_set
from keras_vit.data.split import Split, split_image_set
from keras_vit.errors import InputError
from keras_vit.evaluation.metrics import classification_metrics
from keras_vit.runs.answer import answer_images
from keras_vit.runs.folder import Run, load_run


def evaluate(run: Run | str | Path, data: str | None = None, flips: bool = False) -> dict[str, Any]:
    """Judges the best model of a run on its test images, or on all images of other data.

    Args:
        run: a run or its folder.
        data: what `load_image_set` takes, with classes that the run knows; `None` for the run's own test
            images, which must be where they were.
        flips: whether the answers are the mean over each image and its three mirror images, which takes four
            times as long: see `keras_vit.runs.answer.answer_model`.

    Returns:
        The result of `keras_vit.evaluation.metrics.classification_metrics`, and `source`.

    Raises:
        InputError: the run or the images cannot be used, or the classes differ.
    """
    run = run if isinstance(run, Run) else load_run(run)
    image_set = images_to_judge(run, data)
    label_of = {name: i for i, name in enumerate(run.class_names)}
    labels = np.array([label_of[image_set.class_names[label]] for label in image_set.labels])
    answers = answer_images(run.answers(flips), image_set.images, run.preprocessing)
    return {
        "source": image_set.source,
        **classification_metrics(labels, answers["probabilities"], run.class_names),
    }


@dataclass(frozen=True)
class OwnImages:
    """The readable images that a run was trained and tested on, prepared for its model.

    Args:
        train: the training images.
        test: the test images.
    """

    train: ImageSet
    test: ImageSet


def own_images(run: Run) -> OwnImages:
    """Reads the images of a run, which must be where they were, each once.

    Raises:
        InputError: they are gone or have changed.
    """
    image_set = _known(run, load_image_set(run.config["train"]["data"]))
    image_set = _readable(run, image_set, skip=run.config["train"]["skip_unreadable"])
    split = _own_split(run, image_set)
    return OwnImages(image_set.take(split.train), image_set.take(split.test))


def images_to_judge(run: Run, data: str | None = None) -> ImageSet:
    """The readable test images of a run, or all images of other data, prepared for the run's model.

    Arguments and errors as `evaluate`.
    """
    if data is None:
        return own_images(run).test
    return _readable(run, _known(run, load_image_set(data)), skip=False)


def _known(run: Run, image_set: ImageSet) -> ImageSet:
    unknown = sorted(set(image_set.class_names) - set(run.class_names))
    if unknown:
        raise InputError(
            f"{image_set.source} has classes that the run was not trained on ({', '.join(unknown)}): "
            f"give images of {', '.join(run.class_names)}."
        )
    return image_set


def _readable(run: Run, image_set: ImageSet, skip: bool) -> ImageSet:
    read = read_images(image_set.images, run.preprocessing)
    unreadable = [name for name, reason in zip(image_set.names, read.reasons, strict=True) if reason]
    if unreadable and not skip:
        raise InputError(
            f"{image_set.source} has {len(unreadable)} unreadable images ({', '.join(unreadable[:10])}): "
            "remove them."
        )
    return read.put_into(image_set).take(read.readable)


def _own_split(run: Run, image_set: ImageSet) -> Split:
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
            "Train again, or evaluate them as other data with --data."
        )
    return split
