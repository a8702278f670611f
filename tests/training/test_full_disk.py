"""A disk that is full, or fills up while a run is trained: one sentence, and the run continues afterwards."""

import errno
import os
import shutil
import subprocess

import pytest

from keras_vit import files
from keras_vit.cli.main import main
from keras_vit.process.exit_codes import FAILED, FINE
from keras_vit.runs.folder import load_run
from keras_vit.training import loop
from keras_vit.training.checkpoint import CHECKPOINT, load_arrays
from tests.helpers import tiny
from tests.training.interrupting import EPOCHS, assert_same, raising

pytestmark = pytest.mark.usefixtures("tiny_size")


@pytest.fixture
def small_disk(tmp_path):
    """A folder of its own file system, 4 MiB."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = (
        subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=4m", "tmpfs", str(disk)], capture_output=True, text=True
        )
        if shutil.which("mount")
        else None
    )
    if mounted is None or mounted.returncode:
        pytest.skip(f"no tmpfs can be mounted: {mounted.stderr.strip() if mounted else 'no mount'}")
    yield disk
    subprocess.run(["umount", "-l", str(disk)], check=True)


def fill(disk, leave=0):
    """Fills a file system except for `leave` bytes. Returns the file that fills it."""
    ballast = disk / "ballast"
    free = shutil.disk_usage(disk).free
    with open(ballast, "wb") as file:
        file.write(bytes(max(0, free - leave)))
    return ballast


def filling(disk, epoch, leave):
    """A callback instead of EpochSeconds that fills the disk when an epoch begins. Epochs count from 0."""

    class Filling(loop.EpochSeconds):
        def on_epoch_begin(self, number, logs=None):
            super().on_epoch_begin(number, logs)
            if number == epoch:
                fill(disk, leave)

    return Filling


@pytest.mark.parametrize("leave", [0, 48 * 1024], ids=["0 KiB", "48 KiB"])
def test_a_disk_that_fills_up_while_training(leave, small_disk, images, three_epochs, capsys):
    out = small_disk / "run"
    command = tiny.command(images, out, epochs=EPOCHS)
    with pytest.MonkeyPatch.context() as patch:
        # The checkpoint of an epoch is written after this callback, so earlier ones are on the disk.
        patch.setattr(loop, "EpochSeconds", filling(small_disk, 2, leave))
        assert main(command) == FAILED
    shown = capsys.readouterr().err
    assert "keras-vit: The disk is full" in shown
    assert f"The run continues with: keras-vit train --out {out} --resume" in shown
    assert "Traceback" not in shown
    assert not out.exists()
    assert load_arrays(files.partial_of(out) / CHECKPOINT)[1]["history"]
    (small_disk / "ballast").unlink()
    assert main([*command, "--resume"]) == FINE
    assert_same(load_run(out), three_epochs)


def test_a_disk_that_is_full_from_the_start(small_disk, images, capsys):
    fill(small_disk)
    assert main(tiny.command(images, small_disk / "run")) == FAILED
    assert "keras-vit: The disk is full" in capsys.readouterr().err
    assert [path.name for path in small_disk.iterdir()] == ["ballast"]


def test_a_full_disk_without_a_mount(images, tmp_path, monkeypatch, capsys):
    """The same for users who may not mount a file system."""
    full = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(tmp_path / "run.partial"))
    monkeypatch.setattr(files, "write_json", raising(full))
    assert main(tiny.command(images, tmp_path / "run")) == FAILED
    assert "The disk is full at" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
