"""Prediction sets and referral of a run: in the answer model, `predict`, `evaluate` and the commands."""

import csv
import json
import re
import shutil

import keras
import numpy as np
import pytest

from keras_vit import ViT, evaluate, predict
from keras_vit.cli.main import main
from keras_vit.data.preprocess import Preprocessing, scale_pixels
from keras_vit.errors import InputError
from keras_vit.evaluation.prediction_sets import PredictionSets, log_odds
from keras_vit.evaluation.selective import REFER_ALL
from keras_vit.files import read_json, write_json
from keras_vit.process.exit_codes import FINE, INCOMPLETE, WRONG_USAGE
from keras_vit.runs.answer import answer_images, answer_model
from keras_vit.runs.folder import METRICS, load_run
from keras_vit.runs.judged_images import own_images
from keras_vit.training.accepted_risk import check_accepted_risk
from keras_vit.training.config import TrainConfig
from tests.helpers import tiny
from tests.helpers.checks import randomize

SHAPE = (8, 8, 1)
PREPROCESSING = Preprocessing(SHAPE)
SMALL = dict(image_shape=SHAPE, num_classes=5, patch_size=4, dim=16, depth=1, num_heads=2, mlp_dim=16)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(0)
    return randomize(ViT(**SMALL), scale=0.3)


def pixels_of(images):
    return np.random.default_rng(1).uniform(0, 255, (images, *SHAPE)).astype("float32")


def answers_to(model, sets, pixels, flips=False):
    answers = answer_model(model, 0.5, None, PREPROCESSING, flips, sets)
    return answer_images(answers, list(pixels), PREPROCESSING)


@pytest.mark.parametrize("refer_below", [None, 0.2, -50.0, REFER_ALL])
@pytest.mark.parametrize("flips", [False, True])
def test_the_answer_model_against_numpy(model, refer_below, flips):
    sets = PredictionSets(np.array([-1.0, 0.0, -3.0, 0.3, -0.5]), refer_below=refer_below)
    pixels = pixels_of(60)
    found = answers_to(model, sets, pixels, flips)
    scaled = np.asarray(scale_pixels(pixels, PREPROCESSING))
    views = [scaled[:, ::up, ::left] for up in (1, -1) for left in (1, -1)] if flips else [scaled]
    logits = np.mean(
        [model.predict(np.ascontiguousarray(view), verbose=0).astype("float64") for view in views], axis=0
    )
    odds = log_odds(logits / 0.5)
    np.testing.assert_allclose(found["log_odds"], odds, rtol=1e-4, atol=1e-4)
    near = np.abs(odds - sets.thresholds) < 1e-3
    assert (found["prediction_set"] == sets.members(odds))[~near].all()
    clear = ~near.any(axis=1) & ~(np.abs(odds.max(axis=1) - (refer_below or 0)) < 1e-3)
    assert (found["refer"] == sets.refers(odds))[clear].all()
    assert clear.mean() > 0.9
    if refer_below in (None, 0.2):
        assert 0 < found["refer"].sum() < 60
    else:
        assert set(found["refer"]) == {int(refer_below == REFER_ALL)}
    assert set(found["prediction_set"].sum(axis=1)) >= {1, 2}


def test_an_image_that_cannot_be_used(model):
    pixels = pixels_of(4)
    pixels[0, 0, 0], pixels[1, 0, 0], pixels[2, 0, 0] = np.nan, np.inf, 300
    found = answers_to(model, PredictionSets(np.full(5, -90.0), refer_below=-90.0), pixels)
    assert found["prediction_set"].sum(axis=1).tolist() == [0, 0, 0, 5]
    assert found["refer"].tolist() == [1, 1, 1, 0]


def test_without_sets_there_are_no_such_outputs(model):
    found = answers_to(model, None, pixels_of(2))
    assert not {"prediction_set", "refer", "log_odds"} & found.keys()


# A trained run, whose 24 validation images have one threshold for all classes


@pytest.fixture(scope="module")
def run(rejecting):
    return load_run(rejecting)


@pytest.fixture(scope="module")
def files(drawn_images):
    return sorted(drawn_images.rglob("*.png"))[::5]


