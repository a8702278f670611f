"""Augmentation: determined by its seed only, drawn for each image, and the same on every backend."""

import importlib.util
import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_vit.data.augmentation import Augmentation
from keras_vit.data.random_transforms import make_augment
from keras_vit.errors import InputError
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.same_on_every_backend

COUNT, SIDE = 24, 16
LABELS = np.eye(
    COUNT, dtype="float32"
)  # each image has its own class, so labels show which images were mixed

EVERY = {
    "flip": dict(flip="both"),
    "transpose": dict(transpose=True),
    "crop": dict(crop=0.25),
    "brightness": dict(brightness=0.3),
    "contrast": dict(contrast=0.5),
    "mixup": dict(mixup=0.8),
    "cutmix": dict(cutmix=1.0),
    "mixup or cutmix": dict(mixup=0.8, cutmix=1.0),
    "erasing": dict(erasing=0.4),
    "all of these": dict(
        flip="both",
        transpose=True,
        crop=0.1,
        brightness=0.2,
        contrast=0.2,
        mixup=0.2,
        cutmix=1.0,
        erasing=0.2,
    ),
}
# Keras needs 10 s to trace it on JAX.
RAND_AUGMENT = dict(rand_augment=0.5)


def noise(channels=1, side=SIDE):
    return np.random.default_rng(0).uniform(60, 190, (COUNT, side, side, channels)).astype("float32")


def augmented(images, seeds=((3, 4),), **augmentation):
    """Images (seeds, n, h, w, c) and labels (seeds, n, classes) from tf.data, for each seed."""
    augment = make_augment(Augmentation(**augmentation), images.shape[1:])
    labels = LABELS[: len(images)]
    seeds = tf.data.Dataset.from_tensor_slices(np.array(seeds, "int32"))
    dataset = seeds.map(lambda seed: augment(tf.constant(images), tf.constant(labels), seed))
    assert dataset.element_spec[0].shape[1:] == images.shape[1:]
    batches = list(dataset.as_numpy_iterator())
    return np.stack([x for x, _ in batches]), np.stack([y for _, y in batches])


def many(count):
    return [(seed, 7) for seed in range(count)]


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize(
    "augmentation", [*EVERY.values(), pytest.param(RAND_AUGMENT, marks=pytest.mark.long)], ids=str
)
def test_every_augmentation(augmentation, channels):
    images = noise(channels)
    x, y = augmented(images, [(1, 2), (1, 3), (1, 2)], **augmentation)
    assert x.shape == (3, *images.shape)
    assert x.dtype == y.dtype == np.float32
    assert x.min() >= 0
    assert x.max() <= 255 + 1e-4
    np.testing.assert_allclose(y.sum(axis=-1), 1, atol=1e-6)
    # Only the seed decides.
    np.testing.assert_array_equal(x[0], x[2])
    np.testing.assert_array_equal(y[0], y[2])
    assert not np.array_equal(x[0], x[1])
    assert not np.array_equal(x[0], images)


@pytest.mark.parametrize("name", EVERY)
def test_the_global_random_state_has_no_effect(name):
    x, y = augmented(noise(), [(1, 2), (1, 3)], **EVERY[name])
    keras.utils.set_random_seed(12345)
    again, labels = augmented(noise(), [(1, 2), (1, 3)], **EVERY[name])
    np.testing.assert_array_equal(again, x)
    np.testing.assert_array_equal(labels, y)


@pytest.mark.parametrize("name", sorted(set(EVERY) - {"mixup", "cutmix", "mixup or cutmix"}))
def test_every_image_is_augmented_separately(name):
    """Copies of one image in a batch are augmented differently."""
    # mixup and cutmix would mix an image with itself: they are tested below.
    images = np.repeat(noise()[:1], COUNT, axis=0)
    x, _ = augmented(images, **EVERY[name])
    kinds = len(np.unique(x[0].reshape(COUNT, -1), axis=0))
    # 24 images: 4 mirrorings, 2 transposes, shifts by whole pixels. Half of the images are not erased.
    least = {"flip": 4, "transpose": 2, "crop": 15, "erasing": 6}
    assert kinds >= least.get(name, 20)


