"""What is searched, as plain values: ranges, choices, and budgets. Nothing here imports Keras."""

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields, replace
from typing import Any

from keras_vit.errors import InputError, check_choice, check_range
from keras_vit.model.config import SIZES
from keras_vit.search.point import count_mult_adds, count_parameters

STEMS = ("conv", "linear")
BUDGETS = ("max_parameters", "max_mult_adds")

WHOLE_NUMBERS = ("depth", "num_heads", "dim", "patch_size", "mlp_ratio", "batch_size", "epochs")
# Lowest, highest, and whether the lowest itself is left out.
NUMBERS: dict[str, tuple[float, float, bool]] = {
    "drop_path_rate": (0.0, 0.99, False),
    "learning_rate": (0.0, 10.0, True),
    "weight_decay": (0.0, 1.0, False),
    "augmentation": (0.0, 1.0, False),
}


def _is_whole(value) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both possible; whole numbers where both are.

    Args:
        low, high: the ends.
        default: what a search begins with.
        step: distance of neighbours, from `low` on; `None` for 1 of whole numbers, and none of others.
        log: whether equal factors are equally likely, as for a learning rate.

    Raises:
        InputError: the ends are no range, the steps do not fit, or the default is none of the numbers.
    """

    low: float
    high: float
    default: float
    step: float | None = None
    log: bool = False

    def __post_init__(self):
        numbers = [self.low, self.high, self.default, *([] if self.step is None else [self.step])]
        if not all(_is_number(number) and math.isfinite(number) for number in numbers):
            raise InputError(f"low, high, default and step must be finite numbers. Received: {self}")
        if not self.low < self.high or (self.log and self.low <= 0):
            above = " above 0" if self.log else ""
            raise InputError(f"low{above} must be below high. Received: low={self.low}, high={self.high}")
        check_range("default", self.default, self.low, self.high)
        check_range("step", self.step, 0.0, None, open_low=True)
        if self.whole and not all(map(_is_whole, numbers)):
            raise InputError(
                f"A range of whole numbers has a whole default and step; write low={float(self.low)} for one "
                f"of all numbers. Received: {self}"
            )
        if self.step is not None:
            self._check_steps()

    def _check_steps(self):
        if self.log:
            raise InputError(f"step and log exclude each other: leave one out. Received: {self}")
        if not any(math.isclose(self.default, value, abs_tol=1e-12) for value in self.values()):
            raise InputError(
                f"default must be low plus some steps. Received: default={self.default}, low={self.low}, "
                f"step={self.step}"
            )

    @property
    def whole(self) -> bool:
        return _is_whole(self.low) and _is_whole(self.high)

    def values(self) -> list[float]:
        """All numbers of a range that has steps."""
        step = self.step or 1
        # A share of a step more: 0.2 // 0.05 is 3, and 3 * 0.05 is not 0.15.
        count = int((self.high - self.low) / step + 1e-9) + 1
        return [self.low + i * step if self.whole else round(self.low + i * step, 12) for i in range(count)]

    def declare(self, hp, name):
        sampling = "log" if self.log else "linear"
        if self.whole:
            return hp.Int(name, self.low, self.high, step=self.step, sampling=sampling, default=self.default)
        if self.step is not None:
            default = min(self.values(), key=lambda value: abs(value - self.default))
            return hp.Choice(name, self.values(), default=default)
        return hp.Float(name, self.low, self.high, sampling=sampling, default=float(self.default))


@dataclass(frozen=True)
class Choice:
    """One of some values of one kind; the first is the default.

    Raises:
        InputError: there are none, or some are equal or of another kind.
    """

    values: tuple

    def __post_init__(self):
        if not isinstance(self.values, list | tuple):
            raise InputError(f"values must be a tuple, such as (2, 4). Received: values={self.values!r}")
        object.__setattr__(self, "values", tuple(self.values))
        kinds = {type(value) for value in self.values}
        if len(kinds) > 1 or kinds - {int, float, str}:
            raise InputError(
                "values must be of one kind: whole numbers, numbers with a point, or words. "
                f"Received: values={self.values}"
            )
        if not self.values or len(set(self.values)) < len(self.values):
            raise InputError(f"values must be different ones, at least one. Received: values={self.values}")

    def declare(self, hp, name):
        return hp.Choice(name, list(self.values), default=self.values[0])


@dataclass(frozen=True)
class SearchSpace:
    """The ranges of a search. A field that is a plain value is frozen at it.

    Every point of the space can be built: `dim` goes in steps that all head counts, and the stem, divide.

    Raises:
        InputError: a field is neither a range nor a choice nor a value, or is out of its limits; no `dim` is
            left; a patch size is none for the conv stem.
    """

    model: str = "defect-conv"
    """the size in keras_vit.model.config whose other arguments the points have"""
    depth: Range | Choice | int = Range(2, 8, default=6)
    num_heads: Choice | int = Choice((4, 2, 8))
    dim: Range | Choice | int = Range(32, 128, default=64)
    patch_size: Choice | int = 4
    """pixels a side; they must divide the image"""
    mlp_ratio: Range | Choice | int = Choice((2, 4))
    """width of the MLP in units of dim"""
    stem: Choice | str = Choice(("conv", "linear"))
    drop_path_rate: Range | Choice | float = Range(0.0, 0.2, default=0.0, step=0.05)
    learning_rate: Range | Choice | float = Range(3e-4, 6e-3, default=2e-3, log=True)
    weight_decay: Range | Choice | float = Range(1e-3, 0.3, default=0.05, log=True)
    batch_size: Range | Choice | int = Choice((32, 64))
    augmentation: Range | Choice | float = Range(0.0, 1.0, default=0.5, step=0.25)
    """strength: 0 for none, else flips and shifts by up to 0.2 times this share of the side"""
    epochs: Range | Choice | int = 27
    """of a trial, over which its schedule is laid out; a plain number with Hyperband: of its longest trial"""
    max_parameters: int | None = None
    """larger models are not drawn"""
    max_mult_adds: int | None = None
    """of one image, forward; dearer models are not drawn"""

    def __post_init__(self):
        check_choice("model", self.model, tuple(SIZES))
        for name in NAMES:
            _check_field(name, getattr(self, name))
        for name in BUDGETS:
            budget = getattr(self, name)
            if budget is not None and not _is_whole(budget):
                raise InputError(f"{name} must be a whole number. Received: {name}={budget!r}")
            check_range(name, budget, 1, None)
        self._check_patches()
        self._check_dim()

    def _check_patches(self):
        for size in _all(self.patch_size):
            if "conv" in _all(self.stem) and (size < 2 or size & (size - 1)):
                raise InputError(
                    f"patch_size={size} is no power of two, which the conv stem wants: take it out, or "
                    'freeze stem="linear".'
                )

    def _check_dim(self):
        step = self._dim_step()
        if isinstance(self.dim, Range):
            if self.dim.log:
                raise InputError("dim goes in steps, and has no log scale: leave log out.")
            if not self.dim_values():
                raise InputError(f"No dim in {self.dim} is a multiple of {step}: widen it.")
            return
        for dim in _all(self.dim):
            if dim % step:
                raise InputError(
                    f"dim={dim} is no multiple of {step}, which num_heads and the stem want: "
                    "change one of them."
                )

    def dim_values(self) -> list[int]:
        """The widths that all other choices allow, from small to large."""
        if not isinstance(self.dim, Range):
            return sorted(_all(self.dim))
        step = self._dim_step()
        return [int(dim) for dim in self.dim.values() if dim % step == 0]

    def batch_sizes(self) -> list[int]:
        """All that a point may have."""
        sizes = self.batch_size
        return [int(size) for size in (sizes.values() if isinstance(sizes, Range) else _all(sizes))]

    def _dim_step(self) -> int:
        stem = max(_all(self.patch_size)) if "conv" in _all(self.stem) else 1
        # Heads of a width of their own divide nothing.
        heads = (1,) if SIZES[self.model].arguments.get("head_dim") else _all(self.num_heads)
        return math.lcm(*heads, stem)

    def searched(self) -> list[str]:
        """The names of the fields that are not frozen."""
        return [name for name in NAMES if isinstance(getattr(self, name), Range | Choice)]

    def declare(self, hp) -> dict[str, Any]:
        """Takes a point from KerasTuner.

        Args:
            hp: a `keras_tuner.HyperParameters`, which learns the space by it.

        Returns:
            The point: values by the names of the fields, `model` and those that are frozen too.
        """
        found = {"model": self.model}
        for name in NAMES:
            field = getattr(self, name)
            if name == "dim" and isinstance(field, Range):
                found[name] = hp.Int(name, **self._dim_range(field))
            else:
                found[name] = field.declare(hp, name) if isinstance(field, Range | Choice) else field
        return found

    def _dim_range(self, dim: Range) -> dict[str, int]:
        widths = self.dim_values()
        step = widths[1] - widths[0] if len(widths) > 1 else 1
        default = min(widths, key=lambda width: abs(width - dim.default))
        return dict(min_value=widths[0], max_value=widths[-1], step=step, default=default)

    def point(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """A whole point from values by name, at least those that are searched; other names are left out."""
        return {name: values.get(name, getattr(self, name)) for name in ("model", *NAMES)}

    def default_point(self) -> dict[str, Any]:
        """The point that is tried where nothing is known yet."""
        return self.declare(_Defaults())

    def excess(
        self, values: Mapping[str, Any], image_shape: tuple[int, int, int], num_classes: int
    ) -> str | None:
        """What the model at a point has too much of, in words; `None` where it is within the budgets.

        Args:
            values: as for `point`.
            image_shape: (height, width, channels).
            num_classes: how many logits.
        """
        point = self.point(values)
        for limit, count, unit in (
            (self.max_parameters, count_parameters, "parameters"),
            (self.max_mult_adds, count_mult_adds, "mult-adds"),
        ):
            if limit is not None:
                found = count(point, image_shape, num_classes)
                if found > limit:
                    return f"{found:,} {unit}, more than the {limit:,} {unit} of the budget"
        return None


class _Defaults:
    """Stands in for KerasTuner's HyperParameters where that is not imported: everything is as by default."""

    def _default(self, name, *limits, default, **options):
        return default

    Int = Float = Choice = _default


