"""The SavedModel of a run: written, and compared with the Keras model."""

import io
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from keras_vit.data.image_set import Image, ImageSet
from keras_vit.errors import InputError
from keras_vit.runs.answer import answer_images
from keras_vit.runs.folder import Run
from keras_vit.serving.version_folder import clear_errors

BATCH_SIZE = 32
TOLERANCE = {"float32": 1e-5, "float16": 2e-2, "bfloat16": 1e-1}
"""How much a probability may differ from the Keras model's, by the precision that the run computes in."""


def write_saved_model(run: Run, folder: Path, flips: bool = False) -> None:
    """Writes the SavedModel of a run into a folder.

    Args:
        run: a finished run, with Keras on the TensorFlow backend.
        folder: an empty folder.
        flips: as of `answer_model`.

    Raises:
        OSError: the disk is full.
        InputError: it cannot be written for another reason.
    """
    import tensorflow as tf

    from keras_vit.serving.graph import ServedGraph

    graph = ServedGraph(run, flips)
    with clear_errors("The SavedModel cannot be written", folder):
        tf.saved_model.save(graph, str(folder), signatures=graph.signatures())


def encoded_image(image: Image) -> bytes:
    """The bytes of an image file; of pixels, those of a PNG."""
    if isinstance(image, bytes):
        return image
    if isinstance(image, Path):
        return image.read_bytes()
    from PIL import Image as pil

    file = io.BytesIO()
    pixels = np.asarray(image)
    pil.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


@dataclass(frozen=True)
class Comparison:
    """How much the answers of an exported model differ from those of the Keras model.

    Args:
        images: how many were compared.
        difference: the largest difference of a probability.
        same_class: for how many images the likeliest class is the same.
    """

    images: int
    difference: float
    same_class: int


def compare_saved_model(run: Run, folder: Path, images: ImageSet, flips: bool = False) -> Comparison:
    """Compares a written SavedModel with the Keras model of its run.

    Args:
        run: the run.
        folder: of the SavedModel.
        images: readable images, one or more.
        flips: as it was written.

    Raises:
        InputError: the difference is above the `TOLERANCE`, or an image that Keras reads is not decoded.
    """
    expected = answer_images(run.answers(flips), images.images, run.preprocessing)["probabilities"]
    found = served_probabilities(folder, [encoded_image(images.original(i)) for i in range(len(images))])
    blank = [name for name, row in zip(images.names, found, strict=True) if not row.any()]
    if blank:
        raise InputError(
            f"The exported model does not decode {blank[0]}, one of {len(blank)} images that Keras reads: "
            "scale them down to 33 million pixels."
        )
    same_class = int((found.argmax(axis=1) == expected.argmax(axis=1)).sum())
    comparison = Comparison(len(found), float(np.abs(found - expected).max()), same_class)
    allowed = TOLERANCE[run.model.get_layer("patch_embed").compute_dtype]
    if not comparison.difference <= allowed:
        raise InputError(
            "The answers of the exported model differ from those of Keras: a probability by "
            f"{comparison.difference:.1e}, {allowed:.0e} is allowed. So nothing is written: please report it "
            "with the run's config.json."
        )
    return comparison


def served_probabilities(folder: Path, files: list[bytes]) -> np.ndarray:
    """The probabilities of the signature `serving_default` of a SavedModel: float32 (n, classes)."""
    import tensorflow as tf

    serve = tf.saved_model.load(str(folder)).signatures["serving_default"]
    batches = [files[start : start + BATCH_SIZE] for start in range(0, len(files), BATCH_SIZE)]
    return np.concatenate(
        [serve(image_bytes=tf.constant(batch))["probabilities"].numpy() for batch in batches]
    )
