import json

import keras
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file

from keras_vit import ViT
from keras_vit.errors import InputError
from keras_vit.files import work_name
from keras_vit.locks import lock_beside
from keras_vit.model.weights.export import export_weights
from keras_vit.model.weights.families import huggingface, timm
from keras_vit.model.weights.sources import open_checkpoint
from tests.helpers.published import answers, built, random_vit, recorded
from tests.helpers.random_tensors import random_images
from tests.test_locks import held_by_another

CASES = recorded("exports")
FAMILIES = {"timm": timm, "huggingface": huggingface}
SMALL = dict(image_shape=(16, 16, 3), num_classes=3, patch_size=8, dim=32, depth=2, num_heads=4, mlp_dim=64)
NAMES = ["ant", "bee", "cat"]


def read(folder, format):
    return FAMILIES[format].read(open_checkpoint(folder), {})


@pytest.mark.parametrize("name", CASES)
def test_the_files_are_those_that_the_library_took(name, tmp_path):
    case = CASES[name]
    model, classes = random_vit(case["arguments"]), NAMES[: case["arguments"]["num_classes"]]

    folder = export_weights(model, tmp_path / "out", case["format"], class_names=classes)

    assert json.loads((folder / "config.json").read_text()) == case["config"]
    tensors = load_file(folder / "model.safetensors")
    assert {key: list(tensor.shape) for key, tensor in tensors.items()} == case["shapes"]


@pytest.mark.parametrize("name", CASES)
def test_the_library_answers_as_the_model(name, tmp_path):
    case = CASES[name]
    model, images = random_vit(case["arguments"]), random_images(case["arguments"]["image_shape"])

    folder = export_weights(model, tmp_path / "out", case["format"])

    np.testing.assert_allclose(answers(model, images), case["outputs"], atol=1e-5)
    again = answers(built(read(folder, case["format"])), images)
    np.testing.assert_allclose(again, case["outputs"], atol=1e-5)


same_on_every_backend = pytest.mark.same_on_every_backend


@same_on_every_backend
@pytest.mark.parametrize("format", FAMILIES)
def test_images_and_classes_come_back(format, tmp_path):
    given = dict(mean=(0.1, 0.2, 0.3), std=(0.4, 0.5, 0.6), interpolation="bicubic")

    folder = export_weights(random_vit(SMALL), tmp_path / "out", format, class_names=NAMES, **given)

    weights = read(folder, format)
    np.testing.assert_allclose(weights.mean, given["mean"], rtol=1e-6)
    np.testing.assert_allclose(weights.std, given["std"], rtol=1e-6)
    assert weights.interpolation == "bicubic"
    assert weights.class_names == tuple(NAMES)
    assert weights.unused == weights.new == ()


@same_on_every_backend
@pytest.mark.parametrize(("aspect", "crop"), [("stretch", "squash"), ("crop", "center"), ("pad", "border")])
def test_timm_is_told_how_images_of_another_aspect_ratio_are_fitted(aspect, crop, tmp_path):
    folder = export_weights(random_vit(SMALL), tmp_path / "out", "timm", aspect=aspect)

    images = json.loads((folder / "config.json").read_text())["pretrained_cfg"]
    assert (images["crop_mode"], images["crop_pct"]) == (crop, 1.0)


@same_on_every_backend
def test_transformers_is_told_how_images_are_fitted(tmp_path):
    def processor(aspect):
        folder = export_weights(random_vit(SMALL), tmp_path / aspect, "huggingface", aspect=aspect)
        return json.loads((folder / "preprocessor_config.json").read_text())

    stretched, cropped = processor("stretch"), processor("crop")
    assert stretched["size"] == cropped["crop_size"] == {"height": 16, "width": 16}
    assert cropped["size"] == {"shortest_edge": 16}
    assert "crop_size" not in stretched


@same_on_every_backend
@pytest.mark.parametrize("format", FAMILIES)
def test_the_licence_stands_in_the_file(format, tmp_path):
    folder = export_weights(random_vit(SMALL), tmp_path / "out", format, licence="mit")

    with safe_open(folder / "model.safetensors", "np") as file:
        assert file.metadata() == {"format": "pt", "license": "mit"}
    assert open_checkpoint(folder).origin.licence == "mit"


@pytest.mark.parametrize("format", FAMILIES)
def test_a_model_that_was_saved_and_loaded_is_exported(format, tmp_path):
    model = random_vit(SMALL)
    model.save(tmp_path / "model.keras")

    loaded = keras.saving.load_model(tmp_path / "model.keras")

    images = random_images(SMALL["image_shape"])
    folder = export_weights(loaded, tmp_path / "out", format)
    np.testing.assert_allclose(
        answers(built(read(folder, format)), images), answers(model, images), atol=1e-5
    )


