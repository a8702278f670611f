"""`train --folds` and `--seeds`: several runs in one folder, evaluated together."""

import csv
import dataclasses
import json
import shutil

import numpy as np
import pytest
from PIL import Image

from keras_vit.cli.main import main
from keras_vit.data.sources import load_image_set
from keras_vit.errors import InputError
from keras_vit.files import partial_of
from keras_vit.process.exit_codes import FAILED, FINE, WRONG_USAGE
from keras_vit.runs.ensemble import Ensemble, load_ensemble, mean_prediction, one_run
from keras_vit.runs.evaluate import evaluate
from keras_vit.runs.folder import load_run
from keras_vit.runs.images import read_record
from keras_vit.runs.out_of_fold import read_answers
from keras_vit.runs.predict import predict
from keras_vit.runs.predictions import Prediction
from keras_vit.training import folds as folds_module
from keras_vit.training.config import TrainConfig
from keras_vit.training.config_file import read_config
from keras_vit.training.options import with_options
from keras_vit.training.train import train
from tests.helpers import tiny

pytestmark = pytest.mark.same_on_every_backend


@pytest.fixture(scope="module", autouse=True)
def _small(tiny_size):
    """The small sizes are known in all tests of this file."""


@pytest.fixture(scope="module")
def folds(images, made_once):
    """The folder of three folds, and what the command printed."""
    import contextlib
    import io

    def make(out):
        printed = io.StringIO()
        with tiny.size(), contextlib.redirect_stdout(printed):
            assert main(tiny.command(images, out, "--folds", 3, epochs=1)) == FINE
        out.with_name("folds.txt").write_text(printed.getvalue())

    out = made_once("folds", make)
    return out, out.with_name("folds.txt").read_text()


def fake_runs(monkeypatch, folds, fail_at=None):
    """Lets `train_several` take copies of the trained folds in place of training; the names it asked for."""
    asked = []

    def instead(config, record, image_set, whole):
        asked.append((config.out.name, config.resume))
        if config.out.name == fail_at:
            raise KeyboardInterrupt
        shutil.copytree(folds / config.out.name, config.out)
        shutil.rmtree(partial_of(config.out), ignore_errors=True)
        return load_run(config.out)

    monkeypatch.setattr(folds_module, "train_on", instead)
    return asked


@pytest.mark.long
def test_each_image_is_tested_once(folds, images):
    out, printed = folds
    found = load_ensemble(out)
    names = load_image_set(str(images)).names
    rows, labels, probabilities = read_answers(out / "out_of_fold.csv", found.class_names)
    assert sorted(row["path"] for row in rows) == sorted(names)
    assert np.allclose(probabilities.sum(axis=1), 1)
    metrics = found.metrics
    assert metrics["pooled"]["images"] == len(names) == len(labels)
    assert metrics["pooled"]["correct"] == int((probabilities.argmax(axis=1) == labels).sum())
    assert [run.path.name for run in found.runs] == ["fold-1", "fold-2", "fold-3"]
    for number, run in enumerate(found.runs, 1):
        tested = {row["path"] for row in run.images.rows if row["part"] == "test"}
        assert tested == {row["path"] for row in rows if row["fold"] == str(number)}
        assert metrics["runs"][number - 1]["accuracy"] == run.metrics["best"]["accuracy"]
        assert f"--folds 3 --fold {number}" in run.config["command"]
    assert "test accuracy, mean of 3 folds" in printed
    assert "every image tested once" in printed
    page = (out / "report.html").read_text()
    assert 'href="fold-2/report.html"' in page
    assert "Nadeau and Bengio" in page
    assert {path.name for path in out.iterdir()} == {
        *("ensemble.json", "metrics.json", "out_of_fold.csv", "report.html", "fold-1", "fold-2", "fold-3"),
    }


@pytest.mark.long
def test_together_they_answer_with_their_mean(folds, images, tmp_path, capsys):
    out, _ = folds
    paths = [*sorted((images / "dots").iterdir())[:3], tmp_path / "none.png"]
    paths[3].write_bytes(b"no image")
    together = predict(out, paths)
    each = [predict(out / f"fold-{i}", paths) for i in (1, 2, 3)]
    for one, alone in zip(together[:3], zip(*each, strict=True), strict=False):
        for name, probability in one.probabilities.items():
            assert probability == pytest.approx(np.mean([run.probabilities[name] for run in alone]))
        assert one.confidence == max(one.probabilities.values()) == one.probabilities[one.label]
    assert together[3].error
    assert together[3].reject
    assert main(["predict", str(out), str(paths[0]), "--json"]) == FINE
    printed = capsys.readouterr()
    assert json.loads(printed.out)[0]["probabilities"] == pytest.approx(together[0].probabilities)
    assert "the mean of the 3 runs fold-1 to fold-3" in printed.err


