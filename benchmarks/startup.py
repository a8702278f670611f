"""How long a command takes from the start of its process: to the first training step, and for one image.

    python -m benchmarks.startup

Each row is the median over rounds in which all variants take turns, one process each, so that a busy machine
slows all of them. CPU seconds (user and system) say more there than wall seconds. Cold is an empty cache of
compiled programs, warm the one that the cold run of the same round has left. torch keeps no programs.
"""

import argparse
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

from keras_vit.data.sources.steel import draw_steel_defects

BACKENDS = ("tensorflow", "jax", "torch")
PER_CLASS = 12  # images, so that the time is that of the start
COMMAND = [sys.executable, "-m", "keras_vit"]
ONE_STEP = ["--model", "defect-conv/4", "--image-size", "28", "--channels", "1", "--epochs", "1"]


def startup_rows(quick: bool = False) -> list[dict[str, Any]]:
    """The table, one row per backend, command and state of the cache.

    Args:
        quick: whether there is one round in place of three.

    Returns:
        Rows of `backend`, `command`, `cache`, `wall_s` and `cpu_s` (medians), and `rounds`. The training is
        of one step of 32 images or more, and ends with the report of the run.
    """
    measured: dict[tuple[str, str, str], list[tuple[float, float]]] = {}
    rounds = 1 if quick else 3
    with tempfile.TemporaryDirectory() as name:
        images = _write_images(Path(name) / "images")
        one = next(images.glob("*/*.png"))
        for number in range(rounds):
            for backend in filter(find_spec, BACKENDS):
                work = Path(name) / f"{backend}{number}"
                environment = {
                    **os.environ,
                    "KERAS_BACKEND": backend,
                    "KERAS_VIT_CACHE": str(work / "cache"),
                }
                for cache in ("cold", "warm"):
                    out = ["--data", str(images), "--out", str(work / cache)]
                    key = backend, "train, one epoch", cache
                    measured.setdefault(key, []).append(_run(["train", *out, *ONE_STEP], environment))
                for cache in ("cold", "warm"):  # a program for prediction is not one of training
                    words = ["predict", str(work / "cold"), str(one)]
                    measured.setdefault((backend, "predict, one image", cache), []).append(
                        _run(words, environment)
                    )
    return [
        {
            "backend": backend,
            "command": command,
            "cache": cache,
            "wall_s": round(statistics.median(wall for wall, _ in found), 2),
            "cpu_s": round(statistics.median(cpu for _, cpu in found), 2),
            "rounds": rounds,
        }
        for (backend, command, cache), found in measured.items()
    ]


def _write_images(folder: Path) -> Path:
    drawn = draw_steel_defects(images_per_class=PER_CLASS, size=64)
    for name, pixels in zip(drawn.names, drawn.images, strict=True):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.asarray(pixels)[:, :, 0]).save(path)
    return folder


def _run(words: list[str], environment: Mapping[str, str]) -> tuple[float, float]:
    """Wall and CPU seconds of a command."""
    before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
    subprocess.run([*COMMAND, *words], env=dict(environment), check=True, stdout=subprocess.DEVNULL)
    wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
    return wall, after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--quick", action="store_true", help="one round")
    for row in startup_rows(parser.parse_args().quick):
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)


if __name__ == "__main__":
    main()
