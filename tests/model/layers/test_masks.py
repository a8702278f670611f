"""Tokens that a mask leaves out change nothing; masks reach the end of a model."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_vit import AddCLS, AttentionPool, EncoderBlock, MeanPool, SelfAttention, TokenPool
from tests.helpers.checks import attention, random_input, to_numpy

BATCH, TOKENS, DIM = 3, 6, 8
KEPT = np.array([[1, 1, 1, 0, 0, 0], [1, 1, 0, 1, 1, 0], [1, 1, 1, 1, 1, 1]], bool)
ENCODERS = {
    "attention": lambda **given: SelfAttention(num_heads=2, **given),
    "qk norm": lambda **given: SelfAttention(num_heads=2, qk_norm=True, **given),
    "block": lambda **given: EncoderBlock(num_heads=2, mlp_dim=12, **given),
    "remat": lambda **given: EncoderBlock(num_heads=2, mlp_dim=12, remat=True, **given),
}
encoders = pytest.mark.parametrize("name", ENCODERS)


def masked_inputs(x, mask=KEPT):
    """Tokens with a mask, as Keras's Masking gives them; those that are masked are 0."""
    kept = np.where(mask[..., None], x, 0.0).astype("float32")
    return keras.layers.Masking()(ops.convert_to_tensor(kept))


@encoders
def test_padding_changes_nothing(name):
    layer, x = ENCODERS[name](), random_input((BATCH, TOKENS, DIM))
    for given in (dict(padding_mask=KEPT), dict(mask=KEPT)):
        out = to_numpy(layer(x, **given))
        for image, kept, of_all in zip(x, KEPT, out, strict=True):
            alone = to_numpy(layer(image[kept][None]))[0]
            np.testing.assert_allclose(of_all[kept], alone, atol=1e-5)


@encoders
@pytest.mark.parametrize("training", [False, True])
def test_the_mask_of_keras_is_used_and_passed_on(name, training):
    layer, x = ENCODERS[name](), masked_inputs(random_input((BATCH, TOKENS, DIM)))
    out = layer(x, training=training)
    np.testing.assert_allclose(to_numpy(out), to_numpy(layer(to_numpy(x), padding_mask=KEPT)), atol=1e-5)
    np.testing.assert_array_equal(to_numpy(out._keras_mask), KEPT)
    # Both masks count if both are there.
    causal = np.tril(np.ones((TOKENS, TOKENS), bool))
    both = layer(x, attention_mask=causal)
    pairs = KEPT[:, None] & causal
    np.testing.assert_allclose(to_numpy(both), to_numpy(layer(to_numpy(x), attention_mask=pairs)), atol=1e-5)


@pytest.mark.parametrize("shape", [(6, 6), (3, 6, 6), (3, 1, 6, 6), (3, 2, 6, 6)])
def test_an_attention_mask_is_one_of_pairs(shape):
    layer, x = SelfAttention(num_heads=2), random_input((BATCH, TOKENS, DIM))
    mask = np.random.default_rng(0).random(shape) < 0.6
    mask |= np.eye(TOKENS, dtype=bool)
    out, weights = (to_numpy(y) for y in layer(x, attention_mask=mask, return_attention=True))
    np.testing.assert_allclose(to_numpy(layer(x, attention_mask=mask)), out, atol=1e-5)
    full = np.broadcast_to(mask if mask.ndim == 4 else mask.reshape(-1, 1, 6, 6), (3, 2, 6, 6))
    np.testing.assert_array_equal(weights > 0, full)
    kernel, bias = (to_numpy(weight) for weight in layer.qkv.weights)
    query, key, _ = np.split(x @ kernel + bias, 3, axis=-1)
    for image, head in np.ndindex(BATCH, 2):
        part = slice(4 * head, 4 * head + 4)
        for row in range(TOKENS):
            seen = full[image, head, row]
            keys = key[image, seen][:, part]
            _, expected = attention(query[image, row : row + 1, part], keys, keys)
            np.testing.assert_allclose(weights[image, head, row, seen], expected[0], atol=1e-5)