@pytest.mark.long
def test_evaluate_takes_them_together(folds, images, capsys):
    out, _ = folds
    own = evaluate(out)
    assert own["accuracy"] == load_ensemble(out).metrics["pooled"]["accuracy"]
    other = evaluate(out, str(images))
    paths = [images / name for name in load_image_set(str(images)).names]
    labels = load_image_set(str(images)).labels
    told = [
        one.label == other["per_class"][label]["name"]
        for one, label in zip(predict(out, paths), labels, strict=True)
    ]
    assert other["correct"] == sum(told)
    known = other["known_images"]
    assert known["trained"] + known["chose_epoch"] == len(paths)
    with pytest.raises(InputError, match="has learned from all"):
        evaluate(out, str(images), leave_out_known=True)
    for words, message in (
        (["--corruptions"], "Corrupted images are for one run"),
        (["--flips-at-test"], "give images with --data, or one of the folds"),
    ):
        assert main(["evaluate", str(out), *words]) == WRONG_USAGE
        assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["explain", "RUN", "IMAGE", "--out", "OUT"], "give RUN/fold-1 (or fold-2, fold-3 there)"),
        (["predict", "RUN", "IMAGE", "--heatmap", "OUT"], "give RUN/fold-1"),
        (["summary", "RUN"], "give RUN/fold-1"),
        (["inspect", "RUN"], "RUN holds runs (fold-1, ... or seed-0, ...), not images"),
        (
            ["export", "RUN", "--to", "OUT"],
            "RUN holds 3 runs, and this takes one: give one with --fold 1 to 3",
        ),
        (["export", "RUN", "--to", "OUT", "--fold", "4"], "RUN has the folds 1 to 3. Received: --fold 4"),
        (["export", "RUN/fold-1", "--to", "OUT", "--fold", "1"], "is one run, not a folder of folds"),
    ],
)
def test_commands_that_take_one_run(folds, images, tmp_path, capsys, words, message):
    named = {"RUN": str(folds[0]), "IMAGE": str(images / "dots" / "0.png"), "OUT": str(tmp_path / "new")}
    given = [word.replace("RUN", named["RUN"]) if "RUN" in word else named.get(word, word) for word in words]
    assert main(given) in (FAILED, WRONG_USAGE)
    assert message.replace("RUN", named["RUN"]) in capsys.readouterr().err
    assert not (tmp_path / "new").exists()


def test_export_takes_the_fold_that_is_named(folds):
    assert one_run(folds[0], 2).path == folds[0] / "fold-2"
    assert one_run(load_ensemble(folds[0]), 3).path == folds[0] / "fold-3"


def test_a_fold_is_a_run_that_its_settings_repeat(folds):
    settings = read_config(folds[0] / "fold-2" / "config.json")
    assert (settings.folds, settings.fold, settings.is_several) == (3, 2, False)
    again = with_options(settings, {"folds": 5})
    assert (again.folds, again.fold, again.is_several) == (5, None, True)
    assert read_config(folds[0] / "ensemble.json").is_several


def test_what_was_cut_off_goes_on(folds, images, tmp_path, monkeypatch, capsys):
    """Finished folds are kept, the one that was cut off is continued, and the others begin."""
    out = tmp_path / "cut"
    command = tiny.command(images, out, "--folds", 3, epochs=1)
    fake_runs(monkeypatch, folds[0], fail_at="fold-2")
    with pytest.raises(KeyboardInterrupt):
        train(with_options(TrainConfig(), given(images, out)))
    assert sorted(path.name for path in out.iterdir()) == ["ensemble.json", "fold-1"]
    with pytest.raises(InputError, match="not finished: continue them with `keras-vit train --out"):
        load_ensemble(out)
    assert main(command) == WRONG_USAGE
    assert "holds runs that were cut off: add --resume" in capsys.readouterr().err
    assert main([*command, "--resume", "--seed", "1"]) == WRONG_USAGE
    assert "was started with another seed than 1" in capsys.readouterr().err

    partial = partial_of(out / "fold-2")
    partial.mkdir()
    (partial / folds_module_checkpoint()).touch()
    asked = fake_runs(monkeypatch, folds[0])
    assert main(["train", "--out", str(out), "--resume"]) == FINE
    assert asked == [("fold-2", True), ("fold-3", False)]
    assert load_ensemble(out).metrics == load_ensemble(folds[0]).metrics
    assert main(["train", "--out", str(out), "--resume"]) == FINE
    assert len(asked) == 2
    assert main(command) == WRONG_USAGE
    assert "holds runs that are finished" in capsys.readouterr().err


