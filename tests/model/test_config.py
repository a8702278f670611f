"""`ViTConfig`: the values it accepts, the messages for wrong values; the named sizes and their parameters."""

import dataclasses
import gc
import math

import pytest

from keras_vit import ViT
from keras_vit.errors import InputError
from keras_vit.model import config, cost
from keras_vit.model.config import (
    CHANGEABLE,
    SIZES,
    ViTConfig,
    default_channels,
    default_image_size,
    variant_arguments,
)
from keras_vit.validation import from_plain, helps, to_plain

pytestmark = pytest.mark.same_on_every_backend

# At 224x224x3 and 1000 classes. Ti to H are the numbers of timm and of the papers' checkpoints; for g the
# paper says 1,011 million.
PUBLISHED = {
    "Ti/16": 5_717_416,
    "S/16": 22_050_664,
    "S/32": 22_878_952,
    "B/16": 86_567_656,
    "B/32": 88_224_232,
    "L/16": 304_326_632,
    "L/32": 306_535_400,
    "H/14": 632_045_800,
    "g/14": 1_012_611_432,
}


def counted(variant, shape=(224, 224, 3), num_classes=1000):
    return cost.count_parameters(
        ViTConfig(image_shape=shape, num_classes=num_classes, **variant_arguments(variant))
    )


def built(variant, shape=(224, 224, 3), num_classes=1000, **arguments):
    model = ViT.from_variant(variant, image_shape=shape, num_classes=num_classes, **arguments)
    count = model.count_params()
    del model
    gc.collect()  # layers and models refer to each other in a cycle, so memory would grow by gigabytes
    return count