def test_an_attention_mask_of_another_rank():
    with pytest.raises(ValueError, match=r"attention_mask must be \(tokens, tokens\), .*Received: \(6,\)"):
        SelfAttention(num_heads=2)(random_input((1, 6, 8)), attention_mask=np.ones(6, bool))


@pytest.mark.parametrize("policy", ["mixed_float16", "mixed_bfloat16"])
def test_a_row_that_is_all_masked_is_not_nan(policy):
    layer = SelfAttention(num_heads=2, dtype=policy)
    x = random_input((2, 4, 8))
    mask = np.array([[True] * 4, [False] * 4])
    assert np.isfinite(to_numpy(layer(x, padding_mask=mask))).all()
    assert np.isfinite(to_numpy(layer(x, padding_mask=mask, return_attention=True)[0])).all()


@pytest.mark.parametrize("first", [0, 1])
def test_pools_leave_masked_tokens_out(first):
    x = random_input((BATCH, TOKENS, DIM))
    mean = MeanPool(num_prefix_tokens=first)
    attend = AttentionPool(num_heads=2, mlp_dim=12, num_prefix_tokens=first)
    means, attended = to_numpy(mean(x, mask=KEPT)), to_numpy(attend(x, mask=KEPT))
    for image, kept, m, a in zip(x, KEPT, means, attended, strict=True):
        used = image[first:][kept[first:]]
        np.testing.assert_allclose(m, used.mean(axis=0), atol=1e-5)
        whole = np.concatenate([image[:first], used])[None]
        np.testing.assert_allclose(a, to_numpy(attend(whole))[0], atol=1e-5)


def test_the_mean_of_no_tokens_is_zero():
    out = to_numpy(MeanPool()(random_input((1, 4, 8)), mask=np.zeros((1, 4), bool)))
    np.testing.assert_array_equal(out, np.zeros((1, 8)))


@pytest.mark.parametrize(
    "make", [TokenPool, lambda: MeanPool(num_prefix_tokens=1), lambda: AttentionPool(2, 12)]
)
def test_a_model_of_masked_sequences(make):
    """From Keras's Masking to a pool, compiled: what is masked changes nothing."""
    tokens = keras.Input((None, DIM))
    x = keras.layers.Masking()(tokens)
    x = AddCLS()(x)
    x = EncoderBlock(num_heads=2, mlp_dim=12)(x)
    model = keras.Model(tokens, make()(x))
    x = random_input((2, 5, DIM))
    padded = np.concatenate([x, np.zeros((2, 4, DIM), "float32")], axis=1)
    expected = model.predict(x, verbose=0)
    assert np.linalg.norm(expected) > 0.1
    np.testing.assert_allclose(model.predict(padded, verbose=0), expected, atol=1e-5)


@pytest.mark.parametrize(
    "given",
    [
        dict(padding_mask=np.ones((2, 3))),
        dict(padding_mask=np.ones((2, 1))),
        dict(mask=np.ones((2, 5, 5))),
        dict(attention_mask=np.ones((2, 5))),
        dict(attention_mask=np.ones((3, 3))),
        dict(attention_mask=np.ones((5, 1))),
    ],
)
@pytest.mark.parametrize("name", ["attention", "block"])
def test_masks_of_other_tokens_are_refused_not_broadcast(name, given):
    with pytest.raises(ValueError, match=r"must be \(.*tokens\), for 5 tokens. Received: "):
        ENCODERS[name]()(random_input((2, 5, DIM)), **given)


@pytest.mark.parametrize("make", [MeanPool, lambda: AttentionPool(2, 12)])
def test_pools_refuse_masks_of_other_tokens(make):
    with pytest.raises(ValueError, match=r"must be \(batch, tokens\), for 5 tokens. Received: \(2, 1\)"):
        make()(random_input((2, 5, DIM)), mask=np.ones((2, 1), bool))
