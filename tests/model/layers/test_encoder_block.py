import keras
import numpy as np
import pytest
from keras import ops

from keras_vit import EncoderBlock
from tests.helpers.checks import check_layer, functional, layer_norm, random_input, randomize, to_numpy

# At dim 8 with an MLP of 12: two norms; qkv and projection with biases; the MLP.
NORMS, MLP = 4 * 8, 8 * 12 + 12 + 12 * 8 + 8
ATTENTION = 8 * 24 + 24 + 8 * 8 + 8

CASES = {
    "plain": (dict(num_heads=2, mlp_dim=12), 12, NORMS + ATTENTION + MLP),
    "no qkv bias, free head width": (
        dict(num_heads=2, mlp_dim=12, head_dim=8, qkv_bias=False),
        11,
        NORMS + 8 * 48 + 16 * 8 + 8 + MLP,
    ),
    "qk norm, layer scale, swiglu": (
        dict(num_heads=2, mlp_dim=12, qk_norm=True, layer_scale=1e-5, activation="swiglu"),
        18,
        NORMS + ATTENTION + 4 * 4 + 2 * 8 + MLP + 8 * 12 + 12,
    ),
    "no biases but of qkv, another epsilon": (
        dict(num_heads=2, mlp_dim=12, projection_bias=False, mlp_bias=False, norm_epsilon=1e-5, qk_norm=True),
        13,
        NORMS + ATTENTION - 8 + 4 * 4 + MLP - 12 - 8,
    ),
    "dropout": (
        dict(num_heads=2, mlp_dim=12, dropout_rate=0.1, attention_dropout_rate=0.1, drop_path_rate=0.2),
        12,
        NORMS + ATTENTION + MLP,
    ),
    "remat": (
        dict(num_heads=2, mlp_dim=12, remat=True, drop_path_rate=0.1, layer_scale=0.5),
        14,
        NORMS + ATTENTION + MLP + 2 * 8,
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_is_a_layer(case):
    kwargs, weights, parameters = CASES[case]
    check_layer(
        EncoderBlock,
        kwargs,
        (8, 5, 8),
        expected_output_shape=(8, 5, 8),
        expected_weights=weights,
        expected_parameters=parameters,
        no_gradient=("key_norm/beta",),
    )


def test_the_reference_block_has_82432_parameters():
    block = EncoderBlock(num_heads=4, head_dim=64, mlp_dim=128, qkv_bias=False)
    block.build((None, 50, 64))
    assert block.count_params() == 82_432


@pytest.mark.parametrize("epsilon", [1e-6, 1e-2])
@pytest.mark.parametrize("layer_scale", [None, 0.3])
def test_is_two_residual_branches_with_norms_first(layer_scale, epsilon):
    block = EncoderBlock(num_heads=2, mlp_dim=12, layer_scale=layer_scale, norm_epsilon=epsilon)
    x = 0.1 * random_input((3, 5, 8))
    block.build(x.shape)
    randomize(block)
    scales = (
        (1.0, 1.0)
        if layer_scale is None
        else (to_numpy(block.attention_scale.scale), to_numpy(block.mlp_scale.scale))
    )
    normed = layer_norm(x, *block.attention_norm.get_weights(), epsilon).astype("float32")
    middle = x + to_numpy(block.attention(normed)) * scales[0]
    normed = layer_norm(middle, *block.mlp_norm.get_weights(), epsilon).astype("float32")
    expected = middle + to_numpy(block.mlp(normed)) * scales[1]
    np.testing.assert_allclose(to_numpy(block(x)), expected, atol=1e-4)
    out, attention = block.attend(ops.convert_to_tensor(x))
    np.testing.assert_allclose(to_numpy(out), expected, atol=1e-4)
    assert tuple(attention.shape) == (3, 2, 5, 5)


@pytest.mark.parametrize("remat", [False, True])
def test_the_attention_in_training(remat):
    """Training uses the same path as inference, with rematerialisation too."""
    block = EncoderBlock(num_heads=2, mlp_dim=12, layer_scale=0.3, remat=remat)
    x = ops.convert_to_tensor(random_input((3, 5, 8)))
    out, attention = block(x, training=True, return_attention=True)
    np.testing.assert_allclose(to_numpy(out), to_numpy(block(x)), atol=1e-5)
    np.testing.assert_allclose(to_numpy(attention), to_numpy(block.attend(x)[1]), atol=1e-5)


def test_layer_scale_starts_at_its_value():
    block = EncoderBlock(num_heads=2, mlp_dim=12, layer_scale=1e-5)
    x = random_input((3, 5, 8))
    y = to_numpy(block(x))
    np.testing.assert_array_equal(to_numpy(block.mlp_scale.scale), np.float32(1e-5))
    np.testing.assert_allclose(y, x, atol=1e-3)
    assert not np.array_equal(y, x)


def test_stochastic_depth_drops_or_scales_whole_branches():
    rate = 0.25
    block = EncoderBlock(num_heads=2, mlp_dim=12, drop_path_rate=rate)
    x = random_input((400, 3, 8))
    block.build(x.shape)
    branch = to_numpy(block.attention(block.attention_norm(x)))
    block.mlp.contract.kernel.assign(np.zeros((12, 8)))  # only the first branch remains
    np.testing.assert_allclose(to_numpy(block(x)), x + branch, atol=1e-5)
    added = to_numpy(block(x, training=True)) - x
    dropped = abs(added).max(axis=(1, 2)) == 0
    np.testing.assert_allclose(added[~dropped], branch[~dropped] / (1 - rate), atol=1e-5)
    assert dropped.mean() == pytest.approx(rate, abs=0.08)
    again = to_numpy(block(x, training=True)) - x
    assert (dropped != (abs(again).max(axis=(1, 2)) == 0)).any()


def test_stochastic_depth_draws_for_each_branch():
    block = EncoderBlock(num_heads=2, mlp_dim=12, drop_path_rate=0.5)
    x = random_input((64, 3, 8))
    block.build(x.shape)
    # The branches are the constants 1 and 10, so that the sum shows which branches were kept.
    for dense, value in ((block.attention.projection, 1.0), (block.mlp.contract, 10.0)):
        dense.kernel.assign(np.zeros(dense.kernel.shape))
        dense.bias.assign(np.full(dense.bias.shape, value))
    added = (to_numpy(block(x, training=True)) - x)[:, 0, 0]
    assert set(np.round(added).astype(int).tolist()) == {0, 2, 20, 22}


def test_remat_changes_neither_outputs_nor_gradients():
    x, target = random_input((8, 5, 8)), random_input((8, 5, 8), seed=1)
    weights, outputs = None, []
    for remat in (False, True):
        block = EncoderBlock(num_heads=2, mlp_dim=12, layer_scale=0.5, remat=remat)
        model = functional(block, x.shape)
        if weights is None:
            weights = randomize(block).get_weights()
        block.set_weights(weights)
        # A step of SGD with learning rate 1 equals the gradient.
        model.compile(keras.optimizers.SGD(1.0), loss="mse", jit_compile=False)
        model.fit(x, target, batch_size=8, verbose=0)
        outputs.append([to_numpy(weight) - old for weight, old in zip(block.weights, weights, strict=True)])
    for weight, plain, again in zip(block.weights, *outputs, strict=True):
        np.testing.assert_allclose(again, plain, atol=1e-5, err_msg=weight.path)
        assert abs(plain).max() > 1e-4, weight.path


WRONG = [
    (dict(remat=True, dropout_rate=0.1), "use drop_path_rate instead. Received: dropout_rate=0.1"),
    (dict(remat=True, attention_dropout_rate=0.2), "attention_dropout_rate=0.2"),
    (dict(num_heads=0), "num_heads must be 1 or more. Received: num_heads=0"),
    (dict(mlp_dim=0), "mlp_dim must be 1 or more. Received: mlp_dim=0"),
    (dict(activation="x"), "activation must be one of 'gelu', "),
    (dict(num_heads=3), "num_heads must divide dim, unless head_dim is given. Received: num_heads=3, dim=8"),
    (dict(norm_epsilon=0.0), "norm_epsilon must be above 0.0 and 0.01 at most. Received: norm_epsilon=0.0"),
    (dict(projection_bias=None), "projection_bias must be true or false. Received: projection_bias=None"),
    (
        dict(drop_path_rate=1.5),
        "drop_path_rate must be 0.0 or more and below 1.0. Received: drop_path_rate=1.5",
    ),
]


@pytest.mark.parametrize(("kwargs", "message"), WRONG)
def test_wrong_arguments(kwargs, message):
    with pytest.raises(ValueError) as caught:  # noqa: PT011 (the text is compared below)
        EncoderBlock(**{"num_heads": 2, "mlp_dim": 12, **kwargs}).build((None, 5, 8))
    assert message in str(caught.value)
