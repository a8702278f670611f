"""`trainable=False` holds for all layers inside, whenever they are made, and in every copy."""

import copy
import json
import pickle

import keras
import numpy as np
import pytest

from keras_vit import (
    MLP,
    AddCLS,
    AttentionPool,
    EncoderBlock,
    PatchEmbed,
    PositionEmbedding,
    SelfAttention,
    ViT,
)
from keras_vit.model.layers.layer_scale import LayerScale
from keras_vit.model.layers.parts import parts_of
from tests.helpers.checks import random_input, to_numpy

SMALL = dict(image_shape=(8, 8, 1), num_classes=3, patch_size=4, dim=8, depth=2, num_heads=2)
TOKENS, IMAGES = (2, 5, 8), (2, 8, 8, 1)
X = random_input((4, *IMAGES[1:]))

LAYERS = {
    "block": (EncoderBlock, dict(num_heads=2, mlp_dim=12, layer_scale=0.1, qk_norm=True), TOKENS),
    "attention": (SelfAttention, dict(num_heads=2, qk_norm=True), TOKENS),
    "mlp": (MLP, dict(mlp_dim=12), TOKENS),
    "pool": (AttentionPool, dict(num_heads=2, mlp_dim=12), TOKENS),
    "patches": (PatchEmbed, dict(dim=8, patch_size=4, patch_norm=True), IMAGES),
    "conv stem": (PatchEmbed, dict(dim=8, patch_size=4, stem="conv"), IMAGES),
    "positions": (PositionEmbedding, dict(grid=(2, 2)), TOKENS),
    "first tokens": (AddCLS, {}, TOKENS),
    "scale": (LayerScale, {}, TOKENS),
}


def in_model(layer, shape):
    """Keras asks the weights, not the layers around them, whether they are trained."""
    inputs = keras.Input(shape[1:])
    return keras.Model(inputs, layer(inputs))


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_that_is_made_frozen(name, tmp_path):
    kind, given, shape = LAYERS[name]
    model = in_model(kind(**given, trainable=False), shape)
    assert model.trainable_weights == []
    assert saved(model, tmp_path / "model.keras").trainable_weights == []
    assert keras.models.clone_model(model).trainable_weights == []
    model.layers[-1].trainable = True
    assert len(model.trainable_weights) == len(in_model(kind(**given), shape).trainable_weights)


@pytest.mark.parametrize("name", LAYERS)
def test_a_layer_that_is_frozen_before_it_is_built(name):
    kind, given, shape = LAYERS[name]
    layer = kind(**given)
    layer.trainable = False
    copied = kind.from_config(layer.get_config())
    assert in_model(layer, shape).trainable_weights == in_model(copied, shape).trainable_weights == []


def saved(model, path):
    model.save(path)
    return keras.saving.load_model(path)


def by_config(model):
    config = json.loads(json.dumps(model.get_config()))
    return type(model).from_config(config)


COPIES = {
    "config": lambda model, folder: by_config(model),
    "file": lambda model, folder: saved(model, folder / "model.keras"),
    "clone": lambda model, folder: keras.models.clone_model(model),
    "pickle": lambda model, folder: pickle.loads(pickle.dumps(model)),
    "deepcopy": lambda model, folder: copy.deepcopy(model),
    "twice": lambda model, folder: saved(by_config(model), folder / "again.keras"),
}
OF_VIT = {
    **COPIES,
    "resized": lambda model, folder: model.resized((16, 8, 1)),
    "h5": lambda model, folder: saved(model, folder / "model.h5"),
    "arguments": lambda model, folder: ViT(**model.get_config()),
}


def all_but_the_head(model):
    for layer in model.layers[:-1]:
        layer.trainable = False


def one_attention(model):
    model.get_layer("block_1").attention.trainable = False


def one_kernel(model):
    model.get_layer("block_0").attention.qkv.trainable = False


def all_but_one_norm(model):
    model.trainable = False
    model.trainable = True
    for layer in model.layers:
        layer.trainable = False
    model.get_layer("block_1").trainable = True
    model.get_layer("block_1").mlp.trainable = False
    model.get_layer("block_1").mlp.expand.trainable = True


def nothing_is_trained(model):
    model.trainable = False


def frozen_with_an_exception(model):
    model.trainable = False
    model.get_layer("block_1").mlp.trainable = True


FREEZE = [
    all_but_the_head, one_attention, one_kernel, all_but_one_norm, nothing_is_trained,
    frozen_with_an_exception,
]  # fmt: skip


def flags(model):
    """Of every variable, and of the model: what an outer model and `fit` of this one would train."""
    return model.trainable, {weight.path: weight.trainable for weight in model.weights}


@pytest.mark.parametrize("freeze", FREEZE, ids=lambda freeze: freeze.__name__)
def test_a_copy_of_a_config_keeps_the_flags(freeze, tmp_path):
    model = ViT(**SMALL)
    freeze(model)
    for copied in (by_config(model), OF_VIT["file"](model, tmp_path)):
        assert flags(copied) == flags(model)
        assert copied.get_config() == model.get_config()


@pytest.mark.parametrize("kind", OF_VIT)
def test_every_kind_of_copy_keeps_the_flags(kind, tmp_path):
    model = ViT(**SMALL, stem="conv", pooling="map", head_hidden_dim=8)
    model.get_layer("patch_embed").norms[0].trainable = False
    model.get_layer("block_0").trainable = False
    model.get_layer("pool").mlp.trainable = False
    model.get_layer("head_hidden").trainable = False
    copied = OF_VIT[kind](model, tmp_path)
    assert flags(copied) == flags(model)


