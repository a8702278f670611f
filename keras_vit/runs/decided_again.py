"""The rule that names classes, chosen anew for a finished run."""

from collections.abc import Mapping, Sequence
from typing import Any

from keras_vit.errors import InputError
from keras_vit.evaluation.calibration import softmax
from keras_vit.evaluation.decision import Wanted, judge_decision, rule_of
from keras_vit.evaluation.prediction_sets import log_odds
from keras_vit.evaluation.trust import REFERRAL, CalibrationImages, choose_referral
from keras_vit.text import shown


def decided_again(
    metrics: Mapping[str, Any],
    wanted: Wanted | None,
    calibration: CalibrationImages | None,
    class_names: Sequence[str],
    run: Any,
) -> Mapping[str, Any]:
    """`metrics.json` with another rule, and with the referral that belongs to it; as it is for `None`.

    Args:
        metrics: of a run.
        wanted: what is asked for.
        calibration: what the run has kept.
        class_names: of the run.
        run: its name in a message.

    Raises:
        InputError: the run has kept no images, or none of a class with a least recall.
    """
    if wanted is None:
        return metrics
    if calibration is None:
        raise InputError(
            f"{run} has kept no answers to choose weights and costs by (it had no validation images, or an "
            "earlier version trained it): train it again with a validation part."
        )
    for name in wanted.recalls:
        if not (calibration.labels == list(class_names).index(name)).any():
            raise InputError(
                f"{run} has kept no answer about an image of {shown(name)} to choose its weight by: omit it, "
                "or train again with a larger validation part."
            )
    scaled = calibration.logits / metrics["calibration"]["temperature"]
    entry = judge_decision(
        wanted,
        class_names=class_names,
        calibration=(softmax(scaled), calibration.labels),
        source=calibration.source,
    )
    changed = {**metrics, **entry}
    if REFERRAL in metrics:
        accepted = metrics[REFERRAL]["accepted_risk"]
        chosen = choose_referral(log_odds(scaled), calibration.labels, accepted, rule_of(changed))
        changed[REFERRAL] = {**metrics[REFERRAL], **chosen}
    return changed
