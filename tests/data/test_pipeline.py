"""Batches for model.fit: full, ordered by seed and epoch only, the same from memory and from files."""

import io
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from keras_vit.data import pipeline
from keras_vit.data.augmentation import Augmentation
from keras_vit.data.image_set import ImageSet
from keras_vit.data.pipeline import ImageData, read_pixels
from keras_vit.data.preprocess import Preprocessing
from keras_vit.data.split import Split
from keras_vit.errors import InputError

pytestmark = pytest.mark.same_on_every_backend

COUNT, BATCH = 50, 8
CLASSES = ("dark", "middle", "bright")
TRAIN, VALIDATION, TEST = np.arange(0, 35), np.arange(35, 41), np.arange(41, 50)
KINDS = ("array", "bytes", "path")
AUGMENTATION = Augmentation(flip="both", transpose=True, crop=0.2, brightness=0.1, mixup=0.2, cutmix=0.5)


def gray_levels(number):
    """An image whose mean is 4 times its number."""
    return np.full((12, 12, 1), 4 * number, np.uint8)


def image_set(kind="array", folder=None, make=gray_levels):
    images = []
    for number in range(COUNT):
        pixels = make(number)
        if kind != "array":
            buffer = io.BytesIO()
            Image.fromarray(pixels[..., 0]).save(buffer, "PNG")
            pixels = buffer.getvalue()
        if kind == "path":
            path = Path(folder) / f"{number}.png"
            path.write_bytes(pixels)
            pixels = path
        images.append(pixels)
    labels = np.arange(COUNT) % 3
    return ImageSet("test", CLASSES, images, tuple(f"{n}.png" for n in range(COUNT)), labels)


def image_data(images=None, **changes):
    arguments = dict(preprocessing=Preprocessing((12, 12, 1)), batch_size=BATCH, seed=0)
    return ImageData(images or image_set(), Split(TRAIN, VALIDATION, TEST), **{**arguments, **changes})


def take(dataset, count):
    return list(dataset.take(count).as_numpy_iterator())


def numbers(x):
    """The numbers of the images."""
    return np.rint((x.mean(axis=(1, 2, 3)) + 1) * 127.5 / 4).astype(int)


def order(data, epoch, epochs=1):
    batches = take(data.train_batches(epoch), epochs * data.steps_per_epoch)
    return np.concatenate([numbers(x) for x, _ in batches])


def assert_same(one, other):
    for (x, y), (x2, y2) in zip(one, other, strict=True):
        np.testing.assert_array_equal(x, x2)
        np.testing.assert_array_equal(y, y2)


@pytest.mark.parametrize("channels", [1, 3])
def test_training_batches(channels):
    data = image_data(preprocessing=Preprocessing((8, 6, channels)), augmentation=Augmentation(flip="both"))
    assert data.steps_per_epoch == 4
    assert data.image_shape == (8, 6, channels)
    assert data.class_names == CLASSES
    assert data.train.element_spec[0].shape == (BATCH, 8, 6, channels)
    for x, y in take(data.train, 6):
        assert x.shape == (BATCH, 8, 6, channels)
        assert y.shape == (BATCH, 3)
        assert x.dtype == y.dtype == np.float32
        assert -1 <= x.min() <= x.max() <= 1
        np.testing.assert_array_equal(y, np.eye(3)[numbers(x) % 3])


MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


@pytest.mark.parametrize("in_memory", [True, False])
def test_every_batch_is_scaled_by_mean_and_deviation(in_memory, monkeypatch):
    monkeypatch.setattr(pipeline, "fits_in_memory", lambda *_: in_memory)
    preprocessing = Preprocessing((8, 6, 3), mean=MEAN, std=STD, interpolation="bicubic")
    data = image_data(preprocessing=preprocessing, augmentation=Augmentation(flip="both"))
    for x, y in [*take(data.train, 4), *take(data.validation, 1), *take(data.test, 1)]:
        level = np.array(STD) * x + MEAN  # 0..1, the same in all pixels and channels
        number = np.rint(level.mean(axis=(1, 2, 3)) * 255 / 4)
        np.testing.assert_allclose(level, np.broadcast_to(4 * number / 255, level.T.shape).T, atol=1e-6)
        np.testing.assert_array_equal(y, np.eye(3)[number.astype(int) % 3])


def test_pixels_are_not_scaled():
    scaled = Preprocessing((12, 12, 1), mean=(0.1,), std=(0.3,))
    np.testing.assert_array_equal(
        image_data(preprocessing=scaled).pixels("test"), image_data().pixels("test")
    )


def test_an_epoch_holds_distinct_training_images():
    data = image_data()
    epochs = order(data, 0, epochs=12).reshape(12, -1)
    assert epochs.shape == (12, 32)
    for epoch in epochs:
        assert len(set(epoch)) == 32
        assert set(epoch) <= set(TRAIN)
    # Three images are left out of each epoch, not always the same ones.
    assert set(epochs.ravel()) == set(TRAIN)
    left_out = {frozenset(set(TRAIN) - set(epoch)) for epoch in epochs}
    assert len(left_out) > 8


