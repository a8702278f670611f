"""Figures as several commands print them."""

from collections.abc import Mapping
from typing import Any


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
