"""Out-of-distribution detection: how far an image lies from the training images, and which are rejected.

A classifier predicts one of its classes for any image, even for a picture of a brick, and often with high
confidence. The features of the training images tell more: they form clusters around the centres of their
classes.

Source: K. Lee, K. Lee, H. Lee, J. Shin, "A simple unified framework for detecting out-of-distribution samples
and adversarial attacks", NeurIPS 2018, https://arxiv.org/abs/1807.03888: the Mahalanobis distance to the
nearest class centre, with one covariance for all classes, of the features of several depths. Here the
features of all depths are concatenated before the distance is computed, so that no out-of-distribution images
are needed to weight them.

The covariance is scikit-learn's, the distances are scipy's. Written by hand here: `conformal_threshold`, an
order statistic whose exact rank `numpy.quantile` does not promise.
"""

import zipfile
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path

import numpy as np
from numpy.typing import ArrayLike

from keras_vit.claims import check_npz
from keras_vit.errors import InputError
from keras_vit.files import whole_file

METHOD = "Mahalanobis distance to the nearest class centre"
SHARE = 0.05  # of images like the training images, the largest fraction that may be rejected on average

GAP = 1e-3
"""A gap between distances, as a fraction of them, in whose middle rounding errors decide about no image. In
float32 the distances of one image differ by 1e-5 between backends, devices and formats."""

# Below this fraction of the mean variance a direction is rounding error: half precision keeps 3 digits.
LEAST_VARIANCE = 1e-4


@dataclass(frozen=True, eq=False)
class OODDetector:
    """Which images are out of distribution, by their features.

    After the projection, Euclidean distances are the Mahalanobis distances between features.

    Args:
        projection: float32 (dim, rank).
        centers: float32 (classes, rank), projected, of the classes that had training images.
        threshold: Largest distance to the nearest centre at which an image is accepted.
    """

    projection: np.ndarray
    centers: np.ndarray
    threshold: float

    def check(self) -> None:
        """Raises ValueError if the shapes do not fit together, or a number is not finite."""
        both = (self.projection, self.centers)
        if any(values.ndim != 2 or not values.size or values.dtype != np.float32 for values in both) or (
            self.projection.shape[1] != self.centers.shape[1]
        ):
            shapes = " and ".join(f"{values.shape} {values.dtype}" for values in both)
            raise ValueError(f"projection and centers of {shapes}")
        if not all(np.isfinite(values).all() for values in both):
            raise ValueError("numbers that are not finite")
        if not 0 < self.threshold < np.inf:
            raise ValueError(f"a threshold of {self.threshold}")

    def distances(self, features: ArrayLike) -> np.ndarray:
        """The distance of each image to the nearest class centre.

        Args:
            features: (n, dim), n may be 0.

        Returns:
            float64 (n,); NaN for features that are not finite.

        Raises:
            ValueError: The features have another width.
        """
        from scipy.spatial.distance import cdist

        features = np.asarray(features, dtype=np.float64)
        if features.ndim != 2 or features.shape[1] != len(self.projection):
            raise ValueError(
                f"features must have the shape (images, {len(self.projection)}). Received: {features.shape}"
            )
        return cdist(features @ self.projection.astype(np.float64), self.centers).min(axis=1)

    def rejects(self, features: ArrayLike) -> np.ndarray:
        """Which images are rejected: bool (n,). True for features that are not finite.

        Arguments and errors as `distances`.
        """
        return ~(self.distances(features) <= self.threshold)

    def save(self, path: Path) -> None:
        """Writes an .npz file, completely or not at all."""
        with whole_file(path, "wb") as file:
            np.savez(
                file,
                projection=self.projection,
                centers=self.centers,
                threshold=np.float64(self.threshold),
            )

    @classmethod
    def load(cls, path: Path) -> "OODDetector":
        """Reads what `save` wrote.

        Raises:
            InputError: The file is missing or damaged.
        """
        try:
            check_npz(path)
            with open(path, "rb") as opened, np.load(opened, allow_pickle=False) as file:
                if set(file.files) != {"projection", "centers", "threshold"}:
                    raise ValueError(f"it holds {', '.join(sorted(file.files)) or 'nothing'}")
                threshold = file["threshold"]
                if threshold.shape != () or threshold.dtype.kind != "f":
                    raise ValueError(f"a threshold of shape {threshold.shape}, {threshold.dtype}")
                found = cls(file["projection"], file["centers"], float(threshold))
            found.check()
        except (OSError, ValueError, TypeError, KeyError, EOFError, zipfile.BadZipFile) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"{path} cannot be read ({reason}): train the run again.") from error
        return found


Rejection = OODDetector  # its earlier name


