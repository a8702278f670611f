"""The SavedModel of a run: written, and compared with the Keras model."""

import dataclasses
import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from keras_vit.data.image_set import Image, ImageSet
from keras_vit.data.pipeline import read_pixels
from keras_vit.data.probe import bytes_of, native_or_values
from keras_vit.data.values import UnreadableImage, is_measured
from keras_vit.errors import InputError
from keras_vit.runs.answer import answer_images
from keras_vit.runs.folder import Run
from keras_vit.serving.comparison import Comparison, Tolerance, compare_answers, join
from keras_vit.serving.label_comparison import to_label_margins
from keras_vit.serving.named_comparison import to_rule
from keras_vit.serving.sent import Sent, to_send
from keras_vit.serving.set_comparison import to_thresholds
from keras_vit.serving.version_folder import clear_errors

BATCH_SIZE = 32
PIXEL_IMAGES = 32
REPORT = "please report it with the run's config.json"
TOLERANCE = {
    dtype: Tolerance(
        probability=probability,
        features=relative,
        margin=2 * probability,
        distance=relative,
        changed=1.0,
        fix=REPORT,
        who="the exported model",
        log_odds=log_odds,
    )
    for dtype, probability, relative, log_odds in (
        ("float32", 1e-5, 1e-3, 1e-2),
        ("float16", 2e-2, 5e-2, 0.2),
        ("bfloat16", 1e-1, 2e-1, 1.0),
    )
}
"""How much the answers may differ from the Keras model's, by the precision that the run computes in."""


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


def sent_image(image: Image, run: Run) -> bytes | Sent:
    """What the bundle of a run is sent about an image: its file, a PNG, or pixels or values."""
    channels, has_range = run.preprocessing.image_shape[2], run.preprocessing.pixel_range is not None
    if isinstance(image, bytes | Path):
        return to_send(bytes_of(image), channels, has_range, run.preprocessing.tiff_page)
    if is_measured(channels):
        return Sent("images", {"images": np.asarray(image, np.float32)[None]})
    return png_of_pixels(np.asarray(image))


def encoded_image(image: Image) -> bytes:
    """The bytes of an image file, as a PNG if TensorFlow does not decode it; of pixels, those of a PNG.

    Raises:
        UnreadableImage: it has values that no PNG has, or cannot be read.
    """
    if not isinstance(image, bytes | Path):
        return png_of_pixels(np.asarray(image))
    found = native_or_values(bytes_of(image), 1, None)
    if not isinstance(found, bytes):
        raise UnreadableImage("values that are sent as pixels, not as a file")
    return found


def png_of_pixels(pixels: np.ndarray) -> bytes:
    """A PNG of gray or RGB pixels, uint8 or uint16 (height, width, channels), with alpha if they have it."""
    from PIL import Image as pil

    file = io.BytesIO()
    pil.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def compare_saved_model(run: Run, folder: Path, images: ImageSet, flips: bool = False) -> Comparison:
    """Compares a written SavedModel with the Keras model of its run, in every output of every signature.

    The signatures that take pixels get the first `PIXEL_IMAGES` images, at the size of the model.

    Args:
        run: the run.
        folder: of the SavedModel.
        images: readable images, one or more.
        flips: as it was written.

    Raises:
        InputError: the difference is above the `TOLERANCE`, or an image that Keras reads is not decoded.
    """
    expected = expected_answers(run, images, flips)
    signatures = SavedModelFile(folder)
    originals = [images.original(i) for i in range(len(images))]
    sent = [sent_image(image, run) for image in originals]
    converted = [
        not isinstance(image, np.ndarray) and (isinstance(file, Sent) or file != bytes_of(image))
        for image, file in zip(originals, sent, strict=True)
    ]
    as_files = np.array([isinstance(file, bytes) for file in sent])
    files = [file for file in sent if isinstance(file, bytes)]
    found = signatures.of_each("serving_default", sent)
    blank = [name for name, row in zip(images.names, found["probabilities"], strict=True) if not row.any()]
    if blank:
        raise InputError(
            f"The exported model does not decode {blank[0]}, one of {len(blank)} images that Keras reads: "
            "scale them down to 33 million pixels."
        )
    tolerance = TOLERANCE[run.model.get_layer("patch_embed").compute_dtype]
    features = dict(expected)  # of images that are sent as pixels, nothing answers with features
    if files:
        of_files = signatures.of_files("features", files)
        if (of_files["reject"] != found["reject"][as_files]).any():
            raise tolerance.refusal("the signature features rejects other images than serving_default")
        features["features"] = np.array(features["features"])
        features["features"][as_files] = of_files["features"]
    number = {name.encode(): i for i, name in enumerate(run.class_names)}
    found = {**_numbered(found, number), "features": features["features"]}
    comparison = compare_answers(expected, found, tolerance)
    comparison = dataclasses.replace(comparison, converted=sum(converted))

    pixels = read_pixels(images.images[:PIXEL_IMAGES], run.preprocessing)
    rounded = np.clip(np.rint(pixels), 0, 255)
    for name, given, dtype in (("images", pixels, "float32"), ("images_uint8", rounded, "uint8")):
        of_keras = _as_multiple(run, answer_images(run.answers(flips), list(given), run.preprocessing))
        answers = signatures(name, given.astype(dtype))
        answers = {**_numbered(answers, number), "features": of_keras["features"]}
        compare_answers(of_keras, answers, tolerance)
    return comparison