def by_formula(variant):
    """The parameters of a plain ViT at 224x224x3 with 1000 classes, from the tables of the papers."""
    size, patch = variant.split("/")
    patch = int(patch)
    dim, depth, mlp = {
        "Ti": (192, 12, 768),
        "S": (384, 12, 1536),
        "B": (768, 12, 3072),
        "L": (1024, 24, 4096),
        "H": (1280, 32, 5120),
        "g": (1408, 40, 6144),
    }[size]
    embed = patch * patch * 3 * dim + dim
    tokens = dim + (1 + (224 // patch) ** 2) * dim
    attention = 4 * (dim * dim + dim)
    block = 2 * 2 * dim + attention + dim * mlp + mlp + mlp * dim + dim
    return embed + tokens + depth * block + 2 * dim + dim * 1000 + 1000


def test_published_counts_are_those_of_the_formula():
    assert {variant: by_formula(variant) for variant in PUBLISHED} == PUBLISHED


@pytest.mark.parametrize("variant", PUBLISHED)
def test_parameters(variant):
    assert counted(variant) == PUBLISHED[variant]


# `test_cost` compares the counts of small models layer by layer. Here, the models have their real sizes.
@pytest.mark.parametrize("variant", ["Ti/16", "S/32", "B/16"])
def test_parameters_of_built_models(variant):
    assert built(variant) == PUBLISHED[variant]


@pytest.mark.parametrize("variant", ["L/32", "g/14"])
def test_parameters_of_large_sizes_without_most_of_their_blocks(variant):
    """All blocks have the same number of parameters."""
    arguments = {**variant_arguments(variant), "image_shape": (224, 224, 3), "num_classes": 1000}
    assert built(variant, depth=1) == cost.count_parameters(ViTConfig(**{**arguments, "depth": 1}))


@pytest.mark.long
@pytest.mark.parametrize("variant", ["L/16", "H/14"])
def test_parameters_of_large_sizes_built_whole(variant):
    assert built(variant) == PUBLISHED[variant]


@pytest.mark.parametrize("variant", ["Ti/8", "S/8", "B/8", "S/14", "B/14", "Ti/32"])
def test_any_patch_size_that_divides_the_image(variant):
    assert counted(variant) == by_formula(variant)


@pytest.mark.parametrize(
    ("variant", "shape", "parameters"),
    [
        ("defect/4", (28, 28, 1), 508_166),
        ("defect-conv/4", (28, 28, 1), 221_846),
        ("defect-conv/8", (64, 64, 1), 223_918),
        ("defect-pool/8", (56, 56, 1), 102_678),
    ],
)
def test_parameters_of_the_defect_sizes(variant, shape, parameters):
    assert built(variant, shape, num_classes=6) == counted(variant, shape, num_classes=6) == parameters


@pytest.mark.parametrize("size", SIZES)
def test_every_size_is_pinned_here(size):
    assert any(
        name.startswith(f"{size}/") for name in [*PUBLISHED, "defect/4", "defect-conv/4", "defect-pool/8"]
    )


def test_arguments_override_those_of_the_size():
    model = ViT.from_variant("Ti/16", image_shape=(32, 32, 3), num_classes=4, depth=1, mlp_dim=10)
    config = model.get_config()
    assert (config["dim"], config["depth"], config["mlp_dim"], config["patch_size"]) == (192, 1, 10, 16)


def test_the_table_is_not_changed_by_its_users():
    variant_arguments("B/16")["dim"] = 1
    assert variant_arguments("B/16") == dict(dim=768, depth=12, num_heads=12, mlp_dim=3072, patch_size=16)


@pytest.mark.parametrize(
    ("variant", "size", "channels"),
    [
        ("defect/4", 28, 1),
        ("defect-conv/4", 28, 1),
        ("defect-pool/8", 56, 1),
        ("B/16", 224, 3),
        ("Ti/8", 224, 3),
    ],
)
def test_default_images(variant, size, channels):
    assert (default_image_size(variant), default_channels(variant)) == (size, channels)


@pytest.mark.parametrize("variant", ["B", "X/16", "B/", "B/x", "B/0", "B/-4", "b/16", "", "B/16/2", None, 16])
def test_wrong_names_of_sizes(variant):
    with pytest.raises(InputError) as caught:
        variant_arguments(variant)
    assert str(caught.value) == (
        "The model must be a size and a patch size, such as B/16; sizes are "
        f"Ti, S, B, L, H, g, defect, defect-conv, defect-pool. Received: {variant!r}"
    )


# The arguments

SMALL = dict(image_shape=(8, 12, 3), num_classes=5, patch_size=4, dim=16, depth=2, num_heads=2)

RIGHT = {
    "a list as the shape": dict(image_shape=[8, 12, 3]),
    "a shape of one channel": dict(image_shape=(8, 12, 1)),
    "one class": dict(num_classes=1),
    "head_dim: heads need not divide dim": dict(num_heads=3, head_dim=8),
    "conv": dict(stem="conv"),
    "conv-pool": dict(stem="conv-pool"),
    "conv, patch 2": dict(stem="conv", patch_size=2, dim=18, num_heads=3),
    "sincos2d": dict(position="sincos2d", dim=20),
    "learned positions of any width": dict(dim=18, num_heads=3),
    "gap": dict(pooling="gap"),
    "map": dict(pooling="map"),
    "no registers": dict(num_registers=0),
    "registers": dict(num_registers=16),
    "a whole number as a rate": dict(dropout_rate=0),
    "nearly everything dropped": dict(dropout_rate=0.99, attention_dropout_rate=0.99, drop_path_rate=0.99),
    "layer_scale of 0": dict(layer_scale=0.0),
    "remat with stochastic depth": dict(remat=True, drop_path_rate=0.5),
    "swiglu": dict(activation="swiglu"),
    "ReLU": dict(activation="relu"),
    "no head": dict(num_classes=0, head_hidden_dim=8),
    "class token and mean": dict(pooling="token+gap", class_token=True),
    "class token and distillation token": dict(pooling="token+distilled", num_registers=2),
    "the mean of all tokens": dict(pooling="all", num_registers=1),
    "a class token beside the pool": dict(pooling="map", class_token=True, class_position=False),
    "no class token by name": dict(pooling="gap", class_token=False),
    "the largest epsilon": dict(norm_epsilon=1e-2),
    "a tiny epsilon": dict(norm_epsilon=1e-12),
    "norms": dict(pre_norm=True, patch_norm=True, final_norm="none"),
    "norm of the pooled": dict(pooling="gap", final_norm="pooled"),
    "no biases": dict(patch_bias=False, qkv_bias=False, projection_bias=False, mlp_bias=False),
    "tanh in the head": dict(head_hidden_dim=8, head_activation="tanh"),
    "no class position, no class token": dict(pooling="gap", class_position=False),
}

POSITIVE = (
    "patch_size",
    "dim",
    "depth",
    "num_heads",
    "mlp_dim",
    "head_dim",
    "head_hidden_dim",
)
RATES = ("dropout_rate", "attention_dropout_rate", "drop_path_rate")
CHOICES = dict(
    stem=("linear", "conv", "conv-pool"), position=("learned", "sincos2d"),
    pooling=("token", "gap", "map", "token+gap", "all", "token+distilled"),
    activation=("gelu", "gelu_tanh", "quick_gelu", "relu", "silu", "swiglu"),
    final_norm=("tokens", "pooled", "none"), head_activation=("gelu", "tanh"),
)  # fmt: skip

WRONG = [
    *((dict([(name, 0)]), f"{name} must be 1 or more. Received: {name}=0") for name in POSITIVE),
    *((dict([(name, -1)]), f"{name} must be 1 or more. Received: {name}=-1") for name in POSITIVE),
    *((dict([(name, "8")]), f"{name} must be a whole number") for name in POSITIVE),
    *((dict([(name, 8.0)]), f"{name} must be a whole number") for name in POSITIVE),
    *((dict([(name, True)]), f"{name} must be a whole number") for name in POSITIVE),
    *(
        (dict([(name, rate)]), f"{name} must be 0.0 or more and below 1.0. Received: {name}={rate}")
        for name in RATES
        for rate in (-0.1, 1.0, 1.5, math.nan, math.inf)
    ),
    *((dict([(name, "0.1")]), f"{name} must be a number. Received: {name}='0.1'") for name in RATES),
    *(
        (dict([(name, "x")]), f"{name} must be one of {', '.join(map(repr, choices))}. Received: {name}='x'")
        for name, choices in CHOICES.items()
    ),
    *(
        (dict([(name, 1)]), f"{name} must be true or false. Received: {name}=1")
        for name in (
            "qkv_bias",
            "qk_norm",
            "remat",
            "pre_norm",
            "patch_bias",
            "patch_norm",
            "projection_bias",
            "mlp_bias",
            "class_position",
        )
    ),
    (dict(class_token=1), "class_token must be true or false or None. Received: class_token=1"),
    *(
        (
            dict(norm_epsilon=epsilon),
            f"norm_epsilon must be above 0.0 and 0.01 at most. Received: norm_epsilon={epsilon}",
        )
        for epsilon in (0.0, -1e-6, 0.011, math.nan, math.inf)
    ),
    (dict(norm_epsilon="1e-5"), "norm_epsilon must be a number. Received: norm_epsilon='1e-5'"),
    (dict(norm_epsilon=None), "norm_epsilon must be a number. Received: norm_epsilon=None"),
    (dict(num_classes=-1), "num_classes must be 0 or more. Received: num_classes=-1"),
    (dict(num_classes=8.0), "num_classes must be a whole number. Received: num_classes=8.0"),
    (dict(num_classes=True), "num_classes must be a whole number. Received: num_classes=True"),
    *(
        (
            dict(pooling=pooling, class_token=False),
            f'pooling="{pooling}" needs a class token. Received: class_token=False',
        )
        for pooling in ("token", "token+gap", "token+distilled")
    ),
    (
        dict(stem="conv", patch_norm=True),
        'patch_norm=True and patch_bias=False are for stem="linear". '
        'Received: stem="conv", patch_bias=True, patch_norm=True',
    ),
    (dict(stem="conv", patch_bias=False), 'Received: stem="conv", patch_bias=False, patch_norm=False'),
    (dict(num_registers=-1), "num_registers must be 0 or more. Received: num_registers=-1"),
    (dict(layer_scale=math.nan), "layer_scale must be a finite number. Received: layer_scale=nan"),
    (
        dict(image_shape=(8, 12)),
        "image_shape must be a list of 3 whole numbers. Received: image_shape=(8, 12)",
    ),
    (dict(image_shape=(0, 12, 3)), "image_shape must be 1 or more"),
    (dict(image_shape=(10, 12, 3)), "patch_size must divide the height and the width of the image."),
    (dict(image_shape=(8, 14, 3)), "Received: patch_size=4, image 8x14"),
    (dict(num_heads=3), "num_heads must divide dim, unless head_dim is given. Received: num_heads=3, dim=16"),
    (
        dict(num_heads=3, head_dim=8, pooling="map"),
        "num_heads must divide dim in attention pooling. Received: num_heads=3, dim=16",
    ),
    (
        dict(stem="conv", patch_size=3, image_shape=(9, 9, 3)),
        'stem="conv" halves the image at each layer, so patch_size must be 2, 4, 8, 16, ... '
        "Received: patch_size=3",
    ),
    (dict(stem="conv", patch_size=1), "Received: patch_size=1"),
    (dict(stem="conv", dim=18), 'stem="conv" with patch_size=4 needs a dim that 4 divides. Received: dim=18'),
    (dict(position="sincos2d", dim=18), '"sincos2d" needs a dim that 4 divides. Received: dim=18'),
    (
        dict(remat=True, dropout_rate=0.1),
        "remat=True computes a branch twice, and dropout inside it would be drawn twice: use drop_path_rate "
        "instead. Received: dropout_rate=0.1, attention_dropout_rate=0.0",
    ),
    (dict(remat=True, attention_dropout_rate=0.2), "attention_dropout_rate=0.2"),
]


@pytest.mark.parametrize("changes", RIGHT.values(), ids=RIGHT)
def test_right_values(changes):
    made = ViTConfig(**{**SMALL, **changes})
    for name, value in changes.items():
        assert getattr(made, name) == (tuple(value) if name == "image_shape" else value)
    assert from_plain(ViTConfig, to_plain(made)) == made


@pytest.mark.parametrize(("changes", "message"), WRONG, ids=str)
def test_wrong_values(changes, message):
    with pytest.raises(InputError) as caught:
        ViTConfig(**{**SMALL, **changes})
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_wrong_names():
    with pytest.raises(TypeError, match="dropout"):
        ViTConfig(**SMALL, dropout=0.1)
    with pytest.raises(TypeError, match="num_heads"):
        ViTConfig(**{name: value for name, value in SMALL.items() if name != "num_heads"})


def test_is_frozen_and_can_be_a_key():
    made = ViTConfig(**SMALL)
    with pytest.raises(dataclasses.FrozenInstanceError):
        made.depth = 3
    assert {made: 1}[ViTConfig(**SMALL)] == 1


def test_values_computed_from_the_arguments():
    made = ViTConfig(**SMALL)
    assert (made.grid, made.use_cls, made.mlp_width) == ((2, 3), True, 64)
    made = dataclasses.replace(made, pooling="gap", mlp_dim=10)
    assert (made.use_cls, made.mlp_width) == (False, 10)


# Pooling and class_token -> class token, distillation token, tokens before the patches (with two registers),
# width of what the head sees (with dim=16), whether the norms pooled and tokens are those of tokens.
FIRST = [
    ("token", None, True, False, 3, 16, (True, True)),
    ("token", True, True, False, 3, 16, (True, True)),
    ("gap", None, False, False, 2, 16, (False, True)),
    ("gap", False, False, False, 2, 16, (False, True)),
    ("gap", True, True, False, 3, 16, (False, True)),
    ("map", None, False, False, 2, 16, (False, True)),
    ("map", True, True, False, 3, 16, (False, True)),
    ("all", None, False, False, 2, 16, (False, True)),
    ("all", True, True, False, 3, 16, (False, True)),
    ("token+gap", None, True, False, 3, 32, (False, True)),
    ("token+distilled", None, True, True, 4, 32, (False, True)),
]


@pytest.mark.parametrize(("pooling", "class_token", "use_cls", "distilled", "first", "width", "norms"), FIRST)
def test_the_tokens_of_each_pooling(pooling, class_token, use_cls, distilled, first, width, norms):
    options = dict(pooling=pooling, class_token=class_token, num_registers=2)
    made = ViTConfig(**SMALL, **options)
    assert (made.use_cls, made.use_distilled) == (use_cls, distilled)
    assert (made.num_first_tokens, made.feature_width) == (first, width)
    for final_norm, expected in zip(("pooled", "tokens", "none"), (*norms, False), strict=True):
        assert ViTConfig(**SMALL, **options, final_norm=final_norm).normalises_tokens == expected


def test_every_argument_has_a_help_text_and_can_be_changed():
    names = [field.name for field in dataclasses.fields(ViTConfig)]
    assert all(helps(ViTConfig)[name] for name in names)
    assert {"image_shape", "num_classes", "patch_size", *CHANGEABLE} == set(names)


@pytest.mark.parametrize(
    ("dim", "patch_size", "widths"), [(64, 4, [16, 64]), (6, 2, [6]), (16, 8, [2, 4, 16])], ids=str
)
def test_widths_of_the_conv_stem(dim, patch_size, widths):
    assert config.conv_stem_widths(dim, patch_size) == widths
