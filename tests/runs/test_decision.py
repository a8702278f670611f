"""A least recall and a table of costs: from what a user types to the answers of a run."""

import csv
import json
import shutil

import keras
import numpy as np
import pytest

from keras_vit import ViT, evaluate, predict
from keras_vit.cli.main import main
from keras_vit.data.preprocess import Preprocessing
from keras_vit.errors import InputError
from keras_vit.evaluation.decision_rule import DecisionRule
from keras_vit.evaluation.prediction_sets import PredictionSets
from keras_vit.process.exit_codes import FINE, WRONG_USAGE
from keras_vit.runs.answer import answer_images, answer_model
from keras_vit.runs.calibration import CALIBRATION
from keras_vit.runs.ensemble import mean_decision, mean_prediction
from keras_vit.runs.folder import load_run
from keras_vit.runs.predictions import Prediction
from keras_vit.runs.wanted import read_costs, wanted_of
from keras_vit.serving.label_comparison import changed_several
from keras_vit.serving.named_comparison import changed_labels, to_rule
from keras_vit.training.config import TrainConfig, from_dict, to_dict
from tests.helpers import tiny
from tests.helpers.checks import randomize

NAMES = ("red", "blue iron", "a=b")
SHAPE = (8, 8, 1)
COSTS = np.array([[0, 1, 3, 1], [20, 0, 5, 1], [2, 0.5, 0, 1], [1, 1, 1, 0]], float)


@pytest.mark.parametrize("costs", [None, COSTS], ids=["weights", "costs"])
@pytest.mark.parametrize("refer_below", [None, 0.2])
def test_the_answer_model_against_numpy(costs, refer_below):
    keras.utils.set_random_seed(0)
    small = dict(image_shape=SHAPE, num_classes=4, patch_size=4, dim=16, depth=1, num_heads=2, mlp_dim=16)
    model, preprocessing = randomize(ViT(**small), scale=0.3), Preprocessing(SHAPE)
    pixels = list(np.random.default_rng(1).uniform(0, 255, (60, *SHAPE)).astype("float32"))
    rule, sets = (
        DecisionRule(np.array([1, 3.0, 0.5, 1]), costs),
        PredictionSets(np.full(4, -1.0), 0.95, refer_below),
    )
    found = answer_images(
        answer_model(model, 0.5, None, preprocessing, sets=sets, rule=rule), pixels, preprocessing
    )
    p = found["probabilities"]
    clear = rule.margin(p) > 1e-4
    assert clear.mean() > 0.9
    assert (found["label"] == rule.decide(p))[clear].all()
    assert (found["likeliest"] == p.argmax(axis=1)).all()
    assert (found["label"] != found["likeliest"]).any()
    np.testing.assert_allclose(found["confidence"], p[np.arange(60), found["label"]], rtol=1e-6)
    sure = np.abs(found["log_odds"] - (refer_below if refer_below is not None else -1.0)).min(axis=1) > 1e-3
    assert (found["refer"] == sets.refers(found["log_odds"], found["label"]))[sure].all()


# What a user types


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["red"], "takes CLASS=RECALL"),
        (["=0.9"], "takes CLASS=RECALL"),
        (["red=much"], "takes CLASS=RECALL"),
        (["red=98"], "write 0.98 for 98 %"),
        (["red=0"], "above 0, and 1 at most"),
        (["red=nan"], "above 0, and 1 at most"),
        (["red=-1"], "above 0, and 1 at most"),
        (["red=0.9", "red=0.8"], "names the class red twice"),
    ],
)
def test_a_wrong_recall(words, message):
    for read in (lambda: wanted_of(words, None, NAMES), lambda: TrainConfig(min_recall=words)):
        with pytest.raises(InputError, match=message):
            read()


