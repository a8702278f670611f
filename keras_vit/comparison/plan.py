"""Which trainings a comparison has, in which order, and which are left out for a limit of time."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_vit.comparison.config import ALL
from keras_vit.comparison.folder import Cell

PerClass = int | str


def numbers_of(
    wanted: Sequence[PerClass], counts: np.ndarray, class_names: Sequence[str]
) -> tuple[tuple[PerClass, ...], list[str]]:
    """The numbers of training images per class that the data have, from few to all, and what to say of them.

    A number is left out if fewer than half of the classes have more images than that: it would be nearly all
    of them. A class with fewer images than a number gives all that it has.

    Args:
        wanted: numbers, and `ALL`.
        counts: int (classes,), training images per class.
        class_names: one per class.
    """
    numbers = sorted(number for number in wanted if number != ALL)
    kept = [number for number in numbers if 2 * (counts > number).sum() >= len(counts)]
    notes = []
    if left := [number for number in numbers if number not in kept]:
        fewest, most = counts.min(), counts.max()
        have = f"{fewest}" if fewest == most else f"{fewest} to {most}"
        notes.append(
            f"left out: {', '.join(map(str, left))} images per class, since the classes have {have} for "
            "training"
        )
    for name, count in zip(class_names, counts, strict=True):
        if short := [number for number in kept if number > count]:
            notes.append(
                f"{name} has {count} training images, which are all used with "
                f"{' and '.join(map(str, short))} per class"
            )
    # Without any number that fits, all images are what is left.
    return (*kept, *([ALL] if ALL in wanted or not kept else [])), notes


def all_cells(models: Sequence[str], numbers: Sequence[PerClass], folds: int, repeats: int) -> list[Cell]:
    """Every training in its order: a whole repeat first, and in it from few images to all.

    Args:
        models: names.
        numbers: of training images per class.
        folds: 0 for one split.
        repeats: of each.
    """
    return [
        Cell(model, number, fold, repeat)
        for repeat in range(repeats)
        for fold in (range(1, folds + 1) if folds else (0,))
        for number in numbers
        for model in models
    ]


@dataclass(frozen=True)
class Plan:
    """What is to be trained.

    Args:
        cells: in order.
        left_out: what is not, in words.
    """

    cells: tuple[Cell, ...]
    left_out: tuple[str, ...] = ()


def limited(cells: Sequence[Cell], seconds: Mapping[Cell, float], limit: float) -> Plan:
    """The trainings that fit into a time.

    Whole repeats are left out first, the last one first. If a single repeat is too long, the number of images
    that takes longest is left out for all models, so that they can still be compared; or for one model alone,
    while that one takes more than half of the time. One number is always left.

    Args:
        cells: in order.
        seconds: that each is expected to take; those that are finished are 0.
        limit: in seconds.
    """
    kept, left_out = list(cells), []
    repeats = max(cell.repeat for cell in cells) + 1
    while repeats > 1 and sum(seconds[cell] for cell in kept) > limit:
        repeats -= 1
        kept = [cell for cell in kept if cell.repeat < repeats]
    total = max(cell.repeat for cell in cells) + 1
    if repeats < total:
        left_out.append(
            f"repeat {total} of each training"
            if total - repeats == 1
            else f"repeats {repeats + 1} to {total}"
        )
    while sum(seconds[cell] for cell in kept) > limit:
        by_model = _totals(kept, seconds, lambda cell: cell.model)
        slowest = max(by_model, key=lambda model: by_model[model])
        of_one = 2 * by_model[slowest] > sum(by_model.values()) and len(by_model) > 1
        candidates = [cell for cell in kept if cell.model == slowest] if of_one else kept
        by_number = _totals(candidates, seconds, lambda cell: cell.per_class)
        if len(by_number) == 1 and not of_one:
            break
        longest = max(by_number, key=lambda number: by_number[number])
        dropped = {cell for cell in candidates if cell.per_class == longest}
        kept = [cell for cell in kept if cell not in dropped]
        number = longest if longest == ALL else f"{longest} images per class"
        left_out.append(f"{slowest} with {number}" if of_one else f"{number}")
    return Plan(tuple(kept), tuple(left_out))


def _totals(
    cells: Sequence[Cell], seconds: Mapping[Cell, float], key: Callable[[Cell], Any]
) -> dict[Any, float]:
    found: dict[Any, float] = {}
    for cell in cells:
        found[key(cell)] = found.get(key(cell), 0.0) + seconds[cell]
    return found
