"""Images per second from JPEG files to batches: our tf.data pipeline, and Pillow with torch's DataLoader.

    python -m benchmarks.input_pipeline
    python -m benchmarks.input_pipeline --files 360 --rounds 3

1,800 drawn gray JPEGs of 200x200 pixels, as many as NEU has, are read, decoded, resized with antialiasing and
scaled, once per round, in batches of 64. The DataLoader has two workers, which stay alive between the rounds.
Both take turns. Where the prepared images fit in memory (`pipeline.CACHE_BYTES`), training pays this once,
not once per epoch.
"""

import os
import statistics
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np
import tyro

SIZES = (28, 64, 224)
BATCH_SIZE = 64
WORKERS = 2
SIDE = 200


class InputRow(NamedTuple):
    """One size of the model's input.

    Args:
        name: of the size.
        ours: images per second, the median.
        theirs: the same of Pillow with torch's DataLoader.
        ratio: ours / theirs, the median over the rounds; above 1, ours is faster.
        spread: the quartiles of the ratio.
    """

    name: str
    ours: float
    theirs: float
    ratio: float
    spread: tuple[float, float]


@dataclass(frozen=True)
class Options:
    """Images per second from files to batches; see the top of this file."""

    files: int = 1_800
    """JPEGs that are drawn"""
    rounds: int = 7
    """passes over all files"""


def input_rows(quick: bool = False) -> list[InputRow]:
    """The rows of all sizes.

    Args:
        quick: 360 files and 3 rounds instead of 1,800 and 7.
    """
    return rows_of(360, 3) if quick else rows_of(1_800, 7)


def rows_of(files: int, rounds: int) -> list[InputRow]:
    with tempfile.TemporaryDirectory() as folder:
        paths = draw(Path(folder), files)
        return [row(paths, size, rounds) for size in SIZES]


def draw(folder: Path, files: int) -> list[Path]:
    """Gray JPEGs with marks and grain, of about the size in bytes that those of NEU have."""
    from PIL import Image

    rng = np.random.default_rng(0)
    paths = []
    for i in range(files):
        marks = Image.fromarray(rng.integers(60, 200, (9, 9)).astype(np.uint8))
        smooth = np.asarray(marks.resize((SIDE, SIDE), Image.Resampling.BICUBIC), np.int16)
        pixels = np.clip(smooth + rng.integers(-12, 13, (SIDE, SIDE)), 0, 255).astype(np.uint8)
        paths.append(folder / f"{i}.jpg")
        Image.fromarray(pixels).save(paths[-1], quality=85)
    return paths


class Files:
    """What torch's DataLoader takes: scaled images (1, size, size) of files, by Pillow."""

    def __init__(self, paths: list[Path], size: int):
        self.paths, self.size = paths, size

    def __len__(self):
        return len(self.paths)

    def __getitem__(self, index: int) -> np.ndarray:
        from PIL import Image

        with Image.open(self.paths[index]) as image:
            small = image.convert("L").resize((self.size, self.size), Image.Resampling.BILINEAR)
        return np.asarray(small, np.float32)[None] / 127.5 - 1.0


def row(paths: list[Path], size: int, rounds: int) -> InputRow:
    """Both in turns; the first round of each warms up."""
    from torch.utils.data import DataLoader

    from keras_vit.data.pipeline import pixel_dataset, without_autotuning
    from keras_vit.data.preprocess import Preprocessing, scale_pixels

    preprocessing = Preprocessing((size, size, 1))
    dataset = pixel_dataset(paths, preprocessing).map(lambda image: scale_pixels(image, preprocessing))
    ours = without_autotuning(dataset.batch(BATCH_SIZE).prefetch(2))
    # Not forked: TensorFlow has threads, which a forked process lacks.
    theirs = DataLoader(
        Files(paths, size),
        BATCH_SIZE,
        num_workers=WORKERS,
        persistent_workers=True,
        multiprocessing_context="spawn",
    )
    times = np.array([(seconds_of(ours), seconds_of(theirs)) for _ in range(rounds + 1)][1:])
    low, middle, high = np.quantile(times[:, 1] / times[:, 0], (0.25, 0.5, 0.75)).tolist()
    rates = [len(paths) / statistics.median(column) for column in times.T.tolist()]
    return InputRow(f"{size}x{size}", *rates, middle, (low, high))


def seconds_of(batches) -> float:
    begin = time.perf_counter()
    for _ in batches:
        pass
    return time.perf_counter() - begin


def main(options: Options) -> None:
    print("| input | ours, images/s | Pillow and DataLoader | ratio | quartiles |\n|---|---|---|---|---|")
    for found in rows_of(options.files, options.rounds):
        low, high = found.spread
        print(
            f"| {found.name} | {found.ours:,.0f} | {found.theirs:,.0f} | {found.ratio:.2f} "
            f"| {low:.2f} to {high:.2f} |"
        )


if __name__ == "__main__":
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    main(tyro.cli(Options))
