"""A `ViT` behaves as the backbones of KerasHub in what their tests check, quantization included."""

import keras
import numpy as np
import pytest

from keras_vit import EncoderBlock, PatchEmbed, ViT
from keras_vit.errors import InputError
from keras_vit.model.weights.read import read_weights
from tests.helpers.checks import predict, random_input, randomize, to_numpy
from tests.helpers.model_checks import (
    as_text,
    check_calls,
    check_file,
    check_precision,
    check_quantization,
    check_serialization,
    every_layer,
)

# Of layers that have no `quantize`: Keras tells it of its own too.
pytestmark = pytest.mark.filterwarnings("ignore:Layer .* does not have a .quantize. method implemented")

SMALL = dict(image_shape=(8, 12, 1), num_classes=3, patch_size=4, dim=8, depth=1, num_heads=2)
VITS = {
    "token": dict(),
    "map, conv stem, hidden head": dict(pooling="map", stem="conv", head_hidden_dim=8, layer_scale=0.1),
    "no head, registers, swiglu": dict(
        num_classes=0, num_registers=2, activation="swiglu", qk_norm=True, patch_norm=True
    ),
}
X = random_input((3, 8, 12, 1))


def once(*values):
    """A case that one backend tries for all."""
    return pytest.param(*values, marks=pytest.mark.same_on_every_backend)


def vit(name="token", **options):
    return randomize(ViT(**{**SMALL, **VITS[name], **options}), scale=0.1)


@pytest.mark.parametrize(
    "name", [once("token"), "map, conv stem, hidden head", once("no head, registers, swiglu")]
)
def test_as_a_backbone(name, tmp_path):
    model = vit(name)
    check_serialization(model)
    check_calls(model, X)
    check_file(model, tmp_path, X)


@pytest.mark.parametrize("policy", ["mixed_bfloat16", *map(once, ("mixed_float16", "bfloat16", "float32"))])
def test_precision(policy):
    model = vit("map, conv stem, hidden head", dtype=policy)
    check_precision(model, policy, in_float32={"head"})
    assert model.get_config()["dtype"] == policy
    check_serialization(model)


@pytest.mark.parametrize(
    ("name", "mode"),
    [
        ("token", "int8"),
        once("map, conv stem, hidden head", "int8"),
        once("no head, registers, swiglu", "int4"),
        once("token", "float8"),
    ],
)
def test_quantization(name, mode, tmp_path):
    check_quantization(vit(name), mode, tmp_path)


@pytest.mark.same_on_every_backend
def test_a_quantized_model_goes_on(tmp_path):
    """Parts that are quantized with options, and frozen, are so after two copies; it resizes and trains."""
    model = vit(depth=2)
    options = keras.quantizers.Int8QuantizationConfig(activation_quantizer=None)
    model.quantize(config=options, filters="qkv")
    model.get_layer("block_0").trainable = False
    loaded = check_file(check_file(model, tmp_path, X), tmp_path, X)
    assert sum(layer.quantization_mode == "int8" for layer in every_layer(loaded)) == 2
    assert loaded.get_layer("block_1").attention.qkv.inputs_quantizer is None
    larger = loaded.resized((16, 12, 1))
    assert to_numpy(larger(random_input((2, 16, 12, 1)))).shape == (2, 3)
    loaded.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True), run_eagerly=True)
    history = loaded.fit(X, np.arange(3), verbose=0)
    assert np.isfinite(history.history["loss"]).all()


@pytest.mark.same_on_every_backend
def test_a_quantized_embedding_keeps_its_patches():
    model = vit()
    model.quantize("int8")
    with pytest.raises(ValueError, match="patch embedding is quantized or has LoRA: resize the model before"):
        model.resized((16, 24, 1), 8)


def test_a_quantized_model_by_hand(tmp_path):
    inputs = keras.Input((8, 12, 1))
    model = keras.Model(inputs, EncoderBlock(2, 12)(PatchEmbed(8, 4)(inputs)))
    model.quantize("int8")
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(predict(loaded, X), predict(model, X), atol=1e-5)
    clone = keras.models.clone_model(model)
    clone.set_weights(model.get_weights())
    np.testing.assert_allclose(predict(clone, X), predict(model, X), atol=1e-5)


