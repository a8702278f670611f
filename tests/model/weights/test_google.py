"""Google's `.npz` files: answers as timm's loader and model give them, and what is refused."""

import numpy as np
import pytest

from keras_vit.errors import InputError
from keras_vit.model.weights.checkpoint import Checkpoint, Origin
from keras_vit.model.weights.families import google
from keras_vit.model.weights.rules import invert
from keras_vit.model.weights.sources import open_checkpoint
from keras_vit.model.weights.told import ARGUMENT, SHAPES
from tests.helpers.published import answers, built, images_of, recorded, tensors_of
from tests.helpers.random_tensors import random_tensors

CASES = recorded("google")


def read(tensors, **arguments):
    return google.read(Checkpoint(tensors, Origin("model.npz", (), "")), arguments)


@pytest.mark.parametrize("name", CASES)
def test_answers_are_those_of_timm_on_the_same_file(name, tmp_path):
    case = CASES[name]
    np.savez(tmp_path / "model.npz", **tensors_of(case))

    checkpoint = open_checkpoint(tmp_path / "model.npz")

    assert google.recognises(checkpoint)
    weights = google.read(checkpoint, {})
    assert weights.unused == weights.new == ()
    assert weights.config.image_shape == tuple(case["image_shape"])
    np.testing.assert_allclose(answers(built(weights), images_of(case)), case["outputs"], atol=1e-5)


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("first", "num_heads", 4),
        ("first", "head_dim", None),
        ("first", "activation", "gelu_tanh"),
        ("first", "norm_epsilon", 1e-6),
        ("first", "class_position", True),
        ("first", "pooling", "token"),
        ("first, hidden layer", "head_hidden_dim", 24),
        ("first, hidden layer", "head_activation", "tanh"),
        ("first, mean", "pooling", "gap"),
        ("big_vision, class token", "class_position", False),
        ("big_vision, attention pooling", "pooling", "map"),
        ("big_vision, blocks in one tensor", "depth", 2),
    ],
)
def test_the_architecture_is_read_from_names_and_shapes(name, field, value):
    assert getattr(read(tensors_of(CASES[name])).config, field) == value


@pytest.mark.same_on_every_backend
def test_pixels_are_scaled_as_in_the_code_of_google():
    weights = read(tensors_of(CASES["first"]))

    assert (weights.mean, weights.std, weights.interpolation) == ((0.5,) * 3, (0.5,) * 3, "bilinear")
    assert weights.told_by["mean"] == weights.told_by["activation"] == SHAPES


def test_the_exact_gelu_of_timm_is_an_argument():
    case = CASES["first"]

    weights = read(tensors_of(case), activation="gelu")

    assert weights.told_by["activation"] == ARGUMENT
    difference = np.abs(answers(built(weights), images_of(case)) - case["outputs"]).max()
    assert 1e-6 < difference < 1e-2


@pytest.mark.same_on_every_backend
def test_without_a_head_the_hidden_layer_is_unused():
    tensors = tensors_of(CASES["first, hidden layer"])
    without_head = {name: tensor for name, tensor in tensors.items() if not name.startswith("head/")}

    weights = read(without_head)

    assert weights.config.num_classes == 0
    assert weights.unused == ("pre_logits/kernel", "pre_logits/bias")


@pytest.mark.same_on_every_backend
def test_fixed_positions_need_the_image_size():
    tensors = tensors_of(CASES["big_vision, mean"])
    tensors.pop("params/pos_embedding")

    with pytest.raises(InputError, match="does not tell image_size: give it as argument"):
        read(tensors)
    config = read(tensors, image_size=32).config
    assert (config.position, config.grid) == ("sincos2d", (4, 4))


@pytest.mark.same_on_every_backend
def test_pooling_of_early_days_and_a_text_tower():
    tensors = tensors_of(CASES["big_vision, attention pooling"])
    early = {name.replace("MAPHead_0/", ""): tensor for name, tensor in tensors.items()}

    weights = read(early | {"params/txt/head/kernel": np.zeros((4, 4), "float32")})

    assert weights.config.pooling == "map"
    assert weights.unused == ("params/txt/head/kernel",)
    for path, array in read(tensors).arrays.items():
        np.testing.assert_array_equal(weights.arrays[path], array)


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("name", CASES)
def test_rules_lead_back_to_the_tensors(name):
    tensors = tensors_of(CASES[name])
    tensors = google._today(tensors, google._prefix(tensors))
    weights = read(tensors_of(CASES[name]))

    back = invert(list(google._rules(weights.config, tensors)), weights.arrays)

    assert back.keys() == tensors.keys()
    for key, tensor in tensors.items():
        np.testing.assert_array_equal(back[key], tensor)


def changed(name, shape):
    return lambda tensors: tensors | random_tensors({name: shape})


def dropped(name):
    return lambda tensors: {key: tensor for key, tensor in tensors.items() if key != name}


BLOCK = "Transformer/encoderblock_1/"
WRONG = {
    "hybrid": (changed("conv_root/kernel", (7, 7, 3, 64)), "is a hybrid: a ResNet makes its patches"),
    "other blocks": (changed(f"{BLOCK}Moe/Mlp/kernel", (4, 4)), f"blocks have {BLOCK}Moe/Mlp/kernel, which"),
    "a missing tensor": (dropped(f"{BLOCK}LayerNorm_0/bias"), f"lacks {BLOCK}LayerNorm_0/bias"),
    "no first block": (
        dropped("Transformer/encoderblock_0/MlpBlock_3/Dense_0/kernel"),
        "lacks the attention or the MLP of its first block",
    ),
    "a wrong shape": (
        changed(f"{BLOCK}MlpBlock_3/Dense_0/bias", (47,)),
        "has block_1/mlp/expand/bias of shape (47,), not (48,)",
    ),
    "patches that are not square": (
        changed("embedding/kernel", (8, 4, 3, 32)),
        "has patches of shape (8, 4, 3, 32)",
    ),
    "positions of no square": (
        changed("Transformer/posembed_input/pos_embedding", (1, 7, 32)),
        "has positions for 7 patches, which no square image gives",
    ),
}


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_read_is_refused_in_one_sentence(wrong):
    change, message = WRONG[wrong]

    with pytest.raises(InputError) as error:
        read(change(tensors_of(CASES["first"])))

    assert message in str(error.value)


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("arguments", [dict(num_heads=2), dict(depth=3), dict(head_dim=16)])
def test_an_argument_that_contradicts_the_shapes_is_refused(arguments):
    (name,) = arguments

    with pytest.raises(InputError, match=f"is of a model with {name}=.*: leave out {name}="):
        read(tensors_of(CASES["first"]), **arguments)


@pytest.mark.same_on_every_backend
def test_other_heads_in_the_pooling_are_refused():
    name = "params/img/MAPHead_0/MultiHeadDotProductAttention_0/query/kernel"
    tensors = tensors_of(CASES["big_vision, attention pooling"]) | random_tensors({name: (32, 2, 16)})

    with pytest.raises(InputError, match="ViT has the same in both"):
        read(tensors)


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("name", ["stem/kernel", "embedding/kernel", "params/Transformer/encoder_norm/scale"])
def test_other_names_are_not_recognised(name):
    checkpoint = Checkpoint({name: np.zeros((8, 8, 3, 32), "float32")}, Origin("model.npz", (), ""))

    assert not google.recognises(checkpoint)
