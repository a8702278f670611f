"""The page of a comparison of models: `keras-vit compare DATA`."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from keras_vit.report.kit import (
    BLUE,
    INK,
    ORANGE,
    SOFT,
    compact,
    duration,
    horizontal_lines,
    name_of,
    render,
    shape,
    svg,
    title_above_legend,
    words,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

LOOKS = {
    "cnn": (INK, "s", "--"),
    "resnet": (SOFT, "D", "--"),
    "vit": ("#56b4e9", "v", "-"),
    "defect-conv": (BLUE, "o", "-"),
    "probe": ("#009e73", "^", "-"),
    "finetune": (ORANGE, "P", "-"),
}
"""Colour, marker and line of each model: convolutional networks are dashed."""


def render_comparison(*, config: Mapping[str, Any], found: Mapping[str, Any]) -> str:
    """The page of a comparison, as text to be written in UTF-8.

    Args:
        config: the content of its config.json.
        found: the content of its comparison.json.
    """
    rows, models = found["table"], found["models"]
    numbers = list(dict.fromkeys(row["per_class"] for row in rows))
    at = {(row["per_class"], row["model"]): row for row in rows}
    train = config["asked"]["train"]
    folds, repeats = train["folds"], config["asked"]["repeats"]
    settings = {
        "image_shape": shape(config["image_shape"]),
        "folds": folds,
        "repeats": repeats,
        "seed": train["seed"],
        "epochs": train["recipe"]["epochs"],
        "batch_size": train["recipe"]["batch_size"],
        "augmentation": words(train["recipe"]["augmentation"]),
        "weights": config["weights"]["source"] if config["weights"] else None,
        "backend": config["backend"],
        "device": config["device"],
    }
    return render(
        "model_comparison",
        title=f"Models compared on {config['data']['source']}",
        config=config,
        found=found,
        rows=rows,
        models=models,
        numbers=numbers,
        at=at,
        headers={number: _header(number, rows) for number in numbers},
        curves=svg(lambda figure: draw_curves(figure, rows, models), 7.6, 4.4),
        costs=svg(lambda figure: draw_costs(figure, rows, models, numbers), 7.6, 3.8),
        last=numbers[-1],
        uncertain=[
            _header(number, rows)
            for number in numbers
            if (choice := found["choices"][str(number)])["model"] and not choice["is_certain"]
        ],
        last_rows=[at[numbers[-1], model] for model in models if (numbers[-1], model) in at],
        repeats=repeats,
        folds=folds,
        test_images=rows[0]["test_images"],
        classes=[
            (name, count)
            for name, count in zip(
                config["data"]["class_names"], config["data"]["training_images"], strict=True
            )
        ],
        settings=[(name_of(name), words(value)) for name, value in settings.items() if value is not None],
        duration=duration,
        milliseconds=milliseconds,
    )


def milliseconds(value: float) -> str:
    """Two digits that count: 0.1234 as "0.12", 12.34 as "12"."""
    return f"{value:.0f}" if value >= 10 else f"{value:.2g}"


def _header(number: Any, rows: Sequence[Mapping[str, Any]]) -> str:
    images = max(row["training_images"] for row in rows if row["per_class"] == number)
    return f"all {images:,}" if number == "all" else f"{number}"


def draw_curves(
    figure: "Figure", rows: Sequence[Mapping[str, Any]], models: Mapping[str, Mapping[str, Any]]
) -> None:
    """Accuracy by number of training images, a line per model, with its intervals."""
    axes = figure.subplots()
    for place, name in enumerate(models):
        mine = [row for row in rows if row["model"] == name]
        if not mine:
            continue
        # Intervals beside each other, not on top of each other.
        x = [row["training_images"] * 1.025 ** (place - (len(models) - 1) / 2) for row in mine]
        y = [100 * row["accuracy"]["mean"] for row in mine]
        low, high = ([100 * row["accuracy"]["interval"][end] for row in mine] for end in (0, 1))
        bars = [
            [max(0.0, value - end) for value, end in zip(y, low, strict=True)],
            [max(0.0, end - value) for value, end in zip(y, high, strict=True)],
        ]
        colour, marker, line = LOOKS[name]
        axes.errorbar(
            x, y, yerr=bars, color=colour, marker=marker, linestyle=line, capsize=2, elinewidth=1, label=name
        )
    axes.set_xscale("log")
    ticks = sorted({row["training_images"] for row in rows})
    axes.set_xticks(ticks, [f"{tick:,}" for tick in ticks])
    axes.minorticks_off()
    axes.set_xlabel("training images")
    axes.set_ylabel("test accuracy, %")
    horizontal_lines(axes)
    title_above_legend(axes, "Accuracy by number of training images", 6)


def draw_costs(
    figure: "Figure",
    rows: Sequence[Mapping[str, Any]],
    models: Mapping[str, Mapping[str, Any]],
    numbers: Sequence[Any],
) -> None:
    """Accuracy with most images against mult-adds per image."""
    axes = figure.subplots()
    for row in rows:
        if row["per_class"] != numbers[-1]:
            continue
        colour, marker, _ = LOOKS[row["model"]]
        y, (low, high) = 100 * row["accuracy"]["mean"], row["accuracy"]["interval"]
        axes.errorbar(
            [models[row["model"]]["mult_adds"]],
            [y],
            yerr=[[max(0.0, y - 100 * low)], [max(0.0, 100 * high - y)]],
            color=colour,
            marker=marker,
            capsize=2,
            elinewidth=1,
            linestyle="none",
            label=row["model"],
        )
    axes.set_xscale("log")
    ticks = sorted({model["mult_adds"] for model in models.values()})
    far = [tick for i, tick in enumerate(ticks) if not i or tick > 1.6 * ticks[i - 1]]
    axes.set_xticks(far, [compact(tick) for tick in far])
    axes.minorticks_off()
    axes.margins(x=0.15)
    axes.set_xlabel("mult-adds per image")
    axes.set_ylabel("test accuracy, %")
    horizontal_lines(axes)
    title_above_legend(axes, "Accuracy and cost with most training images", 6)
