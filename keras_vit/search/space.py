"""What is searched, as plain values: ranges, choices, and a budget."""

import math
from dataclasses import dataclass, fields, replace
from itertools import pairwise
from typing import Any

from keras_vit.data.augmentation import Augmentation
from keras_vit.errors import InputError, check_range
from keras_vit.training.recipe import Recipe


@dataclass(frozen=True)
class Range:
    """Numbers from `low` to `high`, both possible; whole numbers where both are.

    Args:
        low, high: the ends.
        default: what a search begins with.
        step: distance of neighbours; `None` for 1 of whole numbers, and none of others.
        log: whether equal factors are equally likely, as for a learning rate.

    Raises:
        InputError: the ends are no range, or the default is outside.
    """

    low: float
    high: float
    default: float
    step: float | None = None
    log: bool = False

    def __post_init__(self):
        if not self.low < self.high or (self.log and self.low <= 0):
            above = " above 0" if self.log else ""
            raise InputError(f"low{above} must be below high. Received: low={self.low}, high={self.high}")
        check_range("default", self.default, self.low, self.high)
        check_range("step", self.step, 0.0, None, open_low=True)

    @property
    def whole(self) -> bool:
        return isinstance(self.low, int) and isinstance(self.high, int)

    def declare(self, hp, name):
        sampling = "log" if self.log else "linear"
        if self.whole:
            step = None if self.log else int(self.step or 1)
            return hp.Int(name, self.low, self.high, step=step, sampling=sampling, default=int(self.default))
        return hp.Float(
            name, self.low, self.high, step=self.step, sampling=sampling, default=float(self.default)
        )


@dataclass(frozen=True)
class Choice:
    """One of some values; the first is the default.

    Raises:
        InputError: there are none, or some are equal.
    """

    values: tuple

    def __post_init__(self):
        if not self.values or len(set(self.values)) < len(self.values):
            raise InputError(f"values must be different ones, at least one. Received: values={self.values}")

    def declare(self, hp, name):
        return hp.Choice(name, list(self.values), default=self.values[0])


@dataclass(frozen=True)
class SearchSpace:
    """The ranges of a search. A field that is a plain value is frozen at it.

    Every point of the space can be built: `dim` goes in steps that all head counts, and the stem, divide.

    Raises:
        InputError: a field is neither a range nor a choice nor a value, or no `dim` is left.
    """

    depth: Range | Choice | int = Range(2, 8, default=6)
    num_heads: Choice | int = Choice((4, 2, 8))
    dim: Range | int = Range(32, 128, default=64)
    patch_size: Choice | int = 4
    """pixels a side; they must divide the image"""
    mlp_ratio: Choice | int = Choice((2, 4))
    """width of the MLP in units of dim"""
    stem: Choice | str = Choice(("conv", "linear"))
    drop_path_rate: Range | Choice | float = Range(0.0, 0.2, default=0.0, step=0.05)
    learning_rate: Range | Choice | float = Range(3e-4, 6e-3, default=2e-3, log=True)
    weight_decay: Range | Choice | float = Range(1e-3, 0.3, default=0.05, log=True)
    batch_size: Choice | int = Choice((32, 64))
    augmentation: Range | Choice | float = Range(0.0, 1.0, default=0.5, step=0.25)
    """strength: 0 for none, else flips and shifts by up to 0.2 times this share of the side"""
    epochs: int = 27
    """of the longest trial, over which the schedule of all is laid out"""
    max_parameters: int | None = None
    """larger models are not drawn"""

    def __post_init__(self):
        check_range("epochs", self.epochs, 1, None)
        check_range("max_parameters", self.max_parameters, 1, None)
        if isinstance(self.dim, int) and self.dim % self._dim_step():
            raise InputError(
                f"dim={self.dim} is no multiple of {self._dim_step()}, which num_heads and the stem want: "
                "change one of them."
            )
        if not self.dim_values():
            raise InputError(f"No dim in {self.dim} is a multiple of {self._dim_step()}: widen it.")

    def dim_values(self) -> range:
        """The widths that all other choices allow, from small to large."""
        low, high = _ends(self.dim)
        step = self._dim_step()
        return range(math.ceil(low / step) * step, math.floor(high / step) * step + 1, step)

    def _dim_step(self) -> int:
        halvings = max(int(math.log2(size)) for size in _all(self.patch_size))
        stem = 2**halvings if "conv" in _all(self.stem) else 1
        return math.lcm(*_all(self.num_heads), stem)

    def searched(self) -> list[str]:
        """The names of the fields that are not frozen."""
        return [name for name in _NAMES if isinstance(getattr(self, name), Range | Choice)]

    def declare(self, hp) -> dict[str, Any]:
        """Takes a point from KerasTuner.

        Args:
            hp: a `keras_tuner.HyperParameters`, which learns the space by it.

        Returns:
            Values by the names of the fields.
        """
        found = {}
        for name in _NAMES:
            field = getattr(self, name)
            if name == "dim" and isinstance(field, Range):
                found[name] = hp.Int(name, **self._dim_range())
            else:
                found[name] = field.declare(hp, name) if isinstance(field, Range | Choice) else field
        return found

    def _dim_range(self) -> dict[str, int]:
        widths = self.dim_values()
        default = min(widths, key=lambda width: abs(width - _default(self.dim)))
        return dict(min_value=widths[0], max_value=widths[-1], step=widths.step, default=default)


_NAMES = [field.name for field in fields(SearchSpace) if field.name not in ("epochs", "max_parameters")]


def vit_arguments(values: dict[str, Any]) -> dict[str, Any]:
    """The arguments of `ViT` at a point, without image_shape and num_classes."""
    return dict(
        depth=values["depth"],
        num_heads=values["num_heads"],
        dim=values["dim"],
        patch_size=values["patch_size"],
        mlp_dim=values["mlp_ratio"] * values["dim"],
        stem=values["stem"],
        drop_path_rate=values["drop_path_rate"],
    )


def recipe_at(values: dict[str, Any], epochs: int, base: Recipe | None = None) -> Recipe:
    """The recipe at a point, with what the space does not know taken from another."""
    strength = values["augmentation"]
    augmentation = Augmentation(flip="both", crop=0.2 * strength) if strength else Augmentation()
    return replace(
        base or Recipe(),
        learning_rate=values["learning_rate"],
        weight_decay=values["weight_decay"],
        batch_size=values["batch_size"],
        augmentation=augmentation,
        epochs=epochs,
    )


def count_parameters(values: dict[str, Any], image_shape: tuple[int, int, int], num_classes: int) -> int:
    """The parameters of the model at a point, without building it."""
    height, width, channels = image_shape
    dim, patch, depth = values["dim"], values["patch_size"], values["depth"]
    mlp_dim = values["mlp_ratio"] * dim
    tokens = (height // patch) * (width // patch) + 1
    if values["stem"] == "linear":
        stem = patch * patch * channels * dim + dim
    else:
        count = int(math.log2(patch))
        widths = [channels, *(dim // 2 ** (count - i) for i in range(count - 1)), dim]
        stem = sum(9 * before * after + 4 * after for before, after in pairwise(widths))
    block = 4 * dim + dim * 3 * dim + 3 * dim + dim * dim + dim + 2 * dim * mlp_dim + mlp_dim + dim
    return stem + dim + tokens * dim + depth * block + 2 * dim + dim * num_classes + num_classes


def _all(field) -> tuple:
    return field.values if isinstance(field, Choice) else (field,)


def _ends(field) -> tuple[float, float]:
    return (field.low, field.high) if isinstance(field, Range) else (field, field)


def _default(field):
    return field.default if isinstance(field, Range) else field