def test_what_the_validation_images_decide(run):
    images = own_images(run).of_part("validation")
    label_of = {name: i for i, name in enumerate(run.class_names)}
    labels = np.array([label_of[images.class_names[label]] for label in images.labels])
    odds = answer_images(run.answer_model, images.images, run.preprocessing)["log_odds"]
    sets = run.prediction_sets
    # With 24 images, the threshold is just below the least typical one.
    least = odds[np.arange(24), labels].min()
    np.testing.assert_allclose(sets.thresholds, least, atol=0.05)
    assert sets.members(odds)[np.arange(24), labels].all()
    assert (sets.level, sets.refer_below) == (0.95, None)
    described = run.metrics["prediction_sets"]
    assert (described["images"], described["fitted_on"]) == (24, "the validation images")
    assert not any(row["own_threshold"] for row in described["classes"])
    least = run.metrics["referral"]["least_risk"]
    assert least == min(
        (row["wrong"] + 1) / (row["images"] + 1) for row in run.metrics["referral"]["choices"]
    )
    report = (run.path / "report.html").read_text()
    assert "What to hand to a person" in report
    assert "One pooled threshold for classes with fewer than 39 calibration images: all classes" in report


def test_evaluate_gives_the_figures_of_the_training(run):
    found = evaluate(run)
    trained = run.metrics["prediction_sets"]
    assert found["prediction_sets"] == {"level": 0.95, **trained["test"]}
    assert found["referral"] == {"accepted_risk": None, **run.metrics["referral"]["test"]}


def test_predict_names_the_classes_of_the_set(run, files):
    answers = answer_images(run.answer_model, files, run.preprocessing)
    found = predict(run, files)
    for item, members, refer in zip(found, answers["prediction_set"], answers["refer"], strict=True):
        assert set(item.prediction_set) == {run.class_names[i] for i in np.flatnonzero(members)}
        assert item.refer == bool(refer) == (item.prediction_set != (item.label,))
        shares = [item.probabilities[name] for name in item.prediction_set]
        assert shares == sorted(shares, reverse=True)
    assert {item.refer for item in found} == {True, False}


def test_another_accepted_risk(run, files):
    choices = run.metrics["referral"]["choices"]
    previous = 1.1
    for row in choices:
        found = predict(run, files, accept_risk=row["risk"])
        changed = run.accepting(row["risk"])
        assert changed.prediction_sets.refer_below == row["threshold"]
        referred = np.mean([item.refer for item in found])
        assert referred <= previous
        previous = referred
        judged = evaluate(changed)["referral"]
        assert judged["accepted_risk"] == row["risk"]
    assert run.accepting(None) is run
    with pytest.raises(InputError, match="is not supported"):
        run.accepting(choices[0]["risk"] * 0.99)


def test_a_run_of_before_has_no_sets(rejecting, files, tmp_path):
    folder = shutil.copytree(rejecting, tmp_path / "run")
    metrics = read_json(folder / METRICS)
    del metrics["prediction_sets"], metrics["referral"]
    write_json(folder / METRICS, metrics)
    tiny.seal_again(folder)
    old = load_run(folder)
    assert old.prediction_sets is None
    assert {(item.prediction_set, item.refer) for item in predict(old, files[:3])} == {(None, None)}
    found = evaluate(old)
    assert (found["prediction_sets"], found["referral"]) == (None, None)
    with pytest.raises(InputError, match="an earlier version trained it"):
        old.accepting(0.1)


# The commands