def test_no_augmentation_is_the_default():
    images = noise(3)
    x, y = augmented(images)
    np.testing.assert_array_equal(x[0], images)
    np.testing.assert_array_equal(y[0], LABELS)


SYMMETRIES = {
    "unchanged": lambda x: x,
    "left-right": lambda x: x[:, ::-1],
    "up-down": lambda x: x[::-1],
    "half turn": lambda x: x[::-1, ::-1],
    "transpose": lambda x: x.transpose(1, 0, 2),
    "right turn": lambda x: x.transpose(1, 0, 2)[:, ::-1],
    "left turn": lambda x: x.transpose(1, 0, 2)[::-1],
    "other transpose": lambda x: x.transpose(1, 0, 2)[::-1, ::-1],
}


@pytest.mark.parametrize(
    ("augmentation", "expected"),
    [
        (dict(flip="horizontal"), ["unchanged", "left-right"]),
        (dict(flip="vertical"), ["unchanged", "up-down"]),
        (dict(flip="both"), ["unchanged", "left-right", "up-down", "half turn"]),
        (dict(transpose=True), ["unchanged", "transpose"]),
        (dict(transpose=True, flip="both"), list(SYMMETRIES)),
    ],
    ids=str,
)
def test_all_flips_and_transposes_are_equally_likely(augmentation, expected):
    images = noise(3)
    x, _ = augmented(images, many(20), **augmentation)
    counts = dict.fromkeys(SYMMETRIES, 0)
    for batch in x:
        for before, after in zip(images, batch, strict=True):
            [name] = [
                name for name, transform in SYMMETRIES.items() if np.array_equal(transform(before), after)
            ]
            counts[name] += 1
    for name, count in counts.items():
        share = 1 / len(expected) if name in expected else 0
        # Four standard deviations of the binomial distribution.
        assert abs(count / (20 * COUNT) - share) <= 4 * np.sqrt(share * (1 - share) / (20 * COUNT)), name


@pytest.mark.parametrize("share", [0.125, 0.25])
def test_crop_shifts_by_whole_pixels_and_mirrors_the_border(share):
    images = noise()
    x, _ = augmented(images, many(4), crop=share)
    most = round(share * SIDE)
    shifts = set()
    for batch in x:
        for before, after in zip(images, batch, strict=True):
            wide = np.pad(before, ((most, most), (most, most), (0, 0)), "symmetric")
            [shift] = [
                (dy, dx)
                for dy in range(2 * most + 1)
                for dx in range(2 * most + 1)
                if np.array_equal(wide[dy : dy + SIDE, dx : dx + SIDE], after)
            ]
            shifts.add(shift)
    assert {dy for dy, _ in shifts} == {dx for _, dx in shifts} == set(range(2 * most + 1))


def test_brightness_adds_one_value_within_its_limit():
    images = noise(3)
    x, _ = augmented(images, many(10), brightness=0.2)
    added = (x - images).reshape(10 * COUNT, -1)
    np.testing.assert_allclose(added, np.repeat(added[:, :1], added.shape[1], axis=1), atol=1e-3)
    amounts = added[:, 0] / 255
    assert -0.2 <= amounts.min() < -0.18
    assert 0.18 < amounts.max() <= 0.2


def test_contrast_scales_about_the_mean():
    images = noise()
    x, _ = augmented(images, many(10), contrast=0.3)
    mean = images.mean(axis=(1, 2, 3), keepdims=True)
    scales = (x - mean).std(axis=(2, 3, 4)) / images.std(axis=(1, 2, 3))
    np.testing.assert_allclose(x, mean + (images - mean) * scales[..., None, None, None], atol=0.02)
    assert 0.7 - 1e-4 <= scales.min() < 0.72
    assert 1.28 < scales.max() <= 1.3 + 1e-4


