"""What a model looks at and has learned, as the parts of a page."""

from collections.abc import Mapping
from typing import Any

from keras_vit.report import explain_plots as plots
from keras_vit.report.kit import decimal, paletted


def parts(explained: Mapping[str, Any]) -> dict[str, Any]:
    """The pictures and plots beside what they were made from.

    Args:
        explained: as `keras_vit.training.explained.explained` gives it.
    """
    distances = explained["distances"]
    means = [sum(heads) / len(heads) for heads in distances]
    return {
        **explained,
        **{kind: [(row, paletted(row["strip"])) for row in explained[kind]] for kind in ("wrong", "right")},
        "distance_plot": plots.distances(distances, explained["longest"]),
        "distance_alt": (
            f"Mean attention distance per head and block: from {means[0]:.0f} pixels in the first block to "
            f"{means[-1]:.0f} in the last"
        ),
        "position_picture": plots.position_tiles(explained["positions"]),
        "filter_picture": plots.filter_tiles(explained["filters"]),
        "trust_plots": trust_plots(explained["trust"]) if explained["trust"] else [],
    }


def trust_plots(trust: Mapping[str, Any]) -> list[tuple[str, str]]:
    """The curves and the check by randomised weights, as (alternative text, data URI)."""
    found = []
    for name in ("deletion", "insertion"):
        curve = trust[name]
        described = f"{name.capitalize()} curve: area {decimal(curve['area'])} by the map, "
        described += f"{decimal(curve['area_by_chance'])} in random order"
        found.append((described, plots.trust_curve(name.capitalize(), curve)))
    last = trust["randomised"][-1][1]
    described = (
        f"Rank correlation of the maps while weights are shuffled from the head down: {last:.2f} at last"
    )
    return [*found, (described, plots.randomised(trust["randomised"]))]
