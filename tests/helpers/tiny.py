"""A ViT, images and options so small that a whole run takes seconds."""

import os
import shutil
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from keras_vit.model.config import SIZES, Size

MODEL = "defect-tiny/4"
MODEL_WITHOUT_DROPOUT = "defect-nodropout/4"  # dropout draws different numbers on each replica
ARGUMENTS = dict(dim=8, depth=1, num_heads=2, mlp_dim=16, dropout_rate=0.1)
CLASSES = ("dots", "lines", "plain")
BACKEND = os.environ.get("KERAS_BACKEND", "tensorflow")

# Compiling with XLA takes longer than such a run. JAX always uses XLA.
NO_XLA = () if BACKEND == "jax" else ("--xla", "False")


@contextmanager
def size():
    """A context in which `defect-tiny` and `defect-nodropout` are in the table of sizes."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(SIZES, "defect-tiny", Size(ARGUMENTS, image_size=28, channels=1))
        no_dropout = {**ARGUMENTS, "dropout_rate": 0.0, "stem": "conv"}
        patch.setitem(SIZES, "defect-nodropout", Size(no_dropout, image_size=28, channels=1))
        yield


def pixels(kind, rng, size=(32, 32)):
    found = rng.normal(128, 15, size)
    if kind == "dots":
        found[rng.integers(0, size[0], 30), rng.integers(0, size[1], 30)] = 255
    elif kind == "lines":
        found[::4] = 30
    return np.clip(found, 0, 255).astype("uint8")


def draw(folder, classes=CLASSES, each=12, size=(32, 32), mode="L"):
    """A folder of class folders with `each` images per class: dots/0.png ..."""
    rng = np.random.default_rng(0)
    for name in classes:
        (Path(folder) / name).mkdir(parents=True)
        for i in range(each):
            Image.fromarray(pixels(name, rng, size)).convert(mode).save(Path(folder) / name / f"{i}.png")
    return Path(folder)


def command(images, out, *more, epochs=3):
    """`train` and its options for a run of seconds."""
    given = [
        "--data",
        images,
        "--out",
        out,
        "--model",
        MODEL,
        "--epochs",
        epochs,
        "--batch-size",
        8,
        "--recipe",
        "lab",
    ]
    return ["train", *map(str, [*given, *NO_XLA, *more])]


def tree(folder):
    """Relative path -> bytes of every file below a folder; None for folders."""
    return {
        str(path.relative_to(folder)): path.read_bytes() if path.is_file() else None
        for path in sorted(Path(folder).rglob("*"))
    }


def copy_of(run, folder):
    """A copy of a run, in a folder."""
    return shutil.copytree(run, folder / "copy")


def seal_again(folder):
    """Binds the files of a run as they are now, for a test of what comes after that check."""
    from keras_vit import files
    from keras_vit.runs.folder import BOUND, CONFIG
    from keras_vit.sealed import seal

    folder = Path(folder)
    files.write_json(folder / CONFIG, seal(files.read_json(folder / CONFIG), folder, BOUND))


def code_of(arguments):
    """The exit code, whether the command returns it or argparse exits with it."""
    from keras_vit.cli.main import main

    try:
        return main([str(argument) for argument in arguments])
    except SystemExit as stop:
        return stop.code
