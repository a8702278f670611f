"""The folder of a comparison of runs: a page, the figures, and the images that changed."""

import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from keras_vit import files
from keras_vit.report.compared import render_compared
from keras_vit.report.kit import shape, words
from keras_vit.runs.compare import Comparison
from keras_vit.runs.ensemble import Ensemble

REPORT, FIGURES, CHANGED = "report.html", "comparison.json", "changed.csv"

LONGEST = 120
"""Characters of the name of a folder, without its number."""

SHOWN = 24
"""So many images of each kind of change are on the page."""


def free_folder(found: Comparison) -> Path:
    """A folder below `comparisons` that is new, with the names of the runs."""
    name = re.sub(r"[^\w.]+", "-", "-and-".join(found.names)).strip("-.")[:LONGEST] or "runs"
    folder, number = Path("comparisons") / name, 1
    while os.path.lexists(folder):
        number += 1
        folder = Path("comparisons") / f"{name}-{number}"
    return folder


def write_comparison(found: Comparison, folder: Path, images: str) -> None:
    """Writes the folder of a comparison, whole or not at all.

    Args:
        found: what was found.
        folder: a new one, or an empty one.
        images: where the images come from, in words.

    Raises:
        InputError: the folder cannot be made.
    """
    made = files.make_folder(folder.absolute().parent)
    try:
        with files.work_folder(folder.absolute().parent, folder.absolute().name) as work:
            files.write_text(work / REPORT, _page(found, images))
            files.write_json(work / FIGURES, found.to_dict())
            columns = ["path", "label"]
            for name in found.names:
                columns += [f"label by {name}", f"confidence of {name}"]
            files.write_csv(work / CHANGED, found.rows(), columns)
            if folder.is_dir():
                folder.rmdir()  # an empty one
            os.rename(work, folder)
    except BaseException:
        files.remove_made(made)
        raise


def _page(found: Comparison, images: str) -> str:
    return render_compared(
        names=found.names,
        figures=found.figures,
        notes=found.notes,
        images=images,
        settings=[_settings(run) for run in found.runs],
        groups=[
            (title, [_picture(found, i) for i in places[:SHOWN]], len(places))
            for title, places in _groups(found).items()
            if places
        ],
    )


def _groups(found: Comparison) -> dict[str, list[int]]:
    """How an image changed -> the positions of the images."""
    first = found.answers[0].named
    labels = [one.label for one in found.images]
    if len(found.names) > 2:
        groups: dict[str, list[int]] = {"Not called the same by all runs": found.changed()}
        return groups
    other = found.answers[1].named
    titles = [
        f"Only {found.names[0]} is right",
        f"Only {found.names[1]} is right",
        "Both are wrong, in two ways",
    ]
    groups = {title: [] for title in titles}
    for i in found.changed():
        kind = 0 if first[i] == labels[i] else 1 if other[i] == labels[i] else 2
        groups[titles[kind]].append(i)
    return groups


def _picture(found: Comparison, i: int) -> Mapping[str, Any]:
    return {
        "name": found.images[i].name,
        "label": found.images[i].label,
        "named": [one.named[i] for one in found.answers],
        "confidence": [float(one.confidence[i]) for one in found.answers],
        "pixels": found.pixels(i),
    }


def _settings(run: Any) -> list[tuple[str, str]]:
    config = run.runs[0].config if isinstance(run, Ensemble) else run.config
    found = [
        ("folder", str(run.path)),
        ("model", str(config["train"].get("model", "unknown"))),
        ("image shape", shape(config["image_shape"])),
        ("data", str(config["data"]["source"])),
        ("training images", words(config["data"]["counts"]["train"])),
    ]
    return [*found, ("runs", str(len(run.runs)))] if isinstance(run, Ensemble) else found
