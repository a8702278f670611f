"""What is searched, as plain values: ranges, choices, and budgets. Nothing here imports Keras."""

from collections.abc import Mapping
from dataclasses import replace
from functools import cache
from itertools import product
from typing import Annotated, Any, ClassVar, TypeVar

from pydantic import AfterValidator, Field

from keras_vit.errors import InputError
from keras_vit.model import cost
from keras_vit.model.config import SIZES, Stem, ViTConfig, check_conv_stem
from keras_vit.search.base_space import Space
from keras_vit.search.point import vit_arguments, vit_config
from keras_vit.search.ranges import Choice, Each, Range, all_values
from keras_vit.validation import Count, from_plain, hints, to_plain, validated

BUDGETS = ("max_parameters", "max_mult_adds")

# Fields that spaces share.
DropPathRate = Annotated[Range | Choice | float, Each(Annotated[float, Field(ge=0.0, le=0.99)])]
LearningRate = Annotated[Range | Choice | float, Each(Annotated[float, Field(gt=0.0, le=10.0)])]
WeightDecay = Annotated[Range | Choice | float, Each(Annotated[float, Field(ge=0.0, le=1.0)])]
Counts = Annotated[Range | Choice | int, Each(Count)]
Strength = Annotated[Range | Choice | float, Each(Annotated[float, Field(ge=0.0, le=1.0)])]


def _known_size(model: str) -> str:
    if model not in SIZES:
        raise InputError(f"model must be one of {', '.join(map(repr, SIZES))}. Received: model={model!r}")
    return model


@validated
class SearchSpace(Space):
    """What a search may change. A field that holds a plain value is frozen at it.

    Every point of the space can be built: `dim` is restricted to widths that all head counts, stems and patch
    sizes allow.

    Raises:
        InputError: a field holds a wrong type or is out of its limits, or no `dim` is left.
    """

    GIVEN: ClassVar = ("model",)
    BUDGETS: ClassVar = BUDGETS

    model: Annotated[str, AfterValidator(_known_size)] = "defect-conv"
    """the size in keras_vit.model.config that the points take their other arguments from"""
    depth: Counts = Range(2, 8, default=6)
    """number of encoder blocks"""
    num_heads: Annotated[Choice | int, Each(Count)] = Choice((4, 2, 8))
    """attention heads per block"""
    dim: Counts = Range(32, 128, default=64)
    """width of a token"""
    patch_size: Annotated[Choice | int, Each(Count)] = 4
    """side of a patch in pixels; it must divide the image"""
    mlp_ratio: Counts = Choice((2, 4))
    """width of the MLP as a multiple of dim"""
    stem: Annotated[Choice | str, Each(Stem)] = Choice(("conv", "linear"))
    """conv or linear"""
    drop_path_rate: DropPathRate = Range(0.0, 0.2, default=0.0, step=0.05)
    """stochastic depth of the last block"""
    learning_rate: LearningRate = Range(3e-4, 6e-3, default=2e-3, log=True)
    """the highest one of the schedule"""
    weight_decay: WeightDecay = Range(1e-3, 0.3, default=0.05, log=True)
    """of AdamW"""
    batch_size: Counts = Choice((32, 64))
    """images per step"""
    augmentation: Strength = Range(0.0, 1.0, default=0.5, step=0.25)
    """strength: 0 for none; otherwise flips, and shifts by up to 0.2 times this fraction of the side"""
    epochs: Counts = 27
    """of a trial, over which its schedule is laid out; with Hyperband a number, that of its longest trial"""
    max_parameters: Count | None = None
    """larger models are not drawn"""
    max_mult_adds: Count | None = None
    """per image, forward; models with more are not drawn"""

    def __post_init__(self):
        for stem, size in product(all_values(self.stem), all_values(self.patch_size)):
            if stem != "linear":
                check_conv_stem(dim=size, patch_size=size, stem=stem)  # of the patch alone: it divides itself
        if not isinstance(self.dim, Range):
            for dim in all_values(self.dim):
                _check_dim(self, dim)
        elif self.dim.log:
            raise InputError("dim has steps, and no log scale: omit log.")
        elif not self.dim_values():
            raise InputError(
                f"No dim in {self.dim} works with all choices of num_heads, patch_size and stem: widen it."
            )

    def dim_values(self) -> list[int]:
        """The widths that all other choices allow, from small to large."""
        return list(_dim_values(self))

    def declare_field(self, hp: Any, name: str) -> Any:
        if name == "dim" and isinstance(self.dim, Range):
            return hp.Int(name, **self._dim_range(self.dim))
        return super().declare_field(hp, name)

    def _dim_range(self, dim: Range) -> dict[str, int]:
        widths = self.dim_values()
        step = widths[1] - widths[0] if len(widths) > 1 else 1
        default = min(widths, key=lambda width: abs(width - dim.default))
        return dict(min_value=widths[0], max_value=widths[-1], step=step, default=default)

    def excess(
        self, values: Mapping[str, Any], image_shape: tuple[int, int, int], num_classes: int
    ) -> str | None:
        if self.max_parameters is None and self.max_mult_adds is None:
            return None
        model = vit_config(self.point(values), image_shape, num_classes)
        for limit, count, unit in (
            (self.max_parameters, cost.count_parameters, "parameters"),
            (self.max_mult_adds, cost.count_mult_adds, "mult-adds"),
        ):
            if limit is not None and (found := count(model)) > limit:
                return f"{found:,} {unit}, more than the {limit:,} {unit} of the budget"
        return None


