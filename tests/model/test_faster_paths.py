"""What makes a training step faster gives the gradients of the plain path, on every backend."""

import keras
import numpy as np
import pytest
from keras import ops

from keras_vit import EncoderBlock, SelfAttention, ViT
from keras_vit.errors import InputError
from keras_vit.model import vit as vit_module
from keras_vit.model.layers import activations, encoder_block, self_attention
from keras_vit.model.layers.attend import flash_attention_for
from tests.helpers.checks import random_input, randomize, to_numpy

SMALL = dict(image_shape=(8, 8, 1), num_classes=3, patch_size=4, dim=8, depth=3, num_heads=2, mlp_dim=16)


def make_plain(patch):
    """The formulas as the papers have them, for every block and every token."""

    def plain_gelu(x):
        return 0.5 * x * (1.0 + ops.erf(x / 2**0.5))

    patch.setattr(self_attention, "fused_is_slower", lambda query: False)
    patch.setattr(self_attention, "_split", lambda qkv: (qkv[:, :, 0], qkv[:, :, 1], qkv[:, :, 2]))
    patch.setattr(encoder_block, "residual", lambda x, branch: x + ops.cast(branch, x.dtype))
    patch.setitem(activations.ACTIVATIONS, "gelu", plain_gelu)
    patch.setattr(vit_module, "FIRST_TOKENS", {})


def gradients(options, weights=None, dtype="float32"):
    """The gradient of every weight, the logits and the weights, by one step of SGD with learning rate 1."""
    model = ViT(**{**SMALL, **options}, dtype=dtype)
    model.set_weights(weights or randomize(model).get_weights())
    before = model.get_weights()
    x, target = random_input((6, *SMALL["image_shape"])), random_input((6, SMALL["num_classes"]), seed=1)
    logits = model.predict(x, verbose=0)
    model.compile(keras.optimizers.SGD(1.0), loss="mse")
    model.fit(x, target, batch_size=6, verbose=0)
    found = [old - new for old, new in zip(before, model.get_weights(), strict=True)]
    return dict(zip([one.path for one in model.weights], found, strict=True)), logits, before


CASES = {
    "plain": {},
    "one block": dict(depth=1),
    "wide heads": dict(head_dim=8, qkv_bias=False),
    "distilled": dict(pooling="token+distilled"),
    "registers and gap": dict(pooling="gap", num_registers=2),
    "map": dict(pooling="map"),
    "options": dict(qk_norm=True, layer_scale=0.5, head_hidden_dim=8, remat=True),
    "norm of the pooled": dict(final_norm="pooled"),
    "conv stem": dict(stem="conv", activation="swiglu"),
}


@pytest.mark.parametrize("name", CASES)
def test_float32(name):
    with pytest.MonkeyPatch.context() as patch:
        make_plain(patch)
        plain, logits, weights = gradients(CASES[name])
    ours, our_logits, _ = gradients(CASES[name], weights)
    np.testing.assert_allclose(our_logits, logits, rtol=1e-5, atol=1e-5)
    largest = max(abs(one).max() for one in plain.values())
    for path, gradient in plain.items():
        np.testing.assert_allclose(ours[path], gradient, atol=3e-6 * max(largest, 1.0), err_msg=path)
    assert largest > 1e-2


def test_bfloat16():
    """As far from the gradients in float32 as the plain path."""
    exact, _, weights = gradients({})
    ours, _, _ = gradients({}, weights, "mixed_bfloat16")
    with pytest.MonkeyPatch.context() as patch:
        make_plain(patch)
        plain, _, _ = gradients({}, weights, "mixed_bfloat16")

    def difference(found):
        flat, true = (np.concatenate([one.ravel() for one in them.values()]) for them in (found, exact))
        return np.linalg.norm(flat - true) / np.linalg.norm(true)

    assert difference(ours) < max(1.5 * difference(plain), 1e-2)


@pytest.mark.parametrize("kind", [SelfAttention, EncoderBlock])
@pytest.mark.parametrize("first", [1, 2, 5])
def test_first_tokens(kind, first):
    """They are those of the whole layer, also of one that knows its tokens at run time only."""
    layer = kind(num_heads=2, **({} if kind is SelfAttention else dict(mlp_dim=12)))
    x = random_input((3, 5, 8))
    pairs = np.tril(np.ones((5, 5), bool))
    layer.build(x.shape)
    randomize(layer)
    whole, attention = layer(x, return_attention=True, attention_mask=pairs)
    some, their_attention = layer(x, return_attention=True, attention_mask=pairs, first=first)
    np.testing.assert_allclose(to_numpy(some), to_numpy(whole)[:, :first], atol=1e-5)
    np.testing.assert_allclose(to_numpy(their_attention), to_numpy(attention)[:, :, :first], atol=1e-6)
    spec = layer.compute_output_spec(keras.KerasTensor((None, 5, 8)), return_attention=True, first=first)
    assert [one.shape for one in spec] == [(None, first, 8), (None, 2, first, 5)]
    images = keras.Input((None, 8))
    model = keras.Model(images, layer(images, first=first))
    np.testing.assert_allclose(model.predict(x, verbose=0), to_numpy(layer(x))[:, :first], atol=1e-5)


@pytest.mark.parametrize("first", [0, -1, 6, 1.0, True, "1"])
def test_wrong_first_tokens(first):
    with pytest.raises(InputError, match="first must be a whole number from 1 to 5, or None"):
        SelfAttention(num_heads=2)(random_input((3, 5, 8)), first=first)


def test_the_last_block_still_has_all_tokens():
    """What users of Keras write for the tokens inside a model."""
    model = ViT(**SMALL)
    x = random_input((2, *SMALL["image_shape"]))
    tokens = keras.Model(model.input, model.get_layer("block_2").output).predict(x, verbose=0)
    assert tokens.shape == (2, 5, 8)
    normalised = to_numpy(model.get_layer("norm")(tokens))
    np.testing.assert_allclose(
        normalised[:, 1:], model.extractor("patch_tokens").predict(x, verbose=0), atol=1e-5
    )
    np.testing.assert_allclose(normalised[:, 0], model.extractor("features").predict(x, verbose=0), atol=1e-5)


@pytest.mark.skipif(keras.backend.backend() != "jax", reason="Only JAX differentiates in both directions")
def test_both_modes_of_differentiation():
    import jax

    block = EncoderBlock(num_heads=2, mlp_dim=12)
    x = random_input((1, 3, 4))
    block.build(x.shape)
    # The derivative along one direction, by the forward and by the backward mode.
    direction = random_input(x.shape, seed=2)
    _, forward = jax.jvp(lambda x: block(x).sum(), (x,), (direction,))
    backward = (jax.grad(lambda x: block(x).sum())(x) * direction).sum()
    np.testing.assert_allclose(forward, backward, rtol=1e-5)


@pytest.mark.parametrize(
    ("queries", "keys", "training", "refused"),
    [
        (197, 197, True, True),
        (1, 198, True, True),
        (198, 198, True, False),
        (197, 197, False, False),
        (197, 197, None, False),
    ],
)
def test_fused_attention_that_jax_refuses_is_not_asked_for(queries, keys, training, refused):
    query, key = (np.zeros((1, tokens, 1, 8), "float32") for tokens in (queries, keys))
    expected = False if refused and keras.backend.backend() == "jax" else None
    assert flash_attention_for(query, key, training) is expected
