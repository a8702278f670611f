"""How many labels `keras-vit suggest` saves: a simulation of a person who labels what it asks for.

    python benchmarks/suggest.py --data neu-det --weights vit_tiny_patch16_224.safetensors

The features of frozen weights are computed once. A fifth of each class is the test part. A head is fitted
to five images per class of the rest, as `--recipe probe` does without mirror images; then 30 images get
their labels at a time, chosen by one of several ways, and the head is fitted again. Each seed draws another
test part and other first images.

- `suggest`: `keras_vit.evaluation.label_next.choose_next`, what the command does.
- `random`: images in random order.
- `margin`: those with the smallest margin between the two likeliest classes, without regard to each other.
- `badge`: by gradients of the last layer, J. T. Ash et al., ICLR 2020.
"""

import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import tyro
from scipy.special import softmax

from keras_vit.data.duplicates import find_duplicates
from keras_vit.data.reading import read_images
from keras_vit.data.split import stratified_split
from keras_vit.evaluation.label_next import choose_next, uncertainty
from keras_vit.training.config import TrainConfig
from keras_vit.training.head import FEW, Head, fit_few, fit_head
from keras_vit.training.prepare import prepare
from keras_vit.training.probe import feature_reader
from keras_vit.training.recipe import RECIPES
from keras_vit.training.start import begin


@dataclass(frozen=True)
class Benchmark:
    """A simulation of labelling.

    Args:
        data: a folder of class folders.
        weights: as of `keras-vit train --init`.
        first: images per class that have a label at the beginning.
        step: how many get one at a time.
        steps: how often.
        test_fraction: share of each class that is the test part.
        seeds: of the splits.
        ways: that are compared.
    """

    data: Path
    weights: str
    first: int = 5
    step: int = 30
    steps: int = 10
    test_fraction: float = 0.2
    seeds: tuple[int, ...] = (0, 1, 2, 3, 4)
    ways: tuple[str, ...] = ("random", "suggest", "margin", "badge")


@dataclass(frozen=True)
class Images:
    """Features (n, width), labels (n,), and the groups (n,) of images that show the same thing."""

    features: np.ndarray
    labels: np.ndarray
    groups: np.ndarray


def main(asked: Benchmark) -> None:
    images = read(asked)
    curves = {}
    for way in asked.ways:
        began = time.perf_counter()
        curves[way] = np.array([simulate(asked, images, way, seed) for seed in asked.seeds])
        row = {"way": way, "labels": labels_of(asked, images), "seconds": round(time.perf_counter() - began)}
        accuracy = {"mean": curves[way].mean(axis=0), "least": curves[way].min(axis=0)}
        row |= {name: [round(100 * value, 2) for value in values] for name, values in accuracy.items()}
        print(json.dumps(row), flush=True)
    if "random" in curves:
        for way in set(asked.ways) - {"random"}:
            for line in saved(labels_of(asked, images), curves["random"], curves[way]):
                print(f"{way}: {line}")


def read(asked: Benchmark) -> Images:
    config = TrainConfig(data=str(asked.data), init=asked.weights, recipe=RECIPES["probe"])
    start = begin(config)
    data = prepare(config, keep_originals=False, preprocessing=start.preprocessing, keep_prepared=False).data
    reader = feature_reader(start, start.build(config, data.class_names), data)
    features = reader.of_head(reader(data.image_set.images))
    groups = find_duplicates(read_images(data.image_set.images)).groups
    return Images(features, data.image_set.labels, groups)


def labels_of(asked: Benchmark, images: Images) -> list[int]:
    first = asked.first * len(np.unique(images.labels))
    return [first + asked.step * i for i in range(asked.steps + 1)]


def simulate(asked: Benchmark, images: Images, way: str, seed: int) -> list[float]:
    """The test accuracy after each step."""
    counts = np.bincount(images.labels)
    each = np.floor(counts * asked.test_fraction + 0.5).astype(int)
    training, test = stratified_split(images.labels, each, seed)
    rest, chosen = stratified_split(images.labels[training], asked.first, seed + 100)
    labelled, pool = training[chosen], training[rest]
    found = []
    for step in range(asked.steps + 1):
        head = fit(images.features[labelled], images.labels[labelled], len(counts))
        right = head.logits(images.features[test]).argmax(axis=1) == images.labels[test]
        found.append(float(right.mean()))
        if step < asked.steps:
            probabilities = softmax(head.logits(images.features[pool]), axis=1)
            picked = WAYS[way](
                probabilities, images.features[pool], images.groups[pool], asked.step, 1000 * seed + step
            )
            labelled, pool = np.append(labelled, pool[picked]), np.delete(pool, picked)
    return found


def fit(features: np.ndarray, labels: np.ndarray, classes: int) -> Head:
    return (fit_few if len(labels) < FEW * classes else fit_head)(features, labels, classes)


def at_random(probabilities, features, groups, count, seed):
    return np.random.default_rng(seed).choice(len(probabilities), count, replace=False)


def by_margin(probabilities, features, groups, count, seed):
    return np.argsort(-uncertainty(probabilities), kind="stable")[:count]


def as_suggested(probabilities, features, groups, count, seed):
    return choose_next(probabilities, features, count, groups, seed)


def by_badge(probabilities, features, groups, count, seed):
    """k-means++ on gradients; the product of two is that of the errors times that of the features."""
    random, errors = np.random.default_rng(seed), probabilities.astype("float64")
    errors[np.arange(len(errors)), errors.argmax(axis=1)] -= 1
    features = features.astype("float64")
    lengths = (errors**2).sum(axis=1) * (features**2).sum(axis=1)
    chosen, nearest = [int(lengths.argmax())], np.full(len(errors), np.inf)
    while len(chosen) < count:
        i = chosen[-1]
        products = (errors @ errors[i]) * (features @ features[i])
        nearest = np.minimum(nearest, np.maximum(lengths + lengths[i] - 2 * products, 0))
        nearest[chosen] = 0
        chosen.append(int(random.choice(len(nearest), p=nearest / nearest.sum())))
    return np.array(chosen)


WAYS: dict[str, Callable[..., np.ndarray]] = {
    "random": at_random,
    "suggest": as_suggested,
    "margin": by_margin,
    "badge": by_badge,
}


def saved(labels: list[int], random: np.ndarray, other: np.ndarray) -> list[str]:
    """How many labels reach the accuracy that random ones reach, by the means over the seeds."""
    lines = []
    mean, reached = random.mean(axis=0), np.maximum.accumulate(other.mean(axis=0))
    for number, accuracy in zip(labels[1:], np.maximum.accumulate(mean)[1:], strict=True):
        enough = [n for n, value in zip(labels, reached, strict=True) if value >= accuracy]
        if enough:
            lines.append(f"{100 * accuracy:.2f} % take {enough[0]} labels instead of {number}")
    return lines


if __name__ == "__main__":
    main(tyro.cli(Benchmark))
