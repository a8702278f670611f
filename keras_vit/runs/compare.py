"""Compares finished runs on the same images, of which none of them has learned."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_vit.data.image_set import Image
from keras_vit.data.origin import content_hash
from keras_vit.data.probe import shown_pixels
from keras_vit.data.reading import read_images
from keras_vit.data.sources import load_image_set
from keras_vit.errors import InputError
from keras_vit.evaluation.pairs import compare_answers
from keras_vit.runs.answer import NOT_FINITE, answer_images
from keras_vit.runs.ensemble import Ensemble, open_runs
from keras_vit.runs.folder import Run
from keras_vit.runs.images import ImageRecord, images_in_words
from keras_vit.runs.judged_images import own_images
from keras_vit.runs.out_of_fold import OUT_OF_FOLD, read_answers
from keras_vit.runs.schema import UNLABELED
from keras_vit.sealed import check_file
from keras_vit.text import shown

FEW = 30
"""Below so many images one line says that a comparison shows little."""

LEARNED = ("train", UNLABELED, "validation")
"""The parts of images that a run has learned from, or chose its epoch by."""


@dataclass(frozen=True)
class Compared:
    """An image that runs are compared on.

    Args:
        name: of the image.
        image: as it came.
        label: the name of its class.
        keys: the hashes of its file and of its pixels.
    """

    name: str
    image: Image
    label: str
    keys: tuple[str, ...]


@dataclass(frozen=True)
class Answers:
    """What one run says of the images.

    Args:
        named: the class that each image is called.
        confidence: its probability, float (n,).
    """

    named: Sequence[str]
    confidence: np.ndarray


@dataclass(frozen=True)
class Comparison:
    """What `compare_runs` found.

    Args:
        names: of the runs; the first is what the others are compared with.
        runs: the same, opened.
        class_names: that all runs know.
        images: that are compared.
        labels: of the images, int (n,).
        answers: one per run.
        figures: the result of `keras_vit.evaluation.pairs.compare_answers`.
        notes: what is to be known, one line each.
    """

    names: tuple[str, ...]
    runs: Sequence[Run | Ensemble]
    class_names: tuple[str, ...]
    images: Sequence[Compared]
    labels: np.ndarray
    answers: Sequence[Answers]
    figures: dict[str, Any]
    notes: Sequence[str]

    def changed(self) -> list[int]:
        """The positions of the images that not all runs call the same."""
        return [i for i in range(len(self.labels)) if len({one.named[i] for one in self.answers}) > 1]

    def rows(self) -> list[dict[str, Any]]:
        """One per changed image: its path, its label, and what each run calls it."""
        found = []
        for i in self.changed():
            row: dict[str, Any] = {"path": self.images[i].name, "label": self.images[i].label}
            for name, one in zip(self.names, self.answers, strict=True):
                row[f"label by {name}"] = one.named[i]
                row[f"confidence of {name}"] = float(one.confidence[i])
            found.append(row)
        return found

    def pixels(self, i: int) -> np.ndarray:
        """An image for people to see: uint8 (height, width, 1 or 3)."""
        return shown_pixels(self.images[i].image, _members(self.runs[0])[0].preprocessing.decoding)

    def to_dict(self) -> dict[str, Any]:
        """Ready for JSON."""
        return {"runs": list(self.names), "notes": list(self.notes), **self.figures, "changed": self.rows()}


def compare_runs(
    runs: Sequence[Run | Ensemble | str | Path],
    data: str | None = None,
    crop_boxes: bool = False,
    allow_outside: bool = False,
    fixes: str | None = None,
) -> Comparison:
    """Compares two or more finished runs on the same images, each with the first.

    Without `data`, these are the test images of all runs, found by their content, without those that one of
    the runs was trained on or chose its epoch by. Folds answer for an image by the fold that was not trained
    on it; seeds, and folds for an image that is new to them, by their mean.

    Args:
        runs: or their folders; one class per image.
        data: what `load_image_set` takes. Images that a run has learned from are left out.
        crop_boxes, allow_outside, fixes: how `data` is read.

    Raises:
        InputError: a run or the images cannot be used, or no image is new to all runs.
    """
    opened = [run if isinstance(run, Run | Ensemble) else open_runs(run) for run in runs]
    names = _names(opened)
    for run, name in zip(opened, names, strict=True):
        if run.several:
            raise InputError(
                f"{name} names several labels per image, and runs of one class per image are compared: use "
                "keras-vit evaluate for each."
            )
    common = [name for name in opened[0].class_names if all(name in run.class_names for run in opened)]
    if len(common) < 2:
        raise InputError(
            f"{names[0]} knows {', '.join(opened[0].class_names)}, of which not all runs know two: compare "
            "runs of the same classes."
        )
    notes: list[str] = []
    if data is None:
        images = _test_images(opened, names, notes)
    else:
        images = _other_images(opened, names, data, notes, crop_boxes, allow_outside, fixes)
    others = sorted({one.label for one in images} - set(common))
    if others:
        count = sum(one.label in others for one in images)
        images = [one for one in images if one.label not in others]
        notes.append(
            f"{images_in_words(count)} left out, of classes that not all runs know: {', '.join(others)}"
        )
    if not images:
        raise InputError(
            "No image is new to all of these runs: give labelled images that none has learned from with "
            "--data."
        )
    if len(images) < FEW:
        notes.append(f"{images_in_words(len(images))}: so few show only large differences")
    labels = np.array([common.index(one.label) for one in images])
    answers = [_answers(run, images) for run in opened]
    named = [np.array([common.index(n) if n in common else -1 for n in one.named]) for one in answers]
    figures = compare_answers(labels, named, common)
    return Comparison(names, opened, tuple(common), images, labels, answers, figures, notes)


def _names(runs: Sequence[Run | Ensemble]) -> tuple[str, ...]:
    """The names of the folders, or their paths where two have the same name."""
    if len(runs) < 2:
        told = f"{runs[0].path} alone" if runs else "nothing"
        raise InputError(f"Two runs or more are compared. Received: {told}")
    places = [run.path.resolve() for run in runs]
    for i, place in enumerate(places):
        if place in places[:i]:
            raise InputError(f"{runs[i].path} is given twice: give each run once.")
    short = [shown(place.name) for place in places]
    return tuple(short if len(set(short)) == len(short) else [shown(run.path) for run in runs])


def _members(run: Run | Ensemble) -> tuple[Run, ...]:
    return run.runs if isinstance(run, Ensemble) else (run,)


def _is_folds(run: Run | Ensemble) -> bool:
    return isinstance(run, Ensemble) and run.metrics["kind"] == "folds"


def _learned(run: Run | Ensemble, name: str) -> set[str]:
    """The hashes of the images that a run has learned from, or chose its epoch by."""
    record: ImageRecord | None = run.learned() if isinstance(run, Ensemble) else run.images
    if record is None:
        raise InputError(
            f"{name} has no images.csv, so it is not known which images it has learned from: train it again."
        )
    rows = (record.rows[i] for i in record.of_part(*LEARNED))
    return {key for row in rows for key in (row["sha256"], row["pixels"]) if key}


def _test_images(runs: Sequence[Run | Ensemble], names: Sequence[str], notes: list[str]) -> list[Compared]:
    """The test images of all runs that no run has learned from; of folds, all images are test images."""
    learned = [_learned(run, name) for run, name in zip(runs, names, strict=True) if not _is_folds(run)]
    found: dict[str, Compared] = {}
    differ = set()
    for run, name in zip(runs, names, strict=True):
        tested = _tested(run)
        kept = [one for one in tested if not any(key in keys for key in one.keys for keys in learned)]
        if len(kept) < len(tested):
            notes.append(
                f"of the {images_in_words(len(tested))} that {name} was tested on, {len(kept):,} are "
                "compared: a run has learned from the others"
            )
        for one in kept:
            first = found.setdefault(one.keys[-1], one)
            if first.label != one.label:
                differ.add(one.keys[-1])
    if differ:
        notes.append(f"{images_in_words(len(differ))} left out, whose labels differ between the runs")
    return [one for key, one in found.items() if key not in differ]


def _tested(run: Run | Ensemble) -> list[Compared]:
    """The images that a run, or one of several, was tested on."""
    found: dict[str, Compared] = {}
    for member in _members(run):
        record = member.images
        assert record is not None
        image_set = own_images(member).files_of("test")[0]
        for i, place in enumerate(record.of_part("test")):
            row = record.rows[place]
            keys = tuple(key for key in (row["sha256"], row["pixels"]) if key)
            found.setdefault(row["sha256"], Compared(row["path"], image_set.images[i], row["label"], keys))
    return list(found.values())


def _other_images(
    runs: Sequence[Run | Ensemble],
    names: Sequence[str],
    data: str,
    notes: list[str],
    crop_boxes: bool,
    allow_outside: bool,
    fixes: str | None,
) -> list[Compared]:
    """The images of other data that no run has learned from."""
    came = load_image_set(
        data, runs[0].class_names, crop_boxes=crop_boxes, allow_outside=allow_outside, fixes=fixes
    )
    if came.several:
        raise InputError(
            f"{came.source} has several labels per image, and the runs name one class: give a table with one "
            "label per image."
        )
    read = read_images(came.images, _members(runs[0])[0].preprocessing)
    _require_readable(came.names, read.reasons)
    keys = [
        tuple(key for key in (content_hash(image), info.digest.hex() if info else "") if key)
        for image, info in zip(came.images, read.infos, strict=True)
    ]
    found = [
        Compared(came.names[i], came.images[i], came.class_names[came.labels[i]], keys[i])
        for i in range(len(came))
    ]
    for run, name in zip(runs, names, strict=True):
        learned = _learned(run, name)
        kept = [one for one in found if not learned.intersection(one.keys)]
        if len(kept) < len(found):
            notes.append(f"{images_in_words(len(found) - len(kept))} left out, from which {name} has learned")
        found = kept
    return found


def _require_readable(names: Sequence[str], reasons: Iterable[str | None]) -> None:
    broken = [f"{name}: {reason}" for name, reason in zip(names, reasons, strict=True) if reason]
    if broken:
        raise InputError(
            f"{images_in_words(len(broken))} cannot be read ({'; '.join(broken[:3])}): remove them, or "
            "compare runs that take such images."
        )


def _answers(run: Run | Ensemble, images: Sequence[Compared]) -> Answers:
    """What a run, or several together, call the images."""
    known = _out_of_fold(run) if isinstance(run, Ensemble) and _is_folds(run) else {}
    probabilities, new = np.zeros((len(images), len(run.class_names))), []
    for i, one in enumerate(images):
        answer = next((known[key] for key in one.keys if key in known), None)
        if answer is None:
            new.append(i)
        else:
            probabilities[i] = answer
    named = np.zeros(len(images), np.int64)
    if new:
        asked = [_asked(member, [images[i] for i in new]) for member in _members(run)]
        probabilities[new] = np.mean([found for found, _ in asked], axis=0)
        named[new] = asked[0][1]
    if isinstance(run, Ensemble):
        rule = run.rule
        named = probabilities.argmax(axis=1) if rule is None else rule.decide(probabilities)
    return Answers(
        [run.class_names[i] for i in named], np.take_along_axis(probabilities, named[:, None], 1)[:, 0]
    )


def _asked(run: Run, images: Sequence[Compared]) -> tuple[np.ndarray, np.ndarray]:
    """The probabilities of one run, (n, classes), and the classes that it names, int (n,)."""
    read = read_images([one.image for one in images], run.preprocessing, fingerprints=False)
    names = [one.name for one in images]
    _require_readable(names, read.reasons)
    found = answer_images(run.answer_model, read.inputs, run.preprocessing)
    broken = np.flatnonzero(~np.isfinite(found["probabilities"]).all(axis=1))
    if len(broken):
        raise InputError(f"{run.path}, {names[broken[0]]}: {NOT_FINITE}. Train it again.")
    return found["probabilities"], found["label"]


def _out_of_fold(runs: Ensemble) -> dict[str, np.ndarray]:
    """The hashes of an image -> its probabilities, by the fold that was not trained on it."""
    check_file(runs.path / OUT_OF_FOLD, runs.config, "restore the files of the run, or train the run again")
    rows, _, probabilities = read_answers(runs.path / OUT_OF_FOLD, runs.class_names)
    tested = [
        {row["path"]: (row["sha256"], row["pixels"]) for row in run.images.rows if row["part"] == "test"}
        for run in runs.runs
        if run.images is not None
    ]
    return {
        key: one
        for row, one in zip(rows, probabilities, strict=True)
        for key in tested[int(row["fold"]) - 1][row["path"]]
        if key
    }