def test_recalls_of_classes():
    assert wanted_of(["blue iron=0.9", "a=b=1"], None, NAMES).recalls == {"blue iron": 0.9, "a=b": 1}
    assert wanted_of({"red": 0.5}, None, NAMES).recalls == {"red": 0.5}
    assert wanted_of(None, None, NAMES) is None
    with pytest.raises(InputError, match="names green, which is not a class: the classes are red, blue"):
        wanted_of(["green=0.9"], None, NAMES)
    config = TrainConfig(min_recall={"red": 0.5}, costs="costs.csv")
    assert config.min_recall == ("red=0.5",)
    assert from_dict(to_dict(config)) == config


GOOD = ",red,blue iron,a=b\nred,0,1,2\na=b,5,4,\nblue iron,3,0,1\n"
WANTED = [[0, 1, 2], [3, 0, 1], [5, 4, 0]]


@pytest.mark.parametrize(
    ("name", "content", "wanted"),
    [
        ("c.csv", GOOD, WANTED),
        ("c.csv", "\ufeff" + GOOD.replace("\n", "\r\n"), WANTED),
        ("c.tsv", GOOD.replace(",", "\t"), WANTED),
        ("c.csv", GOOD.replace(",", ";").replace("2", "2,0"), WANTED),
        ("c.csv", GOOD.replace("red,0", "red,0.5"), [[0.5, 1, 2], [3, 0, 1], [5, 4, 0]]),
        ("c.json", json.dumps({"red": {"blue iron": 1, "a=b": 2}, "a=b": {"red": 5, "blue iron": 4},
                               "blue iron": {"red": 3, "a=b": 1, "blue iron": 0}}), WANTED),
    ],
)  # fmt: skip
def test_costs_of_a_file(tmp_path, name, content, wanted):
    (tmp_path / name).write_text(content, newline="", encoding="utf-8")
    assert read_costs(tmp_path / name, NAMES).tolist() == wanted


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("c.csv", "", "is empty"),
        ("c.csv", "one line\n", "is not a table of costs"),
        ("c.csv", GOOD.replace("a=b,5,4,\n", ""), "no row for the class a=b"),
        ("c.csv", GOOD.replace("a=b\nred", "green\nred"), "names green, which is not a class"),
        ("c.csv", GOOD.replace("red,0,1,2", "red,0,,2"), "does not say what naming blue iron costs"),
        ("c.csv", GOOD.replace("red,0,1,2", "red,0,1"), "2 costs in the row red, and 3 columns"),
        ("c.csv", GOOD.replace("red,0,1,2", "red,0,nan,2"), "says nan for naming blue iron"),
        ("c.csv", GOOD.replace("red,0,1,2", "red,0,-1,2"), "says -1 for naming blue iron"),
        ("c.csv", GOOD.replace("red,0,1,2", "red,0,many,2"), "says many for naming blue iron"),
        ("c.csv", GOOD.replace("red,0,1,2", "red,4,1,2"), "the right answer must cost least"),
        ("c.csv", GOOD + "red,0,1,2\n", "two rows for the class red"),
        ("c.csv", GOOD.replace("a=b\n", "red\n", 1), "two columns for the class red"),
        (
            "c.csv",
            ",red,blue iron,a=b\nred,0,0,1\nblue iron,1,0,1\na=b,1,0,0\n",
            "naming blue iron never costs",
        ),
        ("c.csv", GOOD.replace("red,0,1,2", "red,0,1e-9,1e9"), "the largest may be 1e\\+09 times"),
        ("c.json", "[1]", "is not a table of costs"),
        ("c.json", "{", "is not JSON"),
        ("c.json", '{"red": {}, "red": {}}', "two entries for the class red"),
        ("c.json", '{"red": {"blue iron": true, "a=b": 1}}', "says True for naming blue iron"),
    ],
)
def test_a_wrong_table_of_costs(tmp_path, name, content, message):
    (tmp_path / name).write_text(content)
    with pytest.raises(InputError, match=message):
        read_costs(tmp_path / name, NAMES)
    with pytest.raises(InputError, match="cannot be read"):
        read_costs(tmp_path / "nosuch.csv", NAMES)


# A trained run with 24 validation images


@pytest.fixture(scope="module")
def run(rejecting):
    return load_run(rejecting)


