"""The search report's pictures, each as the data URI of an SVG.

Light is few epochs and dark many, or light a low and dark a high accuracy: it reads in gray print too.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from keras_vit.evaluation.search_analysis import Hyperparameter, promoted
from keras_vit.evaluation.trials import TrialRecord
from keras_vit.report.run import compact
from keras_vit.report.run_plots import BLUE, FAINT, INK, LEGEND, ORANGE, svg

SOFT = "#6b6b6b"
PALE, DEEP = (0xA6, 0xCE, 0xE8), (0x08, 0x2B, 0x57)
MARKERS = "os^DvP"
SIGNS = "●■▲◆▼✚"  # the same, for the text of the page
EDGE: dict[str, Any] = {"edgecolors": "#3d3d3d", "linewidths": 0.4}
RING: dict[str, Any] = {"facecolors": "none", "edgecolors": ORANGE, "linewidths": 1.8, "zorder": 5}

CROWD = 100  # more lines than this are drawn thinner and fainter

MINUTE, HOUR = 60, 3600
TIMES = [
    1,
    2,
    5,
    10,
    20,
    *(MINUTE * m for m in (0.5, 1, 2, 5, 10, 20)),
    *(HOUR * h for h in (0.5, 1, 2, 5, 10)),
]

Shades = Mapping[int, tuple[str, str, str]]


def shades(epochs: Sequence[int]) -> dict[int, tuple[str, str, str]]:
    """For each number of epochs its colour, its marker, and the sign that looks like it."""
    ordered = sorted(set(epochs))
    last = len(ordered) - 1
    return {
        number: (_blend(i / last if last else 1.0), MARKERS[i % len(MARKERS)], SIGNS[i % len(SIGNS)])
        for i, number in enumerate(ordered)
    }


def _blend(part: float) -> str:
    mixed = np.rint(np.array(PALE) + part * (np.array(DEEP) - np.array(PALE))).astype(int)
    return "#{:02x}{:02x}{:02x}".format(*mixed)


def parallel_coordinates(
    trials: Sequence[TrialRecord],
    searched: Sequence[Hyperparameter],
    best: TrialRecord,
    label: Callable[[str], str],
) -> str:
    """A line for each trial through an axis for each hyperparameter, and one for the accuracy.

    Args:
        trials: with an accuracy each; a value that is not known breaks the line.
        searched: the axes.
        best: drawn on top of all others.
        label: what an axis is called.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.colors import LinearSegmentedColormap

    ordered = sorted(trials, key=lambda trial: trial.score)
    low, high = _widened(ordered[0].score, ordered[-1].score)
    columns = [_heights(hyperparameter, ordered) for hyperparameter in searched]
    columns.append((np.array([trial.score for trial in ordered]) - low) / (high - low))
    heights = np.column_stack(columns)
    across = np.arange(heights.shape[1])

    def draw(figure):
        axes = figure.subplots()
        lines = LineCollection(
            [np.column_stack([across, row]) for row in heights],
            array=np.array([trial.score for trial in ordered]),
            cmap=LinearSegmentedColormap.from_list("blues", [_blend(part) for part in (0, 0.5, 1)]),
            linewidths=1.1 if len(ordered) <= CROWD else 0.7,
            alpha=0.8 if len(ordered) <= CROWD else 0.45,
        )
        axes.add_collection(lines)
        chosen = heights[ordered.index(best)]
        axes.plot(across, chosen, color="white", linewidth=4.5, zorder=3)
        axes.plot(across, chosen, "o-", color=ORANGE, linewidth=2.4, markersize=5, zorder=4, clip_on=False)
        for x, hyperparameter in zip(across, searched, strict=False):
            _upright(axes, x, label(hyperparameter.name), *_ticks(hyperparameter))
        steps = [part for part in _steps(low, high) if low <= part <= high]
        places = [(step - low) / (high - low) for step in steps]
        _upright(axes, across[-1], "validation accuracy", places, [_percent(step) for step in steps])
        axes.set_xlim(-0.15, across[-1] + 0.45)
        axes.set_ylim(-0.03, 1.03)
        axes.set_axis_off()
        bar = figure.colorbar(
            lines,
            ax=axes,
            location="bottom",
            shrink=0.4,
            aspect=40,
            format=_percent,
            pad=0.03,
        )
        bar.set_label("validation accuracy", fontsize=9)
        bar.outline.set_visible(False)
        bar.solids.set_alpha(1)

    return svg(draw, max(4.0, 1.2 + 0.85 * len(across)), 4.6)


