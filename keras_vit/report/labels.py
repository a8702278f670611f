"""What the page of a run with several labels per image shows."""

from collections.abc import Mapping, Sequence
from typing import Any

from keras_vit.evaluation.labels import THRESHOLDS, thresholds_in_words


def parts(metrics: Mapping[str, Any], pictures: Sequence[tuple[Mapping[str, Any], str]]) -> dict[str, Any]:
    """Values for the templates `labels_*.html.jinja`.

    Args:
        metrics: the result of `judge_labels`, and for each mistake the labels of its image, `true`.
        pictures: each of the mistakes and its picture.
    """
    names = metrics["class_names"]

    def names_of(labels: Sequence[int]) -> str:
        return ", ".join(names[label] for label in labels)

    by_label = []
    for label, name in enumerate(names):
        rows = [
            (mistake, names_of(mistake["true"]) or "without any label", uri)
            for mistake, uri in pictures
            if mistake["label"] == label
        ]
        if rows:
            by_label.append((name, rows))
    return {
        "labels": True,
        "many": len(names) > 20,
        "thresholds": metrics[THRESHOLDS],
        "threshold_line": thresholds_in_words(metrics[THRESHOLDS]),
        "wrong_by_label": by_label,
        "names_of": names_of,
    }
