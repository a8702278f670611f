"""Weights for other images, classes and heads: each change against another library or plain numpy."""

import dataclasses
import re

import keras
import numpy as np
import pytest

from keras_vit import ViT
from keras_vit.errors import InputError
from keras_vit.model.weights.adapt import BIAS, KERNEL, TABLE, adapt
from keras_vit.model.weights.checkpoint import Origin
from keras_vit.model.weights.weights import Weights
from tests.helpers.published import answers
from tests.helpers.random_tensors import random_images, random_tensors
from tests.helpers.sources import MEAN, STD

SMALL = dict(image_shape=(16, 16, 3), num_classes=5, patch_size=4, dim=16, depth=2, num_heads=2)


def weights_of(**changes):
    """Random weights of a small model, as a reader of a family returns them."""
    model = ViT(**{**SMALL, **changes})
    shapes = {weight.path: tuple(weight.shape) for weight in model.weights if weight.dtype == "float32"}
    channels = model.config.image_shape[2]
    return Weights(
        family="timm",
        config=model.config,
        arrays=random_tensors(shapes),
        origin=Origin("some/file.safetensors", (), sha256="0" * 64),
        mean=MEAN[:channels],
        std=STD[:channels],
        class_names=tuple("abcde")[: model.config.num_classes] or None,
    )


def logits(weights, images):
    return answers(ViT.from_weights(weights), images)


def scaled(pixels, weights):
    """Pixels in 0..1 as a model with these weights takes them."""
    return ((pixels - np.array(weights.mean)) / np.array(weights.std)).astype("float32")


def torch_resize(images, size, mode, antialias):
    """(n, height, width, channels) at another size, by torch."""
    from torch import from_numpy
    from torch.nn.functional import interpolate

    planes = from_numpy(np.ascontiguousarray(np.moveaxis(images, -1, 1)))
    resized = interpolate(planes, size=size, mode=mode, antialias=antialias, align_corners=False)
    return np.moveaxis(resized.numpy(), 1, -1)


# Positions


