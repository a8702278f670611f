"""`keras-vit suggest`: which images to label next."""

import json
import re
import shutil

import numpy as np
import pytest
from PIL import Image

from keras_vit.cli.main import main
from keras_vit.errors import InputError
from keras_vit.files import read_csv
from keras_vit.process.exit_codes import FINE, INCOMPLETE, WRONG_USAGE
from keras_vit.runs.folder import load_run
from keras_vit.runs.suggest import suggest
from tests.helpers import tiny

pytestmark = pytest.mark.same_on_every_backend


@pytest.fixture
def new(tmp_path):
    """Images of the kind that the run knows, in a nested folder."""
    rng = np.random.default_rng(5)
    for name in tiny.CLASSES:
        for i in range(6):
            path = tmp_path / "new" / "a b" / f"{name} <{i}>.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(tiny.pixels(name, rng, (28, 28))).save(path)
    return tmp_path / "new"


def page_data(folder):
    source = (folder / "index.html").read_text(encoding="utf-8")
    return json.loads(re.search(r'id="data">(.*?)</script>', source, re.DOTALL)[1])


def test_a_table_and_a_page(trained, new, tmp_path, capsys):
    out, images = tmp_path / "out", load_run(trained[0]).images
    (new / "broken.png").write_bytes(b"\x89PNG no")
    rows = [row for row in images.rows if row["part"] == "train"]
    source = load_run(trained[0]).config["data"]["root"]
    shutil.copy(f"{source}/{rows[0]['path']}", new / "a copy.png")
    command = ["suggest", str(trained[0]), str(new), "--count", "5", "--out", str(out)]
    assert main(command) == INCOMPLETE
    said = capsys.readouterr().out
    assert "unreadable: broken.png: " in said
    assert re.search(r"5 of \d+ images to label; left out: 1 unreadable, \d+ that the run has", said)
    table = read_csv(out / "suggest.csv")
    assert list(table[0]) == ["path", "sha256", "score", "suggested", "confidence", "reject"]
    assert len({row["path"] for row in table}) == 5
    assert not any(row["path"].endswith(("a copy.png", "broken.png")) for row in table)
    data = page_data(out)
    assert data["task"] == "labels"
    assert sorted(one["at"] for one in data["images"]) == sorted(row["path"] for row in table)
    assert all(one["path"].startswith("a b/") for one in data["images"])
    parts = {part: len(images.of_part(part)) for part in ("train", "validation", "test")}
    assert {part: [row["part"] for row in data["labelled"]].count(part) for part in parts} == parts
    assert main(command) == WRONG_USAGE
    assert "exists already: choose another --out" in capsys.readouterr().err


def test_of_images_that_show_the_same_thing_one_is_suggested(trained, new):
    for path in sorted(new.rglob("*.png"))[:4]:
        shutil.copy(path, path.with_name(f"copy of {path.name}"))
    found = suggest(load_run(trained[0]), new, 1000)
    hashes = [item.sha256 for item in found.images]
    assert len(set(hashes)) == len(hashes)
    scores = [item.score for item in found.images]
    assert scores == sorted(scores, reverse=True)
    assert [item.name for item in suggest(load_run(trained[0]), new, 3).images] == [
        item.name for item in suggest(load_run(trained[0]), new, 3).images
    ]


def test_a_run_whose_images_are_gone(trained, new, tmp_path, capsys, monkeypatch):
    monkeypatch.setattr("keras_vit.runs.judged_images.find_root", lambda *_: str(tmp_path / "gone"))
    out = tmp_path / "out"
    assert main(["suggest", str(trained[0]), str(new), "--count", "2", "--out", str(out)]) == FINE
    said = capsys.readouterr().out
    assert (
        "near duplicates of the run's images are not left out, and labels.jsonl lacks these: No such" in said
    )
    assert "labelled" not in page_data(out)


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda path: path.mkdir(), "holds no images"),
        (lambda path: path.write_bytes(b""), "is not a folder"),
        (lambda path: None, "is not a folder"),
    ],
)
def test_folders_without_images(trained, tmp_path, make, words):
    make(tmp_path / "folder")
    with pytest.raises(InputError, match=words):
        suggest(load_run(trained[0]), tmp_path / "folder")


def test_only_images_that_the_run_has(trained):
    run = load_run(trained[0])
    with pytest.raises(
        InputError, match=r"has no image to label \(\d+ that the run has, or nearly the same\)"
    ):
        suggest(run, run.config["data"]["root"])


def test_a_wrong_count(capsys):
    assert main(["suggest", "run", "new", "--count", "0"]) == WRONG_USAGE
    assert "--count must be 1 or more. Received: 0" in capsys.readouterr().err