def hardest(run):
    """The class that is found least often among the images that choose weights."""
    odds = run.calibration.logits
    right = odds.argmax(axis=1) == run.calibration.labels
    return min(range(odds.shape[1]), key=lambda i: right[run.calibration.labels == i].mean())


def test_evaluate_and_predict_agree(run, drawn_images, tmp_path, capsys):
    name = run.class_names[hardest(run)]
    found = evaluate(run, min_recall={name: 0.75})
    rule = run.deciding({name: 0.75}).rule
    entry = found["decision"]
    assert entry["min_recall"] == {name: 0.75}
    row = next(row for row in entry["calibration"]["after"]["per_class"] if row["name"] == name)
    assert row["recall"] >= 0.75
    assert found["accuracy"] == entry["test"]["after"]["accuracy"]
    assert evaluate(run)["decision"] is None
    files = sorted(drawn_images.rglob("*.png"))[::4]
    for item in predict(run, files, min_recall={name: 0.75}):
        p = np.array(list(item.probabilities.values()))
        if rule.margin(p[None])[0] > 1e-4:
            assert item.label == run.class_names[rule.decide(p[None])[0]]
        assert item.likeliest == run.class_names[p.argmax()]
        assert item.confidence == item.probabilities[item.label]
    table = tmp_path / "answers.csv"
    words = ["predict", str(run.path), str(files[0]), "--csv", str(table), "--min-recall", f"{name}=0.75"]
    assert main(words) == FINE
    with open(table, newline="") as file:
        assert next(csv.DictReader(file))["likeliest"] in run.class_names
    assert main(["evaluate", str(run.path), "--min-recall", f"{name}=0.75"]) == FINE
    assert f"rule: the likeliest class, with {name} times" in capsys.readouterr().out
    assert main(["evaluate", str(run.path), "--min-recall", "green=0.5"]) == WRONG_USAGE


def test_a_run_without_calibration_images_says_so(rejecting, tmp_path):
    folder = shutil.copytree(rejecting, tmp_path / "run")
    (folder / CALIBRATION).unlink()
    tiny.seal_again(folder)
    old = load_run(folder)
    assert old.rule is None
    assert old.prediction_sets is not None
    with pytest.raises(InputError, match="has kept no answers to choose weights and costs by"):
        old.deciding({old.class_names[0]: 0.9})
    shutil.copy(rejecting / "metrics.json", folder / CALIBRATION)
    with pytest.raises(InputError, match="cannot be read"):
        load_run(folder).deciding({old.class_names[0]: 0.9})


def test_several_runs_together():
    one = Prediction("i.png", "a", 0.6, {"a": 0.6, "b": 0.4})
    both = [one, Prediction("i.png", "a", 0.8, {"a": 0.8, "b": 0.2})]
    together = mean_prediction(both, rule=DecisionRule(np.array([1, 3.0])))
    assert (together.label, together.likeliest) == ("b", "a")
    assert together.confidence == pytest.approx(0.3)
    assert mean_prediction(both).likeliest is None

    def entry(weight):
        rows = [
            {"name": "a", "weight": 1.0, "surely_from": 0.5},
            {"name": "b", "weight": weight, "surely_from": 0},
        ]
        return {"unsupported": None, "costs": None, "classes": rows}

    assert mean_decision([entry(2.0), entry(8.0)])["classes"][1]["weight"] == pytest.approx(4)
    assert mean_decision([entry(2.0), None]) is None


def test_an_export_that_names_other_classes_is_found():
    probabilities = np.array([[0.6, 0.4], [0.9, 0.1], [0.76, 0.24]])
    rule = DecisionRule(np.array([1, 3.0]))
    answers = {"probabilities": probabilities, "label": rule.decide(probabilities)}
    expected = to_rule(answers, rule)
    assert changed_several(expected, answers, 1e-2) is None  # that is for several labels per image
    changed, clear = changed_labels(expected, {"label": np.array([0, 0, 0])}, 1e-2)
    assert changed.tolist() == clear.tolist() == [True, False, False]
    assert to_rule(answers, None) == {}
    assert changed_labels({}, answers, 1e-2) is None
