"""Which images a run has seen, and as what: `images.csv`, which `train` writes and every other command reads.

The split is drawn once. Afterwards images are found by their content, so that it does not matter whether
files were added, renamed or moved: a test image stays one, and an image of the training is recognised.
"""

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np

from keras_vit import files
from keras_vit.data.image_set import SPLIT_PARTS, Image, ImageSet
from keras_vit.data.origin import COLUMNS, IMAGES, content_hash
from keras_vit.data.reading import ReadImages
from keras_vit.data.split import Split
from keras_vit.data.targets import label_text, labels_of_texts
from keras_vit.errors import InputError
from keras_vit.runs.schema import UNLABELED, UNREADABLE, check_rows
from keras_vit.text import shown

NAMED = 5
"""So many names of images are in a message."""


@dataclass(frozen=True)
class ImageRecord:
    """The images of a run, in the order in which it has them.

    Args:
        rows: one per image, with the entries of `keras_vit.runs.schema.ImageRow`.
        class_names: of the run; the position is the label.
        several: whether an image may have several labels; then `label` is a JSON list of them.
    """

    rows: Sequence[Mapping[str, str]]
    class_names: tuple[str, ...]
    several: bool = False

    def write(self, folder: Path) -> None:
        """Writes `images.csv` into the folder of a run."""
        files.write_csv(folder / IMAGES, self.rows, COLUMNS)

    def split(self, merge_validation: bool = False) -> Split:
        """The split of the images that `restore` returns.

        Args:
            merge_validation: whether validation images count as training images from now on.
        """
        rows = (self.merged() if merge_validation else self).rows
        found = np.asarray([row["part"] for row in rows if row["part"] in SPLIT_PARTS])
        return Split(*(np.flatnonzero(found == part) for part in SPLIT_PARTS))

    def merged(self) -> "ImageRecord":
        """The record of a run that is trained on the validation images too."""
        rows = [{**row, "part": "train" if row["part"] == "validation" else row["part"]} for row in self.rows]
        return ImageRecord(rows, self.class_names, self.several)

    def of_part(self, *parts: str) -> list[int]:
        """Positions of the rows of these parts."""
        return [i for i, row in enumerate(self.rows) if row["part"] in parts]

    def find(self, image_set: ImageSet) -> "Found":
        """Looks for the images of a run in a source of images, by their content.

        Args:
            image_set: the images as they came, not prepared.
        """
        hashes = [content_hash(image) for image in image_set.images]
        labels = [label_text(image_set.labels, i, image_set.class_names) for i in range(len(image_set))]
        names = [shown(name) for name in image_set.names]
        position = {name: i for i, name in enumerate(names)}
        wanted = self.of_part(*SPLIT_PARTS)
        # Copies of one image may be in several parts: those that kept their names first, then their labels.
        places: dict[int, int] = {}
        for place in wanted:
            i = position.get(self.rows[place]["path"])
            if i is not None and hashes[i] == self.rows[place]["sha256"]:
                places[place] = i
        for with_label in (True, False):
            taken, free = set(places.values()), defaultdict(list)
            for i in reversed(range(len(image_set))):
                if i not in taken:
                    free[hashes[i], labels[i] if with_label else None].append(i)
            for place in wanted:
                row = self.rows[place]
                fits = free.get((row["sha256"], row["label"] if with_label else None))
                if place not in places and fits:
                    places[place] = fits.pop()
        found = Found(self, image_set, places, [])
        taken = set(places.values())
        left_out = {row["path"] for row in self.rows if row["part"] == UNREADABLE}
        for place in wanted:
            row = self.rows[place]
            if place not in places:
                replaced = row["path"] in position and position[row["path"]] not in taken
                found.changed["replaced" if replaced else "removed"].append(place)
                taken |= {position[row["path"]]} if replaced else set()
            elif labels[places[place]] != row["label"]:
                found.changed["label"].append(place)
            elif names[places[place]] != row["path"]:
                found.moved.append(place)
        found.added.extend(name for i, name in enumerate(names) if i not in taken and name not in left_out)
        return found


