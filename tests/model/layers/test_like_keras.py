"""Our layers behave as Keras's own in what its layer tests and those of KerasHub check."""

import keras
import numpy as np
import pytest

from keras_vit import MLP, AddCLS, AttentionPool, EncoderBlock, PatchEmbed, SelfAttention
from keras_vit.model.layers.batch_norm import BatchNorm
from tests.helpers.checks import functional, random_input, to_numpy
from tests.helpers.keras_checks import (
    POLICIES,
    check_masking,
    check_names,
    check_precision,
    check_quantization,
    check_serialization,
    check_training,
)
from tests.helpers.layer_cases import IMAGES, LAYERS, TOKENS, cubed, unknown_sizes

WITH_KERNELS = {
    PatchEmbed: (dict(dim=8, patch_size=4), IMAGES),
    SelfAttention: (dict(num_heads=2), TOKENS),
    MLP: (dict(mlp_dim=12), TOKENS),
    EncoderBlock: (dict(num_heads=2, mlp_dim=12), TOKENS),
    AttentionPool: (dict(num_heads=2, mlp_dim=12), TOKENS),
}
kernels = pytest.mark.parametrize("kind", WITH_KERNELS, ids=lambda kind: kind.__name__)


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("case", LAYERS)
def test_serialization(case):
    kind, given, _ = LAYERS[case]
    check_serialization(kind, given)


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("case", LAYERS)
def test_masks_are_not_destroyed(case):
    kind, given, shape = LAYERS[case]
    if len(shape) == 3 and kind is not BatchNorm:
        check_masking(kind, given, shape)


@pytest.mark.parametrize("case", LAYERS)
def test_precision(case):
    kind, given, shape = LAYERS[case]
    for policy in POLICIES:
        check_precision(kind, given, shape, policy)


@pytest.mark.parametrize("case", LAYERS)
def test_names_of_variables_do_not_count_the_layers_of_the_process(case):
    kind, given, shape = LAYERS[case]
    check_names(kind, given, shape)


@pytest.mark.parametrize(
    "case", ["patches, norm, no bias", "conv stem", "block, all options", "block, remat"]
)
def test_trains_on_several_shapes(case):
    kind, given, shape = LAYERS[case]
    other = (3, 12, 8, 3) if kind is PatchEmbed else (3, 9, 8)
    check_training(kind, given, [shape, other])


@pytest.mark.parametrize(
    "case", ["patches", "conv stem", "mlp, swiglu", "block, all options", "attention pool"]
)
def test_quantization(case, tmp_path):
    kind, given, shape = LAYERS[case]
    check_quantization(kind, given, shape, tmp_path)


@pytest.mark.parametrize("case", LAYERS)
def test_sizes_may_be_unknown(case):
    """A functional model with `None` for all that is not a channel gives the same."""
    kind, given, shape = LAYERS[case]
    if kind.__name__ == "PositionEmbedding" and len(shape) == 3:
        pytest.skip("tokens without a grid have one number")
    layer, x = kind(**given), random_input(shape)
    unknown = keras.Input(unknown_sizes(case)[1:])
    model = keras.Model(unknown, layer(unknown))
    expected = to_numpy(layer(x))
    assert all(
        size is None or size == real for size, real in zip(model.output_shape, expected.shape, strict=True)
    )
    np.testing.assert_allclose(to_numpy(model(x)), expected, atol=1e-6)
    np.testing.assert_allclose(model.predict(x, batch_size=3, verbose=0), expected, atol=1e-5)


# Kernels.


@kernels
def test_kernels_have_the_initializer_and_the_regularizer(kind):
    given, shape = WITH_KERNELS[kind]
    layer = kind(**given, kernel_initializer=keras.initializers.Constant(0.5), kernel_regularizer="l2")
    layer(random_input(shape))
    found = [weight for weight in layer.weights if weight.name == "kernel"]
    assert found
    for weight in found:
        np.testing.assert_array_equal(to_numpy(weight), 0.5)
    # 0.01 is Keras's factor of "l2".
    expected = sum(0.01 * 0.25 * np.prod(weight.shape) for weight in found)
    assert sum(to_numpy(loss) for loss in layer.losses) == pytest.approx(expected, rel=1e-4)


@kernels
def test_kernels_of_one_initializer_differ(kind):
    given, shape = WITH_KERNELS[kind]
    layer = kind(**given, kernel_initializer=keras.initializers.RandomNormal(1.0))
    layer.build(shape)
    values = [tuple(to_numpy(w).ravel()[:3]) for w in layer.weights if w.name == "kernel"]
    assert len(set(values)) == len(values)


@kernels
def test_unknown_initializers_are_refused_at_once(kind):
    given, _ = WITH_KERNELS[kind]
    with pytest.raises(ValueError, match="glorrot"):
        kind(**given, kernel_initializer="glorrot")


