"""Presets and `.keras` files of KerasHub: answers as recorded, and what is refused."""

import json
import zipfile
from io import BytesIO

import h5py
import numpy as np
import pytest

from keras_vit.errors import InputError
from keras_vit.model.weights.checkpoint import Checkpoint, Origin
from keras_vit.model.weights.families import kerashub
from keras_vit.model.weights.sources import open_checkpoint
from keras_vit.model.weights.told import ARGUMENT, CONFIG, SHAPES
from tests.helpers.published import answers, built, images_of, recorded
from tests.helpers.random_tensors import random_tensors

CASES = recorded("kerashub")
HALF = dict(mean=0.5, std=0.5)
TABLES = "layers/dinov2_embedding/vars/"


def values_of(shapes):
    values = random_tensors({name: tuple(shape) for name, shape in shapes.items()})
    # DINOv2's positions stand twice in a file: for the images of the config, and as they were trained. The
    # images of the cases have the trained size, so the two are equal.
    tables = sorted(name for name in values if TABLES in name)[-2:]
    if tables:
        values[tables[0]] = values[tables[1]]
    return values


def hdf5(values) -> bytes:
    content = BytesIO()
    with h5py.File(content, "w") as file:
        for name, value in values.items():
            file[name] = value
    return content.getvalue()


def write(case, folder):
    """The preset, or the file, of a recorded case."""
    for name, config in case["configs"].items():
        (folder / name).write_text(json.dumps(config))
    for name, shapes in case["files"].items():
        content = hdf5(values_of(shapes))
        if name.endswith(".keras"):
            with zipfile.ZipFile(folder / name, "w") as archive:
                archive.writestr("config.json", (folder / "config.json").read_text())
                archive.writestr("metadata.json", "{}")
                archive.writestr("model.weights.h5", content)
            (folder / "config.json").unlink()
            return folder / name
        (folder / name).write_bytes(content)
    return folder


def arguments_of(case):
    """What the configs of a case do not tell."""
    return {} if "image_converter" in json.dumps(case["configs"]) else HALF


@pytest.mark.parametrize("name", CASES)
def test_answers_are_those_of_kerashub(name, tmp_path):
    case = CASES[name]

    checkpoint = open_checkpoint(write(case, tmp_path))

    assert kerashub.recognises(checkpoint)
    weights = kerashub.read(checkpoint, arguments_of(case))
    assert weights.new == ()
    assert weights.config.image_shape == tuple(case["image_shape"])
    found = answers(built(weights), images_of(case))
    if any("softmax" in note for note in weights.notes):  # recorded from probabilities
        found = found - found.mean(axis=1, keepdims=True)
    np.testing.assert_allclose(found, case["outputs"], atol=1e-5)


def read(name, folder, **arguments):
    case = CASES[name]
    return kerashub.read(open_checkpoint(write(case, folder)), arguments_of(case) | arguments)


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("ViT", "num_heads", 4),
        ("ViT", "pooling", "token"),
        ("ViT, mean of all tokens, hidden layer", "pooling", "all"),
        ("ViT, mean of all tokens, hidden layer", "head_activation", "tanh"),
        ("ViT, mean of all tokens, hidden layer", "norm_epsilon", 1e-5),
        ("ViT without class token", "pooling", "gap"),
        ("ViT without biases", "qkv_bias", False),
        ("ViT without biases", "mlp_bias", False),
        ("ViT without biases", "patch_bias", False),
        ("ViT, backbone", "num_classes", 0),
        ("DeiT", "num_registers", 1),
        ("DINOv2, registers", "num_registers", 3),
        ("DINOv2, SwiGLU", "activation", "swiglu"),
        ("DINOv2", "layer_scale", 1.0),
    ],
)
def test_the_architecture_is_read_from_names_shapes_and_configs(name, field, value, tmp_path):
    assert getattr(read(name, tmp_path).config, field) == value


@pytest.mark.same_on_every_backend
def test_the_scaling_of_pixels_is_that_of_the_image_converter(tmp_path):
    weights = read("DeiT", tmp_path)

    np.testing.assert_allclose(weights.mean, (0.485, 0.456, 0.406), atol=1e-6)
    np.testing.assert_allclose(weights.std, (0.229, 0.224, 0.225), atol=1e-6)
    assert weights.interpolation == "bicubic"
    assert weights.told_by["mean"] == weights.told_by["norm_epsilon"] == CONFIG


@pytest.mark.same_on_every_backend
def test_the_tables_that_are_not_needed_are_unused(tmp_path):
    assert read("DINOv2", tmp_path).unused == (f"{TABLES}1", f"{TABLES}3")  # mask token, trained table


