"""One image from its file to its class: a run in this process, its served bundle, and onnxruntime.

    python -m benchmarks.latency
    python -m benchmarks.latency --run runs/first --seconds 20

Without `--run`, a small run is trained first. All three begin with the path of a file. `keras_vit.predict`
also checks the file as the audit does and says what is wrong with it; the bundle (the signature
`serving_default`) decodes, checks and resizes in its graph; for the ONNX file, Pillow decodes and resizes.
They take turns, so that a busy machine slows all of them: the figure to compare is the median of the ratios.
"""

import contextlib
import io
import os
import statistics
import tempfile
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro

import keras_vit
from benchmarks.serving import onnx_of, saved_model_of, taking_turns
from keras_vit.runs.judged_images import images_to_judge
from keras_vit.serving.saved_model import encoded_image

NAMES = ("keras_vit.predict", "served bundle", "onnxruntime and Pillow")


class LatencyRow(NamedTuple):
    """How long one image takes.

    Args:
        name: of the way.
        cores: that the process may use.
        milliseconds: the median.
        ratio: to onnxruntime with Pillow on the exported model, the median over the turns.
        spread: the quartiles of the ratio.
    """

    name: str
    cores: int
    milliseconds: float
    ratio: float
    spread: tuple[float, float]


@dataclass(frozen=True)
class Options:
    """One image from its file to its class, in three ways; see the top of this file."""

    run: Path | None = None
    """a run folder, of square images without --aspect; by default a small run on the drawn defects"""
    seconds: float = 20.0
    """of measuring"""


def latency_rows(quick: bool = False) -> list[LatencyRow]:
    """The rows of a small run on the drawn defects: on one core, and on all.

    Args:
        quick: measures for 5 seconds instead of 20.
    """
    seconds = 5.0 if quick else 20.0
    everywhere = os.sched_getaffinity(0)
    with tempfile.TemporaryDirectory() as folder:
        path = small_run(Path(folder))
        return [*rows_on({min(everywhere)}, path, seconds), *rows_on(everywhere, path, seconds)]


def rows_on(cores: set[int], path: Path, seconds: float) -> list[LatencyRow]:
    """The rows of a run in a new process, which knows its cores before it starts threads."""
    with ProcessPoolExecutor(1, get_context("spawn"), os.sched_setaffinity, (0, cores)) as pool:
        return pool.submit(rows_of, path, seconds).result()


def small_run(folder: Path) -> Path:
    """A run of two epochs on the drawn defects."""
    with contextlib.redirect_stdout(io.StringIO()):
        keras_vit.train(recipe=keras_vit.Recipe(epochs=2), out=folder / "run")
    return folder / "run"


def rows_of(path: Path, seconds: float) -> list[LatencyRow]:
    """The rows of a run."""
    run = keras_vit.load_run(path)
    with tempfile.TemporaryDirectory() as folder:
        with contextlib.redirect_stdout(io.StringIO()):
            images = images_to_judge(run)
            bundle = saved_model_of(keras_vit.export(run, folder).path)
            exported = keras_vit.export(run, folder, format="onnx").path
        onnx = onnx_of(exported, run.preprocessing.image_shape)
        image = Path(folder) / "image"
        image.write_bytes(encoded_image(images.original(0)))

        def predicted() -> np.ndarray:
            return np.array([[*keras_vit.predict(run, [image])[0].probabilities.values()]])

        def from_file(answer) -> np.ndarray:
            return answer([image.read_bytes()])

        ways = [predicted, partial(from_file, bundle), partial(from_file, onnx)]
        first = ways[0]()
        for way in ways[1:]:
            # Pillow rounds gray levels where the others keep fractions.
            np.testing.assert_allclose(way(), first, atol=0.05)
        times = taking_turns(ways, seconds)
    return [row(name, found, times[-1]) for name, found in zip(NAMES, times, strict=True)]


def row(name: str, seconds: list[float], reference: list[float]) -> LatencyRow:
    """The row of one way; both lists have one time per turn."""
    ratios = [ours / theirs for ours, theirs in zip(seconds, reference, strict=True)]
    low, middle, high = np.quantile(ratios, (0.25, 0.5, 0.75)).tolist()
    cores = len(os.sched_getaffinity(0))
    return LatencyRow(name, cores, 1000 * statistics.median(seconds), middle, (low, high))


def main(options: Options) -> None:
    if options.run is not None:
        rows = rows_of(options.run, options.seconds)
    else:
        with tempfile.TemporaryDirectory() as folder:
            rows = rows_of(small_run(Path(folder)), options.seconds)
    print("| one image | cores | ms | ratio to onnxruntime | quartiles |\n|---|---|---|---|---|")
    for found in rows:
        spread = " to ".join(f"{value:.2f}" for value in found.spread)
        print(f"| {found.name} | {found.cores} | {found.milliseconds:.2f} | {found.ratio:.2f} | {spread} |")


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main(tyro.cli(Options))
