"""Files of weights of each kind, written from arrays by name."""

import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from safetensors.numpy import save_file

Tensors = Mapping[str, np.ndarray]


def to_torch(tensors: Tensors) -> dict[str, Any]:
    import torch

    return {name: torch.tensor(tensor) for name, tensor in tensors.items()}


def save_torch(tensors: Tensors, path: Path) -> None:
    import torch

    torch.save(to_torch(tensors), path)


def save_old_torch(tensors: Tensors, path: Path) -> None:
    """As torch wrote files before 1.6: pickles one after the other, not a zip archive."""
    import torch

    torch.save(to_torch(tensors), path, _use_new_zipfile_serialization=False)


def save_npz(tensors: Tensors, path: Path) -> None:
    with open(path, "wb") as file:  # given a path, np.savez would add a suffix
        np.savez(file, **tensors)  # type: ignore[arg-type]


def save_h5(tensors: Tensors, path: Path | io.BytesIO) -> None:
    with h5py.File(path, "w") as file:
        for name, tensor in tensors.items():
            file[name] = tensor


def save_keras(tensors: Tensors, path: Path, config: Mapping[str, Any] | None = None) -> None:
    buffer = io.BytesIO()
    save_h5(tensors, buffer)
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("metadata.json", "{}")
        archive.writestr("config.json", json.dumps(config or {"class_name": "ViT"}))
        archive.writestr("model.weights.h5", buffer.getvalue())


WRITERS = {
    "a.safetensors": save_file,
    "a.pth": save_torch,
    "old.pt": save_old_torch,
    "a.bin": save_torch,
    "a.npz": save_npz,
    "a.h5": save_h5,
    "a.weights.h5": save_h5,
    "a.keras": save_keras,
}
"""A name with the suffix of each kind, and what writes it."""
