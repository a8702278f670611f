"""The command that repeats a run or a search, and the versions that are recorded with it."""

import os
import shlex
import subprocess

import pytest

from keras_vit.process.command import quoted, repeat_command
from keras_vit.process.versions import installed_versions
from keras_vit.version import __version__

pytestmark = pytest.mark.same_on_every_backend


@pytest.mark.parametrize(
    ("options", "defaults", "shown"),
    [
        ({"epochs": 8, "seed": 0}, {"epochs": 30, "seed": 0}, "--epochs 8"),
        ({"batch_size": 8}, {}, "--batch-size 8"),
        ({"batch_size": 8}, {"batch_size": 8}, ""),
        ({"image_size": (28, 32)}, {"image_size": None}, "--image-size 28 32"),
        ({"freeze": ["depth=2", "dim=8"]}, {"freeze": []}, "--freeze depth=2 dim=8"),
        ({"resume": True}, {"resume": False}, "--resume"),
        ({"retrain": False}, {"retrain": True}, "--no-retrain"),
        ({"xla": False}, {"xla": None}, "--xla False"),
        ({"clip_norm": None}, {"clip_norm": 1.0}, "--clip-norm None"),
        ({"data": "it's a folder; $(x)"}, {"data": None}, shlex.join(["--data", "it's a folder; $(x)"])),
    ],
)
def test_only_changed_values_become_options(options, defaults, shown):
    assert repeat_command(["keras-vit", "train"], options, defaults) == f"keras-vit train {shown}".strip()


def test_the_versions_of_installed_packages():
    found = installed_versions("numpy", "no-such-package", "keras")
    assert list(found) == ["keras_vit", "numpy", "keras"]
    assert found["keras_vit"] == __version__
    assert all(found.values())


WORDS = ["a b", "", "it's", "a\x1b[31m\n'\\x", "caf\udce9'", "\u202e日", "\x9b\xad", "\U000e0041\\n", "\t"]


@pytest.mark.parametrize("word", WORDS)
def test_a_shell_reads_back_what_is_not_printable(word):
    assert quoted(word).isprintable()
    ran = subprocess.run(
        ["bash", "-c", f"printf %s {quoted(word)}"],
        capture_output=True,
        env={**os.environ, "LC_ALL": "C.UTF-8"},
    )
    assert ran.stdout == os.fsencode(word)
