"""A search in a process of its own: python search.py IMAGES FOLDER [N]. It dies before its Nth rename."""

import json
import os
import signal
import sys
from pathlib import Path

from keras_vit import run_folder
from keras_vit.data.pipeline import load_data
from keras_vit.search import Range, SearchSpace, ViTHyperband, ViTHyperModel
from keras_vit.training.recipe import Recipe


def die_at(count):
    """Kills this process when the file of that number is written beside, and not yet renamed."""
    put_in_place, files = os.replace, []

    def replace(*names):
        files.append(names)
        if len(files) == count:
            os.kill(os.getpid(), signal.SIGKILL)
        put_in_place(*names)

    run_folder.os.replace = replace  # the one `os` of all modules


if __name__ == "__main__":
    images, folder = sys.argv[1:3]
    if len(sys.argv) > 3:
        die_at(int(sys.argv[3]))
    space = SearchSpace(
        depth=1,
        num_heads=2,
        dim=Range(8, 32, default=8),
        stem="linear",
        mlp_ratio=1,
        batch_size=8,
        drop_path_rate=0.1,
        epochs=3,
    )
    model = ViTHyperModel(load_data(images, (28, 28, 1), batch_size=8), space, Recipe(xla=False))
    tuner = ViTHyperband(model, directory=folder, seed=3)
    tuner.search(verbose=0)
    found = {
        one.trial_id: [one.status, one.score, one.hyperparameters.values]
        for one in tuner.oracle.trials.values()
    }
    (Path(folder) / "found.json").write_text(json.dumps(found, sort_keys=True))
