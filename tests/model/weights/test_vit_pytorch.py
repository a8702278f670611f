"""Weights in the names of vit-pytorch: answers as recorded, and what the file does not tell."""

import gzip

import keras
import numpy as np
import pytest

from keras_vit.errors import InputError
from keras_vit.model.weights.checkpoint import Checkpoint, Origin
from keras_vit.model.weights.families import vit_pytorch
from keras_vit.model.weights.rules import invert
from keras_vit.model.weights.sources import open_checkpoint
from keras_vit.model.weights.told import ARGUMENT, CONFIG, TABLE
from tests.helpers.paths import SHARED
from tests.helpers.published import answers, built, images_of, recorded, tensors_of
from tests.helpers.random_tensors import random_images

CASES = recorded("vit_pytorch")
WEIGHTS = SHARED / "weights"
shared = pytest.mark.skipif(not (WEIGHTS / "vit_mnist.pt").exists(), reason="needs ../shared/weights")


def checkpoint(tensors, **others) -> Checkpoint:
    return Checkpoint(tensors, Origin("model.pt", (), ""), **others)


def read(name, without=(), **changes):
    """A recorded case as read: with other arguments, and without some."""
    case = CASES[name]
    arguments = {key: value for key, value in (case["arguments"] | changes).items() if key not in without}
    return vit_pytorch.read(checkpoint(tensors_of(case)), arguments)


@pytest.mark.parametrize("name", CASES)
def test_answers_are_those_of_vit_pytorch(name):
    case = CASES[name]

    weights = read(name)

    assert weights.unused == weights.new == ()
    np.testing.assert_allclose(answers(built(weights), images_of(case)), case["outputs"], atol=1e-5)


def test_a_file_of_torch_is_recognised_and_read(tmp_path):
    torch = pytest.importorskip("torch")
    case = CASES["today"]
    path = tmp_path / "model.pt"
    torch.save({name: torch.from_numpy(tensor) for name, tensor in tensors_of(case).items()}, path)

    opened = open_checkpoint(path)

    assert vit_pytorch.recognises(opened)
    weights = vit_pytorch.read(opened, case["arguments"])
    assert weights.told_by["num_heads"] == weights.told_by["mean"] == ARGUMENT
    assert (weights.mean, weights.std, weights.interpolation) == ((0.5,) * 3, (0.5,) * 3, "bilinear")


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    ("name", "field", "value"),
    [
        ("today", "patch_norm", True),
        ("today", "final_norm", "tokens"),
        ("today", "head_dim", 16),
        ("today, heads of dim / heads", "head_dim", None),
        ("today, mean", "pooling", "gap"),
        ("today, mean", "use_cls", False),
        ("today, gray images", "image_shape", (16, 16, 1)),
        ("today, one head of the full width", "projection_bias", False),
        ("simple", "position", "sincos2d"),
        ("simple, registers", "num_registers", 3),
        ("1.0, mean", "final_norm", "pooled"),
        ("1.0, mean", "use_cls", True),
        ("0.20", "patch_norm", False),
        ("0.2", "head_hidden_dim", 48),
    ],
)
def test_the_architecture_is_read_from_names_and_shapes(name, field, value):
    assert getattr(read(name).config, field) == value


@pytest.mark.same_on_every_backend
def test_a_missing_projection_and_an_unknown_pooling_are_noted():
    assert read("today, one head of the full width").notes == (
        "the attention has no output projection: ViT has one that changes nothing",
    )
    (note,) = read("0.20").notes
    assert note == 'the head sees the class token; if the model had pool="mean", give pooling="all"'
    assert read("0.20, mean").notes == ()


@pytest.mark.parametrize(
    "change", [dict(num_heads=2), dict(activation="relu"), dict(norm_epsilon=1e-2), dict(pooling="all")]
)
def test_what_tensors_do_not_tell_changes_the_answers(change):
    case = CASES["0.20"]

    found = answers(built(read("0.20", **change)), images_of(case))

    assert np.abs(found - case["outputs"]).max() > 1e-3


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("name", ["today", "today, mean", "0.20"])
def test_the_pooling_of_the_file_is_not_that_of_a_new_head(name):
    assert read(name, pooling="map").config.pooling == read(name).config.pooling


