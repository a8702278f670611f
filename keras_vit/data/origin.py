"""Where the images of a run came from, and what each of them held: how they are found again."""

import hashlib
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from keras_vit import files
from keras_vit.cache import IMAGE_BYTES, hash_of
from keras_vit.data.image_set import Image, ImageSet
from keras_vit.errors import InputError

IMAGES = "images.csv"
COLUMNS = ("path", "sha256", "pixels", "label", "part")


def content_hash(image: Image) -> str:
    """SHA-256 of the bytes of a file, or of pixels with their shape and type; empty if it cannot be read."""
    if isinstance(image, np.ndarray):
        return hash_of(f"{image.shape} {image.dtype}", np.ascontiguousarray(image).tobytes())
    if isinstance(image, bytes):
        return hashlib.sha256(image).hexdigest()
    try:
        with files.open_regular(image, IMAGE_BYTES) as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return ""


def roots(data: str | None, folder: Path) -> dict[str, str]:
    """Where the images of a run are, for `config.json`: absolute, and as seen from the folder of the run.

    Args:
        data: what the user named; nothing is recorded of images that are not in a file or folder.
        folder: of the finished run.
    """
    if data is None or not os.path.exists(Path(data).expanduser()):
        return {}
    root = os.path.abspath(Path(data).expanduser())
    try:
        return {"root": root, "root_from_run": os.path.relpath(root, os.path.abspath(folder))}
    except ValueError:  # on another drive
        return {"root": root}


def fixes_to_record(image_set: ImageSet) -> dict[str, list[dict[str, str]]]:
    """What a person decided on the images, for the `data` of `config.json`: the file may be gone tomorrow."""
    return {"fixes": [dict(row) for row in image_set.fixes]} if image_set.fixes else {}


def recorded_fixes(config: Mapping[str, Any] | None) -> dict[str, Any]:
    """The argument `fixes` of `load_image_set` for the images of a run; nothing where it has none.

    Args:
        config: the content of its `config.json`, or `None`.
    """
    found = config["data"].get("fixes") if config else None
    return {"fixes": found} if found else {}


def find_root(config: Mapping[str, Any], folder: Path) -> str | None:
    """What to load the images of a run from: where they were, or where they are as seen from here.

    Args:
        config: the content of its `config.json`.
        folder: of the run.

    Raises:
        InputError: they are at none of these places.
    """
    data, record = config["train"]["data"], config["data"]
    if data is None or not record.get("root"):
        return data  # as an earlier version recorded it: relative to where the command is run
    named = os.path.abspath(Path(data).expanduser())
    beside = record.get("root_from_run")
    places = [data if named == record["root"] else record["root"]]
    places += [os.path.normpath(os.path.join(os.path.abspath(folder), beside))] if beside else []
    for place in [*places, data]:
        if os.path.exists(Path(place).expanduser()):
            return place
    raise InputError(
        f"The images of {folder} were in {record['root']}, which is gone: give the folder that holds them "
        "now with --data."
    )
