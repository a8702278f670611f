"""The page of finished runs that are compared on the same images."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_vit.evaluation.pairs import in_words, p_in_words, points
from keras_vit.report.kit import picture, render


def render_compared(
    *,
    names: Sequence[str],
    figures: Mapping[str, Any],
    notes: Sequence[str],
    images: str,
    settings: Sequence[Sequence[tuple[str, str]]],
    groups: Sequence[tuple[str, Sequence[Mapping[str, Any]], int]],
) -> str:
    """The page, as text to be written in UTF-8.

    Args:
        names: of the runs; the others are compared with the first.
        figures: the result of `keras_vit.evaluation.pairs.compare_answers`.
        notes: what is to be known, one line each.
        images: where the images come from, in words.
        settings: of each run, for people to read.
        groups: changed images by how they changed: a title; the images that are shown, each with `name`,
            `label`, `named` and `confidence` of each run, and uint8 `pixels` (height, width, 1 or 3); and how
            many there are.
    """
    return render(
        "compared",
        title=" and ".join([", ".join(names[:-1]), names[-1]]),
        names=names,
        figures=figures,
        notes=notes,
        images=images,
        settings=settings,
        answers=[in_words(figures, i, names) for i in range(1, len(names))],
        scores=[
            {**one, "accuracy_interval": one["interval"], "images": figures["images"]}
            for one in figures["accuracy"]
        ],
        p_in_words=p_in_words,
        points=points,
        groups=[
            (title, [(one, picture(np.asarray(one["pixels"]))) for one in shown], total)
            for title, shown, total in groups
        ],
    )
