"""Finished runs on the same images."""

import csv
import json
import shutil

import numpy as np
import pytest
from PIL import Image

import keras_vit
from keras_vit.cli.main import main
from keras_vit.errors import InputError
from keras_vit.evaluation.pairs import mcnemar
from keras_vit.files import read_csv, write_csv
from keras_vit.process.exit_codes import FINE, WRONG_USAGE
from keras_vit.runs.compare import compare_runs
from keras_vit.runs.images import IMAGES
from tests.helpers import tiny
from tests.report.pages import Page, check_accessible, check_self_contained


@pytest.fixture(scope="module")
def other(trained, tmp_path_factory):
    """The same run with a head that prefers another class."""
    folder = tmp_path_factory.mktemp("runs") / "other"
    shutil.copytree(trained[0], folder)
    model = keras_vit.load_run(folder).model
    weights = model.get_weights()
    weights[-1] = weights[-1] + np.array([3.0, 0.0, -3.0], weights[-1].dtype)
    model.set_weights(weights)
    model.save(folder / "model.keras")
    tiny.seal_again(folder)
    return folder


@pytest.fixture
def new_images(tmp_path):
    """Images that no run knows."""
    rng = np.random.default_rng(5)
    for kind in tiny.CLASSES:
        (tmp_path / "new" / kind).mkdir(parents=True)
        for i in range(12):
            Image.fromarray(tiny.pixels(kind, rng)).save(tmp_path / "new" / kind / f"{i}.png")
    return tmp_path / "new"


def test_on_new_images_as_evaluate_says(trained, other, new_images):
    found = compare_runs([trained[0], other], str(new_images))
    for run, one in zip((trained[0], other), found.figures["accuracy"], strict=True):
        judged = keras_vit.evaluate(run, str(new_images))
        assert one["correct"] == judged["correct"]
        assert one["interval"] == pytest.approx(judged["accuracy_interval"])
    (row,) = found.figures["against_first"]
    predicted = [keras_vit.predict(run, sorted(new_images.rglob("*.png"))) for run in (trained[0], other)]
    right = [[one.label in one.image.split("/") for one in answers] for answers in predicted]
    only = [sum(a and not b for a, b in zip(*pair, strict=True)) for pair in (right, right[::-1])]
    assert [row["only_first"], row["only_this"]] == only
    assert row["p_value"] == pytest.approx(mcnemar(*only))
    changed = {str(new_images / one["path"]) for one in found.rows()}
    assert changed == {a.image for a, b in zip(*predicted, strict=True) if a.label != b.label}
    assert len(changed) > 0


@pytest.mark.same_on_every_backend
def test_own_test_images_by_default(trained, other):
    found = compare_runs([trained[0], other])
    run = keras_vit.load_run(trained[0])
    tests = [run.images.rows[i]["path"] for i in run.images.of_part("test")]
    assert [one.name for one in found.images] == tests
    assert found.figures["accuracy"][0]["correct"] == run.metrics["best"]["correct"]
    assert any("so few show only large differences" in note for note in found.notes)


@pytest.mark.same_on_every_backend
def test_images_that_a_run_has_learned_from_are_left_out(trained, other, images, new_images):
    run = keras_vit.load_run(trained[0])
    learned = run.images.of_part("train", "validation")
    assert len(learned) > 0
    data = new_images.parent / "both"
    shutil.copytree(images, data)
    for path in new_images.rglob("*.png"):
        shutil.copy(path, data / path.parent.name / f"new_{path.name}")
    found = compare_runs([trained[0], other], str(data))
    assert found.figures["images"] == 3 * 24 - len(learned)
    assert f"{len(learned)} images left out, from which trained has learned" in found.notes
    for path in data.rglob("new_*"):
        path.unlink()
    for i in run.images.of_part("test"):
        (data / run.images.rows[i]["path"]).unlink()
    with pytest.raises(InputError, match="No image is new to all of these runs"):
        compare_runs([trained[0], other], str(data))


