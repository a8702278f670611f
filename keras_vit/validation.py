"""Dataclasses whose declarations check what a user typed: pydantic behind `InputError`.

A field is checked by its type alone: `depth: Annotated[int, Field(ge=1)]`. Nothing is converted (`"8"` is not
a number, 1 is not `True`), except a whole number for a float. A check of several fields belongs in
`__post_init__`.
"""

import dataclasses
import json
import math
import types
from collections.abc import Mapping
from functools import cache, wraps
from os import PathLike, fspath
from pathlib import Path
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
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, TypeAdapter, ValidationError
from pydantic.dataclasses import dataclass as pydantic_dataclass
from pydantic_core import ErrorDetails, PydanticCustomError

from keras_vit.errors import InputError

Count = Annotated[int, Field(ge=1)]
"""A whole number, 1 or more."""

Shape = Annotated[tuple[Count, Count, Count], Field(strict=False)]
"""(height, width, channels); a list is accepted too."""

Seed = Annotated[int, Field(ge=0, le=2**31 - 1)]
"""What the random generators of all backends accept."""

# Python keeps a byte of a path that is not UTF-8 as half a surrogate pair, which pydantic does not take in
# JSON: there, it is one of the last private characters instead.
_OUT_OF_JSON = {0x10FF80 + i: 0xDC80 + i for i in range(128)}
_INTO_JSON = {half: private for private, half in _OUT_OF_JSON.items()}


def _text(value: Any) -> Any:
    value = fspath(value) if isinstance(value, PathLike) else value
    return value.translate(_OUT_OF_JSON) if isinstance(value, str) else value


Text = Annotated[str, BeforeValidator(_text)]
"""Text; a `pathlib.Path` is accepted and kept as text."""

Folder = Annotated[Path, Field(strict=False)]
"""A `pathlib.Path`; text is accepted."""


def _whole(value: Any) -> Any:
    if value is not None and type(value) is not int:  # Python and pydantic take True for the 1 of a Literal
        raise PydanticCustomError("literal_error", "not a whole number")
    return value


Channels = Annotated[int, Field(ge=1, le=32), BeforeValidator(_whole)]
"""1 for gray images, 3 for RGB; other numbers are channels of measurement."""

WORDS = {int: "a whole number", float: "a number", bool: "true or false", str: "text", Path: "a path"}
OUT_OF_LIMITS = ("greater_than", "greater_than_equal", "less_than", "less_than_equal", "finite_number")
TOLD = "told"
"""The type of a `PydanticCustomError` whose message says in words what the value must be."""
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
    names = [field.name for field in dataclasses.fields(made) if field.init]  # type: ignore[arg-type]

    @wraps(check)
    def __init__(self, *arguments, **given):
        named = dict(zip(names, arguments, strict=False))  # an error names the field, not its position
        if len(arguments) > len(names) or named.keys() & given.keys():
            raise TypeError(f"{cls.__name__}() got too many arguments")
        given = named | given
        try:
            check(self, **given)
        except ValidationError as error:
            first = error.errors()[0]
            if first["type"] in UNKNOWN + MISSING and isinstance(first["loc"][-1], str):
                raise TypeError(f"{cls.__name__}() {first['msg'].lower()}: {first['loc'][-1]}") from None
            raise InputError(sentence(error, made, given)) from None

    made.__init__ = __init__  # type: ignore[method-assign]
    return made  # type: ignore[return-value]


def to_plain(value: Any) -> Any:
    """A dataclass of `validated` as JSON has it: dicts, lists, text and numbers."""
    return _adapter(type(value)).dump_python(value, mode="json")  # type: ignore[arg-type]


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
        # As text: only there does the strict mode of pydantic accept a list for a tuple.
        text = json.dumps(plain, ensure_ascii=False).translate(_INTO_JSON)
        return _adapter(cls).validate_json(text)  # type: ignore[arg-type]
    except ValidationError as error:
        raise InputError(sentence(error, cls, plain, from_json=True)) from None


class Record(BaseModel):
    """The schema of a JSON object: what of it is read, with its limits. Other entries may be there too.

    Nothing is converted, and numbers are finite. See `check_plain`.
    """

    model_config = ConfigDict(strict=True, extra="ignore", allow_inf_nan=False, protected_namespaces=())


def check_plain(kind: Any, plain: Any) -> None:
    """Checks what JSON or a table holds against its schema.

    Args:
        kind: a `Record`, or another type, as `list[...]`, which is as strict as a `Record`.
        plain: dicts, lists, texts and numbers.

    Raises:
        InputError: a value is missing, of another type, or out of its range: half a sentence that names it,
            such as `calibration.temperature should be greater than 0, not -1.0`.
    """
    try:
        _strict_adapter(kind).validate_python(plain)
    except ValidationError as error:
        first = _most_exact(error.errors(include_url=False))
        where = ".".join(map(str, first["loc"]))
        if first["type"] in MISSING:
            raise InputError(f"{where} is missing") from None
        if first["type"] == "value_error":
            raise InputError(": ".join(filter(None, (where, str(first["ctx"]["error"]))))) from None
        if first["type"] in ("model_type", "model_attributes_type"):
            raise InputError(f"{where or 'it'} is not a JSON object") from None
        said = first["msg"].removeprefix("Input ").lower().replace("valid ", "", 1)
        said = said.replace("a integer", "an integer")
        raise InputError(f"{where or 'it'} {said}, not {_short(first['input'])}") from None


def _short(value: Any) -> str:
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."


