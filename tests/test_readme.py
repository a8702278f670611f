"""What README shows, run word for word."""

import re
from pathlib import Path

import pytest
from PIL import Image

from keras_vit.cli import parse
from keras_vit.data.steel import draw_steel_defects

README = (Path(__file__).parent.parent / "README.md").read_text(encoding="utf-8")


@pytest.mark.long
def test_the_python_way(tmp_path, monkeypatch):
    drawn = draw_steel_defects(images_per_class=12, size=32)
    for name, pixels in zip(drawn.names, drawn.images, strict=True):
        path = tmp_path / "images" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(pixels[..., 0]).save(path)
    monkeypatch.chdir(tmp_path)
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    names: dict = {}
    exec(code, names)
    assert len(names["model"].history.history["val_accuracy"]) == 10
    assert [x.shape for x in names["attention"]] == [(12, 4, 50, 50)] * 6


def test_the_commands_are_understood(tmp_path, monkeypatch):
    best = tmp_path / "searches" / "first" / "best.json"
    best.parent.mkdir(parents=True)
    best.write_text("{}")
    monkeypatch.chdir(tmp_path)
    lines = re.findall(r"^\.venv/bin/keras-vit (.*?)\s*(?:#.*)?$", README, re.MULTILINE)
    verbs = [parse(line.split()) for line in lines]
    names = ["Inspect", "Train", "Evaluate", "Predict", "Train", "Train"]
    assert [type(verb).__name__ for verb in verbs] == names
