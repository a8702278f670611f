"""`cost` counts from the values of a config what the built model has."""

import dataclasses

import keras
import pytest

from keras_vit import ViT, summary
from keras_vit.errors import InputError
from keras_vit.model import cost
from keras_vit.model.config import ViTConfig, variant_arguments

SMALL = dict(image_shape=(8, 12, 3), num_classes=5, patch_size=4, dim=16, depth=1, num_heads=2, mlp_dim=24)

# Every argument with a value that is not its default, alone and with the arguments it is combined with.
CONFIGS = {
    "plain": dict(),
    "gray": dict(image_shape=(8, 12, 1)),
    "four channels, tall": dict(image_shape=(12, 8, 4)),
    "one class": dict(num_classes=1),
    "many classes": dict(num_classes=1000),
    "patch 2": dict(patch_size=2),
    "patch 1": dict(image_shape=(3, 5, 1), patch_size=1),
    "one patch": dict(image_shape=(4, 4, 3)),
    "narrow": dict(dim=4, num_heads=1),
    "one head": dict(num_heads=1),
    "a head per channel": dict(num_heads=16),
    "three blocks": dict(depth=3),
    "default mlp_dim": dict(mlp_dim=None),
    "mlp of 1": dict(mlp_dim=1),
    "head_dim": dict(head_dim=12),
    "head_dim, heads that do not divide dim": dict(head_dim=5, num_heads=3),
    "conv": dict(stem="conv"),
    "conv, patch 2": dict(stem="conv", patch_size=2),
    "conv-pool, patch 8": dict(stem="conv-pool", patch_size=8, image_shape=(16, 8, 1)),
    "conv, patch 8": dict(stem="conv", patch_size=8, image_shape=(16, 8, 1)),
    "conv, patch 16": dict(stem="conv", patch_size=16, image_shape=(16, 48, 3), depth=2),
    "one register": dict(num_registers=1),
    "registers, conv": dict(num_registers=4, stem="conv"),
    "sincos2d": dict(position="sincos2d"),
    "sincos2d, registers": dict(position="sincos2d", num_registers=3),
    "sincos2d, gap": dict(position="sincos2d", pooling="gap"),
    "gap": dict(pooling="gap"),
    "gap, registers": dict(pooling="gap", num_registers=2),
    "gap, conv, depth 2": dict(pooling="gap", stem="conv", depth=2),
    "map": dict(pooling="map"),
    "map, registers": dict(pooling="map", num_registers=2),
    "map, four heads": dict(pooling="map", num_heads=4),
    "map, head_dim": dict(pooling="map", head_dim=6),
    "map, swiglu": dict(pooling="map", activation="swiglu"),
    "map, default mlp_dim": dict(pooling="map", mlp_dim=None),
    "hidden head": dict(head_hidden_dim=7),
    "hidden head, gap": dict(head_hidden_dim=7, pooling="gap"),
    "no qkv bias": dict(qkv_bias=False),
    "no qkv bias, head_dim": dict(qkv_bias=False, head_dim=10),
    "qk_norm": dict(qk_norm=True),
    "qk_norm, head_dim": dict(qk_norm=True, head_dim=12, qkv_bias=False),
    "swiglu": dict(activation="swiglu"),
    "swiglu, default mlp_dim": dict(activation="swiglu", mlp_dim=None),
    "dropout": dict(dropout_rate=0.1, attention_dropout_rate=0.2, head_hidden_dim=6),
    "drop path": dict(drop_path_rate=0.3, depth=2),
    "layer scale": dict(layer_scale=1e-5),
    "layer scale, depth 2": dict(layer_scale=1.0, depth=2),
    "remat": dict(remat=True, drop_path_rate=0.1),
    "no head": dict(num_classes=0),
    "no head, half of one": dict(num_classes=0, head_hidden_dim=7, pooling="token+gap"),
    "epsilon": dict(norm_epsilon=1e-5),
    "pre-norm": dict(pre_norm=True),
    "norm of the pooled": dict(final_norm="pooled", pooling="gap"),
    "norm of the pooled token": dict(final_norm="pooled"),
    "norm of two pooled": dict(final_norm="pooled", pooling="token+gap", num_registers=1),
    "norm of the pooled, map": dict(final_norm="pooled", pooling="map", class_token=True),
    "no norm": dict(final_norm="none"),
    "no norm, map": dict(final_norm="none", pooling="map"),
    "no patch bias": dict(patch_bias=False),
    "patch norm": dict(patch_norm=True),
    "patch norm, no bias": dict(patch_norm=True, patch_bias=False, depth=2),
    "no projection bias": dict(projection_bias=False),
    "no mlp bias": dict(mlp_bias=False),
    "no mlp bias, swiglu, map": dict(mlp_bias=False, activation="swiglu", pooling="map"),
    "tanh": dict(head_activation="tanh", head_hidden_dim=7),
    "class token and gap": dict(class_token=True, pooling="gap"),
    "class token and gap, no position": dict(class_token=True, pooling="gap", class_position=False),
    "no class position": dict(class_position=False),
    "token+gap": dict(pooling="token+gap", num_registers=2),
    "all": dict(pooling="all", class_token=True, num_registers=2),
    "all, no first tokens": dict(pooling="all"),
    "distilled": dict(pooling="token+distilled"),
    "distilled, hidden head": dict(pooling="token+distilled", head_hidden_dim=7, final_norm="pooled"),
    "distilled, no class position": dict(
        pooling="token+distilled", class_position=False, num_registers=2, final_norm="none"
    ),
    "distilled, sincos2d": dict(pooling="token+distilled", position="sincos2d"),
    "relu": dict(activation="relu"),
    "everything": dict(
        stem="conv", num_registers=2, position="sincos2d", pooling="map", head_hidden_dim=12, head_dim=12,
        qkv_bias=False, qk_norm=True, activation="swiglu", drop_path_rate=0.1, layer_scale=0.1, remat=True,
        depth=2,
    ),
    "defect/4": dict(variant_arguments("defect/4"), image_shape=(28, 28, 1), depth=1),
    "defect-conv/4": dict(variant_arguments("defect-conv/4"), image_shape=(28, 28, 1), depth=1),
    "defect-pool/8": dict(variant_arguments("defect-pool/8"), image_shape=(56, 56, 1), depth=1),
}  # fmt: skip


