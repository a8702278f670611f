"""How an `OODDetector` is fitted: a Gaussian per class at several depths of the model.

The features of a class form a cloud of its own shape. Covariances per class see that an image lies between
two classes, or beside a narrow one, where one covariance for all of them is too wide.

Sources: K. Lee, K. Lee, H. Lee, J. Shin, "A simple unified framework for detecting out-of-distribution
samples and adversarial attacks", NeurIPS 2018, https://arxiv.org/abs/1807.03888: Gaussians at several depths.
O. Ledoit, M. Wolf, "A well-conditioned estimator for large-dimensional covariance matrices", Journal of
Multivariate Analysis 88 (2004): a covariance is shrunk as much as the number of images requires. The depths
and the score were chosen on development images: see benchmarks/accuracy.md.

The shrinkage is scikit-learn's, the matrix algebra is scipy's.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from keras_vit.evaluation.ood import (
    SHARE,
    TRAINING_FOLDS,
    VALIDATION,
    Gaussians,
    OODDetector,
    conformal_threshold,
    why_too_few,
)

METHOD = "Mahalanobis distance to the nearest class, with a covariance per class, at several depths"

Pieces = Sequence[tuple[int, int]]
"""The columns that one Gaussian judges: the first of each piece, and the one behind its last."""

FEWEST_OF_CLASS = 20
"""A class with fewer images has the covariance of all classes, about its own centre."""

MOST_BYTES = 2**27
"""That the covariances of all classes may take, 128 MiB. Where they need more, all classes share one."""

FOLDS = 10

LEAST_VARIANCE = 1e-4
"""Added to all variances, as a fraction of the mean one: half precision keeps 3 digits, so a direction with
less is rounding error."""


@dataclass(frozen=True, eq=False)
class Fitted:
    """A detector without a threshold, and what its scores are measured from.

    Args:
        depths: the Gaussians of each depth.
        log_determinants: float64 (depths, classes), of the covariances.
        pooled: how many classes have the covariance of all.
    """

    depths: tuple[Gaussians, ...]
    log_determinants: np.ndarray
    pooled: int


def fit_ood_detector(
    features: ArrayLike,
    labels: ArrayLike,
    validation_features: ArrayLike,
    share: float = SHARE,
    columns: Sequence[Pieces] = (),
    in_folds: bool = False,
    image_of: np.ndarray | None = None,
    one_covariance: bool = False,
) -> tuple[OODDetector | None, str]:
    """Fits the Gaussians on training images, and the threshold on images that they have not seen.

    Args:
        features: (n, width), of training images.
        labels: int (n,), their classes.
        validation_features: (m, width), of images that the model was not trained on.
        share: Fraction of images like the training images that may be rejected on average.
        columns: Of each Gaussian; none for all columns as one.
        in_folds: Whether the threshold follows from `FOLDS` folds of the training images, each judged by
            Gaussians fitted to the others. Only where the features do not depend on the training images.
        image_of: int (n,), which image a row is of, where images have several: these stay in one fold.
            `None` for one row per image.
        one_covariance: Whether all classes share one, as in earlier versions.

    Returns:
        The `OODDetector` and `"validation"` or `"training folds"`; or `None` and the reason why nothing could
        be fitted.
    """
    features, labels = np.asarray(features, dtype=np.float64), np.asarray(labels)
    held_out = features if in_folds else np.asarray(validation_features, dtype=np.float64)
    reason = why_too_few(len(held_out), share, "training" if in_folds else "validation")
    if reason:
        return None, reason
    if not (np.isfinite(features).all() and np.isfinite(held_out).all()):
        return None, "nothing: the features of the model are not finite, its training has diverged"
    fitted = fit_gaussians(features, labels, columns, one_covariance)
    if fitted is None:
        return None, "nothing: the model gives the same features for all training images"
    detector = _detector(fitted, features.shape[1], np.inf)
    if in_folds:
        distances = fold_distances(features, labels, columns, fitted, image_of)
    else:
        distances = detector.distances(held_out)
    threshold = conformal_threshold(distances, share)
    return _detector(fitted, features.shape[1], threshold), TRAINING_FOLDS if in_folds else VALIDATION


def _detector(fitted: Fitted, width: int, threshold: float) -> OODDetector:
    summed = fitted.log_determinants.sum(axis=0)
    return OODDetector(fitted.depths, (summed - summed.min()).astype("float32"), width, threshold)


def fit_gaussians(
    features: np.ndarray,
    labels: np.ndarray,
    columns: Sequence[Pieces] = (),
    one_covariance: bool = False,
) -> Fitted | None:
    """The Gaussians of all classes at all depths; `None` where the features do not vary.

    Args:
        features: float64 (n, width).
        labels: int (n,).
        columns: of each Gaussian; none for all columns as one.
        one_covariance: whether all classes share one.
    """
    classes, class_of, counts = np.unique(labels, return_inverse=True, return_counts=True)
    columns = columns or (((0, features.shape[1]),),)
    own = own_covariances(counts, columns) & (not one_covariance)
    found = [_fit_depth(features, class_of, own, pieces) for pieces in columns]
    depths = [depth for depth in found if depth is not None]
    if not depths:
        return None
    return Fitted(
        tuple(gaussians for gaussians, _ in depths),
        np.stack([log_determinants for _, log_determinants in depths]),
        len(classes) - int(own.sum()),
    )


def own_covariances(counts: np.ndarray, columns: Sequence[Pieces]) -> np.ndarray:
    """Which classes get a covariance of their own: bool (classes,), by their numbers of images."""
    own = counts >= FEWEST_OF_CLASS
    needed = 4 * len(counts) * sum(sum(stop - start for start, stop in pieces) ** 2 for pieces in columns)
    return own if needed <= MOST_BYTES else np.zeros_like(own)


def _fit_depth(
    features: np.ndarray, class_of: np.ndarray, own: np.ndarray, pieces: Pieces
) -> tuple[Gaussians, np.ndarray] | None:
    """The Gaussians of one depth and the log determinants (classes,); `None` if nothing varies there.

    Each feature is scaled to variance 1 about the centres of the classes first: Ledoit and Wolf shrink
    towards a multiple of the identity.
    """
    from scipy.linalg import solve_triangular
    from sklearn.covariance import ledoit_wolf

    classes = len(own)
    features = np.concatenate([features[:, start:stop] for start, stop in pieces], axis=1)
    centers = np.stack([features[class_of == k].mean(axis=0) for k in range(classes)])
    centred = features - centers[class_of]
    spread = centred.std(axis=0)
    if not spread.any():
        return None
    spread[spread == 0] = 1
    shift = features.mean(axis=0).astype("float32")
    centred = centred / spread
    projections, log_determinants = [], np.zeros(classes)

    def whiten(rows: np.ndarray) -> float:
        covariance, _ = ledoit_wolf(rows, assume_centered=True)
        lower = np.linalg.cholesky(covariance + LEAST_VARIANCE * np.eye(len(covariance)))
        inverse = solve_triangular(lower, np.eye(len(lower)), lower=True)
        projections.append((inverse.T / spread[:, None]).astype("float32"))
        return float(2 * np.log(np.diag(lower)).sum())

    if own.all():
        log_determinants[:] = [whiten(centred[class_of == k]) for k in range(classes)]
    else:
        log_determinants[:] = whiten(centred)
        pooled = projections.pop()
        if own.any():
            for k in range(classes):
                if own[k]:
                    log_determinants[k] = whiten(centred[class_of == k])
                else:
                    projections.append(pooled)
        else:
            projections.append(pooled)
    maps = np.stack(projections)
    away = centers - shift.astype(np.float64)
    # In the units of the features, so that those of other fits compare.
    log_determinants += 2 * np.log(spread).sum()
    whitened = np.stack([away[k] @ maps[k % len(maps)].astype(np.float64) for k in range(classes)])
    return Gaussians(np.array(pieces, "int64"), shift, maps, whitened.astype("float32")), log_determinants


def fold_distances(
    features: np.ndarray,
    labels: np.ndarray,
    columns: Sequence[Pieces],
    fitted: Fitted,
    image_of: np.ndarray | None = None,
) -> np.ndarray:
    """The distance of each training image from Gaussians that were fitted without it: float64 (n,).

    They are measured from the same level as those of `fitted`, of all images.
    """
    level = fitted.log_determinants.sum(axis=0).min()
    found = np.zeros(len(features))
    for rows in folds(labels, image_of):
        part = fit_gaussians(features[~rows], labels[~rows], columns)
        if part is None:
            return np.zeros(len(features))
        squared = sum(each.squared(features[rows]) for each in part.depths)
        judged = (squared + part.log_determinants.sum(axis=0)).min(axis=1)
        found[rows] = np.sqrt(np.maximum(judged - level, 0.0))
    return found


def folds(labels: np.ndarray, image_of: np.ndarray | None = None) -> Iterator[np.ndarray]:
    """Which rows each fold leaves out: bool (n,). The classes are spread evenly, by a fixed seed.

    Args:
        labels: int (n,).
        image_of: see `fit_ood_detector`.
    """
    image_of = np.arange(len(labels)) if image_of is None else image_of
    _, first, image_of = np.unique(image_of, return_index=True, return_inverse=True)
    labels = labels[first]
    shuffled = np.random.default_rng(0).permutation(len(labels))
    by_class = shuffled[np.argsort(labels[shuffled], kind="stable")]
    fold_of = np.empty(len(labels), int)
    fold_of[by_class] = np.arange(len(labels)) % FOLDS
    return (fold_of[image_of] == fold for fold in range(FOLDS))
