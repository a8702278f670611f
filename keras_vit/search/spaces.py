"""The spaces that have a name, and those from a file of the user. Nothing here imports Keras."""

import runpy
import traceback
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from pydantic import Field

from keras_vit.errors import InputError, first_line
from keras_vit.model.config import SIZES
from keras_vit.search.space import Choice, Range, SearchSpace
from keras_vit.validation import Channels, Count, validated

ImageShape = tuple[int, int, int]


@dataclass(frozen=True)
class NamedSpace:
    """A space that has a name.

    Args:
        space: what is searched.
        about: the images that it is for, in one line.
    """

    space: SearchSpace
    about: str

    @property
    def image_shape(self) -> ImageShape:
        """(height, width, channels) that the size of the space is used at."""
        return _default_shape(self.space)


@validated
class OwnSpace:
    """A space from a file of the user."""

    space: SearchSpace
    """what is searched"""
    image_shape: Annotated[tuple[Count, Count, Channels], Field(strict=False)]
    """(height, width, channels)"""


def _default_shape(space: SearchSpace) -> ImageShape:
    size = SIZES[space.model]
    return (size.image_size, size.image_size, size.channels)


def load_space(path: Path) -> OwnSpace:
    """The space that a Python file defines as `SPACE`, for images of `IMAGE_SHAPE` if it defines that too.

    The file is run.

    Raises:
        InputError: there is no such file, it fails, or what it defines is not a space.
    """
    if not path.is_file():
        raise InputError(
            f"There is no file {path}: give a Python file that defines SPACE, or one of {', '.join(NAMED)}."
        )
    try:
        found = runpy.run_path(str(path))
    except (Exception, SystemExit) as error:
        reason = (
            str(error) if isinstance(error, InputError) else f"{type(error).__name__}: {first_line(error)}"
        )
        raise InputError(f"{path}{_line_of(error, path)}: {reason}") from error
    if not isinstance(found.get("SPACE"), SearchSpace):
        received = f" Received: SPACE={found['SPACE']!r}" if "SPACE" in found else ""
        raise InputError(f"{path} must define SPACE = SearchSpace(...).{received}")
    space = found["SPACE"]
    try:
        return OwnSpace(space, found.get("IMAGE_SHAPE", _default_shape(space)))
    except InputError as error:
        raise InputError(f"{path}: {error}") from error


def _line_of(error: BaseException, path: Path) -> str:
    """Where in a file an error arose: `", line 3"`, or nothing if it did not arise there."""
    lines: list[Any] = [
        frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == str(path)
    ]
    if isinstance(error, SyntaxError) and error.filename == str(path):
        lines.append(error.lineno)
    return f", line {lines[-1]}" if lines else ""


NAMED = {
    # Patches of 7 would be 16 tokens and train fast, but the conv stem halves the image and has no 7.
    "defect28": NamedSpace(
        SearchSpace(
            model="defect-conv",
            depth=Range(2, 10, default=6),
            num_heads=Choice((4, 2, 8)),
            dim=Range(32, 128, default=64, step=16),
            patch_size=Choice((4, 2)),
            mlp_ratio=Choice((2, 4)),
            stem=Choice(("conv", "linear")),
            drop_path_rate=Range(0.0, 0.2, default=0.0, step=0.05),
            learning_rate=Range(3e-4, 6e-3, default=2e-3, log=True),
            weight_decay=Range(1e-3, 0.3, default=0.05, log=True),
            batch_size=Choice((32, 64)),
            augmentation=Range(0.0, 1.0, default=0.5, step=0.25),
            epochs=27,
            # Eight times the reference: four times the tokens at twice the work per token.
            max_mult_adds=100_000_000,
        ),
        "small gray images, 28 pixels per side: the model of the reference study and its neighbours",
    ),
    "small": NamedSpace(
        SearchSpace(
            model="S",
            depth=Range(6, 12, default=12),
            num_heads=Choice((6, 3)),
            # Multiples of 96: both head counts divide it, and a conv stem with patches of 32.
            dim=Range(192, 384, default=384, step=96),
            patch_size=Choice((16, 32)),
            mlp_ratio=Choice((4, 2, 3)),
            stem=Choice(("linear", "conv")),
            drop_path_rate=Range(0.0, 0.2, default=0.0, step=0.05),
            learning_rate=Range(1e-4, 3e-3, default=1e-3, log=True),
            weight_decay=Range(1e-3, 0.3, default=0.05, log=True),
            batch_size=Choice((32, 64)),
            augmentation=Range(0.0, 1.0, default=0.5, step=0.25),
            epochs=27,
        ),
        "colour images, 224 pixels per side: from Ti to S, best on a GPU",
    ),
}

SPACES: dict[str, SearchSpace] = {name: named.space for name, named in NAMED.items()}
