"""Deletion curves of the maps of finished runs, against random orders, and prints a row of accuracy.md.

    python -m benchmarks.explain RUN... --part validation
    python -m benchmarks.explain RUN... --part test --maps gradient_weighted removal

Patches are replaced by the mean of the training images in the order of the map, and the area under the
probability of the predicted class is divided by that of random orders. A map is chosen with
`--part validation` and judged with `--part test`. The images of a part are a sample, as many of each class.
"""

import argparse
import time
from pathlib import Path

import numpy as np

from keras_vit.data.pipeline import read_pixels
from keras_vit.data.preprocess import scale_pixels
from keras_vit.evaluation.calibration import softmax
from keras_vit.explain.inside import Inside
from keras_vit.explain.maps import maps_of
from keras_vit.explain.removal import removal_map
from keras_vit.explain.trust import curves, mean_pixel, rank_correlations
from keras_vit.runs.folder import Run, load_run
from keras_vit.runs.judged_images import own_images

MAPS = ("heads", "rollout", "gradient_weighted", "removal")
BATCH = 32


def compiled(run: Run):
    """The probabilities of a run, with one compiled batch size."""
    import tensorflow as tf

    shape = tf.TensorSpec((BATCH, *run.preprocessing.image_shape), tf.float32)
    model = tf.function(
        lambda images: run.model(images, training=False), input_signature=[shape], jit_compile=True
    )

    def found(images: np.ndarray) -> np.ndarray:
        filled = np.concatenate([images, np.repeat(images[-1:], -len(images) % BATCH, axis=0)])
        scaled = scale_pixels(filled, run.preprocessing).astype("float32")
        logits = [model(scaled[i : i + BATCH]).numpy() for i in range(0, len(scaled), BATCH)]
        return softmax(np.concatenate(logits)[: len(images)] / run.temperature)

    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", type=Path, nargs="+", help="run folders")
    parser.add_argument("--part", choices=["validation", "test"], default="test")
    parser.add_argument("--maps", nargs="+", choices=MAPS, default=MAPS)
    parser.add_argument("--each", type=int, default=5, help="images per class")
    parser.add_argument("--steps", type=int, default=14, help="of a curve")
    parser.add_argument("--rounds", type=int, default=49, help="of the search for the map `removal`")
    options = parser.parse_args()
    ratios: dict[str, list[float]] = {}
    for path in options.runs:
        run = load_run(path)
        own, inside, probabilities = own_images(run), Inside(run.model), compiled(run)
        part = own.of_part(options.part)
        chosen = [np.flatnonzero(part.labels == c)[: options.each] for c in range(len(run.class_names))]
        images = read_pixels(part.take(np.concatenate(chosen)).images, run.preprocessing)
        mean = mean_pixel(own.train.images, run.preprocessing)
        classes = probabilities(images).argmax(axis=1)
        made = maps_of(inside, scale_pixels(images, run.preprocessing), classes)
        found = {"heads": made.heads.mean(axis=1), "rollout": made.rollout}
        found["gradient_weighted"] = made.gradient_weighted
        if "removal" in options.maps:
            begin = time.perf_counter()
            grid = inside.config.grid
            searched = [
                removal_map(probabilities, image, label, mean, grid, options.rounds)
                for image, label in zip(images, classes, strict=True)
            ]
            found["removal"] = np.array(searched)
            seconds = (time.perf_counter() - begin) / len(images)
            alike = rank_correlations(found["removal"], found["gradient_weighted"]).mean()
            print(f"removal: {seconds:.1f} s per image, rank correlation with gradient_weighted {alike:.2f}")
        by_chance: dict[bool, float] = {}
        for name in options.maps:
            line = f"{path.name} {name}, {len(images)} {options.part} images:"
            for insertion in (False, True):
                # The random orders are the same for each map.
                orders = 1 if insertion in by_chance else 10
                curve = curves(
                    probabilities,
                    images,
                    found[name],
                    classes,
                    mean,
                    insertion=insertion,
                    steps=options.steps,
                    orders=orders,
                )
                area, chance = curve.areas
                chance = by_chance.setdefault(insertion, chance)
                what = "insertion" if insertion else "deletion"
                line += f" {what} {area:.3f} / {chance:.3f} = {area / chance:.2f}"
                if not insertion:
                    ratios.setdefault(name, []).append(area / chance)
            print(line, flush=True)
    for name, values in ratios.items():
        splits = ", ".join(f"{value:.2f}" for value in values)
        print(f"| {name} | {splits} | {np.mean(values):.2f} |")


if __name__ == "__main__":
    main()