@pytest.mark.parametrize("share", [0.01, 0.1, 0.4])
def test_erasing_blanks_a_box_of_half_of_the_images(share):
    images = noise(side=40)
    x, y = augmented(images, many(10), erasing=share)
    np.testing.assert_array_equal(y, np.repeat(LABELS[None], 10, axis=0))
    changed = (x != images).any(axis=-1).reshape(-1, 40, 40)
    largest, erased = 0.0, 0
    for mask in changed:
        rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
        if not len(rows):
            continue
        erased += 1
        height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
        assert mask.sum() == height * width  # the whole box
        # A side whose length is not a whole number touches at most one more pixel.
        assert (height - 1) * (width - 1) <= share * 40 * 40
        largest = max(largest, height * width / 1600)
    assert abs(erased / len(changed) - 0.5) < 4 * 0.5 / np.sqrt(len(changed))
    assert largest > 0.6 * share


def test_mixup_mixes_images_and_labels_equally():
    images = noise(3)
    x, y = augmented(images, many(5), mixup=0.8)
    # With one class per image, labels are the weights of the images.
    np.testing.assert_allclose(x, np.einsum("snk,khwc->snhwc", y, images), atol=1e-2)
    assert ((y > 1e-6).sum(axis=-1) <= 2).all()
    own = y[:, np.arange(COUNT), np.arange(COUNT)]
    mixed = (y > 1e-6).sum(axis=-1) == 2
    assert mixed.mean() > 0.7
    assert len(np.unique(own[mixed].round(5))) > 0.9 * mixed.sum()  # each image has its own weight
    assert own.mean() == pytest.approx(0.5, abs=0.15)


@pytest.mark.parametrize(("alpha", "deviation"), [(0.2, 0.423), (1.0, 0.289), (10.0, 0.109)])
def test_mixup_draws_weights_from_beta(alpha, deviation):
    _, y = augmented(noise(side=4), many(40), mixup=alpha)
    own = y[:, np.arange(COUNT), np.arange(COUNT)]
    itself = own > 1 - 1e-6  # an image may be its own partner; a weight of 1 hardly ever occurs above 0.2
    weights = own if alpha < 1 else own[~itself]
    assert weights.std() == pytest.approx(deviation, abs=0.03)


def pasted_boxes(images, batch, labels):
    """For each image that got a box: the pasted mask (h, w) and the share of its own label."""
    for number, (after, label) in enumerate(zip(batch, labels, strict=True)):
        partner = int(np.argmax(np.where(np.arange(COUNT) == number, -1, label)))
        mask = (after != images[number]).any(axis=-1)
        if mask.any():
            np.testing.assert_array_equal(after, np.where(mask[..., None], images[partner], images[number]))
            yield mask, label[number]


def test_cutmix_labels_are_the_area_of_the_pasted_box():
    images = noise(side=32)
    x, y = augmented(images, many(6), cutmix=1.0)
    shares = []
    for batch, labels in zip(x, y, strict=True):
        assert ((labels > 1e-6).sum(axis=-1) <= 2).all()
        for mask, own in pasted_boxes(images, batch, labels):
            rows, columns = np.flatnonzero(mask.any(axis=1)), np.flatnonzero(mask.any(axis=0))
            height, width = rows[-1] - rows[0] + 1, columns[-1] - columns[0] + 1
            assert mask.sum() == height * width
            # The sides of the box are not whole numbers: one pixel per side.
            assert (height - 1) * (width - 1) <= (1 - own) * 1024 + 1e-3
            assert (1 - own) * 1024 <= (height + 1) * (width + 1)
            shares.append(own)
    shares = np.array(shares)
    assert len(np.unique(shares.round(5))) > 0.9 * len(shares)
    # Beta(1, 1) is uniform.
    assert np.quantile(shares, [0.25, 0.5, 0.75]) == pytest.approx([0.25, 0.5, 0.75], abs=0.15)


def test_with_both_each_batch_gets_mixup_or_cutmix():
    images = noise()
    x, y = augmented(images, many(40), mixup=5.0, cutmix=1.0)
    by_labels = np.einsum("snk,khwc->snhwc", y, images)
    blended = np.abs(x - by_labels).max(axis=(1, 2, 3, 4)) < 0.01
    for batch, labels in zip(x[~blended], y[~blended], strict=True):
        assert len(list(pasted_boxes(images, batch, labels))) > COUNT / 2
    assert 8 < blended.sum() < 32


