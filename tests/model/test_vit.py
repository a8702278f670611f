import dataclasses
import inspect
import json

import keras
import numpy as np
import pytest

from keras_vit import ViT
from keras_vit.errors import InputError
from keras_vit.model.config import ViTConfig
from keras_vit.model.layers.dropout import Dropout
from tests.helpers.checks import random_input, randomize, to_numpy

SMALL = dict(image_shape=(8, 12, 3), num_classes=5, patch_size=4, dim=16, depth=2, num_heads=2, mlp_dim=24)

# Each option of ViT with a value that is not its default, a few at a time; 6 patches.
OPTIONS = {
    "plain": dict(),
    "conv stem, gray": dict(stem="conv", image_shape=(8, 12, 1)),
    "registers, sincos2d, four channels": dict(num_registers=2, position="sincos2d", image_shape=(12, 8, 4)),
    "gap, swiglu, hidden head": dict(pooling="gap", activation="swiglu", head_hidden_dim=8, dropout_rate=0.1),
    "map, registers, qk norm": dict(pooling="map", num_registers=1, qk_norm=True),
    "free head width, no qkv bias": dict(head_dim=12, qkv_bias=False, attention_dropout_rate=0.1),
    "drop path, layer scale, remat": dict(drop_path_rate=0.2, layer_scale=1e-2, remat=True),
    "conv, gap, sincos2d, no class token": dict(stem="conv", pooling="gap", position="sincos2d"),
    "token+gap, registers, pre-norm, no patch bias, quick GELU": dict(
        pooling="token+gap", num_registers=1, pre_norm=True, patch_bias=False, activation="quick_gelu"
    ),
    "distilled, no class position, no biases": dict(
        pooling="token+distilled", class_position=False, projection_bias=False, mlp_bias=False
    ),
    "all, class token, patch norm, norm of the pooled, tanh": dict(
        pooling="all", class_token=True, patch_norm=True, final_norm="pooled", norm_epsilon=1e-5,
        head_hidden_dim=8, head_activation="tanh",
    ),
}  # fmt: skip


def small(**options):
    return ViT(**{**SMALL, **options})


@pytest.fixture(scope="module", params=OPTIONS)
def model(request):
    """One model for all tests of these options, which do not change its weights."""
    keras.utils.set_random_seed(0)
    return randomize(small(**OPTIONS[request.param]), scale=0.1)


@pytest.fixture(scope="module")
def reference():
    keras.utils.set_random_seed(0)
    return ViT.from_variant("defect/4", image_shape=(28, 28, 1), num_classes=6)


def images_of(model, count=4, seed=0):
    return random_input((count, *model.image_shape), seed)


def test_the_parameters_of_the_reference(reference):
    counts = {layer.name: layer.count_params() for layer in reference.layers if layer.count_params()}
    assert counts == {
        "patch_embed": 1_088,
        "add_cls": 64,
        "position_embedding": 3_264 - 64,
        **{f"block_{i}": 82_432 for i in range(6)},
        "norm": 128,
        "head_hidden": 8_320,
        "head": 774,
    }
    assert reference.count_params() == 508_166
    assert {layer.rate for layer in reference.layers if isinstance(layer, Dropout)} == {0.1}


def test_options(model):
    """With any options: logits of the right shape, the same in a second call, and a finite loss in fit."""
    x = images_of(model, 8)
    logits = to_numpy(model(x))
    assert logits.shape == (8, 5)
    assert np.isfinite(logits).all()
    assert np.ptp(logits, axis=0).min() > 1e-4, "the image makes no difference"
    np.testing.assert_array_equal(to_numpy(model(x)), logits)
    np.testing.assert_allclose(to_numpy(model(x[:1])), logits[:1], atol=1e-5)

    before = model.get_weights()
    model = ViT.from_config(model.get_config())
    model.set_weights(before)
    model.compile(
        keras.optimizers.Adam(1e-2, epsilon=1e-12),
        keras.losses.SparseCategoricalCrossentropy(from_logits=True),
        jit_compile=False,
    )
    history = model.fit(x, np.arange(8) % 5, batch_size=4, verbose=0)
    assert np.isfinite(history.history["loss"]).all()
    for weight, old in zip(model.weights, before, strict=True):
        if not weight.path.endswith("key_norm/beta"):  # softmax does not see it
            assert not np.array_equal(to_numpy(weight), old), f"{weight.path} stayed"