def _upright(axes, x: float, name: str, places: Sequence[float], labels: Sequence[str]):
    """One axis of parallel coordinates, with its name above and its ticks on the right."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2.5, foreground="white")]
    axes.plot([x, x], [0, 1], color=SOFT, linewidth=1, zorder=2)
    axes.annotate(
        name.replace(" ", "\n"),
        (x, 1),
        (0, 9),
        textcoords="offset points",
        ha="center",
        va="bottom",
        fontsize=9,
    )
    for place, text in zip(places, labels, strict=True):
        axes.plot([x - 0.03, x + 0.03], [place, place], color=SOFT, linewidth=1, zorder=2)
        axes.annotate(
            text,
            (x, place),
            (5, 0),
            textcoords="offset points",
            va="center",
            fontsize=8,
            path_effects=halo,
            zorder=6,
        )


def _ends(hyperparameter: Hyperparameter) -> tuple[float, float]:
    """Of its axis, on the scale of `Hyperparameter.place`."""
    if hyperparameter.choices is not None:
        return -0.5, max(len(hyperparameter.choices), 1) - 0.5
    return _widened(*(hyperparameter.position(end) for end in hyperparameter.ends))


def _widened(low: float, high: float) -> tuple[float, float]:
    """The same, but never empty."""
    return (low, high) if high > low else (low - (abs(low) / 10 or 1), high + (abs(high) / 10 or 1))


def _heights(hyperparameter: Hyperparameter, trials: Sequence[TrialRecord]) -> np.ndarray:
    """0 to 1, one a trial; trials of one choice are spread a little, by accuracy."""
    low, high = _ends(hyperparameter)
    places = np.array([hyperparameter.position(trial.values.get(hyperparameter.name)) for trial in trials])
    if hyperparameter.choices is not None:
        places = places + np.linspace(-0.18, 0.18, len(trials)) if len(trials) > 1 else places
    return (places - low) / (high - low)


def _ticks(hyperparameter: Hyperparameter) -> tuple[list[float], list[str]]:
    """Where on an axis from 0 to 1 something is written, and what."""
    low, high = _ends(hyperparameter)
    if hyperparameter.choices is not None:
        numbers = [float(i) for i in range(len(hyperparameter.choices))]
        labels = [plain(choice) for choice in hyperparameter.choices]
    else:
        scale = _decades if hyperparameter.log else _steps
        shown = scale(*_widened(*hyperparameter.ends))
        if hyperparameter.ends[0] == hyperparameter.ends[1]:
            shown = [hyperparameter.ends[0]]
        numbers = [hyperparameter.position(number) for number in shown]
        labels = [f"{number:g}" for number in shown]
    return [(number - low) / (high - low) for number in numbers], labels


def _steps(low: float, high: float) -> list[float]:
    """Some round numbers from low to high."""
    from matplotlib.ticker import MaxNLocator

    margin = 1e-9 * (high - low)
    found = MaxNLocator(nbins=5, steps=[1, 2, 2.5, 5, 10]).tick_values(low, high)
    return [round(float(n), 12) for n in found if low - margin <= n <= high + margin]


def _decades(low: float, high: float) -> list[float]:
    """1, 3, 10, 30, ... from low to high; where those are fewer than two, some round numbers."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found = [float(f"{n}e{power}") for power in range(first, last + 1) for n in (1, 3)]
    inside = [n for n in found if low * 0.999 <= n <= high * 1.001]
    return inside if len(inside) > 1 else _steps(low, high)


