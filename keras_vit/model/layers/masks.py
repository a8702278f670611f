"""Masks of tokens and of pairs of tokens: True for what counts."""

from typing import Any

from keras import ops

from keras_vit.errors import InputError


def attention_mask_of(*padding: Any, attention_mask: Any = None) -> Any:
    """One mask of scores from masks of tokens and masks of pairs of tokens.

    Args:
        *padding: each `None` or (batch, tokens).
        attention_mask: `None`, (tokens, tokens), (batch, tokens, tokens) or (batch, heads, tokens, tokens);
            the last axis are the tokens that are looked at.

    Returns:
        `None` or a boolean (batch or 1, heads or 1, tokens or 1, tokens).
    """
    merged = None
    for mask in padding:
        if mask is not None:
            mask = ops.cast(mask, "bool")[:, None, None, :]  # b 1 1 n
            merged = mask if merged is None else ops.logical_and(merged, mask)
    if attention_mask is not None:
        mask = ops.cast(attention_mask, "bool")
        if not 2 <= len(mask.shape) <= 4:
            raise InputError(
                "attention_mask must be (tokens, tokens), (batch, tokens, tokens) or "
                f"(batch, heads, tokens, tokens). Received: {tuple(mask.shape)}"
            )
        while len(mask.shape) < 4:
            mask = ops.expand_dims(mask, -3)  # b 1 n n
        merged = mask if merged is None else ops.logical_and(merged, mask)
    return merged


def masked(scores: Any, mask: Any) -> Any:
    """Scores in float32 for a softmax, with the least number where a mask is False."""
    scores = ops.cast(scores, "float32")
    # As the fused attention of Keras: a row that is all masked becomes uniform, not NaN.
    return scores if mask is None else ops.where(mask, scores, -0.7 * 3.4028235e38)