@pytest.mark.same_on_every_backend
def test_what_was_converted_is_noted(tmp_path):
    (note,) = read("DeiT", tmp_path).notes

    assert note == "the distillation token is read but not pooled: here it is a register"


@pytest.mark.same_on_every_backend
def test_a_preset_without_a_preprocessor_needs_mean_and_std(tmp_path):
    with pytest.raises(InputError, match="does not tell mean and std"):
        kerashub.read(open_checkpoint(write(CASES["ViT, backbone"], tmp_path)), {})


@pytest.mark.same_on_every_backend
def test_weights_alone_need_what_the_config_would_tell(tmp_path):
    shapes = CASES["ViT, one file"]["files"]["model.keras"]
    (tmp_path / "model.weights.h5").write_bytes(hdf5(values_of(shapes)))
    checkpoint = open_checkpoint(tmp_path / "model.weights.h5")

    with pytest.raises(InputError, match="does not tell norm_epsilon, pooling, mean and std"):
        kerashub.read(checkpoint, {})
    weights = kerashub.read(checkpoint, HALF | dict(norm_epsilon=1e-6, pooling="all"))

    assert weights.config.pooling == "all"
    assert (weights.told_by["pooling"], weights.told_by["activation"]) == (ARGUMENT, SHAPES)


def plain(tensors, config=None):
    return Checkpoint(tensors, Origin("preset", (), ""), config)


BLOCK = "layers/vi_t_encoder/encoder_layers/vi_t_encoder_block_1/"
EMBEDDING = "layers/vi_t_patching_and_embedding/"
WRONG = {
    "a missing bias": (f"{BLOCK}mha/query_dense/vars/1", None, f"lacks {BLOCK}mha/query_dense/vars/1"),
    "no patches": (f"{EMBEDDING}patch_embedding/vars/0", None, "patch_embedding/vars/0 of 4 axes"),
    "no positions": (f"{EMBEDDING}position_embedding/vars/0", None, "has 1 tokens and tables"),
    "other blocks": (f"{BLOCK}rope/vars/0", (4,), f"blocks have {BLOCK}rope/vars/0, which ViT does not have"),
    "a wrong shape": (f"{BLOCK}layer_norm_1/vars/0", (31,), "gamma of shape (31,), not (32,)"),
    "patches that are not square": (f"{EMBEDDING}patch_embedding/vars/0", (8, 4, 3, 32), "patches of 8x4"),
    "positions of other images": (
        f"{EMBEDDING}position_embedding/vars/0",
        (10, 32),
        "has positions for 9 patches; its config has images of 16x16",
    ),
}


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_read_is_refused_in_one_sentence(wrong):
    name, shape, message = WRONG[wrong]
    tensors = values_of(CASES["ViT"]["files"]["model.weights.h5"])
    tensors.pop(name, None)
    tensors |= random_tensors({name: shape}) if shape else {}
    config = CASES["ViT"]["configs"]["config.json"]

    with pytest.raises(InputError) as error:
        kerashub.read(plain(tensors, config), HALF)

    assert message in str(error.value)


@pytest.mark.same_on_every_backend
def test_an_argument_that_contradicts_the_file_is_refused(tmp_path):
    with pytest.raises(InputError, match="is of a model with num_heads=4: leave out num_heads=2"):
        read("ViT", tmp_path, num_heads=2)


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(("name", "pooling"), [("ViT", "token"), ("ViT without class token", "gap")])
def test_the_pooling_of_the_file_is_not_that_of_a_new_head(name, pooling, tmp_path):
    assert read(name, tmp_path, pooling="map").config.pooling == pooling


@pytest.mark.same_on_every_backend
def test_an_unknown_resize_is_noted():
    notes = []

    made = kerashub._scaling({"interpolation": "lanczos3", "scale": 1 / 255}, notes)

    assert made == {"mean": (0.0,), "std": (1.0,)}
    assert notes == ["images were resized by lanczos3, which is not known here"]


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("name", ["layers/dense/vars/0", "layers/encoder_block/attention/qkv/vars/0"])
def test_other_names_are_not_recognised(name):
    assert not kerashub.recognises(plain({name: np.zeros((4, 4), "float32")}))


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("shape", [(16, 32, 3), (3, 16, 32)])
def test_the_channels_of_the_images_stand_last_or_first(shape):
    assert kerashub._grid({"image_shape": shape}, 8, 8, "preset") == (2, 4)
