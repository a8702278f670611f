"""Files of weights, told by their content: which kind a file is, and its tensors by name."""

import io
import json
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Literal

import numpy as np

from keras_vit.claims import check_hdf5, check_npz, check_unpacked, check_zip, most_unpacked
from keras_vit.errors import InputError
from keras_vit.files import require_regular
from keras_vit.model.weights.contents import AGAIN, Contents, damaged
from keras_vit.model.weights.rules import some
from keras_vit.model.weights.torch_files import read_torch

Kind = Literal["safetensors", "torch", "npz", "hdf5", "keras"]

KINDS: dict[str, Kind] = {
    ".safetensors": "safetensors",
    ".pth": "torch",
    ".pt": "torch",
    ".bin": "torch",
    ".ckpt": "torch",
    ".npz": "npz",
    ".h5": "hdf5",
    ".keras": "keras",
}
"""The kind that each suffix stands for. The content decides."""

GIVE = f"give a file of weights ({', '.join(KINDS)})"

HDF5 = b"\x89HDF\r\n\x1a\n"
ZIP = (b"PK\x03\x04", b"PK\x05\x06")  # the second if there is nothing in it
PICKLE = b"\x80"
LFS = b"version https://git-lfs"
IMAGES = {b"\x89PNG": "a PNG image", b"\xff\xd8\xff": "a JPEG image", b"GIF8": "a GIF image"}
DAMAGE: tuple[type[Exception], ...] = (
    OSError,
    EOFError,
    ValueError,
    KeyError,
    RuntimeError,
    struct.error,
    zipfile.BadZipFile,
    zlib.error,
    NotImplementedError,
)
"""What the readers of zip archives and HDF5 raise for damaged files."""
KERAS_WEIGHTS = "model.weights.h5"  # in a .keras file
LARGEST_HEADER = 100_000_000  # bytes, of a safetensors file; the limit of its own library


def read_file(path: Path) -> Contents:
    """Reads the tensors of a file.

    Raises:
        InputError: it is empty, cut off, damaged, no file of weights, needs code, claims more than its bytes
            can hold, or has values that are not finite.
    """
    try:
        kind = kind_of(path)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check its permissions.") from error
    found = READERS[kind](path)
    notes = list(found.notes)
    suffix = KINDS.get(path.suffix.lower())
    if suffix not in (None, kind):
        notes.append(f"{path.name} is a file of {kind} in spite of its name")
    _check_tensors(path, found.tensors)
    tensors = dict(_as_float32(path, found.tensors, notes))
    if not tensors:
        raise InputError(f"{path} holds no tensors: {GIVE}.")
    return Contents(tensors, found.config, found.licence, tuple(notes))


def kind_of(path: Path) -> Kind:
    """The kind of a file, by its content.

    Raises:
        InputError: it is not a file of weights.
        OSError: it cannot be read.
    """
    require_regular(path)
    with open(path, "rb") as file:
        start = file.read(512)
    text = start.lstrip().lower()
    if not start:
        raise InputError(f"{path} is empty: {AGAIN}.")
    if start.startswith(LFS):
        raise InputError(
            f"{path} is a pointer of Git LFS, not the file itself: fetch it with `git lfs pull`, or download "
            "it."
        )
    if text.startswith((b"<!doctype html", b"<html")):
        raise InputError(f"{path} is an HTML page, not weights: download the file itself, not its page.")
    if start.startswith(HDF5):
        return "hdf5"
    if start.startswith(ZIP):
        return _kind_of_archive(path)
    if len(start) > 8 and start[8:9] == b"{" and struct.unpack("<Q", start[:8])[0] <= LARGEST_HEADER:
        # Before torch's pickles: a header of 128 bytes begins as they do.
        return "safetensors"
    if start.startswith(PICKLE):
        return "torch"
    for magic, what in IMAGES.items():
        if start.startswith(magic):
            raise InputError(f"{path} is {what}, not weights: {GIVE}.")
    if path.suffix.lower() in KINDS and not _is_text(start):
        wanted = KINDS[path.suffix.lower()]
        raise InputError(f"{path} is not a file of {wanted}, or its beginning is damaged: {AGAIN}.")
    raise InputError(
        f"{path} is {'a text' if _is_text(start) else 'not a'} file{_not_weights(start)}: {GIVE}."
    )


def _is_text(start: bytes) -> bool:
    try:
        start[:400].decode()
    except UnicodeDecodeError:
        return False
    return b"\0" not in start


def _not_weights(start: bytes) -> str:
    return ", not weights" if _is_text(start) else " of weights of a kind that is known here"


def _kind_of_archive(path: Path) -> Kind:
    try:
        with zipfile.ZipFile(path) as archive:
            check_zip(path, archive)
            names = archive.namelist()
    except InputError:
        raise
    except DAMAGE as error:
        raise damaged(path, error) from error
    if any(name.endswith("/constants.pkl") for name in names):
        raise InputError(
            f"{path} is a program of TorchScript, which is not run: save its state_dict() with torch.save, "
            "and give that file."
        )
    if any(name.endswith("/data.pkl") for name in names):
        return "torch"
    if {"config.json", "metadata.json"} <= set(names):
        return "keras"
    if names and all(name.endswith(".npy") for name in names):
        return "npz"
    raise InputError(f"{path} is a zip archive without weights (it has {some(names) or 'no files'}): {GIVE}.")