def plain(value: Any, longest: int = 14) -> str:
    """A value as a short label: `?` for what the plots' font may lack."""
    text = " ".join(str(value).split()).encode("ascii", "replace").decode()
    return text if len(text) <= longest else text[: longest - 1] + "…"


def effect(hyperparameter: Hyperparameter, trials: Sequence[TrialRecord], marks: Shades, title: str) -> str:
    """Accuracy over the value, for trials with an accuracy; of choices, with a bar at each median."""
    given = [t for t in trials if t.values.get(hyperparameter.name) is not None]
    choices = hyperparameter.choices
    low, high = _ends(hyperparameter)

    def draw(figure):
        axes = figure.subplots()
        for i, (epochs, (colour, marker, _)) in enumerate(marks.items()):
            level = [trial for trial in given if trial.epochs == epochs]
            places = np.array([hyperparameter.position(t.values[hyperparameter.name]) for t in level])
            scores = np.array([trial.score for trial in level])
            if choices is not None:
                lane = 0.8 / len(marks)
                places = places - 0.4 + lane * (i + 0.5) + lane * 0.3 * np.sin(2.4 * np.arange(len(level)))
                for j in range(len(choices)):
                    inside = [s for s, p in zip(scores, places, strict=True) if round(p) == j]
                    if len(inside) > 2:
                        middle = j - 0.4 + lane * (i + 0.5)
                        ends = (middle - 0.45 * lane, middle + 0.45 * lane)
                        axes.hlines(np.median(inside), *ends, color=ORANGE, linewidth=2, zorder=4)
            axes.scatter(places, scores, 22, colour, marker=marker, zorder=3, **EDGE)
        ticks, labels = _ticks(hyperparameter)
        axes.set_xticks([low + tick * (high - low) for tick in ticks], labels)
        margin = 0 if choices is not None else 0.04 * (high - low)
        axes.set_xlim(low - margin, high + margin)
        _accuracy_axis(axes)
        axes.set_title(title)

    return svg(draw, 3.3, 2.7)


def _percent(fraction: float, position: int | None = None) -> str:
    """As matplotlib asks for it, with as few digits as it takes."""
    return f"{100 * fraction:.6g}%".replace("-", "\u2212")


def _accuracy_axis(axes):
    axes.yaxis.set_major_formatter(_percent)
    axes.grid(axis="y", color=FAINT, linewidth=0.6)


def importances(shares: Mapping[str, tuple[float, float]], label: Callable[[str], str]) -> str:
    """A bar for each hyperparameter, and a line for the standard deviation over the folds."""
    ordered = sorted(shares.items(), key=lambda item: item[1][0])

    def draw(figure):
        axes = figure.subplots()
        axes.barh(
            [label(name) for name, _ in ordered],
            [mean for _, (mean, _) in ordered],
            xerr=[deviation for _, (_, deviation) in ordered],
            color=BLUE,
            alpha=0.6,
            error_kw={"ecolor": INK, "elinewidth": 1, "capsize": 2.5},
        )
        axes.axvline(0, color=SOFT, linewidth=1)
        axes.xaxis.set_major_formatter(_percent)
        axes.set_xlabel("share of the variance")
        axes.spines["left"].set_visible(False)
        axes.tick_params(axis="y", length=0)

    return svg(draw, 4.2, 0.9 + 0.26 * len(ordered))


