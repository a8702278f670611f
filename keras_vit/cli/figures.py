"""Figures as several commands print them."""

from collections.abc import Mapping
from typing import Any

from keras_vit.evaluation.labels import THRESHOLDS, labels_in_words, thresholds_in_words
from keras_vit.evaluation.ordered import order_in_words


def figures_in_words(found: Mapping[str, Any]) -> str:
    """The figures of a model in a line: its accuracy, or those of several labels.

    Args:
        found: what `classification_metrics` or `keras_vit.evaluation.labels.label_metrics` gives.
    """
    return labels_in_words(found) if "macro_f1" in found and "micro_f1" in found else accuracy_in_words(found)


def accuracy_in_words(found: Mapping[str, Any]) -> str:
    """`"83.3% (300 of 360; 95 % interval 79.1% to 86.8%)"`

    Args:
        found: what `keras_vit.evaluation.metrics.classification_metrics` gives.
    """
    low, high = found["accuracy_interval"]
    return (
        f"{found['accuracy']:.1%} ({found['correct']} of {found['images']}; "
        f"95 % interval {low:.1%} to {high:.1%})"
    )


def lines_of_labels(metrics: Mapping[str, Any]) -> list[str]:
    """What `metrics.json` says of ordered classes, and of the thresholds of several labels, as lines."""
    found = [order_in_words(metrics["best"])]
    if THRESHOLDS in metrics:
        found.append(thresholds_in_words(metrics[THRESHOLDS]))
    return [line for line in found if line]
