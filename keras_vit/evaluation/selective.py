"""Selective classification: images of which the model is not sure go to a person, the rest it answers.

The guarantee is that of conformal risk control: A. N. Angelopoulos, S. Bates, A. Fisch, L. Lei, T. Schuster,
"Conformal risk control", ICLR 2024, https://arxiv.org/abs/2208.02814. With the threshold for a risk r, at
most r of all images are answered wrongly, on average over calibration images like those of later use.

The threshold here is stricter: of m calibration images above it with k mistakes, (k + 1) / (m + 1) is at most
r. This is what a user asks for: of the *answered* images, at most r are wrong. It holds on average as long as
images of lower confidence are not right more often. A bound that holds with 95 % confidence (Y. Geifman,
R. El-Yaniv, "Selective classification for deep neural networks", NeurIPS 2017) takes three times as many
images, see docs/decisions.md.

The confidence is the log-odds of the label, as in `prediction_sets`.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from keras_vit.evaluation.ood import least_images
from keras_vit.evaluation.prediction_sets import GAP

MOST_CHOICES = 200
MOST_POINTS = 200
REFER_ALL = float(np.finfo(np.float32).max)
"""A threshold that no image reaches."""


def risk_choices(confidence: ArrayLike, right: ArrayLike) -> list[dict[str, Any]]:
    """The thresholds that are worth choosing, the strictest first.

    Args:
        confidence: (n,), finite, of images that the model was not trained on.
        right: bool (n,), whether the label is the true class.

    Returns:
        A list of dicts, whose `risk` and `images` grow: `risk`, (wrong + 1) / (images + 1); `threshold`, the
        lowest confidence that is answered, in a gap wider than `GAP`; `images` that are answered, and how
        many of them are `wrong`. Empty without images.

    Raises:
        ValueError: A number is not finite, or the shapes differ.
    """
    confidence, right = _checked(confidence, right)
    order = np.argsort(-confidence, kind="stable")
    ordered, wrong = confidence[order], np.cumsum(~right[order])
    images = np.arange(1, len(ordered) + 1)
    risk = (wrong + 1) / (images + 1)
    following = np.append(ordered[1:], -np.inf)
    found: list[dict[str, Any]] = []
    for i in np.flatnonzero(ordered - following > GAP)[::-1]:
        if found and risk[i] >= found[-1]["risk"]:
            continue  # more images are answered at this risk
        found.append(
            {
                "risk": float(risk[i]),
                "threshold": float(ordered[i] - GAP / 2),
                "images": int(images[i]),
                "wrong": int(wrong[i]),
            }
        )
    found.reverse()
    if len(found) > MOST_CHOICES:
        kept = np.linspace(0, len(found) - 1, MOST_CHOICES).round().astype(int)
        found = [found[i] for i in kept]
    return found


def choose(choices: Sequence[dict[str, Any]], risk: float) -> dict[str, Any] | None:
    """The choice that answers most images at a risk; `None` if the images do not support so small a risk."""
    return next((row for row in reversed(choices) if row["risk"] <= risk + 1e-12), None)


def why_not(choices: Sequence[dict[str, Any]], risk: float, images: int) -> str:
    """The sentence for a risk that the calibration images do not support, without its end.

    Args:
        choices: of `risk_choices`.
        risk: that is wanted.
        images: for calibration.
    """
    needed = least_images(risk)
    if images < needed:
        why = f"that takes {needed:,} calibration images without a mistake, there are {images:,}"
    else:
        why = f"the most confident of the {images:,} calibration images have too many mistakes"
    least = f"; the least that they support is {least_percent(choices)}" if choices else ""
    return f"a risk of {100 * risk:g} % is not supported: {why}{least}"


def least_percent(choices: Sequence[dict[str, Any]]) -> str:
    """The least risk in words, rounded up so that it can be asked for."""
    return f"{np.ceil(1e4 * choices[0]['risk'] - 1e-9) / 100:g} %"


def risk_coverage(confidence: ArrayLike, right: ArrayLike) -> dict[str, list[float]]:
    """The risk-coverage curve: what is right of the rest, if the least confident images go to a person.

    Args:
        confidence: (n,), finite.
        right: bool (n,).

    Returns:
        `referred`, the fraction of all images that go to a person, from 0 up; and `accuracy` of the rest. At
        most `MOST_POINTS` points. Images of the same confidence go together.

    Raises:
        ValueError: A number is not finite, or the shapes differ.
    """
    confidence, right = _checked(confidence, right)
    order = np.argsort(-confidence, kind="stable")
    ordered, correct = confidence[order], np.cumsum(right[order])
    ends = np.flatnonzero(np.append(np.diff(ordered) < 0, True))[::-1] if len(ordered) else np.zeros(0, int)
    if len(ends) > MOST_POINTS:
        ends = ends[np.linspace(0, len(ends) - 1, MOST_POINTS).round().astype(int)]
    answered = ends + 1
    return {
        "referred": [float(value) for value in 1 - answered / max(len(ordered), 1)],
        "accuracy": [float(value) for value in correct[ends] / answered],
    }


def least_referred(curve: dict[str, list[float]], accuracy: float) -> float | None:
    """The least fraction that goes to a person for this accuracy of the rest; `None` if no fraction does."""
    points = zip(curve["referred"], curve["accuracy"], strict=True)
    return next((referred for referred, reached in points if reached >= accuracy), None)


def _checked(confidence: ArrayLike, right: ArrayLike) -> tuple[np.ndarray, np.ndarray]:
    confidence, right = np.asarray(confidence, dtype=np.float64), np.asarray(right)
    if confidence.ndim != 1 or right.shape != confidence.shape or right.dtype != bool:
        raise ValueError(
            "confidence must have the shape (images,), and right be as many booleans. "
            f"Received: {confidence.shape} and {right.shape} {right.dtype}"
        )
    if not np.isfinite(confidence).all():
        raise ValueError("confidence must be finite.")
    return confidence, right
