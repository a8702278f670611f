"""How attention flows from the patches to the head: arrays in, arrays out.

Attentions are (batch, heads, tokens, tokens), one per block; with attention pooling, that of the pool,
(batch, heads, patches), comes last. A reading is (batch, tokens): how much of each token after the last block
the head reads.
"""

from collections.abc import Sequence

import numpy as np

from keras_vit.model.config import ViTConfig


def reading(config: ViTConfig, tokens: int) -> np.ndarray:
    """The share of each token in what the head sees, without attention pooling: float32 (tokens,), sum 1.

    The class token alone, the mean of the patch tokens, and so on; with attention pooling too the mean of the
    patch tokens, which its probe looks at.
    """
    first, share = config.num_first_tokens, np.zeros(tokens, np.float32)
    match config.pooling:
        case "token":
            share[0] = 1
        case "token+distilled":
            share[:2] = 0.5
        case "token+gap":
            share[0] = 0.5
            share[first:] = 0.5 / (tokens - first)
        case "all":
            share[:] = 1 / tokens
        case _:
            share[first:] = 1 / (tokens - first)
    return share


def heads_of_block(attentions: Sequence[np.ndarray], config: ViTConfig, block: int | None) -> np.ndarray:
    """The attention to the patches of one block, per head: (batch, heads, rows, columns).

    It is that of the class token (of both first tokens, if there is one of distillation); the mean over the
    patch tokens where the head does not see a class token.

    Args:
        attentions: of all blocks, and of the pool.
        config: of the model.
        block: its number, 0 for the first. `None` is the last one, or the pool where that has an attention.
    """
    if block is None and config.pooling == "map":
        found = attentions[-1]
    else:
        of_block = attentions[config.depth - 1 if block is None else block]
        weights = reading(config, of_block.shape[-1])
        if config.pooling == "token+gap":
            weights = np.eye(len(weights), dtype=np.float32)[0]
        found = np.einsum("q,bhqk->bhk", weights, of_block)[:, :, config.num_first_tokens :]
    return found.reshape(*found.shape[:2], *config.grid)


def rollout(attentions: Sequence[np.ndarray], config: ViTConfig) -> np.ndarray:
    """Attention rollout of Abnar and Zuidema 2020 (https://arxiv.org/abs/2005.00928): (batch, rows, columns).

    The attention of a block is the mean over its heads, half of it, and half for the residual connection. The
    product over the blocks says how much of each patch reaches the head. Together with the class token and
    the registers, the values of an image sum to 1.
    """
    blocks = attentions[: config.depth]
    tokens = blocks[0].shape[-1]
    mixed = np.eye(tokens, dtype=np.float32)[None]  # b n n
    for attention in blocks:
        mean = attention.mean(axis=1)
        mixed = (0.5 * mean + 0.5 * np.eye(tokens, dtype=np.float32)) @ mixed
    if config.pooling == "map":
        read = np.zeros((len(mixed), tokens), np.float32)
        read[:, config.num_first_tokens :] = attentions[-1].mean(axis=1)
    else:
        read = np.broadcast_to(reading(config, tokens), (len(mixed), tokens))
    return _to_patches(read, mixed, config)


def gradient_weighted(
    attentions: Sequence[np.ndarray], gradients: Sequence[np.ndarray], config: ViTConfig
) -> np.ndarray:
    """Gradient-weighted attention of Chefer, Gur and Wolf 2021: (batch, rows, columns).

    "Generic Attention-model Explainability" (https://arxiv.org/abs/2103.15679): R begins as the identity,
    and each block adds the mean over the heads of the positive part of gradient times attention, times R. The
    row of the class token is the map. Where the head reads patch tokens, the identity, which says that each
    patch is relevant to itself, is left out.

    Args:
        attentions: of all blocks, and of the pool.
        gradients: of the logit of a class, with respect to each attention.
        config: of the model.
    """
    weighted = [np.maximum(g * a, 0).mean(axis=1) for g, a in zip(gradients, attentions, strict=True)]
    tokens = weighted[0].shape[-1]
    relevance = np.eye(tokens, dtype=np.float32)[None]  # b n n
    for of_block in weighted[: config.depth]:
        relevance = relevance + of_block @ relevance
    if config.pooling == "map":
        read = np.zeros((len(relevance), tokens), np.float32)
        read[:, config.num_first_tokens :] = weighted[-1]
    else:
        read = np.broadcast_to(reading(config, tokens), (len(relevance), tokens))
        relevance = relevance - np.eye(tokens, dtype=np.float32)
    return _to_patches(read, relevance, config)


def _to_patches(read, mixed, config):
    """What of a reading comes from each patch: (batch, rows, columns)."""
    found = np.einsum("bq,bqk->bk", read, np.broadcast_to(mixed, (len(read), *mixed.shape[1:])))
    return found[:, config.num_first_tokens :].reshape(-1, *config.grid)
