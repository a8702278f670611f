"""The table of published names against what timm records of each, and its order."""

import json
import re

import numpy as np
import pytest

from keras_vit.model.config import ViTConfig, variant_arguments
from keras_vit.model.cost import count_parameters
from keras_vit.model.weights import published
from keras_vit.model.weights.checkpoint import Checkpoint, Origin
from tests.helpers.published import FIXTURES

pytestmark = pytest.mark.same_on_every_backend

GROUPS = json.loads((FIXTURES / "published.json").read_text())
UNKNOWN = r".*(radio|intern|bamboo|apple_mclip2|dlittle|dwee).*"
"""Names of timm that have no row: other norms or scales, or seldom used."""
IMAGENET = ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225))


@pytest.mark.parametrize("group", GROUPS, ids=lambda group: group["names"][0])
def test_rows_agree_with_timm(group):
    for name in group["names"]:
        row = published.lookup(name)
        if row is None:
            assert re.fullmatch(UNKNOWN, name), name
            continue
        for key in ("activation", "norm_epsilon", "interpolation", "licence"):
            assert row[key] == group[key], (name, key)
        assert (list(row["mean"]), list(row["std"])) == (group["mean"], group["std"]), name
        assert row.get("num_heads", group["dim"] // 64) == group["num_heads"], name


def test_every_row_of_timm_fits_a_name_of_timm():
    names = [name for group in GROUPS for name in group["names"]]

    for pattern, source, *_ in published.ROWS:
        if source in (published.TIMM, published.DEIT):
            assert any(re.fullmatch(pattern, name) for name in names), pattern


def test_no_name_fits_two_rows():
    names = [name for group in GROUPS for name in group["names"]]

    for name in names:
        assert sum(bool(re.fullmatch(pattern, name)) for pattern, *_ in published.ROWS) <= 1, name


@pytest.mark.parametrize(
    ("name", "activation", "norm_epsilon", "mean", "interpolation"),
    [
        ("google/vit-base-patch16-224", "gelu", 1e-12, 0.5, "bilinear"),
        ("google/vit-base-patch16-224-in21k", "gelu", 1e-12, 0.5, "bilinear"),
        ("google/vit-huge-patch14-224-in21k", "gelu", 1e-12, 0.5, "bilinear"),
        ("facebook/deit-tiny-patch16-224", "gelu", 1e-12, 0.485, "bicubic"),
        ("facebook/deit-base-distilled-patch16-384", "gelu", 1e-12, 0.485, "bicubic"),
        ("facebook/dinov2-small", "gelu", 1e-6, 0.485, "bicubic"),
        ("facebook/dinov2-with-registers-base", "gelu", 1e-6, 0.485, "bicubic"),
        ("facebook/dinov2-giant", "swiglu", 1e-6, 0.485, "bicubic"),
        ("facebook/dinov2-small-imagenet1k-1-layer", "gelu", 1e-6, 0.485, "bicubic"),
        ("openai/clip-vit-base-patch32", "quick_gelu", 1e-5, 0.48145466, "bicubic"),
        ("openai/clip-vit-large-patch14-336", "quick_gelu", 1e-5, 0.48145466, "bicubic"),
        ("google/siglip-base-patch16-224", "gelu_tanh", 1e-6, 0.5, "bicubic"),
        ("google/siglip2-so400m-patch14-384", "gelu_tanh", 1e-6, 0.5, "bicubic"),
    ],
)
def test_rows_of_hugging_face(name, activation, norm_epsilon, mean, interpolation):
    row = published.lookup(name)

    assert (row["activation"], row["norm_epsilon"]) == (activation, norm_epsilon)
    assert (row["mean"][0], row["interpolation"]) == (mean, interpolation)
    assert row["source"] in (f"https://huggingface.co/{name}", published.OPENAI)


@pytest.mark.parametrize(
    "name",
    [
        None,
        "",
        "model",
        "vit_tiny_patch16_224",
        "vit_tiny_patch16_224.mine",
        "my/vit_tiny_patch16_224.augreg_in21k",
        "google/vit-hybrid-base-bit-384",
        "facebook/deit-base",
    ],
)
def test_other_names_have_no_row(name):
    assert published.lookup(name) is None


def test_the_repository_of_timm_is_the_same_name():
    name = "vit_small_patch14_dinov2.lvd142m"

    assert published.lookup(f"timm/{name}") == published.lookup(name)
    assert (published.lookup(name)["mean"], published.lookup(name)["std"]) == IMAGENET


def test_every_row_has_a_source_a_licence_and_valid_arguments():
    for pattern, source, licence, *parts in published.ROWS:
        row = {key: value for part in parts for key, value in part.items()}
        assert source.startswith("https://"), pattern
        assert licence, pattern
        assert len(row["mean"]) == len(row["std"]) == 3, pattern
        arguments = {key: row[key] for key in ("activation", "norm_epsilon", "num_heads") if key in row}
        config = dict(image_shape=(16, 16, 3), num_classes=2, patch_size=8, dim=32, depth=1, num_heads=2)
        ViTConfig(**{**config, **arguments})


def checkpoint(shapes) -> Checkpoint:
    tensors = {name: np.zeros(shape, "float32") for name, shape in shapes.items()}
    return Checkpoint(tensors, Origin("model.pt", (), ""))


def test_the_model_of_mnist_is_known_by_its_names_and_shapes():
    row = published.by_shapes(checkpoint(published._mnist_shapes()))

    assert (row["num_heads"], row["activation"], row["norm_epsilon"]) == (4, "relu", 1e-5)
    assert (row["mean"], row["std"], row["licence"]) == ((0.1307,), (0.3081,), "mit")


@pytest.mark.parametrize(
    "change",
    [
        {"mlp_head.1.weight": (6, 64), "mlp_head.1.bias": (6,)},
        {"pos_embedding": (1, 65, 64)},
        {"mask_token": (64,)},
    ],
)
def test_a_model_of_other_shapes_is_not_that_of_mnist(change):
    assert published.by_shapes(checkpoint(published._mnist_shapes() | change)) is None


def test_the_choices_of_init_auto_have_rows_and_the_smallest_comes_first():
    for choice in published.AUTO:
        row = published.lookup(choice.source.removeprefix("timm:"))
        assert row["licence"] == choice.licence == "apache-2.0"
    assert published.AUTO[0].parameters == min(choice.parameters for choice in published.AUTO)


def test_the_table_of_init_auto_is_printed_one_line_each():
    head, *lines = published.auto_table().splitlines()

    assert head.split() == ["source", "licence", "parameters", "pixels", "note"]
    assert lines[0].startswith("timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k ")
    assert "5,524,416" in lines[0]
    assert len(lines) == len(published.AUTO)
    assert max(map(len, lines)) <= 110


@pytest.mark.parametrize("choice", published.AUTO, ids=lambda choice: choice.source)
def test_the_parameters_of_the_choices_are_those_of_the_sizes(choice):
    size, patch = re.search(r"vit_(\w+?)_patch(\d+)", choice.source).groups()
    arguments = variant_arguments(f"{dict(tiny='Ti', small='S', base='B')[size]}/{patch}")
    scale = dict(layer_scale=1e-5) if "dinov2" in choice.source else {}
    config = ViTConfig(
        image_shape=(choice.image_size, choice.image_size, 3), num_classes=0, **arguments, **scale
    )

    assert count_parameters(config) == choice.parameters
