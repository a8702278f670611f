"""Keras 2: its models in processes with TF_USE_LEGACY_KERAS=1, and their weights in this process."""

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import h5py
import keras
import numpy as np
import pytest
from PIL import Image

import keras_vit
from keras_vit.errors import InputError
from keras_vit.serving.legacy import load_h5_weights
from tests.helpers.paths import ROOT

FOLDER = Path(__file__).parent
PAGE = (ROOT / "docs" / "keras2.md").read_text(encoding="utf-8")
CHECKS = re.findall(
    r"^def (check_\w+)", (FOLDER / "keras2_layer.py").read_text(encoding="utf-8"), re.MULTILINE
)

# The options of keras2_vits.py.
SIZES = dict(image_shape=(12, 8, 3), num_classes=5, patch_size=4, dim=12, depth=2, num_heads=3, mlp_dim=20)
FUSED = dict(head_dim=5, qkv_bias=False, pooling="gap", stem="conv", head_hidden_dim=7)
AUTOMATIC = {
    "dense": "patch_embed",
    "cls_token": "add_cls/tokens",
    "positions": "position_embedding/table",
    "layer_normalization": "block_0/attention_norm",
    "multi_head_attention": "block_0/attention",
    "layer_normalization_1": "block_0/mlp_norm",
    "dense_2": "block_0/mlp/expand",
    "dense_3": "block_0/mlp/contract",
    "layer_normalization_2": "block_1/attention_norm",
    "multi_head_attention_1": "block_1/attention",
    "layer_normalization_3": "block_1/mlp_norm",
    "dense_4": "block_1/mlp/expand",
    "dense_5": "block_1/mlp/contract",
    "layer_normalization_4": "norm",
    "dense_1": "head",
}

# The names as the package vit-keras 0.1.2 saved them with tf_keras 2.21.
VIT_KERAS_NAMES = [
    "embedding/kernel:0",
    "embedding/bias:0",
    "class_token/cls:0",
    "Transformer/posembed_input/pos_embedding:0",
    *(
        f"Transformer/encoderblock_{i}/{name}:0"
        for i in range(2)
        for name in (
            *(
                f"MultiHeadDotProductAttention_1/{dense}/{kind}"
                for dense in ("query", "key", "value", "out")
                for kind in ("kernel", "bias")
            ),
            *(f"Dense_{j}/{kind}" for j in (0, 1) for kind in ("kernel", "bias")),
            *(f"LayerNorm_{j}/{kind}" for j in (0, 2) for kind in ("gamma", "beta")),
        )
    ),
    "Transformer/encoder_norm/gamma:0",
    "Transformer/encoder_norm/beta:0",
    "head/kernel:0",
    "head/bias:0",
]


def run_keras_2(*arguments, cwd=ROOT):
    pytest.importorskip("tf_keras")
    environment = {**os.environ, "TF_USE_LEGACY_KERAS": "1", "TF_CPP_MIN_LOG_LEVEL": "3"}
    ran = subprocess.run(
        [sys.executable, *map(str, arguments)], env=environment, cwd=cwd, capture_output=True, text=True
    )
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


@pytest.fixture(scope="module")
def vits(tmp_path_factory):
    """A folder with the files of keras2_vits.py."""
    folder = tmp_path_factory.mktemp("vits")
    run_keras_2("-m", "tests.serving.keras2_vits", folder)
    return folder


@pytest.fixture(scope="module")
def layer_answers(tmp_path_factory):
    """Name of a check in keras2_layer.py -> its error, and the folder of all checks."""
    folder = tmp_path_factory.mktemp("layer")
    run_keras_2("-m", "tests.serving.keras2_layer", folder)
    return json.loads((folder / "answers.json").read_text()), folder


def weights_of(model):
    return {weight.path: keras.ops.convert_to_numpy(weight) for weight in model.weights}


def write_h5(path, weights):
    """`name/of/layer/kernel` -> array, in the layout of Keras 2."""
    layers = {name.rpartition("/")[0]: {} for name in weights}
    for name, value in weights.items():
        layers[name.rpartition("/")[0]][f"{name}:0"] = value
    with h5py.File(path, "w") as file:
        file.attrs["layer_names"] = [name.encode() for name in layers]
        for layer, values in layers.items():
            group = file.create_group(layer)
            group.attrs["weight_names"] = [name.encode() for name in values]
            for name, value in values.items():
                group[name] = value
    return path


