"""Classifies any number of images in bounded memory: some are decoded while the model looks at others."""

import itertools
from collections import deque
from collections.abc import Generator, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_vit.data.image_set import Image
from keras_vit.data.preprocess import Preprocessing
from keras_vit.data.reading import ReadImages, read_images
from keras_vit.data.sources.archive import ZipMember
from keras_vit.errors import InputError
from keras_vit.runs.answer import answer_batch, batch_size
from keras_vit.runs.ensemble import Ensemble, mean_of_labels, mean_prediction, open_runs
from keras_vit.runs.folder import Run
from keras_vit.runs.image_notes import Notes
from keras_vit.runs.listing import HowListed, Listed, list_images
from keras_vit.runs.predictions import Prediction, prediction_of, without_answer
from keras_vit.runs.wanted import Costs, MinRecall

PART_BYTES = 2**25
"""The most prepared images of one part: two parts wait while the model looks at a third."""

PARTS_AHEAD = 2


def predict_stream(
    run: Run | Ensemble | str | Path,
    images: Sequence[str | Path],
    flips: bool = False,
    accept_risk: float | None = None,
    crop_boxes: bool = False,
    allow_outside: bool = False,
    min_recall: MinRecall = None,
    costs: Costs = None,
) -> Iterator[Prediction]:
    """Like `predict`, for any number of images: each answer comes as soon as it is known.

    Memory holds some hundred images, however many there are. They are decoded in threads while the model
    computes.

    Args:
        run, flips, accept_risk, crop_boxes, allow_outside, min_recall, costs: as of `predict`.
        images: paths of image files, folders, zips and tables, and patterns such as `"strips/**/*.jpg"`.

    Yields:
        One `Prediction` per image, in order; those of a folder in natural order, with their paths. An image
        that cannot be read gets an `error` and does not affect the others.

    Raises:
        InputError: as `predict`, or a folder, a zip or a pattern has no images.

    Example:
        >>> for answer in keras_vit.predict_stream("runs/first", ["strips"]):
        ...     print(answer.image, answer.label)
    """
    found = run if isinstance(run, Run | Ensemble) else open_runs(run)
    found = found.deciding(min_recall, costs)
    listed = list_images(images, found.class_names, HowListed(crop_boxes, allow_outside))
    return stream(found, listed, flips, accept_risk)


def stream(
    run: Run | Ensemble, listed: Iterable[Listed], flips: bool = False, accept_risk: float | None = None
) -> Generator[Prediction, None, None]:
    """`predict_stream` of images that are listed already, with the rule that the run has."""
    runs = [one.accepting(accept_risk) for one in (run.runs if isinstance(run, Ensemble) else (run,))]
    models = [one.answers(flips) for one in runs]
    # Runs of the same settings mostly prepare images alike: these are decoded once for all of them.
    prepared = list(dict.fromkeys(one.preprocessing for one in runs))
    which = [prepared.index(one.preprocessing) for one in runs]
    batch = min(map(batch_size, models))
    has_sets = all(one.prediction_sets is not None for one in runs)
    by_set = not any(one.accepts_risk for one in runs)

    def predictions(waiting: Sequence[_Waiting], rows: int | None) -> Iterator[Prediction]:
        readable = [one.pixels for one in waiting if one.pixels is not None]
        answers: list[dict[str, np.ndarray]] = []
        if readable:
            stacks = [np.stack(pixels) for pixels in zip(*readable, strict=True)]
            answers = [answer_batch(model, stacks[i], rows) for model, i in zip(models, which, strict=True)]
        row = itertools.count()
        for one in waiting:
            if one.pixels is None:
                yield without_answer(one.name, one.reason or "", has_sets)
                continue
            at = next(row)
            of_runs = [prediction_of(run.class_names, one.name, found, at) for found in answers]
            if isinstance(run, Run):
                yield of_runs[0]
            elif run.thresholds is not None:
                yield mean_of_labels(of_runs, run.thresholds)
            else:
                yield mean_prediction(of_runs, by_set, run.rule)

    return _in_batches(_read_ahead(listed, prepared), batch, predictions)


@dataclass(frozen=True)
class _Waiting:
    """An image that waits for its batch: its pixels for each preprocessing, or why it has none."""

    name: str
    pixels: tuple[np.ndarray, ...] | None
    reason: str | None


def _in_batches(read, batch, predictions):
    """The predictions of images in batches of one size; only a batch that is alone may be smaller."""
    waiting, ready, full = [], 0, False
    for one in read:
        waiting.append(one)
        ready += one.pixels is not None
        # Those that cannot be read have no part in a batch, and must not wait without an end.
        if ready == batch or len(waiting) >= 4 * batch:
            yield from predictions(waiting, batch)
            waiting, ready, full = [], 0, True
    yield from predictions(waiting, batch if full else None)


_Part = tuple[Sequence[Listed], list[ReadImages], dict[int, str]]


def _read_ahead(listed: Iterable[Listed], prepared: Sequence[Preprocessing]) -> Iterator[_Waiting]:
    """Decodes images in parts, one part ahead of the one that is asked for."""
    size = 4 * sum(int(np.prod(one.image_shape)) for one in prepared)
    most, rest = max(8, min(256, PART_BYTES // size)), iter(listed)
    parts = iter(lambda: list(itertools.islice(rest, most)), [])
    notes = Notes(prepared[0])
    with ThreadPoolExecutor(1) as reader:
        ahead: deque[Future[_Part]] = deque()
        try:
            for part in parts:
                ahead.append(reader.submit(_read, part, prepared))
                if len(ahead) > PARTS_AHEAD:
                    yield from _waiting(*ahead.popleft().result(), notes)
            while ahead:
                yield from _waiting(*ahead.popleft().result(), notes)
        finally:
            for future in ahead:
                future.cancel()
    notes.say_wide()


def _read(part: Sequence[Listed], prepared: Sequence[Preprocessing]) -> _Part:
    """One part, read once for each preprocessing; and why members of a zip have no bytes."""
    images: list[Image] = []
    broken: dict[int, str] = {}
    for i, one in enumerate(part):
        try:
            images.append(one.image.read() if isinstance(one.image, ZipMember) else one.image)
        except InputError as error:
            images.append(b"")
            broken[i] = str(error).rstrip(".")
    return part, [read_images(images, one, fingerprints=False) for one in prepared], broken


def _waiting(
    part: Sequence[Listed], reads: Sequence[ReadImages], broken: dict[int, str], notes: Notes
) -> Iterator[_Waiting]:
    notes.say_damage([one.name for one in part], reads[0])
    for i, one in enumerate(part):
        reason = broken.get(i) or next((read.reasons[i] for read in reads if read.reasons[i]), None)
        pixels = None if reason else tuple(np.asarray(read.inputs[i]) for read in reads)
        yield _Waiting(one.name, pixels, reason)
