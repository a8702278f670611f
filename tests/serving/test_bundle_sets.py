"""Prediction sets and referral in the bundle: the answers of `predict`, and the files beside the model."""

import json
import math
import shutil

import numpy as np
import pytest

from keras_vit.errors import InputError
from keras_vit.evaluation.prediction_sets import PredictionSets
from keras_vit.files import read_json, write_json
from keras_vit.runs.folder import METRICS, load_run
from keras_vit.runs.predict import predict
from keras_vit.serving import comparison, set_comparison
from keras_vit.serving.saved_model import TOLERANCE, SavedModelFile
from keras_vit.serving.serving_json import sets_entry
from tests.helpers import tiny

pytestmark = pytest.mark.same_on_every_backend


def test_the_bundle_answers_as_predict(bundle, run, drawn_images):
    files = sorted(drawn_images.rglob("*.png"))[::2]
    model, names = SavedModelFile(bundle.path), load_run(run).class_names
    found = model("serving_default", [path.read_bytes() for path in files] + [b"no image"])
    expected = predict(run, files)
    sets = [{names[i] for i in np.flatnonzero(row)} for row in found["prediction_set"]]
    assert sets == [*(set(item.prediction_set) for item in expected), set()]
    assert found["refer"].tolist() == [*(int(item.refer) for item in expected), 1]
    assert {item.refer for item in expected} == {True, False}
    assert (found["prediction_set"].dtype, found["refer"].dtype) == (np.int32, np.int32)
    empty = model("images", np.zeros((0, 28, 28, 1), "float32"))
    assert (empty["prediction_set"].shape, empty["refer"].shape) == ((0, 3), (0,))
    assert "the same prediction set for 24, the same refer for 24" in bundle.printed


def test_what_is_written_beside_the_model(bundle, run):
    sets = load_run(run).prediction_sets
    entry = json.loads((bundle.path / "assets.extra" / "serving.json").read_text())["prediction_sets"]
    assert entry["log_odds"] == sets.thresholds.tolist()
    for odds, probability in zip(entry["log_odds"], entry["probability"], strict=True):
        assert math.log(probability / (1 - probability)) == pytest.approx(odds, abs=1e-6)
    assert (entry["level"], entry["refer_below"]) == (0.95, None)
    assert entry["refer"] == "1 if the set is not the label alone"
    card = (bundle.path / "model_card.md").read_text()
    assert "## What to hand to a person" in card
    assert "the thresholds come from 24 calibration images: the validation images." in card


def test_a_run_of_before_is_served_without_sets(run, tmp_path):
    from keras_vit.serving.graph import ServedGraph

    folder = shutil.copytree(run, tmp_path / "run")
    metrics = read_json(folder / METRICS)
    del metrics["prediction_sets"], metrics["referral"]
    write_json(folder / METRICS, metrics)
    tiny.seal_again(folder)
    old = load_run(folder)
    answers = ServedGraph(old).classify_prepared(np.zeros((2, 28, 28, 1), "float32"), np.array([True, False]))
    assert set(answers) == {"probabilities", "label", "confidence", "reject"}
    assert sets_entry(old) == {"prediction_sets": None}


# What an export may change


def answered(odds, sets):
    odds = np.asarray(odds, "float32")
    shares = 1 / (1 + np.exp(-odds.astype("float64")))
    shares /= shares.sum(axis=1, keepdims=True)
    answers = {
        "log_odds": odds,
        "prediction_set": sets.members(odds).astype("int32"),
        "refer": sets.refers(odds).astype("int32"),
    }
    return {
        "probabilities": shares,
        "features": np.zeros((len(odds), 2)),
        "distance": np.zeros(len(odds)),
        "reject": np.zeros(len(odds), "int32"),
        **set_comparison.to_thresholds(answers, sets),
    }


SETS = {
    "by the set": PredictionSets(np.array([0.0, -1.0, -2.0])),
    "by confidence": PredictionSets(np.array([0.0, -1.0, -2.0]), refer_below=1.0),
}
ODDS = [[2.0, -3.0, -4.0], [0.9, -0.995, -5.0], [0.999, -1.5, -2.5]]


@pytest.mark.parametrize("rule", SETS)
@pytest.mark.parametrize(
    ("name", "image", "refused"),
    [
        ("prediction_set", 0, "get another prediction set"),
        ("prediction_set", 1, None),
        ("refer", 0, "are referred by one only"),
        ("refer", 1, {"by the set": None, "by confidence": "are referred by one only"}),
        ("refer", 2, {"by the set": "are referred by one only", "by confidence": None}),
    ],
)
def test_only_ties_may_change(name, image, refused, rule):
    expected = answered(ODDS, SETS[rule])
    found = {key: np.array(values) for key, values in expected.items()}
    if name == "prediction_set":
        found[name][image, 1] = 1 - found[name][image, 1]
    else:
        found[name][image] = 1 - found[name][image]
    refused = refused[rule] if isinstance(refused, dict) else refused
    if refused:
        with pytest.raises(InputError, match=refused):
            comparison.compare_answers(expected, found, TOLERANCE["float32"])
    else:
        same = comparison.compare_answers(expected, found, TOLERANCE["float32"])
        counts = {"prediction_set": same.same_set, "refer": same.same_refer}
        assert counts.pop(name) == 2
        assert list(counts.values()) == [3]
        assert "the same prediction set for" in same.line()
