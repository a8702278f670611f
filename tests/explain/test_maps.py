"""The maps against numpy, finite differences, and what is known of their sums."""

import keras
import numpy as np
import pytest

from keras_vit import InputError
from keras_vit.explain.flow import reading
from keras_vit.explain.inside import Inside
from keras_vit.explain.learned import attention_distance
from keras_vit.explain.maps import maps_of
from tests.explain.cases import KINDS, images, vit_of
from tests.helpers.checks import to_numpy

CLASSES = (2, 0)


@pytest.fixture(params=KINDS)
def vit(request):
    return vit_of(request.param)


def attentions_of(vit):
    """Of the extractor, in float64."""
    return [to_numpy(found).astype("float64") for found in vit.extractor("attention")(images())]


def read_by_head(vit, tokens):
    """The share of each token in what the head sees, found by changing one token after the other."""
    config = vit.config
    if config.pooling == "map":
        return None
    first = config.num_first_tokens
    shares = {
        "token": {0: 1},
        "token+distilled": {0: 1, 1: 1},
        "gap": dict.fromkeys(range(first, tokens), 1),
        "all": dict.fromkeys(range(tokens), 1),
        "token+gap": {0: tokens - first, **dict.fromkeys(range(first, tokens), 1)},
    }[config.pooling]
    found = np.array([shares.get(i, 0) for i in range(tokens)], float)
    return found / found.sum()


def test_the_pass_is_that_of_the_model(vit):
    logits, attentions = Inside(vit)(images())
    np.testing.assert_allclose(to_numpy(logits), to_numpy(vit(images())), rtol=1e-4, atol=1e-4)
    for ours, theirs in zip(attentions, attentions_of(vit), strict=False):
        np.testing.assert_allclose(to_numpy(ours), theirs, atol=1e-5)
    shapes = [(2, *shape) for shape in Inside(vit).shapes]
    assert [tuple(found.shape) for found in attentions] == shapes


def test_shapes_and_readings(vit):
    found = maps_of(Inside(vit), images(), CLASSES)
    assert found.heads.shape == (2, 2, 2, 3)
    assert found.rollout.shape == found.gradient_weighted.shape == (2, 2, 3)
    assert (found.gradient_weighted >= 0).all()
    assert found.gradient_weighted.max() > 0
    np.testing.assert_allclose(found.logits, to_numpy(vit(images())), rtol=1e-4, atol=1e-4)
    tokens = 6 + vit.config.num_first_tokens
    if vit.config.pooling != "map":
        np.testing.assert_allclose(reading(vit.config, tokens), read_by_head(vit, tokens), atol=1e-6)


def test_heads_of_a_block(vit):
    tokens, first = 6 + vit.config.num_first_tokens, vit.config.num_first_tokens
    rows = {"token": [0], "token+gap": [0], "token+distilled": [0, 1], "all": list(range(tokens))}
    rows = rows.get(vit.config.pooling, list(range(first, tokens)))
    for block, attention in enumerate(attentions_of(vit)):
        found = maps_of(Inside(vit), images(), CLASSES, block).heads
        expected = attention[:, :, rows, first:].mean(axis=2).reshape(2, 2, 2, 3)
        np.testing.assert_allclose(found, expected, atol=1e-5)


def test_rollout_is_the_product_of_the_blocks(vit):
    found = maps_of(Inside(vit), images(), CLASSES).rollout.reshape(2, 6)
    attentions, first = attentions_of(vit), vit.config.num_first_tokens
    pool = to_numpy(Inside(vit)(images())[1][-1])
    for i in range(2):
        product = np.eye(6 + first)
        for attention in attentions:
            product = (attention[i].mean(axis=0) + np.eye(6 + first)) / 2 @ product
        np.testing.assert_allclose(product.sum(axis=1), 1, atol=1e-5)
        read = read_by_head(vit, 6 + first)
        if read is None:
            read = np.concatenate([np.zeros(first), pool[i].mean(axis=0)])
        np.testing.assert_allclose(found[i], (read @ product)[first:], atol=1e-5)


