"""The one value that every source of images turns into."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from hashlib import sha256
from pathlib import Path

import numpy as np

from keras_vit.data.class_names import same_names
from keras_vit.data.targets import counts_of, is_several

Image = Path | bytes | np.ndarray
"""A file, its encoded bytes, or pixels: uint8 (height, width, channels), or float32 if they are prepared."""

SPLIT_PARTS = ("train", "validation", "test")


def evenly(count: int, most: int) -> np.ndarray:
    """At most `most` of the positions 0..count-1, evenly spaced, in order: int64."""
    return np.linspace(0, count - 1, min(count, most)).round().astype(np.int64)


@dataclass(frozen=True)
class ImageSet:
    """Labelled images in a fixed order. Images of files are not decoded yet.

    Args:
        source: what the user asked for, as text: a path, `"tfds:mnist"`, `"drawn steel defects"`.
        class_names: one name per class; the label is the position in this tuple.
        images: one per label, all of one kind (see `Image`); arrays of one size.
        names: one per label, unique: what messages and reports call the image (`"scratches/7.jpg"`).
        labels: int64 (n,), or where an image may have several, or none, uint8 (n, classes): see
            `keras_vit.data.targets`.
        parts: for a source with its own split, one of `"train"`, `"validation"`, `"test"` per image; `None`
            if the split is still to be drawn.
        notes: what the user must know of how the source was read, one line each.
        originals: where `images` are prepared pixels, the images that these were made from, for people to
            see; arrays of any size. `None` if `images` are the originals.
        groups: for a source that names them, one per image: images of one part, patient or strip, which
            belong into one part of the split. `None` if the source has none.
        weights: for a source that has them, how much each image counts in training: float64 (n,), 0 or
            more. `None` if all count the same.
        columns: of a table, all of its columns as text, by their names; each has one value per image. `None`
            if the source is not a table.
        fixes: what a person has decided on these images and others of the source, as rows of the file that
            `keras_vit.data.sources.fixes` reads.
    """

    source: str
    class_names: tuple[str, ...]
    images: Sequence[Image]
    names: tuple[str, ...]
    labels: np.ndarray
    parts: tuple[str, ...] | None = None
    originals: Sequence[Image] | None = None
    notes: tuple[str, ...] = ()
    groups: tuple[str, ...] | None = None
    weights: np.ndarray | None = None
    columns: Mapping[str, tuple[str, ...]] | None = None
    fixes: tuple[Mapping[str, str], ...] = ()

    def __post_init__(self):
        if not len(self.images) == len(self.names) == len(self.labels):
            raise ValueError(
                "images, names and labels must have the same length. "
                f"Received: {len(self.images)}, {len(self.names)}, {len(self.labels)}"
            )
        for name in ("groups", "weights"):
            found = getattr(self, name)
            if found is not None and len(found) != len(self.labels):
                raise ValueError(
                    f"{name} must have one per label, {len(self.labels)}. Received: {len(found)}"
                )

    def __len__(self) -> int:
        return len(self.labels)

    def original(self, index: int) -> Image:
        """The image at a position as its source has it, not prepared for a model."""
        return (self.images if self.originals is None else self.originals)[index]

    @property
    def several(self) -> bool:
        """Whether an image may have several labels, or none."""
        return is_several(self.labels)

    def fingerprint(self) -> str:
        """A hash of classes, names and labels: equal for the same images in the same order."""
        words = "\n".join([*self.class_names, *self.names, *map(str, self.labels)])
        return sha256(words.encode("utf-8", "surrogateescape")).hexdigest()

    def in_classes(self, class_names: Sequence[str]) -> "ImageSet":
        """The same images with the classes of a run, in its order and spelling.

        Runs of earlier versions have their classes in another order, 1, 10, 2, in which a split drawn again
        is the one that they had.

        Args:
            class_names: of the run. Classes of images that it does not know come after these.

        Returns:
            An image set whose images are ordered by part and class, and as before in each class.
        """
        known = same_names(self.class_names, class_names)
        if self.several:
            return self._labels_in_classes(class_names, known)
        found = [self.class_names[label] for label in np.unique(self.labels)]
        names = list(class_names) + [name for name in found if name not in known]
        named = [known.get(name, name) for name in self.class_names]
        place = np.array([names.index(name) if name in names else -1 for name in named], dtype=np.int64)
        labels = place[self.labels]
        part = [SPLIT_PARTS.index(name) for name in self.parts or ["train"] * len(self)]
        ordered = self.take(np.lexsort((labels, part)))
        return replace(ordered, class_names=tuple(names), labels=place[ordered.labels])

    def _labels_in_classes(self, class_names: Sequence[str], known: Mapping[str, str]) -> "ImageSet":
        found = [name for name, has in zip(self.class_names, counts_of(self.labels, 0), strict=True) if has]
        names = list(class_names) + [name for name in found if name not in known]
        labels = np.zeros((len(self), len(names)), np.uint8)
        for i, name in enumerate(self.class_names):
            if known.get(name, name) in names:
                labels[:, names.index(known.get(name, name))] |= self.labels[:, i]
        return replace(self, class_names=tuple(names), labels=labels)

    def take(self, indices: Sequence[int] | np.ndarray) -> "ImageSet":
        """The image set of these positions, in this order."""
        positions = np.asarray(indices, dtype=np.int64)
        return replace(
            self,
            images=[self.images[i] for i in indices],
            names=tuple(self.names[i] for i in indices),
            labels=self.labels[positions],
            parts=None if self.parts is None else tuple(self.parts[i] for i in indices),
            originals=None if self.originals is None else [self.originals[i] for i in indices],
            groups=None if self.groups is None else tuple(self.groups[i] for i in indices),
            weights=None if self.weights is None else self.weights[positions],
            columns=None
            if self.columns is None
            else {name: tuple(column[i] for i in indices) for name, column in self.columns.items()},
        )
