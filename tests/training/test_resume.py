"""What --resume takes of an interrupted run, and what it refuses with the reason."""

import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from keras_vit import files
from keras_vit.cli.main import main
from keras_vit.data.preprocess import BEFORE
from keras_vit.errors import InputError
from keras_vit.process.exit_codes import FINE, WRONG_USAGE
from keras_vit.runs.folder import load_run
from keras_vit.training import loop
from keras_vit.training.checkpoint import BEST, CHECKPOINT, load_arrays, load_best, save_arrays
from keras_vit.training.config import TrainConfig
from keras_vit.training.prepare import prepare
from keras_vit.validation import to_plain
from tests.helpers import tiny
from tests.training.interrupting import CutOff, assert_same, at_batch

pytestmark = pytest.mark.usefixtures("tiny_size")


@pytest.fixture(scope="module")
def partial(images, tmp_path_factory):
    """The folder of a run that was interrupted in its second epoch."""
    out = tmp_path_factory.mktemp("partial") / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "EpochSeconds", at_batch(1, 1))
        with pytest.raises(CutOff):
            main(tiny.command(images, out))
    return files.partial_of(out)


def cut_short(path):
    path.write_bytes(path.read_bytes()[:-200])


def damage_config(partial):
    (partial / "config.json").write_text('{"train": {"model": ')


def empty_config(partial):
    (partial / "config.json").write_text('{"train": {}}')


def nothing(partial):
    pass


REFUSED = {
    "without --resume": (nothing, (), "holds a run that was cut off: add --resume to continue it"),
    "another option": (
        nothing,
        ("--resume", "--epochs", "7"),
        "was started with another epochs than 7: leave that option out",
    ),
    "another depth": (
        nothing,
        ("--resume", "--depth", "2"),
        "was started with another depth than 2: leave that option out",
    ),
    "other training images": (
        nothing,
        ("--resume", "--merge-validation"),
        "was started with another merge_validation than True",
    ),
    "a damaged checkpoint": (
        lambda partial: cut_short(partial / CHECKPOINT),
        ("--resume",),
        "checkpoint.npz is damaged",
    ),
    "a damaged config.json": (damage_config, ("--resume",), "config.json is not JSON"),
    "an empty config.json": (empty_config, ("--resume",), "config.json is damaged"),
    "no config.json": (
        lambda partial: (partial / "config.json").unlink(),
        ("--resume",),
        "has no config.json, so there is nothing to resume: remove",
    ),
}


@pytest.mark.parametrize(("damage", "more", "message"), REFUSED.values(), ids=REFUSED.keys())
def test_wrong_ways_to_resume(damage, more, message, partial, images, tmp_path, capsys):
    shutil.copytree(partial, tmp_path / "run.partial")
    damage(tmp_path / "run.partial")
    before = tiny.tree(tmp_path)
    assert main(tiny.command(images, tmp_path / "run", *more)) == WRONG_USAGE
    shown = capsys.readouterr().err
    assert message in shown
    assert "Traceback" not in shown
    assert tiny.tree(tmp_path).keys() == before.keys()


def remove_image(folder):
    (folder / "dots" / "0.png").unlink()


def replace_image(folder):
    shutil.copyfile(folder / "dots" / "1.png", folder / "dots" / "0.png")


def move_to_another_class(folder):
    (folder / "dots" / "0.png").rename(folder / "lines" / "new.png")


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    ("change", "message"),
    [
        (remove_image, "1 is gone (dots/0.png, "),
        (replace_image, "1 was replaced (dots/0.png, "),
        (move_to_another_class, "1 has another label (dots/0.png, "),
    ],
)
def test_changed_images_are_refused(change, message, partial, images, tmp_path, capsys):
    data = shutil.copytree(images, tmp_path / "images")
    shutil.copytree(partial, tmp_path / "run.partial")
    change(data)
    before = tiny.tree(tmp_path)
    words = ["train", "--out", str(tmp_path / "run"), "--data", str(data), "--resume"]
    assert main(words) == WRONG_USAGE
    assert f"The images in {data} have changed: {message}" in capsys.readouterr().err
    assert tiny.tree(tmp_path) == before


@pytest.mark.same_on_every_backend
def test_a_run_continues_on_its_own_images(partial, images, three_epochs, tmp_path, capsys):
    """Whatever they are called now, and whatever else is there: the split is not drawn again."""
    data = shutil.copytree(images, tmp_path / "elsewhere")
    for path in sorted(data.rglob("*.png")):
        path.rename(path.with_name(f"{'zyxwvutsrqpo'[int(path.stem)]}.png"))
    tiny.draw(tmp_path / "more", each=2)
    for path in sorted((tmp_path / "more").rglob("*.png")):
        pixels = np.roll(np.asarray(Image.open(path)), 1)
        Image.fromarray(pixels).save(data / path.parent.name / f"added {path.name}")
    shutil.copytree(partial, tmp_path / "run.partial")
    assert main(["train", "--out", str(tmp_path / "run"), "--data", str(data), "--resume"]) == FINE
    printed = capsys.readouterr().out
    assert f"{data} has 6 images that the run does not know (dots/added 0.png; " in printed
    assert "36 images of the run have another name now (dots/0.png; " in printed
    run = load_run(tmp_path / "run")
    assert_same(run, three_epochs)
    assert (run.path / "images.csv").read_bytes() == (three_epochs.path / "images.csv").read_bytes()
    assert run.config["data"]["root"] == run.config["train"]["data"] == str(data)


