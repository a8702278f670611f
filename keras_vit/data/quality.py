"""Pictures that are blurry, dark, bright, empty or of an odd size, as cleanvision judges them.

cleanvision reads files with Pillow by itself. Here its measures get the pixels that this package reads, so
that archives, arrays, DICOM and 16 bits are judged too, as people see them.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from keras_vit.data.image_set import Image
from keras_vit.data.probe import quiet_headers, shown_pixels
from keras_vit.data.values import UnreadableImage

if TYPE_CHECKING:
    from keras_vit.data.decode import Decoding

KINDS = {
    "blurry": "blurry",
    "dark": "dark",
    "light": "bright",
    "low_information": "low information",
    "odd_size": "odd size",
    "odd_aspect_ratio": "odd aspect ratio",
}
"""Issue of cleanvision -> our word for it."""

SHOWN_FROM = 2_000  # images: with so many, a terminal shows how far the work is
CHUNK = 1_024


@dataclass(frozen=True)
class Flaw:
    """What is odd about one picture.

    Args:
        position: of the image.
        kind: one of the values of `KINDS`.
        score: how sure it is, 0 at the threshold of cleanvision to 1.
    """

    position: int
    kind: str
    score: float


def find_flaws(images: Sequence[Image], decoding: "Decoding | None" = None) -> list[Flaw]:
    """The flaws of pictures, those of one kind together, by position.

    Thresholds are those of cleanvision. An odd size is one of which the square root of the area lies 3
    interquartile ranges outside the quartiles; where most images have one size, every other size.

    Args:
        images: files, encoded bytes or pixels. Those that cannot be read have no flaws.
        decoding: how files become pixels; `None` for the defaults.

    Raises:
        ImportError: cleanvision is not installed.
    """
    import pandas as pd
    from cleanvision.issue_managers.image_property_issue_manager import ImagePropertyIssueManager

    manager = ImagePropertyIssueManager()
    properties: dict[str, Any] = {issue: manager.image_properties[issue] for issue in KINDS}
    raw = _measure(images, properties, decoding)
    readable = [i for i, row in enumerate(raw) if row is not None]
    if not readable:
        return []
    table = pd.DataFrame([raw[i] for i in readable])
    flaws = []
    for issue, measure in properties.items():
        settings = dict(manager.params[issue])
        threshold = settings.pop("threshold", None)
        scores = measure.get_scores(table, issue, **settings)
        marked = measure.mark_issue(scores, issue, threshold).iloc[:, 0].to_numpy()
        most = measure.threshold if threshold is None else threshold
        sure = 1 - scores.iloc[:, 0].to_numpy() / most
        flaws += [
            Flaw(i, KINDS[issue], float(min(max(score, 0), 1)))
            for i, score, is_issue in zip(readable, sure, marked, strict=True)
            if is_issue
        ]
    return flaws


def _measure(
    images: Sequence[Image], properties: dict[str, Any], decoding: "Decoding | None"
) -> list[dict[str, float] | None]:
    from PIL import Image as pil
    from tqdm import tqdm

    def measure(image: Image) -> dict[str, float] | None:
        try:
            pixels = shown_pixels(image, decoding)
        except UnreadableImage:
            return None
        picture = pil.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels)
        row: dict[str, float] = {}
        for found in properties.values():
            row |= found.calculate(picture)
        return row

    rows: list[dict[str, float] | None] = []
    disable = None if len(images) >= SHOWN_FROM else True
    with (
        quiet_headers(),
        ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool,
        tqdm(total=len(images), desc="measuring images", unit=" images", leave=False, disable=disable) as bar,
    ):
        for start in range(0, len(images), CHUNK):
            rows += pool.map(measure, images[start : start + CHUNK])
            bar.update(len(rows) - start)
    return rows
