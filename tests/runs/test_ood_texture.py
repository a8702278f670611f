"""The texture statistics compared with numpy."""

import keras
import numpy as np
import pytest

from keras_vit.runs.ood_texture import Texture, num_scales


def by_numpy(image):
    """The statistics of one image (height, width, channels), by loops over pixels and bands."""
    x = image.astype("float64").mean(axis=-1)
    found = [x.mean(), np.log(x.std() + 1e-3)]
    while min(x.shape) >= 4:
        height, width = x.shape[0] // 2, x.shape[1] // 2
        bands, half = np.zeros((3, height, width)), np.zeros((height, width))
        for i in range(height):
            for j in range(width):
                (a, b), (c, d) = x[2 * i : 2 * i + 2, 2 * j : 2 * j + 2]
                bands[:, i, j] = (a + c - b - d) / 2, (a + b - c - d) / 2, (a + d - b - c) / 2
                half[i, j] = (a + b + c + d) / 4
        for band in bands:
            energy = (band**2).mean()
            size = np.log(np.sqrt(energy) + 1e-3)
            down = np.mean(band[1:] * band[:-1]) / (energy + 1e-5)
            right = np.mean(band[:, 1:] * band[:, :-1]) / (energy + 1e-5)
            peak = np.log((band**4).mean() ** 0.25 + 1e-3) - size
            found += [size, size - np.log(np.abs(band).mean() + 1e-3), peak, down, right]
        for i, j in ((1, 0), (2, 0), (2, 1)):
            product = (bands[i] ** 2).mean() * (bands[j] ** 2).mean()
            found.append(np.abs(bands[i] * bands[j]).mean() / np.sqrt(product + 1e-10))
        x = half
    return found


@pytest.mark.parametrize(
    ("shape", "scales"),
    [((28, 28, 1), 3), ((30, 21, 3), 3), ((4, 9, 1), 1), ((3, 8, 3), 0), ((64, 64, 1), 5)],
)
def test_the_statistics_are_those_of_numpy(shape, scales):
    images = np.random.default_rng(0).normal(size=(3, *shape)).astype("float32")
    images[1, :, : shape[1] // 2] = 0.25  # an edge, and a half without contrast
    layer = Texture()
    found = keras.ops.convert_to_numpy(layer(images))
    np.testing.assert_allclose(found, [by_numpy(image) for image in images], rtol=2e-4, atol=2e-4)
    assert num_scales(*shape[:2]) == scales
    assert layer.compute_output_shape((None, *shape)) == (None, found.shape[1]) == (None, 2 + 18 * scales)
    assert layer(images[:0]).shape == (0, found.shape[1])
    assert Texture.from_config(layer.get_config()).get_config() == layer.get_config()


def test_an_image_of_one_level_has_finite_statistics():
    found = keras.ops.convert_to_numpy(Texture()(np.full((2, 16, 16, 1), 0.5, "float32")))
    assert np.isfinite(found).all()


def test_it_computes_in_float32_under_half_precision():
    images = np.random.default_rng(0).normal(size=(2, 16, 16, 3)).astype("float32")
    before = keras.config.dtype_policy()
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        found = Texture()(images)
    finally:
        keras.config.set_dtype_policy(before)
    assert keras.backend.standardize_dtype(found.dtype) == "float32"
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), [by_numpy(x) for x in images], rtol=1e-3)
