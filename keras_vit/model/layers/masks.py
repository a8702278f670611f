"""Masks of tokens and of pairs of tokens: True for what counts."""

from typing import Any

from keras import ops

from keras_vit.errors import InputError


def attention_mask_of(*padding: Any, attention_mask: Any = None, tokens: Any = None) -> Any:
    """One mask of scores from masks of tokens and masks of pairs of tokens.

    Args:
        *padding: each `None` or (batch, tokens).
        attention_mask: `None`, (tokens, tokens), (batch, tokens, tokens) or (batch, heads, tokens, tokens);
            the last axis are the tokens that are looked at.
        tokens: their number, if it is known: masks of another number are refused.

    Returns:
        `None` or a boolean (batch or 1, heads or 1, tokens or 1, tokens).

    Raises:
        InputError: a mask has another number of axes, or of tokens.
    """
    merged = None
    for mask in padding:
        if mask is not None:
            mask = ops.cast(mask, "bool")
            if len(mask.shape) != 2 or _is_another(mask.shape[1], tokens):
                raise InputError(
                    f"A mask of tokens must be (batch, tokens), for {_count(tokens)}. "
                    f"Received: {tuple(mask.shape)}"
                )
            mask = mask[:, None, None, :]  # b 1 1 n
            merged = mask if merged is None else ops.logical_and(merged, mask)
    if attention_mask is not None:
        mask = ops.cast(attention_mask, "bool")
        if not 2 <= len(mask.shape) <= 4:
            raise InputError(
                "attention_mask must be (tokens, tokens), (batch, tokens, tokens) or "
                f"(batch, heads, tokens, tokens). Received: {tuple(mask.shape)}"
            )
        if _is_another(mask.shape[-1], tokens) or (
            mask.shape[-2] != 1 and _is_another(mask.shape[-2], tokens)
        ):
            raise InputError(
                f"The last two axes of attention_mask must be (tokens, tokens), for {_count(tokens)}. "
                f"Received: {tuple(mask.shape)}"
            )
        while len(mask.shape) < 4:
            mask = ops.expand_dims(mask, -3)  # b 1 n n
        merged = mask if merged is None else ops.logical_and(merged, mask)
    return merged


def _is_another(size: Any, tokens: Any) -> bool:
    """Whether both are known, and differ."""
    return isinstance(size, int) and isinstance(tokens, int) and size != tokens


def _count(tokens: Any) -> str:
    return f"{tokens} tokens" if isinstance(tokens, int) else "these tokens"


def masked(scores: Any, mask: Any) -> Any:
    """Scores in float32 for a softmax, with the least number where a mask is False."""
    scores = ops.cast(scores, "float32")
    # As the fused attention of Keras: a row that is all masked becomes uniform, not NaN.
    return scores if mask is None else ops.where(mask, scores, -0.7 * 3.4028235e38)
