"""A promoted trial continues as if it had never stopped. Other tuners can use the model too."""

import json
from pathlib import Path

import keras
import keras_tuner
import numpy as np
import pytest

from keras_vit.data.pipeline import load_data
from keras_vit.data.sources import load_image_set
from keras_vit.distribution import Distribution
from keras_vit.errors import InputError
from keras_vit.search import Choice, Range, SearchSpace, ViTHyperband, ViTHyperModel
from keras_vit.search.point import count_parameters
from keras_vit.search.trial_files import KILLED, RESULT
from keras_vit.search.trial_state import MOST_KILLS, count_kills
from keras_vit.training.checkpoint import CHECKPOINT, load_arrays
from keras_vit.training.recipe import Recipe
from tests.helpers import tiny

pytestmark = pytest.mark.long

SPACE = SearchSpace(
    depth=1,
    num_heads=2,
    dim=Range(8, 16, default=8),
    stem="linear",
    mlp_ratio=1,
    batch_size=8,
    drop_path_rate=0.1,
    learning_rate=Range(1e-3, 1e-2, default=2e-3, log=True),
    epochs=3,
)
NO_XLA = None if tiny.BACKEND == "jax" else False
RECIPE = Recipe(ema_decay=0.9, warmup_epochs=1.0, xla=NO_XLA)


@pytest.fixture(scope="module")
def data(images):
    return load_data(load_image_set(images), (28, 28, 1), batch_size=8)


def trial(name, **budget):
    hp = keras_tuner.HyperParameters()
    SPACE.declare(hp)
    hp.values.update({f"tuner/{key}": value for key, value in budget.items()})
    return keras_tuner.engine.trial.Trial(hp, trial_id=name)


def test_a_promoted_trial_equals_one_without_a_break(data, tmp_path):
    tuner = ViTHyperband(ViTHyperModel(data, SPACE, RECIPE), directory=tmp_path)
    runs = {
        "cut": trial("cut", epochs=1, initial_epoch=0),
        "promoted": trial("promoted", epochs=3, initial_epoch=1, trial_id="cut"),
        "straight": trial("straight", epochs=3, initial_epoch=0),
    }
    histories = {name: tuner.run_trial(one, verbose=0)[0].history for name, one in runs.items()}
    states = {}
    for name, one in runs.items():
        states[name], kept = load_arrays(Path(tuner.get_trial_dir(one.trial_id)) / CHECKPOINT)
        assert kept["history"][-1]["epoch"] == runs[name].hyperparameters.values["tuner/epochs"]
    assert states["promoted"].keys() == states["straight"].keys()
    for name, expected in states["straight"].items():
        np.testing.assert_allclose(states["promoted"][name], expected, rtol=0, atol=1e-6, err_msg=name)
    for name, row in histories["straight"].items():
        np.testing.assert_allclose(histories["promoted"][name], row[1:], atol=1e-6, err_msg=name)


