"""What shapes of tensors tell, for the families that name each part of a block alike."""

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from keras_vit.errors import InputError, first_line
from keras_vit.model.config import ViTConfig
from keras_vit.model.weights.told import NotTold, Told


def axes(tensors: Mapping[str, np.ndarray], name: str, count: int, what: str) -> tuple[int, ...]:
    """The shape of a tensor that has a number of axes.

    Args:
        tensors: of the file.
        name: of the tensor.
        count: of its axes.
        what: the file, for messages.

    Raises:
        InputError: there is no such tensor, or it has other axes.
    """
    if name not in tensors:
        raise InputError(
            f"{what} lacks {name}: the file is incomplete, or of a model that is not known here."
        )
    shape = tuple(tensors[name].shape)
    if len(shape) != count or 0 in shape:
        raise InputError(f"{what} has {name} of shape {shape}, which should have {count} axes.")
    return shape


@contextlib.contextmanager
def converting(what: str) -> Iterator[None]:
    """Makes one sentence of what NumPy raises for tensors whose shapes do not fit each other."""
    try:
        yield
    except InputError:
        raise
    except (ValueError, IndexError) as error:
        raise InputError(f"{what} has tensors of a wrong shape ({first_line(error)}).") from error


def made(config: Mapping[str, Any], what: str) -> ViTConfig:
    """A `ViTConfig`, whose errors then name the file.

    Args:
        config: its arguments.
        what: the file, for messages.
    """
    try:
        return ViTConfig(**config)
    except InputError as error:
        raise InputError(f"{what} has tensors that do not fit together: {error}") from error


def has(tensors: Mapping[str, np.ndarray], layer: str) -> bool:
    """Whether there is a layer, be it with one of its two tensors only: that the other lacks is then said."""
    return f"{layer}.weight" in tensors or f"{layer}.bias" in tensors


def heads_of(told: Told, dim: int, inner: int, head_dim: int | None, heads: int | None) -> dict[str, Any]:
    """`num_heads` and `head_dim` of `ViTConfig`.

    Args:
        told: whom to ask for `num_heads`.
        dim: width of a token.
        inner: width of all heads together.
        head_dim: of one head, where a tensor tells it; `None` where none does.
        heads: what the number of heads is where nobody else tells it; `None` for unknown.

    Returns:
        The two arguments; `num_heads` is 1 where nobody tells it, and `told.require()` then raises.

    Raises:
        InputError: the number of heads does not fit the width.
    """
    count = inner // head_dim if head_dim else told.get("num_heads", heads) or 1
    if count < 1 or inner % count or (head_dim or 0) * count not in (0, inner):
        raise InputError(f"{told.what} has attention of width {inner}, which {count} heads do not divide.")
    return {"num_heads": count, "head_dim": None if inner == dim else inner // count}


def grid_of(
    rows: int, possible: Iterable[int], patch_size: int, told: Told, strict: bool = False
) -> tuple[tuple[int, int], int]:
    """(rows, columns) of the patches, from the length of a position table.

    Args:
        rows: of the table.
        possible: how many of them may stand before those of the patches, for class token and registers.
        patch_size: side of a patch in pixels.
        told: may know `image_size`, the side or (height, width); else the images are taken as square.
        strict: whether a size that does not fit the table is an error, not of other images.

    Returns:
        The grid, and how many rows of the table stand before those of the patches.

    Raises:
        InputError: no grid has as many patches; `NotTold` where images that are not square may have.
    """
    counts = sorted(set(possible), reverse=True)
    sizes = [int(x) for x in np.atleast_1d(told.get("image_size", ()))]
    if sizes:
        grid = (sizes[0] // patch_size, sizes[-1] // patch_size)
        if rows - grid[0] * grid[1] in counts:
            return grid, rows - grid[0] * grid[1]
        if strict:
            raise InputError(
                f"{told.what} has {rows} positions, and images of {sizes[0]}x{sizes[-1]} have "
                f"{math.prod(grid)} patches: this does not fit {' or '.join(map(str, counts))} first tokens."
            )
    told.by.pop("image_size", None)  # it is of other images than the table
    for count in counts:
        side = math.isqrt(max(rows - count, 0))
        if side and side * side == rows - count:
            return (side, side), count
    first = " or ".join(map(str, reversed(counts)))
    raise NotTold(
        f"{told.what} has {rows} positions, which no square image with {first} first tokens gives: a token "
        "is missing, or the images are not square, so give image_size=(height, width).",
        ["image_size"],
    )


def check_registers(wanted: int | None, found: int, what: str) -> None:
    """Raises InputError if the config tells other registers than there are: no shape would tell that."""
    if wanted is not None and wanted != found:
        raise InputError(f"{what} has {found} registers, and its config says {wanted}: it is incomplete.")


def class_names_of(names: Mapping[Any, str] | None, count: int) -> tuple[str, ...] | None:
    """Names of the classes, from the number of a class -> its name; `None` if they are not all there.

    Names that a library gives for want of better ones (`LABEL_0`) count as none.
    """
    by_number = {int(number): str(name) for number, name in (names or {}).items()}
    if sorted(by_number) != list(range(count)) or count == 0:
        return None
    made = tuple(by_number[i] for i in range(count))
    return None if made == tuple(f"LABEL_{i}" for i in range(count)) else made


def refuse(library: str, found: Mapping[str, bool]) -> None:
    """Raises InputError with the options of a model that a library has no place for.

    Args:
        library: its name.
        found: option -> whether the model has it.
    """
    named = [option for option, there in found.items() if there]
    if named:
        raise InputError(
            f"{library} has no place for {', '.join(named)}: this model cannot be exported to it."
        )
