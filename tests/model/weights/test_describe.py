"""What published weights are in words."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest

from keras_vit.model.config import ViTConfig, variant_arguments
from keras_vit.model.weights.checkpoint import Origin
from keras_vit.model.weights.describe import architecture, to_dict, to_text
from keras_vit.model.weights.weights import Weights

pytestmark = pytest.mark.same_on_every_backend


def config(variant="Ti/16", image_shape=(224, 224, 3), num_classes=1000, **arguments):
    return ViTConfig(
        **{**variant_arguments(variant), **arguments}, image_shape=image_shape, num_classes=num_classes
    )


OWN = dict(image_shape=(32, 32, 3), num_classes=5, patch_size=8, dim=32, depth=2, num_heads=4)
ARCHITECTURES = {
    # in words, the model
    "Ti/16": config(),
    "B/8": config("B/8", num_classes=0),
    "L/16 with position='sincos2d', pooling='gap'": config("L/16", position="sincos2d", pooling="gap"),
    "S/14 with num_registers=4, pooling='token+gap', layer_scale=1e-05": config(
        "S/14", pooling="token+gap", num_registers=4, layer_scale=1e-5
    ),
    "B/32 with activation='quick_gelu', norm_epsilon=1e-05, pre_norm=True, patch_bias=False": config(
        "B/32", activation="quick_gelu", norm_epsilon=1e-5, pre_norm=True, patch_bias=False
    ),
    "S/16 with class_position=False": config("S/16", class_position=False),
    "S/16 with pooling='gap', class_token=True": config("S/16", pooling="gap", class_token=True),
    "defect/4": config("defect/4", (28, 28, 1)),
    "defect/4 with no head_hidden_dim, activation='relu'": config(
        "defect/4", (28, 28, 1), head_hidden_dim=None, activation="relu"
    ),
    "ViT with patches of 8, dim 32, depth 2, 4 heads, mlp_dim 128": ViTConfig(**OWN),
    "ViT with patches of 8, dim 32, depth 2, 4 heads of 16, mlp_dim 48 with qk_norm=True": ViTConfig(
        **OWN, head_dim=16, mlp_dim=48, qk_norm=True
    ),
    "ViT with patches of 8, dim 32, depth 2, 4 heads, mlp_dim 128 with stem='conv'": ViTConfig(
        **OWN, stem="conv"
    ),
}


@pytest.mark.parametrize(("words", "made"), ARCHITECTURES.items(), ids=ARCHITECTURES)
def test_the_architecture(words, made):
    assert architecture(made) == words


@pytest.mark.parametrize(
    "change",
    [
        dict(dropout_rate=0.1, drop_path_rate=0.1),
        dict(mlp_dim=None, head_dim=64, class_token=True),
        dict(final_norm="pooled"),
    ],
)
def test_what_does_not_change_the_answers_is_not_named(change):
    assert architecture(config(**change)) == "Ti/16"


LONG = "second note" + " that is long" * 12
WEIGHTS = Weights(
    family="timm",
    config=config(num_classes=3),
    arrays={"norm/gamma": np.ones(192, "float32")},
    origin=Origin("timm:a.b", (Path("model.safetensors"),), "0" * 64, "a" * 40, "apache-2.0"),
    mean=(0.485, 0.456, 0.406),
    std=(0.229, 0.224, 0.225),
    class_names=("cat", "dog", "owl"),
    unused=tuple(f"text.{number}" for number in range(9)),
    told_by={"num_heads": "argument", "norm_epsilon": "config", "mean": "config", "image_size": "config"},
    notes=("first note", LONG),
)


def test_as_text():
    *lines, begun, rest = to_text(WEIGHTS).splitlines()
    assert lines == [
        "source        timm:a.b",
        "family        timm",
        "architecture  Ti/16",
        "parameters    5,524,995",
        "images        224 x 224 x 3, resized by bicubic interpolation",
        "pixels        in 0..1, less 0.485 0.456 0.406, divided by 0.229 0.224 0.225",
        "classes       3: cat, dog, owl",
        "told by       argument: num_heads 3",
        "told by       config: norm_epsilon 1e-06, mean 0.485 0.456 0.406, image_size 224",
        "licence       apache-2.0",
        "revision      " + "a" * 40,
        "sha256        " + "0" * 64,
        "unused        text.0, text.1, text.2, text.3, text.4, text.5 and 3 more",
        "new           none",
        "note          first note",
    ]
    assert len(begun) <= 110
    assert f"{begun} {rest.removeprefix(' ' * 14)}" == f"note          {LONG}"


def test_as_text_without_what_a_file_alone_does_not_have():
    origin = dataclasses.replace(WEIGHTS.origin, revision=None, licence=None)
    made = config(num_classes=0, image_shape=(224, 448, 3))
    text = to_text(dataclasses.replace(WEIGHTS, config=made, origin=origin, class_names=None))
    assert "classes       none: there is no head" in text
    assert "licence       the source does not say" in text
    assert "image_size 224 448" in text
    assert "revision" not in text


def test_as_json():
    found = json.loads(json.dumps(to_dict(WEIGHTS)))
    assert found["unused"] == list(WEIGHTS.unused)
    assert found["class_names"] == ["cat", "dog", "owl"]
    assert found["config"]["dim"] == 192
    assert "dropout_rate" not in found["config"]
    # The arguments make the same model.
    assert ViTConfig(**found["config"]) == WEIGHTS.config
    assert {key: found[key] for key in ("parameters", "mean", "licence", "files", "revision")} == {
        "parameters": 5_524_995,  # 5,717,416 of timm with 1,000 classes, less 997 rows of 193 of the head
        "mean": [0.485, 0.456, 0.406],
        "licence": "apache-2.0",
        "files": ["model.safetensors"],
        "revision": "a" * 40,
    }
