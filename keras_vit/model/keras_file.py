"""What a `.keras` file claims to be, checked before Keras builds it: Keras builds first and reads then."""

import dataclasses
import io
import json
import math
import os
import zipfile
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_vit.claims import check_hdf5, check_zip
from keras_vit.errors import InputError, first_line
from keras_vit.files import require_regular
from keras_vit.model.config import ViTConfig
from keras_vit.model.cost import count_parameters

CONFIG, WEIGHTS = "config.json", "model.weights.h5"
REGISTERED = "keras_vit>ViT"
MOST_CONFIG = 1_000_000  # bytes; that of a ViT has some thousand
ARRAYS_PER_BLOCK = 8  # at least: two norms of two, and four kernels
MOST_POSITIONS = 2**27  # values of a table of positions that is computed, half a gigabyte
H5 = (".h5", ".hdf5")
AGAIN = "train it again, or download or copy it again"
DAMAGED = (zipfile.BadZipFile, zlib.error, RecursionError)


def check_keras_file(path: Path) -> None:
    """Checks a `.keras` file against its size, within a second.

    Args:
        path: of a file that exists.

    Raises:
        InputError: it is damaged, is not a `ViT` of this package, or claims more than its bytes can hold.
    """
    try:
        require_regular(path)
        with zipfile.ZipFile(path) as archive:
            check_zip(path, archive)
            if archive.getinfo(CONFIG).file_size > MOST_CONFIG:
                raise InputError(f"{path} has a {CONFIG} of more than {MOST_CONFIG:,} bytes: {AGAIN}.")
            config = json.loads(archive.read(CONFIG))
            weights = archive.read(WEIGHTS)
        if not isinstance(config, Mapping):
            raise InputError(f"{path} cannot be read as a Keras model (no config): {AGAIN}.")
        if config.get("registered_name") != REGISTERED:
            _refuse_another(path, config)
        arrays, values = _contents(path, weights)
    except (OSError, EOFError, ValueError, KeyError, RuntimeError, NotImplementedError, *DAMAGED) as error:
        if isinstance(error, InputError):
            raise
        reason = getattr(error, "strerror", None) or first_line(error)
        raise InputError(f"{path} cannot be read as a Keras model ({reason}): {AGAIN}.") from error
    arguments = config.get("config")
    fields = {field.name for field in dataclasses.fields(ViTConfig)}  # type: ignore[arg-type]
    if isinstance(arguments, Mapping):
        try:
            made = ViTConfig(**{name: value for name, value in arguments.items() if name in fields})
        except (TypeError, InputError) as error:
            raise InputError(
                f"{path} cannot be read as a Keras model ({first_line(error).rstrip('.')}): {AGAIN}."
            ) from error
        check_size(path, made, arrays, values)


def check_size(path: str | Path, config: ViTConfig, arrays: int, values: int) -> None:
    """Checks that a file can hold the weights of a ViT, without a loop over its blocks.

    Args:
        path: of the file, for the message.
        config: of the ViT that it claims to be.
        arrays: how many it has.
        values: how many are in its arrays.

    Raises:
        InputError: it has fewer than the ViT has parameters.
    """
    one, two = (count_parameters(dataclasses.replace(config, depth=depth)) for depth in (1, 2))
    claimed = one + (two - one) * (config.depth - 1)
    if claimed > values or config.depth * ARRAYS_PER_BLOCK > arrays:
        raise InputError(
            f"{path} claims a ViT of {claimed:,} parameters in {config.depth:,} blocks, and has {values:,} "
            f"values in {arrays:,} arrays: {AGAIN}."
        )
    if config.position != "learned" and math.prod(config.grid) * config.dim > MOST_POSITIONS:
        raise InputError(
            f"{path} claims images of {config.image_shape}, whose positions do not fit into memory: {AGAIN}."
        )


def _contents(path: Path, weights: bytes) -> tuple[int, int]:
    import h5py

    with h5py.File(io.BytesIO(weights), "r") as file:
        return check_hdf5(path, file, len(weights))


def _refuse_another(path: Path, config: Mapping[str, Any]) -> None:
    if "Lambda" in json.dumps(config):
        raise InputError(
            f"{path} holds code (a Lambda layer), which is not run: save the model without Lambda layers."
        )
    raise InputError(
        f"{path} is a {config.get('class_name')!r} of Keras, not a ViT of keras_vit: give a model.keras that "
        "`keras-vit train` made."
    )


def name_as_registered(path: Any, cls: type) -> None:
    """Gives a whole model in Keras's earlier format the name by which Keras finds its class again.

    Keras writes the bare name of the class there, and registers it by another.

    Args:
        path: of a file that Keras has written; nothing is done to other formats.
        cls: the class of the model.
    """
    import h5py
    import keras

    if not str(path).endswith(H5):
        return
    with h5py.File(path, "r+") as file:
        config = json.loads(file.attrs.get("model_config", "{}"))
        if config.get("class_name") == cls.__name__:
            config["class_name"] = keras.saving.get_registered_name(cls)
            file.attrs["model_config"] = json.dumps(config).encode()


def save_whole(model: Any, path: Path) -> None:
    """Saves a Keras model as a `.keras` file that is whole or not there."""
    new = path.with_name(f"new-{path.name}")  # Keras wants the suffix; the next saving replaces what is left
    model.save(new)
    os.replace(new, path)