@pytest.mark.same_on_every_backend
def test_the_signature_is_that_of_the_config():
    fields = dataclasses.fields(ViTConfig)
    expected = {field.name: field.default for field in fields}
    defaults = {
        name: dataclasses.MISSING if parameter.default is parameter.empty else parameter.default
        for name, parameter in inspect.signature(ViT).parameters.items()
    }
    assert list(defaults) == [*expected, "name", "dtype", "kwargs"]
    assert defaults == {**expected, "name": "vit", "dtype": None, "kwargs": dataclasses.MISSING}
    for field in fields:
        assert f"\n        {field.name}: " in ViT.__doc__
    assert max(map(len, ViT.__doc__.splitlines())) <= 110


@pytest.mark.same_on_every_backend
def test_arguments_by_position_and_of_numpy():
    given = [[8, np.int64(12), 3], np.int64(5), 4, 16, 2, np.int32(2), None, 12, "conv"]
    model = ViT(*given, dropout_rate=np.float32(0.5), name="mine")
    expected = dict(SMALL, mlp_dim=None, head_dim=12, stem="conv", dropout_rate=0.5)
    assert model.config == dataclasses.replace(ViTConfig(**expected), mlp_dim=64)
    assert model.name == "mine"
    assert json.dumps(model.get_config())
    with pytest.raises(AttributeError):
        model.config = None
    with pytest.raises(TypeError, match="num_heads"):
        ViT((8, 12, 3), 5, 4, 16, 2)
    with pytest.raises(TypeError, match="multiple values"):
        ViT((8, 12, 3), 5, 4, 16, 2, 2, image_shape=(8, 12, 3))


def test_config(model):
    config = model.get_config()
    rebuilt = ViT.from_config(json.loads(json.dumps(config)))
    assert rebuilt.get_config() == config
    rebuilt.set_weights(model.get_weights())
    x = images_of(model)
    np.testing.assert_array_equal(to_numpy(rebuilt(x)), to_numpy(model(x)))


def test_file(model, tmp_path):
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras", safe_mode=True)
    assert type(loaded) is ViT
    assert loaded.get_config() == model.get_config()
    x = images_of(model)
    np.testing.assert_array_equal(to_numpy(loaded(x)), to_numpy(model(x)))


def test_features_are_the_input_of_the_head(model):
    x = images_of(model)
    features = model.extractor("features")(x)
    assert tuple(features.shape) == (4, 32 if "+" in model.config.pooling else 16)
    names = [layer.name for layer in model.layers]
    for name in [name for name in names if name.startswith("head")]:
        features = model.get_layer(name)(features)
    np.testing.assert_allclose(to_numpy(features), to_numpy(model(x)), atol=1e-5)


def test_patch_tokens_are_the_normed_patches(model):
    x = images_of(model)
    logits = to_numpy(model(x))
    tokens = to_numpy(model.extractor("patch_tokens")(x))
    assert tokens.shape == (4, model.num_patches, 16)
    assert model.num_patches == 6
    last = to_numpy(keras.Model(model.input, model.get_layer("block_1").output)(x))[:, -6:]
    if model.get_config()["final_norm"] == "tokens":
        last = to_numpy(model.get_layer("norm")(last))
    np.testing.assert_allclose(tokens, last, atol=1e-5)
    if model.get_config()["pooling"] == "gap":
        features = to_numpy(model.extractor("features")(x))
        np.testing.assert_allclose(tokens.mean(axis=1), features, atol=1e-5)
    # An extractor does not change the model.
    np.testing.assert_array_equal(to_numpy(model(x)), logits)


def test_attention_of_each_block(model):
    config = model.get_config()
    x = images_of(model)
    attentions = model.extractor("attention")(x)
    others = {"token": 1, "token+gap": 1, "token+distilled": 2}.get(config["pooling"], 0)
    count = 6 + config["num_registers"] + (others or bool(config["class_token"]))
    assert [tuple(attention.shape) for attention in attentions] == [(4, 2, count, count)] * 2
    for i, attention in enumerate(attentions):
        attention = to_numpy(attention)
        np.testing.assert_allclose(attention.sum(axis=-1), 1, atol=1e-5)
        block = model.get_layer(f"block_{i}")
        by_hand = block.attend(keras.Model(model.input, block.input)(x))[1]
        np.testing.assert_allclose(attention, to_numpy(by_hand), atol=1e-5)


def test_the_attention_in_predict():
    model = randomize(small(), scale=0.1)
    extractor = model.extractor("attention")
    extractor.compile(jit_compile=False)
    x = images_of(model)
    for predicted, called in zip(extractor.predict(x, verbose=0), extractor(x), strict=True):
        np.testing.assert_allclose(predicted, to_numpy(called), atol=1e-5)


def test_extractors_of_a_loaded_model(tmp_path):
    model = randomize(small(num_registers=1), scale=0.1)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    x = images_of(model)
    for name in ("features", "patch_tokens", "attention"):
        ours, theirs = model.extractor(name)(x), loaded.extractor(name)(x)
        for one, other in zip(ours, theirs, strict=True):
            np.testing.assert_array_equal(to_numpy(one), to_numpy(other))


