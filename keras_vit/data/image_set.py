"""The one value that every source of images turns into."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

Image = Path | bytes | np.ndarray
"""A file, the encoded bytes of one, or uint8 pixels (height, width, channels)."""

SPLIT_PARTS = ("train", "validation", "test")


def evenly(count: int, most: int) -> np.ndarray:
    """At most `most` of the positions 0..count-1, evenly from all, in order: int64."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)


@dataclass(frozen=True)
class ImageSet:
    """Labelled images, not yet decoded, in a fixed order.

    Args:
        source: what the user asked for, as text: a path, `"tfds:mnist"`, `"drawn steel defects"`.
        class_names: one name a class; the label is the position in this tuple.
        images: one a label, all of one kind (see `Image`); arrays of one size.
        names: one a label, unique: how messages and reports call the image (`"scratches/scratches_7.jpg"`).
        labels: int64 (n,).
        parts: for a source that comes with its own split, one of `"train"`, `"validation"`, `"test"`
            an image; `None` where the split is still to be drawn.
    """

    source: str
    class_names: tuple[str, ...]
    images: Sequence[Image]
    names: tuple[str, ...]
    labels: np.ndarray
    parts: tuple[str, ...] | None = None

    def __post_init__(self):
        if not len(self.images) == len(self.names) == len(self.labels):
            raise ValueError(
                "images, names and labels must have one length. "
                f"Received: {len(self.images)}, {len(self.names)}, {len(self.labels)}"
            )

    def __len__(self):
        return len(self.labels)

    def take(self, indices):
        """The image set of these positions, in this order."""
        return replace(
            self,
            images=[self.images[i] for i in indices],
            names=tuple(self.names[i] for i in indices),
            labels=self.labels[np.asarray(indices, dtype=np.int64)],
            parts=None if self.parts is None else tuple(self.parts[i] for i in indices),
        )
