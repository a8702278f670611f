"""Sizes that TensorFlow learns only when a graph runs."""

from typing import Any


def refused_unless_equal(tensor: Any, value: Any, expected: Any, message: str) -> Any:
    """A tensor of a graph of TensorFlow that fails, with this message, where two numbers differ."""
    import tensorflow as tf  # only where TensorFlow is the backend

    with tf.control_dependencies([tf.debugging.assert_equal(value, expected, message=message)]):
        return tf.identity(tensor)  # first the check: another operation could fail before it
