"""best.json: `keras-vit train --config best.json` trains the best point in the way the search did."""

import csv
import dataclasses
import json

import keras_tuner
import pytest

from keras_vit.cli.main import main, parse
from keras_vit.data.pipeline import load_data
from keras_vit.errors import InputError
from keras_vit.evaluation.trials import SearchRecord, TrialRecord
from keras_vit.runs.folder import load_run
from keras_vit.search import Range, SearchSpace, ViTHyperModel
from keras_vit.search.best import best_config, train_config_at, write_best
from keras_vit.search.config import SearchConfig
from keras_vit.search.config import to_dict as config_to_dict
from keras_vit.training import train as training
from keras_vit.training.config import TrainConfig, to_dict
from keras_vit.training.config_file import read_config
from keras_vit.training.optimizer import compile_model
from keras_vit.training.prepare import prepare_data
from keras_vit.training.recipe import Recipe
from keras_vit.training.start import build_from_scratch
from tests.helpers import tiny

NO_XLA = None if tiny.BACKEND == "jax" else False
BASE = TrainConfig(seed=4, recipe=Recipe(xla=NO_XLA, label_smoothing=0.05, ema_decay=0.9, warmup_epochs=1.0))
SPACE = SearchSpace(epochs=2, dim=Range(8, 64, default=16), batch_size=8)
POINTS = {
    "conv": (SPACE, dict(depth=1, num_heads=4, dim=16, stem="conv", augmentation=0.0, learning_rate=1e-3)),
    "linear": (SPACE, dict(depth=2, num_heads=2, dim=24, stem="linear", drop_path_rate=0.1, mlp_ratio=4)),
    "another size": (
        dataclasses.replace(SPACE, model="S", patch_size=7, stem="linear", mlp_ratio=1),
        dict(depth=1, num_heads=2, dim=16, weight_decay=0.01, augmentation=1.0),
    ),
}


@pytest.mark.long
@pytest.mark.parametrize(
    ("space", "chosen"),
    [
        # How settings become a run is the same on every backend. The random branches of one point are not.
        pytest.param(*point, id=name, marks=[] if name == "linear" else pytest.mark.same_on_every_backend)
        for name, point in POINTS.items()
    ],
)
def test_the_run_equals_the_trial(space, chosen, images, tmp_path):
    hp = keras_tuner.HyperParameters()
    hp.values.update(chosen)
    values = space.declare(hp)
    base = dataclasses.replace(BASE, data=str(images), model="defect-conv/4", image_size=28, channels=1)
    config = train_config_at(values, base)
    config = dataclasses.replace(config, out=tmp_path / "run")

    data = load_data(images, base.image_shape, batch_size=1, seed=base.seed)
    hypermodel = ViTHyperModel(data, space, base.recipe, base.seed)
    tried, of_point = hypermodel.build(hp), hypermodel.data_at(values)
    prepared, _ = prepare_data(config)
    assert prepared.names("train") == of_point.names("train")
    assert prepared.names("validation") == of_point.names("validation")
    for name in ("image_shape", "batch_size", "augmentation", "seed", "steps_per_epoch"):
        assert getattr(prepared, name) == getattr(of_point, name), name
    made = build_from_scratch(config, 3)
    compile_model(made, config.recipe, prepared.steps_per_epoch)
    assert made.get_config() == tried.get_config()
    ours, theirs = (model.optimizer.get_config() for model in (made, tried))
    assert {**ours, "name": ""} == {**theirs, "name": ""}
    assert made.loss.get_config() == tried.loss.get_config()

    # The run has the same history as the trial.
    expected = hypermodel.fit(hp, tried, verbose=0).history
    with open(training.train(config).path / "history.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    for name in ("loss", "accuracy", "val_loss", "val_accuracy"):
        assert [float(row[name]) for row in rows] == pytest.approx(expected[name], rel=1e-4), name


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({}, ("defect-conv/4", {})),
        (dict(depth=8, dim=96, mlp_ratio=2), ("defect-conv/4", dict(depth=8, dim=96, mlp_dim=192))),
        (dict(stem="linear", patch_size=7), ("defect-conv/7", dict(stem="linear"))),
        (dict(drop_path_rate=0.1), ("defect-conv/4", dict(drop_path_rate=0.1))),
        (
            dict(model="Ti", depth=12, num_heads=3, dim=192, mlp_ratio=4, stem="linear"),
            ("Ti/4", {}),
        ),
        (
            dict(model="Ti", depth=12, num_heads=3, dim=192, mlp_ratio=4),
            ("Ti/4", dict(stem="conv")),
        ),
    ],
)
def test_only_differences_from_the_size_are_written(changes, expected):
    space = dataclasses.replace(SearchSpace(), stem="linear") if changes.get("patch_size") else SearchSpace()
    values = {**space.declare(keras_tuner.HyperParameters()), **changes}
    found = train_config_at(values, TrainConfig(image_size=56, channels=3))
    assert (found.model, found.changes) == expected
    assert found.image_shape == (56, 56, 3)


