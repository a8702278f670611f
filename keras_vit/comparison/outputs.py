"""What a comparison leaves: the figures of each model and number of images, the advice, and the page."""

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_vit import files
from keras_vit.comparison import folder as files_of
from keras_vit.comparison.candidates import VITS
from keras_vit.comparison.config import CompareConfig
from keras_vit.comparison.folder import Cell
from keras_vit.comparison.images import MOST
from keras_vit.data.image_set import evenly
from keras_vit.evaluation.model_choice import Answers, judge_models
from keras_vit.evaluation.repeated import Estimate, estimate_accuracy
from keras_vit.report.model_comparison import render_comparison
from keras_vit.sealed import seal

KINDS = ("", "shift", "rotate")


def write_outputs(
    config: CompareConfig,
    described: Mapping[str, Any],
    cells: Sequence[Cell],
    done: Mapping[Cell, Mapping[str, Any]],
    left_out: Sequence[str],
    notes: Sequence[str],
) -> dict[str, Any]:
    """Writes results.csv, comparison.json and report.html; returns the content of the second."""
    folder = config.folder
    rows = [
        _row(cell, done[cell], described["tested"][max(0, cell.fold - 1)]) for cell in cells if cell in done
    ]
    if rows:
        files.write_csv(folder / files_of.RESULTS, rows)
    measured = files_of.read_measured(folder)
    found = summarise(described, cells, done, measured)
    kept = {name: files_of.model_file(name) for name in found["models"]}
    kept = {name: file for name, file in kept.items() if (folder / file).is_file()}
    found |= {"left_out": list(left_out), "notes": list(notes), "kept": kept}
    files.write_json(folder / files_of.SUMMARY, seal(found, folder, (files_of.RESULTS,)))
    if found["table"]:
        files.write_text(folder / files_of.REPORT, render_comparison(config=described, found=found))
    return found


def _row(cell: Cell, result: Mapping[str, Any], tested: Mapping[str, Any]) -> dict[str, Any]:
    labels = np.array(tested["labels"])
    some = labels[evenly(len(labels), MOST)]
    right = {
        kind: float(np.mean(np.array(result["predicted"][kind]) == (some if kind else labels)))
        for kind in KINDS
    }
    return {
        "model": cell.model,
        "per_class": cell.per_class,
        "fold": cell.fold or "",
        "repeat": cell.repeat,
        "training_images": result["images"],
        "batch_size": result["batch_size"],
        "steps": result["steps"],
        "seconds": result["seconds"],
        "test_images": len(labels),
        "accuracy": round(right[""], 6),
        "balanced_accuracy": round(_balanced(labels, np.array(result["predicted"][""])), 6),
        "accuracy_shifted": round(right["shift"], 6),
        "accuracy_rotated": round(right["rotate"], 6),
    }


def summarise(
    described: Mapping[str, Any],
    cells: Sequence[Cell],
    done: Mapping[Cell, Mapping[str, Any]],
    measured: Mapping[str, Mapping[str, float]],
) -> dict[str, Any]:
    """The figures by number of images and model, and the advice.

    A repeat counts for a model and a number of images when all folds of it are there.

    Returns:
        A dict, ready for JSON: that of `keras_vit.evaluation.model_choice.judge_models`; `models`, by name,
        with title, parameters, mult-adds and milliseconds; and `table`, a row per number and model.
    """
    tested = described["tested"]
    labels = [np.array(fold["labels"]) for fold in tested]
    some = [evenly(len(one), MOST) for one in labels]
    groups = None
    if tested[0]["groups"] is not None:
        groups = np.concatenate([np.array(fold["groups"]) for fold in tested])
    numbers = list(dict.fromkeys(cell.per_class for cell in cells))
    models = list(dict.fromkeys(cell.model for cell in cells))
    table: dict[Any, list[Answers]] = {}
    rows = []
    for number in numbers:
        for model in models:
            repeats = _whole_repeats(model, number, cells, done)
            if not repeats:
                continue
            answers = {
                kind: np.stack(
                    [np.concatenate([done[cell]["predicted"][kind] for cell in repeat]) for repeat in repeats]
                ).astype(int)
                for kind in KINDS
            }
            one = Answers(model, answers[""], np.concatenate(labels))
            table.setdefault(number, []).append(one)
            changed = np.concatenate([fold[chosen] for fold, chosen in zip(labels, some, strict=True)])
            results = [done[cell] for repeat in repeats for cell in repeat]
            rows.append(
                {
                    "per_class": number,
                    "model": model,
                    "repeats": len(repeats),
                    "training_images": int(np.median([result["images"] for result in results])),
                    "steps": int(np.median([result["steps"] for result in results])),
                    "seconds": float(np.mean([result["seconds"] for result in results])),
                    "test_images": len(one.labels),
                    "accuracy": _plain(estimate_accuracy(one.right, groups)),
                    "balanced_accuracy": float(
                        np.mean([_balanced(one.labels, named) for named in one.predicted])
                    ),
                    "shifted": float((answers["shift"] == changed).mean()),
                    "rotated": float((answers["rotate"] == changed).mean()),
                    "has_learned": one.has_learned,
                    "diverged": sum(result["diverged"] for result in results),
                }
            )
    mult_adds = {model: int(measured[model]["mult_adds"]) for model in models if model in measured}
    images_of = {row["per_class"]: row["training_images"] for row in rows}
    judged = judge_models(table, mult_adds, VITS, described["titles"], images_of, groups)
    return {
        **judged,
        "models": {
            model: {
                "title": described["titles"][model],
                "is_vit": model in VITS,
                "parameters": int(measured[model]["parameters"]),
                "mult_adds": mult_adds[model],
                "milliseconds_one": 1000 * measured[model]["one"],
                "milliseconds_each_of_32": 1000 * measured[model]["each_of_32"],
            }
            for model in mult_adds
        },
        "table": rows,
    }


def _whole_repeats(
    model: str, number: Any, cells: Sequence[Cell], done: Mapping[Cell, Mapping[str, Any]]
) -> list[list[Cell]]:
    """The cells of a model and a number of images by repeat, of those repeats that have all folds."""
    by_repeat: dict[int, list[Cell]] = {}
    for cell in cells:
        if (cell.model, cell.per_class) == (model, number):
            by_repeat.setdefault(cell.repeat, []).append(cell)
    return [repeat for repeat in by_repeat.values() if all(cell in done for cell in repeat)]


def _balanced(labels: np.ndarray, predicted: np.ndarray) -> float:
    """The mean recall of the classes that have images."""
    present = np.unique(labels)
    return float(np.mean([(predicted[labels == label] == label).mean() for label in present]))


def _plain(found: Estimate) -> dict[str, Any]:
    return {"mean": found.mean, "interval": [found.low, found.high]}