@cache
def _dim_values(space: SearchSpace) -> tuple[int, ...]:
    if not isinstance(space.dim, Range):
        return tuple(sorted(all_values(space.dim)))
    found = []
    for dim in map(int, space.dim.values()):
        try:
            _check_dim(space, dim)
        except InputError:
            continue
        found.append(dim)
    return tuple(found)


def _check_dim(space: SearchSpace, dim: int) -> None:
    """Raises InputError if a width does not make a ViT with every choice of heads, patch and stem."""
    least = {"model": space.model, "dim": dim, "depth": 1, "mlp_ratio": 1, "drop_path_rate": 0.0}
    choices = map(all_values, (space.num_heads, space.patch_size, space.stem))
    for num_heads, patch_size, stem in product(*choices):
        values = {**least, "num_heads": num_heads, "patch_size": patch_size, "stem": stem}
        ViTConfig(image_shape=(patch_size, patch_size, 1), num_classes=1, **vit_arguments(values))


NAMES = SearchSpace.names()
"""The fields that can be searched."""

S = TypeVar("S", bound=Space)


def freeze(space: S, values: Mapping[str, Any]) -> S:
    """A space with some fields frozen.

    Args:
        space: is not changed.
        values: by the names of the fields. Text is read as the type of the field: `{"depth": "6"}`.

    Raises:
        InputError: there is no such field, or it cannot have such a value.

    Example:
        >>> freeze(SearchSpace(), {"depth": 6, "stem": "conv"}).depth
        6
    """
    names = space.names()
    for name in values:
        if name in names:
            continue
        if name in NAMES:  # of an architecture, in a space of fine-tuning
            raise InputError(
                f"The weights of --init decide {name}: omit it from --freeze, which takes {', '.join(names)}."
            )
        raise InputError(f"There is no {name} to freeze: the fields are {', '.join(names)}.")
    read = {name: _read(type(space), name, value) for name, value in values.items()}
    return replace(space, **read)  # type: ignore[type-var]


def _read(cls: type, name: str, value: Any) -> Any:
    if not isinstance(value, str):
        return value
    (each,) = (extra for extra in hints(cls)[name].__metadata__ if isinstance(extra, Each))
    return each.read_text(name, value)


def describe(space: Space) -> dict[str, Any]:
    """A space as plain values for JSON, from which `space_from_dict` makes it again.

    Returns:
        By the names of the fields: `{"low", "high", "default", "step", "log"}` for a range,
        `{"values", "default"}` for a choice, otherwise the value itself.
    """
    return to_plain(space)


def space_from_dict(plain: Mapping[str, Any]) -> SearchSpace:
    """The space that `describe` has described; missing fields have their defaults.

    Raises:
        InputError: a field is unknown, or does not hold what `describe` writes.
    """
    try:
        return from_plain(SearchSpace, plain)
    except InputError as error:
        raise InputError(f"The space cannot be used: {error}") from error
