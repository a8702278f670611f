"""model_card.md: what to know about a model before relying on it (Mitchell et al. 2019)."""

from collections.abc import Sequence

from keras_vit.runs.folder import Run
from keras_vit.serving.saved_model import Comparison


def model_card(run: Run, format: str, comparison: Comparison, flips: bool = False) -> str:
    """The text of a model card.

    The sections follow M. Mitchell et al., "Model cards for model reporting", 2019,
    https://arxiv.org/abs/1810.03993, as far as a run folder has the information.

    Args:
        run: a finished run.
        format: of the exported model.
        comparison: of the exported model with Keras.
        flips: as it was exported.
    """
    from jinja2 import Environment, PackageLoader

    environment = Environment(
        loader=PackageLoader("keras_vit.serving", "."), trim_blocks=True, lstrip_blocks=True
    )
    environment.filters |= {"percent": percent, "interval": interval, "cell": cell, "figures": figures}
    return environment.get_template("model_card.md.jinja").render(
        run=run,
        config=run.config,
        metrics=run.metrics,
        best=run.metrics["best"],
        format=format,
        compared=comparison,
        preprocessing=run.preprocessing,
        weights=run.config.get("weights"),
        flips=flips,
    )


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def interval(bounds: Sequence[float]) -> str:
    low, high = bounds
    return f"{low:.1%} to {high:.1%}"


def figures(numbers: Sequence[float]) -> str:
    """`0.485, 0.456, 0.406`; one number if all are the same."""
    return ", ".join(f"{number:.6g}" for number in (numbers if len(set(numbers)) > 1 else numbers[:1]))


def cell(text: str) -> str:
    """Text for a cell of a Markdown table."""
    return str(text).replace("|", "\\|").replace("\n", " ")
