"""Which images of other data a run has seen already: judged on these, it looks better than it is."""

from collections.abc import Sequence
from dataclasses import dataclass

from keras_vit.data.image_set import Image
from keras_vit.data.origin import content_hash
from keras_vit.data.reading import ReadImages
from keras_vit.runs.images import ImageRecord, images_in_words
from keras_vit.runs.schema import UNLABELED


@dataclass(frozen=True)
class Known:
    """Which of some images a run has seen.

    Args:
        parts: one per image: the part of the run that has this image, or `None`.
    """

    parts: tuple[str | None, ...]

    @property
    def judged_by(self) -> list[int]:
        """The positions of the images that neither trained the run nor chose its epoch."""
        return [i for i, part in enumerate(self.parts) if part in (None, "test")]

    def counts(self) -> dict[str, int]:
        """How many trained the run, with or without a label; chose its epoch; or tested it."""
        count = self.parts.count
        return {
            "trained": count("train") + count(UNLABELED),
            "chose_epoch": count("validation"),
            "tested": count("test"),
        }

    def line(self, source: str, left_out: bool) -> str | None:
        """What is said of it, in one line; `None` if there is nothing to say."""
        counts = self.counts()
        if not counts["trained"] + counts["chose_epoch"]:
            return None
        what = (
            f"Of the {images_in_words(len(self.parts))} in {source}, {counts['trained']} trained the run and "
            f"{counts['chose_epoch']} chose its epoch"
        )
        if left_out:
            return f"{what}: left out."
        return f"{what}, so the figures are too high: --leave-out-known leaves these out."


def known_images(record: ImageRecord, images: Sequence[Image], read: ReadImages) -> Known:
    """Which images a run has seen, by the bytes of their files or by their decoded pixels.

    Args:
        record: of the run.
        images: as they came.
        read: what was found when they were decoded.
    """
    # What was trained on counts, whatever other part a copy is in.
    order = ("test", "validation", UNLABELED, "train")
    part_of: dict[str, str] = {}
    for part in order:
        for place in record.of_part(part):
            row = record.rows[place]
            part_of |= {key: part for key in (row["sha256"], row["pixels"]) if key}
    found = []
    for image, info in zip(images, read.infos, strict=True):
        keys = (content_hash(image), info.digest.hex() if info else "")
        parts = [part_of[key] for key in keys if key in part_of]
        found.append(max(parts, key=order.index, default=None))
    return Known(tuple(found))
