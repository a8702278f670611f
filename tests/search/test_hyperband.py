"""A promoted trial goes on as if it had never stopped; other tuners take the model too."""

from pathlib import Path

import keras
import keras_tuner
import numpy as np
import pytest
import tiny

from keras_vit.data.images import load_image_set
from keras_vit.data.pipeline import load_data
from keras_vit.errors import InputError
from keras_vit.search import Choice, Range, SearchSpace, ViTHyperband, ViTHyperModel
from keras_vit.training.checkpoint import CHECKPOINT, load_arrays
from keras_vit.training.recipe import Recipe

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


def test_a_promoted_trial_is_one_that_was_never_cut(data, tmp_path):
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


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("tuner", [keras_tuner.Hyperband, keras_tuner.RandomSearch, ViTHyperband])
def test_a_search_finds_its_best(tuner, data, tmp_path):
    limits = {"max_epochs": 3} if tuner is not keras_tuner.RandomSearch else {"max_trials": 2}
    space = SearchSpace(**{**vars(SPACE), "learning_rate": 2e-3, "dim": Range(8, 10, default=8)})
    found = tuner(ViTHyperModel(data, space, RECIPE), objective="val_accuracy", directory=tmp_path, **limits)
    found.search(verbose=0)
    trials = found.oracle.get_best_trials(10)
    assert trials
    assert all(one.status == "COMPLETED" for one in trials)
    assert found.get_best_hyperparameters()[0].get("dim") in (8, 10)


def test_a_model_over_the_budget_is_not_built(data, monkeypatch):
    space = SearchSpace(**{**vars(SPACE), "max_parameters": 100})
    hp = keras_tuner.HyperParameters()
    with pytest.raises(keras_tuner.errors.FailedTrialError, match="more than the 100 of the budget"):
        ViTHyperModel(data, space, RECIPE).build(hp)


def test_what_cannot_be_searched_is_refused(data, tmp_path):
    with pytest.raises(InputError, match=r"patch_size 5 does not divide images of \(28, 28\)"):
        ViTHyperModel(data, SearchSpace(patch_size=Choice((5, 4)), stem="linear"))
    with pytest.raises(InputError, match="max_epochs=9 differs from the 3 epochs of the space"):
        ViTHyperband(ViTHyperModel(data, SPACE, RECIPE), directory=tmp_path, max_epochs=9)


def test_the_images_in_memory_are_shared(data):
    other = data.with_batches(4, data.augmentation)
    assert other.batch_size == 4
    assert other._read_train is data._read_train
    images, _ = next(iter(other.train))
    assert keras.ops.shape(images)[0] == 4
