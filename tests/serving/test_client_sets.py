"""The client on prediction sets and referral, which models of earlier versions do not answer."""

import json

import numpy as np
import pytest

from keras_vit.cli.main import main
from keras_vit.errors import ServerError
from keras_vit.process.exit_codes import FINE
from keras_vit.serving import client
from tests.serving.brightness_model import CLASSES
from tests.serving.protocols import ask, both

pytestmark = pytest.mark.same_on_every_backend


def with_sets(outputs):
    members = (outputs["probabilities"] >= 0.2).astype("int32")
    return {**outputs, "prediction_set": members, "refer": (members.sum(axis=1) != 1).astype("int32")}


@both
def test_sets_of_a_server(double, protocol, bright_files):
    plain = ask(double, protocol, bright_files)
    assert {(answer.prediction_set, answer.refer) for answer in plain} == {(None, None)}
    double.change = with_sets
    found = ask(double, protocol, bright_files)
    for answer, without in zip(found, plain, strict=True):
        order = np.argsort(-np.array(answer.probabilities))
        expected = tuple(int(i) for i in order if answer.probabilities[i] >= 0.2)
        assert answer.prediction_set == expected
        assert answer.refer is (len(expected) != 1)
        assert (answer.label, answer.reject) == (without.label, without.reject)
    assert {answer.refer for answer in found} == {True, False}
    named = client.to_json(found, CLASSES)
    assert [item["prediction_set"] for item in named] == [
        [CLASSES[i] for i in answer.prediction_set] for answer in found
    ]


@both
def test_the_command(double, protocol, bright_files, capsys):
    words = ["request", getattr(double, protocol), *map(str, bright_files), "--protocol", protocol]
    double.change = with_sets
    assert main(words) == FINE
    head, *lines = capsys.readouterr().out.splitlines()
    assert head.split() == ["image", "label", "confidence", "reject", "refer"]
    assert main([*words, "--json"]) == FINE
    answers = json.loads(capsys.readouterr().out)
    assert [line.split()[-1] for line in lines] == [{True: "yes", False: "no"}[a["refer"]] for a in answers]


def changed(name, change):
    return lambda outputs: {**with_sets(outputs), name: change(with_sets(outputs)[name])}


def only(name):
    return lambda outputs: {key: value for key, value in with_sets(outputs).items() if key != name}


WRONG = {
    "a set without refer": (only("refer"), "only one of prediction_set and refer is there"),
    "refer without a set": (only("prediction_set"), "only one of prediction_set and refer is there"),
    "half a class": (changed("prediction_set", lambda v: v * np.float32(0.5)), "neither 0 nor 1"),
    "refer 2": (changed("refer", lambda v: v + 2), r"not all in 0\.\.1"),
    "refer 0.5": (changed("refer", lambda v: np.full(5, 0.5, "float32")), "neither 0 nor 1"),
    "a class too few": (changed("prediction_set", lambda v: v[:, :-1]), "5 images were sent"),
    "flat": (changed("prediction_set", lambda v: v[:, 0]), "5 images were sent"),
    "text": (changed("refer", lambda v: np.array([b"1"] * 5, object)), "is not a number"),
}


@both
@pytest.mark.parametrize(("change", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_sets(change, message, double, protocol, bright_files):
    double.change = change
    with pytest.raises(ServerError, match=message):
        ask(double, protocol, bright_files)


@both
@pytest.mark.parametrize("name", ["prediction_set", "refer"])
def test_an_image_that_is_not_decoded_has_no_set(name, double, protocol, tmp_path):
    (tmp_path / "text.png").write_text("no image")

    def change(outputs):
        made = {
            **with_sets(outputs),
            "refer": np.ones(1, "int32"),
            "prediction_set": np.zeros((1, 3), "int32"),
        }
        return {**made, name: 1 - made[name]} if wrong else made

    double.change, wrong = change, False
    (answer,) = ask(double, protocol, [tmp_path / "text.png"])
    assert (answer.label, answer.prediction_set, answer.refer) == (None, (), True)
    wrong = True
    with pytest.raises(ServerError, match="has a prediction set, or is not referred"):
        ask(double, protocol, [tmp_path / "text.png"])
