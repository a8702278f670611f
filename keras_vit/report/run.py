"""The page of a training run."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_vit.data.values import channels_to_show, is_measured
from keras_vit.evaluation.decision import DECISION, decision_of_run
from keras_vit.evaluation.labels import SEVERAL, TASK
from keras_vit.evaluation.ordered import order_in_words
from keras_vit.evaluation.selective import least_percent, least_referred
from keras_vit.evaluation.trust import REFERRAL, SETS, lines_of_run
from keras_vit.model.weights.describe import told_in_words
from keras_vit.report import explanation, findings, labels, set_plots
from keras_vit.report import run_plots as plots
from keras_vit.report.kit import BLUE, ORANGE, decimal, groups, name_of, picture, render, shape, words

MATRIX_WITH_NUMBERS = 20  # with more classes than this, the confusion matrix becomes a picture
FREQUENT_CONFUSIONS = 10
LISTED = 10  # of a longer list in the audit, only the first are shown

RELIABILITY = (("before", "As trained"), ("after", "With the temperature"))

ACCURACIES = (0.98, 0.99, 0.995)
"""Of the rest, for which the page says how many test images would go to a person."""

CONFIG_KEYS = ("model", "image_shape", "seed", "backend", "device", "seconds", "model_config", "recipe")
CONFIG_ELSEWHERE = (
    "data",
    "versions",
    "command",
    "train",
    "weights",
)  # shown in another place, or repeat other keys


def render_report(
    *,
    config: dict[str, Any],
    metrics: dict[str, Any],
    history: dict[str, list[float]],
    layer_table: dict[str, Any] | None,
    audit: dict[str, Any] | None,
    mistake_images: list[np.ndarray],
    explained: Mapping[str, Any] | None = None,
) -> str:
    """The page of a run, as text to be written in UTF-8.

    Args:
        config: The settings of the run: `model` and `data` (`source`, and `counts`, a mapping of part to
            number of images), and optionally `image_shape`, `seed`, `backend`, `device`, `seconds`,
            `model_config`, `recipe`, `versions`, `command`, and `weights`, the published ones that the run
            began with. Other keys are shown too, except `train`, the
            arguments of the run, which repeat them.
        metrics: The result of `judge`, and optionally, under `rejection`, the result of `judge_ood`, under
            `prediction_sets` and `referral` that of `judge_trust`, under `probe` how the head of frozen
            weights was fitted, and under `unlabeled` what labels were spread.
        history: One list per quantity, one value per epoch, named as in Keras (`loss`, `val_loss`, and an
            accuracy). NaN or None leaves a gap in the curve.
        layer_table: `rows`, each with `name`, `type`, `output_shape`, `parameters`, `mult_adds`, and `totals`
            (`parameters`, `mult_adds`). The optional `depth` of a row is its nesting level in the rows above
            it. The optional `batch_size` of the totals is the batch size of the mult-adds. None leaves the
            section out.
        audit: The result of the audit of the data, any JSON. None leaves the section out.
        mistake_images: For each of `metrics["mistakes"]`, its uint8 pixels (height, width, 1 or 3).
        explained: What the model looks at and has learned, as `keras_vit.training.explained` gives it. None
            leaves the sections out.

    Raises:
        ValueError: There is not one picture per mistake, or a picture has another shape or dtype.
    """
    mistakes, calibration = metrics["mistakes"], metrics["calibration"]
    fitted = calibration["fitted_on"] == "validation"
    if len(mistakes) != len(mistake_images):
        raise ValueError(
            f"mistake_images must be one per mistake, {len(mistakes)}. Received: {len(mistake_images)}"
        )
    pictures = [(one, picture(pixels)) for one, pixels in zip(mistakes, mistake_images, strict=True)]
    if metrics.get(TASK) == SEVERAL:
        by_task: dict[str, Any] = labels.parts(metrics, pictures)
    else:
        by_task = _parts_of_classes(metrics)
    return render(
        "run",
        config=config,
        metrics=metrics,
        best=metrics["best"],
        last=metrics["last"],
        calibration=calibration,
        fitted=fitted,
        rejection=metrics.get("rejection"),
        **hand_over(metrics),
        decision=metrics.get(DECISION),
        decision_lines=decision_of_run(metrics),
        probe=metrics.get("probe"),
        unlabeled=metrics.get("unlabeled"),
        weights=weights_rows(config.get("weights")),
        chosen=calibration["validation_images"] > 0,
        settings=settings(config),
        curves=None if metrics.get("probe") else learning_curves(history, metrics["best"]["epoch"]),
        **by_task,
        reliability=[
            (title, calibration[f"ece_{when}"], plots.reliability(title, calibration[f"reliability_{when}"]))
            for when, title in RELIABILITY[: 2 if fitted else 1]
        ],
        mistakes=pictures,
        layer_table=layer_table,
        audit=findings.rows(audit) if audit else None,
        warnings=findings.warnings(audit, metrics["best"]["images"]),
        listed=LISTED,
        explained=explanation.parts(explained) if explained else None,
        shown_channels=shown_channels(config),
    )


def _parts_of_classes(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What the page shows of one class per image alone."""
    best, matrix = metrics["best"], metrics["best"]["confusion_matrix"]
    many = len(matrix) > MATRIX_WITH_NUMBERS
    return {
        "labels": False,
        "most_frequent": max(row["support"] for row in best["per_class"]) / best["images"],
        "cells": None if many else cell_styles(matrix),
        "confusion_map": plots.confusion_map(matrix) if many else None,
        "confusions": frequent_confusions(matrix),
        "many": many,
        "order_line": order_in_words(best),
    }


