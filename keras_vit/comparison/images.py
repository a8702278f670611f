"""The images of a comparison: a split, draws of training images, shifted and turned test images."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np

from keras_vit.comparison.config import ALL
from keras_vit.data.corrupted import IMAGES_AT_ONCE, prepare_shown
from keras_vit.data.corruptions import corrupt, reduced
from keras_vit.data.image_set import Image, evenly
from keras_vit.data.pipeline import (
    EVALUATION_BATCH_SIZE,
    ImageData,
    batch_for,
    pixel_dataset,
    without_autotuning,
)
from keras_vit.data.preprocess import scale_pixels
from keras_vit.data.probe import whole_pixels
from keras_vit.data.split import Split
from keras_vit.data.targets import counts_of
from keras_vit.training.balance import choose_sampling, images_that_count, weights_of_classes
from keras_vit.training.recipe import BALANCED, Recipe

if TYPE_CHECKING:
    import tensorflow as tf

SHIFT = 0.15
"""Share of the sides by which shifted test images are moved, both ways; the gap shows the mirrored border."""

TURN = 3
"""Strength of the rotation of `corruptions.py`: 12 degrees."""

MOST = 1_000
"""Test images that are also shifted and turned."""


@dataclass(frozen=True, eq=False)
class Stage:
    """The images of one split, prepared for models of one input.

    Args:
        data: the images: training and test, no validation.
    """

    data: ImageData

    def draw(self, per_class: int | str, seed: int, recipe: Recipe, fixed_batch: bool) -> ImageData:
        """The data with so many training images of each class; a class with fewer gives all that it has.

        The images of a smaller number are among those of a larger one with the same seed.

        Args:
            per_class: a number, or `ALL`.
            seed: of the draw, the order and the augmentation.
            recipe: of the training.
            fixed_batch: whether its batch size was given, so that it is not cut for few images.
        """
        data = self.data
        chosen = data.split.train
        if per_class != ALL:
            labels = data.labels("train")
            rng = np.random.RandomState(seed)
            drawn = [
                rng.permutation(chosen[labels == label])[: int(per_class)]
                for label in range(data.num_classes)
            ]
            chosen = np.sort(np.concatenate(drawn))
        counts = counts_of(data.image_set.labels[chosen], data.num_classes)
        wanted = recipe.batch_size
        batch_size = (
            min(wanted, len(chosen)) if fixed_batch else batch_for(images_that_count(recipe, counts), wanted)
        )
        return dataclasses.replace(
            data,
            split=Split(chosen, data.split.validation[:0], data.split.test),
            batch_size=min(batch_size, len(chosen)),
            seed=seed,
            augmentation=recipe.augmentation,
            balanced=choose_sampling(recipe, counts)[0] == BALANCED,
            class_weights=weights_of_classes(recipe.class_weights, counts, data.class_names),
        )

    @cached_property
    def tested(self) -> dict[str, list[Image]]:
        """The test images: `""` as they are, `"shift"` and `"rotate"` changed, these at most `MOST`."""
        data = self.data
        images = [data.image_set.images[i] for i in data.split.test]
        return {"": images, **{kind: self._changed(kind) for kind in ("shift", "rotate")}}

    @cached_property
    def changed_labels(self) -> np.ndarray:
        """The labels of the images that are shifted and turned: int64 (n,)."""
        return self.data.image_set.labels[self._some]

    @cached_property
    def _some(self) -> np.ndarray:
        test = self.data.split.test
        return test[evenly(len(test), MOST)]

    def _changed(self, kind: str) -> list[Image]:
        data, preprocessing = self.data, self.data.preprocessing
        found: list[Image] = []
        for begin in range(0, len(self._some), IMAGES_AT_ONCE):
            changed = []
            for i in self._some[begin : begin + IMAGES_AT_ONCE]:
                pixels = reduced(whole_pixels(data.image_set.original(i), preprocessing.decoding))
                rng = np.random.default_rng((TURN, int(i)))
                changed.append(
                    shifted(pixels, rng) if kind == "shift" else corrupt(pixels, "rotate", TURN, rng)
                )
            # Gray levels as whole numbers take a quarter of the memory.
            found += list(np.rint(prepare_shown(changed, preprocessing)).astype("uint8"))
        return found


def shifted(pixels: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Pixels, (height, width, channels), moved by `SHIFT` of each side; the gap shows the mirrored border."""
    height, width = pixels.shape[:2]
    down, right = max(1, round(SHIFT * height)), max(1, round(SHIFT * width))
    padded = np.pad(pixels, ((down, down), (right, right), (0, 0)), mode="symmetric")
    top, left = rng.choice([0, 2 * down]), rng.choice([0, 2 * right])
    return padded[top : top + height, left : left + width]


def batches_of(images: Sequence[Image], data: ImageData, rows: int | None = None) -> "tf.data.Dataset":
    """Scaled images in batches of one size; the last image fills the last batch.

    Args:
        images: as the data have them, or prepared whole gray levels.
        data: says how they are prepared.
        rows: of a batch; by default as for the evaluation of a run.
    """
    rows = rows or -(-len(images) // -(-len(images) // EVALUATION_BATCH_SIZE))
    filled = [*images, *([images[-1]] * (-len(images) % rows))]
    if isinstance(filled[0], np.ndarray) and filled[0].dtype == np.uint8:
        filled = [image.astype("float32") for image in filled]  # type: ignore[union-attr]
    pixels = pixel_dataset(filled, data.preprocessing)
    return without_autotuning(
        pixels.map(lambda image: scale_pixels(image, data.preprocessing)).batch(rows).prefetch(2)
    )
