"""A run as a file of another format, compared with Keras before it is called written."""

import importlib.util
import os
import tempfile
from pathlib import Path
from types import ModuleType

import numpy as np

from keras_vit.data.image_set import ImageSet, evenly
from keras_vit.data.pipeline import read_pixels
from keras_vit.data.preprocess import Preprocessing
from keras_vit.errors import InputError
from keras_vit.runs.folder import Run
from keras_vit.runs.predict import training_images
from keras_vit.serving.formats import to_litert, to_onnx, to_openvino
from keras_vit.serving.formats.check import FLOAT32, INT8, compare
from keras_vit.serving.formats.portable import PortableGraph
from keras_vit.serving.saved_model import Comparison
from keras_vit.serving.serving_json import write_settings
from keras_vit.serving.version_folder import clear_errors

FORMATS: dict[str, ModuleType] = {"onnx": to_onnx, "litert": to_litert, "openvino": to_openvino}
REPRESENTATIVE_IMAGES = 200


def write_format(run: Run, folder: Path, format: str, images: ImageSet, *, int8: bool = False) -> Comparison:
    """Writes the model of a run as ONNX, LiteRT or OpenVINO IR, from pixels of the model's size on.

    Beside the model lie `labels.txt`, a class a line, and `serving.json`: how an image becomes what the model
    takes, what it answers, and how far it was from Keras. All is in float32, whatever precision the run was
    trained in.

    Args:
        run: a finished run, with Keras on the TensorFlow backend.
        folder: an empty one. Where this fails, it stays empty.
        format: `"onnx"`, `"litert"` or `"openvino"`.
        images: readable ones to compare on, one or more.
        int8: whether the fully connected layers are quantised to 8 bits, by 200 of the run's training images;
            LiteRT only.

    Raises:
        InputError: a package is missing, the model cannot be written in this format, the training images are
            gone, or the file answers otherwise than Keras.
        OSError: the disk is full.
    """
    writer = FORMATS[format]
    require_packages(format)
    graph = PortableGraph(run)
    representative = representative_pixels(run) if int8 else None
    prepared = read_pixels(images.images, run.preprocessing)
    tolerance = INT8 if int8 else FLOAT32
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as temporary:
        beside = Path(temporary)
        with clear_errors(
            f"The model cannot be written as {format}", folder, "--format savedmodel takes every model"
        ):
            writer.convert(graph, beside, representative)
            answer = writer.load(beside)
            found = compare(graph.expected(prepared), answer, prepared, tolerance, writer.EMPTY_BATCH)
        write_settings(beside, run, found, about(run, format, int8))
        for path in beside.iterdir():
            if path.is_file():
                os.replace(path, folder / path.name)
    return Comparison(found.images, found.difference, found.same_class)


def require_packages(format: str) -> None:
    """Raises InputError where a package is missing that writes or runs a format."""
    missing = [name for name in FORMATS[format].PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f'--format {format} needs {", ".join(missing)}: pip install "keras-vit-defects[formats]".'
        )


def representative_pixels(run: Run) -> np.ndarray:
    """At most 200 training images, evenly from all: float32 (n, height, width, channels) in 0..255."""
    images = training_images(run)
    images = images.take(evenly(len(images), REPRESENTATIVE_IMAGES))
    return read_pixels(images.images, run.preprocessing)


def about(run: Run, format: str, int8: bool) -> dict:
    """What `serving.json` says of a format: the file, its tensors, and what comes before it."""
    height, width, channels = run.preprocessing.image_shape
    dim = run.model.extractor("features").output.shape[-1]
    return {
        "format": format,
        "file": FORMATS[format].FILE,
        "precision": "int8 fully connected layers, the rest float32" if int8 else "float32",
        "runtime": FORMATS[format].RUNTIME,
        "inputs": {"images": {"dtype": "float32", "shape": ["batch", height, width, channels]}},
        "outputs": {
            "probabilities": {"dtype": "float32", "shape": ["batch", len(run.class_names)]},
            "reject": {"dtype": "int32", "shape": ["batch"]},
            "features": {"dtype": "float32", "shape": ["batch", dim]},
        },
        "preprocessing": preprocessing_steps(run.preprocessing),
    }


def preprocessing_steps(preprocessing: Preprocessing) -> list[str]:
    """How an image file becomes one of `images`, for who programs it elsewhere.

    Pillow's `resize` with `BILINEAR` of pixels in float32 is the resize of training; OpenCV's has no
    antialiasing.
    """
    height, width, channels = preprocessing.image_shape
    resize = "bilinear with antialiasing, as Pillow's resize((w, h), BILINEAR) of a float32 image (mode F)"
    size = f"{height} x {width} (height x width)"
    return [
        "decode the first frame to 0..255, drop alpha",
        "to gray: 0.299 red + 0.587 green + 0.114 blue, not rounded; gray stays as it is"
        if channels == 1
        else "to red, green, blue in this order; gray is repeated",
        {
            "stretch": f"resize to {size}, {resize}",
            "crop": f"cut the largest central window in the ratio of {size}, resize it to that, {resize}",
            "pad": f"resize to what fits into {size} in the image's own ratio, {resize}; zeros around it",
        }[preprocessing.aspect],
        "float32 in 0..255, channels last: the scaling is in the model",
    ]