def read_h5(path):
    """The weights of a file by name, without `:0`. Nested models are not supported."""
    with h5py.File(path) as file:
        return {
            name.removesuffix(":0"): file[layer][name][()]
            for layer in file.attrs["layer_names"]
            for name in file[layer].attrs["weight_names"]
        }


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("check", CHECKS)
def test_the_layer(layer_answers, check):
    assert layer_answers[0][check] == ""


@pytest.mark.same_on_every_backend
def test_the_layer_without_keras_2(monkeypatch):
    monkeypatch.setitem(sys.modules, "tf_keras", None)
    with pytest.raises(InputError, match=r'needs Keras 2: pip install "keras-vit-defects\[legacy\]"'):
        keras_vit.serving.legacy.BundleLayer  # noqa: B018


@pytest.mark.same_on_every_backend
def test_the_names_equal_those_of_the_package_vit_keras(vits):
    with h5py.File(vits / "vit_keras_weights.h5") as file:
        names = [name for layer in file.attrs["layer_names"] for name in file[layer].attrs["weight_names"]]
    assert names == VIT_KERAS_NAMES


@pytest.mark.parametrize(
    ("file", "options", "names"),
    [
        ("vit_keras_weights", {}, None),
        ("vit_keras_model", {}, None),
        ("vit_keras_in_a_model_weights", {}, {"my_head": "head"}),
        ("vit_keras_in_a_model_model", {}, {"my_head": "head"}),
        ("split_weights", {}, None),
        ("split_model", {}, None),
        ("fused_weights", FUSED, None),
        ("fused_model", FUSED, None),
        ("automatic_weights", {}, AUTOMATIC),
    ],
)
def test_imported_weights_give_the_same_logits(vits, file, options, names):
    model = keras_vit.ViT(**SIZES | options)
    load_h5_weights(model, vits / f"{file}.h5", names)
    wanted = np.load(vits / f"{file.rpartition('_')[0]}.npy")
    logits = model(np.load(vits / "images.npy"), training=False)
    found = (
        logits if not file.startswith("split") else keras.ops.softmax(logits)
    )  # the model `split` ends with a softmax
    np.testing.assert_allclose(keras.ops.convert_to_numpy(found), wanted, rtol=0, atol=1e-4)
    assert np.ptp(wanted, axis=0).min() > 0.01  # the logits depend on the images


def test_every_option_of_vit_is_imported_under_its_own_names(tmp_path):
    options = dict(num_registers=2, qk_norm=True, layer_scale=0.1, pooling="map", activation="swiglu")
    rng = np.random.default_rng(0)
    model = keras_vit.ViT(**SIZES | options, dropout_rate=0.1)
    weights = {
        path: rng.normal(size=value.shape).astype("float32") for path, value in weights_of(model).items()
    }
    load_h5_weights(model, write_h5(tmp_path / "x.h5", weights))
    assert all(np.array_equal(value, weights[path]) for path, value in weights_of(model).items())


@pytest.mark.same_on_every_backend
def test_long_lists_of_names_are_split(vits, tmp_path):
    # Keras splits a list that is too long for HDF5.
    path = shutil.copy(vits / "fused_weights.h5", tmp_path / "x.h5")
    with h5py.File(path, "a") as file:
        names = list(file.attrs["layer_names"])
        del file.attrs["layer_names"]
        file.attrs["layer_names0"], file.attrs["layer_names1"] = names[:7], names[7:]
    model = keras_vit.ViT(**SIZES | FUSED)
    load_h5_weights(model, path)
    assert np.array_equal(weights_of(model)["head/kernel"], read_h5(vits / "fused_weights.h5")["head/kernel"])


def split_too(weights):
    weights["block_0/attention/query/kernel"] = np.zeros((12, 15))


