"""How far a model's confidence can be believed, and one number that mends it."""

from typing import Any

import numpy as np

from keras_vit.evaluation.metrics import checked_probabilities, checked_scores

TEMPERATURE_BOUNDS = (0.05, 20.0)


def softmax(logits) -> np.ndarray:
    """Logits (..., classes) to float64 probabilities of the same shape, without overflow."""
    logits = np.asarray(logits, dtype=np.float64)
    exponentials = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return exponentials / exponentials.sum(axis=-1, keepdims=True)


def fit_temperature(logits, labels) -> float:
    """The T for which `softmax(logits / T)` gives these labels the highest likelihood.

    One number for all classes: it changes how sure the model says it is, never which class it names. Above 1
    the model was too sure of itself, below 1 too timid. T is kept in 0.05..20, since no finite T is best
    where every image is right (the smaller the better), or where the model is worse than chance (the larger
    the better).

    Reference: C. Guo, G. Pleiss, Y. Sun, K. Q. Weinberger, "On calibration of modern neural networks", ICML
    2017.

    Args:
        logits: (n, classes), of images that were not trained on.
        labels: int (n,), the true classes.

    Raises:
        ValueError: for no images, shapes that do not fit, or logits that are not finite.
    """
    from scipy.optimize import minimize_scalar
    from scipy.special import logsumexp

    labels, logits = checked_scores(labels, logits, "logits")
    # How far each class lies above the true one: the loss is the mean of log(sum(exp(above / T))).
    above = logits - logits[np.arange(len(labels)), labels][:, None]

    def negative_log_likelihood(log_temperature):
        return logsumexp(above / np.exp(log_temperature), axis=1).mean()

    # Convex in 1 / T, so it has one valley in log T too.
    found = minimize_scalar(negative_log_likelihood, bounds=np.log(TEMPERATURE_BOUNDS), method="bounded")
    return float(np.exp(found.x))


def reliability_bins(probabilities, labels, bins: int = 15) -> list[dict[str, Any]]:
    """Images sorted into bins of equal width by the model's confidence in the class that it names.

    Args:
        probabilities: (n, classes), rows that sum to 1.
        labels: int (n,), the true classes.
        bins: how many, at least 1.

    Returns:
        A list of `bins` dicts: `low` and `high` (a bin holds low < confidence <= high), `count`, `confidence`
        (the mean in the bin) and `accuracy` (the share that is right); the last two are None in an empty bin.

    Raises:
        ValueError: for no bins, no images, shapes that do not fit, or rows that are no probabilities.
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


def expected_calibration_error(probabilities, labels, bins: int = 15) -> float:
    """The mean distance of confidence and accuracy over the bins, each weighed by its images. 0 is perfect.

    Reference: M. P. Naeini, G. F. Cooper, M. Hauskrecht, "Obtaining well calibrated probabilities using
    Bayesian binning", AAAI 2015; with 15 bins as in Guo et al., ICML 2017.

    Arguments and errors as `reliability_bins`.
    """
    filled = [b for b in reliability_bins(probabilities, labels, bins) if b["count"]]
    images = sum(b["count"] for b in filled)
    return sum(b["count"] * abs(b["accuracy"] - b["confidence"]) for b in filled) / images