def test_predict_writes_a_table(rejecting, files, tmp_path, capsys):
    (tmp_path / "text.png").write_text("no image")
    words = ["predict", str(rejecting), *map(str, files), str(tmp_path / "text.png")]
    table = tmp_path / "answers.csv"
    assert main([*words, "--json", "--csv", str(table)]) == INCOMPLETE
    answers = json.loads(capsys.readouterr().out)
    with open(table, newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == len(answers)
    for row, answer in zip(rows, answers, strict=True):
        assert row["image"] == answer["image"]
        assert row["label"] == (answer["label"] or "")
        assert json.loads(row["prediction_set"]) == answer["prediction_set"]
        assert (row["refer"], row["reject"]) == (str(int(answer["refer"])), str(int(answer["reject"])))
        assert (float(row["confidence"]) if row["confidence"] else None) == answer["confidence"]
    assert (answers[-1]["prediction_set"], answers[-1]["refer"], answers[-1]["reject"]) == ([], True, True)
    assert main(words) == INCOMPLETE
    for line, answer in zip(capsys.readouterr().out.splitlines(), answers, strict=True):
        assert ("refer to a person" in line) == (answer["refer"] and answer["error"] is None)
        several = answer["error"] is None and answer["prediction_set"] != [answer["label"]]
        assert (f"set: {', '.join(answer['prediction_set']) or 'empty'}" in line) == several


def test_evaluate_prints_both_lines(rejecting, capsys):
    least = load_run(rejecting).metrics["referral"]["choices"][-1]["risk"]
    assert main(["evaluate", str(rejecting), "--accept-risk", str(least)]) == FINE
    *_, sets, refer = capsys.readouterr().out.splitlines()
    assert sets.startswith("95 % prediction sets: ")
    assert refer.startswith("refer: ")
    assert f"for an accepted risk of {100 * least:g} %" in refer


MISTAKES = {
    "a file that is there": (["predict", "RUN", "IMAGE", "--csv", "IMAGE"], "exists already: give --csv"),
    "no such folder": (["predict", "RUN", "IMAGE", "--csv", "nosuch/a.csv"], "There is no folder nosuch"),
    "risk 0": (["predict", "RUN", "IMAGE", "--accept-risk", "0"], "above 0 and below 1"),
    "risk 2": (["evaluate", "RUN", "--accept-risk", "2"], "above 0 and below 1"),
    "too small": (["evaluate", "RUN", "--accept-risk", "1e-4"], "takes 9,999 calibration images"),
    "too small to export": (
        ["export", "RUN", "--to", "m", "--accept-risk", "1e-4"],
        "takes 9,999 calibration",
    ),
    "train with 0": (["train", "--accept-risk", "0"], "accept.risk"),
    "train with 1.5": (["train", "--accept-risk", "1.5"], "accept.risk"),
}


@pytest.mark.parametrize(("words", "message"), MISTAKES.values(), ids=MISTAKES.keys())
def test_mistakes(words, message, rejecting, files, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = files[0].read_bytes()
    words = [{"RUN": str(rejecting), "IMAGE": str(files[0])}.get(word, word) for word in words]
    assert tiny.code_of(words) == WRONG_USAGE
    assert re.search(message, capsys.readouterr().err)
    assert files[0].read_bytes() == before
    assert not list(tmp_path.iterdir())


# In the training


@pytest.mark.long
@pytest.mark.usefixtures("tiny_size")
def test_train_keeps_the_accepted_risk(drawn_images, tmp_path, capsys):
    words = ("--validation-fraction", 0.25, "--accept-risk")
    assert main(tiny.command(drawn_images, tmp_path / "none", *words, 0.03, epochs=1)) == WRONG_USAGE
    message = "takes 33 calibration images without a mistake, and the validation part has 24"
    assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())
    assert main(tiny.command(drawn_images, tmp_path / "run", *words, 0.5, epochs=1)) == FINE
    run = load_run(tmp_path / "run")
    referral = run.metrics["referral"]
    assert referral["accepted_risk"] == 0.5
    assert (referral["threshold"] is None) == (referral["unsupported"] is not None)
    expected = REFER_ALL if referral["threshold"] is None else referral["threshold"]
    assert run.prediction_sets.refer_below == expected
    assert "--accept-risk 0.5" in run.config["command"]
    assert "refer: " in capsys.readouterr().out


class Data:
    """The parts of an `ImageData` that count."""

    def __init__(self, train, validation, num_classes=6):
        self.num_classes = num_classes
        self.split = type("Split", (), {"train": range(train), "validation": range(validation)})

    def labels(self, part):
        return np.arange(len(getattr(self.split, part))) % self.num_classes


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    ("risk", "data", "recipe", "message"),
    [
        (None, Data(10, 0), "default", None),
        (0.005, Data(1296, 199), "default", None),
        (
            0.005,
            Data(1296, 198),
            "default",
            "takes 199 calibration images without a mistake, and the validation",
        ),
        (
            0.01,
            Data(1296, 0),
            "default",
            "the validation part has 0: accept more, raise --validation-fraction",
        ),
        (0.2, Data(1296, 18), "default", "takes 19 calibration images"),
        (0.005, Data(1296, 144), "probe", None),
        (0.005, Data(30, 144), "probe", "the least that they support is 0.69%"),
    ],
)
def test_a_risk_is_refused_before_the_training(risk, data, recipe, message):
    from keras_vit.training.recipe import RECIPES

    config = TrainConfig(accept_risk=risk, recipe=RECIPES[recipe])
    if message is None:
        check_accepted_risk(config, data)
    else:
        with pytest.raises(InputError, match=message):
            check_accepted_risk(config, data)
