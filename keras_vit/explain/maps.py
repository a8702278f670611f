"""The maps of prepared images: what a ViT looks at, and what of it speaks for a class."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from keras_vit.errors import InputError
from keras_vit.explain.flow import gradient_weighted, heads_of_block, rollout
from keras_vit.explain.inside import Inside

BATCH_BYTES = 2**27
"""Of the attentions of a batch. The pass and its gradient hold about five times as much."""


@dataclass(frozen=True)
class Maps:
    """What a ViT looks at in some images, one value per patch.

    Args:
        heads: float32 (images, heads, rows, columns), see `flow.heads_of_block`.
        rollout: float32 (images, rows, columns), see `flow.rollout`.
        gradient_weighted: float32 (images, rows, columns), 0 or more, see `flow.gradient_weighted`.
        logits: float32 (images, classes).
    """

    heads: np.ndarray
    rollout: np.ndarray
    gradient_weighted: np.ndarray
    logits: np.ndarray


def maps_of(
    inside: Inside, images: np.ndarray, classes: Sequence[int] | np.ndarray, block: int | None = None
) -> Maps:
    """The maps of images.

    Args:
        inside: of the model.
        images: (n, height, width, channels), scaled for the model.
        classes: the class of each image whose logit the gradient is of.
        block: see `flow.heads_of_block`.

    Raises:
        InputError: there is no such block.
    """
    check_block(inside, block)
    size = max(1, BATCH_BYTES // (4 * sum(int(np.prod(shape)) for shape in inside.shapes)))
    if not len(images):
        rows, columns = inside.config.grid
        empty = np.zeros((0, rows, columns), np.float32)
        return Maps(empty[:, None], empty, empty, np.zeros((0, inside.config.num_classes), np.float32))
    parts = [
        _maps_of_batch(inside, images[start : start + size], classes[start : start + size], block)
        for start in range(0, len(images), size)
    ]
    return Maps(*(np.concatenate(values) for values in zip(*parts, strict=True)))


def check_block(inside: Inside, block: int | None) -> None:
    """Raises InputError if a model has no such block."""
    depth = inside.config.depth
    if block is not None and not 0 <= block < depth:
        raise InputError(
            f"block must be 0 to {depth - 1}, as in the names block_0 to block_{depth - 1} of the layers. "
            f"Received: block={block}"
        )


def _maps_of_batch(inside, images, classes, block):
    chosen = np.eye(inside.config.num_classes, dtype=np.float32)[np.asarray(classes)]
    zeros = [np.zeros((len(images), *shape), np.float32) for shape in inside.shapes]
    slopes, (logits, *attentions) = inside.with_slopes(zeros, [images, chosen])
    config = inside.config
    return (
        heads_of_block(attentions, config, block),
        rollout(attentions, config),
        gradient_weighted(attentions, slopes, config),
        logits,
    )
