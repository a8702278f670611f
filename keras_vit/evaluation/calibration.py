"""The calibration of a classifier: its confidence against its accuracy, and temperature scaling.

Written by hand here: `reliability_bins`, because scikit-learn's `calibration_curve` takes two classes only
and gives no counts; `expected_calibration_error`, which scikit-learn does not have.
"""

from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from keras_vit.evaluation.metrics import checked_probabilities, checked_scores

TEMPERATURE_BOUNDS = (0.05, 20.0)


def softmax(logits: ArrayLike) -> np.ndarray:
    """Logits (..., classes) to float64 probabilities of the same shape, without overflow. By scipy."""
    from scipy import special

    return special.softmax(np.asarray(logits, dtype=np.float64), axis=-1)


def fit_temperature(logits: ArrayLike, labels: ArrayLike) -> float:
    """The temperature T that gives the labels the highest likelihood under `softmax(logits / T)`.

    The same T serves all classes: it changes the confidence, never the predicted class. A T above 1 means
    that the model was overconfident, below 1 that it was underconfident. T is kept in 0.05..20, because no
    finite T is best where every image is classified right (the smaller the better) or where the model is
    worse than chance (the larger the better).

    Reference: C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks", ICML
    2017.

    Args:
        logits: (n, classes), of images that the model was not trained on.
        labels: int (n,), the true classes.

    Raises:
        ValueError: There are no images, the shapes do not match, or the logits are not finite.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    labels, logits = checked_scores(labels, logits, "logits")
    # Each logit minus that of the true class: the loss is the mean of log(sum(exp(margins / T))).
    margins = logits - logits[np.arange(len(labels)), labels][:, None]

    def negative_log_likelihood(log_temperature: float) -> float:
        return logsumexp(margins / np.exp(log_temperature), axis=1).mean()

    # The loss is convex in 1 / T, so it has one minimum in log T too.
    found = minimize_scalar(negative_log_likelihood, bounds=np.log(TEMPERATURE_BOUNDS), method="bounded")
    return float(np.exp(found.x))


def reliability_bins(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> list[dict[str, Any]]:
    """Images in bins of equal width by confidence, the probability of the predicted class.

    Args:
        probabilities: (n, classes), rows that sum to 1.
        labels: int (n,), the true classes.
        bins: Number of bins, at least 1.

    Returns:
        A list of `bins` dicts: `low` and `high` (a bin holds low < confidence <= high), `count`, `confidence`
        (the mean in the bin) and `accuracy` (the fraction that is right). The last two are None in an empty
        bin.

    Raises:
        ValueError: There are no bins or no images, the shapes do not match, or a row is not a probability
            distribution.
    """
    if bins < 1:
        raise ValueError(f"bins must be at least 1. Received: {bins}")
    labels, probabilities = checked_probabilities(labels, probabilities)
    confidence = probabilities.max(axis=1)
    right = probabilities.argmax(axis=1) == labels
    edges = np.linspace(0, 1, bins + 1)
    bin_of = np.searchsorted(edges[1:-1], confidence, side="left")
    return [
        {
            "low": float(edges[b]),
            "high": float(edges[b + 1]),
            "count": int(inside.sum()),
            "confidence": float(confidence[inside].mean()) if inside.any() else None,
            "accuracy": float(right[inside].mean()) if inside.any() else None,
        }
        for b in range(bins)
        for inside in [bin_of == b]
    ]


def expected_calibration_error(probabilities: ArrayLike, labels: ArrayLike, bins: int = 15) -> float:
    """The mean gap between confidence and accuracy over the bins, weighted by their images. 0 is perfect.

    Reference: M. P. Naeini, G. F. Cooper, M. Hauskrecht, "Obtaining well calibrated probabilities using
    Bayesian binning", AAAI 2015; with 15 bins as in Guo et al., ICML 2017.

    Arguments and errors as `reliability_bins`.
    """
    filled = [b for b in reliability_bins(probabilities, labels, bins) if b["count"]]
    images = sum(b["count"] for b in filled)
    return sum(b["count"] * abs(b["accuracy"] - b["confidence"]) for b in filled) / images
