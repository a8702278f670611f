"""Folders of weights: which files of one are read, from the disk and from the Hub alike."""

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_vit.errors import InputError
from keras_vit.files import read_json
from keras_vit.model.weights.contents import AGAIN, Contents
from keras_vit.model.weights.files import KINDS, read_file
from keras_vit.model.weights.rules import some

CONFIG, RUN_MODEL, TASK_WEIGHTS, CARD = "config.json", "model.keras", "task.weights.h5", "README.md"
INDEX = ".index.json"
BESIDE = {
    "preprocessor_config.json": "preprocessor",
    "preprocessor.json": "preprocessor",
    "task.json": "task",
    "image_converter.json": "image_converter",
}
"""JSON files whose content the config of a checkpoint has under a key of its own."""

WHOLE = ("model.safetensors", "pytorch_model.bin", "model.weights.h5", RUN_MODEL)
"""Names of whole models, the best first. An index of shards, `NAME.index.json`, counts as its NAME."""

OTHERS = (
    "optimizer",
    "scheduler",
    "scaler",
    "rng_state",
    "training_args",
    "tf_model",
    "task.weights",
    "rejection",
    "adapter_",
)
"""How the names of files begin that have the suffix of weights and are none of a whole model."""

SHARD = re.compile(r"-\d{5}-of-\d{5}\.\w+$|_\d{5}\.weights\.h5$")


def needed(names: Sequence[str], what: str) -> list[str]:
    """Of the names of the files of a folder, those that are read.

    Args:
        names: of all its files.
        what: the folder or the repository, for messages.

    Raises:
        InputError: none of them holds weights, or several do.
    """
    beside = [name for name in (CONFIG, CARD, *BESIDE) if name in names]
    for whole in WHOLE:
        if whole in names:
            task = [TASK_WEIGHTS] if whole == "model.weights.h5" and TASK_WEIGHTS in names else []
            return [whole, *task, *beside]
        if whole + INDEX in names:
            stem, suffix = whole.rsplit(".", 1)
            shards = [n for n in names if n.startswith(f"{stem}-") and n.endswith(suffix) and SHARD.search(n)]
            return [whole + INDEX, *sorted(shards), *beside]
    if "model.weights.json" in names:
        raise InputError(
            f"{what} has Keras weights in several parts, which are not read here: save it again in one file."
        )
    weights = [
        n for n in names if Path(n).suffix.lower() in KINDS and not n.startswith(OTHERS) and "/" not in n
    ]
    if len(weights) == 1:
        return [weights[0], *beside]
    if weights:
        raise InputError(
            f"{what} has several files of weights ({some(sorted(weights))}): give one of the files itself."
        )
    raise InputError(
        f"{what} has no weights that can be read (it has {some(sorted(names)) or 'no files'}): it must hold "
        "config.json with model.safetensors or pytorch_model.bin, a preset of KerasHub, or a run of "
        "keras_vit."
    )


def read_folder(
    folder: Path, what: str, only: str | None = None
) -> tuple[Contents, list[Path], dict[str, Any] | None]:
    """Reads the weights of a folder, and what stands beside them.

    Args:
        folder: on the disk.
        what: its name for messages.
        only: which of the names in `WHOLE` is read; by default the first that is there.

    Returns:
        The contents of its weights, their files, and the config with that of `BESIDE`.

    Raises:
        InputError: a file is missing, damaged, or not of weights.
    """
    names = sorted(path.name for path in folder.iterdir())
    if only:
        names = [name for name in names if name.removesuffix(INDEX) not in WHOLE or name.startswith(only)]
    first, *others = needed(names, what)
    if first.endswith(INDEX):
        contents, files = _read_shards(folder / first)
    else:
        contents, files = read_file(folder / first), [folder / first]
    if TASK_WEIGHTS in others:
        task = read_file(folder / TASK_WEIGHTS)
        named = {f"task/{name}": tensor for name, tensor in task.tensors.items()}
        contents = Contents({**contents.tensors, **named}, notes=(*contents.notes, *task.notes))
        files.append(folder / TASK_WEIGHTS)
    return contents, files, read_config(folder, contents.config)


def read_config(folder: Path, own: Mapping[str, Any] | None = None) -> dict[str, Any] | None:
    """The config of a model from the JSON files of a folder.

    Args:
        folder: on the disk.
        own: the config in the file of weights, which a `.keras` file has. `config.json` beside it is then
            that of a run.
    """
    config = None if own is None else dict(own)
    found = read_object(folder / CONFIG)
    if config is None:
        config = found
    elif found is not None:
        config["run"] = found
    for name, key in BESIDE.items():
        beside = read_object(folder / name)
        if beside is not None:
            config = {**(config or {}), key: beside}
    return config


def read_object(path: Path) -> dict[str, Any] | None:
    """The JSON object in a file; `None` if there is no such file."""
    if not path.exists():
        return None
    value = read_json(path, fix=AGAIN)
    if not isinstance(value, dict):
        raise InputError(f"{path} is not a JSON object: {AGAIN}.")
    return value


def _read_shards(index: Path) -> tuple[Contents, list[Path]]:
    where = (read_object(index) or {}).get("weight_map")
    if not isinstance(where, dict) or not where or not all(isinstance(name, str) for name in where.values()):
        raise InputError(f"{index} does not say which file has which tensor (weight_map): {AGAIN}.")
    files = [index.parent / Path(name).name for name in sorted(set(where.values()))]
    missing = [path.name for path in files if not path.exists()]
    if missing:
        raise InputError(f"{index.parent} lacks {some(missing)}, which {index.name} names: {AGAIN}.")
    tensors: dict[str, np.ndarray] = {}
    notes: list[str] = []
    for path in files:
        contents = read_file(path)
        tensors.update(contents.tensors)
        notes.extend(f"{path.name}: {note}" for note in contents.notes)
    lost = [name for name in where if name not in tensors]
    if lost:
        raise InputError(f"The shards of {index} lack {some(lost)}, which it names: {AGAIN}.")
    return Contents(tensors, notes=tuple(notes)), files
