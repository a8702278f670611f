"""The files next to each exported model, for the programs that use it."""

import dataclasses
import math
from pathlib import Path
from typing import Any

from keras_vit.evaluation.decision_rule import TIE
from keras_vit.files import write_json, write_text
from keras_vit.runs.folder import Run
from keras_vit.serving.comparison import Comparison
from keras_vit.text import shown

LABELS, SERVING_JSON = "labels.txt", "serving.json"
SCALING = (
    "in the model, by (pixels / 255 - mean) / std: give it pixels in 0..255 that are not scaled; others are "
    "rejected"
)


def write_serving_json(
    folder: Path, run: Run, comparison: Comparison, more: dict[str, Any], flips: bool = False
) -> None:
    """Writes `serving.json`, and `labels.txt` with one class per line.

    Args:
        folder: of both files.
        run: which was exported.
        comparison: of the exported model with Keras.
        more: the entries of `serving.json` on the format.
        flips: as it was exported.
    """
    write_text(folder / LABELS, "".join(f"{shown(name)}\n" for name in run.class_names))
    entries = {
        "class_names": list(run.class_names),
        "temperature": run.temperature,
        "reject_above": None if run.rejection is None else float(run.rejection.threshold),
        **sets_entry(run),
        **labels_entry(run),
        "decision": decision_entry(run),
        "image_shape": list(run.preprocessing.image_shape),
        "aspect": run.preprocessing.aspect,
        "interpolation": run.preprocessing.interpolation,
        **run.preprocessing.numbers(),
        "background": run.preprocessing.background,
        "pixel_range": run.preprocessing.pixel_range,
        "tiff_page": run.preprocessing.tiff_page,
        "exif_orientation": run.preprocessing.exif_orientation,
        "scaling": SCALING,
        "flips_at_test": flips,
        "weights": run.config.get("weights"),
        "compared_with_keras": dataclasses.asdict(comparison),
        "trained_by": run.config["command"],
        "versions": run.config["versions"],
    }
    write_json(folder / SERVING_JSON, {**entries, **more})


def labels_entry(run: Run) -> dict[str, Any]:
    """The entry `several_labels`: the thresholds of the output `labels`; empty for one class per image."""
    if run.thresholds is None:
        return {}
    return {
        "several_labels": {
            "thresholds": run.thresholds.tolist(),
            "probabilities": "of each label by itself: they do not sum to 1",
            "labels": "1 if the probability of the label is at least its threshold",
        }
    }


SET_RULE = (
    "a class is in the set if log(p / (1 - p)) of its probability p is at least log_odds; so if p is at "
    "least probability, where float32 tells p from 1"
)


LIKELIEST = "label is the class with the largest probability"
WEIGHTED = "label is the class with the largest product of its probability and its weight"
LEAST_COST = (
    "label is the class j with the least sum over i of probabilities[i] * weights[i] * costs[i][j]; costs "
    "has a row per true class"
)
TIES = f"; of those within {TIE:g} of it, as a fraction, the likeliest"


def decision_entry(run: Run) -> dict[str, Any]:
    """The entry `decision`: which class is the label, and the numbers that decide."""
    rule = run.rule
    if rule is None:
        return {"label": LIKELIEST, "weights": None, "costs": None}
    return {
        "label": (WEIGHTED if rule.costs is None else LEAST_COST) + TIES,
        "weights": rule.weights.tolist(),
        "costs": None if rule.costs is None else rule.costs.tolist(),
    }


def sets_entry(run: Run) -> dict[str, Any]:
    """The entry `prediction_sets`: the thresholds of the outputs `prediction_set` and `refer`, or null."""
    sets = run.prediction_sets
    if sets is None:
        return {"prediction_sets": None}
    rule = "1 if the set is not the label alone"
    if sets.refer_below is not None:
        rule = "1 if log(p / (1 - p)) of the largest probability p is below refer_below"
    return {
        "prediction_sets": {
            "level": sets.level,
            "log_odds": sets.thresholds.tolist(),
            "probability": [1 / (1 + math.exp(-min(max(t, -700), 700))) for t in sets.thresholds.tolist()],
            "prediction_set": SET_RULE,
            "refer_below": sets.refer_below,
            "refer": rule,
        }
    }