@same_on_every_backend
@pytest.mark.parametrize(
    ("format", "changes", "named"),
    [
        ("timm", dict(stem="conv"), 'stem="conv"'),
        ("timm", dict(patch_norm=True), "patch_norm=True"),
        ("timm", dict(head_dim=16), "head_dim=16"),
        ("timm", dict(head_hidden_dim=7), "head_hidden_dim=7"),
        ("timm", dict(pooling="token+gap"), 'pooling="token+gap"'),
        ("timm", dict(norm_epsilon=1e-3), "norm_epsilon=0.001"),
        ("timm", dict(activation="swiglu", norm_epsilon=1e-5), "norm_epsilon=1e-05"),
        ("timm", dict(activation="swiglu", pooling="map"), 'activation="swiglu" with pooling="map"'),
        ("timm", dict(pooling="token+distilled", num_registers=1), "registers with"),
        ("timm", dict(pooling="token+distilled", final_norm="pooled"), 'final_norm="pooled" with'),
        ("huggingface", dict(stem="conv"), 'stem="conv"'),
        ("huggingface", dict(qk_norm=True), "qk_norm=True"),
        ("huggingface", dict(head_dim=16, head_hidden_dim=7), "head_dim=16, head_hidden_dim=7"),
        ("huggingface", dict(pooling="map"), 'pooling="map" (ijepa)'),
        ("huggingface", dict(pooling="all", class_token=True), 'pooling="all" (dinov2)'),
        ("huggingface", dict(final_norm="none"), 'final_norm="none"'),
        ("huggingface", dict(pooling="gap", final_norm="pooled"), 'final_norm="pooled"'),
        ("huggingface", dict(pre_norm=True), "a head (clip_vision_model)"),
        ("huggingface", dict(pooling="gap", layer_scale=1e-5), "layer_scale (ijepa)"),
        ("huggingface", dict(pooling="gap", num_registers=1), "registers (ijepa)"),
        ("huggingface", dict(pooling="gap", activation="swiglu"), 'activation="swiglu" (ijepa)'),
        ("huggingface", dict(layer_scale=1e-5, mlp_dim=50), "mlp_dim=50 with dim=32 (dinov2)"),
        ("huggingface", dict(layer_scale=1e-5, image_shape=(16, 24, 3)), "images of 16x24 (dinov2)"),
    ],
)
def test_what_a_library_has_no_place_for_is_named(format, changes, named, tmp_path):
    with pytest.raises(InputError) as error:
        export_weights(ViT(**{**SMALL, **changes}), tmp_path / "out", format)

    assert named in str(error.value)
    assert "has no place for" in str(error.value)
    assert not list(tmp_path.iterdir())


@same_on_every_backend
@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        (dict(format="onnx"), "format must be one of 'timm', 'huggingface'"),
        (dict(class_names=["ant"]), "class_names must be 3"),
        (dict(mean=(0.5, 0.5)), "mean must be one number, or 3"),
        (dict(format="huggingface", aspect="pad"), 'aspect="pad"'),
    ],
)
def test_wrong_arguments_leave_nothing_behind(given, sentence, tmp_path):
    arguments = {"format": "timm", **given}

    with pytest.raises(InputError, match=sentence):
        export_weights(random_vit(SMALL), tmp_path / "out", **arguments)

    assert not list(tmp_path.iterdir())


@same_on_every_backend
def test_a_folder_that_exists_stays(tmp_path):
    (tmp_path / "config.json").write_text("{}")

    with pytest.raises(InputError, match="exists: choose another folder"):
        export_weights(random_vit(SMALL), tmp_path, "timm")

    assert (tmp_path / "config.json").read_text() == "{}"


@same_on_every_backend
def test_a_folder_that_another_command_writes_is_refused(tmp_path):
    left = tmp_path / work_name(".out")
    left.mkdir()
    with held_by_another(lock_beside(tmp_path / "out")) as other:
        with pytest.raises(InputError, match=rf"Another command writes .*out \(process {other.pid} on "):
            export_weights(random_vit(SMALL), tmp_path / "out", "timm")
        assert left.is_dir()
    (tmp_path / "out").mkdir()  # an empty folder may be given
    export_weights(random_vit(SMALL), tmp_path / "out", "timm")
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@same_on_every_backend
def test_a_folder_that_cannot_be_made_is_named(tmp_path):
    (tmp_path / "file").write_text("")

    with pytest.raises(InputError, match="file"):
        export_weights(random_vit(SMALL), tmp_path / "file" / "out", "timm")
