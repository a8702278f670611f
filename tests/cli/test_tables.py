"""Commands that take images take a table of them."""

import csv
import json
import shutil

import pytest

from keras_vit.cli.main import main
from keras_vit.files import read_csv
from keras_vit.process.exit_codes import FINE, WRONG_USAGE

pytestmark = pytest.mark.same_on_every_backend


@pytest.fixture
def table(images, tmp_path):
    """A table of some images, with a label that a spreadsheet takes for a formula in a column beside it."""
    found = sorted(images.glob("*/*.png"))[::5]
    with open(tmp_path / "labels.csv", "w", newline="") as file:
        writer = csv.writer(file, delimiter=";")
        writer.writerow(["file", "label"])
        for number, path in enumerate(found):
            shutil.copy(path, tmp_path / f"={number}.png")
            writer.writerow([f"={number}.png", path.parent.name])
    return tmp_path / "labels.csv"


def test_evaluate_and_predict(trained, table, tmp_path, capsys):
    run, _ = trained
    assert main(["evaluate", str(run), "--data", str(table), "--json"]) == FINE
    judged = json.loads(capsys.readouterr().out)
    number = len(table.read_text().splitlines()) - 1
    assert sum(row["support"] for row in judged["per_class"]) == number
    assert main(["predict", str(run), str(table), "--csv", str(tmp_path / "answers.csv")]) == FINE
    names = [f"={i}.png" for i in range(number)]
    assert [row["image"] for row in read_csv(tmp_path / "answers.csv")] == names
    assert "\n'=0.png," in (tmp_path / "answers.csv").read_text()
    assert main(["predict", str(run), str(run / "images.csv"), "--json"]) == FINE
    with open(run / "images.csv", newline="") as file:
        paths = [row["path"] for row in csv.DictReader(file)]
    assert [row["image"] for row in json.loads(capsys.readouterr().out.splitlines()[-1])] == paths


def test_inspect_a_run(trained, capsys):
    run, _ = trained
    assert main(["inspect", str(run / "images.csv"), "--json"]) == FINE
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    counts = {"train": 0, "validation": 0, "test": 0}
    with open(run / "images.csv", newline="") as file:
        for row in csv.DictReader(file):
            counts[row["part"]] += 1
    assert found["images"] == sum(counts.values())


WRONG = {
    "boxes of a folder": (
        ["inspect", "{images}", "--crop-boxes"],
        "is not a table, so it has no boxes to crop",
    ),
    "boxes of a run": (
        ["evaluate", "{run}", "--crop-boxes"],
        "The run's own images are read as it was trained",
    ),
    "a heatmap of a table": (
        ["predict", "{run}", "{table}", "--heatmap", "maps"],
        "--heatmap takes image files",
    ),
    "a table without boxes": (
        ["inspect", "{table}", "--crop-boxes"],
        "has no boxes to crop: add a column bbox",
    ),
}


@pytest.mark.parametrize(("words", "told"), WRONG.values(), ids=WRONG)
def test_wrong_commands(trained, images, table, capsys, words, told):
    words = [word.format(images=images, run=trained[0], table=table) for word in words]
    assert main(words) == WRONG_USAGE
    assert told in capsys.readouterr().err
