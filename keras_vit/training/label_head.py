"""The head of frozen weights for several labels: a linear classifier of their features for each label."""

import time

import numpy as np

from keras_vit.data.label_split import stratify
from keras_vit.evaluation.labels import decisions, sigmoid, temperature_of
from keras_vit.training.head import FOLDS, GRID, Head

MANY, FEWER_FOLDS, COARSE = 30, 3, GRID[::2]
"""With more labels than this, so many folds and these strengths: each label is fitted by itself."""


def fit_label_head(
    features: np.ndarray,
    labels: np.ndarray,
    sample_weight: np.ndarray | None = None,
    image_of: np.ndarray | None = None,
) -> Head:
    """Fits a logistic regression to features for each label, all with the same strength of the penalty.

    As `keras_vit.training.head.fit_head`, the strength is the one with the least log loss over folds of these
    images, each at its best temperature, and the head is divided by that temperature.

    Args:
        features: (n, width).
        labels: uint8 (n, classes).
        sample_weight: (n,); `None` counts each row once.
        image_of: int (n,), which image a row is of, where images have several: they stay in one fold. `None`
            for one row per image.
    """
    from threadpoolctl import threadpool_limits

    begin = time.perf_counter()
    with threadpool_limits(1):
        kernel, bias, strength, grid, judged_on, out_of_fold = _fitted(
            features, labels, sample_weight, np.arange(len(labels)) if image_of is None else image_of
        )
    seconds = time.perf_counter() - begin
    return Head(
        kernel.astype("float32"), bias.astype("float32"), strength, grid, judged_on, seconds, out_of_fold
    )


def _fitted(features, labels, weight, image_of):
    many = labels.shape[1] > MANY
    strengths, number = (COARSE, FEWER_FOLDS) if many else (GRID, FOLDS)
    images = len(np.unique(image_of))
    number = min(number, images)
    if number < 2:
        strength = GRID[len(GRID) // 2]
        return (
            *_fit(features, labels, strength, weight),
            strength,
            [],
            "nothing: there is one image only",
            None,
        )
    fold = stratify(labels, image_of, [1 / number] * number, seed=0)
    grid, found = [], {}
    for strength in strengths:
        logits = np.zeros(labels.shape)
        for outer in (fold == one for one in range(number)):
            inner = ~outer
            kernel, bias = _fit(
                features[inner], labels[inner], strength, None if weight is None else weight[inner]
            )
            logits[outer] = features[outer] @ kernel + bias
        temperature, _ = temperature_of(labels, logits)
        targets, pairs = decisions(labels, sigmoid(logits / temperature))
        right = np.clip(pairs[np.arange(len(targets)), targets], 1e-12, 1)
        grid.append(
            {
                "strength": strength,
                "log_loss": float(-np.log(right).mean()),
                "accuracy": float((pairs.argmax(axis=1) == targets).mean()),
                "temperature": temperature,
            }
        )
        found[strength] = logits
    chosen = min(grid, key=lambda row: row["log_loss"])
    strength, temperature = chosen["strength"], chosen["temperature"]
    kernel, bias = _fit(features, labels, strength, weight)
    return (
        kernel / temperature,
        bias / temperature,
        strength,
        grid,
        f"{number} folds of the {images} training images",
        found[strength] / temperature,
    )


def _fit(features, labels, strength, weight):
    """Kernel (width, classes) and bias (classes,) that take the features as they are."""
    from sklearn.linear_model import LogisticRegression

    mean = features.mean(axis=0, dtype="float64")
    std = features.std(axis=0, dtype="float64") + 1e-6
    scaled = (features - mean) / std
    kernel, bias = np.zeros((features.shape[1], labels.shape[1])), np.zeros(labels.shape[1])
    for i, column in enumerate(labels.T):
        if column.min() == column.max():  # a fold has no image with it, or without it
            bias[i] = 5.0 if column[0] else -5.0
            continue
        model = LogisticRegression(C=strength, max_iter=1000, tol=1e-3)
        model.fit(scaled, column, sample_weight=weight)
        kernel[:, i] = model.coef_[0] / std
        bias[i] = model.intercept_[0] - (mean / std) @ model.coef_[0]
    return kernel, bias
