"""Half of the images of each batch are corrupted copies, which are made once from the images as they came."""

import numpy as np
import pytest

from keras_vit.data import corrupted
from keras_vit.data.augmentation import Augmentation
from keras_vit.data.corrupted import corrupted_pixels
from keras_vit.data.corruptions import corrupted_copies
from keras_vit.data.image_set import ImageSet
from keras_vit.data.pipeline import ImageData, read_pixels
from keras_vit.data.preprocess import Preprocessing
from keras_vit.data.split import Split
from keras_vit.errors import InputError

pytestmark = pytest.mark.same_on_every_backend

COUNT, TRAIN = 40, np.arange(30)
DARKER = Augmentation(corrupted_copies=3, corruptions=("brightness",))


def image_data(augmentation, side=20, **more):
    """Images of one gray level each, 100 to 139, whose labels are their numbers modulo 3."""
    images = [np.full((side, side, 1), 100 + number, np.uint8) for number in range(COUNT)]
    names = tuple(f"{number}.png" for number in range(COUNT))
    image_set = ImageSet("test", ("a", "b", "c"), images, names, np.arange(COUNT) % 3)
    split = Split(TRAIN, np.arange(30, 35), np.arange(35, 40))
    options = {"batch_size": 10, "seed": 3, **more}
    return ImageData(image_set, split, Preprocessing((10, 10, 1)), augmentation=augmentation, **options)


def batches(data, first=0, count=60):
    return list(data.train_batches(first).take(count).as_numpy_iterator())


def levels(images):
    """The gray levels of scaled images."""
    return np.rint(127.5 + 127.5 * images.mean(axis=(1, 2, 3))).astype(int)


def test_half_of_the_images_are_copies_and_keep_their_labels():
    found = batches(image_data(DARKER))
    gray = np.concatenate([levels(images) for images, _ in found])
    labels = np.concatenate([targets.argmax(axis=1) for _, targets in found])
    assert 0.4 < ((gray >= 100) & (gray < 130)).mean() < 0.75  # half, and the copies with such a level
    assert gray.min() < 90
    assert gray.max() > 140
    changes = np.array([0, 20, 40, 60, -20, -40, -60])
    for level, label in zip(gray, labels, strict=True):
        numbers = level - changes - 100  # of the images that it may be
        assert label in numbers[(numbers >= 0) & (numbers < 30)] % 3


def test_without_copies_nothing_changes():
    plain, none = batches(image_data(Augmentation())), batches(image_data(Augmentation(corrupted_copies=0)))
    for (images, labels), (same, targets) in zip(plain, none, strict=True):
        np.testing.assert_array_equal(images, same)
        np.testing.assert_array_equal(labels, targets)
    assert set(np.concatenate([levels(images) for images, _ in plain])) <= set(range(100, 130))


def test_a_resumed_run_sees_the_same_copies():
    whole, rest = batches(image_data(DARKER), count=9), batches(image_data(DARKER), first=1, count=6)
    for (images, labels), (same, targets) in zip(whole[3:], rest, strict=True):
        np.testing.assert_array_equal(images, same)
        np.testing.assert_array_equal(labels, targets)


def test_the_corruption_comes_before_the_preparation():
    data = image_data(Augmentation(corrupted_copies=2, corruptions=("noise",)), side=40)
    found = corrupted_pixels(data.image_set.take(TRAIN), data.preprocessing, data.augmentation, data.seed)
    assert (found.shape, found.dtype) == ((60, 10, 10, 1), np.uint8)
    made = corrupted_copies([data.image_set.images[i] for i in TRAIN], 2, ("noise",), (3, 0))
    np.testing.assert_array_equal(found, np.rint(read_pixels(made, data.preprocessing)))
    noise = found[:30, :, :, 0].astype(float) - (100 + TRAIN)[:, None, None]
    assert noise.std() < 8  # the mean of 16 pixels or more; a pixel's own noise is 8, 16 or 32


def test_other_batches_share_the_copies_only_if_they_are_the_same():
    data = image_data(DARKER)
    assert (
        data.with_batches(5, Augmentation(flip="both", **copies_of(DARKER)))._read_train is data._read_train
    )
    assert data.with_batches(5, Augmentation())._read_train is not data._read_train
    clean = batches(data.with_batches(5, Augmentation()), count=12)
    assert set(np.concatenate([levels(images) for images, _ in clean])) <= set(range(100, 130))


def copies_of(augmentation):
    return {name: getattr(augmentation, name) for name in ("corrupted_copies", "corruptions")}


def test_copies_that_do_not_fit_into_memory_are_refused(monkeypatch):
    monkeypatch.setattr(corrupted, "MOST_BYTES", 8_999)
    with pytest.raises(
        InputError, match=r"^3 corrupted copies of 30 images take .*: lower --corrupted-copies"
    ):
        batches(image_data(DARKER), count=1)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (dict(corrupted_copies=-1), "corrupted_copies"),
        (dict(corrupted_copies=65), "corrupted_copies"),
        (dict(corruptions=()), "corruptions"),
        (dict(corruptions=("fog",)), "corruptions"),
        (dict(corruptions=("blur", "blur")), "must name each kind once"),
    ],
)
def test_wrong_settings(wrong, words):
    with pytest.raises(InputError, match=words):
        Augmentation(**wrong)
