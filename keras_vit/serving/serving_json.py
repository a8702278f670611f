"""What lies beside each exported model, for the programs that use it."""

import dataclasses
from pathlib import Path

from keras_vit.files import write_json, write_text
from keras_vit.runs.folder import Run
from keras_vit.serving.saved_model import Comparison

LABELS, SETTINGS = "labels.txt", "serving.json"


def write_settings(folder: Path, run: Run, comparison: Comparison, more: dict) -> None:
    """Writes `labels.txt`, a class a line, and `serving.json`.

    Args:
        folder: where they go.
        run: what was exported.
        comparison: of the exported model with Keras.
        more: what else `serving.json` tells of the format.
    """
    write_text(folder / LABELS, "".join(f"{name}\n" for name in run.class_names))
    told = {
        "class_names": list(run.class_names),
        "temperature": run.temperature,
        "reject_above": None if run.rejection is None else float(run.rejection.threshold),
        "image_shape": list(run.preprocessing.image_shape),
        "aspect": run.preprocessing.aspect,
        "compared_with_keras": dataclasses.asdict(comparison),
        "trained_by": run.config["command"],
        "versions": run.config["versions"],
    }
    write_json(folder / SETTINGS, {**told, **more})