def without_values(weights):
    qkv = weights.pop("block_0/attention/qkv/kernel")
    weights |= {f"block_0/attention/{name}/kernel": qkv[:, :15] for name in ("query", "key")}


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    ("file", "options", "names", "parts"),
    [
        ("none", {}, None, ["There is no file", "none.h5"]),
        ("split.weights", {}, None, ["has no names of layers", "not in .weights.h5"]),
        (
            "vit_keras_weights",
            dict(image_shape=(16, 16, 3)),
            None,
            [
                "Transformer/posembed_input/pos_embedding is (1, 7, 12)",
                "position_embedding/table of the model (1, 17, 12)",
                "ViT.resized",
            ],
        ),
        (
            "vit_keras_weights",
            dict(num_classes=6),
            None,
            ["head/kernel is (12, 5)", "(12, 6)", "num_classes=5"],
        ),
        (
            "split_weights",
            dict(patch_size=2),
            None,
            ["patch_embed/kernel is (4, 4, 3, 12)", "(12, 12) or (2, 2, 3, 12)", "sizes of the file"],
        ),
        ("vit_keras_weights", dict(mlp_dim=24), None, ["Dense_0/kernel is (12, 20)", "(12, 24)"]),
        ("vit_keras_weights", dict(image_shape=(12, 8, 1)), None, ["embedding/kernel is (4, 4, 3, 12)"]),
        # The number of weights is the same: only the shape in the layer of Keras shows the number of heads.
        (
            "split_weights",
            dict(num_heads=2),
            None,
            ["block_0/attention/query/kernel is (12, 3, 4)", "(12, 12) or (12, 2, 6)", "num_heads"],
        ),
        ("split_weights", dict(depth=1), None, ["block_1/attention_norm/gamma (12,)", "depth"]),
        ("split_weights", dict(depth=3), None, ["does not have, or not completely, block_2/", "and 9 more"]),
        ("split_weights", dict(qkv_bias=False), None, ["block_0/attention/query/bias", "qkv_bias=True"]),
        ("split_weights", dict(position="sincos2d"), None, ["model does not have", 'position="learned"']),
        (
            "split_weights",
            dict(pooling="gap"),
            None,
            ["add_cls/tokens", "model does not have", 'pooling="token"'],
        ),
        ("split_weights", dict(head_hidden_dim=5), None, ["head/kernel is (12, 5)", "(5, 5)"]),
        ("fused_weights", FUSED | dict(head_hidden_dim=None), None, ["head_hidden_dim of the file"]),
        (
            "fused_weights",
            FUSED | dict(stem="linear"),
            None,
            ["patch_embed/conv_0/kernel", "model does not have"],
        ),
        ("fused_weights", FUSED | dict(qkv_bias=True), None, ["does not have", "block_0/attention/qkv/bias"]),
        ("vit_keras_in_a_model_weights", {}, None, ["my_head/kernel (12, 5)", "names={...}"]),
        ("split_weights", {}, {"heda": "head"}, ["names has 'heda'", "no such layer", "patch_embed/kernel"]),
        ("split_weights", {}, {"norm": "head"}, ["head/gamma"]),
        (lambda w: w.update({"pre_logits/kernel": np.zeros((7, 7))}), FUSED, None, ["pre_logits", "tanh"]),
        (split_too, FUSED, None, ["not completely", "block_0/attention/qkv/kernel"]),
        (without_values, FUSED, None, ["not completely", "block_0/attention/qkv/kernel"]),
        (
            lambda w: w.update({"old_head/kernel": w["head/kernel"]}),
            FUSED,
            {"old_head": "head"},
            ["has head/kernel and old_head/kernel, both for head/kernel"],
        ),
        (lambda w: w.update({"head/bias": np.array([b"a"] * 5)}), FUSED, None, ["cannot be read as HDF5"]),
        (
            "epsilon_model",
            {},
            None,
            ["block_0/attention_norm has epsilon 0.001, ViT 1e-06", 'model.save_weights("x.h5")'],
        ),
        ("tanh_model", {}, None, ["block_0/mlp/expand has the activation tanh, ViT gelu, linear, softmax"]),
    ],
)
def test_wrong_files_are_refused_and_change_nothing(vits, tmp_path, file, options, names, parts):
    path = vits / f"{file}.h5" if isinstance(file, str) else tmp_path / "changed.h5"
    if not isinstance(file, str):
        weights = read_h5(vits / "fused_weights.h5")
        file(weights)
        write_h5(path, weights)
    model = keras_vit.ViT(**SIZES | options)
    before = weights_of(model)
    with pytest.raises(InputError) as refused:
        load_h5_weights(model, path, names)
    assert all(part in str(refused.value) for part in [path.name, *parts]), str(refused.value)
    assert all(np.array_equal(value, before[name]) for name, value in weights_of(model).items())


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("damage", [lambda whole: whole[: len(whole) // 2], lambda whole: b"no weights"])
def test_a_damaged_file_is_refused(vits, tmp_path, damage):
    path = tmp_path / "damaged.h5"
    path.write_bytes(damage((vits / "split_weights.h5").read_bytes()))
    with pytest.raises(InputError, match=r"damaged\.h5 cannot be read as HDF5 .*: save it again in Keras 2"):
        load_h5_weights(keras_vit.ViT(**SIZES), path)


@pytest.mark.same_on_every_backend
def test_weights_of_another_function_are_imported(vits):
    load_h5_weights(keras_vit.ViT(**SIZES), vits / "epsilon_weights.h5")


@pytest.mark.same_on_every_backend
def test_another_model_is_refused(vits):
    with pytest.raises(InputError, match=r"must be a keras_vit.ViT. Received: Sequential"):
        load_h5_weights(keras.Sequential(), vits / "split_weights.h5")


def block(comment):
    (code,) = re.findall(rf"<!-- {comment} -->\n```python\n(.*?)```", PAGE, re.DOTALL)
    return code


@pytest.mark.same_on_every_backend
def test_the_layer_of_the_page(layer_answers, tmp_path):
    shutil.copytree(layer_answers[1] / "models", tmp_path / "models")
    Image.new("L", (8, 8), 128).save(tmp_path / "strip_17.png")
    printed = run_keras_2("-c", block("a program with TF_USE_LEGACY_KERAS=1"), cwd=tmp_path)
    # The lines above are the progress bar of Keras.
    assert re.fullmatch(r"\[b'gray'\] \[0\.9\d+\] \[0\]", printed.splitlines()[-1]), printed


@pytest.mark.long
@pytest.mark.same_on_every_backend
def test_the_layer_of_an_exported_run(run, bundle, drawn_images, tmp_path):
    files = sorted(drawn_images.glob("*/*.png"))[::10]
    program = f"""
import numpy as np, tensorflow as tf, tf_keras
from keras_vit.serving.legacy import BundleLayer
image_bytes = tf_keras.Input(shape=(), dtype="string")
answers = BundleLayer({str(bundle.path)!r})(image_bytes)
features = BundleLayer({str(bundle.path)!r}, "features", output="features")(image_bytes)
tf_keras.Model(image_bytes, [answers, features]).save("model.keras")
files = tf.constant([open(file, "rb").read() for file in {[str(file) for file in files]}])
answers, features = tf_keras.models.load_model("model.keras").predict(files, verbose=0)
labels, probabilities = answers["label"].astype("U"), answers["probabilities"]
np.savez("answers.npz", labels=labels, probabilities=probabilities, features=features)
"""
    run_keras_2("-c", program, cwd=tmp_path)
    found = np.load(tmp_path / "answers.npz")
    wanted = keras_vit.predict(run, files)
    assert found["labels"].tolist() == [prediction.label for prediction in wanted]
    probabilities = [list(prediction.probabilities.values()) for prediction in wanted]
    np.testing.assert_allclose(found["probabilities"], probabilities, rtol=0, atol=1e-5)
    assert found["features"].shape == (len(files), 8)


def test_the_importer_of_the_page(vits, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    names: dict = {}
    code = block("vit-keras, or the names of ViT")
    sizes = eval(re.search(r"dict\(.*\)", code)[0])
    weights = weights_of(keras_vit.ViT(**sizes))
    write_h5("old.h5", weights)
    exec(code, names)
    saved = keras.saving.load_model("new.keras")
    assert all(np.array_equal(value, weights[path]) for path, value in weights_of(saved).items())

    shutil.copy(vits / "automatic_weights.h5", "notebook.h5")
    names |= {"shape": SIZES, "model": keras_vit.ViT(**SIZES)}
    exec(block("automatic names"), names)
    logits = keras.ops.convert_to_numpy(names["model"](np.load(vits / "images.npy"), training=False))
    np.testing.assert_allclose(logits, np.load(vits / "automatic.npy"), rtol=0, atol=1e-4)
