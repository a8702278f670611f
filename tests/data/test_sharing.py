"""Batches that several processes share: together the batches of one process, each augmented separately."""

from types import SimpleNamespace

import numpy as np
import pytest
import tensorflow as tf

from keras_vit.data import pipeline
from keras_vit.data.augmentation import Augmentation
from keras_vit.data.image_set import ImageSet
from keras_vit.data.pipeline import ImageData
from keras_vit.data.preprocess import Preprocessing
from keras_vit.data.split import Split
from keras_vit.distribution import ProcessShare
from keras_vit.distribution.guards import batch_size_of, process_share
from keras_vit.errors import InputError

pytestmark = pytest.mark.same_on_every_backend

COUNT, BATCH, STEPS = 35, 8, 4
NOISE = np.random.default_rng(0).integers(0, 256, (12, 12, 1), dtype=np.uint8)
AUGMENTATIONS = {
    "flip": Augmentation(flip="both"),
    "crop": Augmentation(crop=0.4),
}


def numbered(number):
    """An image whose mean is 4 times its number."""
    return np.full((12, 12, 1), 4 * number, np.uint8)


def image_data(make=numbered, **changes):
    images = ImageSet(
        "test",
        ("even", "odd"),
        [make(number) for number in range(COUNT)],
        tuple(f"{number}.png" for number in range(COUNT)),
        np.arange(COUNT) % 2,
    )
    none = np.zeros(0, np.int64)
    arguments = dict(preprocessing=Preprocessing((12, 12, 1)), batch_size=BATCH, seed=0)
    return ImageData(images, Split(np.arange(COUNT), none, none), **{**arguments, **changes})


def alike(number):
    return NOISE


def take(data, epochs=1, first_epoch=0, process_id=0, num_processes=1):
    """Images and labels of some epochs, each of (steps, images, ...)."""
    batches = data.train_batches(first_epoch, process_id, num_processes).take(epochs * STEPS)
    images, labels = zip(*batches.as_numpy_iterator(), strict=True)
    return np.stack(images), np.stack(labels)


def shares(data, num_processes, epochs=1):
    return [
        take(data, epochs, process_id=process_id, num_processes=num_processes)
        for process_id in range(num_processes)
    ]


def numbers(images):
    """The numbers of the images."""
    return np.rint((images.mean(axis=(-3, -2, -1)) + 1) * 127.5 / 4).astype(int)


