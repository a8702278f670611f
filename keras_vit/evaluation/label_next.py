"""Which images a person should label next: those a model is unsure of, and that differ from each other."""

import warnings

import numpy as np

BROAD = 10
"""So many times the number of images that are asked for are clustered: the most unsure ones. 5, 20 and all of
them were no better."""


def uncertainty(probabilities: np.ndarray, several: bool = False) -> np.ndarray:
    """How unsure a model is of each image: 0 for certain to 1.

    Args:
        probabilities: (n, classes).
        several: whether an image may have several labels, each with a probability of its own.

    Returns:
        float64 (n,): 1 minus the margin between the two likeliest classes; of several labels, that of the
        label which is the least certain.
    """
    found = np.asarray(probabilities, np.float64)
    if several:
        return 1 - np.abs(2 * found - 1).min(axis=1)
    if found.shape[1] == 1:
        return np.zeros(len(found))
    ordered = np.sort(found, axis=1)
    return np.clip(1 - (ordered[:, -1] - ordered[:, -2]), 0, 1)


def choose_next(
    probabilities: np.ndarray,
    features: np.ndarray,
    count: int,
    groups: np.ndarray | None = None,
    seed: int = 0,
    several: bool = False,
) -> np.ndarray:
    """Chooses images to label that a model is unsure of and that differ, the most unsure ones first.

    The `BROAD` times as many most unsure images are clustered by k-means in their standardised features, each
    with the weight of its uncertainty, and the image nearest to each centre is chosen: F. Zhdanov, "Diverse
    mini-batch Active Learning", 2019. Of what was tried on NEU and X-SDD this saved the most labels in the
    first steps: benchmarks/accuracy.md.

    Args:
        probabilities: (n, classes).
        features: (n, width), what the model sees in the images.
        count: how many are chosen; fewer where there are fewer groups.
        groups: int (n,), equal for images that show the same thing, of which one is enough; `None` for none.
        seed: of the clustering.
        several: as of `uncertainty`.

    Returns:
        int64 (count,): positions.
    """
    scores = uncertainty(probabilities, several)
    candidates = np.argsort(-scores, kind="stable")
    if groups is not None:
        _, first = np.unique(np.asarray(groups)[candidates], return_index=True)
        candidates = candidates[np.sort(first)]
    candidates = candidates[: BROAD * count]
    if len(candidates) <= count:
        return candidates
    found = np.asarray(features, np.float64)
    standardised = (found - found.mean(axis=0)) / (found.std(axis=0) + 1e-6)
    return candidates[np.sort(_central(standardised[candidates], scores[candidates], count, seed))]


def _central(rows: np.ndarray, weights: np.ndarray, count: int, seed: int) -> np.ndarray:
    """The positions of `count` rows, each the nearest one to a centre of weighted k-means that is left."""
    from sklearn.cluster import KMeans
    from sklearn.exceptions import ConvergenceWarning
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # equal rows make fewer centres
        centres = KMeans(count, n_init=1, random_state=seed).fit(rows, sample_weight=weights + 1e-6)
        distances = centres.transform(rows)
    chosen = np.zeros(count, np.int64)
    for c in range(count):
        chosen[c] = distances[:, c].argmin()
        distances[chosen[c]] = np.inf
    return chosen