@pytest.mark.same_on_every_backend
def test_a_config_beside_the_file_tells_too():
    case = CASES["today"]
    config = dict(heads=4, activation="gelu", norm_epsilon=1e-5, mean=0.5, std=0.25)

    weights = vit_pytorch.read(checkpoint(tensors_of(case), config=config), {"std": 0.5})

    assert weights.config.num_heads == 4
    assert (weights.told_by["num_heads"], weights.told_by["std"]) == (CONFIG, ARGUMENT)
    assert weights.std == (0.5,) * 3


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("name", CASES)
def test_rules_lead_back_to_the_tensors(name):
    case = CASES[name]
    tensors, weights = tensors_of(case), read(name)
    names = vit_pytorch._Names(tensors, "model.pt")
    rules = list(vit_pytorch._rules(weights.config, names, tensors, "model.pt"))

    back = invert(rules, weights.arrays)

    for key in (key for key, tensor in tensors.items() if tensor.size):
        np.testing.assert_allclose(back[key].ravel(), tensors[key].ravel(), rtol=1e-6)


def without(tensors, name):
    return {key: tensor for key, tensor in tensors.items() if key != name}


WRONG = {
    "what nobody tells": (
        "today",
        lambda tensors: tensors,
        dict(num_heads=None, activation=None, mean=None),
        "does not tell num_heads, activation and mean",
    ),
    "image size of fixed positions": (
        "simple",
        lambda tensors: tensors,
        dict(image_size=None),
        "does not tell image_size",
    ),
    "heads that do not divide": (
        "today",
        lambda tensors: tensors,
        dict(num_heads=7),
        "num_heads must divide them. Received: 7",
    ),
    "an image size that patches do not divide": (
        "simple",
        lambda tensors: tensors,
        dict(image_size=20),
        "image_size must be a multiple of the patches of model.pt, 8 pixels",
    ),
    "a contradicting width": (
        "today",
        lambda tensors: tensors,
        dict(dim=64),
        "model.pt is of a model with dim=32: leave out dim=64",
    ),
    "a mean of other channels": (
        "today",
        lambda tensors: tensors,
        dict(mean=(0.5, 0.5)),
        "mean must be one number, or 3",
    ),
    "a missing bias": (
        "today",
        lambda tensors: without(tensors, "transformer.layers.1.0.to_out.0.bias"),
        {},
        "lacks transformer.layers.1.0.to_out.0.bias",
    ),
    "a missing MLP": (
        "today",
        lambda tensors: without(tensors, "transformer.layers.1.1.net.4.weight"),
        {},
        "has 1 linear layers in the MLP of block 1, where ViT has 2",
    ),
    "a wrong shape": (
        "today",
        lambda tensors: tensors | {"transformer.layers.1.0.norm.weight": np.ones(31, "float32")},
        {},
        "has block_1/attention_norm/gamma of shape (31,), not (32,)",
    ),
    "positions of no square": (
        "today",
        lambda tensors: tensors | {"pos_embedding": np.zeros((7, 32), "float32")},
        {},
        "has positions for 6 patches, which no square image gives",
    ),
    "other blocks (DeepViT)": (
        "0.20",
        lambda tensors: tensors | {"transformer.layers.0.0.fn.reattn_weights": np.ones((4, 4), "float32")},
        {},
        "blocks have transformer.layers.0.0.fn.reattn_weights, which ViT does not have",
    ),
    "convolutions": (
        "today",
        lambda tensors: tensors | {"to_patch_embedding.2.weight": np.ones((32, 3, 8, 8), "float32")},
        {},
        "has a convolution to_patch_embedding.2.weight, where ViT has a linear layer",
    ),
    "two last norms": (
        "1.0",
        lambda tensors: tensors | {"transformer.norm.weight": np.ones(32, "float32")},
        {},
        "layer normalisations at the end of the blocks and in the head",
    ),
    "an unknown scale of attention (0.3 to 0.6)": (
        "0.9",
        lambda tensors: {
            name.replace("to_patch_embedding.1", "patch_to_embedding"): tensor
            for name, tensor in tensors.items()
        },
        {},
        "is of vit-pytorch 0.3 to 0.6",
    ),
}


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("wrong", WRONG)
def test_what_cannot_be_read_is_refused_in_one_sentence(wrong):
    name, change, arguments, message = WRONG[wrong]
    case = CASES[name]

    with pytest.raises(InputError) as error:
        vit_pytorch.read(checkpoint(change(tensors_of(case))), case["arguments"] | arguments)

    assert message in str(error.value)
    assert str(error.value).count("\n") == 0


