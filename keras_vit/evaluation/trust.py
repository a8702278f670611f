"""What to hand to a person: prediction sets and referral, fitted and judged; `metrics.json` out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import ArrayLike

from keras_vit.errors import InputError
from keras_vit.evaluation.decision_rule import DecisionRule
from keras_vit.evaluation.metrics import wilson_interval
from keras_vit.evaluation.ood import least_images
from keras_vit.evaluation.prediction_sets import LEVEL, OWN_IMAGES, PredictionSets, fit_thresholds, log_odds
from keras_vit.evaluation.selective import REFER_ALL, choose, risk_choices, risk_coverage, why_not

SETS, REFERRAL = "prediction_sets", "referral"
"""Entries of metrics.json."""

VALIDATION = "the validation images"
FOLDS = "the training images, each by a head that was fitted without it, and the validation images"


@dataclass(frozen=True, eq=False)
class CalibrationImages:
    """What a model answers about images that it was not trained on.

    Args:
        logits: (n, classes), n may be 0.
        labels: int (n,).
        source: what the images are, in words.
    """

    logits: np.ndarray
    labels: np.ndarray
    source: str = VALIDATION


def judge_trust(
    *,
    class_names: Sequence[str],
    calibration: CalibrationImages,
    test_logits: ArrayLike,
    test_labels: ArrayLike,
    temperature: float,
    accept_risk: float | None = None,
    rule: DecisionRule | None = None,
) -> dict[str, Any]:
    """Fits the prediction sets and the referral, and judges them on the test images. Ready for JSON.

    Args:
        class_names: one name per class.
        calibration: images that decide the thresholds; test images are none of them.
        test_logits: (n, classes).
        test_labels: int (n,).
        temperature: the logits are divided by it.
        accept_risk: at most this fraction of the answered images may be wrong; `None` refers the images
            whose set is not their label alone.
        rule: that names their labels; `None` for the likeliest.

    Returns:
        The entries `prediction_sets` and `referral` of `metrics.json`. `fitted_on` says which images decided,
        or begins with "nothing: " and says why none did; then there is no `referral`.

    Raises:
        ValueError: the shapes do not match, a label is out of range, or logits are not finite.
    """
    labels = np.asarray(calibration.labels)
    scores = log_odds(calibration.logits / temperature) if len(labels) else np.zeros((0, len(class_names)))
    thresholds, own = fit_thresholds(scores, labels)
    images = (
        np.bincount(labels, minlength=len(class_names)) if len(labels) else np.zeros(len(class_names), int)
    )
    sets: dict[str, Any] = {
        "level": LEVEL,
        "fitted_on": calibration.source,
        "images": len(labels),
        "classes": [
            {"name": str(name), "images": int(n), "own_threshold": bool(alone), "threshold": None}
            for name, n, alone in zip(class_names, images, own, strict=True)
        ],
        "test": None,
    }
    if thresholds is None:
        needed = least_images(1 - LEVEL)
        sets["fitted_on"] = (
            f"nothing: sets of {100 * LEVEL:g} % take {needed} calibration images, there are {len(labels)}"
            if len(labels)
            else "nothing: there is no validation part"
        )
        return {SETS: sets}
    for row, value in zip(sets["classes"], thresholds.tolist(), strict=True):
        row["threshold"] = value
    referral = choose_referral(scores, labels, accept_risk, rule)
    found = {SETS: sets, REFERRAL: referral}
    test_labels, of_test = np.asarray(test_labels), log_odds(np.asarray(test_logits) / temperature)
    fitted = fitted_sets(found)
    assert fitted is not None
    sets["test"] = set_figures(class_names, test_labels, fitted.members(of_test))
    label = named_by(rule, of_test)
    right = label == test_labels
    referral["test"] = referral_figures(fitted.refers(of_test, label), right)
    referral["curve"] = risk_coverage(of_test[np.arange(len(label)), label], right)
    return found


def named_by(rule: DecisionRule | None, odds: np.ndarray) -> np.ndarray:
    """The classes that images are called, by their log-odds (n, classes): int (n,)."""
    from scipy import special

    return odds.argmax(axis=1) if rule is None else rule.decide(special.expit(odds))


def choose_referral(
    scores: np.ndarray, labels: np.ndarray, accept_risk: float | None, rule: DecisionRule | None
) -> dict[str, Any]:
    """The entry `referral` of `metrics.json`, without what the test images say.

    Args:
        scores: log-odds (n, classes) of the calibration images.
        labels: int (n,).
        accept_risk, rule: as of `judge_trust`.
    """
    label = named_by(rule, scores)
    choices = risk_choices(scores[np.arange(len(label)), label], label == labels)
    chosen = None if accept_risk is None else choose(choices, accept_risk)
    supported = accept_risk is None or chosen is not None
    return {
        "accepted_risk": accept_risk,
        "threshold": chosen["threshold"] if chosen else None,
        "least_risk": choices[0]["risk"],
        "unsupported": None if supported else why_not(choices, accept_risk or 0.0, len(labels)),
        "choices": choices,
    }


def fitted_sets(metrics: Mapping[str, Any]) -> PredictionSets | None:
    """The prediction sets that `metrics.json` describes; `None` if it has none."""
    rows = metrics.get(SETS, {}).get("classes", [])
    if not rows or rows[0]["threshold"] is None:
        return None
    referral = metrics[REFERRAL]
    refer_below = referral["threshold"]
    if referral["accepted_risk"] is not None and refer_below is None:
        refer_below = REFER_ALL
    thresholds = np.array([row["threshold"] for row in rows], dtype=np.float64)
    return PredictionSets(thresholds, metrics[SETS]["level"], refer_below)


def set_figures(class_names: Sequence[str], labels: np.ndarray, members: np.ndarray) -> dict[str, Any]:
    """How good prediction sets are on labelled images, ready for JSON.

    Args:
        class_names: one per class.
        labels: int (n,), n at least 1.
        members: bool (n, classes).

    Returns:
        `images`; `covered`, how many sets hold the true class; `coverage`, that as a fraction, with its
        `interval` (Wilson, 95 %); `mean_size`; `empty` and `several`, the fractions of sets without a class
        and with more than one; `per_class`, rows of `name`, `images`, `coverage` and `mean_size`, which are
        None for a class without images.
    """
    holds = members[np.arange(len(labels)), labels]
    sizes = members.sum(axis=1)
    rows = []
    for i, name in enumerate(class_names):
        of_class = labels == i
        known = bool(of_class.any())
        rows.append(
            {
                "name": str(name),
                "images": int(of_class.sum()),
                "coverage": float(holds[of_class].mean()) if known else None,
                "mean_size": float(sizes[of_class].mean()) if known else None,
            }
        )
    return {
        "images": len(labels),
        "covered": int(holds.sum()),
        "coverage": float(holds.mean()),
        "interval": list(wilson_interval(int(holds.sum()), len(labels))),
        "mean_size": float(sizes.mean()),
        "empty": float((sizes == 0).mean()),
        "several": float((sizes > 1).mean()),
        "per_class": rows,
    }


def referral_figures(refers: np.ndarray, right: np.ndarray) -> dict[str, Any]:
    """What referral does on labelled images, ready for JSON.

    Args:
        refers: bool (n,), which images a person should look at.
        right: bool (n,), whether the label is the true class.

    Returns:
        `images`; `referred`, and as a fraction `share`; `answered`, the others; `right` of these; their
        `accuracy` and its `interval` (Wilson, 95 %), None if all are referred.
    """
    answered, good = int((~refers).sum()), int((right & ~refers).sum())
    return {
        "images": len(refers),
        "referred": int(refers.sum()),
        "share": float(refers.mean()),
        "answered": answered,
        "right": good,
        "accuracy": good / answered if answered else None,
        "interval": list(wilson_interval(good, answered)) if answered else None,
    }


def sets_in_words(level: float, figures: Mapping[str, Any]) -> str:
    """The figures of the sets as a line."""
    low, high = figures["interval"]
    return (
        f"{100 * level:g} % prediction sets: {figures['coverage']:.1%} hold the true class "
        f"({low:.1%} to {high:.1%}), {figures['mean_size']:.2f} classes on average; "
        f"{figures['empty']:.1%} are empty, {figures['several']:.1%} have several classes"
    )


def referral_in_words(figures: Mapping[str, Any], accepted_risk: float | None) -> str:
    """What referral does as a line: "send 8 % to a person, then 99.5 % of the rest are right"."""
    rule = (
        "whose set is not their label alone"
        if accepted_risk is None
        else f"of low confidence, for an accepted risk of {100 * accepted_risk:g} %"
    )
    if not figures["answered"]:
        return f"refer: all images go to a person, {rule}"
    low, high = figures["interval"]
    return (
        f"refer: send {figures['share']:.1%} to a person, {rule}; then {figures['accuracy']:.1%} of the rest "
        f"are right ({low:.1%} to {high:.1%}; {figures['right']} of {figures['answered']})"
    )


def pooled_in_words(sets: Mapping[str, Any]) -> str | None:
    """Which classes have no threshold of their own; `None` if all have."""
    names = [row["name"] for row in sets["classes"] if not row["own_threshold"]]
    if not names:
        return None
    which = "all classes" if len(names) == len(sets["classes"]) else ", ".join(names)
    return f"one pooled threshold for classes with fewer than {OWN_IMAGES} calibration images: {which}"


def with_risk(metrics: Mapping[str, Any], risk: float | None, run: Any) -> Mapping[str, Any]:
    """`metrics.json` with the threshold for another accepted risk; as it is for `None`.

    Args:
        metrics: of a run.
        risk: the accepted one.
        run: its name in a message.

    Raises:
        InputError: the risk is not between 0 and 1, or the calibration images do not support it.
    """
    if risk is None:
        return metrics
    if not 0 < risk < 1:
        raise InputError(f"An accepted risk is above 0 and below 1. Received: {risk:g}")
    if REFERRAL not in metrics:
        why = metrics.get(SETS, {}).get("fitted_on", "an earlier version trained it")
        raise InputError(
            f"{run} has no calibrated confidence for an accepted risk ({why.removeprefix('nothing: ')}): "
            "train it again with more validation images, or leave out the accepted risk."
        )
    referral = metrics[REFERRAL]
    chosen = choose(referral["choices"], risk)
    if chosen is None:
        why = why_not(referral["choices"], risk, metrics[SETS]["images"])
        raise InputError(f"{run}: {why}: accept that, or train with a larger validation part.")
    changed = {**referral, "accepted_risk": risk, "threshold": chosen["threshold"]}
    return {**metrics, REFERRAL: changed}


def lines_of_trust(sets: Mapping[str, Any] | None, referral: Mapping[str, Any] | None) -> list[str]:
    """What `evaluate` gives on sets and referral, as lines; none if the run has learned no sets."""
    if sets is None or referral is None:
        return []
    return [sets_in_words(sets["level"], sets), referral_in_words(referral, referral["accepted_risk"])]


def lines_of_run(metrics: Mapping[str, Any]) -> list[str]:
    """What `metrics.json` says of sets and referral on the test images, as lines."""
    sets, referral = metrics.get(SETS), metrics.get(REFERRAL)
    if sets is None:
        return []  # several labels, or an earlier version
    if referral is None:
        return [f"no prediction sets: {sets['fitted_on'].removeprefix('nothing: ')}"]
    lines = [
        sets_in_words(sets["level"], sets["test"]),
        referral_in_words(referral["test"], referral["accepted_risk"]),
        pooled_in_words(sets),
    ]
    if referral["unsupported"]:
        lines[1] = f"refer: all images go to a person, since {referral['unsupported']}"
    return [line for line in lines if line]
