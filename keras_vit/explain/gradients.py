"""The gradient of a score with respect to some inputs, on each backend."""

from collections.abc import Callable, Sequence
from typing import Any

import keras
import numpy as np
from keras import ops


def gradients(
    function: Callable[[list[Any]], tuple[Any, Any]], inputs: Sequence[np.ndarray]
) -> tuple[list[np.ndarray], Any]:
    """The gradient of the sum of a score.

    Args:
        function: from the inputs as tensors to the score, of any shape, and to what else is wanted of the
            same pass: a list or tuple of tensors.
        inputs: float32 arrays.

    Returns:
        The gradient with respect to each input, float32, and what else was wanted as arrays.
    """
    tensors = [ops.convert_to_tensor(array, "float32") for array in inputs]
    found, rest = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[keras.backend.backend()](
        function, tensors
    )
    return [as_float32(gradient) for gradient in found], [as_float32(value) for value in rest]


def as_float32(tensor: Any) -> np.ndarray:
    """A tensor of any precision as an array."""
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float32")))


def _tensorflow(function, inputs):
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(inputs)
        score, rest = function(inputs)
        total = tf.reduce_sum(score)
    return tape.gradient(total, inputs, unconnected_gradients=tf.UnconnectedGradients.ZERO), rest


def _jax(function, inputs):
    import jax

    def total(inputs):
        score, rest = function(inputs)
        return ops.sum(score), rest

    return jax.grad(total, has_aux=True)(inputs)


def _torch(function, inputs):
    import torch

    with torch.enable_grad():
        inputs = [tensor.detach().requires_grad_() for tensor in inputs]
        score, rest = function(inputs)
        found = torch.autograd.grad(score.sum(), inputs, allow_unused=True)
    found = [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]
    return found, [value.detach() for value in rest]
