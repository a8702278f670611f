"""`ViT.from_pretrained`: from files as users have them to models that answer as recorded."""

import json
import re

import keras
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from keras_vit import ViT
from keras_vit.errors import InputError
from keras_vit.model.config import CHANGEABLE
from keras_vit.model.weights.adapt import FREE
from keras_vit.model.weights.families.checks import OF_THE_FILE
from keras_vit.runs.folder import load_model
from tests.helpers.checks import layer_norm
from tests.helpers.published import answers, images_of, random_vit, recorded, tensors_of
from tests.helpers.random_tensors import random_images
from tests.helpers.sources import LICENCE, MEAN, STD, timm_folder
from tests.helpers.weight_files import save_npz, save_torch

TOKEN = recorded("timm")["token"]
LONE = dict(num_heads=4, mean=MEAN, std=STD)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Weights of timm with their config. Tests must not change it."""
    return timm_folder(tmp_path_factory.mktemp("from_pretrained") / "timm")


def values(model):
    return {weight.path: value for weight, value in zip(model.weights, model.get_weights(), strict=True)}


# Whose weights


TIMM = (
    "token",
    "mean, norm after it",
    "mean of all tokens",
    "attention pooling",
    "distilled",
    "CLIP",
    "SwiGLU",
)


@pytest.mark.parametrize("name", TIMM)
def test_a_folder_of_timm(name, tmp_path):
    case = recorded("timm")[name]
    model = ViT.from_pretrained(timm_folder(tmp_path / "timm", name))
    np.testing.assert_allclose(answers(model, images_of(case)), case["outputs"], atol=1e-5)
    assert model.pretrained.unused == model.pretrained.new == ()


def test_a_folder_of_huggingface(tmp_path):
    case = recorded("huggingface")["ViT"]
    save_file(tensors_of(case), tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(case["config"]))
    model = ViT.from_pretrained(tmp_path, mean=MEAN, std=STD)
    np.testing.assert_allclose(answers(model, images_of(case)), case["outputs"], atol=1e-5)
    assert model.pretrained.class_names == ("ant", "bee", "cat", "dog", "eel")


def test_a_file_of_google(tmp_path):
    case = recorded("google")["first, hidden layer"]
    save_npz(tensors_of(case), tmp_path / "model.npz")
    model = ViT.from_pretrained(tmp_path / "model.npz")
    np.testing.assert_allclose(answers(model, images_of(case)), case["outputs"], atol=1e-5)


def test_a_file_of_vit_pytorch_with_its_arguments(tmp_path):
    case = recorded("vit_pytorch")["today"]
    save_torch(tensors_of(case), tmp_path / "model.pt")
    model = ViT.from_pretrained(str(tmp_path / "model.pt"), **case["arguments"])
    np.testing.assert_allclose(answers(model, images_of(case)), case["outputs"], atol=1e-5)
    with pytest.raises(InputError, match="does not tell num_heads") as error:
        ViT.from_pretrained(tmp_path / "model.pt")
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("stem", ["linear", "conv"])
def test_a_saved_model_of_our_own(stem, tmp_path):
    old = random_vit(
        dict(image_shape=(16, 16, 3), num_classes=3, patch_size=4, dim=8, depth=2, num_heads=2, stem=stem)
    )
    old.save(tmp_path / "old.keras")
    new = ViT.from_pretrained(tmp_path / "old.keras")
    assert new.config == old.config
    assert values(new).keys() == values(old).keys()
    for path, value in values(old).items():
        np.testing.assert_array_equal(values(new)[path], value, err_msg=path)


# What the model is


def test_the_defaults_are_those_of_the_source(folder):
    model = ViT.from_pretrained(folder)
    assert model.image_shape == (16, 16, 3)
    assert model.output_shape == (None, 5)
    assert model.name == "vit"
    assert model.get_config()["dtype"] == "float32"
    told = model.pretrained
    assert (told.mean, told.std, told.interpolation) == (MEAN, STD, "bicubic")
    assert (told.origin.source, told.origin.licence) == (str(folder), LICENCE)
    assert told.arrays == {}  # the model has them
    assert told.config == model.config or told.config.mlp_width == model.config.mlp_dim
    assert ViT(**model.get_config()).pretrained is None


def test_the_head_of_the_source_stays_for_other_images(folder):
    model = ViT.from_pretrained(folder, (32, 24, 1), name="gray")
    assert model.name == "gray"
    assert answers(model, random_images((32, 24, 1))).shape == (2, 5)
    np.testing.assert_array_equal(values(model)["head/kernel"].T, tensors_of(TOKEN)["head.weight"])
    assert len(model.pretrained.mean) == len(model.pretrained.std) == 1
    assert len(model.pretrained.notes) == 2


@pytest.mark.parametrize("pooling", [None, "token+gap"])
def test_no_classes_give_what_the_head_would_see(pooling, folder):
    """Against the tokens of the model with its head, by numpy."""
    options = {} if pooling is None else {"pooling": pooling}
    bare = ViT.from_pretrained(folder, num_classes=0, **options)
    images = images_of(TOKEN)
    found = answers(bare, images)
    tensors = tensors_of(TOKEN)
    np.testing.assert_allclose(
        found[:, :32] @ tensors["head.weight"].T + tensors["head.bias"], TOKEN["outputs"], atol=1e-4
    )
    last = ViT.from_pretrained(folder).get_layer("block_1")
    tokens = keras.Model(bare.input, bare.get_layer("block_1").output).predict(images, verbose=0)
    normed = layer_norm(tokens, tensors["norm.weight"], tensors["norm.bias"])
    np.testing.assert_allclose(found[:, :32], normed[:, 0], atol=1e-4)
    if pooling:
        np.testing.assert_allclose(found[:, 32:], normed[:, 1:].mean(axis=1), atol=1e-4)
    assert last.name == "block_1"


def test_other_classes_begin_with_zeros_and_can_be_trained(folder):
    model = ViT.from_pretrained(folder, num_classes=2, drop_path_rate=0.1, dropout_rate=0.1)
    assert (model.config.drop_path_rate, model.config.dropout_rate) == (0.1, 0.1)
    images = random_images((16, 16, 3), 8)
    assert not answers(model, images).any()
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss, jit_compile=False)
    model.fit(images, np.arange(8) % 2, batch_size=8, epochs=3, verbose=0)
    assert model.evaluate(images, np.arange(8) % 2, verbose=0) < np.log(2)


def test_a_frozen_backbone_stays_as_it_was(folder):
    """As the Keras guide on transfer learning does: layers are frozen, then the model is compiled."""
    model = ViT.from_pretrained(folder, num_classes=3)
    before = values(model)
    for layer in model.layers:
        layer.trainable = layer.name == "head"
    assert [weight.path for weight in model.trainable_weights] == ["head/kernel", "head/bias"]
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(keras.optimizers.Adam(1e-2), loss, jit_compile=False)
    model.fit(random_images((16, 16, 3), 6), np.arange(6) % 3, verbose=0)
    for path, value in values(model).items():
        assert np.array_equal(value, before[path]) == (not path.startswith("head/")), path


def test_half_precision(folder):
    model = ViT.from_pretrained(folder, dtype="mixed_bfloat16")
    assert model.get_config()["dtype"] == "mixed_bfloat16"
    assert all(weight.dtype == "float32" for weight in model.trainable_weights)
    found = answers(model, images_of(TOKEN))
    assert found.dtype == np.float32
    np.testing.assert_allclose(found, TOKEN["outputs"], atol=0.1)
    assert np.abs(found - TOKEN["outputs"]).max() > 1e-5


def test_a_saved_model_answers_as_before(folder, tmp_path):
    model = ViT.from_pretrained(folder, (24, 24, 3), pooling="gap", num_classes=4)
    model.get_layer("head").kernel.assign(np.random.default_rng(0).normal(size=(32, 4)))
    model.save(tmp_path / "model.keras")
    loaded = load_model(tmp_path / "model.keras")
    images = random_images((24, 24, 3))
    np.testing.assert_array_equal(answers(loaded, images), answers(model, images))
    again = ViT.from_pretrained(tmp_path / "model.keras", mean=MEAN, std=STD)
    np.testing.assert_array_equal(answers(again, images), answers(model, images))
    assert (again.pretrained.mean, again.pretrained.std) == (MEAN, STD)


def test_a_resized_model_has_what_from_pretrained_gives(folder):
    images = random_images((32, 32, 3))
    direct = ViT.from_pretrained(folder, (32, 32, 3))
    resized = ViT.from_pretrained(folder).resized((32, 32, 3))
    np.testing.assert_allclose(answers(resized, images), answers(direct, images), atol=1e-5)


def test_an_argument_is_believed_before_the_config(folder):
    """Both tell what tensors do not; what was believed is said."""
    model = ViT.from_pretrained(folder, num_heads=8, norm_epsilon=1e-3, mean=0.5)
    assert (model.config.num_heads, model.config.norm_epsilon) == (8, 1e-3)
    told = model.pretrained.told_by
    assert told["num_heads"] == told["norm_epsilon"] == told["mean"] == "argument"
    assert told["std"] == told["activation"] != "argument"
    assert model.pretrained.mean == (0.5,) * 3
    assert np.abs(answers(model, images_of(TOKEN)) - TOKEN["outputs"]).max() > 1e-3


@pytest.mark.same_on_every_backend
def test_every_argument_is_of_the_weights_or_free():
    """So that none is silently without effect."""
    assert set(CHANGEABLE) <= {*OF_THE_FILE, *FREE, "layer_scale"}
    assert not set(OF_THE_FILE) & set(FREE)


# What is refused


REFUSED = {
    "an unknown name": (
        dict(num_head=4),
        "num_head is not an argument of published weights. Perhaps you meant num_heads.",
    ),
    "a name of nothing": (dict(zzz=1), "zzz is not an argument of published weights. Known are "),
    "another width": (dict(dim=64), "dim=32"),
    "scales that the file has not": (dict(layer_scale=0.1), "is of a model without LayerScale: leave out"),
    "heads that do not divide the width": (dict(num_heads=5), "which 5 heads do not divide"),
    "an unknown activation": (dict(activation="step"), "activation"),
    "a pooling that the file has no token for": (dict(pooling="token+distilled"), "no distillation token"),
    "a size that patches do not divide": (dict(image_shape=(20, 20, 3)), "20"),
    "a shape of two numbers": (dict(image_shape=(16, 16)), "image_shape"),
    "classes below zero": (dict(num_classes=-1), "num_classes"),
    "a rate above one": (dict(drop_path_rate=1.5), "drop_path_rate"),
    "a mean of two channels": (dict(mean=(0.5, 0.5)), "mean"),
    "a mean of three texts": (dict(mean=("a", "b", "c")), "mean must be in 0..1"),
    "a mean of pixels in 0..255": (dict(mean=(123.7, 116.3, 103.5)), "mean must be in 0..1"),
    "a deviation of zero": (dict(std=0.0), "std must be above 0 and at most 1"),
    "a deviation that is no number": (dict(std=float("nan")), "std must be above 0 and at most 1"),
    "an unknown interpolation": (
        dict(interpolation="nearest"),
        "interpolation must be bilinear or bicubic",
    ),
}


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("case", REFUSED)
def test_arguments_that_contradict_the_weights(case, folder):
    arguments, words = REFUSED[case]
    with pytest.raises(InputError, match=re.escape(words)) as error:
        ViT.from_pretrained(folder, **arguments)
    assert "\n" not in str(error.value)


def cut(path, tensors):
    save_file(tensors, path)
    path.write_bytes(path.read_bytes()[:-100])


def without(name):
    return lambda path, tensors: save_file({key: tensors[key] for key in tensors.keys() - {name}}, path)


def other_shape(path, tensors):
    save_file({**tensors, "blocks.1.mlp.fc2.weight": np.zeros((32, 64), "float32")}, path)


DAMAGES = {
    "truncated": (cut, "mine.safetensors"),
    "a tensor less": (without("blocks.1.mlp.fc2.weight"), "blocks.1.mlp.fc2.weight"),
    "another shape": (other_shape, "has block_1/mlp/contract/kernel of shape (64, 32), not (128, 32)"),
    "a text": (lambda path, tensors: path.write_text("not weights"), "mine.safetensors"),
}


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("damage", DAMAGES)
def test_damaged_files_are_refused_in_one_sentence(damage, tmp_path):
    make, words = DAMAGES[damage]
    make(tmp_path / "mine.safetensors", tensors_of(TOKEN))
    with pytest.raises(InputError, match=re.escape(words)) as error:
        ViT.from_pretrained(tmp_path / "mine.safetensors", **LONE)
    assert "mine.safetensors" in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.same_on_every_backend
def test_more_tensors_are_named_as_unused(folder, tmp_path):
    tensors = load_file(folder / "model.safetensors")
    save_file({**tensors, "teacher_temperature": np.ones(1, "float32")}, tmp_path / "mine.safetensors")
    model = ViT.from_pretrained(tmp_path / "mine.safetensors", **LONE)
    assert model.pretrained.unused == ("teacher_temperature",)
    images = images_of(TOKEN)
    np.testing.assert_allclose(answers(model, images), TOKEN["outputs"], atol=1e-5)
