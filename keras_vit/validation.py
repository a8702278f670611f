"""Dataclasses whose declarations check what a user typed: pydantic behind `InputError`.

A field is checked by its type alone: `depth: Annotated[int, Field(ge=1)]`. Nothing is converted (`"8"` is not
a number, 1 is not `True`), except a whole number where a float is wanted. What one field cannot say stands in
`__post_init__`.
"""

import dataclasses
import json
import types
from collections.abc import Mapping
from functools import cache, wraps
from typing import (
    Annotated,
    Any,
    Literal,
    TypeVar,
    Union,
    dataclass_transform,
    get_args,
    get_origin,
    get_type_hints,
)

import annotated_types
from pydantic import ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass

from keras_vit.errors import InputError

Count = Annotated[int, Field(ge=1)]
"""A whole number, 1 or more."""

Shape = Annotated[tuple[Count, Count, Count], Field(strict=False)]
"""(height, width, channels); a list is taken too."""

Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""What a random generator of every backend takes."""

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", type(None): "null"}
OUT_OF_LIMITS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number")
UNKNOWN = ("unexpected_keyword_argument", "unexpected_positional_argument")
MISSING = ("missing", "missing_argument")

T = TypeVar("T")


@dataclass_transform(frozen_default=True, field_specifiers=(dataclasses.field,))
def validated(cls: type[T]) -> type[T]:
    """Makes a frozen dataclass whose fields are checked by their types.

    The class raises `InputError`, one sentence, for a value that does not fit, and `TypeError`, as any class
    does, for an argument that it does not have. The text below a field is its help.

    Example:
        >>> @validated
        ... class Recipe:
        ...     epochs: Count = 30
        >>> Recipe(epochs=0)
        InputError: epochs must be 1 or more. Received: epochs=0
    """
    config = ConfigDict(
        strict=True, extra="forbid", allow_inf_nan=False, arbitrary_types_allowed=True,
        use_attribute_docstrings=True,
    )  # fmt: skip
    made = pydantic_dataclass(frozen=True, config=config)(cls)
    check = made.__init__

    @wraps(check)
    def __init__(self, *arguments, **given):
        try:
            check(self, *arguments, **given)
        except ValidationError as error:
            first = error.errors()[0]
            if first["type"] in UNKNOWN + MISSING and isinstance(first["loc"][-1], str):
                raise TypeError(f"{cls.__name__}() {first['msg'].lower()}: {first['loc'][-1]}") from None
            raise InputError(sentence(error, made, given)) from None

    made.__init__ = __init__  # type: ignore[misc]
    return made


def to_plain(value: Any) -> Any:
    """A dataclass of `validated` as JSON has it: dicts, lists, text and numbers."""
    return _adapter(type(value)).dump_python(value, mode="json")


def from_plain(cls: type[T], plain: Any) -> T:
    """The dataclass of `validated` that JSON holds; fields that are missing have their defaults.

    Args:
        cls: the dataclass.
        plain: as `json.loads` gives it.

    Raises:
        InputError: a setting is unknown, missing, or of another type.
    """
    if not isinstance(plain, Mapping):
        raise InputError("it holds no settings by name.")
    try:
        # As text: only there does pydantic's strict mode take a list for a tuple.
        return _adapter(cls).validate_json(json.dumps(plain))
    except ValidationError as error:
        raise InputError(sentence(error, cls, plain)) from None


def sentence(error: ValidationError, cls: type, given: Mapping[str, Any]) -> str:
    """The first of pydantic's complaints as one sentence.

    Args:
        error: what pydantic raised.
        cls: the dataclass that was to be made.
        given: what it was to be made of, by name.
    """
    first = error.errors()[0]
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])  # of a __post_init__
    if first["type"] in UNKNOWN:
        same = [str(one["loc"][-1]) for one in error.errors() if one["type"] in UNKNOWN]
        return f"it has unknown settings: {', '.join(sorted(same))}."
    if first["type"] in MISSING and isinstance(first["loc"][-1], str):
        return f"the setting {first['loc'][-1]} is missing."
    name, hint, value = cls.__name__, cls, given
    for step in first["loc"]:
        if not dataclasses.is_dataclass(hint) or step not in hints(hint):
            break
        name, hint = str(step), hints(hint)[step]
        value = value.get(name, first["input"]) if isinstance(value, Mapping) else first["input"]
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        value = first["input"]
    wanted = limits(hint) if first["type"] in OUT_OF_LIMITS else None
    if first["type"] == "finite_number":
        wanted = wanted or "a finite number"
    return f"{name} must be {wanted or words(hint)}. Received: {name}={value!r}"


@cache
def hints(cls: type) -> dict[str, Any]:
    """The type of each field of a dataclass, with its limits."""
    return get_type_hints(cls, include_extras=True)


def helps(cls: Any) -> dict[str, str]:
    """The help text of each field of a dataclass of `validated`."""
    return {name: field.description or "" for name, field in cls.__pydantic_fields__.items()}


@cache
def _adapter(cls: type) -> TypeAdapter:
    return TypeAdapter(cls)


def limits(hint: Any) -> str | None:
    """The range of a number in words, such as `"above 0.0 and 10.0 at most"`; `None` where it has none."""
    if get_origin(hint) in (Union, types.UnionType):
        return next(filter(None, map(limits, get_args(hint))), None)
    if get_origin(hint) is not Annotated:
        return None
    low = high = ""
    for metadata in get_args(hint)[1:]:
        for limit in getattr(metadata, "metadata", [metadata]):
            match limit:
                case annotated_types.Ge(ge):
                    low = f"{ge} or more"
                case annotated_types.Gt(gt):
                    low = f"above {gt}"
                case annotated_types.Le(le):
                    high = f"{le} at most"
                case annotated_types.Lt(lt):
                    high = f"below {lt}"
    return " and ".join(filter(None, (low, high))) or None


def words(hint: Any) -> str:
    """A type in words: `"a whole number or null"`."""
    options, origin = get_args(hint), get_origin(hint)
    if origin is Annotated:
        return words(options[0])
    if origin is Literal:
        return f"one of {', '.join(map(repr, options))}"
    if origin in (Union, types.UnionType):
        return " or ".join(dict.fromkeys(map(words, options)))
    if origin is tuple:
        if Ellipsis in options:
            return "a list"
        return f"a list of {len(options)} {words(options[0]).removeprefix('a ')}s"
    if origin is dict:
        return "settings by name"
    return WORDS.get(hint, f"a {getattr(hint, '__name__', hint)}")