def test_resized_to_the_same_shape_is_a_copy(model):
    new = model.resized(model.image_shape)
    x = images_of(model)
    np.testing.assert_allclose(to_numpy(new(x)), to_numpy(model(x)), atol=1e-4)
    assert new is not model
    new.get_layer("head").bias.assign(np.full(5, 9.0))
    assert abs(to_numpy(new(x)) - to_numpy(model(x))).min() > 1


def test_resized_to_another_grid(model):
    height, width, channels = model.image_shape
    new = model.resized((2 * height, width + 4, channels))
    assert new.image_shape == (2 * height, width + 4, channels)
    assert np.isfinite(to_numpy(new(images_of(new)))).all()
    for layer in model.layers:
        if layer.name != "position_embedding":
            for one, other in zip(layer.get_weights(), new.get_layer(layer.name).get_weights(), strict=True):
                np.testing.assert_allclose(one, other, atol=1e-5)


class Scaled(ViT):
    """A ViT of a user, with an argument of its own."""

    def __init__(self, *args, scale=1.0, **kwargs):
        super().__init__(*args, **kwargs)
        self.scale = scale

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


@pytest.mark.same_on_every_backend
def test_a_subclass_that_is_resized_stays_one():
    given = dict(image_shape=(8, 8, 1), num_classes=2, patch_size=4, dim=8, depth=1, num_heads=2)
    new = Scaled(**given, scale=3.0).resized((8, 12, 1))
    assert type(new) is Scaled
    assert (new.scale, new.image_shape) == (3.0, (8, 12, 1))


def test_resized_patches_see_an_enlarged_image_as_before():
    """With the image and the patches twice as large, the tokens and the logits hardly change."""
    model = randomize(small(image_shape=(16, 16, 1)), scale=0.1)
    new = model.resized((32, 32, 1), patch_size=8)
    assert new.num_patches == model.num_patches
    # Patches are constant, so their edges do not matter when the image is enlarged.
    x = np.kron(random_input((4, 4, 4)), np.ones((4, 4))).astype("float32")[..., None]
    enlarged = np.kron(x[..., 0], np.ones((2, 2))).astype("float32")[..., None]
    np.testing.assert_allclose(to_numpy(new(enlarged)), to_numpy(model(x)), atol=1e-3)


@pytest.mark.parametrize("dtype", ["mixed_bfloat16", "mixed_float16"])
@pytest.mark.parametrize(
    "options",
    [
        dict(),
        dict(stem="conv", pooling="map", qk_norm=True),
        dict(
            patch_norm=True, pre_norm=True, pooling="token+gap", final_norm="pooled", activation="gelu_tanh"
        ),
        dict(pooling="token+distilled", activation="quick_gelu", head_hidden_dim=8, head_activation="tanh"),
    ],
    ids=str,
)
def test_half_precision_gives_float32_logits(dtype, options):
    full = randomize(small(**options), scale=0.1)
    half = small(**options, dtype=dtype)
    assert half.get_config()["dtype"] == dtype
    assert {weight.dtype for weight in half.weights} == {"float32"}
    half.set_weights(full.get_weights())
    x = images_of(full)
    logits, expected = half(x), to_numpy(full(x))
    assert keras.backend.standardize_dtype(logits.dtype) == "float32"
    assert np.linalg.norm(to_numpy(logits) - expected) < 0.05 * np.linalg.norm(expected)
    assert abs(to_numpy(logits) - expected).max() > 1e-6, "computed in float32"


def test_the_global_policy_is_followed():
    keras.config.set_dtype_policy("mixed_bfloat16")
    model = small()
    assert model.get_config()["dtype"] == "mixed_bfloat16"
    assert model.get_layer("block_1").mlp.expand.compute_dtype == "bfloat16"
    assert ViT.from_config(model.get_config()).get_layer("block_1").compute_dtype == "bfloat16"


def test_drop_path_grows_with_depth():
    model = small(depth=5, drop_path_rate=0.2)
    rates = [model.get_layer(f"block_{i}").drop_path.rate for i in range(5)]
    assert rates == pytest.approx([0, 0.05, 0.1, 0.15, 0.2])


def test_a_vit_is_functional_and_fits_into_another_model():
    model = randomize(small(), scale=0.1)
    images = keras.Input(SMALL["image_shape"])
    probabilities = keras.layers.Softmax()(model(images))
    around = keras.Model(images, probabilities)
    x = images_of(model)
    np.testing.assert_allclose(to_numpy(around(x)).sum(axis=-1), 1, atol=1e-5)
    np.testing.assert_array_equal(to_numpy(around(x)).argmax(1), to_numpy(model(x)).argmax(1))
    assert [layer.name for layer in model.layers][:4] == [
        "images",
        "patch_embed",
        "add_cls",
        "position_embedding",
    ]


