"""LoRA: what is trained, what is merged, what the file of an adapter holds and refuses."""

import dataclasses
import json

import keras
import numpy as np
import pytest
from safetensors import safe_open
from safetensors.numpy import load_file, save_file

from keras_vit.errors import InputError
from keras_vit.model.vit import ViT
from keras_vit.training.adapter import load_adapter, save_adapter
from keras_vit.training.checkpoint import restore_checkpoint, save_checkpoint
from keras_vit.training.lora import enable_lora, lora_layers, merge_lora
from keras_vit.training.optimizer import compile_model
from keras_vit.training.recipe import Recipe
from keras_vit.training.unfreezing import choose_trained

XLA = (
    False if keras.backend.backend() == "tensorflow" else None
)  # compiling takes longer than these models run
SMALL = dict(image_shape=(8, 8, 1), num_classes=3, patch_size=4, dim=8, depth=2, num_heads=2)
LORA = Recipe(tune="lora", learning_rate=0.05, lora_rank=2, warmup_epochs=0.0, ema_decay=0.5, xla=XLA)


def small_vit(**changes):
    return ViT(**{**SMALL, **changes})


def batch(size=8):
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (size, 8, 8, 1)).astype("float32")
    return images, np.eye(3, dtype="float32")[rng.integers(0, 3, size)]


def with_additions(model, rank=2, kernels=("qkv", "projection", "mlp")):
    """The model with additions that are not zero."""
    enable_lora(model, rank, kernels)
    rng = np.random.default_rng(1)
    for layer in lora_layers(model).values():
        layer.lora_kernel_b.assign(rng.normal(size=layer.lora_kernel_b.shape) * 0.3)
    return model


def values(model):
    return {weight.path: value for weight, value in zip(model.weights, model.get_weights(), strict=True)}


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    ("kernels", "layers"),
    [
        (("qkv",), ["attention/qkv"]),
        (("qkv", "projection"), ["attention/qkv", "attention/projection"]),
        (("mlp", "qkv"), ["attention/qkv", "mlp/expand", "mlp/contract"]),
    ],
)
@pytest.mark.parametrize(
    "changes",
    [
        {},
        dict(pooling="map", head_hidden_dim=8, stem="conv"),
        dict(qk_norm=True, layer_scale=0.1, activation="swiglu", qkv_bias=False, pre_norm=True),
    ],
)
def test_the_factors_and_the_head_are_trained_and_nothing_else(kernels, layers, changes):
    model = small_vit(**changes)
    images, _ = batch()
    before = model.predict(images, verbose=0)
    choose_trained(model, dataclasses.replace(LORA, lora_on=kernels))
    expected = {f"block_{i}/{layer}/lora_kernel_{ab}" for i in range(2) for layer in layers for ab in "ab"}
    expected |= {path for path in values(model) if path.startswith("head")}
    assert {variable.path for variable in model.trainable_variables} == expected
    # B is zero: the model begins as it was.
    np.testing.assert_array_equal(model.predict(images, verbose=0), before)


def test_training_changes_what_is_trained_and_nothing_else():
    model = small_vit(stem="conv")
    compile_model(model, LORA, 4)
    before, trained = values(model), {variable.path for variable in model.trainable_variables}
    model.fit(*batch(), batch_size=4, epochs=2, verbose=0)
    after = values(model)
    assert {path for path in before if not np.array_equal(before[path], after[path])} == trained


@pytest.mark.parametrize("dtype", ["float32", "mixed_bfloat16"])
def test_merged_kernels_compute_the_same(dtype):
    model = with_additions(small_vit(activation="swiglu", dtype=dtype))
    images, _ = batch()
    plain = merge_lora(model)
    assert lora_layers(plain) == {}
    assert [weight.path for weight in plain.weights] == [
        weight.path for weight in small_vit(activation="swiglu").weights
    ]
    found, expected = plain.predict(images, verbose=0), model.predict(images, verbose=0)
    if dtype == "float32":
        np.testing.assert_allclose(found, expected, atol=1e-5)
    else:  # Keras rounds kernel and product before their sum
        assert np.linalg.norm(found - expected) < 5e-2 * np.linalg.norm(expected)
    given = values(model)
    for path, value in values(plain).items():  # in float64, whatever the policy
        layer = path.removesuffix("/kernel")
        product = 0.0
        if f"{layer}/lora_kernel_a" in given:
            a, b = (given[f"{layer}/lora_kernel_{ab}"].astype("float64") for ab in "ab")
            product = a @ b
            assert np.abs(product).max() > 0.1
        np.testing.assert_allclose(value, given[path] + product, atol=1e-6, err_msg=path)


def test_a_model_without_additions_is_copied():
    model = small_vit(stem="conv")
    for ours, theirs in zip(model.get_weights(), merge_lora(model).get_weights(), strict=True):
        np.testing.assert_array_equal(theirs, ours)