@pytest.mark.same_on_every_backend
def test_a_run_of_an_earlier_version_continues_to_read_files_as_before(partial, tmp_path, monkeypatch):
    shutil.copytree(partial, tmp_path / "run.partial")
    config = json.loads((tmp_path / "run.partial/config.json").read_text())
    for name in BEFORE:
        del config["preprocessing"][name]
    (tmp_path / "run.partial/config.json").write_text(json.dumps(config))
    tiny.seal_again(tmp_path / "run.partial")
    found = {}

    def stop(*_, **arguments):
        found.update(arguments)
        raise CutOff

    monkeypatch.setattr("keras_vit.training.run.prepare", stop)
    with pytest.raises(CutOff):
        main(["train", "--out", str(tmp_path / "run"), "--resume"])
    assert to_plain(found["preprocessing"]) == {**config["preprocessing"], **BEFORE}
    assert found["is_settled"]


@pytest.mark.same_on_every_backend
def test_the_range_of_a_run_that_continues_is_not_measured_again(tmp_path):
    for path in sorted(tiny.draw(tmp_path / "images", each=6).rglob("*.png")):
        Image.fromarray(np.asarray(Image.open(path)).astype("uint16") * 9).save(path)
    config = TrainConfig(data=str(tmp_path / "images"), model="defect-conv/4", image_size=28, channels=1)
    measured = prepare(config).data.preprocessing.pixel_range
    assert 0 <= measured[0] < measured[1] <= 255 * 9
    for kept in (None, (7.0, 4000.0)):
        before = dataclasses.replace(config.preprocessing, pixel_range=kept)
        again = prepare(config, preprocessing=before, is_settled=True)
        assert again.data.preprocessing == before
        assert again.audit.pixels == (
            kept and "values from 7 to 4000 become black to white, as when the run began"
        )


def test_a_run_without_settings_does_not_continue(partial, tmp_path, capsys):
    shutil.copytree(partial, tmp_path / "run.partial")
    (tmp_path / "run.partial" / "config.json").write_text("{}")
    before = tiny.tree(tmp_path)
    assert main(["train", "--out", str(tmp_path / "run"), "--resume"]) == WRONG_USAGE
    assert "run.partial/config.json is damaged (data is missing): remove" in capsys.readouterr().err
    assert tiny.tree(tmp_path) == before


def change_arrays(name, change, of_state=False):
    """A function that changes the arrays, or the state, of a file in a folder."""

    def apply(folder):
        arrays, state = load_arrays(folder / name)
        change(state if of_state else arrays)
        save_arrays(folder / name, arrays, state)

    return apply


IMPOSSIBLE = {
    "an array less": (change_arrays(CHECKPOINT, lambda a: a.pop("model_2")), "it lacks model_2"),
    "a moment less": (change_arrays(CHECKPOINT, lambda a: a.pop("optimizer_3")), "it lacks optimizer_3"),
    "an array more": (
        change_arrays(CHECKPOINT, lambda a: a.update(model_99=np.zeros(2))),
        "it has an unknown model_99",
    ),
    "another shape": (
        change_arrays(CHECKPOINT, lambda a: a.update(model_0=a["model_0"][..., :1])),
        "model_0 should be (",
    ),
    "another type": (
        change_arrays(CHECKPOINT, lambda a: a.update(model_0=a["model_0"].astype("int32"))),
        "model_0 should be (",
    ),
    "NaN": (change_arrays(CHECKPOINT, lambda a: a["model_0"].fill(np.nan)), "model_0 is not finite"),
    "another run": (
        change_arrays(CHECKPOINT, lambda state: state.update(run="0" * 64), of_state=True),
        "it is of another run than config.json beside it",
    ),
    "no history": (
        change_arrays(CHECKPOINT, lambda state: state.pop("history"), of_state=True),
        "history is missing",
    ),
    "epochs out of order": (
        change_arrays(CHECKPOINT, lambda state: state.update(history=[{"epoch": 2}, {"epoch": 1}]), True),
        "history does not have its epochs in order",
    ),
    "the best of another run": (
        change_arrays(BEST, lambda state: state.update(run="0" * 64), of_state=True),
        "best.npz is damaged (it is of another run",
    ),
    "the best epoch is NaN": (
        change_arrays(BEST, lambda state: state.update(best=[float("nan"), 0.0]), of_state=True),
        "best.npz is damaged (best.0",
    ),
}


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(("damage", "message"), IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_a_checkpoint_holds_exactly_what_is_restored(damage, message, partial, tmp_path, capsys):
    shutil.copytree(partial, tmp_path / "run.partial")
    damage(tmp_path / "run.partial")
    assert main(["train", "--out", str(tmp_path / "run"), "--resume"]) == WRONG_USAGE
    shown = capsys.readouterr().err
    assert message in shown
    assert "leave out --resume" in shown


def test_the_best_weights_are_exactly_those_of_the_model(partial, three_epochs, tmp_path):
    model = three_epochs.model
    for change, message in (
        (lambda a: a.pop("model_1"), "it lacks model_1"),
        (lambda a: a.update(model_0=a["model_0"][..., :1]), r"model_0 should be \("),
    ):
        folder = shutil.copytree(partial, tmp_path / message[:5])
        change_arrays(BEST, change)(folder)
        with pytest.raises(InputError, match=message):
            load_best(folder, model)


def test_nothing_to_resume(images, tmp_path, capsys):
    assert main(tiny.command(images, tmp_path / "run", "--resume")) == WRONG_USAGE
    assert "There is no cut-off run" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_no_subcommand_takes_an_unfinished_run(partial, capsys):
    out = partial.with_name("run")
    assert main(["evaluate", str(out)]) == WRONG_USAGE
    assert f"The run {out} is not finished: continue it with `keras-vit train --out {out} --resume`" in (
        capsys.readouterr().err
    )
