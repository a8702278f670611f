"""The best point of a search as the settings of a training run: best.json.

Nothing here imports Keras.
"""

import contextlib
import dataclasses
import json
from typing import Any

from keras_vit.evaluation.trials import SearchRecord
from keras_vit.files import JSON_BYTES, read_bytes, write_text
from keras_vit.model.config import CHANGEABLE, SIZES
from keras_vit.search.config import SearchConfig, from_dict
from keras_vit.search.point import recipe_at, vit_arguments
from keras_vit.search.results import no_best_trial
from keras_vit.training.config import NONE, TrainConfig, to_dict
from keras_vit.training.config_file import FOUND

BEST = "best.json"
# What `ViT` does if a size does not name these arguments.
UNNAMED = {"stem": "linear", "drop_path_rate": 0.0}


def train_config_at(values: dict[str, Any], base: TrainConfig) -> TrainConfig:
    """The run that trains what a search tried at a point.

    Args:
        values: a whole point, from `point` of the space.
        base: the settings that a point does not have: images, published weights, seed, and the rest of the
            recipe.
    """
    recipe = recipe_at(values, base.recipe)
    if base.init != NONE:
        changes = {**base.changes, "drop_path_rate": values["drop_path_rate"]}
        return dataclasses.replace(base, changes=changes, recipe=recipe)
    arguments = vit_arguments(values)
    own = {**UNNAMED, **SIZES[values["model"]].arguments}
    changed = {
        name: value for name, value in arguments.items() if name in CHANGEABLE and value != own.get(name)
    }
    height, width, channels = base.image_shape
    return dataclasses.replace(
        base,
        model=f"{values['model']}/{values['patch_size']}",
        # Named, since by default they would follow the model.
        image_size=height if height == width else (height, width),
        channels=channels,  # type: ignore[arg-type]  # 1 or 3
        changes=changed,
        recipe=recipe,
    )


def best_config(record: SearchRecord) -> TrainConfig:
    """The run that trains the best point of a search, for as many epochs as its longest trials.

    Its validation images are those of the search; to train on them too, set `merge_validation=True`.

    Raises:
        InputError: no trial has ended.
    """
    if record.best is None:
        raise no_best_trial(record)
    search = from_dict(record.config["asked"], SearchConfig(out=record.folder))
    return train_config_at(record.best.values, search.train_config)


def write_best(record: SearchRecord) -> None:
    """Writes best.json: what `keras-vit train --config` takes, and how good it was in the search as "found".

    Does nothing if no trial has ended, or if the file has this content already.
    """
    best = record.best
    if best is None:
        return
    found = {
        "trial": best.trial_id,
        "validation_accuracy": best.score,
        "validation_images": record.config["validation_images"],
        "epochs": best.epochs,
        "parameters": best.parameters,
        "mult_adds": best.mult_adds,
    }
    text = json.dumps({FOUND: found, **to_dict(best_config(record))}, indent=2) + "\n"
    path = record.folder / BEST
    with contextlib.suppress(OSError):  # it is not there yet, or is not a file of ours
        if read_bytes(path, JSON_BYTES) == text.encode():
            return
    write_text(path, text)