def test_alpha_scales_the_product():
    model = small_vit(depth=1)
    model.get_layer("block_0").attention.qkv.enable_lora(2, lora_alpha=6)
    (layer,) = lora_layers(model).values()
    rng = np.random.default_rng(1)
    a, b = rng.normal(size=layer.lora_kernel_a.shape), rng.normal(size=layer.lora_kernel_b.shape)
    layer.lora_kernel_a.assign(a)
    layer.lora_kernel_b.assign(b)
    kernel = values(model)["block_0/attention/qkv/kernel"]
    np.testing.assert_allclose(
        values(merge_lora(model))["block_0/attention/qkv/kernel"], kernel + 3 * a @ b, atol=1e-5
    )


@pytest.mark.same_on_every_backend
def test_additions_are_made_once():
    model = small_vit()
    choose_trained(model, LORA)
    count = len(model.weights)
    choose_trained(model, LORA)
    assert len(model.weights) == count
    for changes in (dict(lora_rank=3), dict(lora_on=("mlp",))):
        with pytest.raises(InputError, match=r"has LoRA already, of rank 2 at 4 kernels: merge it with"):
            choose_trained(model, dataclasses.replace(LORA, **changes))
    assert len(model.weights) == count


def test_a_run_that_was_cut_off_ends_as_an_uncut_one(tmp_path):
    def compiled():
        keras.utils.set_random_seed(0)
        model = small_vit()
        compile_model(model, LORA, 4)
        return model

    uncut = compiled()
    for step in range(5):
        uncut.train_on_batch(*batch())
        if step == 1:
            save_checkpoint(tmp_path, uncut, [{"epoch": 1}])
    keras.utils.set_random_seed(7)
    resumed = compiled()
    resumed.get_layer("block_1").attention.qkv.lora_kernel_a.assign(np.ones((8, 2)))
    restore_checkpoint(tmp_path, resumed)
    for _ in range(3):
        resumed.train_on_batch(*batch())
    assert values(resumed).keys() == values(uncut).keys()
    for path, value in values(resumed).items():
        np.testing.assert_allclose(value, values(uncut)[path], atol=1e-6, err_msg=path)
    for ours, theirs in zip(uncut.optimizer.variables, resumed.optimizer.variables, strict=True):
        np.testing.assert_allclose(
            keras.ops.convert_to_numpy(theirs), keras.ops.convert_to_numpy(ours), atol=1e-6, err_msg=ours.path
        )


# The file.


@pytest.fixture
def trained(tmp_path):
    """A base without a head, a model with additions on it, and the file of these."""
    base = small_vit(num_classes=0)
    model = small_vit(drop_path_rate=0.1, head_hidden_dim=8)
    for layer in base.layers:
        if layer.weights:
            model.get_layer(layer.name).set_weights(layer.get_weights())
    save_adapter(with_additions(model), tmp_path / "adapter.safetensors")
    return base, model, tmp_path / "adapter.safetensors"


def test_an_adapter_gives_the_trained_model(trained):
    base, model, path = trained
    images, _ = batch()
    before = base.get_weights()
    loaded = load_adapter(base, path)
    np.testing.assert_allclose(loaded.predict(images, verbose=0), model.predict(images, verbose=0), atol=1e-5)
    assert (loaded.config, lora_layers(loaded)) == (model.config, {})
    for ours, theirs in zip(before, base.get_weights(), strict=True):
        np.testing.assert_array_equal(theirs, ours)


@pytest.mark.same_on_every_backend
def test_the_head_of_the_base_does_not_matter(trained):
    base, model, path = trained
    other = small_vit(num_classes=1000)
    for layer in base.layers:
        if layer.weights:
            other.get_layer(layer.name).set_weights(layer.get_weights())
    loaded = load_adapter(other, path)
    for ours, theirs in zip(merge_lora(model).get_weights(), loaded.get_weights(), strict=True):
        np.testing.assert_array_equal(theirs, ours)


@pytest.mark.same_on_every_backend
def test_what_the_file_holds(trained):
    _, model, path = trained
    tensors = load_file(path)
    assert set(tensors) == {
        name for name in values(model) if "lora_kernel" in name or name.startswith("head")
    }
    with safe_open(path, framework="numpy") as file:
        metadata = file.metadata()
    assert (metadata["format"], metadata["rank"], metadata["alpha"]) == ("keras_vit.lora.1", "2", "2")
    assert len(metadata["base_sha256"]) == 64
    assert json.loads(metadata["vit_config"])["head_hidden_dim"] == 8


