"""The plot of a run's page on what to hand to a person."""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from keras_vit.report.kit import BLUE, ORANGE, horizontal_lines, svg, title_above_legend

if TYPE_CHECKING:
    from matplotlib.figure import Figure


def risk_coverage(curve: Mapping[str, list[float]], chosen: Mapping[str, Any]) -> str:
    """The accuracy of the rest over the share of images that go to a person, as an SVG in a data URI.

    Args:
        curve: of `keras_vit.evaluation.selective.risk_coverage`.
        chosen: of `keras_vit.evaluation.trust.referral_figures`: the point of the run.
    """
    from matplotlib.ticker import MaxNLocator, PercentFormatter

    def draw(figure: "Figure") -> None:
        axes = figure.subplots()
        axes.plot(
            curve["referred"],
            curve["accuracy"],
            drawstyle="steps-post",
            color=BLUE,
            clip_on=False,
            label="least confident first",
        )
        if chosen["accuracy"] is not None:
            axes.plot(
                [chosen["share"]],
                [chosen["accuracy"]],
                "o",
                color=ORANGE,
                clip_on=False,
                zorder=3,
                label="this run's rule",
            )
        axes.set_xlim(0, 1)
        lowest = min(*curve["accuracy"], chosen["accuracy"] or 1, 0.99)
        axes.set_ylim(max(0, lowest - 0.1 * (1 - lowest)), 1)
        horizontal_lines(axes)
        axes.xaxis.set_major_formatter(PercentFormatter(xmax=1))
        axes.yaxis.set_major_formatter(PercentFormatter(xmax=1, decimals=None))
        axes.yaxis.set_major_locator(MaxNLocator(nbins=6))
        axes.set_xlabel("sent to a person")
        title_above_legend(axes, "Accuracy of the rest", 2)

    return svg(draw, 5.2, 3.4)