def test_gradients_are_finite_differences(vit):
    """The map made of slopes that are measured by changing one attention after the other."""
    inside, x = Inside(vit), images(1)
    found = maps_of(inside, x, [1]).gradient_weighted[0].ravel()
    attentions = [to_numpy(values)[0].astype("float64") for values in inside(x)[1]]
    first, step = vit.config.num_first_tokens, 1e-2
    weighted = []
    for number, attention in enumerate(attentions):
        # All changes of one attention in one batch: each image of it has one value changed.
        changes = [np.zeros((2 * attention.size, *shape), "float32") for shape in inside.shapes]
        flat = changes[number].reshape(2 * attention.size, -1)
        flat[: attention.size] = step * np.eye(attention.size)
        flat[attention.size :] = -step * np.eye(attention.size)
        up, down = np.split(
            to_numpy(inside(np.repeat(x, 2 * attention.size, 0), changes)[0])[:, 1].astype("float64"), 2
        )
        slopes = ((up - down) / (2 * step)).reshape(attention.shape)
        weighted.append(np.maximum(slopes * attention, 0).mean(axis=0))
    relevance = np.eye(6 + first)
    for of_block in weighted[:2]:
        relevance = relevance + of_block @ relevance
    read = read_by_head(vit, 6 + first)
    if read is None:
        expected = (np.concatenate([np.zeros(first), weighted[-1]]) @ relevance)[first:]
    else:
        expected = (read @ (relevance - np.eye(6 + first)))[first:]
    np.testing.assert_allclose(found, expected, atol=0.02 * expected.max())


@pytest.mark.parametrize("policy", ["mixed_bfloat16", "mixed_float16"])
def test_mixed_precision_gives_nearly_the_same(policy):
    vit = vit_of("class token")
    half = vit_of("class token", dtype=policy)
    half.set_weights(vit.get_weights())
    ours, theirs = (maps_of(Inside(model), images(), CLASSES) for model in (half, vit))
    np.testing.assert_allclose(ours.rollout, theirs.rollout, atol=0.02)
    wanted = theirs.gradient_weighted
    np.testing.assert_allclose(ours.gradient_weighted, wanted, atol=0.1 * wanted.max())


def test_batches_change_nothing(monkeypatch):
    inside, classes = Inside(vit_of("class token")), (0, 1, 2, 0, 1)
    whole = maps_of(inside, images(5), classes)
    monkeypatch.setattr("keras_vit.explain.maps.BATCH_BYTES", 2000)  # two images
    parts = maps_of(inside, images(5), classes)
    np.testing.assert_allclose(parts.gradient_weighted, whole.gradient_weighted, atol=1e-5)
    np.testing.assert_allclose(parts.heads, whole.heads, atol=1e-6)


@pytest.mark.parametrize("block", [-1, 2])
def test_wrong_block(block):
    message = rf"block must be 0 to 1, as in the names block_0 to block_1.* Received: block={block}"
    with pytest.raises(InputError, match=message):
        maps_of(Inside(vit_of("class token")), images(), CLASSES, block)


def test_new_weights_give_new_maps(vit):
    """On JAX the pass is compiled; the weights must not be compiled into it."""
    inside, other = Inside(vit), vit_of_the_same(vit)
    before = maps_of(inside, images(), CLASSES)
    vit.set_weights(other.get_weights())
    after, expected = maps_of(inside, images(), CLASSES), maps_of(Inside(other), images(), CLASSES)
    assert np.abs(after.logits - before.logits).max() > 1e-3
    for name in ("heads", "rollout", "gradient_weighted", "logits"):
        np.testing.assert_allclose(getattr(after, name), getattr(expected, name), atol=1e-5)


def vit_of_the_same(vit):
    """The same architecture, with other weights."""
    other, rng = type(vit).from_config(vit.get_config()), np.random.default_rng(7)
    other.set_weights([value + 0.1 * rng.normal(size=value.shape) for value in vit.get_weights()])
    return other


@pytest.mark.skipif(
    keras.backend.backend() != "jax", reason="the other backends compile no single operations"
)
def test_maps_are_one_program_on_jax(caplog):
    import jax

    inside, x = Inside(vit_of("class token")), images(3)  # as many as no other test has
    with jax.log_compiles():
        maps_of(inside, x, (0, 1, 2))
        attention_distance(inside, x)
    programs = [r for r in caplog.records if r.getMessage().startswith("Finished XLA compilation")]
    assert 2 <= len(programs) < 10
    caplog.clear()
    with jax.log_compiles():
        maps_of(inside, x, (0, 0, 0))
        attention_distance(inside, x)
    assert not [r for r in caplog.records if r.getMessage().startswith("Finished XLA compilation")]
