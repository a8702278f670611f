"""The plots of what a model has learned and of the trust in its maps, each as a data URI."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_vit.report.kit import (
    BLUE,
    ORANGE,
    SOFT,
    horizontal_lines,
    picture,
    png,
    svg,
    title_above_legend,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

PER_ROW = 7


def tiles(values: np.ndarray, per_row: int, gap: int = 1) -> np.ndarray:
    """Small pictures side by side on white.

    Args:
        values: (n, height, width, channels), in 0..1.
        per_row: number of pictures in a row.
        gap: white pixels between them.

    Returns:
        uint8 (height, width, channels).
    """
    count, height, width, channels = values.shape
    rows = -(-count // per_row)
    page = np.ones((rows * (height + gap) - gap, per_row * (width + gap) - gap, channels))
    for i, tile in enumerate(values):
        top, left = i // per_row * (height + gap), i % per_row * (width + gap)
        page[top : top + height, left : left + width] = tile
    return np.rint(255 * page).astype(np.uint8)


def position_tiles(similarity: np.ndarray) -> str:
    """The similarity of positions (r, c, rows, columns): one tile per position."""
    from matplotlib import colormaps

    r, c, rows, columns = similarity.shape
    low, high = float(similarity.min()), float(similarity.max())
    shares = (similarity - low) / max(high - low, 1e-12)
    coloured = colormaps["viridis"](shares.reshape(r * c, rows, columns))[..., :3]
    return picture(tiles(coloured, c))


def filter_tiles(filters: np.ndarray) -> str:
    """Filters (n, height, width, channels), each scaled to its own range."""
    low, high = (f(filters, axis=(1, 2, 3), keepdims=True) for f in (np.min, np.max))
    shares = (filters - low) / np.maximum(high - low, 1e-12)
    return picture(tiles(shares, PER_ROW))


def distances(values: Sequence[Sequence[float]], longest: int) -> str:
    """The mean attention distance of each head, over the depth of the block."""
    from matplotlib.ticker import MaxNLocator

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        for block, heads in enumerate(values):
            axes.plot([block] * len(heads), heads, "o", color=BLUE, markersize=4.5, alpha=0.7, clip_on=False)
        axes.plot(range(len(values)), [np.mean(heads) for heads in values], "-", color=SOFT, linewidth=1)
        axes.set_ylim(0, 0.75 * longest)
        axes.set_xlim(-0.5, len(values) - 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=12, min_n_ticks=1))
        axes.set_xlabel("block")
        axes.set_ylabel("pixels")
        axes.set_title("Mean attention distance per head")
        horizontal_lines(axes)

    return svg(draw, 4.2, 3.2)


def trust_curve(title: str, curve: Mapping[str, Any]) -> str:
    """A deletion or insertion curve, with that by chance."""
    return svg(lambda figure: draw_curve(figure.subplots(), title, curve), 4.2, 3.2)


def randomised(parts: Sequence[tuple[str, float]]) -> str:
    """The rank correlation of the maps with those of the model, by how much is randomised."""
    return svg(lambda figure: draw_randomised(figure.subplots(), parts), 4.2, 3.6)


def trust_png(trust: Mapping[str, Any]) -> bytes:
    """Both curves and the check by randomised weights, side by side."""

    def draw(figure: "Figure") -> None:
        axes = figure.subplots(1, 3)
        draw_curve(axes[0], "Deletion", trust["deletion"])
        draw_curve(axes[1], "Insertion", trust["insertion"])
        draw_randomised(axes[2], trust["randomised"])

    return png(draw, 12.6, 3.8)


def draw_curve(axes: "Axes", title: str, curve: Mapping[str, Any]) -> None:
    from matplotlib.ticker import PercentFormatter

    shares = curve["shares"]
    axes.plot(shares, curve["by_map"], "-", color=BLUE, label="by the map", clip_on=False)
    axes.plot(shares, curve["by_chance"], "--", color=ORANGE, label="in random order", clip_on=False)
    axes.set_xlim(0, 1)
    axes.set_ylim(0, 1)
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter(PercentFormatter(xmax=1, decimals=0))
    axes.set_xlabel("patches changed")
    axes.set_ylabel("probability")
    horizontal_lines(axes)
    title_above_legend(axes, title, 2)


def draw_randomised(axes: "Axes", parts: Sequence[tuple[str, float]]) -> None:
    names = ["nothing", *(name for name, _ in parts)]
    values = [1.0, *(value for _, value in parts)]
    axes.plot(range(len(names)), values, "o-", color=BLUE, markersize=4)
    axes.axhline(0, color=SOFT, linewidth=1, linestyle=":")
    axes.set_xticks(range(len(names)), names, rotation=60, ha="right", fontsize=8)
    axes.set_ylim(min(-0.2, *values) - 0.05, 1.05)
    axes.set_ylabel("rank correlation")
    axes.set_title("Weights shuffled down to")
    horizontal_lines(axes)