@dataclass(frozen=True)
class Found:
    """Where the images of a run are now.

    Args:
        record: of the run.
        image_set: in which they were looked for.
        places: position of a row of the record -> position in the image set.
        added: names of images that the run has not.
        moved: rows whose images have other names now.
        changed: how -> rows whose images are `"replaced"`, `"removed"`, or have another `"label"`.
    """

    record: ImageRecord
    image_set: ImageSet
    places: dict[int, int]
    added: list[str]
    moved: list[int] = field(default_factory=list)
    changed: dict[str, list[int]] = field(
        default_factory=lambda: {"replaced": [], "removed": [], "label": []}
    )

    def notes(self, parts: Sequence[str] = SPLIT_PARTS) -> list[str]:
        """What has changed without an effect on these parts, one line each."""
        source, lines = self.image_set.source, []
        if self.added:
            lines.append(
                f"{source} has {images_in_words(len(self.added))} that the run does not know "
                f"({_some(self.added)}): left out."
            )
        if self.moved:
            paths = [self.record.rows[place]["path"] for place in self.moved]
            have = "have" if len(paths) > 1 else "has"
            lines.append(
                f"{images_in_words(len(paths))} of the run {have} another name now ({_some(paths)}): found "
                "by content."
            )
        others = [part for part in SPLIT_PARTS if part not in parts]
        what = self._what_changed(others)
        if what:
            lines.append(f"Of the other images of the run, {what}: this needs none of them.")
        return lines

    def check(self, parts: Sequence[str], fix: str) -> None:
        """Raises an `InputError` that names images of these parts which are not as they were, if any are.

        Args:
            parts: of the split.
            fix: what to do, for the message.
        """
        what = self._what_changed(parts)
        if what:
            raise InputError(f"The images in {self.image_set.source} have changed: {what}. {fix}")

    def restored(self, parts: Sequence[str] = SPLIT_PARTS) -> ImageSet:
        """The images of some parts with the names and labels that the run knows, in its order."""
        places = [place for place in self.record.of_part(*parts) if place in self.places]
        taken = self.image_set.take([self.places[place] for place in places])
        rows = [self.record.rows[place] for place in places]
        return ImageSet(
            source=self.image_set.source,
            class_names=self.record.class_names,
            images=taken.images,
            names=tuple(row["path"] for row in rows),
            labels=labels_of_texts(
                [row["label"] for row in rows], self.record.class_names, self.record.several
            ),
            fixes=self.image_set.fixes,
        )

    def _what_changed(self, parts: Sequence[str]) -> str:
        wanted = set(self.record.of_part(*parts))
        said = []
        for how, places in self.changed.items():
            places = [place for place in places if place in wanted]
            if not places:
                continue
            many = len(places) > 1
            verb = {
                "replaced": f"{'were' if many else 'was'} replaced",
                "removed": f"{'are' if many else 'is'} gone",
                "label": f"{'have' if many else 'has'} another label",
            }[how]
            said.append(f"{len(places)} {verb} ({_some([self._name(place) for place in places])})")
        return ", ".join(said)

    def _name(self, place: int) -> str:
        row = self.record.rows[place]
        name = f"{row['path']}, {row['part']}"
        if place not in self.places:
            return name
        i = self.places[place]
        now = label_text(self.image_set.labels, i, self.image_set.class_names)
        return f"{name}, was {row['label']!r}, is {now!r}"


def record_images(
    image_set: ImageSet, split: Split, unreadable: ImageSet | None = None, read: ReadImages | None = None
) -> ImageRecord:
    """What a run has to remember of its images.

    Args:
        image_set: those that can be read, as they came.
        split: of these.
        unreadable: those that are left out.
        read: what was found when the readable ones were decoded.
    """
    parts = {int(i): part for part in SPLIT_PARTS for i in getattr(split, part)}
    infos = read.infos if read else [None] * len(image_set)
    rows = [
        {
            "path": shown(name),
            "sha256": content_hash(image),
            "pixels": info.digest.hex() if info else "",
            "label": label_text(image_set.labels, i, image_set.class_names),
            "part": parts[i],
        }
        for i, (name, image, info) in enumerate(zip(image_set.names, image_set.images, infos, strict=True))
        if i in parts
    ]
    for i in range(len(unreadable or ())):
        assert unreadable is not None
        rows.append(
            {
                "path": shown(unreadable.names[i]),
                "sha256": content_hash(unreadable.images[i]),
                "pixels": "",
                "label": label_text(unreadable.labels, i, unreadable.class_names),
                "part": UNREADABLE,
            }
        )
    return ImageRecord(rows, image_set.class_names, image_set.several)


def with_unlabeled(
    record: ImageRecord, names: Sequence[str], images: Sequence[Image], digests: Sequence[bytes]
) -> ImageRecord:
    """The record with images that a run learns from without a label."""
    rows = [
        {
            "path": shown(name),
            "sha256": content_hash(image),
            "pixels": digest.hex(),
            "label": "",
            "part": UNLABELED,
        }
        for name, image, digest in zip(names, images, digests, strict=True)
    ]
    return ImageRecord([*record.rows, *rows], record.class_names, record.several)


def read_record(folder: Path, class_names: Sequence[str], several: bool = False) -> ImageRecord | None:
    """The images of the run in a folder, finished or not; `None` if an earlier version made it.

    Args:
        folder: of the run.
        class_names: of the run.
        several: whether its images may have several labels.

    Raises:
        InputError: the file is damaged.
    """
    path = folder / IMAGES
    if not path.exists():
        return None
    try:
        rows = files.read_table(path)
        check_rows(rows, tuple(class_names), several)
    except InputError as error:
        raise InputError(f"{path} is damaged ({error}): restore it, or train the run again.") from error
    return ImageRecord(rows, tuple(class_names), several)


def images_in_words(number: int) -> str:
    return f"{number:,} image{'s' * (number != 1)}"


def _some(names: Iterable[str]) -> str:
    """Up to five names, and how many more there are."""
    found = list(names)
    more = f", and {len(found) - NAMED} more" if len(found) > NAMED else ""
    return "; ".join(found[:NAMED]) + more
