"""Compares a written file with the Keras model, image by image."""

import itertools
import math
from collections.abc import Callable

import numpy as np

from keras_vit.serving.comparison import Comparison, Tolerance, compare_answers, join

BATCH_SIZES = (1, 2, 7, 32)
"""The images are compared in batches of these sizes, then in batches of the last size."""


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
    log_odds=math.inf,
    sets_changed=0.15,
)


def compare(
    expected: dict[str, np.ndarray],
    answer: Callable,
    images: np.ndarray,
    tolerance: Tolerance,
    empty_batch: bool,
) -> Comparison:
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
        raise tolerance.refusal("an empty batch gets answers")
    # Few images are repeated, so that there is a batch of each size.
    order = np.arange(max(len(images), sum(BATCH_SIZES))) % len(images)
    found = _answers(answer, images[order])
    expected = {name: values[order] for name, values in expected.items()}
    return compare_answers(expected, found, tolerance, len(images))


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
    return join(found)
