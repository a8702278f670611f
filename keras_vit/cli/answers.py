"""How predictions are printed: a line each, as JSON, or counted."""

import json
import sys
from collections import Counter
from collections.abc import Generator, Iterable, Sequence
from typing import TYPE_CHECKING

from keras_vit.text import say, shown

if TYPE_CHECKING:
    from keras_vit.runs.bulk import Answered
    from keras_vit.runs.predictions import Prediction

FROM = 100
"""So many images have a bar."""

NAMED = 20
"""So many images that cannot be read are named; the table has all."""


def with_bar(
    found: "Iterable[Answered]", total: int, kept: int, hidden: bool
) -> "Generator[Answered, None, None]":
    """The answers, with a progress bar on the error output if that is a terminal.

    Args:
        found: the answers.
        total: how many there will be.
        kept: how many of them are known already.
        hidden: whether there is no bar.
    """
    from tqdm import tqdm

    disable = True if hidden or total < FROM else None  # `None`: not where the error output is a file
    with tqdm(total=total, initial=kept, unit=" images", disable=disable, leave=False) as bar:
        for i, one in enumerate(found):
            yield one
            if i >= kept:
                bar.update()


def print_lines(found: "Iterable[Answered]", names: Sequence[str]) -> int:
    """A line for each image, and how many have an error."""
    width, errors = max((len(shown(name)) for name in names), default=0), 0
    for item, _ in found:
        say(f"{shown(item.image):{width}}  {item.error or answer_in_words(item)}")
        errors += item.error is not None
    return errors


def print_json(found: "Iterable[Answered]", sorting: bool) -> int:
    """A JSON list on one line, each image when it is known; returns how many have an error.

    Args:
        found: the answers.
        sorting: whether each has the path that it is sorted to.
    """
    errors, before = 0, "["
    for item, sorted_to in found:
        entry = vars(item) | ({"sorted_to": sorted_to} if sorting else {})
        say(before + json.dumps(entry), flush=True, end="")
        before = ", "
        errors += item.error is not None
    say("[]" if before == "[" else "]")
    return errors


def print_counts(found: "Iterable[Answered]") -> int:
    """How many images have each answer; the first that cannot be read; and how many these are."""
    labels: Counter[str] = Counter()
    marks: Counter[str] = Counter()
    unreadable = 0
    for item, _ in found:
        if item.error is not None:
            unreadable += 1
            if unreadable <= NAMED:
                say(f"{item.image}: {item.error}", stream=sys.stderr)
            continue
        named = [item.label] if item.labels is None else item.labels or ["no label"]
        labels.update(str(name) for name in named)
        marks["rejected: unlike the training images"] += item.reject
        marks["refer to a person"] += bool(item.refer)
    if unreadable > NAMED:
        say(f"and {unreadable - NAMED:,} more that cannot be read", stream=sys.stderr)
    for name, count in labels.most_common():
        say(f"{count:>9,}  {shown(name)}")
    for name, count in marks.items():
        if count:
            say(f"{count:>9,}  of them {name}")
    if unreadable:
        say(f"{unreadable:>9,}  cannot be read")
    return unreadable


def answer_in_words(item: "Prediction") -> str:
    """The answer of one image."""
    rejected = "  rejected: unlike the training images" if item.reject else ""
    if item.labels is not None:
        named = ", ".join(f"{name} {item.probabilities[name]:.1%}" for name in item.labels)
        likeliest = f"no label (likeliest {item.label} {item.confidence:.1%})"
        return f"{named or likeliest}{rejected}"
    other = ""
    if item.likeliest not in (None, item.label):
        other = f"  likeliest: {item.likeliest} {item.probabilities[item.likeliest]:.1%}"
    return f"{item.label}  {item.confidence:.1%}{other}{_possible(item)}{rejected}"


def _possible(item: "Prediction") -> str:
    """The classes of the prediction set, where they are not just the label, and whether it is referred."""
    if item.prediction_set is None:
        return ""
    refer = "  refer to a person" if item.refer else ""
    if item.prediction_set == (item.label,):
        return refer
    return f"  set: {', '.join(item.prediction_set) or 'empty'}{refer}"
