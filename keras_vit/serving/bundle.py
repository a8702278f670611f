"""export(): writes the model of a run in the form that a server or another runtime takes."""

import json
import os
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.metadata import version as version_of
from pathlib import Path
from typing import get_args

import numpy as np

from keras_vit.data.image_set import ImageSet, evenly
from keras_vit.data.pipeline import read_pixels
from keras_vit.data.values import is_measured
from keras_vit.errors import InputError, ProcessFailed
from keras_vit.files import write_text
from keras_vit.locks import locked
from keras_vit.process.children import run_command
from keras_vit.process.exit_codes import WRONG_USAGE
from keras_vit.runs.ensemble import Ensemble, one_run
from keras_vit.runs.folder import Run
from keras_vit.runs.judged_images import images_to_judge, own_images
from keras_vit.runs.wanted import Costs, MinRecall, words_of
from keras_vit.serving import Format
from keras_vit.serving.comparison import Comparison
from keras_vit.serving.model_card import model_card
from keras_vit.serving.saved_model import compare_saved_model, png_of_pixels, write_saved_model
from keras_vit.serving.sent import VALUES
from keras_vit.serving.server_files import MODELS, add_model, batching_config, compose_file, read_models
from keras_vit.serving.serving_json import write_serving_json
from keras_vit.serving.version_folder import SAVED_MODEL, check_name, check_version, new_version, versions_of
from keras_vit.serving.warmup import require_serving_api, write_warmup
from keras_vit.text import say

QUANTISED_BY = {"onnx": "onnxruntime.quantization", "openvino": "NNCF"}
"""What makes an int8 file of the float32 file of a format."""

WEIGHTS = ("timm", "huggingface")
"""Formats of weights, which other libraries load into models of their own."""

COMPARED_IMAGES = 360
WAIT_SECONDS = 60.0  # for another export that writes the server's files, which takes milliseconds
CARD = "model_card.md"
FILES = (
    "JPEG, PNG, BMP with 8, 24 or 32 bits per pixel, GIF and WebP; keras-vit request decodes others, such as "
    "TIFF and DICOM"
)
PIXELS_ONLY = "none: send pixels to images, or values to values, with {channels} channels of measurement"
"""What the bundle decodes."""


@dataclass(frozen=True)
class Exported:
    """What an export left.

    Args:
        path: the folder of the version.
        comparison: of the exported model with the Keras model.
    """

    path: Path
    comparison: Comparison


def export(
    run: Run | Ensemble | str | Path,
    to: str | Path,
    *,
    name: str | None = None,
    version: int | None = None,
    format: Format = "savedmodel",
    int8: bool = False,
    flips: bool = False,
    data: str | None = None,
    accept_risk: float | None = None,
    fold: int | None = None,
    min_recall: MinRecall = None,
    costs: Costs = None,
) -> Exported:
    """Writes the model of a run in the form that a server or another runtime takes.

    The export is compared with the Keras model on at most 360 of the run's test images before it gets its
    final name. Whatever backend trained the run, a process with Keras on TensorFlow exports it.

    Args:
        run: a run or its folder; of several, `fold` says which one.
        to: the folder of all models; the export is `to/name/VERSION`.
        name: of the model; `None` means `"vit"`, or `"vit-FORMAT"` for a format other than a SavedModel.
        version: 1 or more; `None` takes the one after the newest.
        format: `"savedmodel"` for TensorFlow Serving, with its configuration files; `"onnx"`, `"litert"` or
            `"openvino"`, whose input are pixels of the model's size; `"timm"` or `"huggingface"`, the weights
            as these libraries load them.
        int8: whether the fully connected layers are quantised to 8 bits; LiteRT only.
        flips: whether the exported model answers with the mean over each image and its three mirror images,
            which takes four times as long: see `keras_vit.runs.answer.answer_model`.
        data: other images to compare on, as `load_image_set` takes them, if the run's own are gone.
        accept_risk: at most this fraction of the images that are not referred to a person may have a wrong
            label, on average; `None` for what the run was trained with.
        fold: number of the fold to export, where `run` is what `keras_vit.train(folds=...)` returned, or its
            folder.
        min_recall, costs: which class is named, see `Run.deciding`; `None` for what the run was trained with.

    Raises:
        InputError: the run, the images or the target cannot be used, or the answers of the export differ from
            those of Keras; nothing is left behind.

    Example:
        >>> keras_vit.export("runs/first", "models").path
        PosixPath('models/vit/1')
    """
    import keras

    if format not in get_args(Format):
        allowed = ", ".join(map(repr, get_args(Format)))
        raise InputError(f"format must be one of {allowed}. Received: format={format!r}")
    if int8 and format != "litert":
        way = f", or quantise its file with {QUANTISED_BY[format]}" if format in QUANTISED_BY else ""
        raise InputError(f"--int8 is for litert: leave it out of --format {format}{way}.")
    if name is None:
        name = "vit" if format == "savedmodel" else f"vit-{format}"
    check_name(name)
    check_version(Path(to) / name, version)
    if flips and format in WEIGHTS:
        raise InputError(f"--flips-at-test is for models that answer: leave it out of --format {format}.")
    run = one_run(run, fold).deciding(min_recall, costs).accepting(accept_risk)
    if keras.backend.backend() != "tensorflow":
        asked = words_of(run.wanted, costs)
        return _export_with_tensorflow(run, to, name, version, format, int8, flips, data, asked)
    with new_version(Path(to), name, version) as new:
        if format == "savedmodel":
            require_serving_api()
            read_models(Path(to) / MODELS)  # an error in it is raised before the work, not after it
        _refuse_mixture(Path(to) / name, format)
        images, training_images = _read_images(run, data, int8)
        images = images.take(evenly(len(images), COMPARED_IMAGES))
        if format == "savedmodel":
            comparison = write_bundle(run, new.folder, name, images, flips)
        elif format == "timm" or format == "huggingface":  # not `in`, which mypy does not follow
            from keras_vit.serving.weights import write_weights

            comparison = write_weights(run, new.folder, format, images)
        else:
            from keras_vit.serving.formats import write_format

            comparison = write_format(run, new.folder, format, images, training_images, flips)
        write_text(new.folder / CARD, model_card(run, format, comparison, flips))
        if format == "savedmodel":
            write_server_files(Path(to), name)
    return Exported(new.path, comparison)


