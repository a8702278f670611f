"""The head of frozen weights: a linear classifier of their features."""

import time
from dataclasses import dataclass

import numpy as np

from keras_vit.evaluation.calibration import fit_temperature

GRID = (0.002, 0.005, 0.02, 0.05, 0.2, 0.5, 2.0)
"""Inverse strengths of the L2 penalty that are tried."""

FOLDS = 5

FEW = 20
"""Training images per class below which `fit_few` is used. With mirror images it was better than a fixed
strength without them by 0.7 to 1.3 points on NEU for 2 to 20 images per class (20 draws), more on X-SDD."""

STRENGTH_OF_FEW = 0.02
"""Inverse strength of the L2 penalty for features that vary by 1 within a class; 0.002 and 0.2 differ by at
most half a point."""

STRENGTH_OF_SPREAD = 0.05
"""Inverse strength of the L2 penalty of `fit_spread`: a weaker one learns the wrong labels by heart."""


@dataclass(frozen=True)
class Head:
    """A linear classifier of features.

    Args:
        kernel: float32 (width, classes).
        bias: float32 (classes,).
        strength: the chosen one of `GRID`.
        grid: one row for each value that was tried: `strength`, `log_loss`, `accuracy`, `temperature`.
        judged_on: what images chose it, in words.
        seconds: that the fit took.
        out_of_fold: (n, classes), the logits of each image by a head of the same strength that was fitted
            without its fold; `None` where there were no folds.
    """

    kernel: np.ndarray
    bias: np.ndarray
    strength: float
    grid: list[dict[str, float]]
    judged_on: str
    seconds: float
    out_of_fold: np.ndarray | None = None

    def logits(self, features: np.ndarray) -> np.ndarray:
        """float32 (n, width) to float32 (n, classes)."""
        return features @ self.kernel + self.bias


