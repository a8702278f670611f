"""The code and the commands in README.md, run exactly as they are shown."""

import re

import pytest

from keras_vit.cli.main import parse
from keras_vit.model.vit import ViT
from tests.distribution import steps, test_equal
from tests.helpers.image_files import write_drawn
from tests.helpers.paths import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")


@pytest.mark.long
def test_the_python_example(tmp_path, monkeypatch):
    write_drawn(tmp_path / "images", 12)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict = {}
    exec(code, names)
    assert len(names["model"].history.history["val_accuracy"]) == 10
    assert [x.shape for x in names["attention"]] == [(12, 4, 50, 50)] * 6


def test_the_commands_are_valid(tmp_path, monkeypatch):
    best = tmp_path / "searches" / "first" / "best.json"
    best.parent.mkdir(parents=True)
    best.write_text("{}")
    monkeypatch.chdir(tmp_path)
    lines = re.findall(r"^\.venv/bin/keras-vit (.*?)\s*(?:#.*)?$", README, re.MULTILINE)
    commands = [parse(line.split()) for line in lines]
    names = ["Audit", "Train", "Evaluate", "Predict", "Predict", "Compare", "Explain"]  # your own images
    names += ["Train", "Suggest"]
    names += ["Train", "Predict", "Train", "Evaluate"]  # what to hand to a person
    names += ["Train", "Compare", "Search", "Train", "Export", "Request", "Serve"]
    assert [type(command).__name__ for command in commands] == names


@pytest.mark.same_on_every_backend
def test_the_claim_about_several_devices_is_that_of_its_test():
    claim = " ".join(README.split())
    digits = f"{test_equal.TOLERANCE:.0e}".replace("e-0", "e-")
    assert f"{test_equal.STEPS} steps in float32 of a small model without dropout" in claim
    assert f"agree with one device to {digits}." in claim
    model = ViT(image_shape=(16, 16, 1), num_classes=3, **steps.MODEL)
    rates = ("dropout_rate", "attention_dropout_rate", "drop_path_rate")
    assert [getattr(model.config, rate) for rate in rates] == [0, 0, 0]
