"""Any tuner can build, compile and train a point."""

import keras
import keras_tuner
import numpy as np
import pytest

from keras_vit.data.pipeline import load_data
from keras_vit.data.sources import load_image_set
from keras_vit.errors import InputError
from keras_vit.search import Choice, Range, SearchSpace, ViTHyperModel
from keras_vit.training.recipe import Recipe
from tests.helpers import tiny

SPACE = SearchSpace(
    depth=Choice((1, 2)),
    num_heads=2,
    dim=Range(8, 16, default=8),
    stem="linear",
    mlp_ratio=1,
    batch_size=Choice((8, 4)),
    epochs=3,
)
NO_XLA = None if tiny.BACKEND == "jax" else False
RECIPE = Recipe(warmup_epochs=1.0, xla=NO_XLA)


@pytest.fixture(scope="module")
def data(images):
    return load_data(load_image_set(images), (28, 28, 1), batch_size=8)


def changed(**fields):
    return SearchSpace(**{**vars(SPACE), **fields})


def at(**values):
    hp = keras_tuner.HyperParameters()
    hp.values.update(values)
    return hp


def test_a_point_is_built_with_the_other_arguments_of_its_size(data):
    model = ViTHyperModel(data, SPACE, RECIPE).build(at(depth=2, dim=16))
    found = model.get_config()
    assert (found["depth"], found["dim"], found["mlp_dim"], found["num_classes"]) == (2, 16, 16, 3)
    assert (found["qkv_bias"], found["head_hidden_dim"]) == (False, 128)
    small = ViTHyperModel(data, changed(model="S"), RECIPE).build(at())
    assert (small.get_config()["qkv_bias"], small.get_config()["head_hidden_dim"]) == (True, None)


def test_the_same_point_begins_with_the_same_weights(data):
    first, again = (ViTHyperModel(data, SPACE, RECIPE, seed=5).build(at(dim=12)) for _ in range(2))
    other = ViTHyperModel(data, SPACE, RECIPE, seed=6).build(at(dim=12))
    for ours, theirs in zip(first.get_weights(), again.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert not np.array_equal(first.get_weights()[0], other.get_weights()[0])


@pytest.mark.parametrize("epochs", [2, 4])
def test_the_schedule_follows_the_epochs_of_a_point(epochs, data):
    hypermodel = ViTHyperModel(data, changed(epochs=Range(2, 4, default=2)), RECIPE)
    hp = at(epochs=epochs)
    model = hypermodel.build(hp)
    history = hypermodel.fit(hp, model, verbose=0).history
    assert len(history["val_accuracy"]) == epochs
    steps = data.steps_per_epoch
    rate = model.optimizer._learning_rate
    assert float(rate(steps)) == pytest.approx(2e-3)  # the warm-up is over
    assert float(rate(epochs * steps)) == pytest.approx(0, abs=1e-9)
    assert float(rate(epochs * steps - 1)) > 0
    assert int(model.optimizer.iterations) == epochs * steps


def test_the_tuner_sets_the_epochs_of_a_trial(data):
    hypermodel = ViTHyperModel(data, SPACE, RECIPE)
    model = hypermodel.build(at())
    hypermodel.fit(at(), model, epochs=1, verbose=0)
    assert int(model.optimizer.iterations) == data.steps_per_epoch
    assert float(model.optimizer._learning_rate(3 * data.steps_per_epoch)) == pytest.approx(0, abs=1e-9)


def test_a_point_sets_batches_and_augmentation(data):
    hypermodel = ViTHyperModel(data, SPACE, RECIPE)
    for batch_size, strength in ((8, 0.0), (4, 0.75)):
        hp = at(batch_size=batch_size, augmentation=strength)
        found = hypermodel.data_at(SPACE.declare(hp))
        assert found.batch_size == batch_size
        assert found.augmentation.crop == pytest.approx(0.2 * strength)
        assert found.augmentation.flip == ("both" if strength else "none")
        images, _ = next(iter(found.train))
        assert keras.ops.shape(images)[0] == batch_size


OVER = {
    "parameters": (
        dict(max_parameters=3_000),
        "The model of this point has 6,979 parameters, more than the 3,000 parameters of the budget.",
    ),
    "mult-adds": (
        dict(max_mult_adds=150_000),
        "mult-adds, more than the 150,000 mult-adds of the budget.",
    ),
}


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(("budget", "message"), OVER.values(), ids=OVER)
def test_a_model_over_a_budget_is_neither_drawn_nor_built(budget, message, data):
    hypermodel = ViTHyperModel(data, changed(**budget), RECIPE)
    assert hypermodel.fits_budget({"depth": 1, "dim": 8, "tuner/epochs": 1, **searched_rates()})
    assert not hypermodel.fits_budget({"depth": 2, "dim": 16, "tuner/epochs": 1, **searched_rates()})
    with pytest.raises(keras_tuner.errors.FailedTrialError) as caught:
        hypermodel.build(at(depth=2, dim=16))
    assert message in str(caught.value)


def searched_rates():
    return dict(
        patch_size=4,
        drop_path_rate=0.0,
        learning_rate=1e-3,
        weight_decay=0.0,
        batch_size=8,
        augmentation=0.0,
    )


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    ("fields", "message"),
    [
        (dict(max_parameters=100), "The defaults of the space make a model of 2"),
        (dict(max_mult_adds=100), "more than the 100 mult-adds of the budget: choose smaller defaults for"),
        (dict(patch_size=Choice((4, 5))), r"Received: patch_size=5, image 28x28"),
        (dict(patch_size=8), r"Received: patch_size=8, image 28x28"),
    ],
)
def test_wrong_arguments(fields, message, data):
    with pytest.raises(InputError, match=message):
        ViTHyperModel(data, changed(**fields), RECIPE)


@pytest.mark.long
@pytest.mark.same_on_every_backend
def test_another_tuner_searches_the_epochs_too(data, tmp_path):
    space = changed(epochs=Choice((1, 2)), learning_rate=2e-3, weight_decay=0.05)
    found = keras_tuner.RandomSearch(
        ViTHyperModel(data, space, RECIPE),
        objective="val_accuracy",
        directory=tmp_path,
        max_trials=2,
        seed=1,
    )
    found.search(verbose=0)
    trials = list(found.oracle.trials.values())
    assert [one.status for one in trials] == ["COMPLETED"] * 2
    assert {one.hyperparameters.values["epochs"] for one in trials} <= {1, 2}
