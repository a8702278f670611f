import json
import math
import textwrap

import keras
import pytest
from keras import layers

import keras_vit
from keras_vit import ViT, summary
from keras_vit.model.summary import mult_adds

pytestmark = pytest.mark.same_on_every_backend

SMALL = dict(image_shape=(8, 12, 3), num_classes=5, patch_size=4, dim=16, depth=2, num_heads=2, mlp_dim=24)


@pytest.fixture(scope="module")
def model():
    return ViT.from_variant("defect/4", image_shape=(28, 28, 1), num_classes=6)


@pytest.fixture(scope="module")
def table(model):
    return summary(model, batch_size=64).to_dict()


def test_the_totals_of_the_reference(table):
    totals = table["totals"]
    per_image = (
        49 * 16 * 64
        + 6 * (50 * 64 * 768 + 2 * 4 * 50 * 50 * 64 + 50 * 256 * 64 + 2 * 50 * 64 * 128)
        + 64 * 128
        + 128 * 6
    )
    assert per_image == 32_315_136
    assert totals["mult_adds_per_image"] == per_image
    assert totals["mult_adds"] == 64 * per_image
    assert totals["parameters"] == totals["trainable"] == 508_166
    assert totals["non_trainable"] == 0
    assert totals["batch_size"] == 64
    assert totals["unknown"] == []
    assert round(totals["input_mb"], 2) == 0.20
    assert round(totals["forward_backward_mb"], 2) == 178.65
    assert totals["forward_backward_mb"] * 1e6 == pytest.approx(64 * 348_934 * 8, rel=1e-12)
    assert round(totals["parameters_mb"], 2) == 2.03
    assert totals["total_mb"] == pytest.approx(0.200704 + 178.654208 + 2.032664)


def test_the_rows_of_the_reference(table):
    top = {row["name"]: row for row in table["rows"] if row["depth"] == 0}
    parameters = {name: row["parameters"] for name, row in top.items() if row["parameters"]}
    assert parameters == {
        "patch_embed": 1_088,
        "add_cls": 64,
        "position_embedding": 3_200,
        **{f"block_{i}": 82_432 for i in range(6)},
        "norm": 128,
        "head_hidden": 8_320,
        "head": 774,
    }
    assert top["head"]["type"] == "Dense"
    assert top["head"]["output_shape"] == [64, 6]
    assert top["block_0"]["output_shape"] == [64, 50, 64]
    assert top["embedding_dropout"]["mult_adds"] == 0
    # The rows of depth 0 are the whole model.
    assert sum(row["parameters"] for row in top.values()) == 508_166
    assert sum(row["mult_adds"] for row in top.values()) == 32_315_136


def test_a_block_is_shown_with_its_parts(table):
    rows = table["rows"]
    start = next(i for i, row in enumerate(rows) if row["name"] == "block_3")
    parts = [
        (row["depth"], row["name"], row["parameters"], row["mult_adds"]) for row in rows[start : start + 9]
    ]
    products = 2 * 4 * 50 * 50 * 64
    assert parts == [
        (0, "block_3", 82_432, 50 * 64 * (768 + 256 + 2 * 128) + products),
        (1, "attention_norm", 128, 0),
        (1, "attention", 64 * 768 + 256 * 64 + 64, 50 * 64 * (768 + 256) + products),
        (2, "qkv", 64 * 768, 50 * 64 * 768),
        (2, "projection", 256 * 64 + 64, 50 * 256 * 64),
        (1, "mlp_norm", 128, 0),
        (1, "mlp", 64 * 128 + 128 + 128 * 64 + 64, 2 * 50 * 64 * 128),
        (2, "expand", 64 * 128 + 128, 50 * 64 * 128),
        (2, "contract", 128 * 64 + 64, 50 * 64 * 128),
    ]
    assert rows[start + 9]["name"] == "block_4"


def test_is_json(table):
    assert json.loads(json.dumps(table)) == table


