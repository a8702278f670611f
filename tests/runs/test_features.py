"""Features of images: computed once, found again, and never those of something else."""

import dataclasses

import numpy as np
import pytest
from PIL import Image

from keras_vit import ViT
from keras_vit.cache import FOLDER, SIZE
from keras_vit.data.preprocess import Preprocessing
from keras_vit.errors import InputError
from keras_vit.runs import features as module
from keras_vit.runs.features import FeatureReader
from keras_vit.runs.ood_features import ood_features
from tests.helpers.published import answers, random_vit
from tests.helpers.sources import MEAN, STD

SMALL = dict(image_shape=(16, 16, 3), num_classes=3, patch_size=8, dim=16, depth=2, num_heads=2)
IMAGES = Preprocessing((16, 16, 3), mean=MEAN, std=STD, interpolation="bicubic")
WEIGHTS = "ab" * 32


@pytest.fixture(autouse=True)
def folder(monkeypatch, tmp_path):
    monkeypatch.setenv(FOLDER, str(tmp_path / "kept"))
    monkeypatch.delenv(SIZE, raising=False)
    return tmp_path / "kept"


@pytest.fixture(scope="module")
def model():
    return random_vit(SMALL)


@pytest.fixture(scope="module")
def pixels():
    """Images that have the model's size already: float32 (5, 16, 16, 3) of whole numbers."""
    return np.random.default_rng(0).integers(0, 256, (5, 16, 16, 3)).astype("float32")


@pytest.fixture(scope="module")
def paths(pixels, tmp_path_factory):
    """The same images as files."""
    folder = tmp_path_factory.mktemp("images")
    for i, image in enumerate(pixels):
        Image.fromarray(image.astype("uint8")).save(folder / f"{i}.png")
    return [folder / f"{i}.png" for i in range(len(pixels))]


def check_counts(reader, computed, found):
    assert (reader.computed, reader.found) == (computed, found)


def test_the_features_are_those_of_a_direct_forward_pass(model, pixels, paths):
    scaled = ((pixels / 255 - np.array(MEAN)) / np.array(STD)).astype("float32")
    expected = answers(ood_features(model), scaled)
    assert np.std(expected, axis=0).min() > 1e-4

    reader = FeatureReader(model, IMAGES, WEIGHTS)

    for images in (list(pixels), paths):
        found = reader(images)
        assert found.dtype == np.float32
        np.testing.assert_allclose(found, expected, atol=1e-4)
    inputs = answers(model.extractor("features"), scaled)
    np.testing.assert_allclose(reader.of_head(expected), inputs, atol=1e-5)


@pytest.mark.parametrize("options", [dict(pooling="token+gap"), dict(pooling="map")], ids=str)
@pytest.mark.parametrize("hidden", [{}, dict(head_hidden_dim=7, head_activation="tanh")], ids=str)
def test_what_the_head_sees_is_told_from_the_other_features(options, hidden, pixels):
    """The kernel and the bias of the last layer make the model's answers of it."""
    model = random_vit({**SMALL, **options, **hidden})
    reader = FeatureReader(model, IMAGES, WEIGHTS)
    kernel, bias = model.get_layer("head").get_weights()
    scaled = ((pixels / 255 - np.array(MEAN)) / np.array(STD)).astype("float32")
    found = reader.of_head(reader(list(pixels))) @ kernel + bias
    np.testing.assert_allclose(found, answers(model, scaled), atol=1e-4)


def test_more_images_than_a_batch(model, monkeypatch):
    monkeypatch.setattr(module, "BATCH_SIZE", 4)
    images = list(np.random.default_rng(1).integers(0, 256, (9, 16, 16, 3)).astype("float32"))
    scaled = ((np.array(images) / 255 - np.array(MEAN)) / np.array(STD)).astype("float32")
    found = FeatureReader(model, IMAGES, None)(images)
    np.testing.assert_allclose(found, answers(ood_features(model), scaled), atol=1e-4)


def test_a_second_reader_computes_nothing(model, paths, monkeypatch):
    first = FeatureReader(model, IMAGES, WEIGHTS)
    expected = first(paths)
    check_counts(first, 5, 0)

    second = FeatureReader(model, IMAGES, WEIGHTS)
    monkeypatch.setattr(second, "_compute", None)  # would fail
    np.testing.assert_array_equal(second(paths[::-1]), expected[::-1])
    check_counts(second, 0, 5)


def test_only_what_is_missing_is_computed(model, paths):
    FeatureReader(model, IMAGES, WEIGHTS)(paths[:2])
    reader = FeatureReader(model, IMAGES, WEIGHTS)
    found = reader(paths)
    check_counts(reader, 3, 2)
    assert len(found) == 5
    reader(paths)
    check_counts(reader, 3, 7)


