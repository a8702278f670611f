"""The poolings that a ViT has, as layers for a Sequential."""

import keras
import numpy as np
import pytest

from keras_vit import (
    AddCLS,
    AttentionPool,
    EncoderBlock,
    MeanPool,
    PatchEmbed,
    PositionEmbedding,
    TokenPool,
    ViT,
)
from tests.helpers.checks import check_layer, random_input, to_numpy

SHAPE = (4, 5, 8)


@pytest.mark.parametrize("index", [0, 1, -1])
def test_token_pool(index):
    check_layer(
        TokenPool,
        dict(index=index),
        SHAPE,
        expected_output_shape=(4, 8),
        expected_weights=0,
        expected_parameters=0,
    )
    x = random_input(SHAPE)
    np.testing.assert_array_equal(to_numpy(TokenPool(index=index)(x)), x[:, index])


@pytest.mark.parametrize("first", [0, 2])
def test_mean_pool(first):
    check_layer(
        MeanPool,
        dict(num_prefix_tokens=first),
        SHAPE,
        expected_output_shape=(4, 8),
        expected_weights=0,
        expected_parameters=0,
    )
    x = random_input(SHAPE)
    expected = x[:, first:].mean(axis=1)
    np.testing.assert_allclose(to_numpy(MeanPool(num_prefix_tokens=first)(x)), expected, atol=1e-6)


def test_attention_pool_leaves_first_tokens_out():
    layer, x = AttentionPool(num_heads=2, mlp_dim=12, num_prefix_tokens=2), random_input(SHAPE)
    out = to_numpy(layer(x))
    layer.num_prefix_tokens = 0
    np.testing.assert_allclose(to_numpy(layer(x[:, 2:])), out, atol=1e-6)


POOLS = {
    "token": (lambda: TokenPool(name="pool"), dict()),
    "gap": (lambda: MeanPool(num_prefix_tokens=3, name="pool"), dict(class_token=True)),
    "map": (
        lambda: AttentionPool(num_heads=2, mlp_dim=12, num_prefix_tokens=3, name="pool"),
        dict(class_token=True),
    ),
    "all": (lambda: MeanPool(name="pool"), dict(class_token=True)),
}


@pytest.mark.parametrize("pooling", POOLS)
def test_a_sequential_is_the_vit_of_the_same_weights(pooling):
    make, given = POOLS[pooling]
    vit = ViT(
        (8, 12, 3), 5, patch_size=4, dim=8, depth=1, num_heads=2, mlp_dim=12, num_registers=2,
        pooling=pooling, final_norm="pooled", **given,
    )  # fmt: skip
    model = keras.Sequential(
        [
            keras.Input((8, 12, 3)),
            PatchEmbed(dim=8, patch_size=4),
            AddCLS(num_registers=2),
            PositionEmbedding(grid=(2, 3), num_registers=2),
            EncoderBlock(num_heads=2, mlp_dim=12),
            make(),
            keras.layers.LayerNormalization(epsilon=1e-6),
            keras.layers.Dense(5),
        ]
    )
    model.set_weights(vit.get_weights())
    x = random_input((4, 8, 12, 3))
    np.testing.assert_allclose(model.predict(x, verbose=0), to_numpy(vit(x)), atol=1e-5)


WRONG = [
    (lambda: TokenPool(index=0.5), "index must be a whole number"),
    (lambda: MeanPool(num_prefix_tokens=-1), "num_prefix_tokens must be 0 or more"),
    (lambda: AttentionPool(2, 12, num_prefix_tokens=-1), "num_prefix_tokens must be 0 or more"),
]


@pytest.mark.parametrize(("make", "message"), WRONG)
def test_wrong_arguments(make, message):
    with pytest.raises(ValueError, match=message):
        make()


@pytest.mark.parametrize("make", [MeanPool, lambda **given: AttentionPool(2, 12, **given)])
def test_a_token_must_be_left(make):
    pool = make(num_prefix_tokens=5)
    for x in (random_input(SHAPE), keras.Input(SHAPE[1:])):
        with pytest.raises(ValueError, match=r"must leave a token to pool. .*=5, 5 tokens"):
            pool(x)


@pytest.mark.parametrize("index", [5, -6])
def test_the_token_must_be_there(index):
    for x in (random_input(SHAPE), keras.Input(SHAPE[1:])):
        with pytest.raises(ValueError, match=f"index must be that of a token. Received: index={index}, 5"):
            TokenPool(index=index)(x)