def _read_safetensors(path: Path) -> Contents:
    from safetensors import SafetensorError, safe_open

    tensors = {}
    try:
        with safe_open(path, "np") as file:
            metadata = file.metadata() or {}
            for name in file.keys():  # noqa: SIM118
                try:
                    tensors[name] = file.get_tensor(name)
                except (AttributeError, TypeError, ValueError) as error:  # numpy has no float8 or float4
                    raise InputError(
                        f"{path} has {name} in numbers of {file.get_slice(name).get_dtype()}: give the "
                        "weights in float32, float16 or bfloat16."
                    ) from error
    except SafetensorError as error:
        raise damaged(path, error) from error
    return Contents(tensors, licence=metadata.get("license") or metadata.get("licence"))


def _read_npz(path: Path) -> Contents:
    try:
        check_npz(path)
        with np.load(path, allow_pickle=False) as archive:
            return Contents({name: archive[name] for name in archive.files})
    except InputError:
        raise
    except ValueError as error:
        if "allow_pickle" in str(error):
            raise InputError(
                f"{path} holds objects of Python, which could run code: give a file that has arrays only."
            ) from error
        raise damaged(path, error) from error
    except DAMAGE as error:
        raise damaged(path, error) from error


def _read_hdf5(path: Path) -> Contents:
    return _hdf5(path, path)


def _hdf5(path: Path, source: Any, packed: int | None = None) -> Contents:
    import h5py

    try:
        with h5py.File(source, "r") as file:
            check_hdf5(path, file, packed)
            tensors: dict[str, np.ndarray] = {}

            def keep(name: str | bytes, entry: Any) -> None:
                if isinstance(entry, h5py.Dataset):
                    if isinstance(name, bytes):
                        raise ValueError(f"the name {name!r} is not UTF-8")
                    # Text may repeat one piece of the file as often as it likes; it is no weight.
                    tensors[name] = np.empty(0, object) if entry.dtype.hasobject else np.asarray(entry[()])

            file.visititems(keep)
            config = file.attrs.get("model_config")  # of Keras's earlier .h5 files
    except InputError:
        raise
    except DAMAGE as error:
        raise damaged(path, error) from error
    return Contents(tensors, _object(path, "model_config", config) if config is not None else None)


def _read_keras(path: Path) -> Contents:
    try:
        with zipfile.ZipFile(path) as archive:
            config = archive.read("config.json")
            weights = archive.read(KERAS_WEIGHTS) if KERAS_WEIGHTS in archive.namelist() else None
    except DAMAGE as error:
        raise damaged(path, error) from error
    if weights is None:
        raise InputError(f"{path} has no {KERAS_WEIGHTS} in it: save the model with model.save in Keras 3.")
    found = _object(path, "config.json", config)
    return Contents(_hdf5(path, io.BytesIO(weights), len(weights)).tensors, found)


READERS: dict[Kind, Callable[[Path], Contents]] = {
    "safetensors": _read_safetensors,
    "torch": read_torch,
    "npz": _read_npz,
    "hdf5": _read_hdf5,
    "keras": _read_keras,
}


def _object(path: Path, what: str, text: str | bytes) -> dict[str, Any]:
    try:
        found = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{what} in {path} is not JSON ({error}): {AGAIN}.") from error
    if not isinstance(found, dict):
        raise InputError(f"{what} in {path} is not a JSON object: {AGAIN}.")
    return found


def _check_tensors(path: Path, tensors: dict[str, np.ndarray]) -> None:
    """Raises InputError for tensors that are larger than the file, as views of a few bytes can be."""
    packed = path.stat().st_size
    check_unpacked(path, sum(tensor.nbytes for tensor in tensors.values()), packed)
    for name, tensor in tensors.items():
        if max(tensor.shape, default=0) > most_unpacked(packed):
            raise InputError(f"{path} has {name} of shape {tensor.shape}, which no model has: {AGAIN}.")


def _as_float32(
    path: Path, tensors: dict[str, np.ndarray], notes: list[str]
) -> Iterator[tuple[str, np.ndarray]]:
    """The tensors with floating point in float32, all finite; a line for each other type of number."""
    import ml_dtypes

    converted: dict[str, int] = {}
    skipped = []
    for name, tensor in tensors.items():
        if tensor.dtype.kind == "V" and tensor.dtype.itemsize == 2 and not tensor.dtype.names:
            # A bfloat16 of JAX, which numpy's files do not know by name; ml_dtypes has the same kind "V".
            tensor = tensor.view(ml_dtypes.bfloat16)
        if tensor.dtype.kind in "biu":
            yield name, tensor
            continue
        if tensor.dtype.kind != "f" and tensor.dtype != ml_dtypes.bfloat16:
            skipped.append(name)
            continue
        if tensor.dtype != np.float32:
            converted[str(tensor.dtype)] = converted.get(str(tensor.dtype), 0) + 1
            tensor = tensor.astype(np.float32)
        if not np.isfinite(tensor).all():
            raise InputError(
                f"{path} has values that are not finite (NaN or infinite) in {name}: the training that wrote "
                "it has failed, or the file is damaged."
            )
        yield name, tensor
    for dtype, count in converted.items():
        notes.append(f"{count} tensors of {dtype} were converted to float32")
    if skipped:
        notes.append(f"{some(skipped)} are not numbers and were left out")
