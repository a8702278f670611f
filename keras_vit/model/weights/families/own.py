"""Weights of this package: a run folder, whose `config.json` tells the images too, or a `.keras` file.

The file is read without Keras. Keras names the layers in it by their classes and by the attributes that hold
them; the paths of the weights have the names of the layers.
"""

import dataclasses
import math
import re
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_vit.errors import InputError
from keras_vit.model.arguments import PARTS
from keras_vit.model.config import ViTConfig
from keras_vit.model.weights.checkpoint import Checkpoint
from keras_vit.model.weights.families.checks import check_arguments, preprocessing
from keras_vit.model.weights.folder import CONFIG, RUN_MODEL
from keras_vit.model.weights.rules import some
from keras_vit.model.weights.told import Told
from keras_vit.model.weights.weights import Weights
from keras_vit.sealed import FILES, check_file, check_seal, sha256_of
from keras_vit.validation import Record, check_plain

FAMILY = "keras_vit"
RESTORE = "restore the files of the run, or train it again"
EARLIER = "an earlier version trained the run: whether its files belong together cannot be checked"

REGISTERED = "keras_vit>ViT"
VARIABLE = re.compile(r"layers/(.+)/vars/(\d+)")
LAYERS = {
    "patch_embed": "patch_embed",
    "add_cls": "add_cls",
    "position_embedding": "position_embedding",
    "attention_pool": "pool",
}
"""Class of a layer of the model -> its name, for those that stand once in it."""
ATTRIBUTES = {"norm_before": "patch_norm", "norm_after": "embedding_norm"}
"""Attribute of a layer -> name of the layer that it holds, where they are not the same."""
ALONE = {"add_cls": "tokens", "position_embedding": "table", "pool": "probe"}
NORM = ("gamma", "beta")
BATCH_NORM = (*NORM, "moving_mean", "moving_variance")
DENSE = ("kernel", "bias")


class _Data(Record):
    class_names: list[str]


class _Began(Record):
    source: str | None = None
    licence: str | None = None


class _Run(Record):
    """What of the `config.json` of a run is read here; `keras_vit.runs.schema` has all of it."""

    data: _Data | None = None
    weights: _Began | None = None
    preprocessing: dict[str, Any] | None = None


def recognises(checkpoint: Checkpoint) -> bool:
    """Whether a file is a saved `ViT` of this package."""
    return (checkpoint.config or {}).get("registered_name") == REGISTERED


def read(checkpoint: Checkpoint, arguments: Mapping[str, Any]) -> Weights:
    """The weights of a run or of a saved `ViT`.

    Args:
        checkpoint: with the config of the `.keras` file, and under `"run"` the config of the run.
        arguments: `mean`, `std` and `interpolation` of a model without a run; by default those of models
            that were trained from scratch: pixels in [-1, 1], resized bilinearly.

    Raises:
        InputError: the file is damaged, of a later version, or of another run than the config beside it.
    """
    what = checkpoint.origin.source
    saved = dict(checkpoint.config or {})
    run = saved.get("run") or {}
    notes = [*checkpoint.notes, *_check_run(run, checkpoint.origin.files)]
    made = _config(saved.get("config") or {}, what)
    if made.depth > len(checkpoint.tensors):  # before anything is done per block
        raise InputError(
            f"{what} claims {made.depth:,} blocks and has {len(checkpoint.tensors)} tensors: the file is "
            "incomplete."
        )
    check_arguments(arguments, made, what)
    told = Told(arguments, _settings(run, made), {}, what)
    scaling = preprocessing(told, made.image_shape[2], "bilinear", {"mean": 0.5, "std": 0.5})
    if not run:
        notes.append(
            "there is no run beside the file: pixels are taken to be in [-1, 1] unless told otherwise"
        )
    began = run.get("weights") or {}
    origin = checkpoint.origin
    if began:
        notes.append(f"the run began with {began.get('source')}")
        origin = dataclasses.replace(origin, licence=origin.licence or began.get("licence"))
    arrays, unused = _arrays(checkpoint.tensors, made)
    _check_whole(arrays, made, what)
    names = (run.get("data") or {}).get("class_names")
    return Weights(
        family=FAMILY,
        config=made,
        arrays=arrays,
        origin=origin,
        class_names=tuple(names) if names and len(names) == made.num_classes else None,
        unused=unused,
        told_by=dict(told.by),
        notes=tuple(notes),
        **scaling,
    )


def _check_run(run: Mapping[str, Any], files: Iterable[Path]) -> list[str]:
    """Checks the config of the run beside the weights, and that they belong to it.

    Returns:
        A line if that cannot be checked.

    Raises:
        InputError: the config is damaged, a file has changed since it was written, or is of another run.
    """
    if not run:
        return []
    sealed = False
    for path in files:
        config = path.parent / CONFIG
        try:
            check_plain(_Run, run)
        except InputError as error:
            raise InputError(f"{config} is damaged ({str(error).rstrip('.')}): {RESTORE}.") from error
        sealed = check_seal(config, run, RESTORE)
        check_file(path, run, RESTORE)
        of_run = run.get(FILES, {}).get(RUN_MODEL)
        if path.name not in run.get(FILES, {}) and of_run not in (None, sha256_of(path)):
            raise InputError(
                f"{path} is not the model of the run that {CONFIG} beside it tells of: give {RUN_MODEL}, or "
                "move the file to another folder."
            )
    return [] if sealed else [EARLIER]