def pareto(
    title: str,
    costs: Sequence[float | None],
    trials: Sequence[TrialRecord],
    front: Sequence[int],
    marks: Shades,
    *,
    time: bool = False,
) -> str:
    """Accuracy over a cost, the front in orange.

    Args:
        title: what the cost is.
        costs: one a trial; those that are not known, or not above 0, are left out.
        trials: with an accuracy each.
        front: positions in `trials`, from the least cost on.
        marks: of the epochs.
        time: whether the cost is in seconds.
    """
    numbers = np.array([math.nan if cost is None or cost <= 0 else cost for cost in costs], dtype=np.float64)
    scores = np.array([trial.score for trial in trials])
    epochs = np.array([trial.epochs for trial in trials])

    def draw(figure):
        axes = figure.subplots()
        axes.set_xscale("log")
        axes.step(numbers[front], scores[front], where="post", color=ORANGE, linewidth=1.4, zorder=2)
        for number, (colour, marker, _) in marks.items():
            level = epochs == number
            axes.scatter(numbers[level], scores[level], 22, colour, marker=marker, zorder=3, **EDGE)
        axes.scatter(numbers[front], scores[front], 70, **RING)
        _cost_axis(axes, numbers[np.isfinite(numbers)], time)
        _accuracy_axis(axes)
        axes.set_title(title)

    return svg(draw, 3.3, 2.9)


def _cost_axis(axes, numbers: np.ndarray, time: bool):
    """A logarithmic axis with a few round numbers."""
    low, high = numbers.min() / 1.15, numbers.max() * 1.15
    if time:
        shown = [t for t in TIMES if low <= t <= high]
    else:
        powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
        shown = [n * 10.0**power for power in powers for n in (1, 2, 5) if low <= n * 10.0**power <= high]
    shown = shown[:: max(1, math.ceil(len(shown) / 5))] or [float(f"{np.median(numbers):.2g}")]
    axes.set_xticks(shown, [_time(t) if time else _short(t) for t in shown])
    axes.set_xticks([], minor=True)
    axes.set_xlim(low, high)


def _short(number: float) -> str:
    """200000 as "200 k"."""
    return compact(number).replace(".00", "").replace("\u00a0", " ")


def _time(seconds: float) -> str:
    for size, unit in ((HOUR, "h"), (MINUTE, "min")):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def bracket(title: str, trials: Sequence[TrialRecord], everything: Sequence[TrialRecord], span: tuple) -> str:
    """Accuracy over epochs: a line from each trial to the one that it was promoted to.

    Args:
        title: which bracket.
        trials: of it, with an accuracy each.
        everything: all trials with an accuracy, to find those that were promoted.
        span: lowest and highest accuracy of all brackets, so that they can be compared.
    """
    by_id = {trial.trial_id: trial for trial in everything}
    went_on = promoted(everything)
    last = max(trial.epochs for trial in trials)

    def draw(figure):
        axes = figure.subplots()
        for trial in trials:
            before = by_id.get(trial.promoted_from or "")
            if before is not None:
                points = ([before.epochs, trial.epochs], [before.score, trial.score])
                axes.plot(*points, color=BLUE, linewidth=1.2, zorder=2)
        for name, colour, marker, kept in (
            ("promoted", BLUE, "o", lambda t: t.trial_id in went_on),
            ("dropped", "#b5b5b5", "X", lambda t: t.trial_id not in went_on and t.epochs < last),
            ("to the end", ORANGE, "D", lambda t: t.trial_id not in went_on and t.epochs == last),
        ):
            shown = [trial for trial in trials if kept(trial)]
            points = [trial.epochs for trial in shown], [trial.score for trial in shown]
            if shown:
                axes.scatter(*points, 26, colour, marker=marker, label=name, zorder=3, **EDGE)
        rungs = sorted({trial.epochs for trial in trials})
        axes.set_xscale("log")
        axes.set_xticks(rungs, [str(number) for number in rungs])
        axes.set_xticks([], minor=True)
        axes.set_xlim(rungs[0] / 1.3, rungs[-1] * 1.3)
        margin = 0.05 * (span[1] - span[0]) or 0.05
        axes.set_ylim(span[0] - margin, span[1] + margin)
        _accuracy_axis(axes)
        axes.set_xlabel("epochs")
        axes.set_title(title, pad=24)
        axes.legend(ncols=3, **LEGEND)

    return svg(draw, 4.2, 3.2)
