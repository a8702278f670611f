"""What the backbone tests of KerasHub check (configs, files, precision, quantization), for our model."""

import json

import keras
import numpy as np

from tests.helpers.checks import predict, random_input, to_numpy


def check_serialization(model):
    """A config is JSON and gives the same model, attribute by attribute."""
    config = model.get_config()
    revived = type(model).from_config(json.loads(json.dumps(config)))
    as_text(revived.get_config(), config)
    assert set(dir(revived)) == set(dir(model))
    text = json.dumps(keras.saving.serialize_keras_object(model))
    restored = keras.saving.deserialize_keras_object(json.loads(text))
    assert type(restored) is type(model)
    as_text(keras.saving.serialize_keras_object(restored), json.loads(text))


def as_text(found, expected):
    """Equal as JSON has them."""
    assert json.dumps(found, sort_keys=True) == json.dumps(expected, sort_keys=True)


def check_calls(model, x):
    """Symbolic, eager and compiled calls agree on shapes, dtypes and values."""
    promised = model(keras.KerasTensor(x.shape, "float32"))
    output = model(x)
    assert tuple(promised.shape) == tuple(output.shape) == (len(x), *model.output_shape[1:])
    assert promised.dtype == keras.backend.standardize_dtype(output.dtype)
    assert model.compute_output_shape(x.shape) == tuple(output.shape)
    np.testing.assert_allclose(predict(model, x, batch_size=len(x) - 1), to_numpy(output), atol=1e-5)


def check_file(model, folder, x):
    """A file gives the same config, classes, weights and values."""
    path = folder / "checked.keras"
    model.save(path)
    loaded = keras.saving.load_model(path)
    assert type(loaded) is type(model)
    as_text(loaded.get_config(), model.get_config())
    assert [(w.path, w.dtype, w.shape) for w in loaded.weights] == [
        (w.path, w.dtype, w.shape) for w in model.weights
    ]
    np.testing.assert_allclose(to_numpy(loaded(x)), to_numpy(model(x)), atol=1e-5)
    return loaded


def check_precision(model, policy, in_float32):
    """Every layer computes and keeps its weights as the policy says, but for those named."""
    policy = keras.DTypePolicy(policy)
    assert model.dtype_policy == policy
    for layer in every_layer(model):
        wanted = keras.DTypePolicy("float32") if layer.name in in_float32 else policy
        assert (layer.compute_dtype, layer.variable_dtype) == (wanted.compute_dtype, wanted.variable_dtype), (
            layer.path
        )


def check_quantization(model, mode, folder):
    """All dense kernels are quantized, and are so again in copies; the values stay near."""
    x = random_input((4, *model.input_shape[1:]))
    before = to_numpy(model(x))
    model.quantize(mode)
    dense = [layer for layer in every_layer(model) if type(layer) is keras.layers.Dense]
    assert dense
    assert all(layer.quantization_mode == mode for layer in dense)
    check_serialization(model)
    after = to_numpy(model(x))
    assert np.linalg.norm(after - before) <= {"int8": 0.1, "float8": 0.2, "int4": 0.6}[mode] * np.linalg.norm(
        before
    )
    np.testing.assert_allclose(predict(model, x), after, rtol=1e-3, atol=1e-4)
    loaded = check_file(model, folder, x)
    again = [layer for layer in every_layer(loaded) if type(layer) is keras.layers.Dense]
    assert [layer.dtype_policy.name for layer in again] == [layer.dtype_policy.name for layer in dense]
    return loaded


def every_layer(layer):
    """The layers in a model at every depth, without its input."""
    from keras_vit.model.layers.parts import layers_inside

    for inner in layers_inside(layer).values():
        yield inner
        yield from every_layer(inner)