def _config(saved: Mapping[str, Any], what: str) -> ViTConfig:
    fields = {field.name for field in dataclasses.fields(ViTConfig)}  # type: ignore[arg-type]
    unknown = saved.keys() - fields - {"name", "dtype", "trainable", PARTS}
    if unknown:
        raise InputError(
            f"{what} was saved by a later version of keras_vit ({some(sorted(unknown))}): install that one."
        )
    parts = saved.get(PARTS)
    if isinstance(parts, Mapping) and any("quantization" in state for state in parts.values()):
        raise InputError(f"{what} is a quantized model: give the model that it was before quantize().")
    try:
        return ViTConfig(**{key: value for key, value in saved.items() if key in fields})
    except TypeError as error:
        raise InputError(f"{what} has a damaged config ({error}).") from error


def _settings(run: Mapping[str, Any], config: ViTConfig) -> dict[str, Any]:
    """How images become the input of the model: runs of earlier versions have pixels in [-1, 1]."""
    if not run:
        return {}
    record = run.get("preprocessing") or {}
    half = (0.5,) * config.image_shape[2]
    return {
        "mean": record.get("mean") or half,
        "std": record.get("std") or half,
        "interpolation": record.get("interpolation", "bilinear"),
    }


def _arrays(
    tensors: Mapping[str, np.ndarray], config: ViTConfig
) -> tuple[dict[str, np.ndarray], tuple[str, ...]]:
    """Arrays by the path of the weight, and what else is in the file: the optimizer, random seeds."""
    arrays, unused = {}, []
    for name, tensor in tensors.items():
        match = VARIABLE.fullmatch(name)
        path = _path(match[1], int(match[2]), config) if match else None
        if path is None or tensor.dtype.kind != "f":
            unused.append(name)
        else:
            arrays[path] = tensor
    return arrays, tuple(unused)


def _path(place: str, number: int, config: ViTConfig) -> str | None:
    """The path of a weight from where it stands in the file."""
    first, *others = place.split("/")
    match = re.fullmatch(r"(.*?)(?:_(\d+))?", first)
    kind, index = (match[1], int(match[2] or 0)) if match else (first, 0)
    in_order = {
        "encoder_block": [f"block_{i}" for i in range(config.depth)],
        "layer_normalization": ["pre_norm"] * config.pre_norm + ["norm"],
        "dense": ["head_hidden"] * bool(config.head_hidden_dim) + ["head"],
    }.get(kind, [LAYERS[first]] if first in LAYERS else [])
    if index >= len(in_order):
        return None
    layer = in_order[index]
    parts = [layer, *(ATTRIBUTES.get(part, part) for part in others)]
    if len(others) == 2 and others[0] in ("convolutions", "norms"):  # of the conv stem, in lists
        name = {"convolutions": "conv", "norms": "batch_norm"}[others[0]]
        number_in_list = re.search(r"_(\d+)$", others[1].replace("conv2d", "conv"))
        parts = [layer, f"{name}_{number_in_list[1] if number_in_list else 0}"]
    last = parts[-1]
    if kind == "encoder_block" and not others:  # version 0.1.0 had the scales in the block itself
        return f"{layer}/{('attention', 'mlp')[number]}_scale/scale" if number < 2 else None
    if last in ALONE and len(parts) == 1:
        names: tuple[str, ...] = (ALONE[last],)
    elif last.startswith("batch_norm"):
        names = BATCH_NORM
    elif last.endswith("_scale"):
        names = ("scale",)
    else:
        names = NORM if last.endswith("norm") else DENSE
    return "/".join([*parts, names[number]]) if number < len(names) else None


def _check_whole(arrays: Mapping[str, np.ndarray], config: ViTConfig, what: str) -> None:
    """Raises InputError if blocks, the embedding or the head are missing; shapes are checked by the model."""
    needed = ["patch_embed/projection/kernel"] if config.stem == "linear" else ["patch_embed/conv_0/kernel"]
    needed += [f"block_{i}/attention/qkv/kernel" for i in range(config.depth)]
    needed += ["head/kernel", "head/bias"] if config.num_classes else []
    missing = [path for path in needed if path not in arrays]
    if missing:
        raise InputError(f"{what} lacks {some(missing)}: the file is incomplete.")
    kernel = arrays["block_0/attention/qkv/kernel"]
    if math.prod(kernel.shape) != config.dim * 3 * config.num_heads * (
        config.head_dim or config.dim // config.num_heads
    ):
        raise InputError(f"{what} has attention of shape {kernel.shape}, which its config contradicts.")
