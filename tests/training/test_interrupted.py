"""A run that is interrupted at any moment continues with --resume and ends like an uninterrupted run."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from keras_vit import files
from keras_vit.cli.main import main
from keras_vit.errors import InputError
from keras_vit.process.exit_codes import FAILED, FINE, WRONG_USAGE
from keras_vit.runs.folder import load_run
from keras_vit.training import loop, outputs
from keras_vit.training.checkpoint import CHECKPOINT
from keras_vit.training.config import TrainConfig, to_dict
from keras_vit.training.folder import stored_config
from keras_vit.training.recipe import RECIPES
from tests.helpers import tiny
from tests.helpers.paths import ROOT
from tests.training.interrupting import EPOCHS, CutOff, assert_same, at_batch, raising

# The command, in a process that gets a signal in the middle of an epoch.
SIGNALLED = """
import os, signal, sys
from tests.helpers import tiny
from keras_vit.cli.main import main
from keras_vit.training import loop

class Signal(loop.EpochSeconds):
    epoch = 0
    def on_epoch_begin(self, epoch, logs=None):
        super().on_epoch_begin(epoch, logs)
        self.epoch = epoch
    def on_train_batch_end(self, batch, logs=None):
        if (self.epoch, batch) == ({epoch}, 1):
            os.kill(os.getpid(), {signal})

loop.EpochSeconds = Signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
with tiny.size():
    sys.exit(main(sys.argv[1:]))
"""


pytestmark = pytest.mark.usefixtures("tiny_size")


CHANGED = ("--recipe", "default", "--ema-decay", "0.8", "--depth", "2", "--drop-path-rate", "0.1")


@pytest.fixture(scope="module")
def uninterrupted(three_epochs, images, tmp_path_factory):
    """options -> the run that was not interrupted. Each run is made once."""
    made = {(): three_epochs}

    def find(options=()):
        if options not in made:
            out = tmp_path_factory.mktemp("uninterrupted") / "run"
            assert main(tiny.command(images, out, *options, epochs=EPOCHS)) == FINE
            made[options] = load_run(out)
        return made[options]

    return find


def signalled(number, command, epoch=1):
    """The finished process of a command that got a signal in an epoch. Epochs count from 0."""
    return subprocess.run(
        [sys.executable, "-c", SIGNALLED.format(epoch=epoch, signal=int(number)), *command],
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.mark.long
def test_kill_in_an_epoch_then_the_same_command_with_resume(images, tmp_path, uninterrupted):
    command = tiny.command(images, tmp_path / "run", epochs=EPOCHS)
    assert signalled(signal.SIGKILL, command).returncode == -signal.SIGKILL
    assert {path.name for path in tmp_path.iterdir()} == {"run.partial", ".run.lock"}
    assert main([*command, "--resume"]) == FINE
    assert_same(load_run(tmp_path / "run"), uninterrupted())


@pytest.mark.long
def test_ctrl_c_in_an_epoch_shows_how_to_continue(images, tmp_path, uninterrupted):
    out = tmp_path / "run"
    command = tiny.command(images, out, epochs=EPOCHS)
    process = signalled(signal.SIGINT, command)
    assert process.returncode == FAILED
    assert process.stderr.splitlines()[-1] == (
        f"keras-vit: Stopped. The run continues with: keras-vit train --out {out} --resume"
    )
    assert "Traceback" not in process.stderr
    # The command in the message is enough: the run has recorded all its options.
    assert main(["train", "--out", str(out), "--resume"]) == FINE
    assert_same(load_run(out), uninterrupted())


def failing_replace(name, folder):
    """An os.replace that raises `CutOff` before it replaces a file of this name for the second time."""
    seen = []

    def replace(source, target):
        if Path(target).name == name and Path(target).parent == folder:
            seen.append(target)
            if len(seen) == 2:
                raise CutOff
        os.rename(source, target)

    return replace


MOMENTS = {
    "replacing the checkpoint": lambda patch, out: patch.setattr(
        os, "replace", failing_replace(CHECKPOINT, files.partial_of(out))
    ),
    "saving the model": lambda patch, out: patch.setattr(outputs, "save_whole", raising(CutOff)),
    "renaming the finished run": lambda patch, out: patch.setattr(os, "replace", keep_out(out)),
}


def keep_out(out):
    def replace(source, target):
        if Path(target) == out:
            raise CutOff
        os.rename(source, target)

    return replace


@pytest.mark.long
def test_a_run_interrupted_several_times_ends_like_an_uninterrupted_one(images, tmp_path, uninterrupted):
    out = tmp_path / "run"
    command = tiny.command(images, out, epochs=EPOCHS)
    for interrupt in MOMENTS.values():
        with pytest.MonkeyPatch.context() as patch:
            interrupt(patch, out)
            with pytest.raises(CutOff):
                main(command)
        assert not out.exists()
        command = [*command, "--resume"] if "--resume" not in command else command
    assert main(command) == FINE
    assert_same(load_run(out), uninterrupted())


@pytest.mark.long
def test_a_changed_model_with_a_moving_average_continues(images, tmp_path, uninterrupted, capsys):
    out = tmp_path / "run"
    command = tiny.command(images, out, *CHANGED, epochs=EPOCHS)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "EpochSeconds", at_batch(2, 0))
        with pytest.raises(CutOff):
            main(command)
    assert main(["train", "--out", str(out), "--resume", "--depth", "3"]) == WRONG_USAGE
    assert "was started with another depth than 3" in capsys.readouterr().err
    assert main(["train", "--out", str(out), "--resume"]) == FINE
    assert_same(load_run(out), uninterrupted(CHANGED))


@pytest.mark.same_on_every_backend
def test_a_run_continues_with_its_settings():
    settings = dict(seed=3, changes=dict(depth=2), merge_validation=True, recipe=RECIPES["lab"])
    location = dict(out="runs/first", resume=True, devices=2)
    written = {"train": json.loads(json.dumps(to_dict(TrainConfig(**settings))))}
    assert stored_config(written, TrainConfig(**location)) == TrainConfig(**settings, **location)
    assert stored_config(written, TrainConfig(seed=3, **location)) == TrainConfig(**settings, **location)
    with pytest.raises(InputError, match="runs/first was started with another seed than 4"):
        stored_config(written, TrainConfig(seed=4, **location))


def test_an_interruption_in_the_first_epoch_leaves_nothing(images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(loop, "EpochSeconds", at_batch(0, 0, KeyboardInterrupt))
    assert main(tiny.command(images, tmp_path / "runs" / "run")) == FAILED
    assert capsys.readouterr().err.splitlines()[-1] == "keras-vit: Stopped."
    assert list(tmp_path.iterdir()) == []
