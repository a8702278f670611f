"""What a file of weights holds."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from keras_vit.errors import InputError, first_line

AGAIN = "download or copy it again"


@dataclass(frozen=True)
class Contents:
    """What a file of weights holds.

    Args:
        tensors: by name; floating point as float32.
        config: of the model, if the file has one.
        licence: if the file says so.
        notes: one line for each thing that was left out or converted.
    """

    tensors: dict[str, np.ndarray]
    config: dict[str, Any] | None = None
    licence: str | None = None
    notes: tuple[str, ...] = field(default=())


def damaged(path: Path, error: BaseException) -> InputError:
    """The exception for a file that ends too early or does not fit its own table of contents."""
    return InputError(f"{path} is cut off or damaged ({first_line(error).rstrip('.')}): {AGAIN}.")
