"""A run folder of version 0.1.0 can be read."""

import dataclasses
import json
import shlex

import pytest
from PIL import Image

from keras_vit.cli.main import main, parse
from keras_vit.process.exit_codes import FINE
from keras_vit.runs.folder import load_run
from keras_vit.runs.predict import predict
from keras_vit.training.config import TrainConfig, to_dict
from keras_vit.training.folder import stored_config
from keras_vit.training.prepare import prepare_data
from tests.helpers.paths import ROOT

FIXTURE = ROOT / "tests" / "fixtures" / "version_0_1_0"
CHANGES = {"dim": 16, "depth": 1, "num_heads": 2, "mlp_dim": 16}


@pytest.fixture(scope="module")
def run():
    return load_run(FIXTURE / "run")


@pytest.fixture
def in_fixture_folder(monkeypatch):
    """Changes the working directory, since the path of the images in config.json is relative."""
    monkeypatch.chdir(FIXTURE)


@pytest.fixture(scope="module")
def expected():
    return json.loads((FIXTURE / "evaluate.json").read_text())


def test_evaluate_gives_the_same_figures(in_fixture_folder, expected, capsys):
    assert main(["evaluate", "run", "--json"]) == FINE
    shown = capsys.readouterr()
    found = json.loads(shown.out)
    assert found.keys() == expected.keys() | {
        "notes",
        "known_images",
        "flips_at_test",
        "prediction_sets",
        "referral",
        "decision",
    }
    assert found["known_images"] is None
    assert "run: an earlier version of keras_vit trained this run." in shown.err
    for name, value in expected.items():
        if name in ("per_class", "confusion_matrix", "source"):
            assert found[name] == value, name
        else:
            assert found[name] == pytest.approx(value, rel=1e-4), name


def test_predict_answers_as_it_was_evaluated(run, in_fixture_folder, expected, tmp_path):
    data, _ = prepare_data(stored(run))
    files, labels = [], []
    for index in data.split.test:
        files.append(tmp_path / f"{index}.png")
        Image.fromarray(data.image_set.original(index).squeeze()).save(files[-1])
        labels.append(data.class_names[data.image_set.labels[index]])
    answers = predict(run, files)
    assert {(answer.error, answer.reject) for answer in answers} == {(None, False)}
    assert sum(a.label == b for a, b in zip(answers, labels, strict=True)) == expected["correct"]


def stored(run) -> TrainConfig:
    return stored_config(run.config, TrainConfig(out="elsewhere", resume=True))


def of_command(run) -> dict:
    """The settings of the command that the run prints to repeat it, as its version took them."""
    plain = to_dict(parse([*shlex.split(run.config["command"])[1:], "--split-duplicates", "keep"]).run)
    plain["recipe"]["sampling"] = "uniform"
    return plain


def known_to(old: dict, new: dict) -> dict:
    """The settings that an earlier version has too, with their new values; all changes of a size."""
    return {
        name: known_to(old[name], value) if isinstance(value, dict) and name != "changes" else value
        for name, value in new.items()
        if name in old
    }


@pytest.mark.same_on_every_backend
def test_its_settings_are_read(run):
    config = parse(["train", "--config", str(FIXTURE / "run" / "config.json")]).run
    named = TrainConfig(data="images.npz", model="defect-conv/4", changes=CHANGES, recipe=config.recipe)
    assert config == dataclasses.replace(named, split_duplicates="keep")
    assert (config.recipe.epochs, config.recipe.batch_size) == (2, 24)
    # As in the command that the run prints to repeat it.
    assert to_dict(config) == of_command(run)
    assert known_to(run.config["train"], to_dict(config)) == {**run.config["train"], "changes": CHANGES}


@pytest.mark.same_on_every_backend
def test_an_interrupted_run_of_it_would_be_resumed(run):
    config = stored(run)
    assert (config.changes, config.resume) == (CHANGES, True)
    assert to_dict(config) == of_command(run)
