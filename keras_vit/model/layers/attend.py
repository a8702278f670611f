"""Attention step by step, and where it is faster than the fused attention of the backend."""

from typing import Any

import keras
from keras import ops

from keras_vit.model.layers.masks import masked

FEW_TOKENS = 1024
"""With more, scores that are kept for the backward pass would take too much memory: at this number 0.3 GB per
block for 16 images and 3 heads. A judgement, not a measurement of speed."""


def attention_of(query: Any, key: Any, mask: Any = None) -> Any:
    """The attention: the softmax of the scaled scores.

    Half precision would lose the small weights of a long row.

    Args:
        query, key: (batch, tokens, heads, width).
        mask: `None`, or as `attention_mask_of` gives it.

    Returns:
        (batch, heads, tokens of the query, tokens of the key), float32.
    """
    query = ops.transpose(query * query.shape[-1] ** -0.5, (0, 2, 1, 3))  # b h q k
    key = ops.transpose(key, (0, 2, 3, 1))  # b h k v
    return ops.softmax(masked(ops.matmul(query, key), mask), axis=-1)  # b h q v


def attended(attention: Any, value: Any) -> Any:
    """The values that an attention takes.

    Args:
        attention: (batch, heads, tokens, tokens).
        value: (batch, tokens, heads, width).

    Returns:
        (batch, tokens, heads, width).
    """
    value = ops.transpose(value, (0, 2, 1, 3))  # b h v k
    out = ops.matmul(ops.cast(attention, value.dtype), value)  # b h q k
    return ops.transpose(out, (0, 2, 1, 3))  # b q h k


def fused_is_slower(query: Any) -> bool:
    """Whether the steps are faster than the fused attention of the backend, on the device at hand.

    - JAX on CPUs has no fused attention, and its products step by step are 1.1 times as fast in training as
      those of `jax.nn.dot_product_attention`. Nor have CPUs the float16 product that this needs.
    - torch on CPUs: the backward pass of its fused attention in half precision takes two thirds of a training
      step; the steps are 3.1 times as fast.

    Args:
        query: (batch, tokens, heads, width).
    """
    match keras.backend.backend():
        case "jax":
            import jax

            return jax.default_backend() == "cpu"
        case "torch":
            half = keras.backend.standardize_dtype(query.dtype) in ("bfloat16", "float16")
            return half and query.device.type == "cpu" and query.shape[1] <= FEW_TOKENS
    return False


def flash_attention_for(query: Any, key: Any, training: bool | None) -> bool | None:
    """What `ops.dot_product_attention` takes as `flash_attention`: `None`, or `False` where it would fail.

    On a GPU, JAX refuses to train through cuDNN's attention with an odd number of tokens (seen with JAX
    0.11.2 and 197 tokens). Keras asks for it all the same, logs the failure with its traceback for each
    block, and then takes the way that `False` takes at once.

    Args:
        query: (batch, tokens, heads, width).
        key: (batch, tokens, heads, width), perhaps of more tokens.
        training: whether a gradient is computed.
    """
    if not training or keras.backend.backend() != "jax":
        return None
    return False if query.shape[1] % 2 or key.shape[1] % 2 else None
