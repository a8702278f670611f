"""Whose the folder of a run is: one command at a time, and what a dead one has left."""

import json
import os
import shutil

import pytest

from keras_vit.cli.main import main
from keras_vit.distribution import Distribution
from keras_vit.errors import InputError
from keras_vit.files import partial_of, work_name
from keras_vit.locks import lock_beside
from keras_vit.process.exit_codes import FINE, WRONG_USAGE
from keras_vit.runs.folder import load_run
from keras_vit.training import run as run_module
from keras_vit.training.checkpoint import CHECKPOINT, save_arrays
from keras_vit.training.config import TrainConfig, to_dict
from keras_vit.training.folder import begin_or_resume, make_unfinished, owned, publish
from tests.helpers import tiny
from tests.test_locks import held_by_another

pytestmark = pytest.mark.same_on_every_backend


# One command at a time


@pytest.mark.parametrize("more", [(), ("--resume",)], ids=["anew", "resume"])
@pytest.mark.parametrize("state", ["nothing", "cut off", "finished"])
def test_a_second_command_is_refused_at_once(state, more, trained, images, tmp_path, capsys):
    out = tmp_path / "run"
    if state != "nothing":
        shutil.copytree(trained[0], out if state == "finished" else partial_of(out))
    with held_by_another(lock_beside(out)) as other:
        before = tiny.tree(tmp_path)
        assert main(["train", "--data", str(images), "--out", str(out), *more]) == WRONG_USAGE
        shown = capsys.readouterr().err
        assert f"Another command is at work on the run {out} (process {other.pid} on " in shown
        assert "): wait for it, or choose another --out." in shown
        assert tiny.tree(tmp_path) == before


def test_a_run_in_this_process_is_not_joined_either(tmp_path):
    with owned(tmp_path / "run", Distribution()) as is_owned:
        assert is_owned
        with (
            pytest.raises(InputError, match=f"process {os.getpid()} "),
            owned(tmp_path / "run", Distribution()),
        ):
            pass
        with owned(tmp_path / "other", Distribution()):
            pass
    assert tiny.tree(tmp_path) == {}


class Worker(Distribution):
    """A process of a run whose chief is another."""

    num_processes, process_id = 2, 1

    def from_chief(self, compute):
        return True


def test_only_the_chief_of_several_processes_takes_the_lock(tmp_path):
    with owned(tmp_path / "run", Distribution()), owned(tmp_path / "run", Worker()) as is_owned:
        assert is_owned


@pytest.mark.long
def test_the_lock_is_held_from_the_first_check_until_the_run_has_its_name(
    images, tmp_path, tiny_size, monkeypatch, capsys
):
    """Of the command after one that was killed while it wrote its first file."""
    out, seen = tmp_path / "run", []

    def watch(module, name):
        step = getattr(module, name)

        def watched(*arguments, **options):
            with pytest.raises(InputError, match="Another command is at work"):
                owned(out, Distribution()).__enter__()
            seen.append(name)
            result = step(*arguments, **options)
            assert lock_beside(out).is_file()
            return result

        monkeypatch.setattr(module, name, watched)

    steps = ["begin_or_resume", "load_image_set", "make_unfinished", "fit", "finish", "publish"]
    for name in steps:
        watch(run_module, name)
    dead(partial_of(out), **{work_name("config.json"): '{"trai'})
    assert main(tiny.command(images, out, "--resume", epochs=1)) == FINE
    assert seen == steps
    assert "holds no finished epoch: the run begins anew" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert not list(out.glob("*.new"))


def test_a_run_cannot_have_the_name_of_another_that_is_not_finished(tmp_path):
    out = tmp_path / "run.partial"
    with pytest.raises(InputError, match=r"choose an --out without .partial"):
        begin_or_resume(TrainConfig(out=out), out, restarted=False)


# What a command that was killed has left


def settings(**changes):
    counts = {"train": 9, "validation": 3, "test": 3}
    return json.dumps(
        {
            "model": "defect/4",
            "model_config": {"image_shape": [28, 28, 1], "num_classes": 2},
            "image_shape": [28, 28, 1],
            "data": {"source": "images", "class_names": ["a", "b"], "counts": counts},
            "command": "keras-vit train",
            "versions": {},
            "train": to_dict(TrainConfig(**changes)),
        }
    )


def dead(folder, **files):
    """The folder of a run that was killed; a name may have `__` for the dot."""
    folder.mkdir()
    for name, content in files.items():
        (folder / name.replace("__", ".")).write_text(content)
    return folder


def with_epoch(folder):
    save_arrays(folder / CHECKPOINT, {}, {"history": [{"epoch": 1}]})


NO_EPOCH = {
    "an empty folder": {},
    "half of the first file": {work_name("config.json"): "{"},
    "half of the first file, of an earlier version": {"config__json__new": "{"},
    "only its images": {"images__csv": "path\n"},
    "no JSON": {"config__json": '{"train": {"mod'},
    "no settings": {"config__json": "{}"},
    "settings of something else": {"config__json": '{"train": {"model": "nosuch"}}'},
    "an epoch that has not ended": {"config__json": "[]", "best__npz": "", work_name(CHECKPOINT): "half"},
}


