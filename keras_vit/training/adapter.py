"""The file of a LoRA run that holds only what was trained: the additions and the head.

A safetensors file. Its tensors have the paths of the weights in the model, such as
`block_0/attention/qkv/lora_kernel_a`. Its metadata says which weights it was trained on.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import numpy as np
from pydantic import Field
from safetensors import SafetensorError, safe_open
from safetensors.numpy import save

from keras_vit.errors import InputError
from keras_vit.files import require_regular, whole_file
from keras_vit.model.arguments import without_parts
from keras_vit.model.config import ViTConfig
from keras_vit.model.keras_file import check_size
from keras_vit.model.vit import ViT
from keras_vit.training.lora import A, B, lora_layers, merged, scale, values_by_path
from keras_vit.training.unfreezing import HEAD
from keras_vit.validation import check_plain

FORMAT = "keras_vit.lora.1"
OF_LAYERS = ("name", "dtype", "trainable")  # in the config of every layer of Keras
FIX = "restore it, or train the run again"
UNKNOWN = (KeyError, ValueError, TypeError, AttributeError, RecursionError)

OWN_FIELDS = (
    "num_classes",
    "pooling",
    "class_token",
    "final_norm",
    "head_hidden_dim",
    "head_activation",
    "dropout_rate",
    "attention_dropout_rate",
    "drop_path_rate",
    "remat",
)
"""Arguments of `ViTConfig` that an adapter brings itself: those of the head and of training.

The tokens and the norm follow from the pooling; whether the base has them, its hash tells."""


def save_adapter(model: ViT, path: Path) -> None:
    """Writes the additions and the head of a ViT with LoRA, whole or not at all.

    Args:
        model: a `ViT` that `choose_trained` or `enable_lora` gave additions.
        path: of the file.

    Raises:
        ValueError: the model has no additions.
    """
    layers = lora_layers(model)
    if not layers:
        raise ValueError("model has no LoRA additions: train it with tune='lora'.")
    values = values_by_path(model)
    first = next(iter(layers.values()))
    metadata = {
        "format": FORMAT,
        "rank": str(first.lora_rank),
        "alpha": str(first.lora_alpha),
        "scales": json.dumps({name: scale(layer) for name, layer in layers.items()}),
        "base_sha256": _sha256_of_base(values),
        "vit_config": json.dumps(without_parts(model.get_config())),
    }
    tensors = {name: np.ascontiguousarray(value) for name, value in values.items() if _is_own(name)}
    with whole_file(path, "wb") as file:
        file.write(save(tensors, metadata))


def load_adapter(vit: ViT, path: Path) -> ViT:
    """The model of a LoRA run: a new, plain ViT of the base weights with the additions merged in.

    Args:
        vit: the base, with the weights that the run began with. Its head, if it has one, does not matter.
        path: of the file that `save_adapter` wrote.

    Raises:
        InputError: the file cannot be read, is no adapter, or was trained on other weights.

    Example:
        >>> base = ViT.from_pretrained("vit_tiny_patch16_224.safetensors", num_classes=0)
        >>> model = load_adapter(base, Path("runs/first/adapter.safetensors"))
    """
    tensors, metadata = _read(path)
    try:
        config = json.loads(metadata["vit_config"])
        scales = json.loads(metadata["scales"])
        check_plain(dict[str, Annotated[float, Field(gt=0.0, allow_inf_nan=False)]], scales)
        claimed = ViTConfig(**{name: value for name, value in config.items() if name not in OF_LAYERS})
        wanted = metadata["base_sha256"]
    except UNKNOWN as error:
        raise _unknown(path, error) from error
    _check_base(vit, claimed, wanted, path)
    values = {**_base(values_by_path(vit)), **tensors}
    check_size(path, claimed, len(values), sum(value.size for value in values.values()))  # before it is built
    try:
        model = ViT.from_config({**config, "name": vit.name, "dtype": vit.get_config()["dtype"]})
    except UNKNOWN as error:
        raise _unknown(path, error) from error
    _check_tensors(model, values, scales, path)
    values = merged(values, scales)
    for weight in model.weights:
        weight.assign(values[weight.path])
    return model


def _read(path: Path) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """The tensors and the metadata of a file.

    Raises:
        InputError: the file cannot be read, or is no adapter.
    """
    try:
        require_regular(path)
        with safe_open(path, framework="numpy") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except FileNotFoundError:
        raise InputError(f"There is no file {path}: give the adapter.safetensors of a run.") from None
    except (OSError, SafetensorError) as error:
        reason = getattr(error, "strerror", None) or error
        raise InputError(f"{path} cannot be read as safetensors ({reason}): {FIX}.") from error
    if metadata.get("format") != FORMAT:
        raise InputError(f"{path} is not an adapter of keras_vit: give the adapter.safetensors of a run.")
    return tensors, metadata


def _unknown(path: Path, error: Exception) -> InputError:
    return InputError(f"{path} is not an adapter that this version reads ({error}): train the run again.")


def _check_base(vit: ViT, claimed: ViTConfig, sha256: str, path: Path) -> None:
    """Raises InputError if the adapter's model stands on another base."""
    for field in dataclasses.fields(ViTConfig):  # type: ignore[arg-type]
        ours, theirs = getattr(vit.config, field.name), getattr(claimed, field.name)
        if field.name not in OWN_FIELDS and ours != theirs:
            raise InputError(
                f"{path} is for a ViT with {field.name}={theirs!r}: load the weights that it was trained on. "
                f"Received: {field.name}={ours!r}"
            )
    found = _sha256_of_base(values_by_path(vit))
    if found != sha256:
        raise InputError(
            f"{path} was trained on other weights, of sha256 {sha256[:12]}...: load these. "
            f"Received: weights of {found[:12]}..."
        )


