"""The plots of a search's page, each an SVG as a data URI.

Light means few epochs and dark many, or light a low and dark a high accuracy: readable in gray print too.
"""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_vit.evaluation.search_analysis import Hyperparameter, promoted
from keras_vit.evaluation.trials import TrialRecord
from keras_vit.report.kit import BLUE, INK, ORANGE, SOFT, compact, horizontal_lines, svg, title_above_legend

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PALE, DEEP = (0xA6, 0xCE, 0xE8), (0x08, 0x2B, 0x57)
MARKERS = "os^DvP"
SIGNS = "●■▲◆▼✚"  # the markers as characters, for the text of the page
EDGE: dict[str, Any] = {"edgecolors": "#3d3d3d", "linewidths": 0.4}
RING: dict[str, Any] = {"facecolors": "none", "edgecolors": ORANGE, "linewidths": 1.8, "zorder": 5}

CROWD = 100  # more lines than this are drawn thinner and fainter

MINUTE, HOUR = 60, 3600
TIMES = [
    *(1, 2, 5, 10, 20),
    *(MINUTE * m for m in (0.5, 1, 2, 5, 10, 20)),
    *(HOUR * h for h in (0.5, 1, 2, 5, 10)),
]

EpochMarks = Mapping[int, tuple[str, str, str]]


def epoch_marks(epochs: Sequence[int]) -> dict[int, tuple[str, str, str]]:
    """For each number of epochs its colour, its marker, and the character that looks like it."""
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
    """One line per trial through one axis per hyperparameter, and an axis for the accuracy.

    Args:
        trials: Trials with an accuracy; an unknown value breaks the line.
        searched: The axes.
        best: Drawn on top of all others.
        label: Gives the label of an axis.
    """
    from matplotlib.collections import LineCollection
    from matplotlib.colors import LinearSegmentedColormap

    ordered = sorted(trials, key=lambda trial: trial.accuracy)
    scores = _accuracies(ordered)
    low, high = _widened(float(scores[0]), float(scores[-1]))
    columns = [_heights(hyperparameter, ordered) for hyperparameter in searched]
    columns.append((scores - low) / (high - low))
    heights = np.column_stack(columns)
    across = np.arange(heights.shape[1])

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        lines = LineCollection(
            [np.column_stack([across, row]) for row in heights],
            array=scores,
            cmap=LinearSegmentedColormap.from_list("blues", [_blend(part) for part in (0, 0.5, 1)]),
            linewidths=1.1 if len(ordered) <= CROWD else 0.7,
            alpha=0.8 if len(ordered) <= CROWD else 0.45,
        )
        axes.add_collection(lines)
        chosen = heights[ordered.index(best)]
        axes.plot(across, chosen, color="white", linewidth=4.5, zorder=3)
        axes.plot(across, chosen, "o-", color=ORANGE, linewidth=2.4, markersize=5, zorder=4, clip_on=False)
        for x, hyperparameter in enumerate(searched):
            _vertical_axis(axes, x, label(hyperparameter.name), *_ticks(hyperparameter))
        steps = [part for part in _steps(low, high) if low <= part <= high]
        positions = [(step - low) / (high - low) for step in steps]
        _vertical_axis(axes, len(searched), "validation accuracy", positions, [_percent(s) for s in steps])
        axes.set_xlim(-0.15, across[-1] + 0.45)
        axes.set_ylim(-0.03, 1.03)
        axes.set_axis_off()
        bar = figure.colorbar(
            lines, ax=axes, format=_percent, location="bottom", shrink=0.4, aspect=40, pad=0.03
        )
        bar.set_label("validation accuracy", fontsize=9)
        bar.outline.set_visible(False)
        if bar.solids is not None:
            bar.solids.set_alpha(1)

    return svg(draw, max(4.0, 1.2 + 0.85 * len(across)), 4.6)


