"""The report's pictures, each as the data URI of an SVG or a PNG: nothing is fetched, no display needed.

Class names stay out of the plots (they can be long, in any script, or hold a `$`): the tables beside them
tell.
"""

import base64
import io
from collections.abc import Sequence
from typing import Any

import numpy as np

# Okabe and Ito's blue and vermilion: told apart by all kinds of colour vision, and in gray print.
BLUE, ORANGE, INK, FAINT = "#0072b2", "#d55e00", "#1a1a1a", "#d9d9d9"

STYLE: dict[Any, Any] = {
    "font.size": 10,
    "axes.edgecolor": "#6b6b6b",
    "axes.labelcolor": INK,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 11,
    "axes.titlelocation": "left",
    "xtick.color": INK,
    "ytick.color": INK,
    "lines.linewidth": 1.8,
    "text.parse_math": False,  # a `$` is a dollar
    "svg.hashsalt": "keras_vit",  # the same report from the same numbers
}

# In a row between the title and the plot, where it covers nothing.
LEGEND: dict[str, Any] = {
    "loc": "lower left",
    "bbox_to_anchor": (-0.02, 1.0),
    "frameon": False,
    "fontsize": 9,
    "borderpad": 0,
    "handlelength": 1.6,
    "columnspacing": 1.2,
}

PICTURE_SIDE = 224  # a small picture is enlarged to about this many pixels, without blur
PICTURE_LIMIT = 512  # a large one is reduced to this


def curve(title: str, train: np.ndarray, validation: np.ndarray, best_epoch: int, in_percent: bool) -> str:
    """One learning curve, one value an epoch; NaN leaves a gap, `validation` may be empty."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    def draw(figure):
        axes = figure.subplots()
        longest = max(len(train), len(validation), 1)
        marker = "o" if longest <= 10 else None
        for values, name, colour, dashes in (
            (train, "train", BLUE, "-"),
            (validation, "validation", ORANGE, "--"),
        ):
            if len(values):
                epochs = np.arange(1, len(values) + 1)
                axes.plot(
                    epochs,
                    values,
                    dashes,
                    color=colour,
                    label=name,
                    marker=marker,
                    markersize=4,
                    clip_on=False,
                )
        axes.axvline(
            best_epoch, color="#6b6b6b", linewidth=1, linestyle=":", label=f"epoch {best_epoch}, kept"
        )
        axes.set_xlim(0.5, longest + 0.5)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, nbins=8, min_n_ticks=1))
        axes.grid(axis="y", color=FAINT, linewidth=0.6)
        axes.set_xlabel("epoch")
        if in_percent:
            axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=None))
        axes.set_title(title, pad=24)
        axes.legend(ncols=3, **LEGEND)

    return svg(draw, 4.2, 3.2)


def reliability(title: str, bins: list[dict[str, Any]]) -> str:
    """Accuracy over confidence, with the number of images of each bin below. On the diagonal is right."""
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    filled = [b for b in bins if b["count"]]
    left = [b["low"] for b in filled]
    width = [b["high"] - b["low"] for b in filled]

    def draw(figure):
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
        upper.set_title(title, pad=24)
        upper.legend(ncols=2, **LEGEND)
        lower.bar(left, [b["count"] for b in filled], width, align="edge", color="#6b6b6b")
        lower.set_ylabel("images")
        lower.yaxis.set_major_locator(MaxNLocator(integer=True, nbins=2, min_n_ticks=1))
        lower.xaxis.set_major_formatter(PercentFormatter(xmax=1))
        lower.set_xlabel("confidence")

    return svg(draw, 4.2, 4.2)


def confusion_map(matrix: Sequence[Sequence[int]]) -> str:
    """The confusion matrix of many classes as a picture: the shares of each row; classes by number."""
    from matplotlib.colors import PowerNorm
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    counts = np.asarray(matrix, dtype=np.float64)
    shares = counts / np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ends = (0.5, len(counts) + 0.5)

    def draw(figure):
        axes = figure.subplots()
        # The square root of the share, so that a few mistakes among many images can be seen.
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


def picture(pixels: np.ndarray) -> str:
    """A PNG of uint8 pixels (height, width, 1 or 3): a small one enlarged pixel by pixel, a large one
    reduced.

    Raises:
        ValueError: for another shape or dtype.
    """
    from PIL import Image

    pixels = np.asarray(pixels)
    if pixels.ndim != 3 or pixels.shape[2] not in (1, 3) or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise ValueError(
            "a picture must be uint8 pixels (height, width, channels) with 1 or 3 channels. "
            f"Received: shape {pixels.shape}, dtype {pixels.dtype}"
        )
    image = Image.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
    longest = max(image.size)
    if longest > PICTURE_LIMIT:
        image.thumbnail((PICTURE_LIMIT, PICTURE_LIMIT), Image.Resampling.LANCZOS)
    elif longest < PICTURE_SIDE:
        times = -(-PICTURE_SIDE // longest)
        image = image.resize((image.width * times, image.height * times), Image.Resampling.NEAREST)
    file = io.BytesIO()
    image.save(file, "PNG", optimize=True)
    return _data_uri("image/png", file.getvalue())


def svg(draw, width: float, height: float) -> str:
    """What `draw` puts on a new figure of width x height inches, as a data URI."""
    from matplotlib import rc_context
    from matplotlib.figure import Figure

    with rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout="constrained")
        draw(figure)
        file = io.BytesIO()
        figure.savefig(file, format="svg", metadata={"Date": None})
    return _data_uri("image/svg+xml", file.getvalue())


def _data_uri(kind: str, content: bytes) -> str:
    return f"data:{kind};base64,{base64.b64encode(content).decode('ascii')}"
