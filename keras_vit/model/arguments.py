"""Arguments of `ViT` and of its layers as a Keras user writes them: unknown names, whole numbers."""

import functools
import inspect
import types
from collections.abc import Callable, Iterable, Mapping
from difflib import get_close_matches
from typing import Annotated, Any, Union, get_args, get_origin, get_type_hints

from keras_vit.model.random_stream import python_random_kept
from keras_vit.validation import validated

OF_KERAS = ("name", "dtype", "trainable", "autocast", "activity_regularizer", "input_shape", "input_dim")
"""Arguments that every layer of Keras takes."""

PARTS = "parts"
"""The entry of a config for the state of the layers inside, see `keras_vit.model.layers.parts`."""

ELSEWHERE = {
    "num_layers": "depth",
    "layers": "depth",
    "hidden_dim": "dim",
    "embed_dim": "dim",
    "projection_dim": "dim",
    "hidden_size": "dim",
    "heads": "num_heads",
    "units": "dim",
    "img_size": "image_shape",
    "image_size": "image_shape",
    "classes": "num_classes",
    "layer_norm_epsilon": "norm_epsilon",
}
"""Names of other libraries that resemble none of ours, or the wrong one."""


def without_parts(config: Mapping[str, Any]) -> dict[str, Any]:
    """The config of a layer or a model of which nothing is frozen, quantized or has LoRA."""
    return {name: value for name, value in config.items() if name not in (PARTS, "trainable")}


SAME = {"epsilon": "norm_epsilon", "layer_norm_epsilon": "norm_epsilon"}
"""Names of Keras's and KerasHub's layers that mean the same as ours, and are taken."""


def check_names(cls: type, given: Iterable[str], others: Iterable[str] = OF_KERAS) -> None:
    """Refuses arguments that a class does not take.

    Args:
        cls: its signature says what it takes.
        given: names of arguments.
        others: more names that are allowed.

    Raises:
        TypeError: it names the first one that is unknown, and the nearest that there is.
    """
    taken = inspect.signature(cls).parameters.values()
    names = [one.name for one in taken if one.kind is not one.VAR_KEYWORD]
    names += [name for name in others if name not in names]
    for name in given:
        if name not in names:
            hint = _hint(name, names)
            raise TypeError(f"{cls.__name__}() got an unexpected keyword argument {name!r}{hint}")


def _hint(name: str, names: list[str]) -> str:
    near = [ELSEWHERE[name]] if ELSEWHERE.get(name) in names else get_close_matches(name, names, n=1)
    if near:
        return f": did you mean {near[0]!r}?"
    if name == "weights":
        return ": published weights are read by ViT.from_pretrained."
    return f". It takes {', '.join(names)}."


def plain(value: Any) -> Any:
    """A number of NumPy as a number of Python, an array as a list: the count of classes is often one."""
    if hasattr(value, "tolist"):
        return value.tolist()
    return value.item() if hasattr(value, "item") else value


def whole(value: Any, hint: Any) -> Any:
    """A number as its type wants it: 4.0, which tuners give, is 4 where only whole numbers are taken.

    Args:
        value: of an argument.
        hint: its type.

    Returns:
        The value as a plain number of Python, or as it was: what does not fit is not changed.
    """
    value = plain(value)
    kinds = kinds_of(hint)
    if isinstance(value, float) and value.is_integer() and int in kinds and float not in kinds:
        return int(value)
    return value


def whole_arguments(given: Mapping[str, Any], hints: Mapping[str, Any]) -> dict[str, Any]:
    """Arguments by name, each as `whole` gives it; a list or a tuple part by part."""
    made = {}
    for name, value in given.items():
        value = whole(value, hints.get(name, Any))
        if isinstance(value, list | tuple):
            parts = get_args(_bare(hints.get(name, Any)))
            value = type(value)(whole(one, parts[0] if parts else Any) for one in value)
        made[name] = value
    return made


def kinds_of(hint: Any) -> set[Any]:
    """The types that a hint allows: `int | None` allows int and NoneType."""
    hint = _bare(hint)
    if get_origin(hint) in (Union, types.UnionType):
        return set().union(*map(kinds_of, get_args(hint)))
    return {hint}


def _bare(hint: Any) -> Any:
    return _bare(get_args(hint)[0]) if get_origin(hint) is Annotated else hint


def checked_init(init: Callable[..., None], others: Iterable[str] = OF_KERAS) -> Callable[..., None]:
    """An `__init__` that refuses unknown names and values that are not of the types in its signature.

    Only numbers and truth values are checked here: other values have rules of their own.

    Args:
        init: of a class whose base class takes more by name.
        others: what that takes.
    """
    signature = inspect.signature(init)

    @functools.wraps(init)
    def checked(self: Any, *args: Any, **kwargs: Any) -> None:
        kwargs = _renamed(kwargs, signature.parameters)
        check_names(_class_of(self, checked), kwargs, others)
        try:
            bound = signature.bind(self, *args, **kwargs)
        except TypeError:
            init(self, *args, **kwargs)  # says what is missing
            raise
        hints = _hints(init)
        for name, value in bound.arguments.items():
            if name in hints:
                bound.arguments[name] = value = whole(value, hints[name])
                if kinds_of(hints[name]) <= {int, float, bool, types.NoneType}:
                    only(name, hints[name])(**{name: value})
        with python_random_kept():
            init(*bound.args, **bound.kwargs)

    # Keras does not follow `__wrapped__`.
    checked.__signature__ = signature  # type: ignore[attr-defined]
    return checked


def _renamed(given: Mapping[str, Any], names: Iterable[str]) -> dict[str, Any]:
    """Arguments with our names in place of those of `SAME`, unless ours is given too."""
    made: dict[str, Any] = {}
    for name, value in given.items():
        ours = SAME.get(name, name)
        is_free = ours in names and ours not in given and ours not in made
        made[ours if name not in names and is_free else name] = value
    return made


def _class_of(instance: Any, init: Callable[..., None]) -> type:
    """The class whose `__init__` is called, which may be above that of the instance."""
    return next(cls for cls in type(instance).__mro__ if vars(cls).get("__init__") is init)


@functools.cache
def _hints(init: Callable[..., None]) -> dict[str, Any]:
    return get_type_hints(init, include_extras=True)


@functools.cache
def only(name: str, hint: Any) -> type:
    """A dataclass with one field, which raises the errors of all dataclasses of `validated`."""
    return validated(type(name, (), {"__annotations__": {name: hint}}))
