"""Pictures that are dark, bright, empty or of an odd size, as cleanvision judges them, or blurry.

cleanvision reads files with Pillow by itself. Here its measures get the pixels that this package reads, so
that archives, arrays, DICOM and 16 bits are judged too, as people see them.

Its measure of blur looks at the histogram, too: it calls grainy patches of NEU blurry, and images of a narrow
histogram never. So blur is that of F. Crete et al., "The blur effect: perception and estimation with a new
no-reference perceptual blur metric", SPIE 6492, 2007, by scikit-image.
"""

import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from keras_vit.data.image_set import Image
from keras_vit.data.probe import quiet_headers, shown_pixels
from keras_vit.data.values import UnreadableImage

if TYPE_CHECKING:
    from PIL import Image as pil

    from keras_vit.data.decode import Decoding

ISSUES = {
    "dark": "dark",
    "light": "bright",
    "low_information": "low information",
    "odd_size": "odd size",
    "odd_aspect_ratio": "odd aspect ratio",
}
"""Issue of cleanvision -> our word for it."""

BLURRY = "blurry"
KINDS = (BLURRY, *ISSUES.values())

BLURRED = 0.5
"""Blur effect, 0 to 1, from which a picture is blurry. The largest of 225 images of NEU is 0.48, of 170 of
X-SDD 0.46; after a Gaussian blur of 4 pixels, the median is 0.77 and 0.66."""

SIDE = 512  # pixels: of larger pictures, blur is judged in this size, which is larger than models see

SHOWN_FROM = 2_000  # images: with so many, a terminal shows how far the work is
CHUNK = 1_024


@dataclass(frozen=True)
class Flaw:
    """What is odd about one picture.

    Args:
        position: of the image.
        kind: one of `KINDS`.
        score: how sure it is, 0 at the threshold to 1.
    """

    position: int
    kind: str
    score: float


def find_flaws(images: Sequence[Image], decoding: "Decoding | None" = None) -> list[Flaw]:
    """The flaws of pictures, those of one kind together, by position.

    All thresholds but that of blur are those of cleanvision. An odd size is one of which the square root of
    the area lies 3 interquartile ranges outside the quartiles; where most images have one size, every other.

    Args:
        images: files, encoded bytes or pixels. Those that cannot be read have no flaws.
        decoding: how files become pixels; `None` for the defaults.

    Raises:
        ImportError: cleanvision is not installed.
    """
    import pandas as pd
    from cleanvision.issue_managers.image_property_issue_manager import ImagePropertyIssueManager

    manager = ImagePropertyIssueManager()
    properties: dict[str, Any] = {issue: manager.image_properties[issue] for issue in ISSUES}
    raw = _measure(images, properties, decoding)
    readable = [i for i, row in enumerate(raw) if row is not None]
    if not readable:
        return []
    blur = [(i, row.pop(BLURRY)) for i, row in enumerate(raw) if row is not None]
    flaws = [Flaw(i, BLURRY, (much - BLURRED) / (1 - BLURRED)) for i, much in blur if much > BLURRED]
    table = pd.DataFrame([raw[i] for i in readable])
    for issue, measure in properties.items():
        settings = dict(manager.params[issue])
        threshold = settings.pop("threshold", None)
        scores = measure.get_scores(table, issue, **settings)
        marked = measure.mark_issue(scores, issue, threshold).iloc[:, 0].to_numpy()
        most = measure.threshold if threshold is None else threshold
        sure = 1 - scores.iloc[:, 0].to_numpy() / most
        flaws += [
            Flaw(i, ISSUES[issue], float(min(max(score, 0), 1)))
            for i, score, is_issue in zip(readable, sure, marked, strict=True)
            if is_issue
        ]
    return flaws


def _blur(picture: "pil.Image") -> float:
    from skimage.measure import blur_effect

    gray = picture.convert("L")
    gray.thumbnail((SIDE, SIDE))
    values = np.asarray(gray, np.float64)
    if min(values.shape) < 3 or values.std() == 0:  # nothing that could be sharp
        return 0.0
    with np.errstate(all="ignore"):
        found = float(blur_effect(values))
    return found if np.isfinite(found) else 0.0


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
        row: dict[str, float] = {BLURRY: _blur(picture)}
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
