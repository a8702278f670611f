"""Pictures of an explanation, as PNG."""

from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from keras_vit.explain.explanation import Explanation
from keras_vit.explain.placement import Box
from keras_vit.report.kit import png
from keras_vit.text import shown

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.colors import ListedColormap
    from matplotlib.figure import Figure

COLUMNS = 7
"""At most so many pictures side by side."""

INCHES = 2.1  # the side of one picture
OPACITY = 0.8  # of the highest value of a map over its picture; the lowest hides nothing
LONGEST_NAME = 60  # characters of a name in a title


def figure_png(explanation: Explanation) -> bytes:
    """One figure: the picture, and over it the heads, the rollout, and the attention that speaks for a class.

    Args:
        explanation: of an image that could be read.
    """
    found = explanation
    assert found.heads is not None
    where = "pool" if found.block is None else f"block_{found.block}"
    panels = [
        ("image", None),
        *((f"{where}, head {i}", head) for i, head in enumerate(found.heads)),
        ("rollout", found.rollout),
        (f"for {_short(found.class_name)}", found.gradient_weighted),
        *([("removal", found.removal)] if found.removal is not None else []),
    ]
    rows = -(-len(panels) // COLUMNS)
    columns = -(-len(panels) // rows)

    def draw(figure: "Figure") -> None:
        figure.suptitle(title(found), fontsize=11, x=0.01, ha="left")
        axes = figure.subplots(rows, columns, squeeze=False).ravel()
        for axis, (name, values) in zip(axes, panels, strict=False):
            show(axis, found.pixels, values, found.box)
            axis.set_title(name, fontsize=9)
        for axis in axes[len(panels) :]:
            axis.set_axis_off()

    return png(draw, columns * INCHES, rows * (INCHES + 0.25) + 0.4)


def heatmap_png(explanation: Explanation) -> bytes:
    """The gradient-weighted attention over the picture alone, with the answer above it."""

    def draw(figure: "Figure") -> None:
        figure.suptitle(title(explanation), fontsize=9, x=0.01, ha="left")
        show(figure.subplots(), explanation.pixels, explanation.gradient_weighted, explanation.box)

    return png(draw, 4.4, 4.4)


def title(explanation: Explanation) -> str:
    """The name of the image, its label, its confidence, and whether it is rejected."""
    rejected = ", rejected: unlike the training images" if explanation.reject else ", not rejected"
    label = _short(explanation.label)
    return f"{_short(explanation.image)}\n{label} {explanation.confidence:.1%}{rejected}"


def show(axis: "Axes", pixels: np.ndarray | None, values: np.ndarray | None, box: Box | None) -> None:
    """Draws a picture, and a map over it.

    Args:
        axis: to draw on.
        pixels: uint8 (height, width, 1 or 3).
        values: (rows, columns), or `None` for the picture alone. The lowest is transparent, the highest
            bright.
        box: where the values lie on the picture.
    """
    assert pixels is not None
    height, width, channels = pixels.shape
    extent = (0, width, height, 0)
    plain = pixels[..., 0] if channels == 1 else pixels
    axis.imshow(plain, cmap="gray", vmin=0, vmax=255, extent=extent)
    if values is not None:
        assert box is not None
        where = (box.left, box.right, box.bottom, box.top)
        axis.imshow(values, cmap=colours(), extent=where, interpolation="bilinear")
    axis.set_xlim(0, width)
    axis.set_ylim(height, 0)
    axis.set_xticks([])
    axis.set_yticks([])
    axis.spines[:].set_visible(False)


@cache
def colours() -> "ListedColormap":
    """Inferno, more opaque the higher the value: the picture stays visible where a map is low."""
    import matplotlib
    from matplotlib.colors import ListedColormap

    colours = matplotlib.colormaps["inferno"](np.linspace(0.25, 1, 256))
    colours[:, 3] = OPACITY * np.linspace(0, 1, 256) ** 0.7
    return ListedColormap(colours)


def _short(name: str | None) -> str:
    """A name that fits into a title; its end says most."""
    text = shown(name)
    return text if len(text) <= LONGEST_NAME else "\u2026" + text[-LONGEST_NAME:]