def _check_tensors(
    model: ViT, values: Mapping[str, np.ndarray], scales: Mapping[str, float], path: Path
) -> None:
    """Raises InputError if weights are missing or of another shape than in the model."""
    shapes = {weight.path: tuple(weight.shape) for weight in model.weights}
    strange = [name for name in scales if f"{name}/kernel" not in shapes]
    if strange:
        raise InputError(f"{path} is damaged, it has additions to an unknown {min(strange)}: {FIX}.")
    factors = {f"{name}/{factor}" for name in scales for factor in (A, B)}
    missing = (shapes.keys() | factors) - values.keys()
    if missing:
        raise InputError(f"{path} is damaged, it lacks {min(missing)}: {FIX}.")
    unknown = values.keys() - shapes.keys() - factors
    if unknown:
        raise InputError(f"{path} is damaged, it has an unknown {min(unknown)}: {FIX}.")
    broken = [name for name, value in values.items() if not np.isfinite(value).all()]
    if broken:
        raise InputError(f"{path} is damaged, {min(broken)} is not finite: {FIX}.")
    for name, shape in shapes.items():
        if values[name].shape != shape:
            raise InputError(
                f"{path} is damaged, {name} should be {shape}: {FIX}. Received: {values[name].shape}"
            )
    for name in scales:
        (rows, columns), a, b = shapes[f"{name}/kernel"], values[f"{name}/{A}"], values[f"{name}/{B}"]
        if a.ndim != 2 or a.shape[0] != rows or b.shape != (a.shape[1], columns):
            raise InputError(
                f"{path} is damaged, {name}/{A} does not fit {B} and a kernel of {(rows, columns)}: {FIX}. "
                f"Received: {a.shape} and {b.shape}"
            )


def _sha256_of_base(values: Mapping[str, np.ndarray]) -> str:
    """Of the names, shapes and float32 bytes of the weights that an adapter does not hold."""
    digest = hashlib.sha256()
    for name, value in sorted(_base(values).items()):
        digest.update(f"{name} {value.shape}\n".encode())
        digest.update(np.ascontiguousarray(value, dtype="<f4").tobytes())
    return digest.hexdigest()


def _base(values: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in values.items() if not _is_own(name)}


def _is_own(name: str) -> bool:
    """Whether a weight, by its path, is one that an adapter holds."""
    layer, _, _ = name.partition("/")
    return layer in HEAD or name.rpartition("/")[2] in (A, B)
