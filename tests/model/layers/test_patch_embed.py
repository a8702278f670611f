import numpy as np
import pytest

from keras_vit import PatchEmbed
from keras_vit.model.layers.patch_embed import resize_patch_kernel
from tests.helpers.checks import check_layer, layer_norm, random_input, randomize, to_numpy

CASES = {
    "linear": (dict(dim=64, patch_size=4), (4, 28, 28, 1), (4, 49, 64), 2, 1088, 0),
    "linear, not square": (dict(dim=6, patch_size=4), (4, 8, 20, 3), (4, 10, 6), 2, 48 * 6 + 6, 0),
    "linear, 4 channels": (dict(dim=5, patch_size=3), (4, 6, 9, 4), (4, 6, 5), 2, 36 * 5 + 5, 0),
    "no bias": (dict(dim=6, patch_size=4, patch_bias=False), (4, 8, 20, 3), (4, 10, 6), 1, 48 * 6, 0),
    "norms": (
        dict(dim=6, patch_size=4, patch_norm=True, norm_epsilon=1e-5),
        (4, 8, 20, 3),
        (4, 10, 6),
        6,
        2 * 48 + 48 * 6 + 6 + 2 * 6,
        0,
    ),
    # 9 * channels * width for a convolution, and 4 * width for its norm: 1 -> 16 -> 64 channels.
    "conv": (
        dict(dim=64, patch_size=4, stem="conv"),
        (4, 28, 28, 1),
        (4, 49, 64),
        10,
        9 * 16 + 4 * 16 + 9 * 16 * 64 + 4 * 64,
        4,
    ),
    "conv, patch 2, not square": (
        dict(dim=6, patch_size=2, stem="conv"),
        (4, 8, 4, 3),
        (4, 8, 6),
        5,
        9 * 3 * 6 + 4 * 6,
        2,
    ),
    # 4 -> 2 -> 4 -> 16
    "conv, patch 8, 4 channels": (
        dict(dim=16, patch_size=8, stem="conv"),
        (4, 16, 8, 4),
        (4, 2, 16),
        15,
        9 * (4 * 2 + 2 * 4 + 4 * 16) + 4 * (2 + 4 + 16),
        6,
    ),
    # 4 -> 4 -> 8 -> 16
    "conv-pool, patch 8, 4 channels": (
        dict(dim=16, patch_size=8, stem="conv-pool"),
        (4, 16, 8, 4),
        (4, 2, 16),
        15,
        9 * (4 * 4 + 4 * 8 + 8 * 16) + 4 * (4 + 8 + 16),
        6,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_is_a_layer(case):
    kwargs, shape, output_shape, weights, parameters, non_trainable = CASES[case]
    check_layer(
        PatchEmbed,
        kwargs,
        shape,
        expected_output_shape=output_shape,
        expected_weights=weights,
        expected_parameters=parameters,
        expected_non_trainable=non_trainable,
    )


@pytest.mark.parametrize(("shape", "patch"), [((2, 8, 12, 3), 4), ((2, 6, 4, 1), 2), ((1, 3, 3, 4), 1)])
def test_linear_is_a_product_with_each_patch(shape, patch):
    layer = PatchEmbed(dim=5, patch_size=patch)
    x = random_input(shape)
    layer.build(shape)
    kernel, bias = (to_numpy(weight) for weight in randomize(layer).weights)
    tokens = to_numpy(layer(x))
    columns = shape[2] // patch
    for image, row, column in np.ndindex(shape[0], shape[1] // patch, columns):
        cut = x[image, row * patch : (row + 1) * patch, column * patch : (column + 1) * patch]
        expected = cut.reshape(-1) @ kernel + bias
        np.testing.assert_allclose(tokens[image, row * columns + column], expected, atol=1e-4)


@pytest.mark.parametrize("patch_bias", [True, False])
def test_patch_norm_normalises_before_and_after_the_projection(patch_bias):
    layer = PatchEmbed(dim=6, patch_size=4, patch_bias=patch_bias, patch_norm=True, norm_epsilon=1e-2)
    x = 0.1 * random_input((2, 8, 12, 3))
    layer.build(x.shape)
    randomize(layer)
    parts = {name: part.get_weights() for name, part in layer.parts().items()}
    assert list(parts) == ["patch_norm", "projection", "embedding_norm"]
    kernel, *bias = parts["projection"]
    tokens = to_numpy(layer(x))
    for image, row, column in np.ndindex(2, 2, 3):
        cut = x[image, row * 4 : (row + 1) * 4, column * 4 : (column + 1) * 4].reshape(-1)
        projected = layer_norm(cut, *parts["patch_norm"], 1e-2) @ kernel + sum(bias)
        expected = layer_norm(projected, *parts["embedding_norm"], 1e-2)
        np.testing.assert_allclose(tokens[image, row * 3 + column], expected, atol=1e-4)


def test_conv_stem_is_convolution_norm_relu():
    layer = PatchEmbed(dim=8, patch_size=4, stem="conv")
    x = random_input((2, 8, 16, 3))
    layer.build(x.shape)
    randomize(layer)
    expected = x
    for convolution, norm in zip(layer.convolutions, layer.norms, strict=True):
        (kernel,) = convolution.get_weights()
        gamma, beta, mean, variance = norm.get_weights()
        # Stride 2 on an even side: "same" padding adds one row below and one column to the right.
        padded = np.pad(expected, ((0, 0), (0, 1), (0, 1), (0, 0)))
        rows, columns = expected.shape[1] // 2, expected.shape[2] // 2
        out = np.zeros((len(x), rows, columns, kernel.shape[-1]))
        for r, c in np.ndindex(rows, columns):
            window = padded[:, 2 * r : 2 * r + 3, 2 * c : 2 * c + 3]
            out[:, r, c] = np.einsum("byxc,yxcd->bd", window, kernel)
        out = (out - mean) / np.sqrt(variance + norm.epsilon) * gamma + beta
        expected = np.maximum(out, 0)
    np.testing.assert_allclose(to_numpy(layer(x)), expected.reshape(2, 8, 8), atol=1e-4)


@pytest.mark.parametrize("stem", ["linear", "conv"])
def test_pixels_may_be_whole_numbers(stem):
    layer = PatchEmbed(dim=8, patch_size=4, stem=stem)
    pixels = np.random.default_rng(0).integers(0, 256, (2, 8, 12, 3), dtype="uint8")
    np.testing.assert_allclose(to_numpy(layer(pixels)), to_numpy(layer(pixels.astype("float32"))), rtol=1e-6)


def test_conv_stem_uses_the_batch_in_training_only():
    layer = PatchEmbed(dim=4, patch_size=2, stem="conv")
    x = random_input((4, 4, 4, 1)) + 3
    assert abs(to_numpy(layer(x)) - to_numpy(layer(x, training=True))).max() > 0.1


WRONG = [
    (dict(dim=0, patch_size=4), None, "dim must be 1 or more. Received: dim=0"),
    (dict(dim=4, patch_size=0), None, "patch_size must be 1 or more. Received: patch_size=0"),
    (
        dict(dim=4, patch_size=4, stem="x"),
        None,
        "stem must be one of 'linear', 'conv', 'conv-pool'. Received: stem='x'",
    ),
    (
        dict(dim=4, patch_size=6, stem="conv"),
        None,
        "patch_size must be 2, 4, 8, 16, ... Received: patch_size=6",
    ),
    (dict(dim=4, patch_size=1, stem="conv"), None, "patch_size must be 2, 4, 8, 16, ..."),
    (dict(dim=4, patch_size=4, patch_bias=None), None, "patch_bias must be true or false."),
    (dict(dim=4, patch_size=4, norm_epsilon=-1.0), None, "norm_epsilon must be above 0.0 and 0.01 at most."),
    (
        dict(dim=4, patch_size=4, stem="conv", patch_norm=True),
        None,
        'patch_norm=True and patch_bias=False are for stem="linear". '
        'Received: stem="conv", patch_bias=True, patch_norm=True',
    ),
    (dict(dim=4, patch_size=4, stem="conv", patch_bias=False), None, 'are for stem="linear".'),
    (dict(dim=6, patch_size=4, stem="conv"), None, "needs a dim that 4 divides. Received: dim=6"),
    (
        dict(dim=4, patch_size=4),
        (None, 28, 30, 1),
        "patch_size must divide the height and the width of the image. Received: patch_size=4, image 28x30",
    ),
    (dict(dim=4, patch_size=4), (None, 6, 8, 1), "Received: patch_size=4, image 6x8"),
]


@pytest.mark.parametrize(("kwargs", "shape", "message"), WRONG)
def test_wrong_arguments(kwargs, shape, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the text is compared below)
        PatchEmbed(**kwargs).build(shape)
    assert message in str(caught.value)


def bilinear_matrix(old, new):
    """Row i holds the weights of the `old` samples for sample i of the `new` ones."""
    matrix = np.zeros((new, old))
    for i in range(new):
        center = min(max((i + 0.5) * old / new - 0.5, 0), old - 1)
        left = min(int(center), old - 1)
        right = min(left + 1, old - 1)
        matrix[i, left] += 1 - (center - left)
        matrix[i, right] += center - left
    return matrix


@pytest.mark.parametrize("new", [5, 6, 8])
def test_resize_patch_kernel_of_a_larger_patch_gives_the_same_tokens(new):
    old, channels = 4, 3
    kernel = random_input((old * old * channels, 7))
    patches = random_input((10, old, old, channels), seed=1)
    lines = bilinear_matrix(old, new)
    enlarged = np.einsum("yi,xj,bijc->byxc", lines, lines, patches)
    resized = resize_patch_kernel(kernel, old, channels, new)
    assert resized.shape == (new * new * channels, 7)
    assert resized.dtype == "float32"
    np.testing.assert_allclose(
        enlarged.reshape(10, -1) @ resized, patches.reshape(10, -1) @ kernel, atol=1e-4
    )


def test_resize_patch_kernel_of_a_smaller_patch_is_the_nearest():
    old, new = 6, 4
    kernel = random_input((old * old, 5))
    lines = bilinear_matrix(old, new)
    shrink = np.einsum("yi,xj->yxij", lines, lines).reshape(new * new, old * old)
    miss = shrink.T @ resize_patch_kernel(kernel, old, 1, new) - kernel
    assert np.linalg.norm(miss) > 0.1
    # Least squares: no change of the new kernel can reduce the error.
    np.testing.assert_allclose(shrink @ miss, 0, atol=1e-4)


def test_resize_patch_kernel_to_the_same_size_changes_nothing():
    kernel = random_input((4 * 4 * 3, 7))
    np.testing.assert_allclose(resize_patch_kernel(kernel, 4, 3, 4), kernel, atol=1e-5)


def test_resize_patch_kernel_of_another_size():
    with pytest.raises(ValueError, match=r"Received: \(16, 5\) for patch_size=4, channels=3"):
        resize_patch_kernel(np.zeros((16, 5)), 4, 3, 8)
