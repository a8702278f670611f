"""Where published weights come from: a file, a folder, or a repository of the Hugging Face Hub."""

import dataclasses
import hashlib
import os
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

from keras_vit.errors import InputError
from keras_vit.model.weights.checkpoint import Checkpoint, Origin
from keras_vit.model.weights.files import Contents, read_file
from keras_vit.model.weights.folder import (
    CARD,
    CONFIG,
    INDEX,
    SHARD,
    WHOLE,
    needed,
    read_config,
    read_folder,
    read_object,
)
from keras_vit.model.weights.hub import download, licence_of_card
from keras_vit.model.weights.published import by_shapes, lookup
from keras_vit.model.weights.unwrap import unwrapped

TIMM, HUB = "timm:", "hf:"
EXAMPLE = "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k"
FORMS = "a file, a folder, timm:NAME or hf:REPOSITORY"
OF_MODELS = {"architecture", "model_type", "class_name", "train"}
"""Of these, a `config.json` has one: of timm, Hugging Face, KerasHub, and a run of keras_vit."""


def open_checkpoint(source: str | Path) -> Checkpoint:
    """Reads the tensors of published weights, and what stands beside them.

    Args:
        source: one of
            - a file: `.safetensors`, `.pth`, `.pt`, `.bin`, `.ckpt`, `.npz`, `.h5` or `.keras`, or a file of
              one of these kinds under another name. A `config.json` of its model beside it is read too;
            - a folder with `config.json` and `model.safetensors` or `pytorch_model.bin` (in shards with
              their index too), a preset of KerasHub, a run of keras_vit, or any folder with one file of
              weights;
            - `"timm:NAME"`: the weights of timm by architecture and tag, such as
              `"timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k"`;
            - `"hf:REPOSITORY"` of the Hugging Face Hub. It and the former take `@REVISION` at the end.

            Repositories come through `huggingface_hub`, with its cache, and without a network from that
            alone. Files of torch are read without running code. Of a checkpoint of a training, the moving
            average of the weights is taken, if there is one, as timm does.

    Raises:
        InputError: there is no such source, it cannot be read, or it holds no weights.
    """
    text = os.fspath(source)
    if text.startswith((TIMM, HUB)):
        return _from_hub(text)
    if not text or "://" in text:
        raise InputError(f"Weights are {FORMS}, not {text!r}: download the file, and give its path.")
    path = Path(text).expanduser()
    try:
        if path.is_dir():
            return _from_folder(path, text)
        if path.is_file():
            return _from_file(path, text)
    except OSError as error:
        raise InputError(f"{path} cannot be read ({error.strerror}): check its permissions.") from error
    raise InputError(f"There is no file or folder {text}{_perhaps(text)}.")


def _perhaps(text: str) -> str:
    """What may have been meant by the path of nothing."""
    if text.count("/") == 1 and not text.startswith((".", "/", "~")) and not Path(text).suffix:
        return f": for a repository of the Hugging Face Hub, write hf:{text}"
    if (
        "/" not in text
        and text.startswith(("vit_", "deit", "eva", "beit"))
        and not text.endswith((".pth", ".pt"))
    ):
        return f": for weights of timm, write timm:{text}"
    return f": give {FORMS}"


def _from_hub(source: str) -> Checkpoint:
    kind, _, rest = source.partition(":")
    name, _, revision = rest.partition("@")
    repository = f"timm/{name}" if kind == "timm" else name
    if not name or (rest != name and not revision):
        raise InputError(
            f"{source!r} lacks a name or a revision: write {EXAMPLE}, or hf:OWNER/NAME@REVISION."
        )
    if kind == "timm" and "." not in name:
        raise InputError(
            f"{source} lacks the tag that says how the weights were trained: write it after a dot, such as "
            f"{EXAMPLE}; https://huggingface.co/timm lists all."
        )
    if kind == "hf" and "/" not in name:
        raise InputError(f"{source} lacks the owner of the repository: write hf:OWNER/{name}.")
    folder, commit, notes = download(repository, revision or None, needed)
    contents, files, config = read_folder(folder, f"The repository {repository}")
    return _checkpoint(
        contents,
        config,
        name=repository.removeprefix("timm/"),
        source=source,
        files=files,
        revision=commit,
        licence=licence_of_card(folder / CARD),
        notes=notes,
    )


def _from_folder(folder: Path, source: str, only: str | None = None) -> Checkpoint:
    contents, files, config = read_folder(folder, source, only)
    return _checkpoint(
        contents,
        config,
        name=_name_in_config(config),
        source=source,
        files=files,
        licence=licence_of_card(folder / CARD),
    )


def _from_file(path: Path, source: str) -> Checkpoint:
    if SHARD.search(path.name):
        raise InputError(f"{path} is one part of several: give the folder that holds all of them.")
    described = _describes_model(path.parent / CONFIG)
    if path.name.endswith(INDEX) or (described and path.name in WHOLE):
        return _from_folder(path.parent, source, path.name.removesuffix(INDEX))
    contents = read_file(path)
    config = read_config(path.parent, contents.config) if described else contents.config
    return _checkpoint(
        contents,
        config,
        name=_name_in_config(config) or path.stem,
        source=source,
        files=[path],
        licence=None,
        notes=(f"{CONFIG} beside the file was read",) if described else (),
    )


def _describes_model(config: Path) -> bool:
    """Whether a `config.json` that lies beside a file is that of a model, and not of anything else."""
    return bool(OF_MODELS & (read_object(config) or {}).keys())


def _name_in_config(config: Mapping[str, Any] | None) -> str | None:
    """The published name in a config of timm: architecture and tag."""
    architecture = (config or {}).get("architecture")
    if not isinstance(architecture, str):
        return None
    pretrained = (config or {}).get("pretrained_cfg")
    tag = pretrained.get("tag") if isinstance(pretrained, Mapping) else None
    return f"{architecture}.{tag}" if tag else architecture


def _licence_in_config(config: Mapping[str, Any] | None) -> str | None:
    config = config or {}
    for holder in (config, config.get("pretrained_cfg")):
        if isinstance(holder, Mapping) and isinstance(holder.get("license"), str):
            return holder["license"]
    return None


def _sha256(files: Iterable[Path]) -> str:
    digest = hashlib.sha256()
    for path in files:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    return digest.hexdigest()


def _checkpoint(
    contents: Contents,
    config: Mapping[str, Any] | None,
    *,
    name: str | None,
    source: str,
    files: Sequence[Path],
    revision: str | None = None,
    licence: str | None,
    notes: tuple[str, ...] = (),
) -> Checkpoint:
    tensors, unwrapping = unwrapped(contents.tensors, source)
    licence = licence or _licence_in_config(config) or contents.licence
    digest = _sha256(files)
    made = Checkpoint(
        tensors,
        Origin(source, tuple(files), digest, revision, licence),
        config,
        name,
        (*notes, *contents.notes, *unwrapping),
    )
    row = lookup(name) or by_shapes(made)
    if licence is None and row is not None:
        origin = Origin(source, tuple(files), digest, revision, row["licence"])
        by_table = f"the licence is from the table of published names, by {row['source']}"
        return dataclasses.replace(made, origin=origin, notes=(*made.notes, by_table))
    return made