NAMES = [field.name for field in fields(SearchSpace) if field.name not in ("model", *BUDGETS)]
"""Of the fields that can be searched."""


def freeze(space: SearchSpace, values: Mapping[str, Any]) -> SearchSpace:
    """A space with some fields frozen.

    Args:
        space: stays as it is.
        values: by the names of the fields; text is read as the kind of the field: `{"depth": "6"}`.

    Raises:
        InputError: there is no such field to search, or a value is none for it.

    Example:
        >>> freeze(SearchSpace(), {"depth": 6, "stem": "conv"}).depth
        6
    """
    for name in values:
        if name not in NAMES:
            raise InputError(f"There is no {name} to freeze: the fields are {', '.join(NAMES)}.")
    return replace(space, **{name: _read(name, value) for name, value in values.items()})


def describe(space: SearchSpace) -> dict[str, Any]:
    """A space as plain values for JSON, from which `space_from_dict` makes it again.

    Returns:
        By the names of the fields: `{"low", "high", "default", "step", "log"}` for a range,
        `{"values", "default"}` for a choice, else the value itself.
    """
    return {field.name: _plain(getattr(space, field.name)) for field in fields(space)}


def space_from_dict(plain: Mapping[str, Any]) -> SearchSpace:
    """The space that `describe` told of; fields that are not there have their defaults.

    Raises:
        InputError: a field is unknown, or none of what `describe` gives.
    """
    if not isinstance(plain, Mapping):
        raise InputError(f"A space is told as names and fields. Received: {plain!r}")
    unknown = plain.keys() - {field.name for field in fields(SearchSpace)}
    if unknown:
        raise InputError(f"A space has no {', '.join(sorted(unknown))}: its fields are {', '.join(NAMES)}.")
    return SearchSpace(**{name: _from_plain(name, value) for name, value in plain.items()})