def fit_head(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    sample_weight: np.ndarray | None = None,
    image_of: np.ndarray | None = None,
) -> Head:
    """Fits a logistic regression to features; cross-validation on these images chooses its strength.

    Each feature is standardised first. The strength with the least log loss over `FOLDS` folds is taken, each
    at its best temperature, since the answers of a run are calibrated. Without that, the log loss would judge
    how large the logits are. The head is divided by the temperature of its strength, so that its answers are
    calibrated where there is no validation part, and a training that begins with it does not begin by
    shrinking it. Where a class has one image only, the middle of the grid is taken. The validation part of a
    run, which calibrates the answers, is not needed for this choice and stays unseen.

    Args:
        features: (n, width).
        labels: int (n,).
        num_classes: of the head.
        sample_weight: (n,); `None` counts each row once.
        image_of: int (n,), which image a row is of, where images have several: they stay in one fold. `None`
            for one row per image.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # the products are small: threads wait for each other longer than they compute
        return _fit_head(features, labels, num_classes, sample_weight, image_of)


def _fit_head(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    sample_weight: np.ndarray | None,
    image_of: np.ndarray | None,
) -> Head:
    from sklearn.model_selection import StratifiedKFold

    begin = time.perf_counter()
    image_of = np.arange(len(labels)) if image_of is None else image_of
    images, first = np.unique(image_of, return_index=True)
    fewest = int(np.bincount(labels[first], minlength=num_classes).min())
    grid: list[dict[str, float]] = []
    logits_of: dict[float, np.ndarray] = {}
    strength, judged_on = GRID[len(GRID) // 2], "nothing: a class has one image only"
    if fewest >= 2:
        folds = StratifiedKFold(min(FOLDS, fewest), shuffle=True, random_state=0)
        tested = [np.isin(image_of, images[outer]) for _, outer in folds.split(images, labels[first])]
        parts = [(np.flatnonzero(~outer), np.flatnonzero(outer)) for outer in tested]
        for value in GRID:
            logits = np.zeros((len(labels), num_classes))
            for inner, outer in parts:
                weight = None if sample_weight is None else sample_weight[inner]
                kernel, bias = _fit(features[inner], labels[inner], num_classes, value, weight)
                logits[outer] = features[outer] @ kernel + bias
            logits_of[value] = logits
            temperature = fit_temperature(logits, labels)
            log_p = log_softmax(logits / temperature)
            grid.append(
                {
                    "strength": value,
                    "log_loss": float(-log_p[np.arange(len(labels)), labels].mean()),
                    "accuracy": float((log_p.argmax(axis=1) == labels).mean()),
                    "temperature": temperature,
                }
            )
        strength = min(grid, key=lambda row: row["log_loss"])["strength"]
        judged_on = f"{len(parts)} folds of the {len(images)} training images"
    kernel, bias = _fit(features, labels, num_classes, strength, sample_weight)
    chosen = next((row for row in grid if row["strength"] == strength), None)
    out_of_fold = logits_of.get(strength)
    if chosen and chosen["accuracy"] < 1:  # otherwise no temperature is the best
        kernel, bias = kernel / chosen["temperature"], bias / chosen["temperature"]
        out_of_fold = logits_of[strength] / chosen["temperature"]
    return Head(
        kernel.astype("float32"),
        bias.astype("float32"),
        strength,
        grid,
        judged_on,
        time.perf_counter() - begin,
        out_of_fold,
    )


def _fit(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    strength: float,
    sample_weight: np.ndarray | None = None,
    standardise: bool = True,
) -> tuple[np.ndarray, np.ndarray]:
    """Kernel (width, classes) and bias (classes,) that take the features as they are."""
    from sklearn.linear_model import LogisticRegression

    mean, std = features.mean(axis=0, dtype="float64"), np.ones(features.shape[1])
    if standardise:
        std = features.std(axis=0, dtype="float64") + 1e-6
    model = LogisticRegression(C=strength, max_iter=1000, tol=1e-3)
    model.fit((features - mean) / std, labels, sample_weight=sample_weight)
    coefficients, intercept = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn has one row for two classes
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercept = np.concatenate([-intercept, intercept]) / 2
    kernel, bias = np.zeros((features.shape[1], num_classes)), np.full(num_classes, -1e3)
    kernel[:, model.classes_] = coefficients.T / std[:, None]
    bias[model.classes_] = intercept - (mean / std) @ coefficients.T
    return kernel, bias


def fit_few(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    sample_weight: np.ndarray | None = None,
    equally: bool = False,
) -> Head:
    """Fits a logistic regression to features of few images.

    The features are first scaled so that they vary by 1 within a class, in every direction. A direction in
    which images of one class differ a lot then needs a large weight to matter, and the penalty prevents that.
    The covariance within the classes is estimated with shrinkage, by O. Ledoit and M. Wolf, "A
    well-conditioned estimator for large-dimensional covariance matrices", Journal of Multivariate Analysis
    88, 2004.

    Args:
        features: (n, width); several views of an image count as images.
        labels: int (n,).
        num_classes: of the head.
        sample_weight: (n,); `None` counts each row once.
        equally: whether classes are answered as if they were equally frequent: the logarithm of how frequent
            they are is subtracted from their logits, as by A. K. Menon et al., "Long-tail learning via logit
            adjustment", ICLR 2021. With few images of a class this beats weights, which the penalty undoes.
    """
    from threadpoolctl import threadpool_limits

    begin = time.perf_counter()
    with threadpool_limits(1):
        scaling = _scaling_within(features.astype("float64"), labels)
        kernel, bias = _fit(
            features @ scaling, labels, num_classes, STRENGTH_OF_FEW, sample_weight, standardise=False
        )
    if equally:
        present, counts = np.unique(labels, return_counts=True)
        bias[present] -= np.log(counts / counts.sum())
    return Head(
        (scaling @ kernel).astype("float32"),
        bias.astype("float32"),
        STRENGTH_OF_FEW,
        [],
        f"nothing: there are fewer than {FEW} images per class, or of most classes",
        time.perf_counter() - begin,
    )


def fit_spread(features: np.ndarray, labels: np.ndarray, weight: np.ndarray, num_classes: int) -> Head:
    """Fits a logistic regression to features of images, most of which have a spread label.

    The strength is fixed. Folds cannot choose it, since the spread labels agree with each other where they
    are wrong, too.

    Args:
        features: (n, width).
        labels: int (n,).
        weight: of each image, the confidence of its label: (n,).
        num_classes: of the head.
    """
    from threadpoolctl import threadpool_limits

    begin = time.perf_counter()
    with threadpool_limits(1):
        kernel, bias = _fit(features, labels, num_classes, STRENGTH_OF_SPREAD, weight)
    return Head(
        kernel.astype("float32"),
        bias.astype("float32"),
        STRENGTH_OF_SPREAD,
        [],
        "nothing: most labels are spread ones",
        time.perf_counter() - begin,
    )


def _scaling_within(features: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """(width, width): features times this have the covariance 1 within the classes, after shrinkage."""
    from sklearn.covariance import ledoit_wolf

    present, rows = np.unique(labels, return_inverse=True)
    means = np.stack([features[labels == label].mean(axis=0) for label in present])
    within = features - means[rows]
    std = features.std(axis=0) + 1e-6  # the shrinkage is towards equal variances of what is standardised
    covariance, _ = ledoit_wolf(within / std, assume_centered=True)
    values, vectors = np.linalg.eigh(covariance)
    if values.max() < 1e-9:  # one view of one image per class: nothing is known of what varies
        return np.diag(1 / std)
    return vectors / np.sqrt(np.maximum(values, 1e-6 * values.max())) / std[:, None]


def log_softmax(logits: np.ndarray) -> np.ndarray:
    """The logarithm of each row's probabilities, by scipy."""
    from scipy import special

    return special.log_softmax(logits, axis=1)
