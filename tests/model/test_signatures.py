"""A `ViT` is called as `keras.Model` is: every method has its arguments, in its order, with its defaults."""

import inspect

import keras
import numpy as np
import pytest

from keras_vit import ViT, distribute
from tests.helpers.checks import random_input, to_numpy

SMALL = dict(image_shape=(8, 8, 1), num_classes=3, patch_size=4, dim=8, depth=1, num_heads=2)
X, Y = random_input((8, 8, 8, 1)), np.eye(3, dtype="float32")[np.arange(8) % 3]
METHODS = [
    name for name in dir(keras.Model) if not name.startswith("_") and callable(getattr(keras.Model, name))
]


@pytest.fixture(scope="module")
def kinds():
    """The class of a `ViT`, and that of a functional model of Keras."""
    inputs = keras.Input((1,))
    return type(ViT(**SMALL)), type(keras.Model(inputs, inputs))


@pytest.mark.parametrize("name", METHODS)
def test_a_method_has_the_signature_of_keras(name, kinds):
    ours, theirs = (inspect.signature(getattr(kind, name)) for kind in kinds)
    assert ours == theirs


def test_the_methods_that_a_training_script_calls_are_among_them():
    assert {
        "compile", "fit", "evaluate", "predict", "train_on_batch", "test_on_batch", "predict_on_batch",
        "train_step", "test_step", "predict_step", "compute_loss", "compute_metrics", "save", "export",
        "save_weights", "load_weights", "get_weights", "set_weights", "get_config", "compile_from_config",
        "quantize", "summary", "get_layer",
    } <= set(METHODS)  # fmt: skip


def compiled(**options):
    keras.utils.set_random_seed(0)
    model = ViT(**SMALL)
    model.compile("sgd", "mse", None, ["mae"], run_eagerly=True, **options)
    return model


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("inside", [False, True], ids=["alone", "in distribute"])
def test_arguments_by_position(inside):
    """They do the same as by name; x, y and the sizes of batches are those of each call."""
    if inside:
        with distribute("none"):
            model, named = compiled(), compiled()
    else:
        model, named = compiled(), compiled()
    history = model.fit(X, Y, 4, 3, 0, None, 0.5, None, False)
    expected = named.fit(x=X, y=Y, batch_size=4, epochs=3, verbose=0, validation_split=0.5, shuffle=False)
    assert history.history == expected.history
    assert len(history.history["val_loss"]) == 3
    assert model.evaluate(X, Y, 4, 0, None, 1) == named.evaluate(X[:4], Y[:4], verbose=0)
    np.testing.assert_array_equal(model.predict(X, 4, 0, 1), named.predict(X[:4], verbose=0))
    assert model.train_on_batch(X, Y) == named.train_on_batch(X, y=Y)
    assert model.test_on_batch(X, Y, None, True) == named.test_on_batch(X, Y, return_dict=True)
    np.testing.assert_array_equal(model.predict_on_batch(X), named.predict_on_batch(x=X))


def test_a_wrong_argument_is_refused():
    model = compiled()
    with pytest.raises(TypeError, match="batchsize"):
        model.fit(X, Y, batchsize=4)
    with pytest.raises(TypeError, match="multiple values for argument 'x'"):
        model.fit(X, Y, x=X)


class Doubled(ViT):
    """A subclass as the documentation of Keras writes one."""

    def compute_loss(self, x, y, y_pred, sample_weight, training=True):
        return 2.0 * super().compute_loss(x, y, y_pred, sample_weight, training)


class DoubledAsBefore(ViT):
    """The signature of Keras before 3.3."""

    def compute_loss(self, x=None, y=None, y_pred=None, sample_weight=None):
        return 2.0 * super().compute_loss(x, y, y_pred, sample_weight)


@pytest.mark.parametrize("kind", [Doubled, DoubledAsBefore])
def test_a_subclass_has_a_loss_of_its_own(kind):
    model, plain = kind(**SMALL), ViT(**SMALL)
    plain.set_weights(model.get_weights())
    for one in (model, plain):
        one.compile("sgd", "mse", run_eagerly=True)
    doubled, single = (one.evaluate(X, Y, 8, 0) for one in (model, plain))
    assert doubled == pytest.approx(2 * single, rel=1e-6)
    loss = plain.compute_loss(X, Y, plain(X), None)
    assert float(to_numpy(loss)) == pytest.approx(single, rel=1e-6)


def test_float16_has_a_scaled_loss():
    """What Keras says of `auto_scale_loss`, where the policy is an argument of the model."""
    model = ViT(**SMALL, dtype="mixed_float16")
    assert (model.compute_dtype, model.variable_dtype) == ("float16", "float32")
    model.compile("sgd", "mse")
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer)
    model.compile("sgd", "mse", auto_scale_loss=False)
    assert isinstance(model.optimizer, keras.optimizers.SGD)
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()), "mse")
    assert isinstance(model.optimizer.inner_optimizer, keras.optimizers.SGD)
