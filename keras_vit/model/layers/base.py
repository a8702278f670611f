"""What all layers of this package have in common: `trainable` holds for the layers inside, in every copy."""

import functools
import inspect
from collections.abc import Callable, Iterator
from difflib import get_close_matches
from typing import Any

import keras
from keras import layers

OF_KERAS = ("name", "dtype", "trainable", "autocast", "activity_regularizer", "input_shape", "input_dtype")
"""Arguments that every layer of Keras takes."""

PARTS = "trainable_parts"
"""The entry of a config with the layers inside that are frozen in a layer that is not, or the other way
round."""


class ViTLayer(layers.Layer):
    """A layer made of layers.

    `trainable=False` freezes all of them, whenever they are made. Those that were frozen one by one stay so
    in every copy: `from_config`, `clone_model`, saved files.

    Raises:
        ValueError: an argument is not known; the message names the nearest one.
    """

    def __init__(self, **kwargs: Any):
        check_names(type(self), kwargs, OF_KERAS)
        super().__init__(**kwargs)
        self._flags: dict[str, bool] = {}

    def __init_subclass__(cls, **kwargs: Any):
        super().__init_subclass__(**kwargs)
        if "build" in vars(cls):
            cls.build = _then_set_flags(cls.build)  # type: ignore[method-assign]

    def get_config(self) -> dict[str, Any]:
        config = super().get_config()
        flags = flags_of(self) if self.built else self._flags
        return {**config, PARTS: flags} if flags else config

    @classmethod
    def from_config(cls, config: dict[str, Any]) -> Any:
        config = dict(config)
        flags = config.pop(PARTS, {})
        layer = super().from_config(config)
        layer._flags = dict(flags)
        return layer


def _then_set_flags(build: Callable[..., None]) -> Callable[..., None]:
    """A `build` that ends with the flags of the layers that it has made."""

    @functools.wraps(build)
    def build_and_set(self: ViTLayer, *args: Any, **kwargs: Any) -> None:
        build(self, *args, **kwargs)
        if not self.trainable:
            self.trainable = False  # Keras tells the layers that are there when it is set
        set_flags(self, self._flags)

    return build_and_set


def layers_inside(layer: keras.Layer) -> Iterator[tuple[str, keras.Layer]]:
    """The layers directly inside a layer or a model, by the names of their attributes or their own."""
    if isinstance(layer, keras.Model):
        yield from ((one.name, one) for one in layer.layers)
        return
    for name, value in list(vars(layer).items()):
        if name.startswith("_"):
            continue
        if isinstance(value, keras.Layer):
            yield name, value
        elif isinstance(value, list | tuple):
            yield from ((f"{name}.{i}", one) for i, one in enumerate(value) if isinstance(one, keras.Layer))


def flags_of(layer: keras.Layer) -> dict[str, bool]:
    """`trainable` of the layers inside whose flag differs from that of the layer around them.

    Args:
        layer: a layer or a model.

    Returns:
        By path, such as `{"block_0/attention": False}`, outer layers first.
    """
    flags = {}
    for name, inner in layers_inside(layer):
        if inner.trainable != layer.trainable:
            flags[name] = inner.trainable
        flags.update({f"{name}/{path}": flag for path, flag in flags_of(inner).items()})
    return flags


def set_flags(layer: keras.Layer, flags: dict[str, bool]) -> None:
    """Sets `trainable` as `flags_of` has found it."""
    for path, flag in flags.items():
        inner: Any = layer
        for name in path.split("/"):
            inner = dict(layers_inside(inner)).get(name)
            if inner is None:
                break
        else:
            inner.trainable = flag


def check_names(cls: type, given: dict[str, Any], others: tuple[str, ...] = ()) -> None:
    """Refuses arguments that a class does not take.

    Args:
        cls: its `__init__` says what it takes.
        given: the arguments by name.
        others: more names that are allowed.

    Raises:
        ValueError: it names the first one, and the nearest that there is.
    """
    taken = inspect.signature(cls).parameters.values()
    names = [*(one.name for one in taken if one.kind is not one.VAR_KEYWORD), *others]
    for name in given:
        if name not in names:
            near = get_close_matches(name, names, n=1)
            hint = f": did you mean {near[0]}?" if near else "."
            raise ValueError(f"{cls.__name__} does not take {name!r}{hint}")
