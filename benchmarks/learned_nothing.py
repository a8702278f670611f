"""Counts missed and false warnings of runs that learned nothing, on constructed collections.

    python -m benchmarks.learned_nothing
    python -m benchmarks.learned_nothing --only 12
    python -m benchmarks.learned_nothing --sort good

Thirty collections hold nothing that could be learned, or a training that cannot learn it: labels at random,
images of noise, constant images, one class of 99 %, folders of the test part that are swapped, a learning
rate of nearly zero. Thirty others are small parts of the drawn defects, of differing size, classes and
unevenness. Each is one `keras_vit.train`; a line of JSON per collection, the counts at the end.
"""

import argparse
import contextlib
import dataclasses
import io
import json
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image

SIDE = 28
KINDS = ("labels at random", "noise", "constant", "99:1", "swapped test folders", "no learning rate")
COPIES = 5


def drawn() -> tuple[np.ndarray, np.ndarray]:
    """Images (n, side, side, 1) and labels of the drawn defects."""
    from keras_vit.data.sources import load_image_set

    found = load_image_set(None)
    return np.stack([np.asarray(image) for image in found.images]), found.labels


def write(folder: Path, images: np.ndarray, labels: np.ndarray) -> None:
    for i, (image, label) in enumerate(zip(images, labels, strict=True)):
        place = folder / f"class {label}"
        place.mkdir(parents=True, exist_ok=True)
        Image.fromarray(image.reshape(image.shape[:2])).save(place / f"{i:04d}.png")


def some(labels: np.ndarray, counts: list[int], rng: np.random.Generator) -> np.ndarray:
    """Positions of so many images of the first classes, drawn at random."""
    return np.concatenate(
        [rng.permutation(np.flatnonzero(labels == label))[:count] for label, count in enumerate(counts)]
    )


def bad(kind: str, copy: int, folder: Path, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Writes a collection that nothing can be learned from; settings of its run."""
    rng = np.random.default_rng([copy, KINDS.index(kind)])
    classes, each = 2 + copy % 5, (60, 40, 30, 24, 20)[copy]
    chosen = some(labels, [each] * classes, rng)
    pixels, own = images[chosen], labels[chosen]
    if kind == "labels at random":
        own = rng.permutation(own)
    elif kind == "noise":
        pixels = rng.integers(0, 256, pixels.shape, dtype=np.uint8)
    elif kind == "constant":
        pixels = np.full_like(pixels, 40 * copy + 20)
    elif kind == "99:1":
        own = np.repeat([0, 1], [300, 3])
        pixels = images[rng.permutation(len(images))[:303]]
    elif kind == "swapped test folders":
        is_test = np.arange(len(own)) % 4 == 0
        write(folder / "train", pixels[~is_test], own[~is_test])
        write(folder / "test", pixels[is_test], (own[is_test] + 1) % classes)
        return {}
    write(folder, pixels, own)
    return {"learning_rate": 1e-7} if kind == "no learning rate" else {}


def good(copy: int, folder: Path, images: np.ndarray, labels: np.ndarray) -> dict[str, Any]:
    """Writes a part of the drawn defects; settings of its run."""
    rng = np.random.default_rng([copy, 99])
    classes, each = 2 + copy % 5, (50, 70, 90)[copy % 3]
    counts = [each] + [max(each // (1, 2, 4)[copy // 10], 15)] * (classes - 1)
    chosen = some(labels, counts, rng)
    write(folder, images[chosen], labels[chosen])
    return {}


def collections(only: int | None) -> Iterator[tuple[str, str, int]]:
    """Names of good and bad collections in turns."""
    for i in range(COPIES * len(KINDS) if only is None else only):
        yield "bad", KINDS[i % len(KINDS)], i // len(KINDS)
        yield "good", "drawn defects", i


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", type=int, help="so many pairs of a bad and a good collection, of 30")
    parser.add_argument("--sort", choices=("bad", "good"), help="these alone")
    options = parser.parse_args()

    import keras

    import keras_vit
    from keras_vit.training.recipe import RECIPES

    images, labels = drawn()
    missed = false = done = 0
    for sort, kind, copy in collections(options.only):
        if options.sort not in (None, sort):
            continue
        with tempfile.TemporaryDirectory() as name:
            folder = Path(name)
            if sort == "bad":
                changes = bad(kind, copy, folder / "images", images, labels)
            else:
                changes = good(copy, folder / "images", images, labels)
            # With 20, five of the good ones really learned nothing.
            epochs = 60 if sort == "good" else 6
            changes = {"epochs": epochs, "warmup_epochs": 1.0, "batch_size": 16, "xla": False, **changes}
            recipe = dataclasses.replace(RECIPES["default"], **changes)
            begin = time.perf_counter()
            with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
                run = keras_vit.train(
                    data=str(folder / "images"),
                    model="defect-conv/4",
                    image_size=SIDE,
                    channels=1,
                    changes={"depth": 2},
                    recipe=recipe,
                    out=str(folder / "run"),
                )
            best, warned = run.metrics["best"], "warning" in run.metrics
        missed += sort == "bad" and not warned
        false += sort == "good" and warned
        done += 1
        row = {
            "sort": sort,
            "kind": kind,
            "copy": copy,
            "classes": len(best["per_class"]),
            "test": best["images"],
            "accuracy": round(best["accuracy"], 3),
            "balanced": round(best["balanced_accuracy"], 3),
            "warning": run.metrics.get("warning"),
            "seconds": round(time.perf_counter() - begin, 1),
        }
        print(json.dumps(row), flush=True)
        keras.utils.clear_session()
    print(f"{done} collections: {missed} missed warnings, {false} false ones")


if __name__ == "__main__":
    main()
