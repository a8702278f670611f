"""A run as one HTML page: no network, no script, plots and pictures inside it."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_vit.report import run_plots as plots

MATRIX_WITH_NUMBERS = 20  # with more classes than this the confusion matrix becomes a picture
FREQUENT_CONFUSIONS = 10
LISTED = 10  # of a longer list in the audit only the first are shown

RELIABILITY = (("before", "As trained"), ("after", "With the temperature"))

CONFIG_KEYS = ("model", "image_shape", "seed", "backend", "device", "seconds", "model_config", "recipe")
CONFIG_ELSEWHERE = ("data", "versions", "command", "train")  # told in their own place, or told already


def render_report(
    *,
    config: dict[str, Any],
    metrics: dict[str, Any],
    history: dict[str, list[float]],
    layer_table: dict[str, Any] | None,
    audit: dict[str, Any] | None,
    mistake_images: list[np.ndarray],
) -> str:
    """The page of a run, as text to be written in UTF-8.

    Args:
        config: what was run: `model` and `data` (`source`, and `counts`, a mapping of part to images); then,
            as far as there is, `image_shape`, `seed`, `backend`, `device`, `seconds`, `model_config`,
            `recipe`, `versions`, `command`. What is more is shown too, but for `train`, the
            arguments of the run, which say the same once more.
        metrics: what `judge` returned; and under `rejection`, if it is there, what `judge_rejection` did.
        history: one list a quantity, one value an epoch, named as Keras names them (`loss`, `val_loss`, and
            an accuracy). NaN, or None, leaves a gap in the curve.
        layer_table: `rows`, each with `name`, `type`, `output_shape`, `parameters`, `mult_adds`, and `totals`
            (`parameters`, `mult_adds`). A row's `depth`, if it has one, says how deep it lies in the rows
            above it; `batch_size` among the totals, what the mult-adds are counted for. None leaves the
            section out.
        audit: what the audit of the data found, any JSON; None leaves the section out.
        mistake_images: for each of `metrics["mistakes"]` its uint8 pixels (height, width, 1 or 3).

    Raises:
        ValueError: where there is not one picture a mistake, or a picture has another shape or dtype.
    """
    mistakes, calibration = metrics["mistakes"], metrics["calibration"]
    fitted = calibration["fitted_on"] == "validation"
    if len(mistakes) != len(mistake_images):
        raise ValueError(
            f"mistake_images must be one a mistake, {len(mistakes)}. Received: {len(mistake_images)}"
        )
    matrix = metrics["best"]["confusion_matrix"]
    many = len(matrix) > MATRIX_WITH_NUMBERS
    return template("run").render(
        config=config,
        metrics=metrics,
        best=metrics["best"],
        last=metrics["last"],
        calibration=calibration,
        fitted=fitted,
        rejection=metrics.get("rejection"),
        chosen=calibration["validation_images"] > 0,
        most_frequent=max(row["support"] for row in metrics["best"]["per_class"]) / metrics["best"]["images"],
        facts=facts(config),
        curves=learning_curves(history, metrics["best"]["epoch"]),
        shades=None if many else shades(matrix),
        confusion_map=plots.confusion_map(matrix) if many else None,
        confusions=frequent_confusions(matrix),
        reliability=[
            (title, calibration[f"ece_{when}"], plots.reliability(title, calibration[f"reliability_{when}"]))
            for when, title in RELIABILITY[: 2 if fitted else 1]
        ],
        mistakes=[
            (mistake, plots.picture(pixels)) for mistake, pixels in zip(mistakes, mistake_images, strict=True)
        ],
        layer_table=layer_table,
        audit=audit,
        listed=LISTED,
        many=many,
    )


def template(page: str):
    """The template of a page: `PAGE.html.jinja` beside this file, which may use the macros and the CSS."""
    from jinja2 import Environment, PackageLoader

    house = Environment(
        loader=PackageLoader("keras_vit.report", "."),
        autoescape=True,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    house.filters |= {
        "breakable": breakable,
        "percent": percent,
        "decimal": decimal,
        "count": count,
        "compact": compact,
        "output_shape": output_shape,
        "lines": lines,
    }
    return house.get_template(f"{page}.html.jinja")


def facts(config: Mapping[str, Any]) -> list[tuple[str, list[tuple[str, str]]]]:
    """What was run, as titled lists of (name, text): first the plain values, then a list for each group."""
    known = [key for key in CONFIG_KEYS if key in config]
    more = [key for key in config if key not in (*CONFIG_KEYS, *CONFIG_ELSEWHERE)]
    return groups({key: config[key] for key in known + more})


def groups(mapping: Mapping[str, Any], title: str = "") -> list[tuple[str, list[tuple[str, str]]]]:
    """A nested mapping as one titled list a level: `{"a": 1, "b": {"c": 2}}` as those of "" and "b"."""
    plain, deeper = [], []
    for key, value in mapping.items():
        name = NAMES.get(key, str(key).replace("_", " "))
        if isinstance(value, Mapping):
            deeper += groups(value, f"{title}, {name}" if title else name)
        else:
            plain.append((name, READ_AS.get(key, words)(value)))
    return [(title, plain), *deeper]


def learning_curves(history: Mapping[str, Sequence[float]], best_epoch: int) -> list[tuple[str, str]]:
    """The loss and the accuracy as (alternative text, data URI), as far as the history has them."""
    accuracy = next((k for k in history if k.endswith("accuracy") and not k.startswith("val_")), "accuracy")
    drawn = []
    for key, title, in_percent in (("loss", "Loss", False), (accuracy, "Accuracy", True)):
        train, validation = finite(history.get(key, ())), finite(history.get(f"val_{key}", ()))
        if len(train) or len(validation):
            told = "; ".join(
                f"{name} from {decimal(values[0])} in epoch 1 to {decimal(values[-1])} in epoch {len(values)}"
                for name, values in (("train", train), ("validation", validation))
                if len(values)
            )
            drawn.append(
                (f"{title} by epoch: {told}", plots.curve(title, train, validation, best_epoch, in_percent))
            )
    return drawn


def finite(values: Sequence[float | None]) -> np.ndarray:
    """As float64, with NaN for None and for infinity, which no axis can show."""
    numbers = np.array([math.nan if v is None else v for v in values], dtype=np.float64)
    return np.where(np.isfinite(numbers), numbers, math.nan)


def shades(matrix: Sequence[Sequence[int]]) -> list[list[str]]:
    """The CSS of each cell: deeper for a larger share of its row, blue where right, vermilion where wrong."""
    return [
        [
            shade(plots.BLUE if i == j else plots.ORANGE, number / max(sum(row), 1))
            for j, number in enumerate(row)
        ]
        for i, row in enumerate(matrix)
    ]


def shade(colour: str, share: float) -> str:
    """`colour` mixed with white, and black or white on it, whichever has more contrast (at least 4.5)."""
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


# Numbers in words. A space before a unit is one that does not break (U+00A0); not known is an en dash.

UNKNOWN = "\u2013"


def percent(fraction: float | None) -> str:
    """0.8639 as "86.4 %". What is not all is never called 100 %, what is not nothing never 0 %."""
    if fraction is None or math.isnan(fraction):
        return UNKNOWN
    if 0 < fraction < 0.0005:
        return "<\u00a00.1\u00a0%"
    if 0.9995 <= fraction < 1:
        return ">\u00a099.9\u00a0%"
    return f"{100 * fraction:.1f}\u00a0%"


def decimal(number: float | None) -> str:
    """0.86391 as "0.864"."""
    return UNKNOWN if number is None or math.isnan(number) else f"{number:.3f}"


def count(number: int | None) -> str:
    """508166 as "508,166"."""
    return UNKNOWN if number is None else f"{number:,}"


def compact(number: float | None) -> str:
    """32320000 as "32.32 M"."""
    if number is None:
        return UNKNOWN
    for size, unit in ((1e12, "T"), (1e9, "G"), (1e6, "M"), (1e3, "k")):
        if abs(number) >= size:
            return f"{number / size:.2f}\u00a0{unit}"
    return f"{number:g}"


def shape(sizes: Sequence[int]) -> str:
    """(28, 28, 1) as "28 \u00d7 28 \u00d7 1"."""
    return " \u00d7 ".join(str(size) for size in sizes) or UNKNOWN


def output_shape(sizes) -> str:
    """(None, 49, 64), or (1, 49, 64), as "49 \u00d7 64": without the batch. Text stays as it is."""
    if sizes is None or isinstance(sizes, str):
        return sizes or UNKNOWN
    if any(isinstance(size, Sequence) for size in sizes):
        return ", ".join(output_shape(size) for size in sizes)
    return shape(sizes[1:])


def breakable(name: str) -> str:
    """A class or file name as HTML, escaped, that may go to a new line after `_` and `/`."""
    from markupsafe import Markup, escape

    return escape(name).replace("_", Markup("_<wbr>")).replace("/", Markup("/<wbr>"))


def duration(seconds: float) -> str:
    """312.4 as "5 min 12 s"."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}\u00a0h {minutes}\u00a0min"
    return f"{minutes}\u00a0min {rest}\u00a0s" if minutes else f"{seconds:.1f}\u00a0s"


