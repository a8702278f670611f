"""What a field of a search space may hold: a range of numbers, a choice of values, or one value."""

import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Annotated, Any, get_args

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    GetCoreSchemaHandler,
    TypeAdapter,
    ValidationError,
    ValidationInfo,
)
from pydantic_core import CoreSchema, core_schema

from keras_vit.errors import InputError
from keras_vit.validation import OUT_OF_LIMITS, from_plain, limits, validated, words

Number = int | float


@validated
class Range:
    """Numbers from `low` to `high`, both included. If both are whole, so are all.

    Raises:
        InputError: the ends are not a range, the steps do not fit, or the default is not one of the numbers.
    """

    low: Number
    """smallest number"""
    high: Number
    """largest number"""
    default: Number
    """the number that a search begins with"""
    step: Annotated[Number, Field(gt=0)] | None = None
    """distance between neighbours, from low on; by default 1 for whole numbers, and none for others"""
    log: bool = False
    """whether equal factors are equally likely, as for a learning rate"""

    def __post_init__(self):
        if not self.low < self.high or (self.log and self.low <= 0):
            above = " above 0" if self.log else ""
            raise InputError(f"low{above} must be below high. Received: low={self.low}, high={self.high}")
        if not self.low <= self.default <= self.high:
            raise InputError(
                f"default must be {self.low} or more and {self.high} at most. "
                f"Received: default={self.default}"
            )
        if self.whole and not all(isinstance(value, int | None) for value in (self.default, self.step)):
            raise InputError(
                "A range of whole numbers has a whole default and step; write "
                f"low={float(self.low)} for a range of all numbers. Received: {self}"
            )
        if self.step is not None and self.log:
            raise InputError(f"step and log exclude each other: omit one. Received: {self}")
        if self.step is not None and not any(
            math.isclose(self.default, value, abs_tol=1e-12) for value in self.values()
        ):
            raise InputError(
                f"default must be low plus a number of steps. Received: default={self.default}, "
                f"low={self.low}, step={self.step}"
            )

    @property
    def whole(self) -> bool:
        """Whether all of its numbers are whole."""
        return isinstance(self.low, int) and isinstance(self.high, int)

    def values(self) -> list[Number]:
        """All numbers of a range that has steps."""
        step = self.step or 1
        # A part of a step is added: 0.2 // 0.05 is 3, and 3 * 0.05 is not 0.15.
        count = int((self.high - self.low) / step + 1e-9) + 1
        return [self.low + i * step if self.whole else round(self.low + i * step, 12) for i in range(count)]

    def declare(self, hp: Any, name: str) -> Number:
        """Takes a number from KerasTuner's `HyperParameters`."""
        sampling = "log" if self.log else "linear"
        if self.whole:
            return hp.Int(name, self.low, self.high, step=self.step, sampling=sampling, default=self.default)
        if self.step is not None:
            default = min(self.values(), key=lambda value: abs(value - self.default))
            return hp.Choice(name, self.values(), default=default)
        return hp.Float(name, self.low, self.high, sampling=sampling, default=float(self.default))


def _as_tuple(values: Any) -> Any:
    return tuple(values) if isinstance(values, list) else values


@validated
class Choice:
    """One of several values of one type.

    Raises:
        InputError: there are no values, some are equal or of another type, or the default is not one of them.
    """

    values: Annotated[tuple[Any, ...], BeforeValidator(_as_tuple)]
    """such as (2, 4); the default is moved to the front"""
    default: Any = None
    """the value that a search begins with; by default the first"""

    def __post_init__(self):
        kinds = {type(value) for value in self.values}
        if not self.values:
            raise InputError("values must hold at least one value. Received: values=()")
        if len(kinds) > 1 or kinds - {int, float, str}:
            raise InputError(
                "values must be of one type: whole numbers, numbers with a point, or words. "
                f"Received: values={self.values}"
            )
        if len(set(self.values)) < len(self.values):
            raise InputError(f"values must differ from each other. Received: values={self.values}")
        default = self.values[0] if self.default is None else self.default
        if type(default) not in kinds or default not in self.values:
            raise InputError(
                f"default must be one of the values. Received: default={default!r}, values={self.values}"
            )
        others = tuple(value for value in self.values if value != default)
        object.__setattr__(self, "values", (default, *others))
        object.__setattr__(self, "default", default)

    def declare(self, hp: Any, name: str) -> Any:
        """Takes a value from KerasTuner's `HyperParameters`."""
        return hp.Choice(name, list(self.values), default=self.default)


@dataclass(frozen=True)
class Each:
    """Type of each value of a field that may be searched: `Annotated[Range | int, Each(Count)]`.

    It checks a value that stands alone, the values of a `Choice` and the ends of a `Range`.

    Args:
        kind: a type with its limits.
    """

    kind: Any

    def __get_pydantic_core_schema__(self, source: Any, handler: GetCoreSchemaHandler) -> CoreSchema:
        searched = tuple(option for option in get_args(source) if option in (Range, Choice))
        return core_schema.with_info_plain_validator_function(partial(self._read, searched))

    def _read(self, searched: tuple[type, ...], value: Any, info: ValidationInfo) -> Any:
        name = str(info.field_name)
        if isinstance(value, Mapping):  # JSON
            try:
                value = from_plain(Choice if "values" in value else Range, value)
            except InputError as error:
                raise InputError(f"{name} is not a range or a choice: {error}") from error
        is_searched = isinstance(value, searched)
        for one in all_values(value) if is_searched else (value,):
            try:
                _adapter(self.kind).validate_python(one)
            except ValidationError as error:
                raise InputError(self._refusal(error, name, value, one, searched)) from None
        if isinstance(value, Range) and value.whole and _is_float(self.kind):
            raise InputError(
                f"{name}=Range({value.low}, {value.high}, ...) would be whole numbers only: write "
                f"{float(value.low)} and {float(value.high)}."
            )
        return value

    def read_text(self, name: str, text: str) -> Any:
        """The value that a text stands for, such as 6 for `"6"`.

        Raises:
            InputError: the text does not stand for a value of the type.
        """
        try:
            value = json.loads(text)
        except ValueError:
            value = text
        try:
            return _adapter(self.kind).validate_python(value)
        except ValidationError as error:
            raise InputError(self._refusal(error, name, value, value, ())) from None

    def _refusal(self, error: ValidationError, name: str, value: Any, one: Any, searched: Any) -> str:
        if error.errors()[0]["type"] in OUT_OF_LIMITS:
            return f"{name} must be {limits(self.kind)}. Received: {name}={one!r}"
        wanted = words(self.kind)
        if searched:
            wanted += f", or {' or '.join(f'a {kind.__name__}' for kind in searched)} of such values"
        return f"{name} must be {wanted}. Received: {name}={value!r}"


@cache
def _adapter(kind: Any) -> TypeAdapter:
    return TypeAdapter(kind, config=ConfigDict(strict=True, allow_inf_nan=False))


def _is_float(kind: Any) -> bool:
    return float in (kind, *get_args(kind))


def all_values(field: Any) -> tuple[Any, ...]:
    """The values of a choice, the ends of a range, or the one value that a field is frozen at."""
    if isinstance(field, Range):
        return (field.low, field.high)
    return field.values if isinstance(field, Choice) else (field,)