def test_batch_size(model):
    one, many = summary(model).totals, summary(model, batch_size=10).totals
    assert one.batch_size == 1
    assert one.mult_adds == one.mult_adds_per_image == many.mult_adds_per_image
    assert many.forward_backward_mb == pytest.approx(10 * one.forward_backward_mb)
    assert many.parameters_mb == one.parameters_mb


def test_text(model):
    text = str(summary(model, batch_size=64))
    assert max(map(len, text.splitlines())) <= 80
    assert "Mult-adds per image    32.32 M" in text
    assert "Forward/backward       178.65 MB" in text
    assert "Parameters             508,166 (508,166 trainable, 0 not)" in text
    lines = text.splitlines()
    block = next(line for line in lines if line.startswith("block_0"))
    assert " ".join(block.split()) == "block_0 EncoderBlock 64 x 50 x 64 82,432 5.38 M"
    assert next(line for line in lines if "qkv" in line).startswith("    qkv ")


def test_exact_text_of_a_small_model():
    images = keras.Input((4, 4, 1))
    x = layers.Flatten(name="flat")(images)
    model = keras.Model(
        images, layers.Dense(2, name="a_name_that_is_much_too_long_for_a_terminal")(x), name="m"
    )
    assert str(summary(model, batch_size=3)) == textwrap.dedent(
        """\
        m
        -----------------------------------------------------------------------------
        Layer                           Type     Output shape  Parameters  Mult-adds
        -----------------------------------------------------------------------------
        flat                            Flatten        3 x 16           0          0
        a_name_that_is_much_too_long_…  Dense           3 x 2          34         32
        -----------------------------------------------------------------------------
        Parameters             34 (34 trainable, 0 not)
        Mult-adds per image    32
        Mult-adds per batch    96 (batch size 3)
        Input                  0.00 MB
        Forward/backward       0.00 MB
        Parameters             0.00 MB
        Estimated total        0.00 MB
        -----------------------------------------------------------------------------"""
    ).replace("-" * 77, "-" * 76)


def test_an_extractor_does_not_change_the_table(model):
    before = summary(model)
    for name in ("features", "patch_tokens"):
        model.extractor(name)
    assert summary(model) == before


def test_options():
    """Conv stem, registers, qk norm, SwiGLU, the pool: every product by hand."""
    model = ViT(**SMALL, stem="conv", num_registers=1, pooling="map", qk_norm=True, activation="swiglu")
    stem = 4 * 6 * 9 * 3 * 4 + 2 * 3 * 9 * 4 * 16
    tokens = 7
    block = tokens * 16 * 48 + 2 * tokens * tokens * 16 + tokens * 16 * 16 + tokens * (16 * 48 + 24 * 16)
    pool = 2 * 16 * 16 + 6 * 16 * 32 + 2 * 6 * 16 + 2 * 16 * 24
    table = summary(model)
    assert table.totals.mult_adds == stem + 2 * block + pool + 16 * 5
    assert table.totals.parameters == model.count_params()
    assert table.totals.non_trainable == 2 * (4 + 16)
    assert sum(row.parameters for row in table.rows if row.depth == 0) == model.count_params()
    outputs = 2 * (4 * 6 * 4 + 2 * 3 * 16)  # convolutions and their norms
    outputs += 2 * tokens * (16 + 48 + 2 * 16 + 16 + 16 + 48 + 16)
    outputs += 6 * 16  # the last norm
    outputs += 16 + 6 * 32 + 16 + 16 + 24 + 16 + 5
    assert table.totals.forward_backward_mb * 1e6 == pytest.approx(8 * outputs)


def test_half_precision_halves_the_outputs():
    full, half = (summary(ViT(**SMALL, dtype=dtype)).totals for dtype in ("float32", "mixed_bfloat16"))
    head = 5 * 4 * 2  # stays float32
    assert full.forward_backward_mb * 1e6 - head == pytest.approx(2 * (half.forward_backward_mb * 1e6 - head))
    assert half.parameters_mb == full.parameters_mb