def record(folder, *scores, **given):
    """A search with one trial per score. The score of a trial that has not ended is None."""
    config = SearchConfig(out=folder, max_epochs=9, **given)
    values = config.search_space().declare(keras_tuner.HyperParameters())
    trials = [
        TrialRecord(
            trial_id=f"{i:04}",
            status="RUNNING" if score is None else "COMPLETED",
            score=score,
            values={**values, "depth": 2 + i},
            bracket=1,
            rung=0,
            initial_epoch=0,
            epochs=3,
            parameters=1000 + i,
            mult_adds=2000,
        )
        for i, score in enumerate(scores)
    ]
    return SearchRecord(folder, {"asked": config_to_dict(config), "validation_images": 144}, trials)


@pytest.mark.same_on_every_backend
def test_best_json_is_read_by_the_command(tmp_path):
    found = record(tmp_path, 0.5, 0.75, None, data="my images", seed=3, precision="mixed_bfloat16")
    write_best(found)
    written = json.loads((tmp_path / "best.json").read_text())
    assert written["found"] == {
        "trial": "0001",
        "validation_accuracy": 0.75,
        "validation_images": 144,
        "epochs": 3,
        "parameters": 1001,
        "mult_adds": 2000,
    }
    config = read_config(tmp_path / "best.json")
    assert config == best_config(found)
    assert parse(["train", "--config", str(tmp_path / "best.json")]).run == config
    assert (config.data, config.seed, config.model) == ("my images", 3, "defect-conv/4")
    assert config.changes == dict(depth=3)
    assert (config.recipe.epochs, config.recipe.precision) == (9, "mixed_bfloat16")
    assert not config.merge_validation


@pytest.mark.same_on_every_backend
def test_best_json_is_written_whole_and_when_it_changes(tmp_path):
    write_best(record(tmp_path, None))
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(InputError, match=r"No trial of .* has ended: continue the search"):
        best_config(record(tmp_path, None))
    write_best(record(tmp_path, 0.5))
    first = (tmp_path / "best.json").stat()
    write_best(record(tmp_path, 0.5, 0.4))
    assert (tmp_path / "best.json").stat().st_ino == first.st_ino
    write_best(record(tmp_path, 0.5, 0.6))
    assert (tmp_path / "best.json").stat().st_ino != first.st_ino
    assert json.loads((tmp_path / "best.json").read_text())["found"]["trial"] == "0001"
    assert [path.name for path in tmp_path.iterdir()] == ["best.json"]


@pytest.mark.long
@pytest.mark.same_on_every_backend
def test_the_best_is_trained_on_train_and_validation_by_the_command(images, tmp_path):
    found = record(tmp_path, 0.5, data=str(images))
    write_best(found)
    command = ["train", "--config", str(tmp_path / "best.json"), "--out", str(tmp_path / "run")]
    more = ["--merge-validation", "--epochs", "1", "--batch-size", "8", *tiny.NO_XLA]
    assert main([*command, *more]) == 0
    run = load_run(tmp_path / "run")
    assert run.config["data"]["counts"] == {"train": 30, "validation": 0, "test": 6}
    assert run.config["model_changes"] == {"depth": 2}
    expected = dataclasses.replace(best_config(found), merge_validation=True)
    assert run.config["train"]["changes"] == to_dict(expected)["changes"]
