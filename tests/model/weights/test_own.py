"""Weights of this package: each weight of a saved model is found again, and a run tells its images."""

import json
import shutil

import numpy as np
import pytest

from keras_vit import ViT
from keras_vit.errors import InputError
from keras_vit.model.weights.checkpoint import Checkpoint, Origin
from keras_vit.model.weights.families import own
from keras_vit.model.weights.read import read_weights
from keras_vit.model.weights.sources import open_checkpoint
from keras_vit.model.weights.told import ARGUMENT, CONFIG, SHAPES
from keras_vit.sealed import seal
from tests.helpers.paths import ROOT
from tests.helpers.published import answers, built
from tests.helpers.random_tensors import random_images, random_tensors

EARLIER = ROOT / "tests" / "fixtures" / "version_0_1_0"
SMALL = dict(image_shape=(16, 16, 3), num_classes=3, patch_size=8, dim=16, depth=2, num_heads=2)
OPTIONS = {
    "defaults": {},
    "conv stem": dict(stem="conv"),
    "norms of patches, two last layers": dict(
        patch_norm=True, head_hidden_dim=8, pooling="gap", num_registers=2
    ),
    "attention pooling, fixed positions": dict(pooling="map", position="sincos2d"),
    "CLIP": dict(pre_norm=True, patch_bias=False, activation="quick_gelu"),
    "no last norm": dict(pre_norm=True, final_norm="none"),
    "norm after pooling": dict(final_norm="pooled", pooling="token+gap"),
    "DINOv2": dict(layer_scale=1.0, activation="swiglu", num_registers=1),
    "norm of queries and keys": dict(qk_norm=True, head_dim=4),
    "distilled": dict(pooling="token+distilled", class_position=False),
    "no biases": dict(qkv_bias=False, projection_bias=False, mlp_bias=False),
    "no head": dict(num_classes=0),
    "dropout": dict(dropout_rate=0.1, drop_path_rate=0.1),
    "eleven blocks": dict(depth=11),
}


@pytest.mark.parametrize("option", OPTIONS)
def test_every_weight_of_a_saved_model_is_found(option, tmp_path):
    model = ViT(**{**SMALL, **OPTIONS[option]})
    variables = {variable.path: variable for variable in model.weights if variable.dtype == "float32"}
    values = random_tensors({path: variable.shape for path, variable in variables.items()})
    for path, variable in variables.items():
        variable.assign(np.abs(values[path]))  # variances of a conv stem are positive
    model.save(tmp_path / "model.keras")

    checkpoint = open_checkpoint(tmp_path / "model.keras")

    assert own.recognises(checkpoint)
    weights = own.read(checkpoint, {})
    assert weights.config == model.config
    assert weights.arrays.keys() == variables.keys()
    for path, array in weights.arrays.items():
        np.testing.assert_array_equal(array, np.abs(values[path]), err_msg=path)


@pytest.mark.same_on_every_backend
def test_a_trained_model_has_an_optimizer_that_is_unused(tmp_path):
    model = ViT(**SMALL)
    model.compile("adam", "mse")
    model.fit(random_images((16, 16, 3)), np.zeros((2, 3)), verbose=0)
    model.save(tmp_path / "model.keras")

    weights = own.read(open_checkpoint(tmp_path / "model.keras"), {})

    assert weights.unused
    assert all(name.startswith("optimizer/") for name in weights.unused)
    images = random_images((16, 16, 3), seed=1)
    np.testing.assert_allclose(answers(built(weights), images), answers(model, images), atol=1e-6)


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("name", ["map_pool", "layer_scale"])
def test_files_of_earlier_versions_give_the_same_answers(name):
    record = np.load(EARLIER / f"{name}.npz")

    weights = own.read(open_checkpoint(EARLIER / f"{name}.keras"), {})

    model = built(weights)
    np.testing.assert_allclose(answers(model, record["images"]), record["logits"], atol=1e-5)


@pytest.mark.same_on_every_backend
def test_a_run_tells_its_classes_and_its_images():
    weights = own.read(open_checkpoint(EARLIER / "run"), {})

    assert weights.class_names[0] == "crazing"
    assert (weights.mean, weights.std, weights.interpolation) == ((0.5,), (0.5,), "bilinear")
    assert weights.told_by["mean"] == CONFIG
    assert weights.notes == (own.EARLIER,)


@pytest.fixture
def run(tmp_path):
    """A copy of the run of version 0.1.0, and a function that changes its config."""
    folder = tmp_path / "run"
    shutil.copytree(EARLIER / "run", folder)

    def change(**changes):
        path = folder / "config.json"
        path.write_text(json.dumps(json.loads(path.read_text()) | changes))
        return folder

    return change


@pytest.mark.same_on_every_backend
def test_the_scaling_of_a_run_is_in_its_record(run):
    scaling = dict(mean=[0.1307], std=[0.3081], interpolation="bicubic")
    folder = run(preprocessing=dict(image_shape=[28, 28, 1], aspect="stretch", **scaling))

    for source in (folder, folder / "model.keras"):
        weights = own.read(open_checkpoint(source), {})
        assert (weights.mean, weights.std, weights.interpolation) == ((0.1307,), (0.3081,), "bicubic")
        assert weights.notes == (own.EARLIER,)


@pytest.mark.same_on_every_backend
def test_a_record_without_mean_and_std_has_pixels_from_minus_1_to_1(run):
    folder = run(preprocessing=dict(image_shape=[28, 28, 1], aspect="crop", mean=None, std=None))

    weights = own.read(open_checkpoint(folder), {})

    assert (weights.mean, weights.std, weights.interpolation) == ((0.5,), (0.5,), "bilinear")


