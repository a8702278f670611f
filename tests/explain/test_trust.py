"""Curves of models whose important patches are known, and the check by randomised weights."""

import numpy as np
import pytest

from keras_vit.explain.inside import Inside
from keras_vit.explain.learned import attention_distance, filters, patch_distances, position_similarity
from keras_vit.explain.maps import maps_of
from keras_vit.explain.overlay import placed, strip
from keras_vit.explain.placement import Box
from keras_vit.explain.removal import removal_map
from keras_vit.explain.trust import change_patches, curves, randomised, rank_correlations
from tests.explain.cases import KINDS, images, vit_of
from tests.helpers.checks import to_numpy

GRID = (2, 3)
MEAN = np.array([100.0], "float32")


def by_weights(weights):
    """A model whose probability of class 1 is the weighted share of the patches that are not the mean."""

    def probabilities(pixels):
        kept = (pixels[:, ::4, ::4, 0] != MEAN).reshape(len(pixels), -1)
        share = kept @ np.asarray(weights) / np.sum(weights)
        return np.stack([1 - share, share], axis=1)

    return probabilities


@pytest.fixture
def pictures():
    return np.full((2, 8, 12, 1), 7, "float32")


@pytest.mark.same_on_every_backend
def test_changed_patches(pictures):
    order = np.array([4, 0, 1, 2, 3, 5])
    found = change_patches(pictures[0], MEAN, order, np.array([0, 1, 2, 6]), GRID)
    expected = np.full((4, 8, 12, 1), 7, "float32")
    expected[1:3, 4:, 4:8] = 100
    expected[2, :4, :4] = 100
    expected[3] = 100
    np.testing.assert_array_equal(found, expected)


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(("best", "ratio"), [(True, 1 / 6), (False, 11 / 6)])
def test_curves_of_a_model_that_needs_one_patch(pictures, best, ratio):
    """One patch decides: found first, the curve falls at once; found last, at the end."""
    weights = np.array([0, 0, 0, 0, 1.0, 0])
    maps = np.broadcast_to((weights if best else -weights).reshape(GRID), (2, *GRID))
    found = curves(by_weights(weights), pictures, maps, [1, 1], MEAN, steps=6, orders=400)
    area, chance = found.areas
    assert chance == pytest.approx(0.5, abs=0.03)
    # By trapezia the last step before 0 counts half.
    assert area == pytest.approx(0.5 / 6 if best else 5.5 / 6)
    assert found.ratio == pytest.approx(ratio, rel=0.06)
    other = curves(by_weights(weights), pictures, maps, [1, 1], MEAN, steps=6, orders=1, insertion=True)
    assert other.areas[0] == pytest.approx(5.5 / 6 if best else 0.5 / 6)
    np.testing.assert_allclose(other.shares, np.arange(7) / 6)
    assert other.by_map[0, 0] == 0
    assert other.by_map[0, -1] == found.by_map[0, 0] == 1


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("rounds", [6, 3, 100])
def test_the_search_finds_the_order_of_the_weights(pictures, rounds):
    weights = np.array([3, 1, 6, 2, 5, 4.0])
    found = removal_map(by_weights(weights), pictures[0], 1, MEAN, GRID, rounds)
    assert found.shape == GRID
    np.testing.assert_array_equal(np.argsort(-found.ravel()), np.argsort(-weights))
    assert (found.max(), found.min()) == (1, 0)


@pytest.mark.same_on_every_backend
def test_rank_correlations_are_those_of_scipy():
    from scipy.stats import spearmanr

    rng = np.random.default_rng(0)
    one, other = rng.integers(0, 9, (2, 3, 2, 3)).astype("float32")
    expected = [spearmanr(a.ravel(), b.ravel()).statistic for a, b in zip(one, other, strict=True)]
    np.testing.assert_allclose(rank_correlations(one, other), expected)
    np.testing.assert_array_equal(rank_correlations(one, np.ones_like(one)), 0)


@pytest.mark.parametrize("kind", ["class token", "conv stem, hidden layer in the head"])
def test_randomised_goes_from_the_top_down(kind):
    vit = vit_of(kind)
    before = vit.get_weights()
    x, classes = images(8), np.arange(8) % 3
    found = randomised(vit, x, classes)
    assert [name for name, _ in found] == ["head", "block_1", "block_0", "embedding"]
    assert all(-1 <= value <= 0.99 for _, value in found)
    assert found == randomised(vit, x, classes)
    for ours, theirs in zip(vit.get_weights(), before, strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert maps_of(Inside(vit), x, classes).gradient_weighted.any()


@pytest.mark.parametrize("kind", KINDS)
def test_what_was_learned(kind):
    vit = vit_of(kind)
    similar = position_similarity(vit)
    assert similar.shape == (*GRID, *GRID)
    square = similar.reshape(6, 6)
    np.testing.assert_allclose(np.diag(square), 1, atol=1e-5)
    np.testing.assert_allclose(square, square.T, atol=1e-5)
    table = to_numpy(vit.get_layer("position_embedding").table)[0, -6:]
    cosine = table[0] @ table[5] / np.linalg.norm(table[0]) / np.linalg.norm(table[5])
    assert square[0, 5] == pytest.approx(cosine, abs=1e-5)
    name, found = filters(vit)
    conv = vit.config.stem != "linear"
    assert name.startswith("filters of" if conv else "principal")
    assert found.shape[1:] == ((3, 3, 3) if conv else (4, 4, 3))
    first = vit.config.num_first_tokens
    attentions = vit.extractor("attention")(images())
    distance = attention_distance(Inside(vit), images())
    assert distance.shape == (2, 2)
    of_patches = to_numpy(attentions[1])[:, 1, first:, first:]
    shares = of_patches / of_patches.sum(axis=-1, keepdims=True)
    expected = (shares * patch_distances(GRID, 4)).sum(axis=-1).mean()
    assert distance[1, 1] == pytest.approx(expected, rel=1e-4)


@pytest.mark.same_on_every_backend
def test_distances_between_patches():
    found = patch_distances(GRID, 4)
    assert found[0].tolist() == pytest.approx([0, 4, 8, 4, 4 * 2**0.5, 4 * 5**0.5])


@pytest.mark.same_on_every_backend
def test_a_strip_places_the_map():
    values = np.array([[0.0, 1.0]])
    rows, columns = np.arange(10) + 0.5, np.arange(20) + 0.5
    found = placed(values, rows, columns, Box(-5, 15, 5, 15))  # above, below and in the middle
    assert (found[:, :5] == 0).all()
    assert (found[:, 15:] == 0).all()
    np.testing.assert_allclose(found[:, 12:15], 1)
    np.testing.assert_allclose(found[0, 8:12], [0.2, 0.4, 0.6, 0.8], atol=0.11)
    pixels = np.full((10, 20, 1), 128, "uint8")
    page = strip(pixels, [values, values], Box(0, 10, 0, 20))
    assert page.shape == (48, 3 * 96 + 2 * 4, 3)
    assert (page[:, :96] == 128).all()
    assert (page[:, 96:100] == 255).all()
    assert (page[:, 102] == 128).all()  # where the map is lowest the picture stays
    assert (page[:, 190] != 128).any()
