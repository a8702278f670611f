"""Compares a written file with the Keras model, image by image."""

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from keras_vit.errors import InputError
from keras_vit.serving.saved_model import Comparison

BATCH_SIZES = (1, 2, 7, 32)
"""The images are compared in batches of these sizes, then in batches of the last size."""


@dataclass(frozen=True)
class Tolerance:
    """How much the answers of a file may differ from those of Keras.

    Args:
        probability: the largest difference of a probability.
        features: the largest difference of a feature, as a fraction of the largest feature (or of 1).
        margin: only ties may change their class: images whose two highest probabilities differ by at most
            this for Keras.
        distance: only ties may change between accepted and rejected: images whose distance differs from the
            threshold by at most this fraction of it.
        changed: the largest fraction of the images that may change, even if they are ties (rounded up).
        fix: what to do if the answers differ more.
    """

    probability: float
    features: float
    margin: float
    distance: float
    changed: float
    fix: str


FLOAT32 = Tolerance(
    probability=1e-4,
    features=1e-3,
    margin=2e-4,
    distance=1e-3,
    changed=1.0,
    fix="please report it with the run's config.json",
)
INT8 = Tolerance(
    probability=1.0,
    features=math.inf,
    margin=0.25,
    distance=0.25,
    changed=0.05,
    fix="leave --int8 out",
)


@dataclass(frozen=True)
class Differences(Comparison):
    """What was measured.

    Args:
        images: how many were compared.
        difference: the largest difference of a probability.
        same_class: for how many images the likeliest class is the same.
        feature_difference: the largest difference of a feature.
        same_reject: how many images are accepted by both or rejected by both.
    """

    feature_difference: float
    same_reject: int


def compare(
    expected: dict[str, np.ndarray],
    answer: Callable,
    images: np.ndarray,
    tolerance: Tolerance,
    empty_batch: bool,
) -> Differences:
    """Compares a file with Keras, in batches of different sizes.

    Args:
        expected: what `PortableGraph.expected` returns for the images.
        answer: the file, as `load` of its format returns it.
        images: prepared, float32 (n, height, width, channels) in 0..255, one or more.
        tolerance: what is allowed.
        empty_batch: whether the runtime takes an empty batch, which is then tried too.

    Raises:
        InputError: the answers of the file differ from those of Keras.
    """
    if empty_batch and any(len(values) for values in answer(images[:0]).values()):
        raise _differs("an empty batch gets answers", tolerance)
    # Few images are repeated, so that there is a batch of each size.
    order = np.arange(max(len(images), sum(BATCH_SIZES))) % len(images)
    found = _answers(answer, images[order])
    expected = {name: values[order] for name, values in expected.items()}
    new_class = found["probabilities"].argmax(axis=1) != expected["probabilities"].argmax(axis=1)
    new_reject = (found["reject"] != 0) != (expected["distance"] > 1)
    differences = Differences(
        images=len(images),
        difference=_largest_difference(found, expected, "probabilities"),
        same_class=int((~new_class)[: len(images)].sum()),
        feature_difference=_largest_difference(found, expected, "features"),
        same_reject=int((~new_reject)[: len(images)].sum()),
    )
    largest_feature = max(1.0, float(np.abs(expected["features"]).max()))
    for name, difference, allowed in (
        ("probability", differences.difference, tolerance.probability),
        ("feature", differences.feature_difference, tolerance.features * largest_feature),
    ):
        if not difference <= allowed:  # also if it is NaN
            raise _differs(f"a {name} differs by {difference:.1e}, {allowed:.0e} is allowed", tolerance)
    few = math.ceil(tolerance.changed * len(images))
    for what, new, clear, same, tie in (
        (
            "get another class",
            new_class,
            _margins(expected["probabilities"]) > tolerance.margin,
            differences.same_class,
            f"where their two likeliest classes are within {tolerance.margin:g}",
        ),
        (
            "are rejected by one and accepted by the other",
            new_reject,
            np.abs(expected["distance"] - 1) > tolerance.distance,
            differences.same_reject,
            f"within {tolerance.distance:.1%} of the threshold",
        ),
    ):
        changed = len(images) - same
        if (new & clear).any() or changed > few:
            raise _differs(f"{changed} of {len(images)} images {what}, {few} may, {tie}", tolerance)
    return differences


def _answers(answer: Callable, images: np.ndarray) -> dict[str, np.ndarray]:
    found, start = [], 0
    for size in itertools.chain(BATCH_SIZES, itertools.repeat(BATCH_SIZES[-1])):
        if start >= len(images):
            break
        # Runtimes may return the same memory at each call.
        found.append(
            {name: np.array(values) for name, values in answer(images[start : start + size]).items()}
        )
        start += size
    return {name: np.concatenate([batch[name] for batch in found]) for name in found[0]}


def _margins(probabilities):
    second, first = np.sort(probabilities, axis=1)[:, -2:].T
    return first - second


def _largest_difference(found: dict[str, np.ndarray], expected: dict[str, np.ndarray], name: str) -> float:
    return float(np.abs(found[name] - expected[name]).max())


def _differs(how: str, tolerance: Tolerance) -> InputError:
    return InputError(
        f"The answers of the file differ from those of Keras, so nothing is written: {how}: {tolerance.fix}."
    )