def sequential():
    return keras.Sequential(
        [
            keras.Input((8, 8, 1)),
            PatchEmbed(8, 4),
            EncoderBlock(2, 12),
            EncoderBlock(2, 12),
            keras.layers.Dense(2),
        ]
    )


def functional():
    inputs = keras.Input((8, 8, 1))
    x = PatchEmbed(8, 4)(inputs)
    for name in ("first", "second"):
        x = EncoderBlock(2, 12, name=name)(x)
    return keras.Model(inputs, keras.layers.Dense(2)(x))


@keras.saving.register_keras_serializable(package="keras_vit_tests")
class Subclassed(keras.Model):
    """The blocks are built by the first call, and when a file is loaded."""

    def __init__(self, first=None, second=None):
        super().__init__()
        self.patches = PatchEmbed(8, 4)
        self.first = first or EncoderBlock(2, 12)
        self.second = second or EncoderBlock(2, 12)

    def call(self, x):
        return self.second(self.first(self.patches(x)))

    def get_config(self):
        return {
            name: keras.saving.serialize_keras_object(getattr(self, name)) for name in ("first", "second")
        }

    @classmethod
    def from_config(cls, config):
        return cls(**{name: keras.saving.deserialize_keras_object(one) for name, one in config.items()})


def blocks_of(model):
    found = [model.first, model.second] if isinstance(model, Subclassed) else model.layers
    return [layer for layer in found if isinstance(layer, EncoderBlock)]


@pytest.mark.parametrize("copies", ["file", "clone", "pickle", "deepcopy", "twice"])
@pytest.mark.parametrize("make", [sequential, functional])
def test_models_by_hand(make, copies, tmp_path):
    model = make()
    first, second = blocks_of(model)
    first.trainable = False
    second.attention.trainable = False
    copied = COPIES[copies](model, tmp_path)
    assert len(copied.trainable_weights) == len(model.trainable_weights)
    assert [parts_of(block) for block in blocks_of(copied)] == [{}, {"attention": {"trainable": False}}]


def test_a_subclassed_model(tmp_path):
    model = Subclassed()
    model(X)
    model.first.trainable = False
    model.second.mlp.contract.trainable = False
    loaded = saved(model, tmp_path / "model.keras")
    assert not loaded.first.trainable
    assert parts_of(loaded.second) == {"mlp/contract": {"trainable": False}}
    assert len(loaded.trainable_weights) == len(model.trainable_weights)


def test_a_vit_in_another_model(tmp_path):
    inner = ViT(**{**SMALL, "num_classes": 0})
    one_attention(inner)
    inputs = keras.Input(SMALL["image_shape"])
    model = keras.Model(inputs, keras.layers.Dense(2)(inner(inputs)))
    for copied in (saved(model, tmp_path / "model.keras"), keras.models.clone_model(model)):
        assert flags(copied.get_layer("vit")) == flags(inner)
    frozen = ViT(**SMALL, trainable=False)
    assert (
        keras.Model(inputs, keras.layers.Dense(2)(frozen(inputs)))
        .trainable_weights[0]
        .path.startswith("dense")
    )


@pytest.mark.same_on_every_backend
def test_fit_of_a_copy_changes_only_what_is_not_frozen(tmp_path):
    model = functional()
    first, second = blocks_of(model)
    first.trainable = False
    second.mlp.trainable = False
    loaded = saved(model, tmp_path / "model.keras")
    before = {weight.path: to_numpy(weight) for weight in loaded.weights}
    loaded.compile(keras.optimizers.Adam(epsilon=1e-12), "mse", run_eagerly=True)
    loaded.fit(X, random_input((4, 4, 2)), verbose=0)
    changed = {w.path for w in loaded.weights if not np.array_equal(to_numpy(w), before[w.path])}
    frozen = {weight.path for weight in (*first.weights, *second.mlp.weights)}
    assert changed == set(before) - frozen


def test_lora_inside_a_block_is_in_its_copies(tmp_path):
    """The copy computes the same and trains the same number of values, with the additions as a new start."""
    model = functional()
    first, second = blocks_of(model)
    first.attention.qkv.enable_lora(2, lora_alpha=4)
    second.mlp.expand.enable_lora(3)
    for layer in (first.attention.qkv, second.mlp.expand):
        layer.lora_kernel_b.assign(random_input(layer.lora_kernel_b.shape))
    loaded = saved(model, tmp_path / "model.keras")
    copied = blocks_of(loaded)[0].attention.qkv
    assert (copied.lora_rank, copied.lora_alpha) == (2, 4)
    assert len(loaded.trainable_weights) == len(model.trainable_weights)
    np.testing.assert_allclose(to_numpy(loaded(X)), to_numpy(model(X)), atol=1e-5)


def test_a_layer_is_copied_by_its_arguments():
    block = EncoderBlock(2, 12)
    block.mlp.trainable = False
    for copied in (EncoderBlock(**block.get_config()), EncoderBlock.from_config(block.get_config())):
        assert copied.get_config() == block.get_config()
        assert len(in_model(copied, TOKENS).trainable_weights) == len(
            in_model(block, TOKENS).trainable_weights
        )


class Pair(EncoderBlock):
    """A subclass of a user, with one more layer, which its `build` makes."""

    def build(self, input_shape):
        super().build(input_shape)
        self.more = keras.layers.Dense(input_shape[-1])
        self.more.build(input_shape)

    def call(self, x, training=None):
        return self.more(super().call(x, training=training))


def test_a_subclass_is_frozen_too():
    assert in_model(Pair(2, 12, trainable=False), TOKENS).trainable_weights == []
    layer = Pair(2, 12)
    model = in_model(layer, TOKENS)
    layer.more.trainable = False
    copied = in_model(Pair.from_config(layer.get_config()), TOKENS)
    assert len(copied.trainable_weights) == len(model.trainable_weights)
