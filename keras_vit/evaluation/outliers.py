"""Images that are unlike all classes of their set."""

import numpy as np

from keras_vit.evaluation.ood_fit import Pieces, fit_gaussians, fold_distances

FAR = 3.5
"""Modified z-score from which an image is an outlier: B. Iglewicz and D. C. Hoaglin, "How to Detect and
Handle Outliers", 1993."""

FEWEST = 50
"""Images from which outliers are looked for: with fewer, their spread is not known."""


def find_outliers(
    features: np.ndarray, labels: np.ndarray, columns: list[Pieces], groups: np.ndarray
) -> np.ndarray:
    """How far each image is from the nearest class: modified z-scores, float64 (n,).

    The distance is that of the out-of-distribution detector, by Gaussians that were fitted without the image.
    Its logarithm is measured in robust standard deviations above the median.

    Args:
        features: (n, width).
        labels: int (n,).
        columns: of the Gaussians, see `fit_gaussians`.
        groups: int (n,), equal for images that show the same thing: they are left out together.
    """
    features = features.astype(np.float64)
    fitted = fit_gaussians(features, labels, columns) if len(features) >= FEWEST else None
    if fitted is None:
        return np.zeros(len(features))
    logs = np.log(np.maximum(fold_distances(features, labels, columns, fitted, groups), 1e-9))
    spread = np.median(np.abs(logs - np.median(logs))) / 0.6745
    if spread < 1e-6:  # most images are equally far: copies of each other
        return np.zeros(len(features))
    return (logs - np.median(logs)) / spread
