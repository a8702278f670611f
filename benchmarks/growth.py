"""How time and memory grow: of a training step with the model, and of the audit with the number of files.

    python -m benchmarks.growth
    python -m benchmarks.growth --quick

Each variant runs in a process of its own, whose peak memory is that of the variant; what the process holds
before it is subtracted. A step is the median of several, after the one that compiles. The exponent e of a
series is the slope of log(value) over log(size) by least squares: value ~ size ** e.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import tyro

BASE: dict[str, Any] = {"side": 28, "depth": 6, "dim": 64, "batch": 64, "classes": 6}
"""The step that each series changes in one place: gray images, patches of 4x4, so (side / 4) ** 2 tokens."""

SERIES: dict[str, tuple[str, tuple[int, ...]]] = {
    "tokens": ("side", (28, 56, 112, 224)),
    "depth": ("depth", (3, 6, 12, 24)),
    "dim": ("dim", (64, 128, 256, 512)),
    "batch": ("batch", (16, 64, 256, 1024)),
    "classes": ("classes", (6, 100, 1_000, 10_000)),
}
LARGE_BATCH = {"tokens": 4}  # where the largest variant would not fit in memory otherwise
FILES = (1_000, 10_000, 50_000, 200_000)
STEPS = 5
VARIANT = "--variant"


class GrowthRow(NamedTuple):
    """One series.

    Args:
        name: what grows.
        sizes: of the variants.
        seconds: of a training step (wall time), or of the audit (CPU time).
        megabytes: of memory, above what the process holds before.
        time_exponent: of the seconds.
        memory_exponent: of the megabytes.
    """

    name: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    megabytes: tuple[float, ...]
    time_exponent: float
    memory_exponent: float


@dataclass(frozen=True)
class Options:
    """How time and memory grow; see the top of this file."""

    quick: bool = False
    """the two smallest variants of each series"""
    only: str | None = None
    """one series: tokens, depth, dim, batch, classes or files"""


def growth_rows(quick: bool = False, only: str | None = None) -> list[GrowthRow]:
    """The rows of all series, or of one.

    Args:
        quick: the two smallest variants of each.
        only: the name of a series.
    """
    rows = []
    for name, (field, sizes) in SERIES.items():
        if only in (None, name):
            sizes = sizes[:2] if quick else sizes
            base = {**BASE, "batch": LARGE_BATCH.get(name, BASE["batch"])}
            # Of the tokens their number is the size, not the side of the image.
            shown = tuple((size // 4) ** 2 for size in sizes) if name == "tokens" else sizes
            rows.append(row(name, shown, [in_process({**base, field: size}) for size in sizes]))
    if only in (None, "files"):
        sizes = FILES[:2] if quick else FILES
        with tempfile.TemporaryDirectory() as folder:
            found = []
            for size in sizes:
                draw(Path(folder), size)
                found.append(in_process({"files": folder}))
        rows.append(row("files", sizes, found))
    return rows


def row(name: str, sizes: tuple[int, ...], found: list[dict[str, float]]) -> GrowthRow:
    seconds = tuple(one["seconds"] for one in found)
    megabytes = tuple(one["megabytes"] for one in found)
    return GrowthRow(name, sizes, seconds, megabytes, exponent(sizes, seconds), exponent(sizes, megabytes))


def exponent(sizes: tuple[int, ...], values: tuple[float, ...]) -> float:
    """The slope of the line through log(value) over log(size)."""
    return float(np.polyfit(np.log(sizes), np.log(np.maximum(values, 1e-3)), 1)[0])


def in_process(variant: dict[str, Any]) -> dict[str, float]:
    """`measure` in a new process."""
    command = [sys.executable, "-m", "benchmarks.growth", VARIANT, json.dumps(variant)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(variant: dict[str, Any]) -> dict[str, float]:
    """Seconds and megabytes of one variant, in this process."""
    return audit(variant["files"]) if "files" in variant else train_steps(**variant)


def train_steps(side: int, depth: int, dim: int, batch: int, classes: int) -> dict[str, float]:
    import keras

    import keras_vit

    arguments = {"patch_size": 4, "dim": dim, "depth": depth, "num_heads": dim // 16, "mlp_dim": 2 * dim}
    model = keras_vit.ViT(image_shape=(side, side, 1), num_classes=classes, **arguments)
    on_tensorflow = keras.backend.backend() == "tensorflow"
    model.compile("adamw", "sparse_categorical_crossentropy", jit_compile=True if on_tensorflow else "auto")
    rng = np.random.default_rng(0)
    images = rng.normal(size=(batch, side, side, 1)).astype("float32")
    labels = rng.integers(0, classes, batch)
    before = peak()
    model.train_on_batch(images, labels)
    times = []
    for _ in range(STEPS):
        begin = time.perf_counter()
        model.train_on_batch(images, labels)
        times.append(time.perf_counter() - begin)
    return {"seconds": statistics.median(times), "megabytes": peak() - before}


def audit(folder: str) -> dict[str, float]:
    from keras_vit.data.audit import audit_images
    from keras_vit.data.reading import read_images
    from keras_vit.data.sources import load_image_set
    from keras_vit.data.split import split_image_set

    read_images([next(Path(folder).rglob("*.png"))])  # TensorFlow and its graphs are no part of the growth
    before, begin = peak(), time.process_time()
    images = load_image_set(folder)
    audit_images(images, split_image_set(images, seed=0))
    return {"seconds": time.process_time() - begin, "megabytes": peak() - before}


def peak() -> float:
    """The most memory that this process has held, in megabytes."""
    found = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return found / (2**20 if sys.platform == "darwin" else 2**10)


def draw(folder: Path, count: int) -> None:
    """Adds gray PNGs of 28x28 pixels in ten classes, until there are so many."""
    from PIL import Image

    for number in range(10):
        (folder / f"class{number}").mkdir(exist_ok=True)
    for i in range(count):
        path = folder / f"class{i % 10}" / f"{i}.png"
        if not path.exists():
            pixels = np.random.default_rng(i).integers(0, 256, (28, 28), dtype=np.uint8)
            Image.fromarray(pixels).save(path)


def main(options: Options) -> None:
    print("| what grows | sizes | seconds | MB | exponent of time | of memory |\n|---|---|---|---|---|---|")
    for found in growth_rows(options.quick, options.only):
        columns = [
            ", ".join(f"{size:,}" for size in found.sizes),
            ", ".join(f"{value:.3g}" for value in found.seconds),
            ", ".join(f"{value:.0f}" for value in found.megabytes),
        ]
        exponents = f"{found.time_exponent:.2f} | {found.memory_exponent:.2f}"
        print(f"| {found.name} | {' | '.join(columns)} | {exponents} |")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if sys.argv[1:2] == [VARIANT]:  # one process per variant: see `in_process`
        print(json.dumps(measure(json.loads(sys.argv[2]))))
    else:
        main(tyro.cli(Options))