@pytest.mark.parametrize("resume", [False, True], ids=["anew", "resume"])
@pytest.mark.parametrize("content", NO_EPOCH.values(), ids=NO_EPOCH.keys())
def test_a_run_without_a_finished_epoch_begins_anew(content, resume, tmp_path, capsys):
    out = tmp_path / "run"
    partial = dead(partial_of(out), **content)
    (partial / "tensorboard").mkdir()
    before = tiny.tree(tmp_path)
    found = begin_or_resume(TrainConfig(data="mine", out=out, resume=resume), out, restarted=False)
    assert found == {"unfinished": None, "anew": True}
    assert tiny.tree(tmp_path) == before  # until the images have been read
    assert capsys.readouterr().out == (
        f"{partial} holds no finished epoch: the run begins anew; its settings are those of this command.\n"
    )
    assert make_unfinished(partial, **found)
    assert tiny.tree(tmp_path) == {"run.partial": None}


@pytest.mark.parametrize("content", NO_EPOCH.values(), ids=NO_EPOCH.keys())
def test_a_run_whose_images_are_not_known_is_not_resumed_on_the_drawn_defects(content, tmp_path, capsys):
    out = tmp_path / "run"
    partial = dead(partial_of(out), **content)
    before = tiny.tree(tmp_path)
    with pytest.raises(InputError) as caught:
        begin_or_resume(TrainConfig(out=out, resume=True), out, restarted=False)
    assert str(caught.value) == (
        f"{partial} holds no finished epoch and no settings that can be read, so which images it was to be "
        "trained on is not known: give --data again, or leave out --resume to train on the drawn defects."
    )
    assert tiny.tree(tmp_path) == before
    assert capsys.readouterr().out == ""
    # Both of what it says help, and so does the second start by a launcher, which is the same command.
    for changes in ({"data": "mine", "resume": True}, {}):
        assert begin_or_resume(TrainConfig(out=out, **changes), out, restarted=False)["anew"]
    assert begin_or_resume(TrainConfig(out=out), out, restarted=True)["anew"]


def test_a_folder_with_something_else_is_never_removed(tmp_path):
    out = tmp_path / "run"
    dead(partial_of(out), config__json="{}", photo__png="mine")
    for resume in (False, True):
        with pytest.raises(InputError, match=r"holds other things \(photo.png\)"):
            begin_or_resume(TrainConfig(out=out, resume=resume), out, restarted=False)
    shutil.rmtree(partial_of(out))
    (tmp_path / "mine").mkdir()
    partial_of(out).symlink_to(tmp_path / "mine")
    with pytest.raises(InputError, match=r"run.partial is not a folder"):
        begin_or_resume(TrainConfig(out=out), out, restarted=False)
    with owned(out, Distribution()):
        pass
    assert sorted(path.name for path in tmp_path.iterdir()) == ["mine", "run.partial"]


def test_a_disk_without_locks_removes_nothing(tmp_path):
    """Another command may be at work there."""
    out = tmp_path / "run"
    dead(partial_of(out), config__json=settings())
    with pytest.raises(InputError, match="holds a run that was cut off: add --resume"):
        begin_or_resume(TrainConfig(out=out), out, restarted=False, is_owned=False)
    with pytest.raises(InputError, match=r"run.partial was made in the meantime"):
        make_unfinished(partial_of(out), None)


def test_a_finished_epoch_is_never_lost(tmp_path):
    out = tmp_path / "run"
    with_epoch(dead(partial_of(out), config__json=settings()))
    before = tiny.tree(tmp_path)
    with pytest.raises(InputError, match="holds a run that was cut off: add --resume"):
        begin_or_resume(TrainConfig(out=out), out, restarted=False)
    for restarted in (False, True):  # as the launchers of several processes do, without --resume
        config = TrainConfig(out=out, resume=not restarted)
        found = begin_or_resume(config, out, restarted)
        assert found == {"unfinished": json.loads(settings())}
        assert not make_unfinished(partial_of(out), **found)
    assert tiny.tree(tmp_path) == before


def test_nothing_to_resume_stays_refused(tmp_path):
    with pytest.raises(InputError, match="There is no cut-off run"):
        begin_or_resume(TrainConfig(out=tmp_path / "run", resume=True), tmp_path / "run", restarted=False)
    assert begin_or_resume(TrainConfig(), tmp_path / "run", restarted=True) == {"unfinished": None}


# The last step


def test_a_run_that_only_lacks_its_name_gets_it(trained, tiny_size, tmp_path):
    """It was killed between its last file and the rename: its checkpoint is gone, and so is nothing else."""
    out = tmp_path / "run"
    shutil.copytree(trained[0], partial_of(out))
    with pytest.raises(InputError, match="holds a run that was cut off: add --resume"):
        begin_or_resume(TrainConfig(out=out), out, restarted=False)
    (partial_of(out) / "best.npz").touch()  # the second file that is removed
    assert main(["train", "--out", str(out), "--resume"]) == FINE
    assert [path.name for path in tmp_path.iterdir()] == ["run"]
    assert tiny.tree(out) == tiny.tree(trained[0])


def test_a_folder_that_appears_during_the_run_is_not_replaced(trained, tmp_path):
    out = tmp_path / "run"
    shutil.copytree(trained[0], partial_of(out))
    out.mkdir()
    (out / "mine").touch()
    with pytest.raises(InputError, match="was made while the run was trained, which is whole in"):
        publish(partial_of(out), out)
    assert load_run(partial_of(out))
    (out / "mine").unlink()  # an empty folder is in nobody's way
    assert publish(partial_of(out), out) == load_run(out).config


def test_an_empty_folder_may_be_given(tmp_path):
    (tmp_path / "run").mkdir()
    found = begin_or_resume(TrainConfig(out=tmp_path / "run"), tmp_path / "run", restarted=False)
    assert found == {"unfinished": None}
    (tmp_path / "run" / "file").touch()
    with pytest.raises(InputError, match="exists already: choose another --out, or remove it"):
        begin_or_resume(TrainConfig(out=tmp_path / "run"), tmp_path / "run", restarted=False)