@pytest.mark.same_on_every_backend
def test_the_file_of_a_tiny_vit_is_small(tmp_path):
    model = ViT.from_variant("Ti/16", image_shape=(224, 224, 3), num_classes=6)
    choose_trained(model, Recipe(tune="lora"))
    save_adapter(model, tmp_path / "adapter.safetensors")
    # Rank 4 at qkv and projection of 12 blocks, and the head, in float32; the rest is the header.
    numbers = 12 * 4 * (192 + 576 + 192 + 192) + 192 * 6 + 6
    assert 4 * numbers < (tmp_path / "adapter.safetensors").stat().st_size < 4 * numbers + 10_000 < 250_000


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, r"was trained on other weights, of sha256 .*: load these. Received: weights of"),
        (dict(num_heads=4), r"is for a ViT with num_heads=2: load the weights .* Received: num_heads=4"),
        (dict(depth=3), r"is for a ViT with depth=2: load the weights .* Received: depth=3"),
        (dict(norm_epsilon=1e-5), r"is for a ViT with norm_epsilon=1e-06: load"),
    ],
)
def test_another_base_is_refused(trained, changes, message):
    _, _, path = trained
    with pytest.raises(InputError, match=message):
        load_adapter(small_vit(**changes), path)


def rewritten(path, tensors=None, **metadata):
    with safe_open(path, framework="numpy") as file:
        given = file.metadata()
    save_file(load_file(path) if tensors is None else tensors, path, {**given, **metadata})


def configured(path, **changes):
    with safe_open(path, framework="numpy") as file:
        return json.dumps(json.loads(file.metadata()["vit_config"]) | changes)


def drop(path, name):
    tensors = load_file(path)
    del tensors[name]
    rewritten(path, tensors)


def transpose(path, name):
    tensors = load_file(path)
    tensors[name] = np.ascontiguousarray(tensors[name].T)
    rewritten(path, tensors)


STRANGE = {f"x/lora_kernel_{side}": np.zeros((2, 2), "float32") for side in "ab"}
DAMAGED = {
    "missing": (lambda path: path.unlink(), "There is no file .*adapter.safetensors: give the adapter"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read as safetensors"),
    "truncated": (lambda path: path.write_bytes(path.read_bytes()[:-9]), "cannot be read as safetensors"),
    "text": (lambda path: path.write_text("no adapter, but a text"), "cannot be read as safetensors"),
    "other tensors": (
        lambda path: save_file({"a": np.zeros(2, "float32")}, path),
        "is not an adapter of keras_vit",
    ),
    "a later format": (
        lambda path: rewritten(path, format="keras_vit.lora.2"),
        "is not an adapter of keras_vit",
    ),
    "an unknown option": (
        lambda path: rewritten(path, vit_config=configured(path, unknown=1)),
        "is not an adapter that this version reads",
    ),
    "a billion blocks": (
        lambda path: rewritten(path, vit_config=configured(path, depth=10**9)),
        "is for a ViT with depth=1000000000: load the weights",
    ),
    "a huge head": (
        lambda path: rewritten(path, vit_config=configured(path, head_hidden_dim=10**10)),
        r"claims a ViT of [\d,]{11,} parameters in 2 blocks, and has",
    ),
    "a list as config": (
        lambda path: rewritten(path, vit_config="[1]"),
        "is not an adapter that this version reads",
    ),
    "a scale of no layer": (
        lambda path: rewritten(path, {**load_file(path), **STRANGE}, scales='{"x": 1.0}'),
        "is damaged, it has additions to an unknown x: restore it",
    ),
    "no config": (lambda path: rewritten(path, vit_config="{"), "is not an adapter that this version reads"),
    "no factor": (
        lambda path: drop(path, "block_1/mlp/expand/lora_kernel_b"),
        "is damaged, it lacks block_1/mlp/expand/lora_kernel_b: restore it",
    ),
    "no head": (lambda path: drop(path, "head/bias"), "is damaged, it lacks head/bias: restore it"),
    "another shape of the head": (
        lambda path: transpose(path, "head/kernel"),
        r"is damaged, head/kernel should be \(8, 3\).* Received: \(3, 8\)",
    ),
    "another shape of a factor": (
        lambda path: transpose(path, "block_0/attention/qkv/lora_kernel_a"),
        r"is damaged, block_0/attention/qkv/lora_kernel_a does not fit",
    ),
}


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("name", DAMAGED)
def test_a_damaged_file_is_refused(trained, name):
    base, _, path = trained
    damage, message = DAMAGED[name]
    damage(path)
    with pytest.raises(InputError, match=message):
        load_adapter(base, path)


@pytest.mark.same_on_every_backend
def test_a_model_without_additions_has_no_adapter(tmp_path):
    with pytest.raises(ValueError, match="model has no LoRA additions"):
        save_adapter(small_vit(), tmp_path / "adapter.safetensors")
    assert list(tmp_path.iterdir()) == []
