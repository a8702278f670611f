"""Activations by name: ours, and those of `keras.activations`."""

import math
from collections.abc import Callable
from typing import Any

import keras
from keras import ops

from keras_vit.errors import InputError
from keras_vit.model.config import ACTIVATIONS as NAMES
from keras_vit.model.layers.kernels import Given


@keras.saving.register_keras_serializable(package="keras_vit")
def gelu(x: Any) -> Any:
    """The exact GELU (Hendrycks and Gimpel 2016), in the form that every export has.

    On JAX and torch it is Keras's own: TensorFlow cannot call an export that holds JAX's `erf`, and on torch
    it is one operation in place of five. On TensorFlow it is written with `erf`, because ONNX lacks the
    `erfc` of TensorFlow's, and is as fast.
    """
    if keras.backend.backend() != "tensorflow":
        return ops.gelu(x, approximate=False)
    return 0.5 * x * (1.0 + ops.erf(x / math.sqrt(2.0)))


def gelu_tanh(x: Any) -> Any:
    """GELU by tanh."""
    return ops.gelu(x, approximate=True)


def quick_gelu(x: Any) -> Any:
    """GELU by a sigmoid."""
    return x * ops.sigmoid(1.702 * x)


def swiglu(x: Any) -> Any:
    """silu(gate) * value, where the gate is the first half of the last axis."""
    gate, value = ops.split(x, 2, axis=-1)
    return ops.silu(gate) * value


ACTIVATIONS = {"gelu": gelu, "gelu_tanh": gelu_tanh, "quick_gelu": quick_gelu, "swiglu": swiglu}
"""Those of ours by name. All other names are those of `keras.activations`."""

GATED = ("swiglu", "glu")
"""Those that halve the last axis."""


def as_activation(given: Given) -> Any:
    """An activation as a layer keeps it: the name, or the function.

    Raises:
        InputError: it is neither a name of ours or of `keras.activations`, nor a function.
    """
    try:
        if isinstance(given, str):
            activation_function(given)
            return given
        if given is not None:
            return keras.activations.get(given)
    except ValueError:
        pass
    raise InputError(
        f"activation must be one of {', '.join(map(repr, NAMES))}, another name of keras.activations, or a "
        f"function. Received: activation={given!r}"
    )


def activation_function(activation: Any) -> Callable[..., Any]:
    """What computes an activation that `as_activation` returned."""
    if isinstance(activation, str) and activation in ACTIVATIONS:
        return ACTIVATIONS[activation]
    return keras.activations.get(activation)


def activation_config(activation: Any) -> Any:
    """The activation of a layer for `get_config`."""
    return activation if isinstance(activation, str) else keras.activations.serialize(activation)
