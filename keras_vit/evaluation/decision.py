"""The rule that names a class of a run, chosen and judged; `metrics.json` in and out."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from keras_vit.errors import InputError
from keras_vit.evaluation.decision_rule import DecisionRule, decision_figures
from keras_vit.evaluation.recall_weights import (
    fit_weights,
    images_for,
    most_found,
    supported_recall,
)
from keras_vit.text import shown

DECISION = "decision"
"""The entry of metrics.json, of runs with a least recall or a table of costs."""

NEARLY_ALWAYS = 0.5
"""Share of the images of other classes from which on one line says that a class is named nearly always."""


@dataclass(frozen=True, eq=False)
class Wanted:
    """What a user asks of the classes that are named.

    Args:
        recalls: class name -> least recall, above 0, 1 at most.
        costs: (classes, classes), of naming the column where it is the row; `None` where none were given.
    """

    recalls: Mapping[str, float] = field(default_factory=dict)
    costs: np.ndarray | None = None


def judge_decision(
    wanted: Wanted | None,
    *,
    class_names: Sequence[str],
    calibration: tuple[np.ndarray, np.ndarray],
    source: str,
    test: tuple[np.ndarray, np.ndarray] | None = None,
) -> dict[str, Any]:
    """Chooses the rule, and judges it. Ready for JSON.

    Args:
        wanted: `None` for no rule.
        class_names: one per class.
        calibration: calibrated probabilities (n, classes), and labels, int (n,), of images that the model
            was not trained on; n may be 0. They choose the weights.
        source: what these images are, in words.
        test: the same of the test images, which choose nothing.

    Returns:
        The entry `decision` of `metrics.json`; nothing for `None`. `unsupported` says why there is no rule,
        where no weights reach the recalls.
    """
    if wanted is None:
        return {}
    probabilities, labels = np.asarray(calibration[0], np.float64), np.asarray(calibration[1])
    counts = np.bincount(labels.astype(np.int64), minlength=len(class_names)).tolist()
    number_of = {name: i for i, name in enumerate(class_names)}
    recalls = {number_of[name]: recall for name, recall in wanted.recalls.items()}
    excess = None if wanted.costs is None else wanted.costs - np.diag(wanted.costs)[:, None]
    weights: np.ndarray | None = np.ones(len(class_names))
    if recalls:
        weights = fit_weights(probabilities, labels, recalls, excess)
    rule = None if weights is None else DecisionRule(weights, excess)
    least = [None] * len(class_names) if rule is None else rule.surely_from().tolist()
    entry: dict[str, Any] = {
        "min_recall": {str(name): float(recall) for name, recall in wanted.recalls.items()},
        "costs": None if wanted.costs is None else wanted.costs.tolist(),
        "fitted_on": source,
        "images": len(labels),
        "classes": [
            {
                "name": str(name),
                "images": counts[i],
                "least_recall": recalls.get(i),
                "supported": supported_recall(counts[i]) if i in recalls else None,
                "weight": None if weights is None else float(weights[i]),
                "surely_from": least[i],
            }
            for i, name in enumerate(class_names)
        ],
        "unsupported": None if rule else _why_not(class_names, probabilities, labels, recalls, excess),
        "calibration": None,
        "test": None,
    }
    for part, found in (("calibration", (probabilities, labels)), ("test", test)):
        if rule is not None and found is not None and len(found[1]):
            likeliest = np.asarray(found[0]).argmax(axis=1)
            entry[part] = decision_figures(
                class_names, np.asarray(found[1]), likeliest, rule.decide(found[0]), wanted.costs
            )
    return {DECISION: entry}


def on_images(
    entry: Mapping[str, Any] | None,
    class_names: Sequence[str],
    labels: np.ndarray,
    answers: Mapping[str, np.ndarray],
) -> dict[str, Any] | None:
    """The entry of a run, with what its rule changes on other images under `test`.

    Args:
        entry: of `judge_decision`; `None` for a run without.
        class_names: one per class.
        labels: int (n,).
        answers: `label` (n,), the classes that are named, and `probabilities` (n, classes).
    """
    if entry is None or entry["unsupported"] is not None:
        return None if entry is None else {**entry, "test": None}
    costs = None if entry["costs"] is None else np.array(entry["costs"], np.float64)
    likeliest = answers["probabilities"].argmax(axis=1)
    return {**entry, "test": decision_figures(class_names, labels, likeliest, answers["label"], costs)}


def rule_of(metrics: Mapping[str, Any]) -> DecisionRule | None:
    """The rule that `metrics.json` describes; `None` where the likeliest class is named."""
    entry = metrics.get(DECISION)
    if entry is None or entry["unsupported"] is not None:
        return None
    weights = np.array([row["weight"] for row in entry["classes"]], np.float64)
    if entry["costs"] is None:
        return DecisionRule(weights)
    costs = np.array(entry["costs"], np.float64)
    return DecisionRule(weights, costs - np.diag(costs)[:, None])


def _why_not(
    names: Sequence[str],
    probabilities: np.ndarray,
    labels: np.ndarray,
    recalls: Mapping[int, float],
    costs: np.ndarray | None,
) -> str:
    for i, recall in recalls.items():
        if fit_weights(probabilities, labels, {i: recall}, costs) is None:
            images, found = int((labels == i).sum()), most_found(probabilities, labels, i, costs)
            return (
                f"a recall of {recall:g} for {shown(names[i])} takes naming it for every image, whatever it "
                f"shows; {found} of its {images} images can be found otherwise"
            )
    asked = " and ".join(f"{shown(names[i])} ({recall:g})" for i, recall in recalls.items())
    return f"{asked} cannot reach their recalls together: an image that one gains the other loses"


def require_supported(metrics: Mapping[str, Any], run: Any) -> None:
    """Raises InputError where the wanted recalls cannot be reached.

    Args:
        metrics: with the entry of `judge_decision`.
        run: its name in the message.
    """
    why = metrics[DECISION]["unsupported"]
    if why is not None:
        raise InputError(f"{run}: {why}: ask for less.")


def notices(entry: Mapping[str, Any]) -> list[str]:
    """What is to be known of a rule, one line each: too few images, a class that is named nearly always."""
    lines = []
    for row in entry["classes"]:
        recall = row["least_recall"]
        if recall is not None and recall > row["supported"] + 1e-9:
            needed = images_for(recall)
            takes = "no number of images promises it" if needed is None else f"it takes {needed:,} images"
            lines.append(
                f"least recall {recall:g} of {shown(row['name'])}: {takes} for new ones, and its weight was "
                f"chosen by {row['images']:,}, all of which it finds: these support "
                f"{_down(row['supported'])}"
            )
    figures = entry["calibration"]
    if figures is None:
        return lines
    for row in figures["after"]["per_class"]:
        others = figures["images"] - row["images"]
        if others and row["false_alarms"] >= NEARLY_ALWAYS * others:
            lines.append(
                f"{shown(row['name'])} is named for {row['false_alarms'] / others:.0%} of the other classes' "
                "images: the rule is little better than naming it always"
            )
    return lines


def lines_of_decision(entry: Mapping[str, Any] | None, figures: Mapping[str, Any] | None) -> list[str]:
    """What a rule does on some images, as lines; none for a run without.

    Args:
        entry: of `judge_decision`.
        figures: of `decision_figures`, on the images in question; `None` if there are none.
    """
    if entry is None:
        return []
    if entry["unsupported"] is not None:
        return [f"the likeliest class is named, since {entry['unsupported']}"]
    lines = [rule_in_words(entry)]
    if figures is None:
        return lines
    before, after = figures["before"], figures["after"]
    for row, was, now in zip(entry["classes"], before["per_class"], after["per_class"], strict=True):
        if row["least_recall"] is None or now["recall"] is None:
            continue
        low, high = now["interval"]
        lines.append(
            f"  {shown(row['name'])}: recall {was['recall']:.1%} -> {now['recall']:.1%} ({now['found']} of "
            f"{now['images']}; {low:.1%} to {high:.1%}), precision {_share(was['precision'])} -> "
            f"{_share(now['precision'])}, false alarms {was['false_alarms']} -> {now['false_alarms']}"
        )
    cost = "" if after["cost"] is None else f"cost per image {before['cost']:.4g} -> {after['cost']:.4g}, "
    lines.append(
        f"  {cost}accuracy {before['accuracy']:.1%} -> {after['accuracy']:.1%}, balanced accuracy "
        f"{before['balanced_accuracy']:.1%} -> {after['balanced_accuracy']:.1%}; another class than the "
        f"likeliest for {figures['changed']} of {figures['images']} images"
    )
    return lines


def rule_in_words(entry: Mapping[str, Any]) -> str:
    """`"rule: the likeliest class, with scratches times 5.2 (at least 0.98 of its images found)"`"""
    begin = "the likeliest class" if entry["costs"] is None else "the class with the least expected cost"
    weighted = [
        f"{shown(row['name'])} times {row['weight']:.4g} (surely named from {row['surely_from']:.1%}; for a "
        f"recall of {row['least_recall']:g})"
        for row in entry["classes"]
        if row["least_recall"] is not None
    ]
    return f"rule: {begin}{', with ' if weighted else ''}{', '.join(weighted)}"


def decision_of_run(metrics: Mapping[str, Any]) -> list[str]:
    """What `metrics.json` says of the rule on the test images, as lines."""
    entry = metrics.get(DECISION)
    return [] if entry is None else [*lines_of_decision(entry, entry["test"]), *notices(entry)]


def _share(value: float | None) -> str:
    return "-" if value is None else f"{value:.1%}"


def _down(share: float) -> str:
    """A share with at most three digits, not rounded up."""
    return f"{np.floor(1000 * share) / 1000:g}"
