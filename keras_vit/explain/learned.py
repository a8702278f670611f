"""What a ViT has learned, without an image or over many: positions, filters, how far attention reaches."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from keras import ops

if TYPE_CHECKING:
    from keras_vit.explain.inside import Inside
    from keras_vit.model.vit import ViT

FILTERS = 28
"""How many filters are shown, as in figure 7 of Dosovitskiy et al. 2020."""

SIDE = 14
"""At most so many positions per side are compared with all others."""


def position_similarity(vit: "ViT") -> np.ndarray:
    """The cosine similarity of the position embeddings of patches (Dosovitskiy et al. 2020, figure 7).

    Returns:
        float32 (r, c, rows, columns): of r x c positions, evenly spaced where the grid has more than 14 rows
        or columns, with those of all patches.
    """
    layer = vit.get_layer("position_embedding")
    rows, columns = vit.config.grid
    dim = vit.config.dim
    zeros = np.zeros((1, vit.config.num_first_tokens + rows * columns, dim), np.float32)
    table = np.asarray(ops.convert_to_numpy(ops.cast(layer(zeros), "float32")))[0, -rows * columns :]
    table = table / np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    similar = (table @ table.T).reshape(rows, columns, rows, columns)
    return similar[_evenly(rows)][:, _evenly(columns)]


def filters(vit: "ViT") -> tuple[str, np.ndarray]:
    """The filters that see the pixels, and how they were chosen.

    Of a linear projection these are its principal components, the strongest first, since single columns look
    like noise (Dosovitskiy et al. 2020, figure 7). Of a convolutional stem they are the filters of the first
    convolution, those with the largest weights first.

    Returns:
        What they are, and float32 (filters, height, width, channels), at most 28.
    """
    layer, channels = vit.get_layer("patch_embed"), vit.config.image_shape[2]
    if vit.config.stem != "linear":
        kernel = np.asarray(layer.convolutions[0].get_weights()[0], np.float32)  # h w c f
        found = kernel.transpose(3, 0, 1, 2)
        order = np.argsort(-np.square(found).sum(axis=(1, 2, 3)), kind="stable")
        return "filters of the first convolution", found[order][:FILTERS]
    kernel = np.asarray(ops.convert_to_numpy(layer.projection.kernel), np.float32)  # (h w c) d
    left, _, _ = np.linalg.svd(kernel - kernel.mean(axis=1, keepdims=True), full_matrices=False)
    height, width = layer.patch_sides
    components = left.T[:FILTERS].reshape(-1, height, width, channels)
    return "principal components of the filters of the patches", components


def attention_distance(inside: "Inside", images: np.ndarray) -> np.ndarray:
    """How far the heads of each block look, in pixels of the model's input.

    Dosovitskiy et al. 2020, figure 7: for each patch, the mean distance to the other patches, weighted by its
    attention to them; then the mean over patches and images. What goes to the class token and the registers
    is left out.

    Args:
        inside: of the model.
        images: (n, height, width, channels), scaled for the model.

    Returns:
        float64 (depth, heads).
    """
    config = inside.config
    first, distances = config.num_first_tokens, patch_distances(config.grid, config.patch_size)
    sums: Any = np.zeros((config.depth, config.num_heads))
    for image in images:
        _, attentions = inside.compiled(np.asarray(image, np.float32)[None])
        for block, attention in enumerate(attentions[: config.depth]):
            found = np.asarray(ops.convert_to_numpy(attention))[0, :, first:, first:].astype(np.float64)
            shares = found / np.maximum(found.sum(axis=-1, keepdims=True), 1e-30)
            sums[block] += (shares * distances).sum(axis=-1).mean(axis=-1)
    return sums / max(len(images), 1)


def patch_distances(grid: Sequence[int], patch_size: int) -> np.ndarray:
    """Between the centres of patches, in pixels: float64 (patches, patches)."""
    rows, columns = grid
    at = np.stack(np.meshgrid(np.arange(rows), np.arange(columns), indexing="ij"), -1).reshape(-1, 2)
    return patch_size * np.linalg.norm(at[:, None] - at[None], axis=-1)


def _evenly(side: int) -> np.ndarray:
    return np.unique(np.linspace(0, side - 1, min(side, SIDE)).round().astype(int))
