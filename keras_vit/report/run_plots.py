"""The plots of a run's page, each an SVG as a data URI.

Class names stay out of the plots (they can be long, in any script, or hold a `$`): the tables beside the
plots have them.
"""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_vit.report.kit import BLUE, ORANGE, SOFT, horizontal_lines, svg, title_above_legend

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def curve(title: str, train: np.ndarray, validation: np.ndarray, best_epoch: int, in_percent: bool) -> str:
    """A learning curve with one value per epoch; NaN leaves a gap, `validation` may be empty."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        longest = max(len(train), len(validation), 1)
        marker = "o" if longest <= 10 else None
        for values, name, colour, dashes in (
            (train, "train", BLUE, "-"),
            (validation, "validation", ORANGE, "--"),
        ):
            if len(values):
                epochs = np.arange(1, len(values) + 1)
                line: dict[str, Any] = {"color": colour, "marker": marker, "markersize": 4}
                axes.plot(epochs, values, dashes, label=name, clip_on=False, **line)
        kept = f"epoch {best_epoch}, kept"
        axes.axvline(best_epoch, color=SOFT, linewidth=1, linestyle=":", label=kept)
        axes.set_xlim(0.5, longest + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
        horizontal_lines(axes)
        axes.set_xlabel("epoch")
        if in_percent:
            axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=None))
        title_above_legend(axes, title, 3)

    return svg(draw, 4.2, 3.2)


def reliability(title: str, bins: list[dict[str, Any]]) -> str:
    """Accuracy over confidence, with the number of images per bin below. The diagonal is perfect."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    filled = [b for b in bins if b["count"]]
    left = [b["low"] for b in filled]
    width = [b["high"] - b["low"] for b in filled]

    def draw(figure: "Figure") -> None:
        upper, lower = figure.subplots(2, 1, sharex=True, height_ratios=[3, 1])
        upper.bar(
            left,
            [b["accuracy"] for b in filled],
            width,
            align="edge",
            color=BLUE,
            alpha=0.45,
            edgecolor=BLUE,
            label="accuracy",
        )
        upper.plot(
            [b["confidence"] for b in filled],
            [b["accuracy"] for b in filled],
            "o",
            color=BLUE,
            markersize=4,
            clip_on=False,
        )
        upper.plot([0, 1], [0, 1], "--", color=ORANGE, linewidth=1.4, label="accuracy = confidence")
        upper.set_xlim(0, 1)
        upper.set_ylim(0, 1)
        upper.yaxis.set_major_formatter(PercentFormatter(xmax=1))
        upper.set_ylabel("accuracy")
        title_above_legend(upper, title, 2)
        lower.bar(left, [b["count"] for b in filled], width, align="edge", color=SOFT)
        lower.set_ylabel("images")
        lower.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=2, min_n_ticks=1))
        lower.xaxis.set_major_formatter(PercentFormatter(xmax=1))
        lower.set_xlabel("confidence")

    return svg(draw, 4.2, 4.2)


def confusion_map(matrix: Sequence[Sequence[int]]) -> str:
    """The confusion matrix of many classes as a picture: shares of the rows, classes by number."""
    from matplotlib.colors import PowerNorm
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    counts = np.asarray(matrix, dtype=np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ends = (0.5, len(counts) + 0.5)

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        # The square root of the share, so that a few mistakes among many images are visible.
        shown = axes.imshow(
            shares,
            cmap="Blues",
            norm=PowerNorm(0.5, vmin=0, vmax=1),
            interpolation="nearest",
            extent=(*ends, ends[1], ends[0]),
        )
        axes.spines[:].set_visible(True)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
        axes.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=10))
        axes.set_xlabel("predicted class, by number")
        axes.set_ylabel("true class, by number")
        bar = figure.colorbar(shown, ax=axes, shrink=0.8, format=PercentFormatter(xmax=1), pad=0.03)
        bar.set_ticks([0, 0.05, 0.25, 0.5, 1])

    return svg(draw, 5.6, 4.8)
