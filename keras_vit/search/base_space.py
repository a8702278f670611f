"""What all search spaces have in common: fields that are searched or frozen. Nothing here imports Keras."""

from collections.abc import Mapping
from dataclasses import fields
from typing import Any, ClassVar

from keras_vit.search.ranges import Choice, Range, all_values


class Space:
    """A dataclass of `validated` whose fields hold a range, a choice, or the value that they are frozen at.

    Attributes:
        GIVEN: the fields that every point has and no search changes.
        BUDGETS: the fields that are limits, not part of a point.
    """

    GIVEN: ClassVar[tuple[str, ...]] = ()
    BUDGETS: ClassVar[tuple[str, ...]] = ()

    batch_size: Any
    epochs: Any

    @classmethod
    def names(cls) -> list[str]:
        """The fields that can be searched."""
        others = (*cls.GIVEN, *cls.BUDGETS)
        return [field.name for field in fields(cls) if field.name not in others]  # type: ignore[arg-type]

    def batch_sizes(self) -> list[int]:
        """All batch sizes that a point may have."""
        sizes = self.batch_size
        return [int(size) for size in (sizes.values() if isinstance(sizes, Range) else all_values(sizes))]

    def searched(self) -> list[str]:
        """The names of the fields that are not frozen."""
        return [name for name in self.names() if isinstance(getattr(self, name), Range | Choice)]

    def declare(self, hp: Any) -> dict[str, Any]:
        """Takes a point from KerasTuner.

        Args:
            hp: a `keras_tuner.HyperParameters`, to which the fields of the space are added.

        Returns:
            The point: values by the names of the fields, those of `GIVEN` and frozen fields included.
        """
        found = {name: getattr(self, name) for name in self.GIVEN}
        return found | {name: self.declare_field(hp, name) for name in self.names()}

    def declare_field(self, hp: Any, name: str) -> Any:
        """Takes the value of one field from KerasTuner."""
        field = getattr(self, name)
        return field.declare(hp, name) if isinstance(field, Range | Choice) else field

    def point(self, values: Mapping[str, Any]) -> dict[str, Any]:
        """The whole point of these values by name, which hold at least the searched fields.

        Other names are ignored.
        """
        return {name: values.get(name, getattr(self, name)) for name in (*self.GIVEN, *self.names())}

    def default_point(self) -> dict[str, Any]:
        """The point that a search tries first."""
        return self.declare(_Defaults())

    def excess(
        self, values: Mapping[str, Any], image_shape: tuple[int, int, int], num_classes: int
    ) -> str | None:
        """What the model at a point has too much of, in words; `None` if it is within the budgets.

        Args:
            values: as for `point`.
            image_shape: (height, width, channels).
            num_classes: number of logits.
        """
        return None


class _Defaults:
    """Stands in for KerasTuner's HyperParameters if that is not imported: every value is the default."""

    def _default(self, name: str, *limits: Any, default: Any, **options: Any) -> Any:
        return default

    Int = Float = Choice = _default
