"""How many wrong labels `keras-vit audit` finds, and how many of those that it names are wrong.

    python benchmarks/clean_labels.py --data neu-det --weights vit_tiny_patch16_224.safetensors
    python benchmarks/clean_labels.py --data neu-det --seeds 0

Labels are swapped: a tenth of them at random, or 3 % between the two classes that are confused most. The
audit's own code then judges all labels. `ranked` is the share of the swapped ones among the first 1.5 times
as many by how doubtful they are; `recall` the share that is named wrong; `precision` the share of the named
ones that were swapped. Without `--weights`, models of the size `--model` are trained from scratch for each
case, in five folds.
"""

import json
import tempfile
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import tyro

from keras_vit.cleaning.answers import seen_by_weights, seen_from_scratch
from keras_vit.data.duplicates import find_duplicates
from keras_vit.data.image_set import ImageSet
from keras_vit.data.reading import read_images
from keras_vit.data.sources import load_image_set
from keras_vit.evaluation.wrong_labels import find_wrong
from keras_vit.files import write_csv
from keras_vit.training.config import TrainConfig
from keras_vit.training.recipe import RECIPES


@dataclass(frozen=True)
class Benchmark:
    """Swaps labels and looks for them.

    Args:
        data: what `keras-vit train --data` takes.
        weights: as of `keras-vit train --init`; `None` trains from scratch.
        confused: the two classes that are confused most.
        seeds: of the swaps.
        cases: `"none"`, `"random"`, `"confused"`.
        model: from scratch.
        epochs: from scratch.
    """

    data: Path
    weights: str | None = None
    confused: tuple[str, str] = ("inclusion", "scratches")
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    cases: tuple[str, ...] = ("none", "random", "confused")
    model: str = "defect-conv/4"
    epochs: int = 30


def main(asked: Benchmark) -> None:
    image_set = load_image_set(asked.data)
    groups = find_duplicates(read_images(image_set.images)).groups
    for case in asked.cases:
        rows = []
        for seed in asked.seeds if case != "none" else asked.seeds[:1]:
            labels, swapped = swap(image_set, case, seed, asked.confused)
            row = judge(asked, replace(image_set, labels=labels), groups, swapped, seed)
            print(json.dumps({"case": case, "seed": seed, **row}), flush=True)
            rows.append(row)
        for name in ("ranked", "recall", "precision", "named"):
            values = [row[name] for row in rows if row.get(name) is not None]
            if values:
                print(f"{asked.data.name} {case} {name}: mean {np.mean(values):.2f}", flush=True)


def swap(
    image_set: ImageSet, case: str, seed: int, confused: tuple[str, str]
) -> tuple[np.ndarray, np.ndarray]:
    """Labels with some swapped, and the positions of these."""
    rng = np.random.default_rng(seed)
    labels, classes = image_set.labels.copy(), len(image_set.class_names)
    if case == "none":
        return labels, np.zeros(0, np.int64)
    if case == "random":
        places = rng.choice(len(labels), round(0.1 * len(labels)), replace=False)
        labels[places] = (labels[places] + rng.integers(1, classes, len(places))) % classes
        return labels, places
    first, second = (image_set.class_names.index(name) for name in confused)
    candidates = np.flatnonzero(np.isin(labels, (first, second)))
    places = rng.choice(candidates, round(0.03 * len(labels)), replace=False)
    labels[places] = np.where(labels[places] == first, second, first)
    return labels, places


def judge(
    asked: Benchmark, image_set: ImageSet, groups: np.ndarray, swapped: np.ndarray, seed: int
) -> dict[str, float | None]:
    """What the audit finds of the swapped labels, in percent."""
    everything = list(range(len(image_set)))
    if asked.weights:
        config = TrainConfig(data=str(asked.data), init=asked.weights)
        seen = seen_by_weights(image_set, groups, everything, config)
    else:
        with tempfile.TemporaryDirectory() as folder:
            table = Path(folder) / "labels.csv"
            names = [image_set.class_names[label] for label in image_set.labels]
            rows = [
                {"path": str(Path(image).resolve()), "label": name}
                for image, name in zip(image_set.images, names, strict=True)
            ]
            write_csv(table, rows)
            recipe = replace(RECIPES["default"], epochs=asked.epochs)
            config = TrainConfig(
                data=str(table), model=asked.model, seed=seed, recipe=recipe, allow_outside=True
            )
            seen = seen_from_scratch(image_set, everything, config)
    assert seen.probabilities is not None
    found = find_wrong(image_set.labels, seen.probabilities)
    wrong = np.isin(everything, swapped)
    ranked = None
    if len(swapped):
        first = np.argsort(found.quality, kind="stable")[: int(1.5 * len(swapped))]
        ranked = 100 * wrong[first].sum() / len(swapped)
    both = (found.named & wrong).sum()
    row: dict[str, float | None] = {
        "ranked": ranked,
        "recall": 100 * both / len(swapped) if len(swapped) else None,
        "precision": 100 * both / found.named.sum() if found.named.any() and len(swapped) else None,
        "named": float(found.named.sum()),
    }
    if not len(swapped):
        for i in np.flatnonzero(found.named):
            names = image_set.class_names
            print(f"named: {image_set.names[i]}, looks like {names[found.suggested[i]]}", flush=True)
    return {name: None if value is None else round(float(value), 2) for name, value in row.items()}


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
