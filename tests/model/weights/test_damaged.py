"""Damaged files of weights, and files that are none: one sentence each, and nothing is loaded."""

import argparse
import collections
import json
import struct
import sys
import warnings
import zipfile
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from keras_vit.errors import InputError
from keras_vit.model.weights.sources import open_checkpoint
from tests.helpers.random_tensors import random_tensors
from tests.helpers.weight_files import (
    WRITERS,
    save_h5,
    save_keras,
    save_npz,
    save_old_torch,
    save_torch,
    to_torch,
)

torch = pytest.importorskip("torch", reason="files of torch are written and read with torch")

pytestmark = pytest.mark.same_on_every_backend

TENSORS = random_tensors({"cls_token": (1, 1, 8), "patch_embed.proj.weight": (8, 3, 4, 4), "norm.bias": (8,)})


class Recorded:
    """A class of this test, which a pickle of it needs."""


def text(content):
    return lambda path: path.write_text(content)


def cut(write, share=0.6):
    """Writes a file and keeps its beginning only."""

    def make(path):
        write(path)
        whole = path.read_bytes()
        path.write_bytes(whole[: int(len(whole) * share)])

    return make


def of(save, tensors=TENSORS):
    """Writes tensors as one of the kinds of files."""
    return lambda path: save(tensors, path)


def pickled(value):
    return lambda path: torch.save(value, path)


def save_zip(path, **entries):
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in entries.items():
            archive.writestr(name.replace("__", "."), content)


