"""What `--min-recall` and `--costs` ask for, read and checked against the classes."""

import csv
import io
import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from keras_vit.data.sources.tables.text import read_text
from keras_vit.errors import InputError
from keras_vit.evaluation.decision import Wanted
from keras_vit.evaluation.least_recall import read_recalls
from keras_vit.files import text_of_cell
from keras_vit.text import say, shown
from keras_vit.validation import not_negative

MinRecall = Mapping[str, float] | Sequence[str] | None
Costs = str | Path | None

SPREAD = 1e9
"""The largest cost may be so many times the least one above 0: float32 must tell them apart in a sum."""

DELIMITERS = ",;\t"


def wanted_of(min_recall: MinRecall, costs: Costs, class_names: Sequence[str]) -> Wanted | None:
    """What is asked for; `None` for nothing.

    Args:
        min_recall: class name -> least recall, or words of `--min-recall`.
        costs: a file of `read_costs`.
        class_names: of the model.

    Raises:
        InputError: a class is unknown, a recall is out of range, or the file cannot be used.
    """
    if min_recall is None and costs is None:
        return None
    if isinstance(min_recall, str):
        min_recall = (min_recall,)
    if isinstance(min_recall, Mapping):
        min_recall = [f"{name}={recall}" for name, recall in min_recall.items()]
    recalls = read_recalls(min_recall or ())
    for name in recalls:
        if name not in class_names:
            raise InputError(
                f"--min-recall names {shown(name)}, which is not a class: the classes are "
                f"{', '.join(map(shown, class_names))}."
            )
    return Wanted(recalls, None if costs is None else read_costs(Path(costs), class_names))


def words_of(wanted: Wanted | None, costs: Costs) -> list[str]:
    """The options of a command that ask for the same.

    Args:
        wanted: of `wanted_of`; `None` for nothing.
        costs: the file that it was made of.
    """
    recalls = wanted.recalls if wanted else {}
    words = ["--min-recall", *(f"{name}={recall!r}" for name, recall in recalls.items())] if recalls else []
    return [*words, *(["--costs", str(costs)] if costs is not None else [])]


def read_costs(path: Path, class_names: Sequence[str]) -> np.ndarray:
    """The costs of naming the column where it is the row: float64 (classes, classes).

    Args:
        path: a CSV file whose header has an empty or any first cell and then the classes, with a row per true
            class: its name and its costs. Or a JSON object: true class -> named class -> cost. What is right
            costs 0 where its cell is empty or missing.
        class_names: of the model; the file may have them in another order.

    Raises:
        InputError: the file cannot be read, a class is missing, unknown or there twice, a cost is not a
            finite number of 0 or more, a right answer costs more than a wrong one, or naming a class costs
            nothing.
    """
    rows = _rows(path)
    known = set(class_names)
    for true, row in rows.items():
        for name in (true, *row):
            if name not in known:
                raise InputError(
                    f"{path} names {shown(name)}, which is not a class: the classes are "
                    f"{', '.join(map(shown, class_names))}."
                )
    costs = np.zeros((len(class_names), len(class_names)))
    for i, true in enumerate(class_names):
        if true not in rows:
            raise InputError(
                f"{path} has no row for the class {shown(true)}: add what naming it wrongly costs."
            )
        for j, named in enumerate(class_names):
            value = rows[true].get(named)
            if value is None or value == "":
                if i == j:
                    continue
                raise InputError(
                    f"{path} does not say what naming {shown(named)} costs where it is {shown(true)}: add it."
                )
            costs[i, j] = _number(value, true, named, path)
    return _checked(costs, class_names, path)


def _rows(path: Path) -> dict[str, dict[str, Any]]:
    """True class -> named class -> what the file says."""
    notes: list[str] = []
    text = read_text(path, notes)
    for note in notes:
        say(f"{path}: {note}", stream=sys.stderr)
    if path.suffix.lower() == ".json":
        return _of_json(path, text)
    header = text.lstrip().split("\n", 1)[0]
    delimiter = max(DELIMITERS, key=header.count)
    try:
        lines = list(csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True))
    except csv.Error as error:
        raise InputError(f"{path} cannot be read as --costs ({error}): give a CSV or JSON file.") from error
    lines = [[cell.strip() for cell in line] for line in lines if any(cell.strip() for cell in line)]
    if len(lines) < 2 or len(lines[0]) < 2:
        raise InputError(
            f"{path} is not a table of costs: give a CSV file with a column per class that may be named, and "
            "a row per true class that begins with its name."
        )
    names = [text_of_cell(cell) for cell in lines[0][1:]]
    rows = []
    for first, *cells in lines[1:]:
        if len(cells) != len(names):
            raise InputError(
                f"{path} has {len(cells)} costs in the row {shown(first)}, and {len(names)} columns of "
                "classes: give as many."
            )
        if delimiter != ",":
            cells = [cell.replace(",", ".") for cell in cells]  # decimal commas
        rows.append((text_of_cell(first), _once(zip(names, cells, strict=True), path, "columns")))
    return _once(rows, path, "rows")


def _of_json(path: Path, text: str) -> dict[str, dict[str, Any]]:
    try:
        found = json.loads(text, object_pairs_hook=lambda pairs: _once(pairs, path, "entries"))
    except (ValueError, RecursionError) as error:
        if isinstance(error, InputError):
            raise
        raise InputError(f"{path} is not JSON ({error}): correct it.") from error
    if not isinstance(found, dict) or not all(isinstance(row, dict) for row in found.values()):
        raise InputError(
            f"{path} is not a table of costs: give a JSON object of true class to named class to cost."
        )
    return found


def _once(pairs: Iterable[tuple[str, Any]], path: Path, what: str) -> dict[str, Any]:
    """The pairs as a dict, whose names come once."""
    found: dict[str, Any] = {}
    for name, value in pairs:
        if name in found:
            raise InputError(f"{path} has two {what} for the class {shown(name)}: remove one.")
        found[name] = value
    return found


def _number(value: Any, true: str, named: str, path: Path) -> float:
    found = not_negative(value)
    if found is None:
        raise InputError(
            f"{path} says {shown(value)} for naming {shown(named)} where it is {shown(true)}: a cost is a "
            "finite number, 0 or more."
        )
    return found


def _checked(costs: np.ndarray, names: Sequence[str], path: Path) -> np.ndarray:
    excess = costs - np.diag(costs)[:, None]
    for i, j in np.argwhere(excess < 0).tolist():
        raise InputError(
            f"{path}: where it is {shown(names[i])}, naming it costs {costs[i, i]:g}, more than naming "
            f"{shown(names[j])} ({costs[i, j]:g}): the right answer must cost least."
        )
    for j in np.flatnonzero((excess == 0).all(axis=0)).tolist():
        raise InputError(
            f"{path}: naming {shown(names[j])} never costs more than the right answer, so it would be named "
            "for every image: say what that costs."
        )
    above = excess[excess > 0]
    if above.max() > SPREAD * above.min():
        raise InputError(
            f"{path} has costs from {above.min():g} to {above.max():g}: the largest may be {SPREAD:g} times "
            "the least."
        )
    return costs