def folds_module_checkpoint():
    from keras_vit.training.checkpoint import CHECKPOINT

    return CHECKPOINT


def given(images, out):
    return {
        "data": str(images),
        "out": out,
        "model": tiny.MODEL,
        "folds": 3,
        "recipe": "lab",
        "epochs": 1,
        "batch_size": 8,
        **({"xla": False} if tiny.NO_XLA else {}),
    }


def test_folds_that_were_trained_one_by_one_are_gathered(folds, images, tmp_path, monkeypatch, capsys):
    out = tmp_path / "gathered"
    out.mkdir()
    for name in ("fold-1", "fold-3"):
        shutil.copytree(folds[0] / name, out / name)
    asked = fake_runs(monkeypatch, folds[0])
    command = tiny.command(images, out, "--folds", 3, epochs=1)
    assert main(command) == WRONG_USAGE
    assert "exists already" in capsys.readouterr().err
    assert main([*command, "--resume"]) == FINE
    assert asked == [("fold-2", False)]
    assert load_ensemble(out).metrics == load_ensemble(folds[0]).metrics


def test_a_fold_of_other_settings_is_not_one_of_them(folds, images, tmp_path, monkeypatch):
    out = tmp_path / "mixed"
    out.mkdir()
    shutil.copytree(folds[0] / "fold-1", out / "fold-1")
    fake_runs(monkeypatch, folds[0])
    with pytest.raises(InputError, match="fold-1 was started with another seed than 3"):
        train(with_options(TrainConfig(), {**given(images, out), "seed": 3, "resume": True}))


def test_images_that_have_changed_in_between(folds, images, tmp_path, monkeypatch):
    out, more = tmp_path / "cut", tmp_path / "images"
    shutil.copytree(images, more)
    fake_runs(monkeypatch, folds[0], fail_at="fold-3")
    with pytest.raises(KeyboardInterrupt):
        train(with_options(TrainConfig(), given(more, out)))
    Image.new("L", (32, 32)).save(more / "dots" / "new.png")
    with pytest.raises(InputError, match=r"have changed since the runs in .* were begun"):
        train(out=out, resume=True)


def test_a_run_of_others_or_a_damaged_file_is_found(folds, tmp_path):
    out = tmp_path / "changed"
    shutil.copytree(folds[0], out)
    shutil.rmtree(out / "fold-2")
    shutil.copytree(out / "fold-1", out / "fold-2")
    with pytest.raises(InputError, match="fold-2 is not the run that belongs to the others"):
        load_ensemble(out)
    shutil.rmtree(out / "fold-2")
    with pytest.raises(InputError, match="There is no run folder"):
        load_ensemble(out)
    settings = json.loads((out / "ensemble.json").read_text())
    (out / "ensemble.json").write_text(json.dumps({**settings, "count": 4}))
    with pytest.raises(InputError, match=r"ensemble.json is damaged \(it has changed"):
        load_ensemble(out)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--folds", "1"], "folds must be 2 or more. Received: folds=1"),
        (["--seeds", "1"], "seeds must be 2 or more"),
        (["--folds", "5", "--seeds", "5"], "Either --folds tests every image once, or --seeds"),
        (["--seeds", "3", "--seed", "7"], "--seeds 3 trains the seeds 0 to 2: omit --seed 7."),
        (["--folds", "5", "--test-fraction", "0.3"], "each run is tested on one of 5 equal parts"),
        (["--fold", "2"], "fold is the number of one of --folds"),
        (["--folds", "3", "--fold", "4"], "fold is the number of one of 1 to 3. Received: fold=4"),
        (["--folds", "13"], "has 12 images in IMAGES, and --folds 13 takes one of them"),
        (["--folds", "13", "--fold", "1"], "has 12 images in IMAGES, and --folds 13 takes one of them"),
        (["--folds", "3", "--resume"], "There are no cut-off runs in OUT to resume"),
    ],
)
def test_bad_input_leaves_nothing(images, tmp_path, capsys, words, message):
    out = tmp_path / "out"
    assert main(tiny.command(images, out, *words, epochs=1)) == WRONG_USAGE
    told = capsys.readouterr().err
    assert message.replace("IMAGES", str(images)).replace("OUT", str(out)) in told
    assert list(tmp_path.iterdir()) == []


def test_a_source_with_parts_of_its_own(tmp_path, capsys):
    for part in ("train", "test"):
        tiny.draw(tmp_path / "images" / part, each=6)
    assert main(tiny.command(tmp_path / "images", tmp_path / "out", "--folds", 2, epochs=1)) == WRONG_USAGE
    assert "has parts of its own (test), and --folds tests every image once" in capsys.readouterr().err
    assert not (tmp_path / "out").exists()


