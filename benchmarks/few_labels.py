"""How well a run learns from few labelled images, with and without others that have no label.

    python benchmarks/few_labels.py --data neu-det --weights vit_tiny_patch16_224.safetensors

For each split, some labelled images per class are drawn from the training part. One run has these alone,
another has the rest of the training part too, as `--unlabeled`. Both are judged on the test part. The folders
hold links to the images. The splits are those of benchmarks/accuracy.md: `stratified_split` with the seeds 0,
1, ..., of the images in natural order.
"""

import contextlib
import csv
import io
import json
import os
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import tyro

import keras_vit
from keras_vit.data.image_set import ImageSet
from keras_vit.data.sources import load_image_set
from keras_vit.data.split import stratified_split
from keras_vit.training.recipe import RECIPES
from keras_vit.training.spread import TABLE


@dataclass(frozen=True)
class Benchmark:
    """Runs with few labelled images.

    Args:
        data: a folder of class folders.
        weights: as of `keras-vit train --init`.
        labelled: images per class that have a label.
        test_fraction: share of each class that is the test part.
        seeds: of the splits.
        draws: of the labelled images, per split.
    """

    data: Path
    weights: str
    labelled: int = 5
    test_fraction: float = 0.2
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    draws: int = 1


def main(asked: Benchmark) -> None:
    image_set = load_image_set(asked.data)
    rows = []
    for seed in asked.seeds:
        for draw in range(asked.draws):
            with tempfile.TemporaryDirectory() as folder:
                row = {"seed": seed, "draw": draw, **measure(asked, image_set, seed, draw, Path(folder))}
            print(json.dumps(row), flush=True)
            rows.append(row)
    for name in ("labelled_alone", "spreading", "with_unlabeled"):
        values = [100 * row[name] for row in rows]
        print(f"{name}: mean {np.mean(values):.2f} %, least {min(values):.2f} %, of {len(values)} runs")


def measure(asked: Benchmark, image_set: ImageSet, seed: int, draw: int, folder: Path) -> dict[str, float]:
    """Two runs of one split: their test accuracies and seconds, and how many spread labels are right."""
    counts = np.bincount(image_set.labels)
    each = np.floor(counts * asked.test_fraction + 0.5).astype(int)
    training, test = stratified_split(image_set.labels, each, seed)
    own_seed = int(np.random.SeedSequence([seed, draw]).generate_state(1)[0])
    rest, chosen = stratified_split(image_set.labels[training], asked.labelled, own_seed)
    truth = {}
    for part, indices in (("train", training[chosen]), ("test", test)):
        for index in indices:
            label = image_set.class_names[image_set.labels[index]]
            link(image_set.images[index], folder / "labelled" / part / label)
    for index in training[rest]:
        # The name of a file often gives its class away: numbers do not.
        name = f"{index:06d}{Path(image_set.images[index]).suffix}"
        link(image_set.images[index], folder / "unlabeled", name)
        truth[name] = image_set.class_names[image_set.labels[index]]
    settings = {
        "data": str(folder / "labelled"),
        "init": asked.weights,
        "validation_fraction": 0.0,
        "split_duplicates": "keep",
        "recipe": RECIPES["probe"],
        "seed": seed,
    }
    alone, seconds_alone = train(out=folder / "alone", **settings)
    both, seconds_both = train(out=folder / "both", unlabeled=str(folder / "unlabeled"), **settings)
    with open(both.path / TABLE, newline="", encoding="utf-8") as file:
        table = list(csv.DictReader(file))
    right = [row["label"] == truth[row["path"]] for row in table]
    trusted = [row["trusted"] == "yes" for row in table]
    return {
        "labelled_alone": alone.metrics["best"]["accuracy"],
        "spreading": float(np.mean(right)),
        "trusted": float(np.mean(trusted)),
        "with_unlabeled": both.metrics["best"]["accuracy"],
        "seconds_alone": seconds_alone,
        "seconds_both": seconds_both,
    }


def train(**settings: Any) -> tuple[keras_vit.Run, float]:
    """A run without its output, and the seconds it took."""
    begin = time.perf_counter()
    with contextlib.redirect_stdout(io.StringIO()):
        run = keras_vit.train(**settings)
    return run, round(time.perf_counter() - begin, 1)


def link(image: Path, folder: Path, name: str | None = None) -> None:
    """Puts a link to an image into a folder, which is made."""
    folder.mkdir(parents=True, exist_ok=True)
    os.symlink(Path(image).resolve(), folder / (name or Path(image).name))


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
