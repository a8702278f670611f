"""Which trainings a comparison has, in which order, and which are left out for a limit of time."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

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

    Whole repeats are left out first, the last one first. If a single repeat is too long, what takes longest
    of it is left out, model and number of images together, until the others fit; one is always left.

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
        groups: dict[tuple[str, PerClass], float] = {}
        for cell in kept:
            key = (cell.model, cell.per_class)
            groups[key] = groups.get(key, 0.0) + seconds[cell]
        if len(groups) == 1:
            break
        model, number = max(groups, key=lambda key: groups[key])
        kept = [cell for cell in kept if (cell.model, cell.per_class) != (model, number)]
        left_out.append(f"{model} with {number if number == ALL else f'{number} images per class'}")
    return Plan(tuple(kept), tuple(left_out))