def shown_channels(config: Mapping[str, Any]) -> str | None:
    """Which channels of measurement the pictures show, in a sentence; `None` for gray and colour."""
    shape, named = config.get("image_shape"), config.get("preprocessing") or {}
    if not shape or not is_measured(shape[2]):
        return None
    chosen = [i + 1 for i in channels_to_show(shape[2], named.get("shown_channels"))]
    if len(chosen) == 1:
        return f"Of the {shape[2]} channels, channel {chosen[0]} is shown as gray."
    red, green, blue = chosen
    return f"Of the {shape[2]} channels, {red}, {green} and {blue} are shown as red, green and blue."


def hand_over(metrics: Mapping[str, Any]) -> dict[str, Any]:
    """What the section on prediction sets and referral shows; nothing for a run without."""
    sets, referral = metrics.get(SETS), metrics.get(REFERRAL)
    shown: dict[str, Any] = {"sets": sets, "referral": referral}
    if sets and referral:
        shown["trust_lines"] = lines_of_run(metrics)
        shown["risk_coverage"] = set_plots.risk_coverage(referral["curve"], referral["test"])
        curve = referral["curve"]
        higher = [goal for goal in ACCURACIES if goal > curve["accuracy"][0]]  # than without referring any
        shown["goals"] = [(goal, least_referred(curve, goal)) for goal in higher]
        shown["least_risk"] = least_percent(referral["choices"])
    return shown


def settings(config: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """The settings as titled lists of (name, text): first the plain values, then one list per group."""
    known = [key for key in CONFIG_KEYS if key in config]
    more = [key for key in config if key not in (*CONFIG_KEYS, *CONFIG_ELSEWHERE)]
    return groups({key: config[key] for key in known + more})


def weights_rows(weights: Mapping[str, Any] | None) -> list[tuple[str, str]]:
    """What is known of published weights as (name, text); empty for a run from scratch."""
    if not weights:
        return []
    told = told_in_words(weights.get("told_by", {}))
    shown = {
        **weights,
        "licence": weights.get("licence") or "not stated in the file",
        "image_shape": shape(weights["image_shape"]) if weights.get("image_shape") else None,
        "told_by": told or "everything by the tensors",
    }
    return [(name_of(name), words(value)) for name, value in shown.items() if value not in (None, [], ())]


def learning_curves(history: Mapping[str, Sequence[float]], best_epoch: int) -> list[tuple[str, str]]:
    """The loss and the accuracy as (alternative text, data URI), if the history has them."""
    named = [k for k in history if k.endswith("accuracy") and not k.startswith("val_")]
    figure, titled = "accuracy" if "accuracy" in named else next(iter(named), "accuracy"), "Accuracy"
    if "average_precision" in history:
        figure, titled = "average_precision", "Mean average precision"
    drawn = []
    for key, title, in_percent in (("loss", "Loss", False), (figure, titled, True)):
        train, validation = finite(history.get(key, ())), finite(history.get(f"val_{key}", ()))
        if len(train) or len(validation):
            described = "; ".join(
                f"{name} from {decimal(values[0])} in epoch 1 to {decimal(values[-1])} in epoch {len(values)}"
                for name, values in (("train", train), ("validation", validation))
                if len(values)
            )
            uri = plots.curve(title, train, validation, best_epoch, in_percent)
            drawn.append((f"{title} by epoch: {described}", uri))
    return drawn


def finite(values: Sequence[float | None]) -> np.ndarray:
    """As float64, with NaN for None and for infinity, which no axis can show."""
    numbers = np.array([math.nan if v is None else v for v in values], dtype=np.float64)
    return np.where(np.isfinite(numbers), numbers, math.nan)


def cell_styles(matrix: Sequence[Sequence[int]]) -> list[list[str]]:
    """The CSS of each cell: darker for a larger share of its row, blue if right, vermilion if wrong."""
    return [
        [cell_style(BLUE if i == j else ORANGE, number / max(sum(row), 1)) for j, number in enumerate(row)]
        for i, row in enumerate(matrix)
    ]


def cell_style(colour: str, share: float) -> str:
    """`colour` mixed with white, and black or white text, whichever has more contrast (at least 4.5)."""
    if share == 0:
        return "color: #6b6b6b"
    full = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)])
    mixed = np.rint(255 + (full - 255) * (0.1 + 0.9 * share)).astype(int)
    text = "#000" if relative_luminance(mixed) > 0.179 else "#fff"
    return f"background: rgb({mixed[0]}, {mixed[1]}, {mixed[2]}); color: {text}"


def relative_luminance(rgb: np.ndarray) -> float:
    """Of an sRGB colour in 0..255, 0 for black to 1 for white (Web Content Accessibility Guidelines 2.2)."""
    linear = np.where(rgb / 255 <= 0.04045, rgb / 255 / 12.92, ((rgb / 255 + 0.055) / 1.055) ** 2.4)
    return float(linear @ [0.2126, 0.7152, 0.0722])


def frequent_confusions(matrix: Sequence[Sequence[int]]) -> list[tuple[int, int, int]]:
    """The (true, predicted, images) of the largest counts off the diagonal, the most frequent first."""
    wrong = [
        (i, j, number) for i, row in enumerate(matrix) for j, number in enumerate(row) if i != j and number
    ]
    return sorted(wrong, key=lambda confusion: -confusion[2])[:FREQUENT_CONFUSIONS]
