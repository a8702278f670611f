"""`keras-vit predict`"""

import dataclasses
import json
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from tyro.conf import Positional

from keras_vit.data.targets import names_as_json
from keras_vit.errors import InputError
from keras_vit.files import write_csv
from keras_vit.process.backend import import_quietly
from keras_vit.process.compiled import keep_compilations
from keras_vit.process.exit_codes import FAILED, FINE
from keras_vit.runs.out_of_fold import PREFIX
from keras_vit.text import say, shown

if TYPE_CHECKING:
    from keras_vit.runs.predictions import Prediction


@dataclass
class Predict:
    """Classify image files with the model of a run; those unlike its training images are marked as rejected.

    Examples:
      keras-vit predict runs/first strip_17.jpg strip_18.png
      keras-vit predict runs/first strip_17.jpg --json
      keras-vit predict runs/first strips/*.jpg --csv answers.csv --accept-risk 0.01
      keras-vit predict runs/first strip_17.jpg --heatmap maps
      keras-vit predict runs/first new_strips.csv --csv answers.csv
    """

    run: Positional[Path]
    """a run folder"""
    images: Positional[tuple[Path, ...]]
    """image files, or tables of their paths (.csv, .tsv, .jsonl, .parquet, or the export of a tool)"""
    flips_at_test: bool = False
    """average over each image and its three mirror images, which takes four times as long"""
    accept_risk: float | None = None
    """at most this share of the images that are not referred to a person may be labelled wrongly; by default
    as the run was trained"""
    min_recall: tuple[str, ...] | None = None
    """name a class so often that this share of its images is found, CLASS=RECALL, such as scratches=0.98; by
    default as the run was trained"""
    costs: str | None = None
    """name the class with the least expected cost, by the costs in this file; by default as the run was
    trained"""
    crop_boxes: bool = False
    """make each box of a table an image, as train does"""
    allow_outside: bool = False
    """let relative paths leave the folder of their table"""
    json: bool = False
    """print a JSON list with all probabilities"""
    csv: Path | None = None
    """write a table with a row per image to this new file, too"""
    heatmap: Path | None = None
    """also draw what speaks for the label over each image, as PNG into this folder; none is overwritten"""

    def __call__(self) -> int:
        if not self.images:
            raise InputError("Give at least one image file after the run folder.")
        if self.csv is not None:
            _check_new(self.csv)
        keep_compilations()
        import_quietly(find_devices=True)
        from keras_vit.data.sources import is_table
        from keras_vit.runs.ensemble import Ensemble, open_runs
        from keras_vit.runs.folder import Run, load_run
        from keras_vit.runs.predict import predict

        run, heatmaps = open_runs(self.run), None
        if isinstance(run, Ensemble):
            say(run.line(), stream=sys.stderr)
        if self.heatmap is not None:
            load_run(self.run)  # one run draws them
            from keras_vit.explain.names import picture_paths

            if any(is_table(image) for image in self.images):
                raise InputError("--heatmap takes image files: give these instead of a table.")
            heatmaps = picture_paths(self.images, self.heatmap, "--heatmap")
        found = predict(
            *(run, self.images, self.flips_at_test, self.accept_risk, self.crop_boxes, self.allow_outside),
            min_recall=self.min_recall,
            costs=self.costs,
        )
        if heatmaps is not None and isinstance(run, Run):
            from keras_vit.explain.figure import heatmap_png
            from keras_vit.explain.write import write_pictures

            for _ in write_pictures(run.explanations(self.images), heatmaps, heatmap_png, "--heatmap"):
                pass
        if self.csv is not None:
            write_csv(self.csv, [_row(item, run.class_names, run.several) for item in found])
        if self.json:
            say(json.dumps([dataclasses.asdict(item) for item in found]))
        else:
            width = max(len(shown(item.image)) for item in found)
            for item in found:
                say(f"{shown(item.image):{width}}  {item.error or _answer(item)}")
        return FAILED if any(item.error for item in found) else FINE


def _check_new(path: Path) -> None:
    """Raises InputError before the work if a file cannot be written, or would replace another."""
    if path.exists() or path.is_symlink():
        raise InputError(f"{path} exists already: give --csv a new name.")
    if not path.parent.is_dir():
        raise InputError(f"There is no folder {path.parent}: make it, or give --csv a file in another one.")


def _answer(item: "Prediction") -> str:
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


def _row(item: "Prediction", class_names: Sequence[str], several: bool) -> dict[str, Any]:
    """A row of the table; cells of what is not known are empty. Sets and several labels are JSON lists."""
    if several:
        labels = None if item.labels is None else names_as_json(item.labels)
        probabilities = {PREFIX + name: item.probabilities.get(name) for name in class_names}
        return {
            "image": item.image,
            "labels": labels,
            **probabilities,
            "reject": int(item.reject),
            "error": item.error,
        }
    names = item.prediction_set
    return {
        "image": item.image,
        "label": item.label,
        "confidence": item.confidence,
        "reject": int(item.reject),
        "prediction_set": None if names is None else json.dumps(names, ensure_ascii=False),
        "refer": None if item.refer is None else int(item.refer),
        "likeliest": item.likeliest,
        "error": item.error,
    }