def test_an_image_is_known_under_another_name_and_twice(model, paths, tmp_path):
    copy = tmp_path / "copy.png"
    copy.write_bytes(paths[0].read_bytes())
    reader = FeatureReader(model, IMAGES, WEIGHTS)
    found = reader([paths[0], copy, paths[1], paths[0]])
    assert reader.computed == 2
    np.testing.assert_array_equal(found[0], found[1])
    np.testing.assert_array_equal(found[0], found[3])
    assert np.abs(found[0] - found[2]).max() > 1e-3


def test_other_bytes_under_the_same_name_are_another_image(model, paths, tmp_path):
    path = tmp_path / "image.png"
    path.write_bytes(paths[0].read_bytes())
    before = FeatureReader(model, IMAGES, WEIGHTS)([path])
    path.write_bytes(paths[1].read_bytes())
    reader = FeatureReader(model, IMAGES, WEIGHTS)
    assert np.abs(reader([path]) - before).max() > 1e-3
    check_counts(reader, 1, 0)


OTHERS = {
    "weights": dict(weights_hash="cd" * 32),
    "mean": dict(preprocessing=dataclasses.replace(IMAGES, mean=(0.5,))),
    "std": dict(preprocessing=dataclasses.replace(IMAGES, std=(0.5,))),
    "interpolation": dict(preprocessing=dataclasses.replace(IMAGES, interpolation="bilinear")),
    "aspect": dict(preprocessing=dataclasses.replace(IMAGES, aspect="crop")),
}
MODELS = {
    "dtype": dict(dtype="mixed_bfloat16"),
    "pooling": dict(pooling="token+gap"),
    "patch size": dict(patch_size=4),
    "epsilon": dict(norm_epsilon=1e-3),
}


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("other", [*OTHERS, *MODELS])
def test_what_the_features_depend_on_names_another_file(other, model, folder):
    FeatureReader(model, IMAGES, WEIGHTS)._cache.add({"00" * 32: np.zeros(3, "float32")})
    settings = dict(model=model, preprocessing=IMAGES, weights_hash=WEIGHTS) | OTHERS.get(other, {})
    if other in MODELS:
        settings["model"] = ViT(**{**SMALL, **MODELS[other]})
    assert FeatureReader(**settings)._known == {}


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    "other", [dict(num_classes=7), dict(num_classes=0), dict(drop_path_rate=0.2), dict(remat=True)], ids=str
)
def test_what_they_do_not_depend_on_names_the_same_file(other, model, paths):
    """A fine-tuning, with its drop path, finds what the probe kept."""
    row = {"00" * 32: np.zeros(3, "float32")}
    FeatureReader(model, IMAGES, WEIGHTS)._cache.add(row)
    assert FeatureReader(ViT(**{**SMALL, **other}), IMAGES, WEIGHTS)._known.keys() == row.keys()


def test_prepared_images_are_kept_under_their_files(model, pixels, paths):
    """Fine-tuning has the images as arrays, the probe as files: the names in the cache are the same."""
    probe = FeatureReader(model, IMAGES, WEIGHTS)
    expected = probe(paths)
    finetune = FeatureReader(model, IMAGES, WEIGHTS)
    np.testing.assert_array_equal(finetune(list(pixels), paths), expected)
    check_counts(finetune, 0, 5)
    # And the other way round.
    fresh = FeatureReader(model, IMAGES, "ef" * 32)
    np.testing.assert_allclose(fresh(list(pixels), paths), expected, atol=1e-4)
    later = FeatureReader(model, IMAGES, "ef" * 32)
    later(paths)
    check_counts(later, 0, 5)


def test_without_a_hash_nothing_is_kept(model, paths, folder):
    reader = FeatureReader(model, IMAGES, None)
    reader(paths)
    assert not folder.exists()
    again = FeatureReader(model, IMAGES, None)
    again(paths[:1])
    check_counts(again, 1, 0)


def test_a_folder_that_cannot_be_written_is_said_and_the_features_are_there(model, paths, folder, capsys):
    folder.write_text("a file stands here")
    reader = FeatureReader(model, IMAGES, WEIGHTS)
    found = reader(paths[:3])
    printed = capsys.readouterr().out
    assert printed.startswith("The features are not kept in the cache: ")
    assert printed.count("\n") == 1
    assert found.shape[0] == 3
    reader(paths)  # what it has computed it still knows, and it does not complain again
    check_counts(reader, 5, 3)
    assert capsys.readouterr().out == ""


def test_a_wrong_size_of_the_cache_is_said_too(model, paths, monkeypatch, capsys):
    monkeypatch.setenv(SIZE, "a lot")
    assert len(FeatureReader(model, IMAGES, WEIGHTS)(paths[:1])) == 1
    assert f"{SIZE} must be a number of gigabytes" in capsys.readouterr().out


def test_no_images(model):
    assert len(FeatureReader(model, IMAGES, WEIGHTS)([])) == 0


@pytest.mark.same_on_every_backend
def test_a_file_that_is_gone(model, tmp_path):
    with pytest.raises(InputError, match=r"gone\.png cannot be read"):
        FeatureReader(model, IMAGES, WEIGHTS)([tmp_path / "gone.png"])