def words(value: Any) -> str:
    """A plain value as a person writes it."""
    if value is None:
        return "none"
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, float):
        return f"{value:.6g}"
    if isinstance(value, Mapping):
        return ", ".join(f"{k}: {words(v)}" for k, v in value.items() if v is not None) or "none"
    if isinstance(value, (list, tuple)):
        return ", ".join(words(v) for v in value) or "none"
    return str(value)


def lines(value: Any) -> list[str]:
    """As lines: one for each group in a list, or for each name of nested mappings; else it is one line."""
    if isinstance(value, Mapping) and any(isinstance(v, Mapping) for v in value.values()):
        return [f"{k} ({words(v)})" for k, v in value.items()]
    if isinstance(value, (list, tuple)) and any(isinstance(v, (Mapping, list, tuple)) for v in value):
        return [copy_line(v) if is_copy(v) else words(v) for v in value]
    return [words(value)]


def is_copy(value: Any) -> bool:
    """Whether this is one of the audit's pairs of images that show the same."""
    return isinstance(value, Mapping) and {"first", "second", "exact"} <= value.keys()


def copy_line(copy: Mapping[str, Any]) -> str:
    """A pair of images that show the same, with the part of the split that each is in."""
    places = [copy.get(f"{which}_part") for which in ("first", "second")]
    first, second = (
        f"{copy[which]} ({place})" if place else str(copy[which])
        for which, place in zip(("first", "second"), places, strict=True)
    )
    if copy["exact"]:
        return f"{first} = {second}"
    return f"{first} ~ {second}, {copy['likeness']:.2f}"


NAMES = {"seconds": "duration", "model_config": "model settings"}
READ_AS: dict[str, Callable[[Any], str]] = {"image_shape": shape, "seconds": duration}