def test_the_order_depends_on_epoch_and_seed():
    orders = [tuple(order(image_data(seed=seed), epoch)) for seed in (0, 1, 2**32 - 1) for epoch in (0, 1, 2)]
    assert len(set(orders)) == len(orders)
    assert tuple(order(image_data(seed=1), 2)) == orders[5]


@pytest.mark.parametrize("epoch", [1, 3])
def test_an_epoch_does_not_depend_on_the_first_epoch(epoch):
    data = image_data(image_set(make=textured), augmentation=AUGMENTATION)
    steps = data.steps_per_epoch
    uninterrupted = take(data.train_batches(0), (epoch + 2) * steps)[epoch * steps :]
    resumed = take(
        image_data(image_set(make=textured), augmentation=AUGMENTATION).train_batches(epoch), 2 * steps
    )
    assert_same(resumed, uninterrupted)
    assert not np.array_equal(resumed[0][0], resumed[steps][0])


def textured(number):
    return np.random.default_rng(number).integers(0, 256, (20, 16, 1), dtype=np.uint8)


@pytest.mark.parametrize("kind", KINDS)
def test_files_give_the_same_batches_as_memory(kind, tmp_path, monkeypatch):
    images = image_set(kind, tmp_path, textured)
    kept = image_data(images, augmentation=AUGMENTATION)
    expected = take(kept.train_batches(2), 9)
    evaluated = list(kept.test.as_numpy_iterator())

    monkeypatch.setattr(pipeline, "CACHE_BYTES", 0)
    streamed = image_data(images, augmentation=AUGMENTATION)
    assert_same(take(streamed.train_batches(2), 9), expected)
    assert_same(streamed.test.as_numpy_iterator(), evaluated)
    # All kinds have the same pixels.
    assert_same(
        take(image_data(image_set(make=textured), augmentation=AUGMENTATION).train_batches(2), 9), expected
    )


def exhaust(batches):
    for _ in range(20):
        next(batches)


def test_images_that_fit_in_memory_are_read_once(tmp_path, monkeypatch):
    images = image_set("path", tmp_path)
    size = len(TRAIN) * 12 * 12 * 4
    for limit, kept in ((size, True), (size - 1, False)):
        monkeypatch.setattr(pipeline, "CACHE_BYTES", limit)
        data = image_data(images)
        batches = iter(data.train_batches(0))
        next(batches)
        moved = tmp_path.rename(tmp_path.with_name(f"moved_{limit}"))
        if kept:
            exhaust(batches)
        else:
            with pytest.raises(tf.errors.NotFoundError):
                exhaust(batches)
        moved.rename(tmp_path)


@pytest.mark.parametrize(
    ("part", "positions"), [("train", TRAIN), ("validation", VALIDATION), ("test", TEST)]
)
@pytest.mark.parametrize("size", [4, 256])
def test_evaluation_has_each_image_once_in_order(part, positions, size, monkeypatch):
    monkeypatch.setattr(pipeline, "EVALUATION_BATCH_SIZE", size)
    data = image_data(augmentation=AUGMENTATION)
    dataset = data.batches(part)
    for _ in range(2):  # a second pass too, from the cache
        batches = list(dataset.as_numpy_iterator())
        assert [len(x) for x, _ in batches[:-1]] == [size] * (len(batches) - 1)
        np.testing.assert_array_equal(np.concatenate([numbers(x) for x, _ in batches]), positions)
        labels = np.concatenate([y for _, y in batches])
        np.testing.assert_array_equal(labels, np.eye(3)[positions % 3])
    np.testing.assert_array_equal(data.labels(part), positions % 3)
    assert data.names(part) == tuple(f"{n}.png" for n in positions)
    pixels = data.pixels(part)
    assert pixels.dtype == np.float32
    np.testing.assert_array_equal(pixels, np.stack([gray_levels(n) for n in positions]))


def test_no_validation_part():
    none = np.zeros(0, np.int64)
    data = ImageData(image_set(), Split(TRAIN, none, TEST), Preprocessing((12, 12, 1)), BATCH)
    assert data.validation is None
    assert data.names("validation") == ()
    assert data.pixels("validation").shape == (0, 12, 12, 1)


def test_arrays_with_and_without_colour():
    gray = textured(0)
    colour = np.repeat(gray, 3, axis=-1)
    preprocessing = Preprocessing((20, 16, 3))
    np.testing.assert_array_equal(read_pixels([gray], preprocessing), read_pixels([colour], preprocessing))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (dict(batch_size=36), "batch_size 36 is more than the 35 training images: use a smaller one"),
        (dict(batch_size=0), "batch_size must be 1 or more. Received: batch_size=0"),
        (dict(batch_size=-4), "batch_size must be 1 or more"),
    ],
    ids=str,
)
def test_wrong_batch_size(changes, message):
    with pytest.raises(InputError, match=message):
        image_data(**changes)


def test_one_batch_per_epoch():
    assert image_data(batch_size=35).steps_per_epoch == 1
    assert set(order(image_data(batch_size=35), 0)) == set(TRAIN)