@pytest.mark.same_on_every_backend
def test_runs_of_other_splits_share_the_images_that_are_new_to_both(trained, other, tmp_path):
    """The second run learned from two test images of the first, and was tested on two others."""
    folder = shutil.copytree(other, tmp_path / "other")
    rows = read_csv(folder / IMAGES)
    tests = [row for row in rows if row["part"] == "test"]
    learned = [row for row in rows if row["part"] == "train"][:2]
    for row in (*tests[:2], *learned):
        row["part"] = "train" if row["part"] == "test" else "test"
    relabelled = tests[2]
    relabelled["label"] = next(name for name in tiny.CLASSES if name != relabelled["label"])
    write_csv(folder / IMAGES, rows)
    config = json.loads((folder / "config.json").read_text())
    config["data"]["fixes"] = [
        {
            "path": relabelled["path"],
            "sha256": relabelled["sha256"],
            "action": "relabel",
            "label": relabelled["label"],
        }
    ]
    (folder / "config.json").write_text(json.dumps(config))
    tiny.seal_again(folder)
    found = compare_runs([trained[0], folder])
    assert {one.name for one in found.images} == {row["path"] for row in tests[3:]}
    count = len(tests)
    assert list(found.notes[:3]) == [
        f"of the {count} images that trained was tested on, {count - 2} are compared: a run has learned from "
        "the others",
        f"of the {count} images that other was tested on, {count - 2} are compared: a run has learned from "
        "the others",
        "1 image left out, whose labels differ between the runs",
    ]


@pytest.mark.same_on_every_backend
def test_page_table_and_json(trained, other, new_images, tmp_path, capsys):
    words = [
        "compare",
        str(trained[0]),
        str(other),
        "--data",
        str(new_images),
        "--out",
        str(tmp_path / "page"),
    ]
    assert main(words) == FINE
    printed = capsys.readouterr().out
    assert "McNemar, p " in printed
    assert f"report: {tmp_path / 'page' / 'report.html'}" in printed
    page = Page((tmp_path / "page/report.html").read_text())
    check_self_contained(page)
    check_accessible(page)
    assert "Differences from trained" in page.text
    figures = json.loads((tmp_path / "page/comparison.json").read_text())
    with open(tmp_path / "page/changed.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["path"] for row in rows] == [one["path"] for one in figures["changed"]]
    assert len(page.all("img")) == len(rows)
    assert main([*words[:-2], "--json"]) == FINE
    assert json.loads(capsys.readouterr().out) == figures
    assert main(words) == WRONG_USAGE
    assert "exists already: give --out a new folder" in capsys.readouterr().err


@pytest.mark.same_on_every_backend
def test_three_runs_with_a_hostile_name(trained, other, new_images, tmp_path, capsys, monkeypatch):
    third = shutil.copytree(other, tmp_path / "<b>third")
    monkeypatch.chdir(tmp_path)
    assert main(["compare", str(trained[0]), str(other), str(third), "--data", str(new_images)]) == FINE
    printed = capsys.readouterr().out
    assert printed.count("after Holm") == 2
    page = Page((tmp_path / "comparisons/trained-and-other-and-b-third/report.html").read_text())
    assert "<b>third" in page.text
    assert len([attributes for attributes in page.all("b")]) == 0


@pytest.mark.same_on_every_backend
def test_what_is_refused(trained, other, tmp_path, capsys):
    run = str(trained[0])
    for words, message in (
        ([run, run], "is given twice: give each run once"),
        ([run, str(tmp_path)], "is not a run folder"),
        ([run, str(other), "--models", "cnn"], "--models is for a comparison of models on images"),
        ([run, str(other), "--crop-boxes"], "--crop-boxes is for --data"),
    ):
        assert main(["compare", *words]) == WRONG_USAGE
        assert message in capsys.readouterr().err
