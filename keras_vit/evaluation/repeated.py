"""Shares of right answers where each test image is answered by several repeats of a training.

Two things make such a share uncertain: which images were tested, and how the trainings went (the images that
were drawn, the first weights, the order). Repeats answer the same images, so neither of them alone is
enough. The variance of the mean is taken as the sum of both parts, as for crossed random effects: A. B. Owen,
"The pigeonhole bootstrap", Annals of Applied Statistics 1(2), 2007, shows that this sum is never too small.
The degrees of freedom of the sum are Satterthwaite's, and the quantile is scipy's.
"""

from dataclasses import dataclass

import numpy as np

from keras_vit.evaluation.metrics import wilson_interval


@dataclass(frozen=True)
class Estimate:
    """A mean with its 95 % interval.

    Args:
        mean: over all repeats and images.
        low: end of the interval.
        high: end of the interval.
    """

    mean: float
    low: float
    high: float

    @property
    def is_certain(self) -> bool:
        """Whether a difference has the sign of its mean throughout the interval."""
        return self.low > 0 or self.high < 0


def estimate_accuracy(right: np.ndarray, clusters: np.ndarray | None = None) -> Estimate:
    """The accuracy of a training that was repeated.

    With one repeat and images that are independent of each other it is the Wilson interval. Otherwise two
    right and two wrong answers are added for the variance (Agresti and Coull 1998), so that an accuracy of
    100 % of few images has an interval too.

    Args:
        right: bool (repeats, images).
        clusters: integers (images,), equal for images that belong together, such as those of one part;
            `None` if each is independent.
    """
    repeats, images = right.shape
    mean = float(right.mean())
    if repeats == 1 and clusters is None:
        low, high = wilson_interval(int(right.sum()), images)
        return Estimate(mean, low, high)
    return _estimate(right.astype(float), clusters, [1.0, 1.0, 0.0, 0.0], (0.0, 1.0))


def estimate_difference(
    first: np.ndarray, second: np.ndarray, clusters: np.ndarray | None = None
) -> Estimate:
    """How much more accurate the first of two trainings is, image by image and repeat by repeat.

    Half an answer of each kind is added for the variance (A. Agresti, Y. Min, "Simple improved confidence
    intervals for comparing matched proportions", Statistics in Medicine 24, 2005): without any disagreement
    the interval would otherwise have no width.

    Args:
        first: bool (repeats, images); a repeat of both has the same training images.
        second: as `first`; where one has fewer repeats, the first ones of both count.
        clusters: as of `estimate_accuracy`.
    """
    repeats = min(len(first), len(second))
    differences = first[:repeats].astype(float) - second[:repeats]
    return _estimate(differences, clusters, [1.0, -1.0], (-1.0, 1.0), halved=True)


def _estimate(
    values: np.ndarray,
    clusters: np.ndarray | None,
    added: list[float],
    bounds: tuple[float, float],
    halved: bool = False,
) -> Estimate:
    """The mean of (repeats, images) and its interval.

    Args:
        values: float (repeats, images).
        clusters: of the images.
        added: values of images that are added for the variance and the middle.
        bounds: least and largest possible value.
        halved: whether the added ones count half, and one 0 is added beside them.
    """
    from scipy.stats import t

    repeats, images = values.shape
    weight = 0.5 if halved else 1.0
    more = weight * len(added) + halved
    centre = (values.mean(axis=0).sum() + weight * sum(added)) / (images + more)
    deviations = values.mean(axis=0) - centre
    if clusters is not None:
        _, number = np.unique(clusters, return_inverse=True)
        deviations = np.bincount(number, deviations)
    squares = (deviations**2).sum() + weight * sum((value - centre) ** 2 for value in added)
    squares += halved * centre**2
    count = len(deviations) + more
    of_images = squares / (images + more) ** 2 * count / (count - 1)
    parts = [(float(of_images), count - 1)]
    if repeats > 1:
        parts.append((float(values.mean(axis=1).var(ddof=1) / repeats), repeats - 1))
    variance = sum(part for part, _ in parts)
    freedom = variance**2 / sum(part**2 / degrees for part, degrees in parts)
    half = float(t.ppf(0.975, freedom)) * np.sqrt(variance)
    return Estimate(
        float(values.mean()), max(bounds[0], float(centre - half)), min(bounds[1], float(centre + half))
    )
