import csv
import json
import shutil

import keras
import numpy as np
import pytest

from keras_vit.process.exit_codes import FINE, WRONG_USAGE
from tests.helpers import tiny

FAST = ("--image-size", 28, "--epochs", 1, "--batch-size", 8)


def rows(folder):
    with open(folder / "results.csv", newline="") as file:
        return [
            {name: text for name, text in row.items() if name != "seconds"} for row in csv.DictReader(file)
        ]


@pytest.mark.long
@pytest.mark.same_on_every_backend
def test_models_are_compared_and_the_same_command_continues(images, tmp_path, compare, monkeypatch):
    from keras_vit.comparison.run import Work

    words = (images, *FAST, "--models", "cnn", "--per-class", 3, "all", "--repeats", 1)
    code, printed, _ = compare(*words, "--out", tmp_path / "whole")
    assert code == FINE
    assert "2 trainings: about" in printed
    assert printed.index("2 trainings") < printed.index("1/2  cnn")
    assert f"report: {tmp_path / 'whole' / 'report.html'}" in printed
    found = json.loads((tmp_path / "whole" / "comparison.json").read_text())
    assert f"advice: {found['advice']}" in printed
    assert [(row["per_class"], row["model"]) for row in found["table"]] == [(3, "cnn"), ("all", "cnn")]
    by_number = {row["per_class"]: row for row in found["table"]}
    assert by_number[3]["training_images"] == 9
    assert by_number["all"]["training_images"] == 30  # 12 of each of 3 classes, 2 of them for the test
    assert all(row["test_images"] == 6 for row in found["table"])

    # The network of all images is kept, for who is advised to take it.
    assert found["kept"] == {"cnn": "models/cnn.keras"}
    assert f"a plain CNN, trained on all images: {tmp_path / 'whole' / 'models' / 'cnn.keras'}" in printed
    network = keras.saving.load_model(tmp_path / "whole" / "models" / "cnn.keras")
    probabilities = network.predict(np.zeros((2, 28, 28, 1), "float32"), verbose=0)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1, rtol=1e-5)

    # Cut off in the middle of the second training, then continued.
    train, began = Work.train, []

    def cut_off(work, cell):
        began.append(cell)
        if len(began) == 2:
            raise KeyboardInterrupt
        return train(work, cell)

    monkeypatch.setattr(Work, "train", cut_off)
    code, _, error = compare(*words, "--out", tmp_path / "cut")
    assert code != FINE
    assert "The same command continues" in error
    assert "Left out: 1 training to be done." in (tmp_path / "cut" / "report.html").read_text("utf-8")
    assert len(list((tmp_path / "cut" / "cells").iterdir())) == 1
    monkeypatch.setattr(Work, "train", train)
    code, printed, _ = compare(*words, "--out", tmp_path / "cut")
    assert code == FINE
    assert "1 training: about" in printed
    assert rows(tmp_path / "cut") == rows(tmp_path / "whole")

    # Nothing is left to do: the page is only written again.
    code, printed, _ = compare(*words, "--out", tmp_path / "cut")
    assert code == FINE
    assert "trainings" not in printed
    before = tiny.tree(tmp_path / "cut")
    code, printed, _ = compare(*words, "--per-class", 3, "--json", "--out", tmp_path / "cut")
    assert code == FINE
    assert [row["per_class"] for row in json.loads(printed)["table"]] == [3]
    assert compare(*words, "--out", tmp_path / "cut")[0] == FINE
    assert tiny.tree(tmp_path / "cut") == before

    # Refused without a trace.
    for more, wanted in {
        ("--epochs", 2): "holds a comparison with other settings (epochs 1, not 2)",
        ("--seed", 2): "holds a comparison with other settings (seed 0, not 2)",
        ("--no-resume",): "holds a comparison: omit --no-resume",
    }.items():
        code, _, error = compare(*words, *more, "--out", tmp_path / "cut")
        assert code == WRONG_USAGE
        assert wanted in error
    other = shutil.copytree(images, tmp_path / "other")
    shutil.copy(other / "dots" / "0.png", other / "lines" / "0.png")
    code, _, error = compare(other, *words[1:], "--out", tmp_path / "cut")
    assert code == WRONG_USAGE
    assert "has changed since" in error
    assert tiny.tree(tmp_path / "cut") == before

    # A damaged file of a training.
    file = tmp_path / "cut" / "cells" / "cnn-3-0.json"
    for text, wanted in {
        "{}": "images is missing",
        "[": "is not JSON",
        file.read_text().replace("[", "[7, ", 1): "its answers are not those for the test images",
    }.items():
        file.write_text(text)
        code, _, error = compare(*words, "--out", tmp_path / "cut")
        assert code == WRONG_USAGE
        assert wanted in error
        assert "remove it to train this again" in error


