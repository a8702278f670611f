"""Which images a person should label next: those that a model is unsure of, and that differ from each other."""

import numpy as np


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
    """Chooses images to label, in the order in which they are chosen.

    An image stands for the gradient that its likeliest label would give the last layer: the error of the
    probabilities times the features. It is long where the model is unsure, and points elsewhere for other
    classes and other images. The first image is the longest one; each next is drawn by the square of its
    distance to those that are chosen, so that images are unsure and unlike each other.

    References: J. T. Ash et al., "Deep Batch Active Learning by Diverse, Uncertain Gradient Lower Bounds"
    (BADGE), ICLR 2020.

    Args:
        probabilities: (n, classes).
        features: (n, width), the input of the last layer.
        count: how many are chosen; fewer where there are fewer groups.
        groups: int (n,), of images that show the same thing, of which one is enough. `None` for none.
        seed: of the draw.
        several: as of `uncertainty`.

    Returns:
        int64 (count,): positions.
    """
    found = np.asarray(probabilities, np.float64)
    errors = found.copy()
    if several:
        errors -= found >= 0.5
    else:
        errors[np.arange(len(found)), found.argmax(axis=1)] -= 1
    features = np.asarray(features, np.float64)
    # The product of two gradients is that of the errors times that of the features: none is computed.
    lengths = (errors**2).sum(axis=1) * (features**2).sum(axis=1)
    free = np.ones(len(found), bool)
    nearest = np.full(len(found), np.inf)
    random, chosen = np.random.default_rng(seed), []
    while free.any() and len(chosen) < count:
        if not chosen:
            i = int(np.argmax(np.where(free, lengths, -1)))
        else:
            weight = np.where(free, nearest, 0)
            total = weight.sum()
            i = int(random.choice(len(weight), p=weight / total if total > 0 else free / free.sum()))
        chosen.append(i)
        products = (errors @ errors[i]) * (features @ features[i])
        nearest = np.minimum(nearest, np.maximum(lengths + lengths[i] - 2 * products, 0))
        free &= (groups != groups[i]) if groups is not None else (np.arange(len(free)) != i)
    return np.array(chosen, np.int64)
