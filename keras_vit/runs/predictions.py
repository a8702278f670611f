"""Classifies image files with one finished run."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_vit.data.image_set import Image
from keras_vit.data.reading import read_images
from keras_vit.data.sources import images_of_table, is_table
from keras_vit.runs.answer import NOT_FINITE, answer_images, batch_size
from keras_vit.runs.folder import Run
from keras_vit.runs.image_notes import say_notes

if TYPE_CHECKING:
    import keras

READ_BYTES = 2**28
"""The most prepared images that are held in memory at once."""


@dataclass(frozen=True)
class Prediction:
    """What a run predicts for one image.

    Args:
        image: its path, as it was given.
        label: the class that the image is called: the likeliest, or that of the run's rule (`Run.rule`);
            `None` if there is an error.
        confidence: the calibrated probability of `label`.
        probabilities: class name -> calibrated probability.
        error: why the image has no answer: it cannot be read, or its probabilities are not finite; or `None`.
        reject: whether the prediction should not be used: the image is unlike the training images, as far as
            the run has learned to recognise that (see `Run.rejection`), or it cannot be read.
        prediction_set: the classes that the image may be, the likeliest first; `None` if the run has learned
            no prediction sets. It is empty if no class is as probable as it is for nearly all images of the
            class, and if there is an error.
        labels: where an image may have several labels, those of this one, the likeliest first, maybe none;
            `None` for one class per image, and if there is an error. `label` is then the likeliest one,
            whether it is among them or not.
        refer: whether a person should look at the image, since the answer is not sure or there is an error;
            `None` if the run has learned no prediction sets. It says nothing of `reject`.
        likeliest: the class with the largest probability, where the run has a rule; otherwise `None`.
    """

    image: str
    label: str | None
    confidence: float | None
    probabilities: dict[str, float]
    error: str | None = None
    reject: bool = False
    prediction_set: tuple[str, ...] | None = None
    refer: bool | None = None
    labels: tuple[str, ...] | None = None
    likeliest: str | None = None


def predictions(run: Run, named: Sequence[tuple[str, Image]], flips: bool = False) -> list[Prediction]:
    """Classifies images with the best model of a run.

    Args:
        run: with the accepted risk that counts.
        named: each image with the name that its `Prediction` has.
        flips: as of `keras_vit.predict`.
    """
    model = run.answers(flips)
    step = _images_per_part(model)
    parts = (named[start : start + step] for start in range(0, len(named), step))
    return [prediction for part in parts for prediction in _predictions(run, model, part)]


def named_images(
    class_names: Sequence[str],
    images: Sequence[str | Path],
    crop_boxes: bool = False,
    allow_outside: bool = False,
) -> list[tuple[str, Image]]:
    """The images that `predict` classifies, with their names: those of a table in its place."""
    found: list[tuple[str, Image]] = []
    for image in images:
        if is_table(image):
            found += images_of_table(image, class_names, crop_boxes, allow_outside).items()
        else:
            found.append((str(image), Path(image)))
    return found


def _images_per_part(model: "keras.Model") -> int:
    """As many whole batches as `READ_BYTES` hold, one or more."""
    batch_bytes = batch_size(model) * 4 * int(np.prod(model.input.shape[1:]))
    return batch_size(model) * max(1, READ_BYTES // batch_bytes)


def _predictions(run: Run, model: "keras.Model", named: Sequence[tuple[str, Image]]) -> Iterator[Prediction]:
    names = [name for name, _ in named]
    read = read_images([image for _, image in named], run.preprocessing, fingerprints=False)
    say_notes(names, read, run.preprocessing)
    readable = [read.inputs[i] for i in read.readable]
    answers = answer_images(model, readable, run.preprocessing)
    rows = iter(range(len(readable)))
    for name, reason in zip(names, read.reasons, strict=True):
        if reason is None:
            yield prediction_of(run.class_names, name, answers, next(rows))
        else:
            yield without_answer(name, reason, "prediction_set" in answers)


def without_answer(name: str, reason: str, has_sets: bool) -> Prediction:
    """The `Prediction` of an image that has no answer.

    Args:
        name: of the image.
        reason: as half a sentence.
        has_sets: whether the run has prediction sets.
    """
    refused: dict[str, Any] = {"prediction_set": (), "refer": True} if has_sets else {}
    return Prediction(name, None, None, {}, reason, reject=True, **refused)


def prediction_of(
    class_names: Sequence[str], name: str, answers: Mapping[str, np.ndarray], row: int
) -> Prediction:
    """The `Prediction` of one image.

    Args:
        class_names: of the run.
        name: of the image.
        answers: of several images, from an `answer_model`.
        row: of this image.
    """
    has_sets = "prediction_set" in answers
    if not np.isfinite(answers["probabilities"][row]).all():
        return without_answer(name, NOT_FINITE, has_sets)
    probabilities = answers["probabilities"][row].tolist()
    return Prediction(
        image=name,
        label=class_names[answers["label"][row]],
        confidence=float(answers["confidence"][row]),
        probabilities=dict(zip(class_names, probabilities, strict=True)),
        reject=bool(answers["reject"][row]),
        prediction_set=_set(class_names, probabilities, answers["prediction_set"][row]) if has_sets else None,
        refer=bool(answers["refer"][row]) if has_sets else None,
        labels=_set(class_names, probabilities, answers["labels"][row]) if "labels" in answers else None,
        likeliest=class_names[answers["likeliest"][row]] if "likeliest" in answers else None,
    )


def _set(names: Sequence[str], probabilities: Sequence[float], members: np.ndarray) -> tuple[str, ...]:
    """The classes of a set, the likeliest first."""
    kept = np.flatnonzero(members).tolist()
    return tuple(names[i] for i in sorted(kept, key=lambda i: -probabilities[i]))
