"""Constructors refuse what they do not know, and take whole numbers however they are written."""

import inspect
import json

import keras
import numpy as np
import pytest

import keras_vit
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
from keras_vit.errors import InputError
from keras_vit.model.arguments import kinds_of, whole
from keras_vit.model.layers.dropout import Dropout
from keras_vit.model.layers.layer_scale import LayerScale
from keras_vit.validation import Count

pytestmark = pytest.mark.same_on_every_backend

SMALL = dict(image_shape=(8, 8, 1), num_classes=3, patch_size=4, dim=8, depth=1, num_heads=2)
RIGHT = {
    ViT: SMALL,
    EncoderBlock: dict(num_heads=2, mlp_dim=12),
    SelfAttention: dict(num_heads=2, head_dim=4),
    MLP: dict(mlp_dim=12),
    AttentionPool: dict(num_heads=2, mlp_dim=12),
    PatchEmbed: dict(dim=8, patch_size=4),
    PositionEmbedding: dict(grid=(2, 2), num_registers=1),
    AddCLS: dict(num_registers=2),
    Dropout: dict(rate=0.5),
    LayerScale: dict(initial_value=0.1),
}
kinds = pytest.mark.parametrize("kind", RIGHT, ids=lambda kind: kind.__name__)

UNKNOWN = [
    (ViT, "droput_rate", "dropout_rate"),
    (ViT, "num_layers", "depth"),
    (ViT, "hidden_dim", "dim"),
    (ViT, "input_shape", "image_shape"),
    (ViT, "classes", "num_classes"),
    (ViT, "pool", "pooling"),
    (EncoderBlock, "num_head", "num_heads"),
    (EncoderBlock, "mlp_dims", "mlp_dim"),
    (EncoderBlock, "trainabel", "trainable"),
    (SelfAttention, "heads", "num_heads"),
    (MLP, "activaton", "activation"),
    (AttentionPool, "num_head", "num_heads"),
    (PatchEmbed, "patchsize", "patch_size"),
    (PositionEmbedding, "gird", "grid"),
    (AddCLS, "use_cl", "use_cls"),
    (Dropout, "rates", "rate"),
    (LayerScale, "init_value", "initial_value"),
]


@pytest.mark.parametrize(("kind", "name", "near"), UNKNOWN)
def test_an_unknown_argument_is_refused(kind, name, near):
    message = rf"{kind.__name__}\(\) got an unexpected keyword argument '{name}': did you mean '{near}'\?"
    with pytest.raises(TypeError, match=message):
        kind(**RIGHT[kind], **{name: 0.5})


def test_it_is_refused_before_another_is_missing():
    with pytest.raises(TypeError, match="'num_head': did you mean 'num_heads'"):
        EncoderBlock(num_head=4, mlp_dim=8)
    with pytest.raises(TypeError, match="'num_heads'"):
        EncoderBlock(mlp_dim=8)
    with pytest.raises(TypeError, match=r"'weights': published weights are read by ViT\.from_pretrained"):
        ViT(**SMALL, weights="imagenet")
    with pytest.raises(TypeError, match=r"'zzzzzz'\. It takes num_heads, head_dim, "):
        SelfAttention(2, zzzzzz=1)


def test_other_doors():
    with pytest.raises(TypeError, match="'dpeth': did you mean 'depth'"):
        ViT.from_variant("Ti/4", image_shape=(8, 8, 1), num_classes=2, dpeth=3)
    with pytest.raises(InputError, match=r"droput_rate is not an argument .* Perhaps you meant dropout_rate"):
        ViT.from_pretrained("no-such-file", droput_rate=0.1)
    with pytest.raises(TypeError, match="'num_head': did you mean 'num_heads'"):
        ViT.from_config({**ViT(**SMALL).get_config(), "num_head": 2})


class Mine(EncoderBlock):
    """A subclass of a user, with arguments of its own before those of the layer."""

    def __init__(self, scale: int, **kwargs):
        super().__init__(**kwargs)
        self.scale = scale


def test_a_subclass_of_a_user():
    assert Mine("any", num_heads=2.0, mlp_dim=12).num_heads == 2
    with pytest.raises(TypeError, match=r"EncoderBlock\(\) .* 'num_head': did you mean 'num_heads'"):
        Mine(1, num_head=2, mlp_dim=12)


WHOLE = [4.0, np.int64(4), np.int32(4), np.float64(4.0), np.array(4)]


