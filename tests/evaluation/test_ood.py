"""Out-of-distribution detection compared with scipy, scikit-learn and all orders of images; its file."""

import os

import numpy as np
import pytest
from scipy.spatial.distance import cdist, mahalanobis
from scipy.stats import multivariate_normal
from sklearn.covariance import LedoitWolf

from keras_vit.errors import InputError
from keras_vit.evaluation import ood_fit
from keras_vit.evaluation.ood import OODDetector, conformal_threshold, least_images, why_too_few
from keras_vit.evaluation.ood_fit import fit_ood_detector

pytestmark = pytest.mark.same_on_every_backend


def clusters(images, seed=0, classes=3, dim=5):
    """Features around class centres, stretched like those of a model, and their classes."""
    rng = np.random.default_rng(seed)
    stretch = np.random.default_rng(99).normal(size=(dim, dim)) * np.geomspace(0.01, 10, dim)
    labels = np.arange(images) % classes
    return 10 * np.eye(classes, dim)[labels] + rng.normal(size=(images, dim)) @ stretch, labels


def fitted(**options):
    features, labels = clusters(300)
    validation, _ = clusters(100, seed=1)
    return fit_ood_detector(features, labels, validation, **options)[0]


def test_with_one_covariance_the_distance_is_mahalanobis_to_the_nearest_centre():
    features, labels = clusters(300)
    images, _ = clusters(20, seed=2)
    centers = np.stack([features[labels == k].mean(0) for k in range(3)])
    centred = features - centers[labels]
    deviation = centred.std(0)
    precision = LedoitWolf(assume_centered=True).fit(centred / deviation).precision_
    expected = [min(mahalanobis(x / deviation, c / deviation, precision) for c in centers) for x in images]
    detector = fitted(one_covariance=True)
    assert len(detector.depths[0].projections) == 1
    assert not detector.offsets.any()
    np.testing.assert_allclose(detector.distances(images), expected, rtol=1e-3)


def by_scipy(features, labels, images, columns):
    """Twice the negative log-likelihood of the nearest class: (images,), up to a constant."""
    judged = 0.0
    for pieces in columns:
        took, seen = (np.concatenate([x[:, a:b] for a, b in pieces], axis=1) for x in (features, images))
        centers = np.stack([took[labels == k].mean(0) for k in range(3)])
        deviation = (took - centers[labels]).std(0)
        classes = []
        for k in range(3):
            covariance = LedoitWolf(assume_centered=True).fit((took[labels == k] - centers[k]) / deviation)
            covariance = (covariance.covariance_ + 1e-4 * np.eye(len(deviation))) * np.outer(
                deviation, deviation
            )
            classes.append(-2 * multivariate_normal(centers[k], covariance).logpdf(seen))
        judged = judged + np.stack(classes, axis=1)
    return judged.min(axis=1)


@pytest.mark.parametrize(
    "columns", [[[(0, 5)]], [[(0, 2), (4, 5)]], [[(0, 3)], [(2, 5)]], [[(3, 5), (0, 1)], [(0, 5)]]]
)
def test_with_a_covariance_per_class_it_is_a_likelihood(columns):
    features, labels = clusters(300)
    features[labels == 1] *= 3  # a wide class
    images, _ = clusters(40, seed=2)
    detector, _ = fit_ood_detector(features, labels, clusters(100, seed=1)[0], columns=columns)
    expected = by_scipy(features, labels, images, columns)
    found = detector.distances(images) ** 2
    np.testing.assert_allclose(found - found[0], expected - expected[0], rtol=1e-3, atol=1e-2)
    assert detector.offsets.min() == 0 < detector.offsets.max()
    assert detector.threshold > 0


def test_a_threshold_of_folds_holds_for_new_images():
    """Each image is judged by Gaussians that have not seen it: those that have would be too strict."""
    features, labels = clusters(400, dim=30)
    detector, fitted_on = fit_ood_detector(features, labels, np.zeros((0, 30)), in_folds=True)
    assert fitted_on == "training folds"
    like, _ = clusters(4000, seed=3, dim=30)
    assert 0.02 < detector.rejects(like).mean() < 0.065
    seen = conformal_threshold(detector.distances(features), 0.05)
    assert (detector.distances(like) > seen).mean() > 0.08


