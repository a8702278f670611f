"""Whether an exported model names the classes that Keras names."""

from collections.abc import Mapping

import numpy as np

from keras_vit.evaluation.decision_rule import DecisionRule


def to_rule(answers: Mapping[str, np.ndarray], rule: DecisionRule | None) -> dict[str, np.ndarray]:
    """What Keras names, and how far each decision is from changing; empty without a rule.

    Args:
        answers: of `answer_model`.
        rule: of the run.

    Returns:
        `label` (n,), a class number, and `rule_margin` (n,), a fraction of what decides it.
    """
    if rule is None:
        return {}
    return {"label": answers["label"], "rule_margin": rule.margin(answers["probabilities"])}


def changed_labels(
    expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray], tie: float
) -> tuple[np.ndarray, np.ndarray] | None:
    """Which images get another class by the rule: bool (n,), and for which of them it is not a tie.

    `None` if the run has no rule.

    Args:
        expected: of `to_rule`.
        found: of the exported model.
        tie: margins up to this are ties.
    """
    if "rule_margin" not in expected:
        return None
    changed = found["label"] != expected["label"]
    return changed, changed & (expected["rule_margin"] > tie)
