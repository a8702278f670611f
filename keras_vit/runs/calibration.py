"""What a run answers about images that it was not trained on, kept to choose its thresholds anew."""

import os
import zipfile
from pathlib import Path

import numpy as np

from keras_vit.claims import check_npz
from keras_vit.data.image_set import evenly
from keras_vit.errors import InputError
from keras_vit.evaluation.metrics import checked_scores
from keras_vit.evaluation.trust import CalibrationImages

CALIBRATION = "calibration.npz"

MOST_NUMBERS = 4_000_000
"""Of the file, which has 4 bytes for each: of more images and classes, some images are kept, evenly."""


def write_calibration(path: Path, images: CalibrationImages) -> None:
    """Writes logits and labels; nothing where there are no images."""
    if not len(images.labels):
        return
    kept = evenly(len(images.labels), max(1, MOST_NUMBERS // images.logits.shape[1]))
    new = path.with_name(f"new-{path.name}")
    np.savez(
        new,
        logits=images.logits[kept].astype("float32"),
        labels=images.labels[kept].astype("int32"),
        source=np.array(images.source),
    )
    os.replace(new, path)


def read_calibration(path: Path, classes: int) -> CalibrationImages:
    """What `write_calibration` wrote.

    Args:
        path: of the file.
        classes: how many the run has.

    Raises:
        InputError: the file is damaged, or of another run.
    """
    try:
        check_npz(path)
        with np.load(path, allow_pickle=False) as file:
            found = {name: file[name] for name in ("logits", "labels", "source")}
        labels, logits = checked_scores(found["labels"], found["logits"], "logits")
        if logits.shape[1] != classes or found["source"].dtype.kind != "U":
            raise ValueError(f"it has {logits.shape[1]} classes")
    except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read ({reason}): train the run again.") from error
    return CalibrationImages(logits, labels, str(found["source"]))