def whole_names(kind):
    """The arguments that take whole numbers only, with a value that fits."""
    if kind is ViT:
        return {
            "num_classes",
            "patch_size",
            "dim",
            "depth",
            "num_heads",
            "mlp_dim",
            "head_dim",
            "num_registers",
        }
    hints = {name: one.annotation for name, one in inspect.signature(kind).parameters.items()}
    return {name for name, hint in hints.items() if hint in (int, int | None)}


CASES = [(kind, name) for kind in RIGHT for name in sorted(whole_names(kind))]


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_whole_numbers(kind, name):
    expected = kind(**{**RIGHT[kind], name: 4}).get_config()
    for value in WHOLE if kind is not ViT else WHOLE[:2]:
        made = kind(**{**RIGHT[kind], name: value}).get_config()
        assert made == {**expected, "name": made["name"]}
        assert type(made[name]) is int
        assert json.dumps(made)


@pytest.mark.parametrize(("kind", "name"), CASES)
@pytest.mark.parametrize("value", [4.5, True, "4", float("nan"), np.bool_(True), [4]])
def test_what_is_not_a_whole_number_is_refused(kind, name, value):
    with pytest.raises(ValueError, match=rf"^{name} must be .*Received: {name}="):
        kind(**{**RIGHT[kind], name: value})


FLAGS = [
    (kind, name)
    for kind in RIGHT
    for name, one in inspect.signature(kind).parameters.items()
    if one.annotation is bool or isinstance(one.default, bool)
]


@pytest.mark.parametrize(("kind", "name"), FLAGS)
def test_truth_values(kind, name):
    """`"False"` would be true."""
    for value in ("False", 1, None):
        with pytest.raises(ValueError, match=f"{name} must be true or false"):
            kind(**{**RIGHT[kind], name: value})


def test_shapes_and_rates_of_numpy():
    model = ViT(**{**SMALL, "image_shape": np.array([8, 8, 1]), "dropout_rate": np.float32(0.5)})
    assert model.config == ViT(**{**SMALL, "image_shape": [8.0, 8, np.int64(1)], "dropout_rate": 0.5}).config
    assert json.dumps(model.get_config())
    assert ViT(**SMALL).resized((16.0, 8, 1), 4.0).config.image_shape == (16, 8, 1)
    with pytest.raises(ValueError, match="image_shape must be a list of 3 whole numbers"):
        ViT(**{**SMALL, "image_shape": (8.5, 8, 1)})


def test_from_a_tuner():
    """`hp.Float` and `hp.Choice` give floats."""
    keras_tuner = pytest.importorskip("keras_tuner")
    hp = keras_tuner.HyperParameters()
    depth, dim = hp.Float("depth", 1, 3, step=1), hp.Choice("dim", [8.0, 16.0])
    model = ViT(**{**SMALL, "depth": depth, "dim": dim})
    assert (model.config.depth, model.config.dim) == (1, 8)


@kinds
def test_the_arguments_of_every_layer_of_keras(kind):
    layer = kind(**RIGHT[kind], name="mine", dtype="mixed_bfloat16", trainable=False)
    assert (layer.name, layer.dtype_policy.name, layer.trainable) == ("mine", "mixed_bfloat16", False)
    with pytest.raises(ValueError, match="trainable"):
        kind(**RIGHT[kind], trainable="no")


def test_every_public_layer_is_tried_here():
    public = [getattr(keras_vit, name) for name in keras_vit.__all__]
    layers = {one for one in public if isinstance(one, type) and issubclass(one, keras.Layer)}
    tried = set(RIGHT) | {kind for kind, _, _ in UNKNOWN}
    without_arguments = {one for one in layers if one.__name__ in ("MeanPool", "TokenPool")}
    assert layers <= tried | without_arguments


@pytest.mark.parametrize(
    ("value", "hint", "wanted"),
    [
        (4.0, int, 4),
        (4.0, int | None, 4),
        (4.0, Count, 4),
        (4.0, int | tuple[int, int], 4),
        (4.0, float, 4.0),
        (4.0, int | float, 4.0),
        (4.5, int, 4.5),
        (True, int, True),
        (None, int | None, None),
    ],
)
def test_whole(value, hint, wanted):
    found = whole(value, hint)
    assert found == wanted
    assert type(found) is type(wanted)


def test_kinds():
    assert kinds_of(int | None) == {int, type(None)}
    assert kinds_of(Count | None) == {int, type(None)}
