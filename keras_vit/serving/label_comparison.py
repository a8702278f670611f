"""Whether an exported model of several labels gives the labels of Keras."""

from collections.abc import Mapping

import numpy as np

OUTPUTS = ("labels", "thresholds")
"""Of a run with several labels per image."""


def to_label_margins(answers: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
    """The labels of Keras, and how far each is from changing; empty for one class per image.

    Args:
        answers: of `answer_model`.

    Returns:
        `labels`, `thresholds`, and `several_margin` (n, classes), the differences of the probabilities from
        their thresholds.
    """
    if "labels" not in answers:
        return {}
    margin = np.abs(answers["probabilities"].astype("float64") - answers["thresholds"])
    return {**{name: answers[name] for name in OUTPUTS}, "several_margin": margin}


def changed_several(
    expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], tie: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """Which images have other labels; `None` for one class per image.

    Args:
        expected: of `to_label_margins`.
        found: of the exported model.
        tie: margins up to this are ties.

    Returns:
        For which images bool (n,), and for which of them it is not a tie.
    """
    if "several_margin" not in expected:
        return None
    other = found["labels"] != expected["labels"]
    return other.any(axis=1), (other & (expected["several_margin"] > tie)).any(axis=1)