def _plain(field):
    if isinstance(field, Choice):
        return {"values": list(field.values), "default": field.values[0]}
    return asdict(field) if isinstance(field, Range) else field


def _from_plain(name, told):
    if not isinstance(told, Mapping):
        return told
    try:
        if "values" not in told:
            return Range(**told)
        values = list(told["values"])
        default = told.get("default", values[0])
        values.insert(0, values.pop(values.index(default)))
        return Choice(tuple(values))
    except (TypeError, ValueError, IndexError) as error:
        reason = str(error) if isinstance(error, InputError) else "give low, high and default, or values."
        raise InputError(f"{name} is no range and no choice: {reason} Received: {dict(told)}") from error


def _read(name, value):
    if not isinstance(value, str) or name == "stem":
        return value
    kind, called = (int, "whole number") if name in WHOLE_NUMBERS else (float, "number")
    try:
        return kind(value)
    except ValueError:
        raise InputError(f"{name} must be a {called}. Received: {name}={value!r}") from None


def _check_field(name, field):
    """Raises InputError where a field is of a wrong kind, or a value in it out of its limits."""
    kinds = (Choice,) if name in ("num_heads", "patch_size", "stem") else (Range, Choice)
    values = [field]
    if isinstance(field, kinds):
        values = [field.low, field.high] if isinstance(field, Range) else list(field.values)
    called, is_right = (
        ("a word", lambda value: isinstance(value, str))
        if name == "stem"
        else ("a whole number", _is_whole)
        if name in WHOLE_NUMBERS
        else ("a number", _is_number)
    )
    if not all(map(is_right, values)):
        wanted = " or ".join(f"a {kind.__name__}" for kind in kinds)
        raise InputError(f"{name} must be {called}, or {wanted} of such. Received: {name}={field!r}")
    for value in values:
        if name == "stem":
            check_choice(name, value, STEMS)
        else:
            check_range(name, value, *NUMBERS.get(name, (1, None)))
    if isinstance(field, Range) and field.whole and name in NUMBERS:
        raise InputError(
            f"{name}=Range({field.low}, {field.high}, ...) would be whole numbers only: write "
            f"{float(field.low)} and {float(field.high)}."
        )


def _all(field) -> tuple:
    return field.values if isinstance(field, Choice) else (field,)
