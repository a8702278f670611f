"""Pipes, sockets, devices and endless files: nothing is read from what is not a regular file."""

import os
import re
import socket
from pathlib import Path

import pytest

from keras_vit.cache import image_hashes
from keras_vit.data.origin import content_hash
from keras_vit.data.probe import why_unreadable
from keras_vit.data.sources.folder import list_images
from keras_vit.errors import InputError
from keras_vit.evaluation.ood import OODDetector
from keras_vit.files import read_bytes, read_json, read_table, require_regular
from keras_vit.model.keras_file import check_keras_file
from keras_vit.model.weights.read import read_weights
from keras_vit.sealed import sha256_of
from keras_vit.serving.client import read_labels
from keras_vit.serving.server_files import read_models
from keras_vit.training.adapter import load_adapter
from tests.helpers.short_folder import short_folder

pytestmark = pytest.mark.same_on_every_backend


def pipe(folder):
    os.mkfifo(folder / "pipe")
    return folder / "pipe"


def a_socket(folder):
    with socket.socket(socket.AF_UNIX) as made:
        made.bind(str(folder / "s"))
    return folder / "s"


def sparse(folder):
    with open(folder / "sparse", "wb") as file:
        file.truncate(10**12)
    return folder / "sparse"


def link(folder):
    (folder / "link").symlink_to(pipe(folder))
    return folder / "link"


def loop(folder):
    (folder / "loop").symlink_to("loop")
    return folder / "loop"


SPECIAL = {
    "a pipe": (pipe, "a pipe, not a regular file"),
    "a link to a pipe": (link, "a pipe, not a regular file"),
    "a socket": (a_socket, "a socket, not a regular file"),
    "a device that never ends": (lambda folder: Path("/dev/zero"), "a device, not a regular file"),
    "the terminal": (lambda folder: Path("/dev/tty"), "a device, not a regular file"),
    "a folder": (lambda folder: folder, "a folder, not a regular file"),
    "a link to itself": (loop, "Too many levels of symbolic links"),
    "an empty terabyte": (sparse, "more than the 1 MiB allowed"),
}


@pytest.mark.parametrize(("make", "reason"), SPECIAL.values(), ids=SPECIAL.keys())
def test_what_is_not_a_small_regular_file_is_not_read(make, reason):
    with short_folder() as folder:  # the path of a socket has 107 bytes at most
        path = make(folder)
        with pytest.raises(OSError, match=re.escape(reason)):
            read_bytes(path, 2**20)


def test_a_file_is_read_whole_or_from_its_beginning(tmp_path):
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    assert read_bytes(path, 10) == b"0123456789"
    assert read_bytes(path, 10, first=4) == b"0123"
    with pytest.raises(OSError, match="more than the 0 MiB allowed"):
        read_bytes(path, 9)
    assert read_bytes(sparse(tmp_path), 2**20, first=3) == bytes(3)
    require_regular(path)
    with pytest.raises(FileNotFoundError):
        require_regular(tmp_path / "none")


def test_a_file_of_unknown_size_is_read_up_to_the_limit():
    """Files of /proc say that they have 0 bytes."""
    assert read_bytes("/proc/self/status", 2**20)
    with pytest.raises(OSError, match="more than the 0 MiB allowed"):
        read_bytes("/proc/self/status", 100)


@pytest.mark.parametrize("make", [pipe, sparse, loop])
def test_json_is_read_from_regular_files_only(make, tmp_path):
    with pytest.raises(InputError, match=r"cannot be read .*: make it again"):
        read_json(make(tmp_path), "make it again")


def test_json_without_end_is_not_json(tmp_path):
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match="is not JSON"):
        read_json(tmp_path / "deep.json")


def folder_of_weights(folder):
    (folder / "config.json").write_text('{"architecture": "vit_tiny_patch16_224"}')
    os.mkfifo(folder / "model.safetensors")
    return folder


READERS = {
    "a .keras file": (pipe, lambda path: check_keras_file(path)),
    "an adapter": (pipe, lambda path: load_adapter(None, path)),
    "a models.config": (pipe, read_models),
    "a rejection": (pipe, OODDetector.load),
    "a table of a run": (pipe, read_table),
    "a file bound to a run": (pipe, sha256_of),
    "a labels.txt": (pipe, lambda path: read_labels(path)),
    "the weights of a folder": (folder_of_weights, lambda path: read_weights(str(path))),
    "a folder of images without labels": (
        lambda folder: pipe(folder).parent,
        lambda path: list_images(path),
    ),
}


@pytest.mark.parametrize(("make", "read"), READERS.values(), ids=READERS.keys())
def test_no_reader_waits_for_a_pipe(tmp_path, make, read):
    with pytest.raises(InputError, match=r"a pipe, not a regular file|holds no images"):
        read(make(tmp_path))


def test_the_hash_of_an_image_and_a_probe_do_not_wait(tmp_path):
    with pytest.raises(InputError, match="a pipe, not a regular file"):
        image_hashes([pipe(tmp_path)])
    assert content_hash(tmp_path / "pipe") == ""
    assert content_hash(Path("/dev/zero")) == ""
    assert why_unreadable(tmp_path / "pipe") == "cannot be opened (a pipe, not a regular file)"
    assert why_unreadable(Path("/dev/zero")) == "cannot be opened (a device, not a regular file)"
    assert content_hash(sparse(tmp_path)) == ""
    assert why_unreadable(tmp_path / "sparse") == "cannot be opened (more than the 512 MiB allowed)"