@pytest.mark.same_on_every_backend
def test_what_cannot_be_compared_is_refused_before_anything_is_written(images, tmp_path, compare, trained):
    one = tiny.draw(tmp_path / "one", classes=("plain",))
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "notes.txt").write_text("mine")
    table = tmp_path / "labels.csv"
    table.write_text("path,labels\n" + "".join(f"{images}/dots/{i}.png,a;b\n" for i in range(9)))
    for words, wanted in {
        (tmp_path / "nothing",): "nothing",
        (one,): "holds only one class",
        (trained[0],): "is a run: give another one to compare it with",
        (images, "--out", taken): f"{taken} holds other things (notes.txt): choose another --out.",
        (table, "--allow-outside"): "labels",
        (images, "--image-size", 29): "No model is chosen for images of 29x29 pixels",
        (images, "--models", "probe"): "--models probe begins with published weights",
        (images, "--data", images): "--data names images to compare two or more run folders on",
        (images, images, "--epochs", 3): "--epochs is for a comparison of models on images",
        (images, "--folds", 20): "--folds 20 takes one of them for the test",
    }.items():
        given = words if "--out" in words else (*words, "--out", tmp_path / "out")
        code, _, error = compare(*given)
        assert code == WRONG_USAGE, (words, error)
        assert wanted in error, (words, error)
        assert not (tmp_path / "out").exists(), (words, error)
    assert [path.name for path in taken.iterdir()] == ["notes.txt"]


@pytest.mark.long
@pytest.mark.same_on_every_backend
def test_folds_test_each_image_once(images, tmp_path, compare):
    words = (images, *FAST, "--models", "cnn", "--per-class", "all", "--repeats", 1, "--folds", 2)
    code, printed, _ = compare(*words, "--json", "--out", tmp_path / "folds")
    assert code == FINE
    found = json.loads(printed)
    assert found["table"][0]["test_images"] == 36
    config = json.loads((tmp_path / "folds" / "config.json").read_text())
    labels = np.concatenate([fold["labels"] for fold in config["tested"]])
    assert np.bincount(labels).tolist() == [12, 12, 12]


@pytest.mark.long
def test_published_weights_are_compared_too(colours, source, tmp_path, compare, monkeypatch):
    from keras_vit.cache import FOLDER

    monkeypatch.setenv(FOLDER, str(tmp_path / "cache"))
    words = (colours, *FAST, "--init", source, "--models", "vit", "probe", "finetune", "--per-class", "all")
    code, _, _ = compare(*words, "--repeats", 1, "--max-minutes", 60, "--out", tmp_path / "out")
    assert code == FINE
    found = json.loads((tmp_path / "out" / "comparison.json").read_text())
    assert {row["model"] for row in found["table"]} == {"vit", "probe", "finetune"}
    assert found["left_out"] == []
    steps = {row["model"]: row["steps"] for row in found["table"]}
    assert steps["probe"] == 0
    assert steps["finetune"] == steps["vit"] >= 1
