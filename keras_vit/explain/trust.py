"""Whether a map can be believed: deletion and insertion curves, and the check by randomised weights."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import keras
import numpy as np

from keras_vit.data.image_set import Image, evenly
from keras_vit.data.pipeline import read_pixels
from keras_vit.data.preprocess import Preprocessing, scale_pixels
from keras_vit.evaluation.calibration import softmax
from keras_vit.evaluation.labels import sigmoid
from keras_vit.explain.inside import Inside
from keras_vit.explain.maps import maps_of

if TYPE_CHECKING:
    from keras_vit.model.vit import ViT

RANDOM_ORDERS = 10

Probabilities = Callable[[np.ndarray], np.ndarray]
"""From prepared images (n, height, width, channels) in 0..255 to (n, classes)."""


def probabilities_of(
    vit: "ViT", preprocessing: Preprocessing, temperature: float, several: bool = False
) -> Probabilities:
    """From prepared images to calibrated probabilities, in batches of one size.

    Args:
        vit: the model.
        preprocessing: of its images.
        temperature: the logits are divided by it.
        several: whether an image may have several labels: each probability is then one by itself.
    """
    answer = sigmoid if several else softmax
    # On TensorFlow a first `predict_on_batch` compiles for seconds.
    eager = keras.backend.backend() == "tensorflow"

    def found(images: np.ndarray) -> np.ndarray:
        scaled = np.asarray(scale_pixels(images, preprocessing), np.float32)
        logits = vit(scaled, training=False) if eager else vit.predict_on_batch(scaled)
        return answer(np.asarray(keras.ops.convert_to_numpy(logits), np.float64) / temperature)

    return found


MEAN_IMAGES = 200


def mean_pixel(images: Sequence[Image], preprocessing: Preprocessing) -> np.ndarray:
    """The mean of each channel over prepared training images, at most 200 of them: float32 (channels,)."""
    pixels = read_pixels([images[i] for i in evenly(len(images), MEAN_IMAGES)], preprocessing)
    return pixels.mean(axis=(0, 1, 2), dtype=np.float64).astype(np.float32)


def trust(
    vit: "ViT",
    probabilities: Probabilities,
    images: np.ndarray,
    preprocessing: Preprocessing,
    mean: np.ndarray,
    steps: int,
) -> dict[str, Any]:
    """Deletion and insertion curves and the check by randomised weights, ready for JSON.

    Args:
        vit: the model.
        probabilities: of it.
        images: (n, height, width, channels), prepared, in 0..255.
        preprocessing: of the images.
        mean: (channels,), of the training images.
        steps: of the curves.
    """
    inside, scaled = Inside(vit), scale_pixels(images, preprocessing)
    classes = probabilities(images).argmax(axis=1)
    maps = maps_of(inside, scaled, classes).gradient_weighted
    found: dict[str, Any] = {"images": len(images), "orders": RANDOM_ORDERS, "mean": mean.tolist()}
    for name in ("deletion", "insertion"):
        curve = curves(probabilities, images, maps, classes, mean, insertion=name == "insertion", steps=steps)
        by_map, by_chance = curve.areas
        found[name] = {
            "shares": curve.shares.tolist(),
            "by_map": curve.by_map.mean(axis=0).tolist(),
            "by_chance": curve.by_chance.mean(axis=0).tolist(),
            "area": by_map,
            "area_by_chance": by_chance,
        }
    found["randomised"] = randomised(vit, scaled, classes)
    return found


@dataclass(frozen=True)
class Curves:
    """The probability of a class while patches are replaced, or put back, in some orders.

    Args:
        shares: (points,), the share of the patches that are changed, from 0 to 1.
        by_map: (images, points), in the order of the map, the highest value first.
        by_chance: (images, points), mean over random orders.
    """

    shares: np.ndarray
    by_map: np.ndarray
    by_chance: np.ndarray

    @property
    def areas(self) -> tuple[float, float]:
        """The area under the mean curve, in the order of the map and by chance."""
        return area(self.shares, self.by_map), area(self.shares, self.by_chance)

    @property
    def ratio(self) -> float:
        """The area in the order of the map, as a share of that by chance."""
        by_map, by_chance = self.areas
        return by_map / by_chance


def area(shares: np.ndarray, curves: np.ndarray) -> float:
    """The mean area under curves (images, points), by trapezia."""
    return float(np.trapezoid(curves.mean(axis=0), shares))


def change_patches(
    image: np.ndarray, fill: np.ndarray, order: np.ndarray, counts: np.ndarray, grid: Sequence[int]
) -> np.ndarray:
    """Copies of an image in which the first patches of an order are filled.

    Args:
        image: (height, width, channels).
        fill: (channels,) or an image.
        order: (patches,), numbers of patches, row by row.
        counts: how many patches are filled in each copy.
        grid: (rows, columns) of the patches.

    Returns:
        (copies, height, width, channels).
    """
    rank = np.empty(len(order), np.int64)
    rank[order] = np.arange(len(order))
    patch = [side // number for side, number in zip(image.shape, grid, strict=False)]
    ranks = np.kron(rank.reshape(grid), np.ones(patch, np.int64))  # h w
    filled = ranks[None] < counts[:, None, None]  # c h w
    return np.where(filled[..., None], np.asarray(fill, image.dtype), image)


def curves(
    probabilities: Probabilities,
    images: np.ndarray,
    maps: np.ndarray,
    classes: Sequence[int] | np.ndarray,
    mean: np.ndarray,
    *,
    insertion: bool = False,
    steps: int = 28,
    seed: int = 0,
    orders: int = RANDOM_ORDERS,
) -> Curves:
    """The deletion or insertion curve of maps (Petsiuk et al. 2018, https://arxiv.org/abs/1806.07421).

    Deletion: patches are replaced by the training mean, those of the highest value first. A map that shows
    what the model uses makes the probability fall sooner than chance does. Insertion begins with an image of
    the mean, and puts patches back: the probability rises sooner.

    Args:
        probabilities: of the model.
        images: (n, height, width, channels), prepared, in 0..255.
        maps: (n, rows, columns).
        classes: of each image, whose probability is followed; the predicted ones.
        mean: (channels,), of the pixels of the training images.
        insertion: whether patches are put back.
        steps: number of steps; at most one per patch.
        seed: of the random orders.
        orders: number of random orders.
    """
    grid = maps.shape[1:]
    patches = int(np.prod(grid))
    counts = np.unique(np.linspace(0, patches, min(steps, patches) + 1).round().astype(int))
    rng = np.random.default_rng(seed)

    by_map, by_chance = [], []
    for image, values, label in zip(images, maps, classes, strict=True):
        wanted = [np.argsort(-values.ravel(), kind="stable")]
        wanted += [rng.permutation(patches) for _ in range(orders)]
        # Inserting the first patches of an order is deleting the last ones, but for the sense of the axis.
        changed = [
            change_patches(image, mean, order[::-1], patches - counts, grid)
            if insertion
            else change_patches(image, mean, order, counts, grid)
            for order in wanted
        ]
        found = probabilities(np.concatenate(changed))[:, label].reshape(len(wanted), -1)
        by_map.append(found[0])
        by_chance.append(found[1:].mean(axis=0))
    return Curves(counts / patches, np.array(by_map), np.array(by_chance))


def randomised(
    vit: "ViT", images: np.ndarray, classes: Sequence[int] | np.ndarray, seed: int = 0
) -> list[tuple[str, float]]:
    """How alike the maps stay while weights are randomised from the top down.

    Adebayo et al. 2018 (https://arxiv.org/abs/1810.03292): a map that stays the same shows the image, not
    what the model has learned. The weights of the head are shuffled, then also those of the last block, and
    so on down to the patch embedding.

    Args:
        vit: a `ViT`; it is not changed.
        images: (n, height, width, channels), scaled for the model.
        classes: of each image.
        seed: of the shuffling.

    Returns:
        The name of each part from the top down, and the mean over the images of Spearman's rank correlation
        of the gradient-weighted maps with those of the model as it is. Maps of one value have correlation 0.
    """
    copy = type(vit).from_config(vit.get_config())
    copy.set_weights(vit.get_weights())
    inside, rng = Inside(copy), np.random.default_rng(seed)
    original = maps_of(inside, images, classes).gradient_weighted
    found = []
    for name, layers in _from_the_top(copy):
        for layer in layers:
            layer.set_weights([_shuffled(values, rng) for values in layer.get_weights()])
        maps = maps_of(inside, images, classes).gradient_weighted
        found.append((name, float(np.mean(rank_correlations(original, maps)))))
    return found


def rank_correlations(one: np.ndarray, other: np.ndarray) -> np.ndarray:
    """Spearman's correlation of each pair of maps (n, rows, columns); 0 where a map has one value only."""
    from scipy.stats import rankdata

    def centred(maps):
        ranks = rankdata(maps.reshape(len(maps), -1), axis=1)
        return ranks - ranks.mean(axis=1, keepdims=True)

    a, b = centred(one), centred(other)
    norm = np.sqrt((a * a).sum(axis=1) * (b * b).sum(axis=1))
    return np.where(norm > 0, (a * b).sum(axis=1) / np.where(norm > 0, norm, 1), 0.0)


def _shuffled(values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """The same values in another order: a layer keeps the size of its weights."""
    return rng.permutation(values.ravel()).reshape(values.shape)


def _from_the_top(vit):
    """The layers with weights, by part: what stands above the blocks, each block, what stands below."""
    with_weights = [layer for layer in vit.layers if layer.weights]
    names = [layer.name for layer in with_weights]
    first, last = names.index("block_0"), names.index(f"block_{vit.config.depth - 1}")
    yield "head", with_weights[last + 1 :]
    for layer in reversed(with_weights[first : last + 1]):
        yield layer.name, [layer]
    yield "embedding", with_weights[:first]
