"""Sizes that TensorFlow learns only when a graph runs."""

from typing import Any

from keras_vit.errors import InputError


def refused_unless_equal(tensor: Any, value: Any, expected: Any, message: str) -> Any:
    """A tensor of a graph of TensorFlow that fails, with this message, where two numbers differ."""
    import tensorflow as tf  # only where TensorFlow is the backend

    with tf.control_dependencies([tf.debugging.assert_equal(value, expected, message=message)]):
        return tf.identity(tensor)  # first the check: another operation could fail before it


def check_first(first: Any, tokens: Any) -> None:
    """Checks how many first tokens a layer shall return.

    Raises:
        InputError: it is not a whole number from 1 to the number of tokens, as far as that is known.
    """
    if first is None:
        return
    most = tokens if isinstance(tokens, int) else None
    if isinstance(first, bool) or not isinstance(first, int) or first < 1 or (most and first > most):
        allowed = f"from 1 to {most}" if most else "of 1 or more"
        raise InputError(f"first must be a whole number {allowed}, or None. Received: first={first!r}")