def save_script(path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", DeprecationWarning)  # torch.compile is its successor
        torch.jit.script(torch.nn.Linear(2, 2)).save(str(path))


def safetensors_of(dtype, size):
    """A file whose one tensor has numbers that numpy does not have."""
    header = json.dumps({"a": {"dtype": dtype, "shape": [4], "data_offsets": [0, size]}}).encode()
    return lambda path: path.write_bytes(struct.pack("<Q", len(header)) + header + bytes(size))


def with_value(value):
    return {**TENSORS, "norm.bias": np.array([1.0, value] * 4, "float32")}


CASES = {
    # name of the file, what it holds, words of the message
    "empty": ("a.safetensors", text(""), "is empty"),
    "text": ("a.safetensors", text("these are not weights\n" * 20), "is a text file, not weights"),
    "text without a suffix": ("weights", text("not weights at all"), "is a text file, not weights"),
    "HTML page": ("a.pth", text("\n<!DOCTYPE html><html><body>Sign in</body></html>"), "is an HTML page"),
    "Git LFS pointer": (
        "a.safetensors",
        text("version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 22883344\n"),
        "is a pointer of Git LFS",
    ),
    "PNG image": (
        "a.safetensors",
        lambda path: path.write_bytes(b"\x89PNG\r\n\x1a\n" + bytes(99)),
        "a PNG image",
    ),
    "zeros": ("a.safetensors", lambda path: path.write_bytes(bytes(4096)), "is not a file of safetensors"),
    "unknown bytes": (
        "weights",
        lambda path: path.write_bytes(bytes([3, 200, 255] * 99)),
        "not a file of weights",
    ),
    "truncated safetensors": ("a.safetensors", cut(of(save_file)), "is cut off or damaged"),
    "truncated header": ("a.safetensors", cut(of(save_file), 0.05), "is cut off or damaged"),
    "nearly whole safetensors": ("a.safetensors", cut(of(save_file), 0.99), "is cut off or damaged"),
    "float8": ("a.safetensors", safetensors_of("F8_E8M0", 4), "has a in numbers of F8_E8M0"),
    "no tensors": ("a.safetensors", of(save_file, {}), "holds no tensors"),
    "truncated pth": ("a.pth", cut(of(save_torch)), "is cut off or damaged"),
    "truncated pth of torch 1.5": ("a.pth", cut(of(save_old_torch)), "is cut off or damaged"),
    "truncated pickle": ("a.pth", cut(of(save_old_torch), 0.05), "is cut off or damaged"),
    "pickle with code": ("a.pth", pickled(Recorded()), "needs code to be read"),
    "whole module": ("a.pt", pickled(torch.nn.Linear(2, 2)), "torch.nn.modules.linear.Linear"),
    "TorchScript": ("a.pt", save_script, "is a program of TorchScript"),
    "one tensor": ("a.pt", pickled(torch.zeros(3)), "holds a Tensor, not tensors by name"),
    "list": ("a.pt", pickled([torch.zeros(3)]), "holds a list, not tensors by name"),
    "no tensors in pth": ("a.pt", pickled({"epoch": 3}), "holds no tensors by name (it has epoch"),
    "sparse": ("a.pt", pickled({"w": torch.eye(3).to_sparse()}), "has the tensor w in a form"),
    "complex": ("a.pt", pickled({"w": torch.zeros(3) * 1j}), "has the tensor w in a form"),
    "truncated npz": ("a.npz", cut(of(save_npz)), "is cut off or damaged"),
    "npz with objects": (
        "a.npz",
        lambda path: np.savez(path, a=np.array([Recorded], dtype=object)),
        "holds objects of Python",
    ),
    "zip of images": (
        "a.npz",
        lambda path: save_zip(path, dog__png=b"x", cat__png=b"y"),
        "zip archive without weights",
    ),
    "empty zip": ("a.pth", lambda path: save_zip(path), "no files"),
    "truncated h5": ("a.weights.h5", cut(of(save_h5)), "is cut off or damaged"),
    "h5 without arrays": ("a.h5", of(save_h5, {}), "holds no tensors"),
    "truncated keras": ("a.keras", cut(of(save_keras)), "is cut off or damaged"),
    "keras without weights": (
        "a.keras",
        lambda path: save_zip(path, config__json="{}", metadata__json="{}"),
        "has no model.weights.h5",
    ),
    "keras with a wrong config": (
        "a.keras",
        lambda path: save_zip(path, config__json="{", metadata__json="{}", model__weights__h5=""),
        "config.json in ",
    ),
    "NaN": ("a.safetensors", of(save_file, with_value(np.nan)), "not finite (NaN or infinite) in norm.bias"),
    "infinity": ("a.h5", of(save_h5, with_value(np.inf)), "in norm.bias"),
    "one shard": ("model-00001-of-00002.safetensors", of(save_file), "is one part of several"),
}


@pytest.mark.parametrize(("name", "write", "words"), CASES.values(), ids=CASES)
def test_a_file_that_cannot_be_read(name, write, words, tmp_path):
    path = tmp_path / name
    write(path)
    message = refused(path)
    assert words in message
    assert str(path) in message


def refused(source):
    """The message of the error, which is one sentence."""
    with pytest.raises(InputError) as caught:
        open_checkpoint(source)
    message = str(caught.value)
    assert "\n" not in message
    assert message.endswith(".")
    assert len(message) < 420
    return message


@pytest.mark.parametrize(("name", "write"), WRITERS.items(), ids=WRITERS)
def test_any_damage_gives_tensors_or_a_sentence(name, write, tmp_path):
    """Forty files, each with some bytes cut off, changed or lost. Not all kinds have checksums."""
    rng = np.random.default_rng(0)
    path = tmp_path / name
    write(TENSORS, path)
    whole = path.read_bytes()
    messages = []
    for _ in range(40):
        damaged = bytearray(whole)
        start, span = rng.integers(0, len(whole) - 8), rng.integers(1, 9)
        match rng.integers(3):
            case 0:
                del damaged[start:]
            case 1:
                damaged[start : start + span] = rng.bytes(span)
            case 2:
                del damaged[start : start + span]
        path.write_bytes(damaged)
        try:
            assert open_checkpoint(path).tensors
        except InputError as error:
            messages.append(str(error))
    assert len(messages) >= 20
    assert not any("\n" in message for message in messages)


def write_shards(folder, index):
    save_file({"cls_token": TENSORS["cls_token"]}, folder / "model-00001-of-00002.safetensors")
    (folder / "model.safetensors.index.json").write_text(index)


def shards(*names):
    return json.dumps({"weight_map": {f"t{number}": name for number, name in enumerate(names)}})


FIRST, SECOND = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"

FOLDERS = {
    # what a folder holds, words of the message
    "nothing": (lambda folder: None, "has no weights that can be read (it has no files)"),
    "images": (
        lambda folder: (folder / "dog.png").touch(),
        "has no weights that can be read (it has dog.png)",
    ),
    "optimizer only": (lambda folder: (folder / "optimizer.pt").touch(), "has no weights that can be read"),
    "several files": (
        lambda folder: [save_file(TENSORS, folder / name) for name in ("a.safetensors", "b.safetensors")],
        "has several files of weights (a.safetensors, b.safetensors): give one",
    ),
    "config that is not JSON": (
        lambda folder: [
            save_file(TENSORS, folder / "model.safetensors"),
            text("{'a'")(folder / "config.json"),
        ],
        "config.json is not JSON",
    ),
    "config that is a list": (
        lambda folder: [save_file(TENSORS, folder / "model.safetensors"), text("[]")(folder / "config.json")],
        "config.json is not a JSON object",
    ),
    "missing shard": (lambda folder: write_shards(folder, shards(FIRST, SECOND)), f"lacks {SECOND}"),
    "missing tensor": (lambda folder: write_shards(folder, shards(FIRST)), "lack t0, which it names"),
    "empty index": (lambda folder: write_shards(folder, "{}"), "does not say which file has which tensor"),
    "Keras weights in parts": (lambda folder: text("{}")(folder / "model.weights.json"), "in several parts"),
}


@pytest.mark.parametrize(("write", "words"), FOLDERS.values(), ids=FOLDERS)
def test_a_folder_that_cannot_be_read(write, words, tmp_path):
    write(tmp_path)
    message = refused(tmp_path)
    assert words in message
    assert str(tmp_path) in message


WRONG_SOURCES = {
    "": "a file, a folder, timm:NAME or hf:REPOSITORY",
    "https://example.org/a.pth": "download the file",
    "no/such/file.pth": "There is no file or folder no/such/file.pth",
    "google/vit-base-patch16-224": "write hf:google/vit-base-patch16-224",
    "vit_tiny_patch16_224.augreg_in21k": "write timm:vit_tiny_patch16_224.augreg_in21k",
    "timm:": "lacks a name",
    "timm:vit_tiny_patch16_224": "lacks the tag",
    "hf:google/vit@": "lacks a name or a revision",
    "hf:vit-base": "lacks the owner",
}


@pytest.mark.parametrize(("source", "words"), WRONG_SOURCES.items(), ids=lambda value: value or "nothing")
def test_a_source_that_is_none(source, words):
    assert words in refused(source)


def test_a_pickle_with_code_does_not_run_it(tmp_path):
    class Trap:
        def __reduce__(self):
            return Path.touch, (tmp_path / "ran",)

    torch.save({"model": {"a": torch.zeros(2)}, "more": Trap()}, tmp_path / "trap.pth")
    assert "needs code to be read" in refused(tmp_path / "trap.pth")
    assert not (tmp_path / "ran").exists()


def test_without_torch_its_files_name_the_extra(tmp_path, monkeypatch):
    save_torch(TENSORS, tmp_path / "a.pth")
    monkeypatch.setitem(sys.modules, "torch", None)
    assert "install the extra `torch`" in refused(tmp_path / "a.pth")


def test_a_file_without_permission(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    save_file(TENSORS, path)

    def closed(*_, **__):
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr("builtins.open", closed)  # root may read all files
    assert "cannot be read (Permission denied)" in refused(path)


def test_options_beside_the_weights_are_not_code(tmp_path):
    """A Namespace of argparse and an OrderedDict, which trainings save, are read and left out."""
    state = collections.OrderedDict(to_torch(TENSORS))
    torch.save({"model": state, "args": argparse.Namespace(lr=0.1), "epoch": 3}, tmp_path / "a.pth")
    checkpoint = open_checkpoint(tmp_path / "a.pth")
    assert checkpoint.tensors.keys() == TENSORS.keys()
    assert any("args, epoch" in note for note in checkpoint.notes)
