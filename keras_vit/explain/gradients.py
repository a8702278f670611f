"""The gradient of a score with respect to some inputs, on each backend."""

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import keras
import numpy as np
from keras import ops


def compiled_on_jax(function: Callable[..., Any], variables: Sequence[keras.Variable]) -> Callable[..., Any]:
    """A function of tensors as one program on JAX, which otherwise compiles each operation by itself.

    The maps of a report were 500 such programs of up to 30 ms each on a CPU.
    The other backends run the function as it is.

    Args:
        function: from nested lists of tensors to nested lists of tensors. It may use variables, and changes
            none.
        variables: those that it uses; their values are read at each call.

    Returns:
        A function of the same arguments, which may be arrays. Each set of shapes is compiled once.
    """
    if keras.backend.backend() != "jax":
        return function
    import jax

    @jax.jit
    def run(values, *arguments):
        with keras.StatelessScope(state_mapping=list(zip(variables, values, strict=True))):
            return function(*arguments)

    return lambda *arguments: run([variable.value for variable in variables], *arguments)


def gradient_of(
    function: Callable[[list[Any], Any], tuple[Any, Any]], variables: Sequence[keras.Variable]
) -> Callable[[Sequence[np.ndarray], Sequence[np.ndarray]], tuple[list[np.ndarray], list[np.ndarray]]]:
    """The gradient of the sum of a score.

    Args:
        function: from the inputs and from other tensors, both lists, to the score, of any shape, and to what
            else is wanted of the same pass, a list of tensors.
        variables: that the function uses.

    Returns:
        A function from the inputs and the other arrays, float32, to the gradient with respect to each input,
        float32, and to what else was wanted as arrays.
    """
    on_backend = {"tensorflow": _tensorflow, "jax": _jax, "torch": _torch}[keras.backend.backend()]
    run = compiled_on_jax(partial(on_backend, function), variables)

    def found(inputs, others):
        slopes, rest = run(*([ops.convert_to_tensor(x, "float32") for x in xs] for xs in (inputs, others)))
        return [as_float32(slope) for slope in slopes], [as_float32(value) for value in rest]

    return found


def as_float32(tensor: Any) -> np.ndarray:
    """A tensor of any precision as an array."""
    return np.asarray(ops.convert_to_numpy(ops.cast(tensor, "float32")))


def _tensorflow(function, inputs, others):
    import tensorflow as tf

    with tf.GradientTape(watch_accessed_variables=False) as tape:
        tape.watch(inputs)
        score, rest = function(inputs, others)
        total = tf.reduce_sum(score)
    return tape.gradient(total, inputs, unconnected_gradients=tf.UnconnectedGradients.ZERO), rest


def _jax(function, inputs, others):
    import jax

    def total(inputs):
        score, rest = function(inputs, others)
        return ops.sum(score), rest

    return jax.grad(total, has_aux=True)(inputs)


def _torch(function, inputs, others):
    import torch

    with torch.enable_grad():
        inputs = [tensor.detach().requires_grad_() for tensor in inputs]
        score, rest = function(inputs, others)
        found = torch.autograd.grad(score.sum(), inputs, allow_unused=True)
    found = [torch.zeros_like(x) if g is None else g for x, g in zip(inputs, found, strict=True)]
    return found, [value.detach() for value in rest]
