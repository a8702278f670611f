"""What the layer tests of Keras and KerasHub check (`run_layer_test`, quantization, precision), for ours.

`check_layer` has the values, the training and the files; here is what belongs to Keras itself.
"""

import json
import warnings

import keras
import numpy as np
from keras import ops

from tests.helpers.checks import functional, predict, random_input, randomize, to_numpy

POLICIES = ("mixed_float16", "bfloat16")


def check_serialization(layer_class, given):
    """A config is JSON, and a layer from it is like its original, attribute by attribute."""
    layer = layer_class(**given)
    revived = layer_class.from_config(layer.get_config())
    assert set(dir(revived)) == set(dir(layer))
    text = json.dumps(keras.saving.serialize_keras_object(layer))
    restored = keras.saving.deserialize_keras_object(json.loads(text))
    assert type(restored) is layer_class
    assert json.dumps(keras.saving.serialize_keras_object(restored)) == text


def check_masking(layer_class, given, shape):
    """A mask is passed on or, if the output has no tokens any more, ends here; it is never destroyed."""
    layer = layer_class(**given)
    assert layer.supports_masking
    tokens = keras.KerasTensor(shape)
    output, mask = layer(tokens), layer.compute_mask(tokens, keras.KerasTensor(shape[:2], "bool"))
    if len(output.shape) == 3:
        assert mask.shape == output.shape[:2]
    else:
        assert mask is None


def check_precision(layer_class, given, shape, policy):
    """Outputs are of the dtype that the symbolic call promises, weights of the dtype of variables."""
    layer = layer_class(**given, dtype=policy)
    x = ops.cast(random_input(shape), "float32")
    promised = layer(keras.KerasTensor(shape, "float32"))
    output = layer(x)
    assert keras.backend.standardize_dtype(output.dtype) == promised.dtype == layer.compute_dtype
    assert tuple(output.shape) == tuple(promised.shape)
    assert np.isfinite(to_numpy(output)).all()
    for weight in layer.weights:
        assert weight.dtype == layer.variable_dtype, weight.path


def check_training(layer_class, given, shapes):
    """A model of the layer trains as Keras compiles it by default, on inputs of several shapes."""
    layer = layer_class(**given)
    model = OneLayer(layer)
    model.compile("sgd", loss=Sum())
    for shape in shapes:
        x = random_input(shape)
        model.fit(x, to_numpy(layer(x)), batch_size=len(x), verbose=0)
        assert np.isfinite(predict(model, x)).all()
    assert all(np.isfinite(to_numpy(weight)).all() for weight in layer.weights)


def check_quantization(layer_class, given, shape, folder):
    """An int8 model answers almost as before, and comes back from a file as it was."""
    layer = layer_class(**given)
    model = functional(layer, shape)
    randomize(layer, scale=0.1)
    x = random_input(shape)
    before = predict(model, x)
    with warnings.catch_warnings():  # Keras names all layers without a kernel
        warnings.filterwarnings("ignore", ".* does not have a `quantize` method", UserWarning)
        model.quantize("int8")
    after = predict(model, x)
    assert np.linalg.norm(after - before) <= 0.1 * np.linalg.norm(before)
    assert np.isfinite(to_numpy(layer(x))).all()  # eagerly too
    path = folder / "int8.keras"
    model.save(path)
    loaded = keras.saving.load_model(path)
    np.testing.assert_allclose(predict(loaded, x), after, atol=1e-5)
    assert [weight.dtype for weight in loaded.weights] == [weight.dtype for weight in model.weights]


def check_names(layer_class, given, shape):
    """Two layers of one name have the same variables by path, whatever was made before them."""
    paths = []
    for _ in range(2):
        layer = layer_class(**given, name="same")
        layer.build(shape)
        paths.append([variable.path for variable in layer.variables])
        if keras.backend.backend() == "torch":
            assert set(layer.torch_params) == set(paths[-1])
    assert paths[0] == paths[1]
    assert len(set(paths[0])) == len(paths[0])


class OneLayer(keras.Model):
    """A subclassed model, as `run_layer_test` makes one."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, x, training=False):
        return self.layer(x)  # Keras passes `training` on


class Sum(keras.losses.Loss):
    def call(self, y_true, y_pred):
        return ops.sum(ops.square(y_pred - y_true), axis=-1)