def expected_answers(run: Run, images: ImageSet, flips: bool = False) -> dict[str, np.ndarray]:
    """What Keras answers, as `compare_answers` takes it."""
    return _as_multiple(run, answer_images(run.answers(flips), images.images, run.preprocessing))


def _as_multiple(run: Run, answers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    rejects = "rejection" in run.metrics and run.rejection is not None
    threshold = run.rejection.threshold if rejects and run.rejection else 1.0
    multiple = {**answers, "distance": answers["distance"] / threshold}
    return {
        **multiple,
        **to_thresholds(answers, run.prediction_sets),
        **to_rule(answers, run.rule),
        **to_label_margins(answers),
    }


def _numbered(answers: dict[str, np.ndarray], number: Mapping[bytes, int]) -> dict[str, np.ndarray]:
    """The answers with numbers of classes in place of their names, -1 for others."""
    names = [name for name in ("label", "likeliest") if name in answers]
    return {**answers, **{name: np.array([number.get(one, -1) for one in answers[name]]) for name in names}}


class SavedModelFile:
    """The signatures of a SavedModel on the disk.

    Args:
        folder: of the SavedModel.
    """

    def __init__(self, folder: Path):
        import tensorflow as tf

        self._signatures = tf.saved_model.load(str(folder)).signatures

    def __call__(self, signature: str, batch: np.ndarray | list[bytes]) -> dict[str, np.ndarray]:
        """The outputs of a signature for one batch."""
        import tensorflow as tf

        serve = self._signatures[signature]
        name = "image_bytes" if isinstance(batch, list) else "images"
        return {key: value.numpy() for key, value in serve(**{name: tf.constant(batch)}).items()}

    def of_each(self, signature: str, sent: "list[bytes | Sent]") -> dict[str, np.ndarray]:
        """The outputs for images that are sent as files to a signature, or else as pixels; in their order."""
        import tensorflow as tf

        files = [one for one in sent if isinstance(one, bytes)]
        of_files = self.of_files(signature, files) if files else {}
        rows, at = [], 0
        for one in sent:
            if isinstance(one, bytes):
                rows.append({key: value[at : at + 1] for key, value in of_files.items()})
                at += 1
                continue
            serve = self._signatures[one.signature]
            inputs = {name: tf.constant(value) for name, value in one.inputs.items()}
            rows.append({key: value.numpy() for key, value in serve(**inputs).items()})
        return join(rows)

    def of_files(self, signature: str, files: list[bytes]) -> dict[str, np.ndarray]:
        """The outputs of a signature that takes image files, in batches of `BATCH_SIZE`."""
        starts = range(0, len(files), BATCH_SIZE)
        return join([self(signature, files[start : start + BATCH_SIZE]) for start in starts])
