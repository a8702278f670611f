"""The options that published weights need: each against NumPy, from the tokens of the layer before."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_vit import ViT
from tests.helpers.checks import gelu, layer_norm, random_input, randomize, to_numpy

SMALL = dict(image_shape=(8, 12, 3), num_classes=5, patch_size=4, dim=16, depth=2, num_heads=2, mlp_dim=24)


def small(**options):
    keras.utils.set_random_seed(0)
    return randomize(ViT(**{**SMALL, **options}), scale=0.1)


def images(model, seed=0):
    return random_input((3, *model.image_shape), seed)


def output_of(model, name, x):
    """The output of a layer of the model."""
    return to_numpy(keras.Model(model.input, model.get_layer(name).output)(x))


# What each pooling gives, of (batch, class token + distillation token + registers + 6 patches, dim).
POOLED = {
    "token": lambda x, first: x[:, 0],
    "gap": lambda x, first: x[:, first:].mean(axis=1),
    "all": lambda x, first: x.mean(axis=1),
    "token+gap": lambda x, first: np.concatenate([x[:, 0], x[:, first:].mean(axis=1)], axis=1),
    "token+distilled": lambda x, first: np.concatenate([x[:, 0], x[:, 1]], axis=1),
}
CASES = [
    ("token", dict(), 1),
    ("gap", dict(), 0),
    ("gap", dict(class_token=True, num_registers=2), 3),
    ("all", dict(), 0),
    ("all", dict(class_token=True, num_registers=2), 3),
    ("token+gap", dict(), 1),
    ("token+gap", dict(num_registers=2), 3),
    ("token+distilled", dict(num_registers=1), 3),
]


@pytest.mark.parametrize("final_norm", ["tokens", "pooled", "none"])
@pytest.mark.parametrize(("pooling", "options", "first"), CASES, ids=str)
def test_what_the_head_sees(pooling, options, first, final_norm):
    model = small(pooling=pooling, final_norm=final_norm, **options)
    x = images(model)
    tokens = output_of(model, "block_1", x)
    assert tokens.shape == (3, first + 6, 16)
    assert model.config.num_first_tokens == first
    pool = POOLED[pooling]
    if final_norm == "none":
        expected = pool(tokens, first)
        assert "norm" not in [layer.name for layer in model.layers]
    else:
        norm = model.get_layer("norm").get_weights()
        if final_norm == "tokens":
            expected = pool(layer_norm(tokens, *norm), first)
        else:
            expected = layer_norm(pool(tokens, first), *norm)
    np.testing.assert_allclose(to_numpy(model.extractor("features")(x)), expected, atol=1e-5)
    kernel, bias = model.get_layer("head").get_weights()
    np.testing.assert_allclose(to_numpy(model(x)), expected @ kernel + bias, atol=1e-5)
    patches = tokens[:, first:]
    if final_norm == "tokens" or (final_norm == "pooled" and pooling == "token"):
        patches = layer_norm(patches, *norm)
    np.testing.assert_allclose(to_numpy(model.extractor("patch_tokens")(x)), patches, atol=1e-5)


@pytest.mark.parametrize("final_norm", ["tokens", "pooled", "none"])
def test_attention_pooling_sees_patches_only(final_norm):
    model = small(pooling="map", class_token=True, num_registers=1, final_norm=final_norm)
    x = images(model)
    patches = output_of(model, "block_1", x)[:, 2:]
    if final_norm == "tokens":
        patches = layer_norm(patches, *model.get_layer("norm").get_weights())
    expected = to_numpy(model.get_layer("pool")(ops.convert_to_tensor(patches.astype("float32"))))
    if final_norm == "pooled":
        expected = layer_norm(expected, *model.get_layer("norm").get_weights())
    np.testing.assert_allclose(to_numpy(model.extractor("features")(x)), expected, atol=1e-5)


@pytest.mark.parametrize(
    ("activation", "expected"),
    [("gelu", "gelu"), ("gelu_tanh", "gelu_tanh"), ("relu", "relu"), ("silu", "silu"), ("swiglu", "gelu")],
)
def test_the_activation_of_attention_pooling_is_that_of_the_blocks(activation, expected):
    model = ViT(**SMALL, pooling="map", activation=activation, norm_epsilon=1e-5)
    assert model.get_layer("block_0").mlp.activation == activation
    pool = model.get_layer("pool")
    assert (pool.mlp.activation, pool.norm.epsilon) == (expected, 1e-5)


def test_norm_before_the_first_block():
    model = small(pre_norm=True, norm_epsilon=1e-5, num_registers=1, dropout_rate=0.1)
    x = images(model)
    tokens = output_of(model, "position_embedding", x)
    expected = layer_norm(tokens, *model.get_layer("pre_norm").get_weights(), 1e-5)
    before = keras.Model(model.input, model.get_layer("block_0").input)(x)
    np.testing.assert_allclose(to_numpy(before), expected, atol=1e-5)
    # The order of timm: positions, dropout, norm.
    names = [layer.name for layer in model.layers]
    start = names.index("position_embedding")
    assert names[start : start + 4] == ["position_embedding", "embedding_dropout", "pre_norm", "block_0"]


@pytest.mark.parametrize(("activation", "formula"), [("gelu", gelu), ("tanh", np.tanh)])
def test_the_hidden_layer_of_the_head(activation, formula):
    model = small(head_hidden_dim=8, head_activation=activation)
    x = images(model)
    features = to_numpy(model.extractor("features")(x))
    (kernel, bias), (out, out_bias) = (
        model.get_layer(name).get_weights() for name in ("head_hidden", "head")
    )
    expected = formula(features @ kernel + bias) @ out + out_bias
    np.testing.assert_allclose(to_numpy(model(x)), expected, atol=1e-5)


@pytest.mark.parametrize(
    "options",
    [dict(), dict(pooling="map"), dict(patch_norm=True), dict(pre_norm=True), dict(qk_norm=True)],
    ids=str,
)
def test_the_epsilon_is_that_of_every_layer_normalisation(options):
    model = ViT(**SMALL, **options, norm_epsilon=1e-4)
    norms = [layer for layer in model._flatten_layers() if isinstance(layer, keras.layers.LayerNormalization)]
    extra = {"pooling": 1, "patch_norm": 2, "pre_norm": 1, "qk_norm": 4}
    assert len(norms) == 5 + sum(extra[name] for name in options)
    assert {norm.epsilon for norm in norms} == {1e-4}


def test_the_epsilon_matters_at_small_activations():
    """Of tokens of size 0.02, 1e-5 in place of 1e-6 changes the normalised values by a hundredth."""
    tokens, outputs = 0.02 * random_input((3, 7, 16)), []
    for epsilon in (1e-6, 1e-5):
        norm = small(norm_epsilon=epsilon, depth=1).get_layer("block_0").attention_norm
        outputs.append(to_numpy(norm(ops.convert_to_tensor(tokens))))
        np.testing.assert_allclose(outputs[-1], layer_norm(tokens, *norm.get_weights(), epsilon), atol=1e-5)
    assert abs(outputs[0] - outputs[1]).max() > 1e-3


@pytest.mark.parametrize("dtype", [None, "mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize("options", [dict(), dict(pooling="token+gap", head_hidden_dim=8)], ids=str)
def test_a_model_without_a_head_returns_float32_features(options, dtype, tmp_path):
    whole = small(**options, dtype=dtype)
    model = ViT.from_config({**whole.get_config(), "num_classes": 0})
    assert not [weight.path for weight in model.weights if weight.path.startswith("head")]
    weights = {weight.path: weight for weight in whole.weights}
    for weight in model.weights:
        weight.assign(weights[weight.path])
    x = images(model)
    features = model(x)
    assert keras.backend.standardize_dtype(features.dtype) == "float32"
    assert tuple(features.shape) == (3, model.config.feature_width)
    np.testing.assert_array_equal(to_numpy(features), to_numpy(whole.extractor("features")(x)))
    np.testing.assert_array_equal(to_numpy(model.extractor("features")(x)), to_numpy(features))
    model.save(tmp_path / "model.keras")
    np.testing.assert_array_equal(
        to_numpy(keras.saving.load_model(tmp_path / "model.keras")(x)), to_numpy(features)
    )
    assert model.resized((16, 12, 3)).output_shape == (None, model.config.feature_width)


@pytest.mark.parametrize("patch_bias", [True, False])
@pytest.mark.parametrize(
    "options",
    [
        dict(class_position=False),
        dict(pooling="token+distilled", num_registers=1),
        dict(pooling="token+distilled", class_position=False),
        dict(pooling="gap", class_token=True),
    ],
    ids=str,
)
def test_resized_keeps_the_rows_of_the_first_tokens(options, patch_bias):
    model = small(**options, image_shape=(16, 16, 1), patch_bias=patch_bias)
    table = model.get_layer("position_embedding").get_weights()[0]
    rows = table.shape[1] - 16
    assert rows == (0 if not model.config.class_position else 1 + model.config.use_distilled)
    new = model.resized((32, 32, 1))
    new_table = new.get_layer("position_embedding").get_weights()[0]
    assert new_table.shape == (1, rows + 64, 16)
    np.testing.assert_array_equal(new_table[:, :rows], table[:, :rows])
    np.testing.assert_array_equal(
        new.get_layer("add_cls").get_weights()[0], model.get_layer("add_cls").tokens
    )
    # With the patches as large, the tokens hardly change, see test_vit.
    new = model.resized((32, 32, 1), patch_size=8)
    x = np.kron(random_input((4, 4, 4)), np.ones((4, 4))).astype("float32")[..., None]
    enlarged = np.kron(x[..., 0], np.ones((2, 2))).astype("float32")[..., None]
    np.testing.assert_allclose(to_numpy(new(enlarged)), to_numpy(model(x)), atol=1e-3)


def test_resized_copies_the_patch_norms():
    model = small(patch_norm=True)
    new = model.resized((16, 24, 3))
    ours, theirs = (one.get_layer("patch_embed").get_weights() for one in (model, new))
    assert [weight.shape for weight in ours] == [(48,), (48,), (48, 16), (16,), (16,), (16,)]
    for one, other in zip(ours, theirs, strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.same_on_every_backend
def test_the_weights_of_each_option():
    """Paths that weights of other packages are loaded by, beside those of the plain model."""
    plain = {weight.path: tuple(weight.shape) for weight in ViT(**SMALL).weights}

    def changed(**options):
        now = {weight.path: tuple(weight.shape) for weight in ViT(**{**SMALL, **options}).weights}
        return (
            {path: shape for path, shape in now.items() if plain.get(path) != shape},
            sorted(plain.keys() - now.keys()),
        )

    blocks = [f"block_{i}" for i in range(2)]
    assert changed(pre_norm=True) == ({"pre_norm/gamma": (16,), "pre_norm/beta": (16,)}, [])
    assert changed(patch_bias=False) == ({}, ["patch_embed/projection/bias"])
    assert changed(projection_bias=False) == ({}, [f"{block}/attention/projection/bias" for block in blocks])
    assert changed(mlp_bias=False) == (
        {},
        [f"{block}/mlp/{name}/bias" for block in blocks for name in ("contract", "expand")],
    )
    assert changed(patch_norm=True) == (
        {
            "patch_embed/patch_norm/gamma": (48,),
            "patch_embed/patch_norm/beta": (48,),
            "patch_embed/embedding_norm/gamma": (16,),
            "patch_embed/embedding_norm/beta": (16,),
        },
        [],
    )
    assert changed(final_norm="pooled") == ({}, [])
    assert changed(final_norm="none") == ({}, ["norm/beta", "norm/gamma"])
    assert changed(class_position=False) == ({"position_embedding/table": (1, 6, 16)}, [])
    assert changed(num_classes=0) == ({}, ["head/bias", "head/kernel"])
    assert changed(pooling="token+gap") == ({"head/kernel": (32, 5)}, [])
    assert changed(pooling="token+gap", final_norm="pooled") == (
        {"norm/gamma": (32,), "norm/beta": (32,), "head/kernel": (32, 5)},
        [],
    )
    assert changed(pooling="token+distilled") == (
        {"add_cls/tokens": (1, 2, 16), "position_embedding/table": (1, 8, 16), "head/kernel": (32, 5)},
        [],
    )
    assert changed(pooling="all", class_token=True) == ({}, [])
