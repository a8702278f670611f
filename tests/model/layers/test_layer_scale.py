import numpy as np
import pytest

from keras_vit import LayerScale
from tests.helpers.checks import check_layer, random_input, randomize, to_numpy

CASES = {"tokens": (dict(), (4, 5, 8)), "another first value": (dict(initial_value=0.5), (4, 8))}


@pytest.mark.parametrize(("kwargs", "shape"), CASES.values(), ids=CASES)
def test_is_a_layer(kwargs, shape):
    check_layer(
        LayerScale, kwargs, shape, expected_output_shape=shape, expected_weights=1, expected_parameters=8
    )


def test_multiplies_each_channel():
    layer = LayerScale(0.1)
    x = random_input((2, 3, 4))
    layer.build(x.shape)
    np.testing.assert_array_equal(to_numpy(layer.scale), np.float32([0.1] * 4))
    (scale,) = randomize(layer).get_weights()
    np.testing.assert_allclose(to_numpy(layer(x)), x * scale, atol=1e-6)


def test_a_file_without_its_weight_is_not_loaded_silently():
    layer = LayerScale()
    layer.build((None, 4))
    with pytest.raises(ValueError, match="expected 1 variables"):
        layer.load_own_variables({})


def test_a_scale_of_the_block_replaces_its_weight_once():
    layer = LayerScale()
    layer.build((None, 4))
    layer.load_from_block(np.float32([1, 2, 3, 4]))
    layer.load_own_variables({})  # the file has no weight for the layer itself
    np.testing.assert_array_equal(to_numpy(layer.scale), [1, 2, 3, 4])
    with pytest.raises(ValueError, match="expected 1 variables"):
        layer.load_own_variables({})
