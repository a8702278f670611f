"""How well a run recognises its test images when they are noisy, blurred, badly lit, compressed or turned."""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from keras_vit.data.corrupted import prepare_shown
from keras_vit.data.corruptions import KINDS, STRENGTHS, corrupt, reduced
from keras_vit.data.image_set import ImageSet
from keras_vit.data.probe import whole_pixels
from keras_vit.evaluation.metrics import wilson_interval
from keras_vit.files import write_json, write_text
from keras_vit.report.corruptions import with_section
from keras_vit.runs.answer import answer_images
from keras_vit.runs.folder import REPORT, Run

CORRUPTIONS = "corruptions.json"
"""What the figures are kept as, in the folder of the run."""

SEED = 0
IMAGES_AT_ONCE = 256


def judge_corruptions(
    run: Run,
    images: ImageSet,
    labels: np.ndarray,
    flips: bool = False,
    progress: Callable[[str], None] | None = None,
) -> dict[str, Any]:
    """Judges a run on images with each kind and strength of corruption.

    The corruption comes before all preparation, at the size that the images came in. Those of more than 512
    pixels on the shorter side are first reduced to that.

    Args:
        run: a run.
        images: that can be read.
        labels: int (n,), classes of the run.
        flips: as of `keras_vit.runs.answer.answer_model`.
        progress: gets a line after each tenth of the work.

    Returns:
        A dict, ready for JSON: `seed` of the corruptions; `images`; `clean`, the accuracy without;
        `clean_rejected`, the share that is rejected then; `mean`, the mean accuracy of all kinds and
        strengths; `rows`, a list of `kind`, `strength` (1 to 3), `correct`, `accuracy`, `interval` (Wilson,
        95 %) and `rejected`, the share of images that are rejected as out of distribution.
    """
    model = run.answers(flips)
    # A part at a time, because images in their own size may be large.
    counts = np.zeros((1 + len(KINDS) * len(STRENGTHS), 2), np.int64)
    cells, tenths = [(kind, strength) for kind in KINDS for strength in STRENGTHS], 0
    for start in range(0, len(images), IMAGES_AT_ONCE):
        positions = range(start, min(start + IMAGES_AT_ONCE, len(images)))
        as_they_came = [
            reduced(whole_pixels(images.original(i), run.preprocessing.decoding)) for i in positions
        ]
        truth = labels[positions.start : positions.stop]
        counts[0] += _counted(run, model, [images.images[i] for i in positions], truth)
        for row, (kind, strength) in enumerate(cells, start=1):
            changed = [
                corrupt(image, kind, strength, np.random.default_rng((SEED, KINDS.index(kind), strength, i)))
                for i, image in zip(positions, as_they_came, strict=True)
            ]
            counts[row] += _counted(run, model, list(prepare_shown(changed, run.preprocessing)), truth)
            done = (start + len(positions) * row / len(cells)) / len(images)
            if progress and int(10 * done) > tenths:
                tenths = int(10 * done)
                progress(f"corrupted images: {done:.0%} done")
    (correct, rejected), rest = counts[0].tolist(), counts[1:].tolist()
    rows = [
        {
            "kind": kind,
            "strength": strength,
            "correct": right,
            "accuracy": right / len(images),
            "interval": list(wilson_interval(right, len(images))),
            "rejected": away / len(images),
        }
        for (kind, strength), (right, away) in zip(cells, rest, strict=True)
    ]
    return {
        "seed": SEED,
        "images": len(images),
        "clean": correct / len(images),
        "clean_rejected": rejected / len(images),
        "mean": float(np.mean([row["accuracy"] for row in rows])),
        "rows": rows,
    }


def _counted(run: Run, model: Any, images: Sequence[Any], labels: np.ndarray) -> np.ndarray:
    """How many images are classified right, and how many are rejected: int64 (2,)."""
    answers = answer_images(model, images, run.preprocessing)
    return np.array([(answers["label"] == labels).sum(), answers["reject"].sum()], np.int64)


def keep_corruptions(run: Run, found: dict[str, Any]) -> str | None:
    """Writes the figures into the folder of a run, and a section into its report.

    Returns:
        What to say where the report has no place for them: it is missing, or of an earlier version.
    """
    write_json(run.path / CORRUPTIONS, found)
    path = run.path / REPORT
    page = with_section(path.read_text("utf-8"), found) if path.is_file() else None
    if page is None:
        return f"{path} has no place for the table of corruptions; the figures are in {CORRUPTIONS} alone."
    write_text(path, page)
    return None
