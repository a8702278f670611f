"""The command that repeats a run or a search, and the versions that are recorded with it."""

import shlex

import pytest

from keras_vit.process.command import repeat_command
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