@pytest.mark.same_on_every_backend
def test_other_tensors_are_named_as_unused():
    case = CASES["today"]
    tensors = tensors_of(case) | {"mask_token": np.zeros(32, "float32")}

    assert vit_pytorch.read(checkpoint(tensors), case["arguments"]).unused == ("mask_token",)


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("name", ["blocks.0.attn.qkv.weight", "transformer.layers.0.0.attn.weight"])
def test_other_names_are_not_recognised(name):
    assert not vit_pytorch.recognises(checkpoint({name: np.zeros((3, 3), "float32")}))


# MNIST: a sibling of the model of the study, from its file.
BY_HAND = dict(num_heads=4, activation="relu", norm_epsilon=1e-5, mean=0.1307, std=0.3081)
HITS = {1000: 965, 10_000: 9721}
"""Images of MNIST's test part, from the first -> how many the model knows; 9,721 is the published figure."""


def hits(arguments, count) -> tuple[int, dict]:
    weights = vit_pytorch.read(open_checkpoint(WEIGHTS / "vit_mnist.pt"), arguments)
    with gzip.open(WEIGHTS / "mnist-t10k-images-idx3-ubyte.gz") as file:
        images = np.frombuffer(file.read()[16:], "uint8").reshape(-1, 28, 28, 1)[:count]
    with gzip.open(WEIGHTS / "mnist-t10k-labels-idx1-ubyte.gz") as file:
        labels = np.frombuffer(file.read()[8:], "uint8")[:count]
    scaled = ((images / 255.0 - weights.mean) / weights.std).astype("float32")
    logits = built(weights).predict(scaled, batch_size=500, verbose=0)
    return int((logits.argmax(axis=1) == labels).sum()), dict(weights.told_by)


@shared
@pytest.mark.parametrize(("arguments", "teller"), [(BY_HAND, ARGUMENT), ({}, TABLE)])
def test_vit_mnist_by_arguments_or_from_the_table(arguments, teller):
    found, told_by = hits(arguments, 1000)

    assert abs(found - HITS[1000]) <= 1
    assert {told_by[name] for name in BY_HAND} == {teller}


@shared
@pytest.mark.long
@pytest.mark.skipif(keras.backend.backend() != "tensorflow", reason="the other backends read 1,000 digits")
def test_vit_mnist_knows_as_many_digits_as_published():
    found, _ = hits({}, 10_000)

    assert abs(found - HITS[10_000]) <= 1


@shared
@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("change", [dict(num_heads=2), dict(mean=0.5, std=0.5)])
def test_vit_mnist_with_wrong_arguments_knows_fewer(change):
    found, _ = hits(BY_HAND | change, 1000)

    assert found < HITS[1000] - 50


@pytest.mark.long
def test_a_model_of_the_installed_vit_pytorch_gives_the_same_answers():
    torch = pytest.importorskip("torch")
    vit = pytest.importorskip("vit_pytorch.vit", reason="needs vit-pytorch", exc_type=ImportError)
    model = vit.ViT(
        image_size=16, patch_size=4, num_classes=3, dim=24, depth=1, heads=2, mlp_dim=40, dim_head=8
    ).eval()
    tensors = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    images = random_images((16, 16, 3))

    weights = vit_pytorch.read(
        checkpoint(tensors), dict(num_heads=2, activation="gelu", norm_epsilon=1e-5, mean=0.5, std=0.5)
    )

    with torch.no_grad():
        expected = model(torch.from_numpy(images.transpose(0, 3, 1, 2).copy())).numpy()
    np.testing.assert_allclose(answers(built(weights), images), expected, atol=1e-5)
