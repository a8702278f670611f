"""The weights of a run for timm or transformers, compared with its model before they appear."""

import os
from pathlib import Path
from typing import Any

import numpy as np
from scipy.special import softmax

from keras_vit.data.image_set import ImageSet
from keras_vit.data.pipeline import read_pixels
from keras_vit.data.preprocess import scale_pixels
from keras_vit.errors import InputError
from keras_vit.model.vit import ViT
from keras_vit.model.weights.export import Format
from keras_vit.runs.folder import Run
from keras_vit.serving.comparison import Comparison

TOLERANCE = 1e-4


def write_weights(run: Run, folder: Path, format: Format, images: ImageSet) -> Comparison:
    """Writes the weights of a run, reads them again as those of the other library, and compares the answers.

    Args:
        run: the run.
        folder: an empty one, which gets the files.
        format: `"timm"` or `"huggingface"`.
        images: readable images, one or more.

    Raises:
        InputError: the library has no place for an option of the model, or the answers differ.
    """
    written = run.export_weights(folder / "weights", format)
    for path in written.iterdir():
        os.replace(path, folder / path.name)
    written.rmdir()
    model = ViT.from_pretrained(folder, dtype=run.model.dtype_policy.name)
    difference, same = 0.0, 0
    for start in range(0, len(images), 64):
        pixels = read_pixels(images.images[start : start + 64], run.preprocessing)
        scaled = scale_pixels(pixels, run.preprocessing)
        ours, theirs = (softmax(_logits(found, scaled), axis=1) for found in (run.model, model))
        difference = max(difference, float(np.abs(ours - theirs).max()))
        same += int((ours.argmax(axis=1) == theirs.argmax(axis=1)).sum())
    if not difference <= TOLERANCE:
        raise InputError(
            f"The {format} weights answer otherwise than the model of {run.path}: probabilities differ by "
            f"{difference:.1e}, more than {TOLERANCE:.0e}. Please report this."
        )
    return Comparison(len(images), difference, same)


def _logits(model: Any, pixels: np.ndarray) -> np.ndarray:
    return np.asarray(model.predict_on_batch(pixels), "float64")