WRONG = [
    (
        dict(image_shape=(28, 28)),
        "image_shape must be a list of 3 whole numbers. Received: image_shape=(28, 28)",
    ),
    (dict(image_shape=28), "image_shape must be a list of 3 whole numbers. Received: image_shape=28"),
    (dict(image_shape=(10, 12, 3)), "patch_size must divide the height and the width of the image."),
    (dict(image_shape=(8, 14, 3)), "Received: patch_size=4, image 8x14"),
    (dict(patch_size=0), "patch_size must be 1 or more. Received: patch_size=0"),
    (dict(dim=0), "dim must be 1 or more. Received: dim=0"),
    (dict(num_classes=-1), "num_classes must be 0 or more. Received: num_classes=-1"),
    (dict(depth=0), "depth must be 1 or more. Received: depth=0"),
    (dict(depth="8"), "depth must be a whole number. Received: depth='8'"),
    (dict(num_heads=3), "num_heads must divide dim, unless head_dim is given. Received: num_heads=3, dim=16"),
    (dict(num_heads=0), "num_heads must be 1 or more. Received: num_heads=0"),
    (dict(num_heads=3, head_dim=8, pooling="map"), "num_heads must divide dim in attention pooling."),
    (dict(mlp_dim=-1), "mlp_dim must be 1 or more. Received: mlp_dim=-1"),
    (dict(stem="cnn"), "stem must be one of 'linear', 'conv', 'conv-pool'. Received: stem='cnn'"),
    (dict(num_registers=-1), "num_registers must be 0 or more. Received: num_registers=-1"),
    (dict(num_registers=-1, pooling="gap"), "num_registers must be 0 or more. Received: num_registers=-1"),
    (dict(position="x"), "position must be one of 'learned', 'sincos2d'. Received: position='x'"),
    (dict(pooling="cls"), "pooling must be one of 'token', 'gap', 'map', 'token+gap', "),
    (dict(activation="elu"), "activation must be one of 'gelu', "),
    (dict(class_token=False), 'pooling="token" needs a class token. Received: class_token=False'),
    (dict(norm_epsilon=0.1), "norm_epsilon must be above 0.0 and 0.01 at most. Received: norm_epsilon=0.1"),
    (dict(stem="conv", patch_norm=True), 'patch_norm=True and patch_bias=False are for stem="linear".'),
    (dict(remat=True, dropout_rate=0.1), "use drop_path_rate instead. Received: dropout_rate=0.1"),
    (dict(dropout_rate=1.5), "dropout_rate must be 0.0 or more and below 1.0. Received: dropout_rate=1.5"),
]


@pytest.mark.parametrize(("options", "message"), WRONG, ids=lambda value: str(value)[:40])
def test_wrong_arguments(options, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the text is compared below)
        small(**options)
    assert message in str(caught.value)


def test_wrong_calls():
    model = small()
    with pytest.raises(TypeError, match=r"ViT\(\) got an unexpected keyword argument 'droput_rate'"):
        small(droput_rate=0.1)
    with pytest.raises(ValueError, match=r"what must be one of .* Received: what='logits'"):
        model.extractor("logits")
    with pytest.raises(ValueError, match=r"The channels must stay 3. Received: image_shape=\(8, 12, 1\)"):
        model.resized((8, 12, 1))
    with pytest.raises(ValueError, match="patch_size must divide the height and the width"):
        model.resized((9, 12, 3))
    with pytest.raises(ValueError, match=r"A conv stem is made for its patch_size=4. Received: 8"):
        small(stem="conv").resized((8, 16, 3), patch_size=8)
    with pytest.raises(ValueError, match=r"the weights are made for patch_size=4. Received: 8"):
        small(patch_norm=True).resized((8, 16, 3), patch_size=8)
    with pytest.raises(InputError, match="The model must be a size and a patch size"):
        ViT.from_variant("base", image_shape=(8, 8, 1), num_classes=2)


def test_a_file_with_code_in_it_is_not_loaded(tmp_path):
    """Safe mode stays on for a model that contains a Lambda layer and a ViT."""
    images = keras.Input(SMALL["image_shape"])
    hidden = keras.layers.Lambda(lambda x: x * 2, output_shape=SMALL["image_shape"])(images)
    keras.Model(images, small()(hidden)).save(tmp_path / "model.keras")
    with pytest.raises(ValueError, match="safe_mode"):
        keras.saving.load_model(tmp_path / "model.keras")