def sentence(error: ValidationError, cls: type, given: Mapping[str, Any], from_json: bool = False) -> str:
    """The first of pydantic's complaints as one sentence.

    Args:
        error: what pydantic raised.
        cls: the dataclass that was to be made.
        given: its values by name.
        from_json: whether they come from a JSON file: the sentence then has the words of JSON.
    """
    errors = error.errors(include_url=False)
    first = _most_exact(errors)
    if first["type"] == "value_error":
        return str(first["ctx"]["error"])  # of a __post_init__
    if first["type"] in UNKNOWN:
        same = {str(one["loc"][-1]) for one in errors if one["type"] in UNKNOWN}
        return f"it has unknown settings: {', '.join(sorted(same))}."
    if first["type"] in MISSING and isinstance(first["loc"][-1], str):
        return f"the setting {first['loc'][-1]} is missing."
    name, hint, value = _field(first, cls, given)
    wanted = limits(hint) if first["type"] in OUT_OF_LIMITS else None
    if wanted and (own := _limits_of_one(hint, first["loc"][-1])):
        name_of_one, wanted = own
        return f"the {name_of_one} number of {name} must be {wanted}. Received: {name}={value!r}"
    if first["type"] == "finite_number":
        wanted = wanted or "a finite number"
    if first["type"] == TOLD:
        wanted = first["msg"]
    return f"{name} must be {wanted or words(hint, from_json)}. Received: {name}={value!r}"


def _most_exact(errors: list[ErrorDetails]) -> ErrorDetails:
    """Of the complaints about one field, which a type of several parts has, the one about limits."""
    same = [one for one in errors if one["loc"][:1] == errors[0]["loc"][:1]]
    return next((one for one in same if one["type"] in (*OUT_OF_LIMITS, TOLD)), errors[0])


def _field(found: ErrorDetails, cls: type, given: Mapping[str, Any]) -> tuple[str, Any, Any]:
    """Name, type and value of the field that a complaint is about."""
    name, hint, value = cls.__name__, cls, given
    for step in found["loc"]:
        if not dataclasses.is_dataclass(hint) or step not in hints(hint):
            break
        name, hint = str(step), hints(hint)[str(step)]
        value = value.get(name, found["input"]) if isinstance(value, Mapping) else found["input"]
    if dataclasses.is_dataclass(hint) and isinstance(value, Mapping):
        value = found["input"]
    return name, hint, value


@cache
def hints(cls: type) -> dict[str, Any]:
    """The type of each field of a dataclass, with its limits."""
    return get_type_hints(cls, include_extras=True)


def helps(cls: Any) -> dict[str, str]:
    """The help text of each field of a dataclass of `validated`."""
    return {name: field.description or "" for name, field in cls.__pydantic_fields__.items()}


@cache
def _adapter(cls: Any) -> TypeAdapter:
    return TypeAdapter(cls)


@cache
def _strict_adapter(kind: Any) -> TypeAdapter:
    if isinstance(kind, type) and issubclass(kind, BaseModel):
        return TypeAdapter(kind)
    return TypeAdapter(kind, config=Record.model_config)  # a `Record` has its own


def limits(hint: Any) -> str | None:
    """The range of a number in words, such as `"above 0.0 and 10.0 at most"`; `None` if it has none."""
    if get_origin(hint) in (Union, types.UnionType, tuple):
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
    return " and ".join(filter(None, (low, high))) or limits(get_args(hint)[0])


ORDINALS = ("first", "second", "third")


def _limits_of_one(hint: Any, place: int | str) -> tuple[str, str] | None:
    """Which number of a tuple is wrong and its limits in words, where the numbers have different limits."""
    if get_origin(hint) is Annotated:
        hint = get_args(hint)[0]
    found = [limits(option) for option in get_args(hint)] if get_origin(hint) is tuple else []
    if len(set(found)) < 2 or not isinstance(place, int) or place >= len(ORDINALS):
        return None
    return ORDINALS[place], str(found[place])


def words(hint: Any, from_json: bool = False) -> str:
    """A type in words: `"a whole number or None"`.

    Args:
        hint: the type of a field.
        from_json: whether the words are those of JSON: `"a whole number or null"`.
    """
    options, origin = get_args(hint), get_origin(hint)
    if origin is Annotated:
        return words(options[0], from_json)
    if origin is Literal:
        return f"one of {', '.join(map(repr, options))}" if len(options) > 1 else repr(options[0])
    if origin in (Union, types.UnionType):
        options = tuple(option for option in options if option is not int or float not in options)
        return " or ".join(dict.fromkeys(words(option, from_json) for option in options))
    if origin is tuple:
        if Ellipsis in options:
            choices = get_args(options[0]) if get_origin(options[0]) is Literal else ()
            return f"a list of {', '.join(map(repr, choices))}" if choices else "a list"
        return f"a list of {len(options)} {words(options[0]).removeprefix('a ')}s"
    if hint is type(None):
        return "null" if from_json else "None"
    if origin is dict or (from_json and dataclasses.is_dataclass(hint)):
        return "a JSON object" if from_json else "a dict"
    return WORDS.get(hint) or _with_article(getattr(hint, "__name__", str(hint)))


def _with_article(name: str) -> str:
    return f"an {name}" if name[0] in "AEIOU" else f"a {name}"


def not_negative(value: Any) -> float | None:
    """A value of a table of numbers that are finite and 0 or more; `None` if it is another."""
    try:
        found = math.nan if isinstance(value, bool) else float(value)
    except (TypeError, ValueError):
        return None
    return found if 0 <= found < math.inf else None
