"""Weights out: a `ViT` as files that timm or Hugging Face's transformers load."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import Literal, get_args

import keras
import numpy as np

from keras_vit.errors import InputError, first_line
from keras_vit.files import is_taken, work_folder, write_json
from keras_vit.locks import lock_beside, locked
from keras_vit.model.weights.families.huggingface_export import to_huggingface
from keras_vit.model.weights.families.timm_export import to_timm
from keras_vit.model.weights.images import Images
from keras_vit.model.weights.weights import Interpolation

Format = Literal["timm", "huggingface"]
FORMATS: tuple[Format, ...] = get_args(Format)

HALF = (0.5,)


def export_weights(
    model: keras.Model,
    path: str | Path,
    format: Format,
    *,
    class_names: Sequence[str] | None = None,
    mean: Sequence[float] | None = None,
    std: Sequence[float] | None = None,
    interpolation: Interpolation = "bilinear",
    aspect: Literal["stretch", "crop", "pad"] = "stretch",
    licence: str | None = None,
) -> Path:
    """Writes a folder that another library loads, and that `ViT.from_pretrained` reads too.

    `"timm"` is for `timm.create_model("local-dir:PATH", pretrained=True)`; `"huggingface"` for
    `AutoModelForImageClassification.from_pretrained(PATH)` and `AutoImageProcessor.from_pretrained(PATH)` of
    transformers 4 and 5, or `AutoModel` where the model has no head. Where the library lacks an option of the
    model, the weights are converted so that it computes the same.

    Args:
        model: any `ViT`.
        path: of the new folder.
        format: `"timm"` or `"huggingface"`.
        class_names: of the head, in order.
        mean: of pixels in 0..1, subtracted before the model: one number, or one for each channel; `None`
            means 0.5.
        std: that the pixels are then divided by; `None` means 0.5.
        interpolation: how images are resized for the model.
        aspect: what happens to images of another aspect ratio, as in `keras_vit.data.preprocess`.
        licence: of the weights, as an SPDX name.

    Returns:
        The folder.

    Raises:
        InputError: there is such a folder, it cannot be written, or the library has no place for an option
            of the model. Nothing is written then.
    """
    path = Path(path)
    if format not in FORMATS:
        raise InputError(
            f"format must be one of {', '.join(map(repr, FORMATS))}. Received: format={format!r}"
        )
    if is_taken(path):
        raise InputError(f"{path} exists: choose another folder.")
    config = model.config
    if class_names and len(class_names) != config.num_classes:
        raise InputError(
            f"class_names must be {config.num_classes}, one for each class. Received: {len(class_names)}"
        )
    channels = config.image_shape[2]
    images = Images(
        mean=_for_each_channel("mean", mean, channels),
        std=_for_each_channel("std", std, channels),
        interpolation=interpolation,
        aspect=aspect,
        class_names=tuple(class_names) if class_names else None,
        licence=licence,
    )
    texts, arrays = {}, _arrays(model)
    if format == "timm":
        tensors, texts["config.json"] = to_timm(config, arrays, images)
    else:
        tensors, texts["config.json"], processor = to_huggingface(config, arrays, images)
        texts["preprocessor_config.json"] = processor
    _write(path, tensors, texts, licence)
    return path


def _for_each_channel(name: str, numbers: Sequence[float] | None, channels: int) -> tuple[float, ...]:
    given = tuple(float(x) for x in np.atleast_1d(HALF if numbers is None else numbers))
    if len(given) not in (1, channels):
        raise InputError(
            f"{name} must be one number, or {channels}, one for each channel. Received: {name}={given}"
        )
    return given * channels if len(given) == 1 else given


def _arrays(model: keras.Model) -> dict[str, np.ndarray]:
    """The weights by path, float32."""
    arrays = {}
    for weight in model.weights:
        path = weight.path.removeprefix(f"{model.name}/")
        if "seed_generator" not in path:
            arrays[path] = np.asarray(keras.ops.convert_to_numpy(weight), "float32")
    return arrays


def _write(path: Path, tensors: dict[str, np.ndarray], texts: dict[str, dict], licence: str | None) -> None:
    """Writes the folder whole or not at all."""
    from safetensors import SafetensorError
    from safetensors.numpy import save_file

    path = path if path.name else path.absolute()
    hidden = f".{path.name}"  # no library takes it for weights while it is written
    with locked(lock_beside(path), f"Another command writes {path}", "folder") as lock:
        if is_taken(path):
            raise InputError(f"{path} exists: choose another folder.")
        lock.clear(path.parent, hidden)
        try:
            with work_folder(path.parent, hidden) as new:
                for name, content in texts.items():
                    write_json(new / name, content)
                # transformers 4 asks which library the tensors are of.
                metadata = {"format": "pt", **({"license": licence} if licence else {})}
                save_file(tensors, new / "model.safetensors", metadata)
                os.rename(new, path)
        except (OSError, SafetensorError) as error:
            reason = error.strerror if isinstance(error, OSError) else first_line(error)
            raise InputError(f"{path} cannot be written ({reason}): choose another folder.") from error
