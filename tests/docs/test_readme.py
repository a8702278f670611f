"""The code and the commands in README.md, run exactly as they are shown."""

import re

import pytest

from keras_vit.cli.main import parse
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
    names = ["Inspect", "Train", "Evaluate", "Predict", "Train", "Search", "Train", "Export", "Request"]
    assert [type(command).__name__ for command in commands] == names
