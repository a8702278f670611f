"""A compiled `ViT` comes back from every kind of copy as it was: it evaluates the same, and `fit` goes on."""

import copy
import pickle

import keras
import numpy as np
import pytest

from keras_vit import ViT
from tests.helpers.checks import random_input, to_numpy

# A model that has not been trained has no slots in its file; Keras says so of its own models too.
pytestmark = pytest.mark.filterwarnings("ignore:Skipping variable loading for optimizer")

SMALL = dict(image_shape=(8, 8, 1), num_classes=3, patch_size=4, dim=8, depth=1, num_heads=2)
X, Y = random_input((8, 8, 8, 1)), np.arange(8) % 3


@keras.saving.register_keras_serializable(package="keras_vit_tests")
class Scaled(keras.losses.SparseCategoricalCrossentropy):
    """A loss of a user."""

    def call(self, y_true, y_pred):
        return 3.0 * super().call(y_true, y_pred)


def fit(model, epochs=1, **options):
    return model.fit(X, Y, 4, epochs, 0, shuffle=False, **options)


def saved(model, path, **options):
    model.save(path, **options)
    return keras.saving.load_model(path)


COPIES = {
    "file": lambda model, folder: saved(model, folder / "model.keras"),
    "pickle": lambda model, folder: pickle.loads(pickle.dumps(model)),
    "deepcopy": lambda model, folder: copy.deepcopy(model),
    "file of a copy": lambda model, folder: saved(copy.deepcopy(model), folder / "again.keras"),
}


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The original after two more epochs than its copies, what it was when they were made, and the copies."""
    keras.utils.set_random_seed(0)
    folder = tmp_path_factory.mktemp("copies")
    model = ViT(**SMALL)
    schedule = keras.optimizers.schedules.CosineDecay(1e-2, 100)
    model.compile(
        keras.optimizers.AdamW(schedule),
        Scaled(from_logits=True),
        metrics=["accuracy", keras.metrics.SparseTopKCategoricalAccuracy(2, name="top2")],
        run_eagerly=True,  # tracing takes longer than these steps
    )
    fit(model, callbacks=[keras.callbacks.ModelCheckpoint(folder / "checkpoint.keras")])
    copies = {name: make(model, folder) for name, make in COPIES.items()}
    copies["checkpoint"] = keras.saving.load_model(folder / "checkpoint.keras")
    before = model.evaluate(X, Y, 8, 0, return_dict=True)
    fit(model)
    return model, before, copies


@pytest.mark.parametrize("name", [*COPIES, "checkpoint"])
def test_a_copy_goes_on_as_its_original(name, trained):
    original, before, copies = trained
    model = copies[name]
    assert type(model) is ViT
    assert model.compiled
    assert isinstance(model.optimizer, keras.optimizers.AdamW)
    assert int(model.optimizer.iterations) == 2
    assert model.evaluate(X, Y, 8, 0, return_dict=True) == pytest.approx(before, rel=1e-5)
    fit(model)
    pairs = zip(model.optimizer.variables, original.optimizer.variables, strict=True)
    for variable, expected in (*pairs, *zip(model.weights, original.weights, strict=True)):
        np.testing.assert_allclose(
            to_numpy(variable), to_numpy(expected), rtol=1e-4, atol=1e-6, err_msg=variable.path
        )


def compiled(**given):
    model = ViT(**SMALL)
    model.compile(**given, run_eagerly=True)
    return model


ONE_HOT = np.eye(3, dtype="float32")[Y]
GIVEN = {
    "names": (dict(optimizer="sgd", loss="mse", metrics=["mae"], weighted_metrics=["mse"]), ONE_HOT),
    "no loss": (dict(optimizer="adam"), None),
    "a function of Keras": (dict(optimizer="rmsprop", loss=keras.losses.mean_squared_error), ONE_HOT),
    "weights of losses": (dict(optimizer="sgd", loss=["mse"], loss_weights=[0.5]), ONE_HOT),
    "a dict": (dict(optimizer="sgd", loss={"head": "mse"}, metrics={"head": ["mae"]}), ONE_HOT),
    "an optimizer with options": (
        dict(optimizer=keras.optimizers.SGD(0.1, momentum=0.9, clipnorm=1.0), loss=Scaled(from_logits=True)),
        Y,
    ),
}


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("name", GIVEN)
def test_what_compile_was_given_comes_back(name, tmp_path):
    given, labels = GIVEN[name]
    model = compiled(**given)
    loaded = saved(model, tmp_path / "model.keras")
    assert loaded.get_compile_config() == model.get_compile_config()
    assert loaded.optimizer.get_config() == model.optimizer.get_config()
    if labels is not None:
        expected = model.evaluate(X, labels, 16, 0, return_dict=True)
        assert loaded.evaluate(X, labels, 16, 0, return_dict=True) == pytest.approx(expected, rel=1e-5)


def test_a_scaled_loss_comes_back(tmp_path):
    model = ViT(**SMALL, dtype="mixed_float16")
    for scaled, wanted in ((True, keras.optimizers.LossScaleOptimizer), (False, keras.optimizers.SGD)):
        model.compile("sgd", "mse", auto_scale_loss=scaled)
        assert isinstance(model.optimizer, wanted)
        assert isinstance(saved(model, tmp_path / "model.keras").optimizer, wanted)


def test_without_compile_nothing_is_compiled(tmp_path):
    model = compiled(optimizer="sgd", loss="mse")
    model.save(tmp_path / "model.keras")
    assert not keras.saving.load_model(tmp_path / "model.keras", compile=False).compiled
    assert not saved(ViT(**SMALL), tmp_path / "plain.keras").compiled


def test_a_frozen_model_trains_what_it_trained(tmp_path):
    """The optimizer has slots for the head only, and `fit` after loading changes the head only."""
    model = ViT(**SMALL)
    for layer in model.layers[:-1]:
        layer.trainable = False
    model.compile("adam", Scaled(from_logits=True), run_eagerly=True)
    fit(model)
    loaded = saved(model, tmp_path / "model.keras")
    before = {weight.path: to_numpy(weight) for weight in loaded.weights}
    fit(loaded)
    changed = {w.path for w in loaded.weights if not np.array_equal(to_numpy(w), before[w.path])}
    assert changed == {"head/kernel", "head/bias"}
    assert len(loaded.optimizer.variables) == len(model.optimizer.variables) == 2 + 2 * 2


def test_the_earlier_format_of_keras(tmp_path):
    """`.h5` needs no `custom_objects`, and takes nothing from the model that wrote it."""
    # Keras does not read the names of losses again that it writes there.
    model = compiled(optimizer="sgd", loss=keras.losses.MeanSquaredError())
    expected = model.evaluate(X, ONE_HOT, 16, 0)
    loaded = saved(model, tmp_path / "model.h5")
    assert type(loaded) is ViT
    assert loaded.get_config() == model.get_config()
    np.testing.assert_array_equal(to_numpy(loaded(X)), to_numpy(model(X)))
    assert loaded.evaluate(X, ONE_HOT, 16, 0) == pytest.approx(expected, rel=1e-5)
    again = saved(model, tmp_path / "model.keras")
    assert isinstance(again.optimizer, keras.optimizers.SGD)
