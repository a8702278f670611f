"""A run as a file of another format, which is compared with Keras before it gets its final name."""

import importlib.util
import os
import tempfile
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np

from keras_vit.data.image_set import ImageSet, evenly
from keras_vit.data.pipeline import read_pixels
from keras_vit.data.preprocess import Preprocessing
from keras_vit.errors import InputError
from keras_vit.runs.folder import Run
from keras_vit.serving.comparison import Comparison
from keras_vit.serving.formats import to_litert, to_onnx, to_openvino
from keras_vit.serving.formats.check import FLOAT32, INT8, compare
from keras_vit.serving.formats.portable import PortableGraph
from keras_vit.serving.serving_json import write_serving_json
from keras_vit.serving.version_folder import clear_errors

FORMATS: dict[str, ModuleType] = {"onnx": to_onnx, "litert": to_litert, "openvino": to_openvino}
REPRESENTATIVE_IMAGES = 200
RESIZES = {
    "bilinear": "bilinear, antialiased, as Pillow's resize((w, h), BILINEAR) of a float32 image (mode F)",
    "bicubic": "bicubic, antialiased, as Pillow's resize((w, h), BICUBIC) of an 8-bit image (mode L or RGB)",
}


def write_format(
    run: Run,
    folder: Path,
    format: str,
    images: ImageSet,
    training_images: ImageSet | None = None,
    flips: bool = False,
) -> Comparison:
    """Writes the model of a run as ONNX, LiteRT or OpenVINO IR; its input are pixels of the model's size.

    Next to the model it writes `labels.txt`, one class per line, and `serving.json`: how an image is prepared
    for the model, what the model answers, and how much it differed from Keras. All numbers are float32,
    whatever precision the run was trained in.

    Args:
        run: a finished run, with Keras on the TensorFlow backend.
        folder: an empty folder. If this fails, it stays empty.
        format: `"onnx"`, `"litert"` or `"openvino"`.
        images: readable images to compare on, one or more.
        training_images: of the run. 200 of them set the ranges of the fully connected layers, which are then
            quantised to 8 bits; LiteRT only. `None` quantises nothing.
        flips: as of `answer_model`.

    Raises:
        InputError: a package is missing, the model cannot be written in this format, or the file's answers
            differ from those of Keras.
        OSError: the disk is full.
    """
    writer = FORMATS[format]
    require_packages(format)
    graph = PortableGraph(run, flips)
    int8 = training_images is not None
    representative = None
    if training_images is not None:
        representative = representative_pixels(training_images, run.preprocessing)
    prepared = read_pixels(images.images, run.preprocessing)
    tolerance = INT8 if int8 else FLOAT32
    with tempfile.TemporaryDirectory(prefix=".writing-", dir=folder) as temporary:
        new = Path(temporary)
        with clear_errors(
            f"The model cannot be written as {format}", folder, "--format savedmodel takes every model"
        ):
            writer.convert(graph, new, representative)
            answer = writer.load(new)
            found = compare(graph.expected(prepared), answer, prepared, tolerance, writer.EMPTY_BATCH)
        write_serving_json(new, run, found, about(run, format, int8), flips)
        for path in new.iterdir():
            if path.is_file():
                os.replace(path, folder / path.name)
    return found


def require_packages(format: str) -> None:
    """Raises InputError if a package that writes or runs a format is missing."""
    missing = [name for name in FORMATS[format].PACKAGES if importlib.util.find_spec(name) is None]
    if missing:
        raise InputError(
            f'--format {format} needs {", ".join(missing)}: pip install "keras-vit-defects[formats]".'
        )


def representative_pixels(images: ImageSet, preprocessing: Preprocessing) -> np.ndarray:
    """At most 200 images, evenly from all: float32 (n, height, width, channels) in 0..255."""
    return read_pixels(images.take(evenly(len(images), REPRESENTATIVE_IMAGES)).images, preprocessing)


def about(run: Run, format: str, int8: bool) -> dict[str, Any]:
    """The part of `serving.json` on a format: its file, its tensors, and how images are prepared."""
    height, width, channels = run.preprocessing.image_shape
    dim = run.model.extractor("features").output.shape[-1]
    set_outputs: dict[str, Any] = {}
    if run.prediction_sets is not None:
        set_outputs = {
            "prediction_set": {"dtype": "int32", "shape": ["batch", len(run.class_names)]},
            "refer": {"dtype": "int32", "shape": ["batch"]},
        }
    label_outputs = {}
    if run.several:
        label_outputs = {
            "labels": {"dtype": "int32", "shape": ["batch", len(run.class_names)]},
            "thresholds": {"dtype": "float32", "shape": ["batch", len(run.class_names)]},
        }
    if run.rule is not None:
        set_outputs["label"] = {"dtype": "int32", "shape": ["batch"], "number_in": "class_names"}
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
            **set_outputs,
            **label_outputs,
        },
        "preprocessing": preprocessing_steps(run.preprocessing),
    }


def pixel_steps(preprocessing: Preprocessing) -> list[str]:
    """The first steps of `preprocessing_steps`: from a file to what a viewer shows."""
    decode = "decode the first frame to 0..255; divide values of 16 bits by 257"
    if preprocessing.pixel_range is not None:
        pairs = list(zip(preprocessing.pixel_range[0::2], preprocessing.pixel_range[1::2], strict=True))
        each = "; ".join(
            f"{f'channel {i}: ' if len(pairs) > 1 else ''}(value - {low:g}) * 255 / ({high:g} - {low:g})"
            for i, (low, high) in enumerate(pairs, 1)
        )
        pages = "all pages as channels" if preprocessing.tiff_page == "channels" else "of the first frame"
        decode = (
            "decode the values in the units of the file (of DICOM those of its rescale slope and intercept), "
            f"{pages}; {each}; clipped to 0..255; 255 minus that where the lowest value is white"
        )
    turn = "turn and mirror it as its Exif orientation (tag 274) says"
    compose = "drop alpha"
    if preprocessing.background is not None:
        levels = " ".join(map(str, preprocessing.background))
        compose = f"where it has alpha in 0..1: color * alpha + background * (1 - alpha), background {levels}"
    return [decode, turn if preprocessing.exif_orientation else "do not turn it by its Exif data", compose]


def preprocessing_steps(preprocessing: Preprocessing) -> list[str]:
    """How an image file is prepared for the input `images`, for programs in any language.

    Pillow's `resize` with `BILINEAR` of float32 pixels equals the resize of training; so does its `BICUBIC`
    of 8-bit pixels, but for at most 5 values in 1000. OpenCV's has no antialiasing.
    """
    height, width, channels = preprocessing.image_shape
    resize = RESIZES[preprocessing.interpolation]
    rounded = "rounded" if preprocessing.interpolation == "bicubic" else "not rounded"
    size = f"{height} x {width} (height x width)"
    return [
        *pixel_steps(preprocessing),
        f"to gray: 0.299 red + 0.587 green + 0.114 blue, {rounded}; gray stays as it is"
        if channels == 1
        else "to red, green, blue in this order; gray is repeated"
        if channels == 3
        else f"the {channels} channels as they are stored",
        {
            "stretch": f"resize to {size}, {resize}",
            "crop": f"cut the largest central window in the ratio of {size}, resize it to that, {resize}",
            "pad": f"resize to what fits into {size} in the image's own ratio, {resize}; zeros around it",
        }[preprocessing.aspect],
        "float32 in 0..255, channels last: the scaling by mean and std is in the model",
    ]
