"""Whether an exported model gives the prediction sets of Keras, and refers the same images to a person."""

from collections.abc import Mapping

import numpy as np

from keras_vit.evaluation.prediction_sets import PredictionSets

OUTPUTS = ("prediction_set", "refer")
"""Of a run that has learned prediction sets."""


def to_thresholds(answers: Mapping[str, np.ndarray], sets: PredictionSets | None) -> dict[str, np.ndarray]:
    """The outputs of Keras on sets, and how far each decision is from changing; empty without sets.

    Args:
        answers: of `answer_model`.
        sets: of the run.

    Returns:
        `prediction_set` and `refer`; `set_margin` (n, classes) and `refer_margin` (n,), the differences of
        the log-odds from their thresholds, as fractions of the log-odds where these are above 1.
    """
    if sets is None:
        return {}
    odds = answers["log_odds"].astype("float64")
    margin = np.abs(odds - sets.thresholds) / np.maximum(1, np.abs(odds))
    refer_margin = margin.min(axis=1)
    if sets.refer_below is not None:
        largest = odds.max(axis=1)
        refer_margin = np.abs(largest - sets.refer_below) / np.maximum(1, np.abs(largest))
    return {
        **{name: answers[name] for name in OUTPUTS},
        "set_margin": margin,
        "refer_margin": refer_margin,
    }


def changed_decisions(
    expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], tie: float
) -> list[tuple[str, np.ndarray, np.ndarray]]:
    """Which images have another set, or are referred by one only; empty if the run has no sets.

    Args:
        expected: of `to_thresholds`.
        found: of the exported model.
        tie: margins up to this are ties.

    Returns:
        What has changed in words, for which images bool (n,), and for which of them it is not a tie.
    """
    if "set_margin" not in expected:
        return []
    other = found["prediction_set"] != expected["prediction_set"]
    refers = found["refer"] != expected["refer"]
    return [
        (
            "get another prediction set",
            other.any(axis=1),
            (other & (expected["set_margin"] > tie)).any(axis=1),
        ),
        ("are referred by one only", refers, refers & (expected["refer_margin"] > tie)),
    ]