def test_the_copies_of_an_image_are_left_out_together():
    """A copy that stays would make its image look usual."""
    features, labels = clusters(60, dim=30)
    once, _ = fit_ood_detector(features, labels, np.zeros((0, 30)), in_folds=True)
    rows, repeated = np.tile(features, (2, 1)), np.tile(labels, 2)
    alone, _ = fit_ood_detector(rows, repeated, np.zeros((0, 30)), in_folds=True)
    together, _ = fit_ood_detector(
        rows, repeated, np.zeros((0, 30)), in_folds=True, image_of=np.tile(np.arange(len(labels)), 2)
    )
    like, _ = clusters(4000, seed=3, dim=30)
    assert together.rejects(like).mean() < 0.12 < alone.rejects(like).mean()
    assert once.rejects(like).mean() < 0.12


@pytest.mark.parametrize(
    ("counts", "maps", "most_bytes"),
    [
        ((40, 40, 40), 3, None),
        ((40, 19, 40), 3, None),  # the second class has the covariance of all
        ((19, 19, 5), 1, None),
        ((40, 1, 40), 3, None),
        ((40, 40, 40), 1, 4 * 3 * 25 - 1),
        ((40, 40, 40), 3, 4 * 3 * 25),
    ],
)
def test_classes_with_few_images_share_a_covariance(counts, maps, most_bytes, monkeypatch):
    if most_bytes is not None:
        monkeypatch.setattr(ood_fit, "MOST_BYTES", most_bytes)
    features, labels = clusters(150)
    kept = np.concatenate([np.flatnonzero(labels == k)[:n] for k, n in enumerate(counts)])
    detector, _ = fit_ood_detector(features[kept], labels[kept], clusters(100, seed=1)[0])
    detector.check()
    (depth,) = detector.depths
    assert len(depth.projections) == maps
    shares = ood_fit.own_covariances(np.array(counts), [[(0, 5)]])
    assert len(ood_fit.own_covariances(np.array(counts), [[(0, 5)]])) == 3
    assert (maps == 1) == (not shares.any())
    # An image at the centre of a class lies there, whatever covariance the class has.
    centers = np.stack([features[kept][labels[kept] == k].mean(0) for k in range(3)])
    squared = depth.squared(centers)
    np.testing.assert_allclose(np.diag(squared), 0, atol=1e-4)
    assert detector.num_bytes == 4 * (5 + 25 * maps + 3 * 5 + 3)


def test_a_class_of_equal_images_is_fine():
    features, labels = clusters(300)
    features[labels == 1] = features[labels == 1][0]
    detector, _ = fit_ood_detector(features, labels, clusters(100, seed=1)[0])
    detector.check()
    assert np.isfinite(detector.distances(features)).all()


def test_the_units_of_a_feature_do_not_matter():
    units = np.array([1, 1e3, 1e-3, 7, -2])
    features, labels = clusters(300)
    validation, images = clusters(100, seed=1)[0], clusters(20, seed=2)[0]
    other, _ = fit_ood_detector(features * units, labels, validation * units)
    np.testing.assert_allclose(other.distances(images * units), fitted().distances(images), rtol=1e-4)


def test_images_like_the_training_images_are_accepted_and_others_rejected():
    detector = fitted()
    like, _ = clusters(5000, seed=3)
    # 5 % on average over validation parts. This part has 100 images, so the rate varies by 2 %.
    assert 0.01 < detector.rejects(like).mean() < 0.10
    assert detector.rejects(np.full((10, 5), 100.0)).all()
    assert (
        detector.rejects(clusters(100, seed=1)[0]).sum() == 4
    )  # the guarantee would need 96 distances: ceil(101 * 0.95)


@pytest.mark.parametrize("broken", [np.nan, np.inf, -np.inf])
@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")
def test_features_that_are_not_finite_are_rejected(broken):
    images = clusters(3)[0]
    images[1, 2] = broken
    assert fitted(share=0.02).rejects(images).tolist() == [False, True, False]


def test_no_images_have_no_distances():
    assert fitted().rejects(np.zeros((0, 5))).shape == (0,)


@pytest.mark.parametrize("shape", [(5,), (2, 4), (2, 5, 1)])
def test_features_of_another_width_are_an_error(shape):
    with pytest.raises(ValueError, match=r"features must have the shape \(images, 5\)"):
        fitted().distances(np.zeros(shape))


@pytest.mark.parametrize("share", [0.05, 0.1, 0.25, 0.5])
@pytest.mark.parametrize("more", [0, 1, 2, 3, 10, 125])
def test_the_guarantee_holds_exactly(share, more):
    """Each of n + 1 images is equally likely to be the new one: this counts the share over all of them."""
    images = least_images(share) + more
    distances = np.random.default_rng(0).permutation(np.arange(images + 1.0))
    above = [
        distances[i] > conformal_threshold(np.delete(distances, i), share) for i in range(len(distances))
    ]
    # In the middle of a gap it accepts at most one image more than on its lower end.
    assert share - 2 / len(distances) < np.mean(above) <= share + 1e-12


