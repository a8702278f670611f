import numpy as np
import pytest

from keras_vit.evaluation.label_next import choose_next, uncertainty

pytestmark = pytest.mark.same_on_every_backend


def test_uncertainty_is_one_minus_the_margin():
    found = uncertainty(np.array([[0.5, 0.5, 0], [1, 0, 0], [0.6, 0.3, 0.1]]))
    np.testing.assert_allclose(found, [1, 0, 0.7])
    several = uncertainty(np.array([[0.5, 0.9], [1, 0], [0.9, 0.2]]), several=True)
    np.testing.assert_allclose(several, [1, 0, 0.4])
    assert uncertainty(np.ones((2, 1))).tolist() == [0, 0]


def test_unsure_images_of_each_kind_are_chosen():
    """Of three clusters of unsure images, beside many that the model is sure of, one of each is chosen."""
    rng = np.random.default_rng(0)
    centres = np.array([[0, 0], [10, 0], [0, 10], [30, 30]])
    of = np.repeat([0, 1, 2, 3], [10, 10, 10, 100])
    features = centres[of] + rng.normal(0, 0.1, (130, 2))
    margin = np.where(of == 3, 0.99, rng.uniform(0, 0.2, 130))
    probabilities = np.stack([0.5 + margin / 2, 0.5 - margin / 2], axis=1)
    chosen = choose_next(probabilities, features, 3)
    assert sorted(of[chosen]) == [0, 1, 2]
    assert choose_next(probabilities, features, 3).tolist() == chosen.tolist()
    assert (np.diff(uncertainty(probabilities)[chosen]) <= 0).all()


@pytest.mark.parametrize("count", [1, 4, 5, 6, 100])
def test_one_image_of_each_group(count):
    rng = np.random.default_rng(1)
    probabilities, features = rng.dirichlet(np.ones(3), 40), rng.normal(size=(40, 4))
    groups = np.arange(40) % 5
    chosen = choose_next(probabilities, features, count, groups)
    assert len(chosen) == len(set(groups[chosen])) == min(count, 5)
    assert len(choose_next(probabilities, features, count)) == min(count, 40)


def test_equal_images_are_chosen_too():
    chosen = choose_next(np.full((30, 2), 0.5), np.zeros((30, 3)), 7)
    assert len(set(chosen.tolist())) == 7
