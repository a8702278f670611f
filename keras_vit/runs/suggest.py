"""Which images of a folder a person should label next, for a run to learn the most from them."""

import os
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_vit.data.audit import UnreadableItem
from keras_vit.data.duplicates import find_duplicates
from keras_vit.data.image_set import SPLIT_PARTS, ImageSet
from keras_vit.data.origin import content_hash
from keras_vit.data.reading import ReadImages, read_images
from keras_vit.data.sources.folder import list_images
from keras_vit.data.targets import label_text, names_as_json
from keras_vit.errors import InputError
from keras_vit.evaluation.label_next import choose_next, uncertainty
from keras_vit.files import write_csv
from keras_vit.report.labelling import Finding, ImageToCheck, write_page
from keras_vit.runs.answer import answer_images
from keras_vit.runs.folder import Run
from keras_vit.runs.judged_images import own_images

TABLE = "suggest.csv"


@dataclass(frozen=True)
class Suggestion:
    """An image that a person should label.

    Args:
        name: its path in the folder, as it is shown.
        path: of the file, absolute.
        sha256: of its content.
        score: how unsure the run is of it, 0 to 1.
        label: what the run takes it for: the name of a class, or a JSON list of labels.
        confidence: the probability of the likeliest label.
        reject: whether it is unlike the training images.
    """

    name: str
    path: Path
    sha256: str
    score: float
    label: str
    confidence: float
    reject: bool


@dataclass(frozen=True)
class Suggestions:
    """What `suggest` found.

    Args:
        images: to label, in the order in which they were chosen.
        candidates: how many images they were chosen from.
        left_out: reason -> number of images.
        unreadable: with the reason.
        labelled: the images that the run has, as rows of a table: path, label, part.
        notes: what is to be known, one line each.
    """

    images: tuple[Suggestion, ...]
    candidates: int
    left_out: dict[str, int]
    unreadable: tuple[UnreadableItem, ...]
    labelled: tuple[dict[str, str], ...]
    notes: tuple[str, ...]


def suggest(run: Run, folder: str | Path, count: int = 100, seed: int = 0) -> Suggestions:
    """Chooses images of a folder, nested or not, by what the run is unsure of and by how they differ.

    Images that the run has already are left out, and of images that show the same thing one is chosen.

    Args:
        run: a finished run.
        folder: with images without labels.
        count: how many are chosen.
        seed: of the choice.

    Raises:
        InputError: the folder cannot be read, or has no image that is left.
    """
    named, notes = list_images(folder)
    names, files = list(named), list(named.values())
    known, parts, told = _known_images(run)
    read = read_images(files, run.preprocessing)
    reasons = zip(names, read.reasons, strict=True)
    unreadable = [UnreadableItem(name, reason) for name, reason in reasons if reason is not None]
    groups, taken, skipped = _alike(run, read, known)
    free = [i for i in read.readable if not taken[i]]
    left_out = {"unreadable": len(unreadable), "that the run has, or nearly the same": int(taken.sum())}
    if not free:
        counted = ", ".join(f"{number} {reason}" for reason, number in left_out.items() if number)
        raise InputError(f"{folder} has no image to label ({counted}): give a folder with others.")
    answers = answer_images(run.answers(), [read.inputs[i] for i in free], run.preprocessing)
    probabilities = answers["probabilities"]
    finite = np.isfinite(probabilities).all(axis=1)
    if not finite.all():
        raise InputError(f"The model of {run.path} gives no finite probabilities: train it again.")
    scores = uncertainty(probabilities, run.several)
    chosen = choose_next(probabilities, answers["features"], count, groups[free], seed, several=run.several)
    images = tuple(
        Suggestion(
            names[free[i]],
            Path(os.path.abspath(files[free[i]])),
            content_hash(files[free[i]]),
            float(scores[i]),
            _label(run, answers, i),
            float(probabilities[i].max()),
            bool(answers["reject"][i]),
        )
        for i in chosen.tolist()
    )
    lines = [f"{folder}: {note}" for note in notes] + told + ([skipped] if skipped else [])
    labelled = () if known is None else _rows(known, parts)
    if known is not None and not labelled:
        lines.append(
            f"the images of {run.path} are not files of their own ({known.source}), so labels.jsonl will "
            "hold the new images alone"
        )
    return Suggestions(images, len(free), left_out, tuple(unreadable), labelled, tuple(lines))


