"""What a run answers about the images that it is tested on, kept for the evaluation of all folds together."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_vit import files
from keras_vit.data.targets import label_text, labels_of_texts
from keras_vit.errors import InputError
from keras_vit.text import shown

OUT_OF_FOLD = "out_of_fold.csv"
COLUMNS = ("path", "label", "fold")
PREFIX = "probability "
"""The column of a class is this and its name, so that a class may be called `path`."""


def write_answers(
    path: Path,
    *,
    names: Sequence[str],
    labels: np.ndarray,
    probabilities: np.ndarray,
    class_names: Sequence[str],
    fold: int,
) -> None:
    """Writes a row per tested image: path, label, the probability of each class, and the fold.

    Args:
        path: of the file.
        names: one per image.
        labels: int (n,), or uint8 (n, classes) where an image may have several, which are a JSON list.
        probabilities: (n, classes), calibrated.
        class_names: one per class.
        fold: which one the run is, from 1.
    """
    columns = [PREFIX + name for name in class_names]
    texts = [label_text(labels, i, class_names) for i in range(len(labels))]
    rows: list[Mapping[str, Any]] = [
        {
            "path": shown(name),
            "label": text,
            **dict(zip(columns, row, strict=True)),
            "fold": fold,
        }
        for name, text, row in zip(names, texts, probabilities.tolist(), strict=True)
    ]
    files.write_csv(path, rows, ["path", "label", *columns, "fold"])


def read_answers(
    path: Path, class_names: Sequence[str], several: bool = False
) -> tuple[list[dict[str, str]], np.ndarray, np.ndarray]:
    """The rows of the file, the labels as an `ImageSet` has them, and probabilities, float64 (n, classes).

    Raises:
        InputError: the file is missing or damaged.
    """
    try:
        rows = files.read_table(path)
        labels = labels_of_texts([row["label"] for row in rows], class_names, several)
        found = [[float(row[shown(PREFIX + name)]) for name in class_names] for row in rows]
    except (InputError, KeyError, ValueError) as error:
        raise InputError(f"{path} is damaged ({error}): restore it, or train the run again.") from error
    return rows, labels, np.array(found, np.float64)