@pytest.mark.parametrize(
    ("images", "share", "rank"),
    [(19, 0.05, 19), (20, 0.05, 20), (39, 0.05, 38), (144, 0.05, 138), (9, 0.1, 9)],
)
def test_the_threshold_is_above_one_of_the_distances(images, share, rank):
    threshold = conformal_threshold(np.arange(1.0, images + 1)[::-1], share)
    assert threshold == (rank + 0.5 if rank < images else pytest.approx(rank, rel=2e-3))
    assert threshold > rank


@pytest.mark.parametrize("images", [19, 20, 24, 60, 180, 400])
@pytest.mark.parametrize("noise", [1e-5, 1e-4, 4e-4])
def test_rounding_errors_reject_no_other_image(images, noise):
    """As those of another backend, another format or another batch size."""
    for seed in range(20):
        rng = np.random.default_rng(seed)
        distances = rng.gamma(9.0, size=images)
        distances[rng.integers(0, images, images // 4)] = distances[0]  # copies of one image
        threshold = conformal_threshold(distances, 0.05)
        for factor in (1 - noise, 1 + noise, 1 + noise * rng.uniform(-1, 1, images)):
            np.testing.assert_array_equal(distances * factor > threshold, distances > threshold)
        assert (distances > threshold).mean() <= 0.05


@pytest.mark.parametrize("distance", [0.0, 1e-30, 3.0, 1e30])
def test_equal_distances_are_all_accepted(distance):
    threshold = conformal_threshold(np.full(40, distance), 0.05)
    assert distance < threshold < np.inf


@pytest.mark.parametrize("wrong", [np.nan, np.inf])
def test_distances_that_are_not_finite_give_no_threshold(wrong):
    with pytest.raises(ValueError, match="distances must be finite"):
        conformal_threshold([*np.arange(1.0, 30.0), wrong], 0.05)


@pytest.mark.parametrize(("share", "least"), [(0.05, 19), (0.1, 9), (0.01, 99), (0.3, 3)])
def test_too_few_images_give_no_threshold(share, least):
    assert least_images(share) == least
    assert why_too_few(least, share) is None
    assert f"takes {least} validation images, there are {least - 1}" in why_too_few(least - 1, share)
    with pytest.raises(ValueError, match=f"needs {least} images or more. Received: {least - 1}"):
        conformal_threshold(np.arange(least - 1), share)


TOO_FEW = "to reject 5 % of such images at most takes 19 validation images"


def diverged(features):
    return np.where(np.arange(5) == 2, np.nan, features)


@pytest.mark.parametrize(
    ("change", "validation_images", "reason"),
    [
        (lambda x: x, 0, "nothing: there is no validation part"),
        (lambda x: x, 18, f"nothing: {TOO_FEW}, there are 18"),
        (diverged, 30, "nothing: the features of the model are not finite, its training has diverged"),
        (lambda x: 0 * x, 30, "nothing: the model gives the same features for all training images"),
    ],
)  # fmt: skip
def test_the_reason_why_nothing_is_fitted(change, validation_images, reason):
    features, labels = clusters(60)
    found = fit_ood_detector(change(features), labels, change(clusters(validation_images)[0]))
    assert found == (None, reason)


def test_constant_features_and_classes_without_images_are_fine():
    features, labels = clusters(300)
    features[:, 3] = 7
    validation = clusters(100, seed=1)[0]
    validation[:, 3] = 7
    detector, reason = fit_ood_detector(features, np.where(labels == 2, 4, labels), validation)
    assert reason == "validation"
    assert detector.depths[0].centers.shape == (3, 5)
    detector.check()
    assert detector.rejects(validation).sum() == 4


def test_more_features_than_images():
    rng = np.random.default_rng(0)
    detector, _ = fit_ood_detector(rng.normal(size=(30, 80)), np.arange(30) % 2, rng.normal(size=(40, 80)))
    assert detector.rejects(rng.normal(size=(200, 80))).mean() < 0.2
    assert detector.rejects(5 * rng.normal(size=(200, 80))).all()


# The file


def test_the_file_gives_the_same_answers(tmp_path):
    detector, path = fitted(), tmp_path / "rejection.npz"
    detector.save(path)
    found = OODDetector.load(path)
    images = clusters(50, seed=4)[0]
    np.testing.assert_array_equal(found.distances(images), detector.distances(images))
    assert found.threshold == detector.threshold
    found.check()
    assert [each.name for each in tmp_path.iterdir()] == ["rejection.npz"]


def npz(**arrays):
    return lambda path: np.savez(path, **arrays)


def test_the_file_of_an_earlier_version_is_read(tmp_path):
    rng, path = np.random.default_rng(0), tmp_path / "rejection.npz"
    projection = rng.normal(size=(5, 4)).astype("float32")
    centers = rng.normal(size=(3, 4)).astype("float32")
    np.savez(path, projection=projection, centers=centers, threshold=np.float64(1.5))
    found, images = OODDetector.load(path), clusters(20)[0]
    expected = cdist(images @ projection.astype("float64"), centers).min(axis=1)
    np.testing.assert_allclose(found.distances(images), expected)
    assert (found.threshold, found.width) == (1.5, 5)


NOW = {
    "threshold": 1.0,
    "width": np.int64(4),
    "offsets": np.zeros(2, "float32"),
    "pieces_0": np.array([[0, 1], [2, 4]]),
    "shift_0": np.zeros(3, "float32"),
    "projections_0": np.ones((2, 3, 3), "float32"),
    "centers_0": np.ones((2, 3), "float32"),
}
GOOD = {"projection": np.eye(3, dtype="float32"), "centers": np.eye(2, 3, dtype="float32"), "threshold": 1.0}
DAMAGED = {
    "missing": lambda path: None,
    "empty": lambda path: path.write_bytes(b""),
    "text": lambda path: path.write_text("no arrays"),
    "truncated": lambda path: (npz(**GOOD)(path), path.write_bytes(path.read_bytes()[:300])),
    "no threshold": npz(**{name: GOOD[name] for name in ("projection", "centers")}),
    "one array more": npz(**GOOD, more=np.zeros(3)),
    "NaN": npz(**{**GOOD, "projection": np.full((3, 3), np.nan, "float32")}),
    "an infinite threshold": npz(**{**GOOD, "threshold": np.inf}),
    "a negative threshold": npz(**{**GOOD, "threshold": -1.0}),
    "float64": npz(**{**GOOD, "centers": np.eye(2, 3)}),
    "two thresholds": npz(**{**GOOD, "threshold": np.ones(2)}),
    "a pickle": npz(**{**GOOD, "centers": np.array([{}, None])}),
    "other widths": npz(**{**GOOD, "centers": np.eye(2, dtype="float32")}),
    "offsets below 0": npz(**{**NOW, "offsets": np.float32([0, -1])}),
    "offsets of another number": npz(**{**NOW, "offsets": np.zeros(3, "float32")}),
    "columns that there are not": npz(**{**NOW, "width": np.int64(3)}),
    "a piece that ends before it begins": npz(**{**NOW, "pieces_0": np.array([[0, 4], [4, 3]])}),
    "a piece before the first column": npz(**{**NOW, "pieces_0": np.array([[-1, 2]])}),
    "pieces of other columns": npz(**{**NOW, "pieces_0": np.array([[0, 4]])}),
    "pieces in float": npz(**{**NOW, "pieces_0": np.array([[0.0, 3.0]])}),
    "another number of projections": npz(**{**NOW, "projections_0": np.ones((3, 3, 3), "float32")}),
    "no depths": npz(**{name: NOW[name] for name in ("threshold", "width", "offsets")}),
    "a width of two numbers": npz(**{**NOW, "width": np.array([4, 4])}),
    "an infinite shift": npz(**{**NOW, "shift_0": np.full(3, np.inf, "float32")}),
    "old and new": npz(**{**NOW, "projection": np.ones((3, 3), "float32")}),
    "a vector": npz(**{**GOOD, "projection": np.ones(3, "float32")}),
}


def test_the_file_is_good_before_it_is_damaged(tmp_path):
    for number, arrays in enumerate((GOOD, NOW)):
        npz(**arrays)(tmp_path / f"{number}.npz")
        assert OODDetector.load(tmp_path / f"{number}.npz").threshold == 1


@pytest.mark.parametrize("damage", DAMAGED.values(), ids=DAMAGED.keys())
def test_a_damaged_file_is_an_error(damage, tmp_path):
    damage(tmp_path / "rejection.npz")
    with pytest.raises(InputError, match=r"rejection\.npz cannot be read \(.*\): train the run again"):
        OODDetector.load(tmp_path / "rejection.npz")


def test_the_file_is_written_completely_or_not_at_all(tmp_path, monkeypatch):
    path = tmp_path / "rejection.npz"
    fitted().save(path)
    before = path.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "replace", full)
    with pytest.raises(OSError, match="No space left"):
        fitted(share=0.1).save(path)
    assert path.read_bytes() == before
    assert [each.name for each in tmp_path.iterdir()] == ["rejection.npz"]