@pytest.mark.parametrize(
    ("layer", "shape", "expected"),
    [
        (layers.Dense(7), (5, 3), 5 * 3 * 7),
        (layers.Conv1D(4, 3), (10, 2), 8 * 3 * 2 * 4),
        (layers.Conv2D(4, (3, 2), strides=2, padding="same"), (8, 6, 2), 4 * 3 * 6 * 2 * 4),
        (layers.Conv2D(4, 3, groups=2), (8, 8, 2), 6 * 6 * 9 * 1 * 4),
        (layers.Conv3D(2, 2), (3, 3, 3, 1), 8 * 8 * 2),
        (layers.Conv2DTranspose(4, 2, strides=2), (3, 3, 5), 9 * 4 * 5 * 4),
        (layers.DepthwiseConv2D(3, depth_multiplier=2), (5, 5, 4), 9 * 9 * 4 * 2),
        (layers.LayerNormalization(), (5, 4), 0),
        (layers.Activation("relu"), (5, 4), 0),
        (layers.SimpleRNN(3), (5, 4), None),
        (layers.Lambda(lambda x: x), (5, 4), None),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, layers.Layer) else None,
)
def test_mult_adds(layer, shape, expected):
    images = keras.Input(shape)
    table = summary(keras.Model(images, layer(images)), batch_size=2)
    assert [row.mult_adds for row in table.rows] == [expected]
    assert table.totals.mult_adds_per_image == expected
    assert table.totals.unknown == ([] if expected is not None else [layer.name])


class Scale(layers.Layer):
    def build(self, input_shape):
        self.weight = self.add_weight(shape=(input_shape[-1],), name="weight")

    def call(self, x):
        return x * self.weight


class KnownScale(Scale):
    pass


mult_adds.register(KnownScale, lambda layer, input_shape, output_shape: math.prod(input_shape[1:]))


def test_a_layer_without_a_rule_has_unknown_costs():
    images = keras.Input((4,))
    x = layers.Dense(3)(Scale(name="odd")(images))
    table = summary(keras.Model(images, x))
    assert [row.mult_adds for row in table.rows] == [None, 12]
    assert table.totals.mult_adds is None
    assert table.totals.unknown == ["odd"]
    assert "Mult-adds per image    ? (no rule for odd)" in str(table)
    assert table.totals.parameters == 4 + 15


def test_a_rule_can_be_added():
    images = keras.Input((4,))
    assert summary(keras.Model(images, KnownScale()(images))).totals.mult_adds == 4


def test_products_outside_layers_are_unknown():
    images = keras.Input((4, 4))
    table = summary(keras.Model(images, layers.Flatten()(images @ images)))
    assert table.totals.mult_adds is None
    assert table.rows[0].type == "Matmul"


def test_a_shared_layer_counts_twice_in_work_and_once_in_parameters():
    images = keras.Input((4,))
    dense = layers.Dense(4)
    table = summary(keras.Model(images, dense(dense(images))))
    assert [row.parameters for row in table.rows] == [20, 0]
    assert table.totals.mult_adds == 32
    assert table.totals.parameters == 20


def test_sequential_and_nested_models():
    inner = keras.Sequential([keras.Input((6,)), layers.Dense(4, name="inside")], name="inner")
    images = keras.Input((2, 3))
    table = summary(keras.Model(images, layers.Dense(2)(inner(layers.Flatten()(images)))))
    assert [(row.name, row.depth, row.mult_adds) for row in table.rows][1:3] == [
        ("inner", 0, 24),
        ("inside", 1, 24),
    ]
    assert table.totals.mult_adds == 24 + 8
    assert table.totals.forward_backward_mb * 1e6 == pytest.approx(8 * (4 + 2))
    assert [row.name for row in summary(inner).rows] == ["inside"]


def test_wrong_arguments(model):
    with pytest.raises(ValueError, match=r"batch_size must be 1 or more. Received: batch_size=0"):
        keras_vit.summary(model, batch_size=0)
    unbuilt = keras.Sequential([layers.Dense(2)], name="bare")
    with pytest.raises(ValueError, match=r"Received: Sequential 'bare', which has none"):
        summary(unbuilt)
    images = keras.Input((None, 4))
    with pytest.raises(ValueError, match="summary needs every size but that of the batch"):
        summary(keras.Model(images, layers.Dense(2)(images)))