def _read_images(run: Run, data: str | None, int8: bool) -> tuple[ImageSet, ImageSet | None]:
    """The images to compare on, and the training images, which only int8 needs."""
    own = own_images(run) if data is None or int8 else None
    train = own.train if own and int8 else None
    if data is not None:
        return images_to_judge(run, data), train
    assert own is not None
    parts = ("test", "train") if int8 else ("test",)
    say(*own.notes(*parts))
    return own.test, train


def write_bundle(run: Run, folder: Path, name: str, images: ImageSet, flips: bool = False) -> Comparison:
    """Writes the SavedModel of a run with its extra assets: what TensorFlow Serving loads as a version."""
    from keras_vit.serving.decoding import MAX_PIXELS

    write_saved_model(run, folder, flips)
    comparison = compare_saved_model(run, folder, images, flips)
    extra = folder / "assets.extra"
    extra.mkdir()
    channels = run.preprocessing.image_shape[2]
    files = PIXELS_ONLY.format(channels=channels) if is_measured(channels) else FILES
    write_serving_json(extra, run, comparison, {"max_pixels": MAX_PIXELS, "files": files}, flips)
    write_warmup(extra, name, warmup_examples(run, images))
    return comparison


def warmup_examples(run: Run, images: ImageSet) -> dict[str, dict[str, np.ndarray]]:
    """One request per signature: a test image at the model's size."""
    prepared = read_pixels(images.images[:1], run.preprocessing)
    pixels = np.clip(np.rint(prepared), 0, 255).astype("uint8")
    small = png_of_pixels(pixels[0, ..., : 1 if pixels.shape[-1] == 2 else 3])
    if run.preprocessing.pixel_range is not None:  # a file with 8 bits is refused
        small = png_of_pixels(pixels[0, ..., :1].astype("uint16") * 257)
    file = np.array([small], dtype=object)
    of_values = {"values": prepared, "inverted": np.array([False])}
    return {
        **({VALUES: of_values} if run.preprocessing.pixel_range is not None else {}),
        "serving_default": {"image_bytes": file},
        "images": {"images": prepared},
        "images_uint8": {"images": pixels},
        "features": {"image_bytes": file},
    }


def write_server_files(models: Path, name: str) -> None:
    """Writes `models.config`, `batching.config` and `compose.yaml` next to the models.

    The model is added to the first. The others are written once, because an operator may change them.
    """
    image = f"tensorflow/serving:{version_of('tensorflow-serving-api')}"
    texts = {"batching.config": batching_config(), "compose.yaml": compose_file(name, image)}
    busy = f"Another export writes the server's files in {models}"
    # Exports of other models change the same file. The name is none that `lock_beside` gives.
    with locked(models / ".lock", busy, "--to", wait=WAIT_SECONDS) as lock:
        missing = [models / file for file in (*texts, MODELS) if not (models / file).exists()]
        for file in (*texts, MODELS):
            lock.clear(models, file)
        try:
            for file, text in texts.items():
                if models / file in missing:
                    write_text(models / file, text)
            add_model(models / MODELS, name)
        except BaseException:
            for path in missing:
                path.unlink(missing_ok=True)
            raise


def _refuse_mixture(folder: Path, format: str) -> None:
    """Raises InputError for another format: a server takes every version of a model for a SavedModel."""
    versions = versions_of(folder)
    if versions and (folder / str(versions[-1]) / SAVED_MODEL).is_file() != (format == "savedmodel"):
        raise InputError(f"{folder} holds models of another format: give another --name.")


def _export_with_tensorflow(
    run: Run,
    to: str | Path,
    name: str,
    version: int | None,
    format: Format,
    int8: bool,
    flips: bool,
    data: str | None,
    asked: Sequence[str],
) -> Exported:
    """Exports in a new process, because a process cannot change its backend."""
    words = [sys.executable, "-m", "keras_vit", "export", str(run.path), "--to", str(to), "--json"]
    words += ["--name", name, "--format", format, *(["--int8"] if int8 else [])]
    words += ["--flips-at-test"] if flips else []
    words += ["--version", str(version)] if version is not None else []
    words += ["--data", str(data)] if data is not None else []
    words += ["--accept-risk", repr(run.accept_risk)] if run.accept_risk is not None else []
    words += asked
    environment = {**os.environ, "KERAS_BACKEND": "tensorflow"}
    process = run_command(words, environment)
    told = process.stderr.splitlines()
    if process.returncode:
        begins = [i for i, line in enumerate(told) if line.startswith("keras-vit: ")] or [len(told)]
        say(*told[: begins[-1]])
        message = "\n".join(told[begins[-1] :]).removeprefix("keras-vit: ")
        kind = InputError if process.returncode == WRONG_USAGE else ProcessFailed
        raise kind(message or f"The export ended with the exit code {process.returncode}.")
    say(*told)  # as an export without a process of its own does
    answer = json.loads(process.stdout.strip().splitlines()[-1])
    return Exported(Path(answer["path"]), Comparison(**answer["comparison"]))