def reopened(tuner, directory):
    """The search as read by a process that starts after the oracle's file was truncated."""
    file = directory / "untitled_project" / "oracle.json"
    file.write_text(file.read_text()[:100])
    return ViTHyperband(tuner.hypermodel, directory=directory)


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    ("tuner", "limits"),
    [
        (keras_tuner.Hyperband, {"max_epochs": 2, "factor": 2}),
        (keras_tuner.RandomSearch, {"max_trials": 2}),
        (keras_tuner.BayesianOptimization, {"max_trials": 3, "num_initial_points": 2}),
        (ViTHyperband, {"factor": 2}),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_a_search_finds_its_best(tuner, limits, data, tmp_path):
    few = {"learning_rate": 2e-3, "dim": Range(8, 10, default=8), "epochs": 2}
    space = SearchSpace(**{**vars(SPACE), **few})
    found = tuner(ViTHyperModel(data, space, RECIPE), objective="val_accuracy", directory=tmp_path, **limits)
    found.search(verbose=0)
    trials = found.oracle.get_best_trials(10)
    assert trials
    assert all(one.status == "COMPLETED" for one in trials)
    assert found.get_best_models()[0].built
    if tuner is ViTHyperband:
        # No trial can be promoted now, so only the best trials keep their weights.
        assert not list(tmp_path.rglob(CHECKPOINT))
        assert len(list(tmp_path.rglob("*.weights.h5"))) == 3
        again = reopened(found, tmp_path)
        assert {one.trial_id: one.score for one in again.oracle.trials.values()} == {
            one.trial_id: one.score for one in found.oracle.trials.values()
        }
    assert found.get_best_hyperparameters()[0].get("dim") in (8, 10)


def test_a_model_over_the_budget_is_not_built(data):
    small = SearchSpace(**{**vars(SPACE), "max_parameters": 3_000})
    hp = keras_tuner.HyperParameters()
    hp.values["dim"] = 16
    with pytest.raises(keras_tuner.errors.FailedTrialError, match="more than the 3,000 parameters of the"):
        ViTHyperModel(data, small, RECIPE).build(hp)
    with pytest.raises(InputError, match=r"The defaults of the space make a model of .* choose smaller"):
        ViTHyperModel(data, SearchSpace(max_parameters=100, batch_size=8), RECIPE)


def test_wrong_spaces_are_refused(data, tmp_path):
    with pytest.raises(InputError, match=r"Received: patch_size=5, image 28x28"):
        ViTHyperModel(data, SearchSpace(patch_size=Choice((5, 4)), stem="linear"))
    with pytest.raises(InputError, match="max_epochs=9 differs from the 3 epochs of the space"):
        ViTHyperband(ViTHyperModel(data, SPACE, RECIPE), directory=tmp_path, max_epochs=9)


def test_the_images_in_memory_are_shared(data):
    other = data.with_batches(4, data.augmentation)
    assert other.batch_size == 4
    assert other._read_train is data._read_train
    images, _ = next(iter(other.train))
    assert keras.ops.shape(images)[0] == 4


@pytest.mark.same_on_every_backend
def test_a_truncated_oracle_file_loses_no_trial(data, tmp_path):
    tuner = ViTHyperband(ViTHyperModel(data, SPACE, RECIPE), directory=tmp_path)
    for score in (0.5, 0.7):
        one = tuner.oracle.create_trial("tuner0")
        tuner.oracle.update_trial(one.trial_id, {"val_accuracy": score})
        one.status = "COMPLETED"
        tuner.on_trial_end(one)
    running = tuner.oracle.create_trial("tuner0")
    again = reopened(tuner, tmp_path)
    assert [one.score for one in again.oracle.get_best_trials(2)] == [0.7, 0.5]
    # The trial that was running is given out again, once, with the same number.
    assert again.oracle.create_trial("tuner0").trial_id == running.trial_id
    assert len(again.oracle.trials) == 3

    for name in ("oracle.json", "oracle.good.json"):
        (tmp_path / "untitled_project" / name).write_text("{")
    with pytest.raises(InputError, match=r"oracle.json and its copy are damaged: begin the search again"):
        ViTHyperband(ViTHyperModel(data, SPACE, RECIPE), directory=tmp_path)


@pytest.mark.same_on_every_backend
def test_no_model_over_the_budget_is_drawn(data, tmp_path):
    space = SearchSpace(
        depth=Range(2, 8, default=2),
        dim=Range(32, 128, default=32),
        batch_size=8,
        max_parameters=100_000,
    )
    tuner = ViTHyperband(ViTHyperModel(data, space, RECIPE), directory=tmp_path)
    for i in range(30):
        values = tuner.oracle.create_trial(f"tuner{i}").hyperparameters.values
        assert count_parameters({**vars(space), **values}, data.image_shape, 3) <= 100_000
    tuner.oracle.fits = lambda values: False
    with pytest.raises(InputError, match="None of 1000 random points is within the budget"):
        tuner.oracle.create_trial("one more")


@pytest.mark.same_on_every_backend
def test_a_trial_that_kills_its_process_is_abandoned(data, tmp_path):
    tuner = ViTHyperband(ViTHyperModel(data, SPACE, RECIPE), directory=tmp_path)
    one = trial("large", epochs=1, initial_epoch=0)
    file = Path(tuner.get_trial_dir("large")) / KILLED
    file.write_text(str(MOST_KILLS))  # files that its processes have left
    with pytest.raises(keras_tuner.errors.FailedTrialError, match="killed 5 times: is the model too large"):
        tuner.run_trial(one, verbose=0)
    assert not file.exists()
    file.write_text(str(MOST_KILLS - 1))
    tuner.run_trial(one, verbose=0)
    assert not file.exists()


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("content", ["", '"5"', "5.5", "-1", "true", "{}", "[" * 10_000])
def test_a_damaged_count_of_kills_begins_again(content, tmp_path, capsys):
    file = tmp_path / KILLED
    file.write_text(content)
    with count_kills(file, Distribution()):
        assert file.read_text().strip() == "1"
    assert not file.exists()
    assert f"{file} is damaged: how often its process was killed" in capsys.readouterr().out


@pytest.mark.same_on_every_backend
def test_a_full_disk_ends_the_search_and_fails_no_trial(data, tmp_path, monkeypatch):
    tuner = ViTHyperband(ViTHyperModel(data, SPACE, RECIPE), directory=tmp_path)

    def full(*arguments, **options):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(tuner.hypermodel, "fit", full)
    with pytest.raises(keras_tuner.errors.FatalError, match=r"The disk is full at .*trial_0000: make room"):
        tuner.search(verbose=0)
    monkeypatch.undo()
    continued = ViTHyperband(ViTHyperModel(data, SPACE, RECIPE), directory=tmp_path, max_trials=1)
    continued.search(verbose=0)
    assert [one.status for one in continued.oracle.trials.values()] == ["COMPLETED"]


def test_a_trial_that_diverges_is_stopped_and_scored(data, tmp_path):
    diverging = SearchSpace(**{**vars(SPACE), "learning_rate": 10.0})
    recipe = Recipe(optimizer="sgd", clip_norm=None, warmup_epochs=0.0, schedule="constant", xla=NO_XLA)
    tuner = ViTHyperband(ViTHyperModel(data, diverging, recipe), directory=tmp_path)
    one = trial("wild", epochs=3, initial_epoch=0)
    one.hyperparameters.values.update(learning_rate=10.0, weight_decay=0.0)
    history = tuner.run_trial(one, verbose=0)[0].history
    result = json.loads((Path(tuner.get_trial_dir("wild")) / RESULT).read_text())
    assert len(result["history"]) == len(history["loss"])
    if not np.isfinite(history["loss"][-1]):
        assert np.isfinite(history["loss"][:-1]).all()
        assert (Path(tuner.get_trial_dir("wild")) / CHECKPOINT).is_file()


def test_tensorboard_gets_curves_and_hyperparameters(data, tmp_path):
    import tensorflow as tf
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
    from tensorboard.plugins.hparams import plugin_data_pb2

    tuner = ViTHyperband(
        ViTHyperModel(data, SPACE, RECIPE), directory=tmp_path, tensorboard=tmp_path / "board"
    )
    history = tuner.run_trial(trial("one", epochs=2, initial_epoch=0), verbose=0)[0].history
    board = EventAccumulator(str(tmp_path / "board" / "one"))
    board.Reload()
    content = board.PluginTagToContent("hparams")["_hparams_/session_start_info"]
    found = plugin_data_pb2.HParamsPluginData.FromString(content).session_start_info
    assert found.hparams["dim"].number_value == 8
    assert found.hparams["learning_rate"].number_value == pytest.approx(2e-3)
    (score,) = board.Tensors("val_accuracy")
    assert tf.make_ndarray(score.tensor_proto) == pytest.approx(max(history["val_accuracy"]))


@pytest.mark.same_on_every_backend
def test_epochs_that_are_searched_are_refused(data, tmp_path):
    space = SearchSpace(**{**vars(SPACE), "epochs": Choice((3, 9))})
    with pytest.raises(InputError, match="Hyperband sets the epochs itself: give a number"):
        ViTHyperband(ViTHyperModel(data, space, RECIPE), directory=tmp_path)


@pytest.mark.same_on_every_backend
def test_a_batch_of_more_images_than_there_are_is_refused_before_the_search(data):
    with pytest.raises(InputError, match=r"batch_size 64 is more than the \d+ training images"):
        ViTHyperModel(data, SearchSpace(**{**vars(SPACE), "batch_size": Choice((8, 64))}), RECIPE)
