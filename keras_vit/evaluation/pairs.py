"""Two and more classifiers on the same images: who is better, and how sure that is."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_vit.evaluation.metrics import wilson_interval

LEVEL = 0.05
"""Below this p-value a difference counts as shown."""


def mcnemar(only_first: int, only_second: int) -> float:
    """The p-value of McNemar's exact test that two classifiers are right equally often. By scipy.

    Images that both name right, or both wrong, say nothing of it; of the others each is as likely to be right
    alone. Exact at any number of images, and two-sided.

    Reference: Q. McNemar, "Note on the sampling error of the difference between correlated proportions or
    percentages", Psychometrika 12 (1947) 153-157; exact by the binomial distribution.

    Args:
        only_first: number of images that only the first names right.
        only_second: number of images that only the second names right.
    """
    from scipy.stats import binomtest

    total = only_first + only_second
    return float(binomtest(only_first, total, 0.5).pvalue) if total else 1.0


def difference_interval(
    both: int, only_first: int, only_second: int, neither: int, confidence: float = 0.95
) -> tuple[float, float]:
    """The interval of the second accuracy less the first, on the same images.

    Newcombe's method 10: the Wilson intervals of both accuracies, put together with the correlation of the
    right answers. It stays in -1..1, and is not empty where no image differs.

    Reference: R. G. Newcombe, "Improved confidence intervals for the difference between binomial proportions
    based on paired data", Statistics in Medicine 17 (1998) 2635-2650.

    Args:
        both, only_first, only_second, neither: numbers of images by who names them right; one or more.
        confidence: coverage of the interval, between 0 and 1.

    Returns:
        `(low, high)`, as fractions.
    """
    total = both + only_first + only_second + neither
    first, second = both + only_first, both + only_second
    low_1, high_1 = wilson_interval(first, total, confidence)
    low_2, high_2 = wilson_interval(second, total, confidence)
    share_1, share_2 = first / total, second / total
    product = float(first) * second * (total - first) * (total - second)
    cross = float(both * neither - only_first * only_second)
    if cross > 0:
        cross = max(cross - total / 2, 0.0)
    correlation = cross / np.sqrt(product) if product else 0.0

    def width(down: float, up: float) -> float:
        return float(np.sqrt(max(down**2 - 2 * correlation * down * up + up**2, 0.0)))

    difference = share_2 - share_1
    low = difference - width(share_2 - low_2, high_1 - share_1)
    high = difference + width(high_2 - share_2, share_1 - low_1)
    return max(low, -1.0), min(high, 1.0)


def holm(p_values: Sequence[float]) -> list[float]:
    """p-values of several tests, so that all together are wrong at most as often as one alone.

    Reference: S. Holm, "A simple sequentially rejective multiple test procedure", Scandinavian Journal of
    Statistics 6 (1979) 65-70.
    """
    order = np.argsort(p_values, kind="stable")
    adjusted = np.empty(len(p_values))
    largest = 0.0
    for rank, i in enumerate(order):
        largest = max(largest, min(1.0, (len(p_values) - rank) * p_values[i]))
        adjusted[i] = largest
    return adjusted.tolist()


def compare_answers(
    labels: np.ndarray, named: Sequence[np.ndarray], class_names: Sequence[str]
) -> dict[str, Any]:
    """What each classifier reaches, and each against the first, ready for JSON.

    Args:
        labels: int (n,), the true classes, one image or more.
        named: of each classifier, int (n,): the class that it names; -1 for one that is none of these.
        class_names: the position is the label.

    Returns:
        `images`; `accuracy`, a list of `correct`, `accuracy` and `interval` (Wilson, 95 %); `against_first`,
        for each but the first `only_first`, `only_this`, `both`, `neither`, `difference` of the accuracies,
        `interval` (Newcombe, 95 %), `p_value` (McNemar, exact) and `p_adjusted` (Holm); `per_class`, for each
        class that has images its `name`, `images`, and `correct` of each classifier.
    """
    right = np.array([found == labels for found in named])
    total = len(labels)
    accuracy = [
        {
            "correct": int(one.sum()),
            "accuracy": float(one.mean()),
            "interval": list(wilson_interval(int(one.sum()), total)),
        }
        for one in right
    ]
    against: list[dict[str, Any]] = []
    for one in right[1:]:
        both, neither = int((right[0] & one).sum()), int((~right[0] & ~one).sum())
        only_first, only_this = int((right[0] & ~one).sum()), int((~right[0] & one).sum())
        against.append(
            {
                "both": both,
                "only_first": only_first,
                "only_this": only_this,
                "neither": neither,
                "difference": (only_this - only_first) / total,
                "interval": list(difference_interval(both, only_first, only_this, neither)),
                "p_value": mcnemar(only_first, only_this),
            }
        )
    for row, adjusted in zip(against, holm([row["p_value"] for row in against]), strict=True):
        row["p_adjusted"] = adjusted
    per_class = [
        {"name": name, "images": int(of_class.sum()), "correct": [int(one[of_class].sum()) for one in right]}
        for i, name in enumerate(class_names)
        if (of_class := labels == i).any()
    ]
    return {"images": total, "accuracy": accuracy, "against_first": against, "per_class": per_class}


def in_words(figures: Mapping[str, Any], i: int, names: Sequence[str]) -> str:
    """Whether one classifier is better than the first, in a sentence or two.

    Args:
        figures: of `compare_answers`.
        i: its position, from 1.
        names: of all classifiers.
    """
    row, first, this = figures["against_first"][i - 1], figures["accuracy"][0], figures["accuracy"][i]
    low, high = (points(value) for value in row["interval"])
    several = len(names) > 2
    p = p_in_words(row["p_adjusted"]) + (" after Holm" if several else "")
    what = (
        f"{this['accuracy']:.1%} instead of {first['accuracy']:.1%} of {figures['images']:,} images are "
        f"right ({points(row['difference'])} points, 95 % interval {low} to {high}; McNemar, {p})"
    )
    if row["p_adjusted"] < LEVEL:
        better = row["difference"] > 0
        return f"{names[i]} is {'better' if better else 'worse'} than {names[0]}: {what}."
    if not row["only_first"] + row["only_this"]:
        return f"{names[i]} and {names[0]} are right on the same images: {what}."
    return (
        f"No difference between {names[i]} and {names[0]} is shown, it may be chance: {what}. "
        f"{row['only_this']:,} images only {names[i]} names right, {row['only_first']:,} only {names[0]}."
    )


def points(value: float) -> str:
    """0.0123 as "+1.2"."""
    return f"{100 * value:+.1f}"


def p_in_words(value: float) -> str:
    """0.01234 as "p = 0.012"."""
    return "p < 0.001" if value < 0.001 else f"p = {value:.3f}" if value < 0.0995 else f"p = {value:.2f}"