def fit_ood_detector(
    features: ArrayLike, labels: ArrayLike, validation_features: ArrayLike, share: float = SHARE
) -> tuple[OODDetector | None, str]:
    """Fits the class centres and the covariance on training images, the threshold on validation images.

    Args:
        features: (n, dim), of training images.
        labels: int (n,), their classes.
        validation_features: (m, dim), of images that the model was not trained on.
        share: Fraction of images like the validation images that may be rejected on average.

    Returns:
        The `OODDetector` and `"validation"`, or `None` and the reason why nothing could be fitted.
    """
    features, labels = np.asarray(features, dtype=np.float64), np.asarray(labels)
    validation_features = np.asarray(validation_features, dtype=np.float64)
    reason = why_too_few(len(validation_features), share)
    if reason:
        return None, reason
    if not (np.isfinite(features).all() and np.isfinite(validation_features).all()):
        return None, "nothing: the features of the model are not finite, its training has diverged"
    projection, centers = fit_clusters(features, labels)
    if projection is None:
        return None, "nothing: the model gives the same features for all training images"
    fitted = OODDetector(projection, centers, np.inf)
    threshold = conformal_threshold(fitted.distances(validation_features), share)
    return OODDetector(projection, centers, threshold), "validation"


def fit_clusters(features: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray | None, np.ndarray]:
    """The projection that makes all class clusters spherical, and their centres in it.

    Each feature is scaled to variance 1. Then the covariance of the features about the centres of their
    classes is shrunk as much as the number of images requires (O. Ledoit, M. Wolf, "A well-conditioned
    estimator for large-dimensional covariance matrices", Journal of Multivariate Analysis 88 (2004)).

    Args:
        features: float64 (n, dim).
        labels: int (n,).

    Returns:
        float32 projection (dim, dim) and centres (classes that have images, dim); the projection is None
        where the features do not vary.
    """
    from sklearn.covariance import ledoit_wolf

    classes, class_of = np.unique(labels, return_inverse=True)
    centers = np.stack([features[class_of == i].mean(axis=0) for i in range(len(classes))])
    centred = features - centers[class_of]
    spread = centred.std(axis=0)
    if not spread.any():
        return None, centers.astype("float32")
    spread[spread == 0] = 1
    covariance, _ = ledoit_wolf(centred / spread, assume_centered=True)
    variances, directions = np.linalg.eigh(covariance)
    variances = np.maximum(variances, LEAST_VARIANCE * variances.mean())
    projection = (directions / np.sqrt(variances) / spread[:, None]).astype("float32")
    return projection, (centers @ projection.astype(np.float64)).astype("float32")


def why_too_few(validation_images: int, share: float) -> str | None:
    """The reason why the validation images are too few for a threshold, or `None` if they are enough."""
    if validation_images == 0:
        return "nothing: there is no validation part"
    needed = least_images(share)
    if validation_images < needed:
        return (
            f"nothing: to reject {100 * share:g} % of such images at most takes {needed} validation images, "
            f"there are {validation_images}"
        )
    return None


def least_images(share: float) -> int:
    """The smallest number of validation images that allows a threshold with this share."""
    return int(np.ceil(1 / share - 1 - 1e-9))


def conformal_threshold(distances: ArrayLike, share: float) -> float:
    """The distance that a new image of the same kind exceeds with a probability of at most `share`.

    The plain quantile of few images is too low. Of n images and a new one, each is equally likely to have the
    largest distance. So the ceil((n + 1)(1 - share))-th smallest of the n distances keeps the guarantee:
    split conformal prediction, V. Vovk, A. Gammerman, G. Shafer, "Algorithmic learning in a random world",
    2005. The guarantee holds on average over validation sets; with one set, the share may be off by about
    sqrt(share / n).

    Any larger number keeps the guarantee too. The threshold is the middle of the first gap above that
    distance which is wider than the rounding errors of another device or format (see `GAP`): on a data point,
    they would decide about the image.

    Args:
        distances: (n,), of validation images; n is at least `least_images(share)`.
        share: Above 0, below 1.

    Raises:
        ValueError: There are too few images for the guarantee, or a distance is not finite.
    """
    distances = np.sort(np.asarray(distances, dtype=np.float64))
    if len(distances) < least_images(share):
        raise ValueError(
            f"A share of {share} needs {least_images(share)} images or more. Received: {len(distances)}"
        )
    if not np.isfinite(distances).all():
        raise ValueError("distances must be finite.")
    rank = int(np.ceil((len(distances) + 1) * (1 - share) - 1e-9))
    return between(distances[rank - 1 :])


def between(scores: np.ndarray) -> float:
    """A threshold above the first of some sorted scores that does not lie on one of them.

    Args:
        scores: sorted, one or more. The first must not be above the threshold.

    Returns:
        The middle of the first gap that is wider than `GAP`; above all scores if there is none.
    """
    for low, high in pairwise([*scores.tolist(), np.inf]):
        width = GAP * max(abs(low), np.finfo(np.float32).tiny)
        if high - low > width:
            return float(low + width if high == np.inf else (low + high) / 2)
    raise AssertionError("the last gap has no end")
