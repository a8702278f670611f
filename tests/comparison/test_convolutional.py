import math

import keras
import numpy as np
import pytest

from keras_vit.comparison.convolutional import (
    count_mult_adds_of,
    from_pixels,
    halvings,
    plain_cnn,
    resnet,
    resnet_mult_adds,
    resnet_width,
)
from keras_vit.data.preprocess import Preprocessing
from keras_vit.training.class_metrics import BalancedAccuracy


def test_the_plain_cnn_has_the_size_that_was_measured_before():
    """Of `../shared/data/README.md`: 3 x [2 conv 3x3, pool], 32-64-128 channels."""
    assert plain_cnn((28, 28, 1), 6).count_params() == 288_550


@pytest.mark.parametrize(
    ("shape", "wanted"),
    [((28, 28, 1), 0), ((40, 40, 3), 0), ((56, 56, 1), 1), ((96, 40, 1), 2), ((224,) * 3, 3)],
)
def test_large_images_are_halved_first(shape, wanted):
    assert halvings(shape) == wanted


def by_shapes(model):
    """Mult-adds by the shapes that Keras states, another way than the loop of `resnet_mult_adds`."""
    total = 0
    for layer in model.layers:
        if isinstance(layer, keras.layers.Conv2D):
            _, height, width, filters = layer.output.shape
            total += height * width * filters * math.prod(layer.kernel_size) * layer.input.shape[-1]
        elif isinstance(layer, keras.layers.Dense):
            total += layer.input.shape[-1] * layer.units
    return total


@pytest.mark.parametrize("shape", [(28, 28, 1), (45, 61, 3)])
def test_mult_adds_are_counted(shape):
    for model in (plain_cnn(shape, 4, widths=(4, 8)), resnet(shape, 4, 4)):
        assert count_mult_adds_of(model) == by_shapes(model)
    model = resnet(shape, 4, 8)
    assert resnet_mult_adds(shape, 8) == count_mult_adds_of(model) - 8 * 4 * 4


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("mult_adds", [5_000_000, 12_239_168, 80_000_000])
def test_the_resnet_costs_what_is_wanted(mult_adds):
    width = resnet_width((28, 28, 1), mult_adds)
    assert resnet_mult_adds((28, 28, 1), width) == pytest.approx(mult_adds, rel=0.2)


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
@pytest.mark.parametrize(
    "make",
    [lambda dtype: plain_cnn((9, 8, 2), 3, dtype, (4, 8)), lambda dtype: resnet((9, 8, 2), 3, 4, dtype)],
)
def test_logits_are_float32_for_images_of_any_side(make, dtype):
    logits = keras.ops.convert_to_numpy(make(dtype)(np.zeros((2, 9, 8, 2), "float32")))
    assert logits.shape == (2, 3)
    assert logits.dtype == np.float32


@pytest.mark.same_on_every_backend
def test_making_a_network_leaves_the_random_stream_of_python():
    import random

    random.seed(3)
    wanted = random.random()
    random.seed(3)
    plain_cnn((8, 8, 1), 2, widths=(4,))
    assert random.random() == wanted


@pytest.mark.parametrize("scaling", [{}, {"mean": (0.3,) * 3, "std": (0.2,) * 3}, {"mean": (0.3, 0.4, 0.5)}])
def test_the_file_takes_pixels_and_gives_probabilities(scaling, tmp_path):
    network = plain_cnn((20, 20, 3), 4, widths=(4, 8))
    network.compile("adam", "sparse_categorical_crossentropy", metrics=[BalancedAccuracy(4)])
    preprocessing = Preprocessing((20, 20, 3), **scaling)
    from_pixels(network, preprocessing).save(tmp_path / "cnn.keras")
    pixels = np.random.default_rng(0).uniform(0, 255, (2, 20, 20, 3)).astype("float32")
    mean, std = (np.array(scaling.get(name, (0.5,) * 3)) for name in ("mean", "std"))
    logits = network.predict(((pixels / 255 - mean) / std).astype("float32"), verbose=0)
    expected = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    loaded = keras.saving.load_model(tmp_path / "cnn.keras")
    np.testing.assert_allclose(loaded.predict(pixels, verbose=0), expected, atol=1e-5)
    assert loaded.output.dtype == "float32"
    assert "keras_vit" not in loaded.to_json()  # Keras alone can load it
    assert not any(getattr(layer, "optimizer", None) for layer in (loaded, *loaded.layers))