@pytest.mark.long
def test_rand_augment_draws_for_each_image():
    images = np.repeat(noise(side=32)[:1], COUNT, axis=0)
    x, _ = augmented(images, many(3), rand_augment=0.1)
    assert len(np.unique(x[0].reshape(COUNT, -1), axis=0)) >= 20
    # Two weak operations keep the levels of gray images.
    assert min(len(np.unique(image.round())) for image in x.reshape(-1, 32, 32)) > 64


@pytest.mark.parametrize("shape", [(16, 32, 1), (32, 16, 3)])
def test_transpose_needs_square_images(shape):
    with pytest.raises(InputError, match=rf"transpose needs square images, these are {shape[0]}x{shape[1]}"):
        make_augment(Augmentation(transpose=True), shape)


@pytest.mark.parametrize("name", sorted(set(EVERY) - {"transpose", "all of these"}))
def test_images_that_are_not_square(name):
    images = np.random.default_rng(0).uniform(0, 255, (6, 8, 20, 1)).astype("float32")
    x, _ = augmented(images, many(2), **EVERY[name])
    assert x.shape == (2, 6, 8, 20, 1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            dict(flip="diagonal"),
            "flip must be one of 'none', 'horizontal', 'vertical', 'both'. Received: flip=",
        ),
        (dict(crop=1.5), "crop must be 0.0 or more and 1.0 at most. Received: crop=1.5"),
        (dict(brightness=-0.1), "brightness must be"),
        (dict(contrast=2.0), "contrast must be"),
        (dict(rand_augment=5), "rand_augment must be"),
        (dict(mixup=-1.0), "mixup must be 0.0 or more and 10.0 at most"),
        (dict(cutmix=1.5), "cutmix must be 0.0 or more and 1.0 at most"),
        (dict(erasing=float("nan")), "erasing must be"),
    ],
    ids=str,
)
def test_wrong_arguments(arguments, message):
    with pytest.raises(InputError, match=message):
        Augmentation(**arguments)


@pytest.mark.parametrize(
    "arguments",
    [
        dict(crop=1.0),
        dict(brightness=1.0),
        dict(contrast=1.0),
        pytest.param(dict(rand_augment=1.0), marks=pytest.mark.long),
        dict(mixup=0.01),
        dict(mixup=10.0),
        dict(cutmix=0.01),
        dict(erasing=0.001),
        dict(erasing=1.0),
    ],
    ids=str,
)
def test_the_ends_of_the_allowed_ranges(arguments):
    x, y = augmented(noise(side=8), **arguments)
    assert np.isfinite(x).all()
    assert np.isfinite(y).all()
    assert x.min() >= 0
    assert x.max() <= 255 + 1e-4


def batches_of_every_kind():
    found = {"rand_augment": augmented(noise(3), many(2), **RAND_AUGMENT)[0]}
    for name, augmentation in EVERY.items():
        found[f"{name}: images"], found[f"{name}: labels"] = augmented(noise(), many(4), **augmentation)
    return found


SAVE = """
import sys
import numpy as np
from tests.data.test_random_transforms import batches_of_every_kind
np.savez(sys.argv[1], **batches_of_every_kind())
"""


@pytest.mark.long
@pytest.mark.parametrize("other", ["jax", "torch"])
def test_every_backend_augments_equally(other, tmp_path):
    """The same bits as on TensorFlow, where the other tests of this file run."""
    if importlib.util.find_spec(other) is None:
        pytest.skip(f"{other} is not installed")
    subprocess.run(
        [sys.executable, "-c", SAVE, str(tmp_path / "other.npz")],
        env={**os.environ, "KERAS_BACKEND": other, "PYTHONPATH": str(ROOT)},
        check=True,
    )
    with np.load(tmp_path / "other.npz") as other_backend:
        for name, batches in batches_of_every_kind().items():
            np.testing.assert_array_equal(batches, other_backend[name], err_msg=name)
