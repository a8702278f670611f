"""Files that claim far more than they hold: zip, HDF5, numpy and torch, and configs of huge models."""

import io
import json
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
ZEROS = bytes(80 * 1024**2)  # more than any small file may unpack to


def parts_of(keras_file: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(keras_file) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_zip(path: Path, parts: dict[str, bytes], compressed: bool = False) -> Path:
    kind = zipfile.ZIP_DEFLATED if compressed else zipfile.ZIP_STORED
    with zipfile.ZipFile(path, "w", kind) as archive:
        for name, content in parts.items():
            archive.writestr(name, content)
    return path


def with_config(parts: dict[str, bytes], **changes: Any) -> dict[str, bytes]:
    """The parts of a `.keras` file of a ViT with other arguments."""
    config = json.loads(parts[CONFIG])
    config["config"] |= changes
    return {**parts, CONFIG: json.dumps(config).encode()}


def with_weights(parts: dict[str, bytes], change: Callable[[h5py.File, str], None]) -> dict[str, bytes]:
    """The parts of a `.keras` file; `change` gets the open file of weights and the name of an array in it."""
    buffer = io.BytesIO(parts[WEIGHTS])
    with h5py.File(buffer, "r+") as file:
        names: list[str] = []
        file.visititems(lambda name, entry: names.append(name) if isinstance(entry, h5py.Dataset) else None)
        change(file, names[0])
    return {**parts, WEIGHTS: buffer.getvalue()}


def chunks(file, name):
    del file[name]
    file.create_dataset(name, (2**14, 2**14), "f4", chunks=(2**10, 2**10), compression="gzip")


def nothing_written(file, name):
    del file[name]
    file.create_dataset(name, (10**6, 10**6), "f4")


def virtual(file, name):
    del file[name]
    file.create_virtual_dataset(name, h5py.VirtualLayout((10**6, 10**6), "f4"))


def of_another_file(file, name):
    del file[name]
    file.create_dataset(name, (10,), "f4", external=[("/etc/hostname", 0, 40)])


HDF5_BOMBS = {
    "chunks of zeros": (chunks, "claims to hold 1.07 GB"),
    "nothing written": (nothing_written, "claims to hold 4 TB"),
    "virtual": (virtual, "from another file: save the weights in one file"),
    "another file": (of_another_file, "from another file: save the weights in one file"),
}


def npy(shape: tuple[int, ...], content: bytes = b"") -> bytes:
    """An array of numpy with any claim in its header."""
    buffer = io.BytesIO()
    header = {"descr": "<f4", "fortran_order": False, "shape": shape}
    np.lib.format.write_array_header_1_0(buffer, header)  # type: ignore[arg-type]
    return buffer.getvalue() + content
