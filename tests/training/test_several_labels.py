import json

import numpy as np
import pytest
from PIL import Image

import keras_vit
from keras_vit.cli.main import main
from keras_vit.data.sources import load_image_set
from keras_vit.errors import InputError
from keras_vit.files import read_table
from keras_vit.runs.suggest import suggest
from keras_vit.training.config import TrainConfig
from keras_vit.training.recipe import Recipe

pytestmark = pytest.mark.same_on_every_backend


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A run on bright corners, which are the labels: 0 to 2 per image."""
    folder = tmp_path_factory.mktemp("labels")
    rng, lines = np.random.RandomState(0), ["path,left,right"]
    for i in range(60):
        left, right = rng.rand(2) < 0.5
        pixels = rng.randint(0, 60, (16, 16)).astype(np.uint8)
        pixels[:8, :8] += 150 * np.uint8(left)
        pixels[8:, 8:] += 150 * np.uint8(right)
        Image.fromarray(pixels).save(folder / f"{i}.png")
        lines.append(f"{i}.png,{int(left)},{int(right)}")
    (folder / "t.csv").write_text("\n".join(lines))
    recipe = Recipe(epochs=2, batch_size=8, warmup_epochs=0, xla=False)
    config = TrainConfig(
        data=str(folder / "t.csv"), model="defect/4", image_size=16, recipe=recipe, split_duplicates="keep"
    )
    return keras_vit.train(config, changes={"depth": 1, "dim": 16, "num_heads": 2}, out=folder / "run")


def test_the_run_knows_that_images_have_several_labels(run):
    assert run.several
    assert run.config["train"]["several_labels"]
    assert run.metrics["task"] == "several labels"
    rows = read_table(run.path / "images.csv")
    assert {row["label"] for row in rows} == {"[]", '["left"]', '["right"]', '["left", "right"]'}
    page = (run.path / "report.html").read_text()
    assert "Mean average precision" in page
    assert "Confusion matrix" not in page


def test_its_answers_are_those_of_its_thresholds(run, tmp_path, capsys):
    image = run.path.parent / "0.png"
    (found,) = keras_vit.predict(run, [image])
    thresholds = dict(zip(run.class_names, run.thresholds, strict=True))
    assert set(found.labels) == {name for name, p in found.probabilities.items() if p >= thresholds[name]}
    main(["predict", str(run.path), str(image), "--csv", str(tmp_path / "a.csv")])
    (row,) = read_table(tmp_path / "a.csv")
    assert json.loads(row["labels"]) == list(found.labels)
    assert float(row["probability left"]) == pytest.approx(found.probabilities["left"], abs=1e-5)


def test_it_is_evaluated_as_it_was_trained(run):
    found = keras_vit.evaluate(run)
    for key in ("mean_average_precision", "macro_f1", "accuracy"):
        assert found[key] == pytest.approx(run.metrics["best"][key])
    assert keras_vit.evaluate(run, str(run.path / "images.csv"))["images"] == 60


def test_what_is_for_one_class_is_refused(run):
    with pytest.raises(InputError, match="omit --accept-risk"):
        keras_vit.evaluate(run, accept_risk=0.1)
    for changes in (
        {"class_weights": "balanced"},
        {"sampling": "balanced"},
        {"best_by": "balanced_accuracy"},
    ):
        config = TrainConfig(data=run.config["train"]["data"], recipe=Recipe(**changes))
        with pytest.raises(InputError, match="for one class per image: omit it"):
            keras_vit.train(config, out=run.path.parent / "refused")
    assert not (run.path.parent / "refused").exists()


def test_suggest_asks_for_several_labels(run, tmp_path):
    rng = np.random.RandomState(9)
    for i in range(8):
        Image.fromarray(rng.randint(0, 200, (16, 16)).astype(np.uint8)).save(tmp_path / f"{i}.png")
    found = suggest(run, tmp_path, count=3)
    assert len(found.images) == 3
    assert all(set(json.loads(item.label)) <= {"left", "right"} for item in found.images)
    assert all(0 <= item.score <= 1 for item in found.images)
    # The table that the page saves: the images of the run, and new ones that a person has labelled.
    new = [{"path": str(item.path), "label": '["left", "right"]', "part": "train"} for item in found.images]
    rows = [json.dumps(row) for row in (*found.labelled, *new)]
    (tmp_path / "labels.jsonl").write_text("\n".join(rows))
    together = load_image_set(tmp_path / "labels.jsonl")
    assert together.several
    assert together.class_names == ("left", "right")
    assert len(together) == len(found.labelled) + 3
    assert run.images is not None
    assert len(found.labelled) == len(run.images.of_part("train", "validation", "test"))