def _vertical_axis(
    axes: "Axes", x: float, name: str, positions: Sequence[float], labels: Sequence[str]
) -> None:
    """One axis of the parallel coordinates, with its name above and its ticks on the right."""
    from matplotlib.patheffects import withStroke

    halo = [withStroke(linewidth=2.5, foreground="white")]
    offset: dict[str, Any] = {"textcoords": "offset points"}
    axes.plot([x, x], [0, 1], color=SOFT, linewidth=1, zorder=2)
    axes.annotate(name.replace(" ", "\n"), (x, 1), (0, 9), ha="center", va="bottom", fontsize=9, **offset)
    for y, text in zip(positions, labels, strict=True):
        axes.plot([x - 0.03, x + 0.03], [y, y], color=SOFT, linewidth=1, zorder=2)
        axes.annotate(text, (x, y), (5, 0), va="center", fontsize=8, path_effects=halo, zorder=6, **offset)


def _ends(hyperparameter: Hyperparameter) -> tuple[float, float]:
    """The ends of its axis, on the scale of `Hyperparameter.position`."""
    if hyperparameter.choices is not None:
        return -0.5, max(len(hyperparameter.choices), 1) - 0.5
    return _widened(*(hyperparameter.position(end) for end in hyperparameter.ends))


def _widened(low: float, high: float) -> tuple[float, float]:
    """The same interval, made wider if it is empty."""
    return (low, high) if high > low else (low - (abs(low) / 10 or 1), high + (abs(high) / 10 or 1))


def _heights(hyperparameter: Hyperparameter, trials: Sequence[TrialRecord]) -> np.ndarray:
    """0 to 1, one per trial; trials with the same choice are spread a little, by accuracy."""
    low, high = _ends(hyperparameter)
    positions = np.array([hyperparameter.position(t.values.get(hyperparameter.name)) for t in trials])
    if hyperparameter.choices is not None and len(trials) > 1:
        positions = positions + np.linspace(-0.18, 0.18, len(trials))
    return (positions - low) / (high - low)


def _accuracies(trials: Sequence[TrialRecord]) -> np.ndarray:
    return np.array([trial.accuracy for trial in trials])


def _ticks(hyperparameter: Hyperparameter) -> tuple[list[float], list[str]]:
    """The positions of the ticks on an axis from 0 to 1, and their labels."""
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
    """1, 3, 10, 30, ... from low to high; some round numbers if there are fewer than two of them."""
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    found = [float(f"{n}e{power}") for power in range(first, last + 1) for n in (1, 3)]
    inside = [n for n in found if low * 0.999 <= n <= high * 1.001]
    return inside if len(inside) > 1 else _steps(low, high)


def plain(value: Any, longest: int = 14) -> str:
    """A value as a short label, with `?` for characters that the plots' font may lack."""
    text = " ".join(str(value).split()).encode("ascii", "replace").decode()
    return text if len(text) <= longest else text[: longest - 1] + "…"


def effect(
    hyperparameter: Hyperparameter, trials: Sequence[TrialRecord], marks: EpochMarks, title: str
) -> str:
    """Accuracy over the value, for trials with an accuracy; for choices, with a bar at each median."""
    given = [t for t in trials if t.values.get(hyperparameter.name) is not None]
    choices = hyperparameter.choices
    low, high = _ends(hyperparameter)

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        for i, (epochs, (colour, marker, _)) in enumerate(marks.items()):
            level = [trial for trial in given if trial.epochs == epochs]
            x = np.array([hyperparameter.position(t.values[hyperparameter.name]) for t in level])
            scores = _accuracies(level)
            if choices is not None:
                lane = 0.8 / len(marks)
                x = x - 0.4 + lane * (i + 0.5) + lane * 0.3 * np.sin(2.4 * np.arange(len(level)))
                for j in range(len(choices)):
                    inside = [score for score, at in zip(scores, x, strict=True) if round(at) == j]
                    if len(inside) > 2:
                        middle = j - 0.4 + lane * (i + 0.5)
                        ends = (middle - 0.45 * lane, middle + 0.45 * lane)
                        axes.hlines(np.median(inside), *ends, color=ORANGE, linewidth=2, zorder=4)
            axes.scatter(x, scores, 22, colour, marker=marker, zorder=3, **EDGE)
        ticks, labels = _ticks(hyperparameter)
        axes.set_xticks([low + tick * (high - low) for tick in ticks], labels)
        margin = 0 if choices is not None else 0.04 * (high - low)
        axes.set_xlim(low - margin, high + margin)
        _accuracy_axis(axes)
        axes.set_title(title)

    return svg(draw, 3.3, 2.7)