@pytest.mark.parametrize(("num_processes", "kept"), [(1, True), (2, True), (4, True), (2, False)])
def test_the_shares_of_a_step_are_the_batch_of_one_process(num_processes, kept, monkeypatch):
    if not kept:
        monkeypatch.setattr(pipeline, "CACHE_BYTES", 0)
    data = image_data()
    whole, whole_labels = take(data, epochs=2)
    parts = shares(data, num_processes, epochs=2)
    for images, labels in parts:
        assert images.shape == (2 * STEPS, BATCH // num_processes, 12, 12, 1)
        np.testing.assert_array_equal(labels, np.eye(2)[numbers(images) % 2])
    np.testing.assert_array_equal(np.concatenate([images for images, _ in parts], axis=1), whole)
    np.testing.assert_array_equal(np.concatenate([labels for _, labels in parts], axis=1), whole_labels)
    # No image is in two processes, or twice in an epoch.
    for epoch in np.split(np.concatenate([numbers(images) for images, _ in parts], axis=1), 2):
        assert len(set(epoch.ravel())) == STEPS * BATCH


def test_seed_and_epoch_decide_the_order_of_a_share():
    def order(seed):
        return numbers(take(image_data(seed=seed), 2, process_id=1, num_processes=2)[0])

    first, second = order(0), order(1)
    np.testing.assert_array_equal(order(0), first)
    epochs = [*np.split(first, 2), *np.split(second, 2)]
    for i, epoch in enumerate(epochs):
        for other in epochs[:i]:
            assert not np.array_equal(epoch, other)


@pytest.mark.parametrize("augmentation", AUGMENTATIONS.values(), ids=AUGMENTATIONS.keys())
def test_every_process_augments_differently(augmentation):
    data = image_data(alike, augmentation=augmentation)
    whole, labels = take(data)
    parts = shares(data, 2)
    drawn = [whole[:, : BATCH // 2], whole[:, BATCH // 2 :], *(images for images, _ in parts)]
    # The images are the same, so all differences come from the augmentation. It differs in every step.
    for i, images in enumerate(drawn):
        for other in drawn[:i]:
            for step in range(STEPS):
                assert not np.array_equal(images[step], other[step])
    # The labels, and so the images, are shared in the same way without augmentation.
    np.testing.assert_array_equal(np.concatenate([part for _, part in parts], axis=1), labels)


def mixed(num_processes, process_id):
    augmentation = Augmentation(crop=0.2, mixup=0.2, cutmix=0.5)
    return take(image_data(augmentation=augmentation), 2, 0, process_id, num_processes)


@pytest.mark.parametrize(("num_processes", "process_id"), [(2, 0), (4, 3)])
def test_a_process_draws_the_same_again(num_processes, process_id):
    for one, again in zip(mixed(num_processes, process_id), mixed(num_processes, process_id), strict=True):
        np.testing.assert_array_equal(one, again)


@pytest.mark.parametrize(("num_processes", "process_id"), [(2, 0), (4, 3)])
def test_a_share_that_begins_at_an_epoch_equals_an_uninterrupted_one(num_processes, process_id):
    data = image_data(alike, augmentation=AUGMENTATIONS["crop"])
    for uninterrupted, resumed in zip(
        take(data, 3, 0, process_id, num_processes),
        take(data, 2, 1, process_id, num_processes),
        strict=True,
    ):
        np.testing.assert_array_equal(resumed, uninterrupted[STEPS:])


# Datasets of global batches, from any pipeline


def process(process_id, num_processes):
    return SimpleNamespace(process_id=process_id, num_processes=num_processes)


def share(distribution, batches):
    return process_share(distribution, {"x": batches})["x"]


X, Y, WEIGHTS = np.arange(48.0).reshape(16, 3), np.arange(16), np.arange(16) / 16
STRUCTURES = {
    "images and labels": (X, Y),
    "with weights": (X, Y, WEIGHTS),
    "by name": ({"images": X, "more": WEIGHTS}, Y),
}


@pytest.mark.parametrize("arrays", STRUCTURES.values(), ids=STRUCTURES.keys())
@pytest.mark.parametrize("num_processes", [2, 4])
def test_a_process_takes_its_rows_of_every_global_batch(arrays, num_processes):
    dataset = tf.data.Dataset.from_tensor_slices(arrays).batch(8, drop_remainder=True)
    size = 8 // num_processes
    for process_id in range(num_processes):
        found = list(share(process(process_id, num_processes), dataset).as_numpy_iterator())
        assert len(found) == 2
        for step, batch in enumerate(found):
            first = 8 * step + size * process_id
            expected = tf.nest.map_structure(lambda rows, i=first: rows[i : i + size], arrays)
            tf.nest.map_structure(np.testing.assert_array_equal, batch, expected)


def test_shares_have_a_known_size():
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8, drop_remainder=True)
    assert batch_size_of(share(process(1, 2), dataset)) == 4


def test_one_process_takes_all_and_a_share_is_not_split_again():
    dataset = tf.data.Dataset.from_tensor_slices((X, Y)).batch(8, drop_remainder=True)
    assert share(process(0, 1), dataset) is dataset
    assert share(process(1, 2), ProcessShare(dataset)) is dataset


def test_batch_size_of_whole_batches():
    dataset = tf.data.Dataset.from_tensor_slices((X, Y))
    assert batch_size_of(dataset.batch(8, drop_remainder=True)) == 8
    assert batch_size_of(dataset.repeat().batch(5, drop_remainder=True)) == 5


def unequal(x, y):
    return x, y[:4]


PARTIAL = {
    "a last one of 1": lambda dataset: dataset.batch(5),
    "whole ones by chance": lambda dataset: dataset.batch(8),
    "no batches": lambda dataset: dataset,
    "no batches of scalars": lambda dataset: dataset.map(lambda x, y: y),
    "images and labels of two sizes": lambda dataset: dataset.batch(8, drop_remainder=True).map(unequal),
}


@pytest.mark.parametrize("make", PARTIAL.values(), ids=PARTIAL.keys())
def test_partial_batches_are_refused(make):
    dataset = make(tf.data.Dataset.from_tensor_slices((X, Y)))
    for function in (batch_size_of, lambda x: share(process(0, 2), x)):
        with pytest.raises(InputError) as caught:
            function(dataset)
        assert str(caught.value) == (
            "The last batch of this dataset may be partial, which changes its weight on several "
            "devices: batch it with drop_remainder=True."
        )
