"""Images that belong together: of one part, patient, strip or video. A split keeps each group whole."""

import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Annotated

from pydantic import AfterValidator
from pydantic_core import PydanticCustomError

from keras_vit.data.image_set import ImageSet
from keras_vit.errors import InputError
from keras_vit.text import shown
from keras_vit.validation import TOLD

PARENT, REGEX, COLUMN = "parent", "regex:", "column:"


def _checked(wanted: str) -> str:
    if wanted == PARENT or (wanted.startswith(COLUMN) and wanted != COLUMN):
        return wanted
    if not wanted.startswith(REGEX) or wanted == REGEX:
        raise PydanticCustomError(TOLD, "column:NAME, regex:EXPRESSION or parent")
    try:
        re.compile(wanted.removeprefix(REGEX))
    except re.error as error:
        said = {"error": str(error)}
        raise PydanticCustomError(TOLD, "regex: and a regular expression ({error})", said) from error
    return wanted


GroupBy = Annotated[str, AfterValidator(_checked)]
"""`"column:NAME"` of a table, `"regex:EXPRESSION"` or `"parent"`."""


def with_groups(image_set: ImageSet, group_by: str | None) -> ImageSet:
    """The image set with the groups that a user asks for, and notes that say so.

    Args:
        image_set: with groups of its own where a column of a table tells them.
        group_by: where the groups are told, see `GroupBy`. An expression is searched for in the name of each
            image, such as `scratches/part12_3.jpg`; the group is what its brackets hold, or all that it
            finds. `"parent"` is the name of the folder that holds the image, in whatever class. `None` keeps
            the groups that the image set has.

    Raises:
        InputError: the images do not tell groups in this way.
    """
    if group_by is None:
        return image_set if image_set.groups is None else _noted(image_set, image_set.groups, "the table")
    if group_by.startswith(COLUMN):
        found: list[str | None] = [value or None for value in _column(image_set, group_by)]
    else:
        tell = _by_folder if group_by == PARENT else _by_expression(group_by.removeprefix(REGEX))
        found = [tell(name) for name in image_set.names]
    alone = [name for name, group in zip(image_set.names, found, strict=True) if group is None]
    if len(alone) == len(image_set):
        raise InputError(
            f"--group-by {group_by} finds no group in {image_set.source}, whose first image is named "
            f"{shown(image_set.names[0])}: correct it, or omit it."
        )
    # Names cannot hold a NUL, so no group has such a name.
    groups = tuple(
        f"\0{name}" if group is None else group for name, group in zip(image_set.names, found, strict=True)
    )
    lines = []
    if alone:
        more = f" and {len(alone) - 1:,} more" if len(alone) > 1 else ""
        lines.append(f"--group-by {group_by} finds no group for {shown(alone[0])}{more}: each stands alone")
    return _noted(image_set, groups, f"--group-by {group_by}", *lines)


def _column(image_set: ImageSet, group_by: str) -> Sequence[str]:
    name = group_by.removeprefix(COLUMN)
    if not image_set.columns:
        raise InputError(
            f"--group-by {group_by} is for a table, and {image_set.source} has no columns: use "
            "regex:EXPRESSION or parent, or give a table."
        )
    if name not in image_set.columns:
        raise InputError(
            f"{image_set.source} has no column {name!r}. It has {', '.join(map(shown, image_set.columns))}: "
            "give --group-by column: and one of these."
        )
    return image_set.columns[name]


def _by_folder(name: str) -> str | None:
    return PurePosixPath(name).parent.name or None


def _by_expression(expression: str) -> Callable[[str], str | None]:
    pattern = re.compile(expression)

    def tell(name: str) -> str | None:
        found = pattern.search(name)
        if found is None:
            return None
        # Several brackets tell one group together.
        return "\0".join(part or "" for part in found.groups()) if pattern.groups else found[0]

    return tell


def _noted(image_set: ImageSet, groups: tuple[str, ...], told_by: str, *lines: str) -> ImageSet:
    told = (
        f"{len(set(groups)):,} groups of {len(groups):,} images, by {told_by}: each stays in one part of the "
        "split"
    )
    return replace(image_set, groups=groups, notes=(*image_set.notes, told, *lines))