def _known_images(run: Run) -> tuple[ImageSet | None, tuple[str, ...], list[str]]:
    """The images that the run has, their parts, and what is to be said of them."""
    try:
        found, parts = own_images(run).files_of(*SPLIT_PARTS)
    except InputError as error:
        said = str(error).rstrip(".")
        line = "near duplicates of the run's images are not left out, and labels.jsonl lacks these: "
        return None, (), [line + said]
    return found, parts, []


def _alike(run: Run, read: ReadImages, known: ImageSet | None) -> tuple[np.ndarray, np.ndarray, str | None]:
    """Which images show the same thing, a number for each; which the run has; what was not searched for."""
    number = 0
    if known is not None:
        own = read_images(known.images, decoding=run.preprocessing.decoding)
        number = len(own.infos)
        read = ReadImages(
            [*own.images, *read.images], [*own.infos, *read.infos], [*own.reasons, *read.reasons]
        )
    found = find_duplicates(read)
    groups = found.groups[number:]
    taken = np.isin(groups, found.groups[:number])
    rows = run.images.rows if run.images else ()
    digests = {row["pixels"] for row in rows if row["part"] in SPLIT_PARTS}
    taken |= [info is not None and info.digest.hex() in digests for info in read.infos[number:]]
    return groups, taken, found.near_skipped and f"near duplicates: {found.near_skipped}"


def _label(run: Run, answers: dict[str, Any], i: int) -> str:
    if not run.several:
        return run.class_names[int(answers["label"][i])]
    return names_as_json([run.class_names[c] for c in np.flatnonzero(answers["labels"][i]).tolist()])


def _rows(known: ImageSet, parts: Sequence[str]) -> tuple[dict[str, str], ...]:
    """The images of the run as rows of a table; none where they are not files."""
    if not all(isinstance(image, Path) for image in known.images):
        return ()
    return tuple(
        {
            "path": os.path.abspath(image),  # type: ignore[arg-type]
            "label": label_text(known.labels, i, known.class_names),
            "part": parts[i],
        }
        for i, image in enumerate(known.images)
    )


def write_suggestions(found: Suggestions, run: Run, folder: Path, source: str) -> None:
    """Writes the table `suggest.csv` and the page where a person labels the images.

    Args:
        found: of `suggest`.
        run: that was asked.
        folder: exists, as that of `keras_vit.report.labelling.new_folder`.
        source: the folder of the images, for the page.
    """
    rows = [
        {
            "path": item.path,
            "sha256": item.sha256,
            "score": f"{item.score:.4f}",
            "suggested": item.label,
            "confidence": f"{item.confidence:.4f}",
            "reject": int(item.reject),
        }
        for item in found.images
    ]
    write_csv(folder / TABLE, rows)
    images = [
        ImageToCheck(
            path=item.name,
            sha256=item.sha256,
            image=item.path,
            suggested=item.label,
            score=item.score,
            confidence=item.confidence,
            findings=(Finding("unlike the training images"),) if item.reject else (),
            file=item.path,
        )
        for item in found.images
    ]
    write_page(
        folder,
        images,
        title=f"{len(images)} images to label",
        source=f"{source}, suggested by {run.path}",
        class_names=run.class_names,
        several=run.several,
        decoding=run.preprocessing.decoding,
        task="labels",
        labelled=found.labelled,
    )


def lines_of(found: Suggestions) -> list[str]:
    """What is printed of suggestions."""
    left_out = ", ".join(f"{number} {reason}" for reason, number in found.left_out.items() if number)
    labels = Counter(item.label for item in found.images)
    return [
        f"{len(found.images)} of {found.candidates:,} images to label"
        + (f"; left out: {left_out}" if left_out else ""),
        "the run takes them for: " + ", ".join(f"{name} {number}" for name, number in labels.most_common(10)),
    ]