def _percent(fraction: float, position: float | None = None) -> str:
    """A tick label, with as few digits as needed. matplotlib passes the position too."""
    return f"{100 * fraction:.6g}%".replace("-", "\u2212")


def _accuracy_axis(axes: "Axes") -> None:
    axes.yaxis.set_major_formatter(_percent)
    horizontal_lines(axes)


def importances(shares: Mapping[str, tuple[float, float]], label: Callable[[str], str]) -> str:
    """One bar per hyperparameter, with a line for the standard deviation over the folds."""
    ordered = sorted(shares.items(), key=lambda item: item[1][0])

    def draw(figure: "Figure") -> None:
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
    marks: EpochMarks,
    *,
    time: bool = False,
) -> str:
    """Accuracy over a cost, the front in orange.

    Args:
        title: Name of the cost.
        costs: One per trial; trials whose cost is unknown or not above 0 are left out.
        trials: Trials with an accuracy.
        front: Positions in `trials`, from the lowest cost on.
        marks: The marks of the numbers of epochs.
        time: Whether the cost is in seconds.
    """
    numbers = np.array([math.nan if cost is None or cost <= 0 else cost for cost in costs], dtype=np.float64)
    scores = _accuracies(trials)
    epochs = np.array([trial.epochs for trial in trials])

    def draw(figure: "Figure") -> None:
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


def _cost_axis(axes: "Axes", numbers: np.ndarray, time: bool) -> None:
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
    """1800 as "30 min"."""
    for size, unit in ((HOUR, "h"), (MINUTE, "min")):
        if seconds >= size:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"


def bracket(
    title: str,
    trials: Sequence[TrialRecord],
    everything: Sequence[TrialRecord],
    span: tuple[float, float],
) -> str:
    """Accuracy over epochs, with a line from each trial to the trial it was promoted to.

    Args:
        title: Name of the bracket.
        trials: Its trials, with an accuracy.
        everything: All trials with an accuracy, to find the promoted ones.
        span: Lowest and highest accuracy of all brackets, so that they can be compared.
    """
    by_id = {trial.trial_id: trial for trial in everything}
    continued = promoted(everything)
    last = max(trial.epochs for trial in trials)

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        for trial in trials:
            before = by_id.get(trial.promoted_from or "")
            if before is not None:
                epochs, scores = [before.epochs, trial.epochs], [before.accuracy, trial.accuracy]
                axes.plot(epochs, scores, color=BLUE, linewidth=1.2, zorder=2)
        for name, colour, marker, kept in (
            ("promoted", BLUE, "o", lambda t: t.trial_id in continued),
            ("dropped", "#b5b5b5", "X", lambda t: t.trial_id not in continued and t.epochs < last),
            ("to the end", ORANGE, "D", lambda t: t.trial_id not in continued and t.epochs == last),
        ):
            shown = [trial for trial in trials if kept(trial)]
            if shown:
                epochs = [trial.epochs for trial in shown]
                axes.scatter(
                    epochs, _accuracies(shown), 26, colour, marker=marker, label=name, zorder=3, **EDGE
                )
        rungs = sorted({trial.epochs for trial in trials})
        axes.set_xscale("log")
        axes.set_xticks(rungs, [str(number) for number in rungs])
        axes.set_xticks([], minor=True)
        axes.set_xlim(rungs[0] / 1.3, rungs[-1] * 1.3)
        margin = 0.05 * (span[1] - span[0]) or 0.05
        axes.set_ylim(span[0] - margin, span[1] + margin)
        _accuracy_axis(axes)
        axes.set_xlabel("epochs")
        title_above_legend(axes, title, 3)

    return svg(draw, 4.2, 3.2)