@pytest.mark.parametrize("shape", [(32, 32, 3), (8, 8, 3), (24, 40, 3), (8, 24, 3)], ids=str)
@pytest.mark.parametrize("first", [{}, dict(num_registers=2), dict(pooling="gap")], ids=str)
def test_positions_are_resized_as_torch_does(shape, first):
    weights = weights_of(**first)
    prefix = weights.arrays[TABLE].shape[1] - 16
    grid = (shape[0] // 4, shape[1] // 4)

    adapted = adapt(weights, shape)

    table = adapted.arrays[TABLE]
    patches = weights.arrays[TABLE][:, prefix:].reshape(1, 4, 4, -1)
    expected = torch_resize(patches, grid, "bicubic", antialias=True).reshape(1, grid[0] * grid[1], -1)
    np.testing.assert_allclose(table[:, prefix:], expected, atol=1e-5)
    np.testing.assert_array_equal(table[:, :prefix], weights.arrays[TABLE][:, :prefix])
    assert adapted.notes == (f"positions resized from 4x4 to {grid[0]}x{grid[1]} patches (bicubic)",)
    # The head is for the same classes, so it stays.
    np.testing.assert_array_equal(adapted.arrays["head/kernel"], weights.arrays["head/kernel"])
    assert adapted.class_names == weights.class_names
    assert logits(adapted, random_images(shape)).shape == (2, 5)


@pytest.mark.same_on_every_backend
def test_nothing_changes_where_nothing_is_asked():
    weights = weights_of()
    adapted = adapt(weights, (16, 16, 3), 5, {"drop_path_rate": 0.2, "remat": True})
    assert adapted.notes == adapted.new == ()
    assert adapted.arrays.keys() == weights.arrays.keys()
    for name, array in weights.arrays.items():
        assert adapted.arrays[name] is array
    expected = dataclasses.replace(weights.config, drop_path_rate=0.2, remat=True)
    assert adapted.config == expected


@pytest.mark.same_on_every_backend
def test_the_weights_of_the_file_stay_as_they_are():
    weights = weights_of()
    before = {name: array.copy() for name, array in weights.arrays.items()}
    adapt(weights, (24, 24, 1), 2, {"patch_size": 6, "pooling": "gap"})
    assert weights.arrays.keys() == before.keys()
    for name, array in before.items():
        np.testing.assert_array_equal(weights.arrays[name], array)
    assert weights.new == weights.notes == ()


# Patches


@pytest.mark.same_on_every_backend
def test_larger_patches_see_a_larger_image_as_the_model_saw_the_small_one():
    """Each patch of 4x4 is enlarged to 8x8 by torch: the answers stay, whatever the image."""
    weights = weights_of()
    images = random_images((16, 16, 3))
    patches = images.reshape(2, 4, 4, 4, 4, 3).swapaxes(2, 3).reshape(32, 4, 4, 3)
    large = torch_resize(patches, (8, 8), "bilinear", antialias=False)
    enlarged = large.reshape(2, 4, 4, 8, 8, 3).swapaxes(2, 3).reshape(2, 32, 32, 3)

    adapted = adapt(weights, (32, 32, 3), changes={"patch_size": 8})

    assert adapted.notes == ("patches resized from 4 to 8 pixels (PI-resize)",)
    np.testing.assert_allclose(logits(adapted, enlarged), logits(weights, images), atol=1e-5)


def test_smaller_patches_are_the_least_squares_solution():
    weights = weights_of()
    unit_patches = np.eye(16, dtype="float32").reshape(16, 4, 4, 1)
    resize = torch_resize(unit_patches, (3, 3), "bilinear", antialias=False).reshape(16, 9)
    expected, *_ = np.linalg.lstsq(resize, weights.arrays[KERNEL].reshape(16, -1), rcond=None)

    adapted = adapt(weights, (12, 12, 3), changes={"patch_size": 3})

    np.testing.assert_allclose(adapted.arrays[KERNEL].reshape(9, -1), expected, atol=1e-5)
    assert adapted.config.grid == weights.config.grid
    np.testing.assert_array_equal(adapted.arrays[TABLE], weights.arrays[TABLE])


# Channels


@pytest.mark.parametrize("options", [{}, dict(patch_bias=True, pre_norm=True), dict(pooling="map")], ids=str)
def test_gray_pixels_are_answered_as_three_equal_channels(options):
    """With ImageNet's mean and deviation, which differ per channel, from pixels to logits."""
    weights = weights_of(**options)
    gray = np.random.default_rng(0).uniform(size=(3, 16, 16, 1))

    adapted = adapt(weights, (16, 16, 1))

    assert (adapted.mean, adapted.std) == ((pytest.approx(np.mean(MEAN)),), (pytest.approx(np.mean(STD)),))
    expected = logits(weights, scaled(np.repeat(gray, 3, axis=-1), weights))
    np.testing.assert_allclose(logits(adapted, scaled(gray, adapted)), expected, atol=1e-5)
    assert np.std(expected, axis=0).min() > 1e-3  # the images do matter
    assert adapted.notes == ("patch projection summed over 3 channels for 1",)


@pytest.mark.parametrize(("before", "after"), [(3, 4), (3, 2), (1, 3)])
def test_other_channels_that_are_equal_are_answered_as_those_of_the_file(before, after):
    weights = weights_of(image_shape=(16, 16, before))
    gray = np.random.default_rng(0).uniform(size=(2, 16, 16, 1))

    adapted = adapt(weights, (16, 16, after))

    assert len(adapted.mean) == len(adapted.std) == after
    expected = logits(weights, scaled(np.repeat(gray, before, axis=-1), weights))
    found = logits(adapted, scaled(np.repeat(gray, after, axis=-1), adapted))
    np.testing.assert_allclose(found, expected, atol=1e-5)


@pytest.mark.same_on_every_backend
def test_a_projection_without_bias_stays_one_where_it_can():
    """One mean for all channels needs no shift, so the model needs no bias."""
    weights = dataclasses.replace(
        weights_of(patch_bias=False, pre_norm=True), mean=(0.5,) * 3, std=(0.5,) * 3
    )
    gray = np.random.default_rng(0).uniform(size=(2, 16, 16, 1))
    adapted = adapt(weights, (16, 16, 1))
    assert BIAS not in adapted.arrays
    expected = logits(weights, scaled(np.repeat(gray, 3, axis=-1), weights))
    np.testing.assert_allclose(logits(adapted, scaled(gray, adapted)), expected, atol=1e-5)


def test_gray_pixels_of_a_projection_without_bias():
    """CLIP: three means, no bias. The same function of gray pixels needs one."""
    weights = weights_of(patch_bias=False, pre_norm=True)
    gray = np.random.default_rng(0).uniform(size=(2, 16, 16, 1))
    adapted = adapt(weights, (16, 16, 1))
    assert adapted.config.patch_bias
    expected = logits(weights, scaled(np.repeat(gray, 3, axis=-1), weights))
    np.testing.assert_allclose(logits(adapted, scaled(gray, adapted)), expected, atol=1e-5)


# Heads


@pytest.mark.parametrize("classes", [2, 7])
def test_a_new_head_begins_with_zeros(classes):
    weights = weights_of()
    adapted = adapt(weights, num_classes=classes)
    assert adapted.arrays["head/kernel"].shape == (16, classes)
    assert not adapted.arrays["head/kernel"].any()
    assert not adapted.arrays["head/bias"].any()
    assert not logits(adapted, random_images((16, 16, 3))).any()
    assert adapted.class_names is None
    assert adapted.new == ()
    assert adapted.notes == (
        f"a new head of {classes} classes in place of that of 5, which begins with zeros",
    )


@pytest.mark.parametrize(
    "options", [{}, dict(pooling="gap"), dict(pooling="map"), dict(pooling="token+gap")], ids=str
)
def test_without_a_head_the_model_gives_the_features(options):
    weights = weights_of(**options)
    images = random_images((16, 16, 3))
    bare = adapt(weights, num_classes=0)
    features = logits(bare, images)
    kernel, bias = weights.arrays["head/kernel"], weights.arrays["head/bias"]
    assert features.shape == (2, len(kernel))
    np.testing.assert_allclose(features @ kernel + bias, logits(weights, images), atol=1e-4)
    assert not any(name.startswith("head") for name in bare.arrays)
    assert bare.notes == ("the head of 5 classes is dropped",)


@pytest.mark.same_on_every_backend
def test_a_head_can_be_new_for_as_many_classes():
    adapted = adapt(weights_of(pooling="gap"), new_head=True)
    assert not adapted.arrays["head/kernel"].any()
    assert adapted.arrays["head/kernel"].shape == (16, 5)
    assert adapted.class_names is None


def test_a_hidden_layer_of_the_head_stays_with_other_classes():
    weights = weights_of(head_hidden_dim=8, head_activation="tanh")
    adapted = adapt(weights, num_classes=3)
    np.testing.assert_array_equal(adapted.arrays["head_hidden/kernel"], weights.arrays["head_hidden/kernel"])
    assert adapted.arrays["head/kernel"].shape == (8, 3)


@pytest.mark.same_on_every_backend
def test_a_new_hidden_layer_is_named_as_new():
    adapted = adapt(weights_of(head_hidden_dim=8), changes={"head_hidden_dim": 12})
    assert adapted.new == ("head_hidden/kernel", "head_hidden/bias")
    assert not any(name.startswith("head_hidden") for name in adapted.arrays)
    assert adapted.arrays["head/kernel"].shape == (12, 5)
    assert adapted.class_names is None  # the head is not that of the file, though it has as many classes


@pytest.mark.parametrize("pooling", ["gap", "token+gap", "all", "map"])
def test_another_pooling_keeps_the_tokens(pooling):
    weights = weights_of()
    images = random_images((16, 16, 3))
    adapted = adapt(weights, changes={"pooling": pooling})
    assert adapted.config.use_cls
    assert adapted.config.num_first_tokens == weights.config.num_first_tokens
    old, new = ViT.from_weights(weights), ViT.from_weights(adapted)
    patches = [answers(model.extractor("patch_tokens"), images) for model in (old, new)]
    np.testing.assert_allclose(patches[0], patches[1], atol=1e-5)
    features = answers(new.extractor("features"), images)
    token = answers(old.extractor("features"), images)
    mean = patches[0].mean(axis=1)
    expected = {
        "gap": mean,
        "token+gap": np.concatenate([token, mean], axis=1),
        "all": (token + 16 * mean) / 17,
    }
    if pooling in expected:
        np.testing.assert_allclose(features, expected[pooling], atol=1e-5)
        assert adapted.new == ()
    else:
        assert adapted.new == ("pool",)
    assert not answers(new, images).any()  # its head begins with zeros
    assert adapted.class_names is None


REFUSED = {
    "dim": ({}, {}, {"dim": 8}, "dim comes from the weights: leave it out."),
    "two names": ({}, {}, {"num_heads": 8, "depth": 3}, "depth, num_heads comes from the weights"),
    "no class token": (
        dict(pooling="gap"),
        {},
        {"pooling": "token"},
        'The weights have no class token, which pooling="token" needs.',
    ),
    "no class token for both": (dict(pooling="map"), {}, {"pooling": "token+gap"}, "no class token"),
    "no distillation token": ({}, {}, {"pooling": "token+distilled"}, "no distillation token"),
    "distilled": (dict(pooling="token+distilled"), {}, {"pooling": "gap"}, "the pooling cannot change"),
    "a size that patches do not divide": ({}, {"image_shape": (18, 18, 3)}, {}, "18"),
    "a patch that does not divide": ({}, {}, {"patch_size": 5}, "5"),
    "patches of a conv stem": (dict(stem="conv"), {}, {"patch_size": 8}, "for patch_size=4 only"),
    "channels of a conv stem": (dict(stem="conv"), {"image_shape": (16, 16, 1)}, {}, "give images of 3"),
    "channels of normalised patches": (
        dict(patch_norm=True),
        {"image_shape": (16, 16, 1)},
        {},
        "made for 3 channels",
    ),
    "patches that are normalised": (dict(patch_norm=True), {}, {"patch_size": 2}, "for patch_size=4 only"),
    "no channels": ({}, {"image_shape": (16, 16)}, {}, "image_shape"),
    "a negative number of classes": ({}, {"num_classes": -1}, {}, "num_classes"),
    "an unknown pooling": ({}, {}, {"pooling": "max"}, "pooling"),
}


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("case", REFUSED)
def test_changes_that_cannot_be_made_are_refused_in_one_sentence(case):
    options, arguments, changes, words = REFUSED[case]
    with pytest.raises(InputError, match=re.escape(words)) as error:
        adapt(weights_of(**options), **arguments, changes=changes)
    assert "\n" not in str(error.value)


def test_arrays_that_do_not_fit_leave_the_model_alone():
    """All weights are set or none."""
    from keras_vit.model.vit import load_arrays

    weights = weights_of()
    model = ViT.from_weights(weights)
    before = [value.copy() for value in model.get_weights()]
    first = next(iter(weights.arrays))
    wrong = {first: weights.arrays[first] + 1, "head/bias": np.zeros(4, "float32")}
    with pytest.raises(InputError, match=r"x\.pth: head/bias is \(4,\), which needs \(5,\)"):
        load_arrays(model, wrong, "x.pth")
    with pytest.raises(InputError, match=r"x\.pth: tail/bias is \(4,\), which is no weight of such a model"):
        load_arrays(model, {first: wrong[first], "tail/bias": np.zeros(4)}, "x.pth")
    for value, old in zip(model.get_weights(), before, strict=True):
        np.testing.assert_array_equal(keras.ops.convert_to_numpy(value), old)
