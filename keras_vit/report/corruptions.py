"""The section on corrupted images, which `keras-vit evaluate RUN --corruptions` adds to the page of a run."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from keras_vit.report.kit import BLUE, ORANGE, render, svg, title_above_legend

if TYPE_CHECKING:
    from matplotlib.figure import Figure

BEGIN, END = "<!-- begin corruptions -->", "<!-- end corruptions -->"
"""Where the section is in the page; a section that is there already is replaced."""

NAMES = {
    "noise": "noise",
    "blur": "blur",
    "motion": "motion blur",
    "contrast": "less contrast",
    "brightness": "brighter or darker",
    "uneven": "uneven light",
    "jpeg": "JPEG compression",
    "rotate": "rotation",
}

SHADES = ("#7fb8d8", BLUE, "#00395a")
"""Of the three strengths."""


def with_section(page: str, found: Mapping[str, Any]) -> str | None:
    """The page of a run with the section.

    Args:
        page: of `render_report`.
        found: the result of `keras_vit.runs.robustness.judge_corruptions`.

    Returns:
        The page; `None` if it has no place for the section, as those of earlier versions.
    """
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    if not begin or not end:
        return None
    return f"{before}{BEGIN}\n{section(found)}\n{END}{after}"


def section(found: Mapping[str, Any]) -> str:
    """The HTML of the section; arguments as `with_section`."""
    kinds: dict[str, list[Mapping[str, Any]]] = {}
    for row in found["rows"]:
        kinds.setdefault(row["kind"], []).append(row)
    return render(
        "corruptions",
        found=found,
        kinds=[(NAMES.get(kind, kind), rows) for kind, rows in kinds.items()],
        strengths=[row["strength"] for row in next(iter(kinds.values()))],
        plot=plot(kinds, found["clean"]),
    )


def plot(kinds: Mapping[str, list[Mapping[str, Any]]], clean: float) -> str:
    """The accuracy per kind, one dot for each strength; the line is that of the images as they are."""
    from matplotlib.ticker import PercentFormatter

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        places = range(len(kinds))
        for i, shade in enumerate(SHADES):
            accuracies = [rows[i]["accuracy"] for rows in kinds.values()]
            axes.plot(accuracies, places, "o", color=shade, label=f"strength {i + 1}", clip_on=False)
        axes.axvline(clean, color=ORANGE, linewidth=1.4, linestyle="--", label="as they are")
        axes.set_yticks(list(places), [NAMES.get(kind, kind) for kind in kinds])
        axes.invert_yaxis()
        axes.set_xlim(0, 1)
        axes.grid(axis="both", linewidth=0.4, alpha=0.5)
        axes.xaxis.set_major_formatter(PercentFormatter(xmax=1))
        title_above_legend(axes, "Accuracy on corrupted test images", 4)

    return svg(draw, 6.4, 3.6)
