"""The layers of a model, whatever its class, and which of them are from this package."""

from typing import Any

import keras


def has_our_layer(layer: Any) -> bool:
    """Whether a layer or a model is of this package, or has such a layer somewhere inside."""
    return any(of_this_package(one) for one in all_layers(layer))


def of_this_package(layer: keras.Layer) -> bool:
    """Whether the class of a layer, or one that it is made from, is from this package."""
    return any(one.__module__.partition(".")[0] == __name__.partition(".")[0] for one in type(layer).__mro__)


def all_layers(layer: Any) -> list[keras.Layer]:
    """A layer or a model and all layers inside, also those in lists and dicts, by any name."""
    found: dict[int, Any] = {}
    waiting: list[Any] = [layer]
    while waiting:
        one = waiting.pop()
        if id(one) in found or not isinstance(one, keras.Layer | list | tuple | set | dict):
            continue
        found[id(one)] = one
        if isinstance(one, keras.Layer):
            one = vars(one)
        waiting.extend(one.values() if isinstance(one, dict) else one)
    return [one for one in found.values() if isinstance(one, keras.Layer)]
