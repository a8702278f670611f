"""Ten thousand files: how fast `predict` is beside decoding alone, and how much memory it takes.

    python -m benchmarks.predict_many --run runs/first --images strips
    python -m benchmarks.predict_many --run runs/first --images strips --numbers 1000 10000

Each measurement is a process of its own. `decode` reads and resizes every file, as `predict` does, and asks
no model; `predict` also answers, writes a table and copies each file into the folder of its class. The share
is the rate of `predict` divided by that of `decode`: on a CPU the model needs the cores that decode, so it is
below 1 by what the model costs. The same of the CPU seconds does not depend on what else the machine does.
"""

import resource
import tempfile
import time
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import tyro

import keras_vit

PART = 256


@dataclass(frozen=True)
class Options:
    """Many files through a run; see the top of this file."""

    run: Path
    """a run folder"""
    images: Path
    """a folder of image files"""
    numbers: tuple[int, ...] = (1_000, 10_000)
    """of files; the first ones of the folder"""


class Clock:
    """Seconds since it was made, by the clock and of all cores."""

    def __init__(self):
        self.begin = time.perf_counter(), time.process_time()

    def passed(self) -> tuple[float, float]:
        return time.perf_counter() - self.begin[0], time.process_time() - self.begin[1]


def decode(run: Path, files: list[Path]) -> tuple[float, float]:
    """Seconds of clock and CPU to read and prepare the files, after a part that is not counted."""
    from keras_vit.data.reading import read_images

    preprocessing = keras_vit.load_run(run).preprocessing
    read_images(files[:PART], preprocessing, fingerprints=False)
    clock = Clock()
    for start in range(0, len(files), PART):
        read_images(files[start : start + PART], preprocessing, fingerprints=False)
    return clock.passed()


def predict(run: Path, files: list[Path]) -> tuple[float, float]:
    """Seconds of clock and CPU to answer, write the table and copy, after a part that is not counted."""
    from keras_vit.runs.bulk import Bulk, Job, Sorting

    opened = keras_vit.load_run(run)
    for _ in keras_vit.predict_stream(opened, files[: 2 * PART]):
        pass
    with tempfile.TemporaryDirectory() as folder:
        job = Job(opened, files, csv=Path(folder) / "out.csv", sorting=Sorting(Path(folder) / "sorted"))
        clock = Clock()
        answered = sum(1 for _ in Bulk(job).answers())
        passed = clock.passed()
    assert answered == len(files)
    return passed


def alone(what, run: Path, files: list[Path]) -> tuple[tuple[float, float], float]:
    """Seconds, and the most memory of a process that does this alone, in MB."""
    with ProcessPoolExecutor(1, mp_context=get_context("spawn")) as pool:
        return pool.submit(_measured, what, run, files).result()


def _measured(what, run, files):
    return what(run, files), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


def main(options: Options) -> None:
    """Prints a row per number of files."""
    from keras_vit.data.sources.folder import list_images

    found = list(list_images(options.images)[0].values())
    print("  files  decode/s  predict/s  share  share of CPU  memory of predict")
    for number in options.numbers:
        files = found[:number]
        (decoding, cpu), _ = alone(decode, options.run, files)
        (predicting, whole), memory = alone(predict, options.run, files)
        print(
            f"{len(files):7,} {len(files) / decoding:9,.0f} {len(files) / predicting:10,.0f} "
            f"{decoding / predicting:6.2f} {cpu / whole:13.2f} {memory:15,.0f} MB"
        )


if __name__ == "__main__":
    main(tyro.cli(Options))