@pytest.mark.same_on_every_backend
def test_the_licence_of_the_weights_that_a_run_began_with_stays(run):
    folder = run(weights=dict(source="timm:vit_tiny_patch16_224.augreg_in21k", licence="apache-2.0"))

    weights = own.read(open_checkpoint(folder), {})

    assert weights.origin.licence == "apache-2.0"
    assert weights.notes == (own.EARLIER, "the run began with timm:vit_tiny_patch16_224.augreg_in21k")


def reseal(folder, **changes):
    """Binds the config of a run to its model, as `train` does."""
    path = folder / "config.json"
    path.write_text(json.dumps(seal(json.loads(path.read_text()) | changes, folder, ["model.keras"])))


def of_another_run(folder):
    with_changes = EARLIER / "layer_scale.keras"
    shutil.copy(with_changes, folder / "model.keras")


def with_other_classes(folder):
    path = folder / "config.json"
    content = json.loads(path.read_text())
    content["data"]["class_names"].reverse()
    path.write_text(json.dumps(content))


def without_its_own_hash(folder):
    path = folder / "config.json"
    content = json.loads(path.read_text())
    del content["sha256"]
    path.write_text(json.dumps(content))


MIXED = {
    "the model of another run": (of_another_run, "model.keras is not the file that belongs to the others"),
    "classes in another order": (with_other_classes, "config.json is damaged (it has changed since"),
    "half a seal": (without_its_own_hash, "config.json is damaged (it has changed since"),
}


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("change", MIXED)
def test_a_run_of_which_a_file_has_changed_is_refused(change, run):
    damage, message = MIXED[change]
    folder = run()
    reseal(folder)
    assert read_weights(folder).notes == ()
    damage(folder)
    for source in (folder, folder / "model.keras"):
        with pytest.raises(InputError) as error:
            read_weights(source)
        assert message in str(error.value)
        assert "restore the files of the run" in str(error.value)


@pytest.mark.same_on_every_backend
def test_another_model_in_the_folder_of_a_run_is_not_described_by_it(run):
    folder = run()
    reseal(folder)
    shutil.copy(folder / "model.keras", folder / "copy.keras")
    shutil.copy(EARLIER / "map_pool.keras", folder / "other.keras")
    assert read_weights(folder / "copy.keras").class_names == read_weights(folder).class_names
    with pytest.raises(InputError, match=r"other\.keras is not the model of the run .* move the file"):
        read_weights(folder / "other.keras")


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"data": []}, "data is not a JSON object"),
        ({"data": {"class_names": 3}}, "data.class_names should be a list, not 3"),
        ({"data": {"class_names": [1, 2]}}, "data.class_names.0 should be a string, not 1"),
        ({"weights": "timm:vit"}, "weights is not a JSON object"),
        ({"weights": {"source": 5}}, "weights.source should be a string, not 5"),
        ({"preprocessing": [28, 28]}, "preprocessing should be a dictionary, not [28, 28]"),
    ],
    ids=str,
)
def test_a_config_of_other_types_is_refused(changes, message, run):
    folder = run(**changes)
    with pytest.raises(InputError) as error:
        read_weights(folder)
    assert f"config.json is damaged ({message}): restore the files of the run" in str(error.value)


@pytest.mark.same_on_every_backend
def test_of_a_model_alone_the_scaling_is_assumed_aloud():
    checkpoint = open_checkpoint(EARLIER / "map_pool.keras")

    weights = own.read(checkpoint, {})

    assert (weights.mean, weights.told_by["mean"]) == ((0.5,), SHAPES)
    assert "pixels are taken to be in [-1, 1]" in weights.notes[0]
    told = own.read(checkpoint, dict(mean=0.1, std=0.2))
    assert (told.mean, told.std, told.told_by["std"]) == ((0.1,), (0.2,), ARGUMENT)


def changed(checkpoint, tensors=(), config=(), without=()):
    kept = {name: tensor for name, tensor in checkpoint.tensors.items() if name not in without}
    made = {**checkpoint.config, "config": {**checkpoint.config["config"], **dict(config)}}
    return Checkpoint({**kept, **dict(tensors)}, Origin("model.keras", (), ""), made)


QKV = "layers/encoder_block/attention/qkv/vars/0"
WRONG = {
    "a later version": (dict(config={"rope": True}), "was saved by a later version of keras_vit (rope)"),
    "a wrong value": (dict(config={"depth": 0}), "depth must be 1 or more"),
    "a missing block": (dict(config={"depth": 3}), "lacks block_2/attention/qkv/kernel"),
    "a missing head": (dict(without=["layers/dense_1/vars/0"]), "lacks head/kernel: the file is incomplete"),
    "other heads": (
        dict(tensors={QKV: np.zeros((8, 20), "float32")}),
        "has attention of shape (8, 20), which its config contradicts",
    ),
}


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("wrong", WRONG)
def test_a_damaged_file_is_refused_in_one_sentence(wrong):
    changes, message = WRONG[wrong]

    with pytest.raises(InputError) as error:
        own.read(changed(open_checkpoint(EARLIER / "map_pool.keras"), **changes), {})

    assert message in str(error.value)


@pytest.mark.same_on_every_backend
def test_an_argument_that_contradicts_the_model_is_refused():
    with pytest.raises(InputError, match="is of a model with dim=8: leave out dim=16"):
        own.read(open_checkpoint(EARLIER / "map_pool.keras"), dict(dim=16))


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("config", [None, {}, {"registered_name": "keras_hub>ViTBackbone"}])
def test_other_files_are_not_recognised(config):
    assert not own.recognises(Checkpoint({}, Origin("model.keras", (), ""), config))
