"""load_data: a folder becomes batches, and a plain `fit` learns from them on every backend."""

import keras
import numpy as np
import pytest
from PIL import Image

import keras_vit
from keras_vit.data.augmentation import Augmentation
from keras_vit.data.pipeline import load_data
from keras_vit.data.preprocess import Preprocessing
from keras_vit.errors import InputError

AUGMENTATION = Augmentation(flip="both", transpose=True, crop=0.2, brightness=0.1, mixup=0.2, cutmix=0.5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Class folders: horizontal and vertical stripes, 30 images each."""
    path = tmp_path_factory.mktemp("stripes")
    rng = np.random.default_rng(0)
    for name in ("horizontal", "vertical"):
        (path / name).mkdir()
        for number in range(30):
            stripes = np.where(np.arange(16)[:, None] % 8 < 4, 60, 190) + rng.normal(0, 20, (16, 16))
            stripes = np.roll(stripes, rng.integers(8), axis=0)
            pixels = np.clip(stripes if name == "horizontal" else stripes.T, 0, 255).astype(np.uint8)
            Image.fromarray(pixels).save(path / name / f"{number}.jpg")
    return path


@pytest.mark.same_on_every_backend
def test_load_data_of_a_folder(folder):
    data = load_data(folder, (16, 16, 3), batch_size=6, seed=1, aspect="crop", augmentation=AUGMENTATION)
    assert data.class_names == ("horizontal", "vertical")
    assert [len(data.labels(part)) for part in ("train", "validation", "test")] == [44, 4, 12]
    assert data.names("test")[0].startswith("horizontal/")
    assert (data.batch_size, data.seed, data.augmentation) == (6, 1, AUGMENTATION)
    assert data.preprocessing == Preprocessing((16, 16, 3), "crop")
    assert load_data(folder, (16, 16, 1), batch_size=6).names("test") != data.names("test")  # another seed
    again = load_data(data.image_set, [16, 16, 3], batch_size=6, seed=1)
    assert again.names("test") == data.names("test")
    assert again.augmentation == Augmentation()


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    ("size", "color", "shape"),
    [
        ((30, 30), (9, 9, 9), (24, 24, 1)),
        ((200, 400), (9, 99, 9), (128, 128, 3)),
        ((50, 32), (9, 9, 10), (40, 40, 1)),
        ((3, 5), (200, 9, 9), (8, 8, 3)),
    ],
)
def test_what_is_not_given_follows_the_images(tmp_path, capsys, size, color, shape):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        for number in range(10):
            Image.new("RGB", size, color).save(tmp_path / name / f"{number}.png")
    data = load_data(tmp_path)
    assert data.preprocessing.image_shape == shape
    assert (data.batch_size, len(data.split.train)) == (8, 14)
    median = f"{size[1]}x{size[0]} pixels (the median)"
    printed = capsys.readouterr().out
    assert f"image_shape={shape}: chosen by the images, which have {median}" in printed
    assert "batch_size=8 instead of 64, for the 14 training images" in printed
    # The drawn defects are what they were.
    drawn = load_data()
    assert (drawn.preprocessing.image_shape, drawn.batch_size) == ((28, 28, 1), 64)
    assert not capsys.readouterr().out


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (dict(batch_size=64), "batch_size 64 is more than the 44 training images"),
        (dict(image_shape=(16, 16, 2)), "it has 1 channel, and the run takes 2 of measurement"),
        (dict(image_shape=(16, 16, 33)), "read as 1"),
        (dict(aspect="squash"), "aspect must be"),
        (dict(test_fraction=1.5), "test_fraction must be above 0"),
    ],
    ids=str,
)
def test_load_data_with_wrong_arguments(folder, arguments, message):
    with pytest.raises(InputError, match=message):
        load_data(folder, **arguments)


def test_plain_fit_in_a_script(folder):
    """As in the README."""
    data = keras_vit.load_data(folder, (16, 16, 1), batch_size=8, augmentation=Augmentation(flip="both"))
    model = keras_vit.ViT(
        image_shape=data.image_shape,
        num_classes=len(data.class_names),
        patch_size=4,
        dim=16,
        depth=1,
        num_heads=2,
    )
    model.compile(
        optimizer=keras.optimizers.Adam(3e-3),
        loss=keras.losses.CategoricalCrossentropy(from_logits=True),
        metrics=["accuracy"],
    )
    history = model.fit(
        data.train,
        steps_per_epoch=data.steps_per_epoch,
        validation_data=data.validation,
        epochs=4,
        shuffle=False,  # the batches are shuffled already; without this, Keras warns
        verbose=0,
    ).history
    assert np.isfinite(history["loss"] + history["val_loss"]).all()
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    found = model.evaluate(data.test, verbose=0, return_dict=True)
    logits = model.predict(data.test, verbose=0)
    assert logits.shape == (12, 2)
    assert found["accuracy"] == pytest.approx((logits.argmax(axis=1) == data.labels("test")).mean())