@pytest.mark.same_on_every_backend
def test_a_quantized_file_is_no_source_of_weights(tmp_path):
    model = vit()
    model.quantize("int8")
    model.save(tmp_path / "model.keras")
    with pytest.raises(InputError, match="is a quantized model: give the model that it was before quantize"):
        read_weights(tmp_path / "model.keras")


def policy_map(default="mixed_bfloat16", **given):
    """A map by path; `None` is the default of Keras, the global policy."""
    found = keras.dtype_policies.DTypePolicyMap(default)
    for path, policy in given.items():
        found[path.replace("__", "/")] = policy
    return found


@pytest.mark.same_on_every_backend
def test_a_policy_map(tmp_path):
    """Each layer has the policy of its path, in copies too, and the map of the user stays as it is."""
    given = policy_map(
        None,
        block_0__attention__qkv="mixed_bfloat16",
        block_1="bfloat16",
        pool__mlp="bfloat16",
        head="mixed_bfloat16",
    )
    model = vit(dtype=given, depth=2, pooling="map")
    for copied in (model, check_file(model, tmp_path, X), ViT.from_config(model.get_config())):
        dtypes = {layer.path: (layer.compute_dtype, layer.variable_dtype) for layer in every_layer(copied)}
        assert dtypes["block_0/attention/qkv"] == dtypes["head"] == ("bfloat16", "float32")
        assert dtypes["block_1"] == ("bfloat16", "bfloat16")
        assert dtypes["block_0/mlp/expand"] == ("float32", "float32")
    assert len(given) == 4
    assert given["block_1"].name == "bfloat16"
    check_serialization(model)


def test_a_policy_map_of_patterns(tmp_path):
    model = vit(dtype=policy_map("float32", **{"block_.*/mlp/.*": "mixed_bfloat16"}), depth=2)
    loaded = check_file(model, tmp_path, X)
    found = {layer.path for layer in every_layer(loaded) if layer.compute_dtype == "bfloat16"}
    assert {"block_0/mlp/expand", "block_1/mlp/contract"} <= found
    assert not {"block_0/mlp", "block_0/attention/qkv", "head"} & found


def test_the_head_is_in_float32_unless_the_map_names_it():
    assert vit(dtype=policy_map("mixed_bfloat16")).output.dtype == "float32"
    assert vit(dtype=policy_map("mixed_bfloat16", head="bfloat16")).output.dtype == "bfloat16"


def test_a_policy_map_of_a_layer(tmp_path):
    block = EncoderBlock(2, 12, dtype=policy_map(None, block__attention__qkv="mixed_bfloat16"), name="block")
    inputs = keras.Input((5, 8))
    model = keras.Model(inputs, block(inputs))
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras").get_layer("block")
    assert loaded.attention.qkv.compute_dtype == "bfloat16"
    assert loaded.mlp.expand.compute_dtype == "float32"


@pytest.mark.same_on_every_backend
def test_a_policy_map_that_quantizes(tmp_path):
    """Before the weights are made, as KerasHub loads a quantized preset; and after, with a map around it."""
    model = vit(dtype=policy_map("float32", block_0__attention__qkv="int8_from_float32"))
    assert model.get_layer("block_0").attention.qkv.kernel.dtype == "int8"
    check_file(model, tmp_path, X)
    model = vit(dtype=policy_map("float32", block_0__mlp="mixed_bfloat16"))
    model.quantize("int8", config=keras.quantizers.Int8QuantizationConfig(activation_quantizer=None))
    loaded = check_file(model, tmp_path, X)
    assert loaded.get_layer("block_0").attention.qkv.inputs_quantizer is None
    as_text(loaded.get_config(), model.get_config())


@pytest.mark.same_on_every_backend
def test_a_quantized_policy_for_all_layers_is_refused():
    for kind, given in ((ViT, SMALL), (EncoderBlock, dict(num_heads=2, mlp_dim=8))):
        with pytest.raises(InputError, match=r'int8_from_float32.* call .*quantize."int8"'):
            kind(**given, dtype="int8_from_float32")
        with pytest.raises(InputError, match="int8_from_float32"):
            kind(**given, dtype=policy_map("int8_from_float32"))


@pytest.mark.same_on_every_backend
def test_a_global_policy_map():
    keras.config.set_dtype_policy(policy_map("float32", block_0__mlp__expand="mixed_bfloat16"))
    model = ViT(**SMALL)
    copied = ViT.from_config(model.get_config())
    assert copied.get_layer("block_0").mlp.expand.compute_dtype == "bfloat16"