def flat(parts, depth=0):
    """The rows of `summary`, made from the tree of costs."""
    for part in parts:
        yield part.name, part.type, [1, *part.output_shape], part.parameters, part.mult_adds, depth
        yield from flat(part.parts, depth + 1)


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("changes", CONFIGS.values(), ids=CONFIGS)
def test_the_cost_is_that_of_the_built_model(changes):
    config = ViTConfig(**{**SMALL, **changes})
    model = ViT(**dataclasses.asdict(config))
    table = summary(model)
    rows = [dataclasses.astuple(row)[:-1] for row in table.rows]
    assert list(flat(cost.vit(config).parts)) == rows
    assert cost.count_parameters(config) == table.totals.parameters == model.count_params()
    assert cost.count_mult_adds(config) == table.totals.mult_adds
    assert cost.count_activation_bytes(config) == round(table.totals.forward_backward_mb * 1e6)


@pytest.mark.same_on_every_backend
def test_half_precision():
    config = ViTConfig(**SMALL, stem="conv", pooling="map", head_hidden_dim=3)
    totals = summary(ViT(**dataclasses.asdict(config), dtype="mixed_bfloat16")).totals
    assert cost.count_activation_bytes(config, bytes_per_value=2) == round(totals.forward_backward_mb * 1e6)


@pytest.mark.same_on_every_backend
def test_every_argument_is_in_the_table():
    names = {field.name for field in dataclasses.fields(ViTConfig)}
    assert {name for changes in CONFIGS.values() for name in changes} == names
    assert len(CONFIGS) >= 40


# The layers alone, with their parameters counted by hand.
ALONE = {
    "patch_embed": (cost.patch_embed((8, 8, 3), dim=16, patch_size=4), 48 * 16 + 16),
    "add_cls": (cost.add_cls((9, 8), use_cls=False, num_registers=2), 16),
    "position_embedding": (cost.position_embedding((10, 8), grid=(3, 3)), 80),
    "mlp": (cost.mlp((5, 8), mlp_dim=12), 2 * 8 * 12 + 12 + 8),
    "patch_embed ": (
        cost.patch_embed((8, 8, 3), dim=16, patch_size=4, patch_bias=False, patch_norm=True),
        2 * 48 + 48 * 16 + 2 * 16,
    ),
    "add_cls ": (cost.add_cls((9, 8), use_distilled=True, num_registers=2), 32),
    "position_embedding ": (cost.position_embedding((11, 8), grid=(3, 3), use_distilled=True), 88),
    "position_embedding  ": (cost.position_embedding((10, 8), grid=(3, 3), class_position=False), 72),
    "mlp ": (cost.mlp((5, 8), mlp_dim=12, mlp_bias=False), 2 * 8 * 12),
    "attention ": (cost.self_attention((5, 8), num_heads=2, projection_bias=False), 4 * 64 + 24),
    "layer_scale": (cost.layer_scale((5, 8)), 8),
    "attention": (cost.self_attention((5, 8), num_heads=2), 4 * (8 * 8 + 8)),
    "attention_pool": (
        cost.attention_pool((5, 8), num_heads=2, mlp_dim=12),
        8 + 4 * 72 + 16 + 2 * 8 * 12 + 12 + 8,
    ),
}


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(("name", "found", "parameters"), [(name, *case) for name, case in ALONE.items()])
def test_a_layer_alone(name, found, parameters):
    assert (found.name, found.parameters) == (name.strip(), parameters)


WRONG = {
    "heads": (lambda: cost.self_attention((5, 8), num_heads=3), "num_heads must divide dim"),
    "pool": (lambda: cost.attention_pool((5, 8), 3, 12), "num_heads must divide dim in attention pooling"),
    "patches": (
        lambda: cost.patch_embed((8, 9, 3), 16, 4),
        "patch_size must divide the height and the width",
    ),
    "stem": (lambda: cost.patch_embed((6, 6, 3), 16, 6, "conv"), "patch_size must be 2, 4, 8, 16"),
}


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG)
def test_sizes_that_do_not_divide(make, message):
    with pytest.raises(InputError, match=message):
        make()


@pytest.mark.same_on_every_backend
def test_a_layer_scale_on_its_own_and_in_a_hand_built_model():
    """Its weights count but its output does not, since other tools show only a weight."""
    from keras_vit import EncoderBlock, LayerScale

    tokens = keras.Input((5, 8))
    block = EncoderBlock(num_heads=2, mlp_dim=12, layer_scale=0.1, name="block")
    table = summary(keras.Model(tokens, LayerScale(name="scale")(block(block(tokens)))))
    by_name = [(row.name, row.parameters, row.output_bytes) for row in table.rows if row.depth == 0]
    alone = cost.encoder_block((5, 8), num_heads=2, mlp_dim=12, layer_scale=0.1)
    assert by_name == [("block", alone.parameters, 0), ("block", 0, 0), ("scale", 8, 0)]
    assert table.totals.mult_adds == 2 * alone.mult_adds
