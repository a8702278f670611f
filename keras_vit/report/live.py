"""The page on which a served model is tried with a picture of one's own."""

from collections.abc import Sequence

from keras_vit.report.kit import render
from keras_vit.text import shown

COLOURS = 32  # steps of the colours of a map; the browser blends between patches


def live_page(name: str, about: str, class_names: Sequence[str] | None, maps: bool, nonce: str) -> str:
    """The HTML of the page, which asks `/answer` of the server that it comes from.

    Args:
        name: of the model.
        about: what is served, in one line.
        class_names: of the model, or `None`; shown, so that a user knows what can be asked.
        maps: whether answers have a map of what the model looks at.
        nonce: of the Content-Security-Policy that the server sends with it.
    """
    return render(
        "live",
        name=shown(name),
        about=shown(about),
        class_names=[shown(one) for one in class_names or ()],
        maps=maps,
        colours=_colours() if maps else [],
        nonce=nonce,
    )


def _colours() -> list[list[int]]:
    """Red, green, blue and opacity, each in 0..255, from the lowest to the highest value of a map."""
    import matplotlib
    import numpy as np

    steps = np.linspace(0, 1, COLOURS)
    colours = matplotlib.colormaps["inferno"](0.25 + 0.75 * steps)
    colours[:, 3] = 0.8 * steps**0.7
    return np.rint(255 * colours).astype(int).tolist()
