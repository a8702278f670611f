"""Files of torch, read without running code; torch is imported for these only."""

import pickle
import re
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_vit.errors import InputError
from keras_vit.model.weights.contents import Contents, damaged
from keras_vit.model.weights.rules import some

KEYS = (
    "state_dict_ema",
    "model_ema",
    "teacher",
    "state_dict",
    "model",
    "model_state_dict",
    "module",
    "student",
)
"""Where the weights stand in a checkpoint of a training, the best first. As in timm, the moving average of
the weights (EMA) is preferred to the last ones; so is the teacher of DINO, which is one."""


def read_torch(path: Path) -> Contents:
    """Reads a file that `torch.save` wrote: a `state_dict`, or a checkpoint of a training that has one.

    Raises:
        InputError: torch is not installed; the file is damaged; it needs code to be read; or it holds no
            tensors by name.
    """
    notes: list[str] = []
    found = _tensors(path, _load(path), notes)
    return Contents({name: _array(path, name, tensor) for name, tensor in found.items()}, notes=tuple(notes))


def _load(path: Path) -> Any:
    try:
        import torch
    except ImportError:
        raise InputError(
            f"{path} is a file of torch, which is not installed: install the extra `torch`, or give the "
            "weights as .safetensors."
        ) from None
    import argparse

    try:
        # The options of a training often lie beside its weights, as a Namespace; it runs nothing.
        with torch.serialization.safe_globals([argparse.Namespace]):
            mmap = zipfile.is_zipfile(path)  # torch's earlier files cannot be mapped
            return torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except pickle.UnpicklingError as error:
        code = re.search(r"GLOBAL ([\w.]+)|Unsupported (?:class|global) ([\w.]+)", str(error))
        if code is None and "weights_only" not in str(error):
            raise damaged(path, error) from error
        what = f" ({code[1] or code[2]})" if code else ""
        raise InputError(
            f"{path} needs code to be read{what}, which could do anything and is not run: save its "
            "state_dict() alone, or give the weights as .safetensors."
        ) from error
    except MemoryError:
        raise
    except Exception as error:  # torch raises exceptions of many types for a damaged file
        raise damaged(path, error) from error


def _tensors(path: Path, loaded: Any, notes: list[str]) -> Mapping[str, Any]:
    """The weights in a checkpoint, and a line for what lies beside them."""
    if not isinstance(loaded, Mapping):
        raise InputError(
            f"{path} holds a {type(loaded).__name__}, not tensors by name: save the state_dict() of the "
            "model."
        )
    holders = [key for key, value in loaded.items() if isinstance(value, Mapping) and _has_tensors(value)]
    named = [key for key in KEYS if key in holders]
    own = {name: value for name, value in loaded.items() if _is_tensor(value) and isinstance(name, str)}
    if named or (len(holders) == 1 and not own):
        key = (named or holders)[0]
        others = [str(other) for other in loaded if other != key]
        if others:
            notes.append(f'the weights under "{key}" are used, and nothing else of the file: {some(others)}')
        return _tensors(path, loaded[key], notes)
    if own:
        others = [str(name) for name in loaded if name not in own]
        if others:
            notes.append(f"{some(others)} are not tensors and were left out")
        return own
    raise InputError(
        f"{path} holds no tensors by name (it has {some([str(key) for key in loaded]) or 'nothing'}): save "
        "the state_dict() of the model."
    )


def _has_tensors(value: Any, depth: int = 3) -> bool:
    """Whether tensors stand by name in a dict, or in a dict of it."""
    return any(
        (isinstance(key, str) and _is_tensor(one))
        or (depth > 0 and isinstance(one, Mapping) and _has_tensors(one, depth - 1))
        for key, one in value.items()
    )


def _is_tensor(value: Any) -> bool:
    import torch

    return isinstance(value, torch.Tensor)


def _array(path: Path, name: str, tensor: Any) -> np.ndarray:
    import torch

    if tensor.layout is not torch.strided or tensor.is_quantized or tensor.is_complex() or tensor.is_meta:
        raise InputError(
            f"{path} has the tensor {name} in a form that is not read here ({tensor.dtype}, "
            f"{tensor.layout}): save the weights as ordinary tensors of float32."
        )
    tensor = tensor.detach()
    if tensor.dtype == torch.bfloat16:
        import ml_dtypes

        return tensor.view(torch.int16).numpy().view(ml_dtypes.bfloat16)
    try:
        return tensor.numpy()
    except TypeError as error:
        raise InputError(
            f"{path} has the tensor {name} in {tensor.dtype}: save the weights in float32, float16 or "
            "bfloat16."
        ) from error