def test_several_processes_are_refused(images, tmp_path, monkeypatch, capsys):
    monkeypatch.setattr(
        folds_module, "read_cluster", lambda backend: folds_module.Cluster(2, announced_by="WORLD_SIZE")
    )
    assert main(tiny.command(images, tmp_path / "out", "--folds", 3, epochs=1)) == WRONG_USAGE
    assert "WORLD_SIZE announces 2: train each by a command of its own" in capsys.readouterr().err


@pytest.mark.long
def test_seeds(images, tmp_path):
    """The same object from Python: each seed is the run that --seed gives, with its own split."""
    changes = {**given(images, tmp_path / "seeds"), "folds": None, "seeds": 2}
    found = train(with_options(TrainConfig(), changes))
    assert isinstance(found, Ensemble)
    assert [run.path.name for run in found.runs] == ["seed-0", "seed-1"]
    records = [read_record(run.path, run.class_names) for run in found.runs]
    assert [run.config["seed"] for run in found.runs] == [0, 1]
    assert records[0].rows != records[1].rows
    assert found.metrics["pooled"]["images"] == sum(run.metrics["best"]["images"] for run in found.runs)
    assert not (found.path / "out_of_fold.csv").exists()
    assert len(found.predict([images / "dots" / "0.png"])) == 1
    with pytest.raises(InputError, match="are tested on different images: give other images with --data"):
        evaluate(found)
    with pytest.raises(InputError, match="seed-0 to seed-1"):
        one_run(found, 0)


ANSWER = Prediction("a.png", "x", 0.6, {"x": 0.6, "y": 0.3, "z": 0.1}, None, False, ("x",), False)


@pytest.mark.parametrize(
    ("changes", "by_set", "expected"),
    [
        ([{}, {}, {}], True, ("x", ("x",), False, False)),
        ([{}, {}, {"reject": True}], True, ("x", ("x",), False, False)),
        ([{}, {"reject": True}, {"reject": True}], True, ("x", ("x",), False, True)),
        (
            [{"prediction_set": ("x", "y")}, {"prediction_set": ("y", "x")}, {}],
            True,
            ("x", ("x", "y"), True, False),
        ),
        ([{"prediction_set": ()}, {"prediction_set": ()}, {}], True, ("x", (), True, False)),
        ([{"prediction_set": ("y",)}, {"prediction_set": ("y",)}, {}], True, ("x", ("y",), True, False)),
        ([{"refer": True}, {"refer": True}, {}], False, ("x", ("x",), True, False)),
        ([{"refer": True}, {}, {}], False, ("x", ("x",), False, False)),
        ([{"label": "y"}, {"label": "y"}, {}], False, ("x", ("x",), True, False)),
        ([{"prediction_set": None, "refer": None}] * 3, True, ("x", None, None, False)),
    ],
)
def test_what_the_runs_say_together(changes, by_set, expected):
    found = mean_prediction([dataclasses.replace(ANSWER, **change) for change in changes], by_set)
    assert (found.label, found.prediction_set, found.refer, found.reject) == expected


def test_the_probabilities_are_the_mean():
    other = dataclasses.replace(ANSWER, label="y", probabilities={"x": 0.0, "y": 0.9, "z": 0.1})
    found = mean_prediction([ANSWER, other])
    assert found.probabilities == pytest.approx({"x": 0.3, "y": 0.6, "z": 0.1})
    assert (found.label, found.confidence) == ("y", pytest.approx(0.6))
    assert mean_prediction([ANSWER, dataclasses.replace(ANSWER, error="broken")]).error == "broken"


def test_class_names_that_are_columns_or_formulas(tmp_path):
    from keras_vit.runs.out_of_fold import write_answers

    names, path = ("path", "=cmd", "label"), tmp_path / "out_of_fold.csv"
    probabilities = np.array([[0.5, 0.25, 0.25], [0.1, 0.8, 0.1]])
    write_answers(
        path,
        names=["=a.png", "b.png"],
        labels=np.array([0, 1]),
        probabilities=probabilities,
        class_names=names,
        fold=2,
    )
    rows, labels, found = read_answers(path, names)
    assert np.array_equal(found, probabilities)
    assert labels.tolist() == [0, 1]
    assert [row["path"] for row in rows] == ["=a.png", "b.png"]
    with open(path, newline="") as file:
        cells = [cell for row in csv.reader(file) for cell in row]
    assert not [cell for cell in cells if cell.startswith("=")]
