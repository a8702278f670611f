"""model_card.md: what to know about a model before relying on it (Mitchell et al. 2019)."""

import html
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from keras_vit.evaluation.decision import DECISION, decision_of_run, lines_of_decision, notices
from keras_vit.evaluation.labels import THRESHOLDS, labels_in_words, thresholds_in_words
from keras_vit.evaluation.ordered import order_in_words
from keras_vit.evaluation.trust import lines_of_run
from keras_vit.runs.folder import Run
from keras_vit.serving.comparison import Comparison
from keras_vit.text import shown

if TYPE_CHECKING:
    from markupsafe import Markup

MARKUP = re.compile(r"[\\`*\[\]|~$]|(?<![^\W_])_|_(?![^\W_])")
"""What Markdown takes for markup within a line, HTML apart; an underscore inside a word is none."""


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
        loader=PackageLoader("keras_vit.serving", "."),
        trim_blocks=True,
        lstrip_blocks=True,
        finalize=plain,  # of every value: class names and sources are written by others
    )
    environment.filters |= {"percent": percent, "interval": interval, "figures": figures, "code": code}
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
        trust_lines=_trust_lines(run),
        **_of_labels(run),
        order_line=order_in_words(run.metrics["best"]),
        decision_lines=[line.strip() for line in _decision_lines(run)],
    )


def _of_labels(run: Run) -> dict[str, Any]:
    """What the card of several labels per image says besides; empty for one class."""
    if not run.several:
        return {}
    return {
        "label_figures": labels_in_words(run.metrics["best"]),
        "threshold_line": thresholds_in_words(run.metrics[THRESHOLDS]),
    }


def _decision_lines(run: Run) -> list[str]:
    """What the rule does on the test images; of one that was set anew, on those that chose it."""
    entry = run.settled.get(DECISION)
    if entry is None or run.wanted is None:
        return decision_of_run(run.metrics)
    lines = [*lines_of_decision(entry, entry["calibration"]), *notices(entry)]
    return [
        *lines,
        "This export names classes by a rule of its own: the figures above are not those of the rule",
    ]


def _trust_lines(run: Run) -> list[str]:
    """What the test images say of prediction sets and referral; none for a run without."""
    if run.prediction_sets is None or run.wanted is not None:
        return []
    lines = lines_of_run(run.metrics)
    if run.accept_risk is not None:
        lines.append(
            f"This export refers for an accepted risk of {run.accept_risk:.2%} instead, which the figures do "
            "not show: `keras-vit evaluate` with the same risk does"
        )
    return lines


def percent(share: float | None) -> str:
    return "-" if share is None else f"{share:.1%}"


def interval(bounds: Sequence[float]) -> str:
    low, high = bounds
    return f"{low:.1%} to {high:.1%}"


def figures(numbers: Sequence[float]) -> str:
    """`0.485, 0.456, 0.406`; one number if all are the same."""
    return ", ".join(f"{number:.6g}" for number in (numbers if len(set(numbers)) > 1 else numbers[:1]))


def plain(value: Any) -> Any:
    """Text that Markdown shows as it is, on one line: no markup, HTML or link of its own."""
    from markupsafe import Markup

    if not isinstance(value, str) or isinstance(value, Markup):
        return value
    return MARKUP.sub(r"\\\g<0>", html.escape(shown(value), quote=False))


def code(text: str) -> "Markup":
    """A line as a block of code."""
    from markupsafe import Markup

    line = shown(text)
    fence = "`" * max(3, 1 + max(map(len, re.findall("`+", line)), default=0))
    return Markup(f"{fence}\n{line}\n{fence}")
