"""The map of a search: which patches, replaced one after another, take the class away soonest."""

from collections.abc import Sequence

import numpy as np

from keras_vit.explain.trust import Probabilities, change_patches

ROUNDS = 49
"""At most so many rounds by default: with 196 patches, four are removed in each."""


def removal_map(
    probabilities: Probabilities,
    image: np.ndarray,
    label: int,
    mean: np.ndarray,
    grid: Sequence[int],
    rounds: int = ROUNDS,
) -> np.ndarray:
    """The patches of an image in the order of a greedy search for the steepest deletion curve.

    In each round every patch that is left is replaced by the training mean on its own, beside those that were
    replaced before; those that leave the class the lowest probability are then replaced for good. Attention
    and gradients are not used, so it works for any model, and takes about half of `rounds` times the number
    of patches passes. It is searched for on the measure that the deletion curve is, so a good curve says less
    for it than for other maps.

    Args:
        probabilities: of the model.
        image: (height, width, channels), prepared, in 0..255.
        label: the class.
        mean: (channels,), of the training images.
        grid: (rows, columns) of the patches.
        rounds: of the search.

    Returns:
        float32 `grid`, 1 for the patch that is replaced first to 0 for the last.
    """
    patches = int(np.prod(grid))
    left, order = np.arange(patches), np.zeros(0, np.int64)
    while len(left):
        rounds_left = max(1, rounds - len(order) * rounds // patches)
        count = -(-len(left) // rounds_left)
        tried = [np.concatenate([order, [patch], left[left != patch]]) for patch in left]
        copies = [change_patches(image, mean, one, np.array([len(order) + 1]), grid) for one in tried]
        found = probabilities(np.concatenate(copies))[:, label]
        taken = left[np.argsort(found, kind="stable")[:count]]
        order = np.concatenate([order, taken])
        left = np.setdiff1d(left, taken)
    values = np.empty(patches, np.float32)
    values[order] = np.linspace(1, 0, patches)
    return values.reshape(grid)
