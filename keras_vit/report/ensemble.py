"""The page of several runs of the same settings: folds, or seeds."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from keras_vit.evaluation.decision import DECISION, lines_of_decision, notices
from keras_vit.evaluation.ordered import order_in_words
from keras_vit.report import run_plots
from keras_vit.report.kit import (
    BLUE,
    INK,
    ORANGE,
    duration,
    horizontal_lines,
    name_of,
    render,
    shape,
    svg,
    title_above_legend,
    words,
)
from keras_vit.report.run import MATRIX_WITH_NUMBERS, cell_styles, frequent_confusions

if TYPE_CHECKING:
    from matplotlib.figure import Figure

NAMES = {
    "accuracy": "accuracy",
    "balanced_accuracy": "balanced accuracy",
    "mean_average_precision": "mean average precision",
    "macro_f1": "macro F1",
    "mean_absolute_error": "steps from the truth",
    "quadratic_kappa": "quadratic kappa",
}


def render_ensemble(*, config: Mapping[str, Any], metrics: Mapping[str, Any]) -> str:
    """The page of several runs, as text to be written in UTF-8.

    Args:
        config: the content of `ensemble.json`.
        metrics: the result of `keras_vit.evaluation.repeats.judge_repeats`.
    """
    folds, pooled = metrics["kind"] == "folds", metrics["pooled"]
    first, second = list(metrics["mean"])[:2]
    if "confusion_matrix" in pooled:
        by_task = _matrix(pooled["confusion_matrix"])
    else:
        by_task = {"labels": True, "thresholds": None, "threshold_line": None, "many": False}
    columns = list(
        dict.fromkeys([*metrics["mean"], "macro_f1", *(["accuracy"] if by_task["labels"] else [])])
    )
    names = NAMES | ({"accuracy": "all labels right"} if by_task["labels"] else {})
    train, test = metrics["training_images"], metrics["test_images"]
    count, decision = len(metrics["runs"]), metrics.get(DECISION)
    settings = {
        "model": config["model"],
        "image_shape": shape(config["image_shape"]),
        "folds" if folds else "seeds": config["count"],
        **({"seed": config["train"]["seed"]} if folds else {}),
        "backend": config["backend"],
        "device": config["device"],
    }
    return render(
        "ensemble",
        title=f"{config['model']} on {config['data']['source']}, {count} {metrics['kind']}",
        config=config,
        metrics=metrics,
        mean=metrics["mean"],
        runs=metrics["runs"],
        best=metrics["pooled"],
        folds=folds,
        decision=decision,
        decision_lines=[*lines_of_decision(decision, decision["calibration"]), *notices(decision)]
        if decision
        else [],
        train=images(train),
        test=images(test),
        factor=1 / count + test / train,
        seconds=duration(config["seconds"]),
        plot=dots(metrics),
        settings=[(name_of(name), words(value)) for name, value in settings.items()],
        first=first,
        second=second,
        columns=columns,
        names=names,
        numbers=("mean_absolute_error", "quadratic_kappa"),
        order_line=order_in_words(pooled),
        **by_task,
    )


def _matrix(matrix: list[list[int]]) -> dict[str, Any]:
    many = len(matrix) > MATRIX_WITH_NUMBERS
    return {
        "labels": False,
        "cells": None if many else cell_styles(matrix),
        "confusion_map": run_plots.confusion_map(matrix) if many else None,
        "confusions": frequent_confusions(matrix),
        "many": many,
    }


def images(number: float) -> str:
    """A number of images that may be a mean: 272.0 as "272", 268.6 as "268.6"."""
    return f"{number:,.1f}".removesuffix(".0")


def dots(metrics: Mapping[str, Any]) -> str:
    """A dot per run and figure; right of them the mean with its interval."""
    from matplotlib.ticker import PercentFormatter

    rows = metrics["runs"]

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        at_mean = len(rows) + 0.5
        styles = zip(list(metrics["mean"])[:2], (BLUE, ORANGE), ("o", "s"), strict=True)
        for i, (key, colour, marker) in enumerate(styles):
            label = NAMES[key]
            shift = 0.16 * (i - 0.5)
            places = [place + shift for place in range(len(rows))]
            axes.plot(places, [row[key] for row in rows], marker, color=colour, label=label, clip_on=False)
            found = metrics["mean"][key]
            low, high = found["interval"] or (found["mean"], found["mean"])
            axes.plot([at_mean + shift] * 2, [low, high], "-", color=colour, linewidth=2.5)
            axes.plot([at_mean + shift], [found["mean"]], marker, color=colour, markersize=9)
        axes.axvline(len(rows) - 0.25, color=INK, linewidth=0.6, linestyle=":")
        names = [row["run"].rpartition("-")[2] for row in rows]
        axes.set_xticks([*range(len(rows)), at_mean], [*names, "mean"])
        axes.set_xlim(-0.5, at_mean + 0.5)
        axes.set_xlabel("fold" if metrics["kind"] == "folds" else "seed")
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=1))
        horizontal_lines(axes)
        title_above_legend(axes, "Test figures of each run", 2)

    return svg(draw, 6.4, 3.4)
