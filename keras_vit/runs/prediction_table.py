"""The table of predictions: a row per image, as `predict --csv` writes it."""

import json
from collections.abc import Sequence
from typing import Any

from keras_vit.data.targets import names_as_json
from keras_vit.runs.out_of_fold import PREFIX
from keras_vit.runs.predictions import Prediction


def row_of(item: Prediction, class_names: Sequence[str], several: bool) -> dict[str, Any]:
    """A row of the table; cells of what is not known are empty. Sets and several labels are JSON lists.

    Args:
        item: of one image.
        class_names: of the run.
        several: whether its images may have several labels.
    """
    if several:
        labels = None if item.labels is None else names_as_json(item.labels)
        probabilities = {PREFIX + name: item.probabilities.get(name) for name in class_names}
        return {
            "image": item.image,
            "labels": labels,
            **probabilities,
            "reject": int(item.reject),
            "error": item.error,
        }
    names = item.prediction_set
    return {
        "image": item.image,
        "label": item.label,
        "confidence": item.confidence,
        "reject": int(item.reject),
        "prediction_set": None if names is None else json.dumps(names, ensure_ascii=False),
        "refer": None if item.refer is None else int(item.refer),
        "likeliest": item.likeliest,
        "error": item.error,
    }


def columns_of(class_names: Sequence[str], several: bool) -> list[str]:
    """The columns of the table, in their order."""
    return list(row_of(Prediction("", None, None, {}), class_names, several))