@kernels
def test_lora_of_all_kernels_comes_back_from_files(kind, tmp_path):
    given, shape = WITH_KERNELS[kind]
    layer, x = kind(**given), random_input(shape)
    model = functional(layer, shape)
    before, kernels_ = to_numpy(layer(x)), sum(w.name == "kernel" for w in layer.trainable_weights)
    layer.enable_lora(2)
    names = [weight.name for weight in layer.trainable_weights]
    assert names.count("lora_kernel_a") == names.count("lora_kernel_b") == kernels_
    assert "kernel" not in names
    np.testing.assert_allclose(to_numpy(layer(x)), before, atol=1e-6)
    for weight in layer.trainable_weights:
        weight.assign(weight + 0.1)
    expected = to_numpy(layer(x))
    assert abs(expected - before).max() > 1e-3
    model.save(tmp_path / "lora.keras")
    loaded = keras.saving.load_model(tmp_path / "lora.keras")
    np.testing.assert_allclose(to_numpy(loaded(x)), expected, atol=1e-6)
    assert len(loaded.trainable_weights) == len(layer.trainable_weights)


def test_lora_before_the_weights_is_refused():
    with pytest.raises(ValueError, match="Build same before enable_lora"):
        MLP(mlp_dim=12, name="same").enable_lora(2)


# Activations.

NAMES = [
    name
    for name in dir(keras.activations)
    if name not in ("get", "serialize", "deserialize", "threshold") and name[0] != "_"
]


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("name", NAMES)
def test_every_activation_of_keras(name):
    layer, x = MLP(mlp_dim=6, activation=name), random_input((2, 5, 8))
    layer.build(x.shape)
    for dense in (layer.expand, layer.contract):
        dense.bias.assign(random_input(dense.bias.shape))
    hidden = keras.activations.get(name)(layer.expand(x))
    expected = to_numpy(layer.contract(hidden))
    np.testing.assert_allclose(to_numpy(layer(x)), expected, atol=1e-5)


@pytest.mark.parametrize("activation", [cubed, keras.activations.mish, keras.layers.LeakyReLU(0.3)])
def test_an_activation_may_be_a_function(activation, tmp_path):
    block, x = EncoderBlock(num_heads=2, mlp_dim=6, activation=activation), random_input((2, 5, 8))
    model = functional(block, x.shape)
    expected = to_numpy(activation(block.mlp.expand(x)))
    np.testing.assert_allclose(to_numpy(block.mlp(x)), to_numpy(block.mlp.contract(expected)), atol=1e-5)
    model.save(tmp_path / "model.keras")
    loaded = keras.saving.load_model(tmp_path / "model.keras")
    np.testing.assert_allclose(to_numpy(loaded(x)), to_numpy(model(x)), atol=1e-6)


# Seeds.


def drawn(layer, x):
    return to_numpy(layer(x, training=True))


def test_a_seed_fixes_the_dropout_of_a_block_and_of_its_copies():
    given = dict(num_heads=2, mlp_dim=6, dropout_rate=0.3, attention_dropout_rate=0.3, drop_path_rate=0.3)
    x = random_input((8, 5, 8))
    one, other, random_one = (EncoderBlock(**given, seed=seed) for seed in (7, 8, None))
    copy = EncoderBlock.from_config(one.get_config())
    assert copy.seed == 7
    for block in (one, other, random_one, copy):
        block.build(x.shape)
        block.set_weights(one.get_weights())
    first = drawn(one, x)
    np.testing.assert_allclose(drawn(copy, x), first, atol=1e-5)
    for block in (other, random_one, one):  # the next draw of the same block is another one too
        assert abs(drawn(block, x) - first).max() > 1e-3


def test_dropouts_of_one_seed_differ():
    block = EncoderBlock(num_heads=2, mlp_dim=8, dropout_rate=0.5, attention_dropout_rate=0.5, seed=7)
    ones = np.ones((2, 5, 8), "float32")
    dropouts = (block.attention.dropout, block.attention.attention_dropout, block.mlp.dropout)
    masks = [drawn(dropout, ones) for dropout in dropouts]
    assert all(not np.array_equal(a, b) for i, a in enumerate(masks) for b in masks[:i])


@pytest.mark.parametrize("seed", [-1, 2**31, 1.5, "7", True])
def test_wrong_seeds(seed):
    for make in (SelfAttention, lambda **given: MLP(mlp_dim=4, **given)):
        with pytest.raises(ValueError, match="seed must be"):
            make(**({"num_heads": 2} if make is SelfAttention else {}), seed=seed)


def test_the_class_token_gets_a_mask_of_its_own():
    mask = np.array([[True, False, True], [False, False, True]])
    made = to_numpy(AddCLS(num_registers=1).compute_mask(None, keras.ops.convert_to_tensor(mask)))
    np.testing.assert_array_equal(made, np.concatenate([np.ones((2, 2)), mask], axis=1))


@pytest.mark.parametrize(
    "case", ["first tokens", "attention", "mlp, gelu", "block", "layer scale", "attention pool"]
)
def test_another_width_is_refused_not_broadcast(case):
    kind, given, shape = LAYERS[case]
    layer = kind(**given)
    layer(random_input(shape))
    for width in (1, 4):
        with pytest.raises(ValueError, match="axis -1 of input shape to have value 8"):
            layer(random_input((*shape[:-1], width)))
