"""Shortcuts: what tells the class of an image without a look at what it shows.

Where the size, the light, the border, the kind of the file or the time of the picture tell the class, a model
may learn that instead of the defect, and fails where the next camera does it otherwise.
"""

import io
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np

from keras_vit.data.foreign import FORMATS
from keras_vit.data.image_set import Image
from keras_vit.data.probe import ImageInfo, quiet_headers
from keras_vit.data.reading import ReadImages

TELLING = {"size": 0.7, "brightness": 0.85, "border": 0.85, "file": 0.7, "time": 0.7}
"""AUC of a class from which each shortcut is named; 0.5 is chance, 1 tells the class always. Light and smooth
borders belong to what is shown, too: the mean brightness of a class reaches 0.80 on NEU and 0.79 on X-SDD."""

FOLDS = 5
FEWEST = 2 * FOLDS
"""Images of a class from which it is judged: with fewer, a fold has one or two of them."""

COPIED = 3600.0
"""Seconds: where all files were written within an hour, their times are those of a copy or an archive."""

TREES = 50
FLAT = 2.0  # gray levels of the thumbnail
EXIF_IFD, TAKEN, CHANGED = 0x8769, 0x9003, 0x0132


@dataclass(frozen=True)
class Shortcut:
    """How well one thing beside the content tells the class.

    Args:
        name: `"size"`, `"brightness"`, `"border"`, `"file"` or `"time"`.
        auc: of the classes, each against the others, on average: out of fold.
        classes: the same for each class that was judged.
        telling: whether it is worth a look.
        skipped: why it was not judged, or `None`.
    """

    name: str
    auc: float | None = None
    classes: Mapping[str, float] | None = None
    telling: bool = False
    skipped: str | None = None


def find_shortcuts(
    read: ReadImages, labels: np.ndarray, class_names: Sequence[str], groups: np.ndarray
) -> list[Shortcut]:
    """How well a random forest tells the class by each of these things alone.

    Args:
        read: what `read_images` found, with thumbnails where brightness and border are judged.
        labels: int (n,).
        class_names: one per class.
        groups: int (n,), equal for images that show the same thing: they stay in one fold.
    """
    readable = np.array(read.readable, np.int64)
    own = [readable[labels[readable] == k] for k in range(len(class_names))]
    enough = [len(rows) >= FEWEST and len(np.unique(groups[rows])) >= FOLDS for rows in own]
    judged = readable[np.isin(labels[readable], np.flatnonzero(enough))]
    if sum(enough) < 2:
        why = f"fewer than two classes have {FEWEST} images, of {FOLDS} things or more"
        return [Shortcut(name, skipped=why) for name in TELLING]
    infos = [info for i in judged if (info := read.infos[i]) is not None]
    images = [read.images[i] for i in judged]
    cues: dict[str, np.ndarray | str] = {"size": _sizes(infos), **_light(infos)}
    cues |= {"file": _files(infos, images), "time": _times(images)}
    return [
        Shortcut(name, skipped=cue)
        if isinstance(cue, str)
        else _judge(name, cue, labels[judged], class_names, groups[judged])
        for name, cue in cues.items()
    ]


def _judge(
    name: str, cue: np.ndarray, labels: np.ndarray, class_names: Sequence[str], groups: np.ndarray
) -> Shortcut:
    from sklearn.ensemble import RandomForestClassifier
    from sklearn.metrics import roc_auc_score
    from sklearn.model_selection import StratifiedGroupKFold

    found, rows = np.unique(labels, return_inverse=True)
    if (cue == cue[0]).all():
        return Shortcut(name, 0.5, {class_names[label]: 0.5 for label in found})
    # Small leaves tell images apart that have one value in common by chance.
    forest = RandomForestClassifier(TREES, min_samples_leaf=5, class_weight="balanced", random_state=0)
    answers = np.zeros((len(rows), len(found)))
    for training, test in StratifiedGroupKFold(FOLDS, shuffle=True, random_state=0).split(cue, rows, groups):
        forest.fit(cue[training], rows[training])
        answers[np.ix_(test, forest.classes_)] = forest.predict_proba(cue[test])
    each = {
        class_names[label]: float(roc_auc_score(rows == i, answers[:, i])) for i, label in enumerate(found)
    }
    auc = float(np.mean(list(each.values())))
    return Shortcut(name, auc, each, max(each.values()) >= TELLING[name])


def _sizes(infos: Sequence[ImageInfo]) -> np.ndarray:
    return np.array([[info.height, info.width, info.height / info.width] for info in infos], np.float64)


def _light(infos: Sequence[ImageInfo]) -> dict[str, np.ndarray | str]:
    """Brightness: the mean gray. Border: how wide the margins of one gray level are, and how bright.

    More than the mean would see what the images show: the spread of gray alone tells the defects of NEU apart
    with an AUC of 0.94, and so does how the border of a texture differs from its middle, 0.89.
    """
    if any(info.thumbnail is None for info in infos):
        why = "not judged for so many images"
        return {"brightness": why, "border": why}
    gray = np.stack([np.asarray(info.thumbnail, np.float64) for info in infos])
    margins = [_margin(gray), _margin(gray[:, ::-1])]
    turned = gray.transpose(0, 2, 1)
    margins += [_margin(turned), _margin(turned[:, ::-1])]
    return {"brightness": gray.mean((1, 2))[:, None], "border": np.concatenate(margins, axis=1)}


def _margin(gray: np.ndarray) -> np.ndarray:
    """How many of the first rows have one gray level, the same for all, and that level: (n, 2)."""
    means = gray.mean(axis=2)
    flat = (gray.std(axis=2) < FLAT) & (np.abs(means - means[:, :1]) < FLAT)
    width = np.argmin(np.pad(flat, ((0, 0), (0, 1))), axis=1)  # the row behind the last is not flat
    return np.column_stack([width, np.where(width > 0, means[:, 0], -1)])


def _files(infos: Sequence[ImageInfo], images: Sequence[Image]) -> np.ndarray | str:
    """Kind, channels and bits of each file, and how strongly a JPEG is compressed.

    Not its size, which tells how much there is to see.
    """
    if all(isinstance(image, np.ndarray) for image in images):
        return "the images are not in files"
    kinds = sorted({info.kind for info in infos})
    rows = [
        [*(float(info.kind == kind) for kind in kinds), info.channels, info.bits, _compression(image)]
        for info, image in zip(infos, images, strict=True)
    ]
    return np.array(rows, np.float64)


def _compression(image: Image) -> float:
    """The mean of a JPEG's quantisation tables; 0 of others."""
    tables = _of_header(image, lambda header: getattr(header, "quantization", None))
    return float(np.mean([value for table in tables.values() for value in table])) if tables else 0.0


def _times(images: Sequence[Image]) -> np.ndarray | str:
    """When the pictures were taken by Exif, or where most do not say so, when their files were written."""
    if all(isinstance(image, np.ndarray) for image in images):
        return "the images are not in files"
    taken = np.array([_taken(image) for image in images])
    known = np.isfinite(taken)
    if known.mean() >= 0.5:
        # Whether the time is stated may tell the class, too.
        return np.column_stack([np.where(known, taken, 0), known])
    if not all(isinstance(image, Path) for image in images):
        return "the files do not say when the pictures were taken"
    written = np.array([_written(image) for image in images])
    if np.ptp(written) < COPIED:
        return "the files do not say when the pictures were taken, and were all written within an hour"
    return written[:, None]


def _written(image: Image) -> float:
    try:
        return os.stat(image).st_mtime if isinstance(image, Path) else 0.0
    except OSError:
        return 0.0


def _taken(image: Image) -> float:
    """Seconds since 1970 by Exif; NaN where it does not say so."""

    def read(header: Any) -> float | None:
        if header.format == "PNG" and "exif" not in header.info:  # Pillow would decode it to look further
            return None
        exif = header.getexif()
        for text in (exif.get_ifd(EXIF_IFD).get(TAKEN), exif.get(CHANGED)):
            if isinstance(text, str) and text.strip("\0 "):
                return datetime.strptime(text.strip("\0 "), "%Y:%m:%d %H:%M:%S").timestamp()
        return None

    found = _of_header(image, read)
    return float("nan") if found is None else found


def _of_header(image: Image, read: Callable[[Any], Any]) -> Any:
    """What is read from the header of a file by Pillow; `None` where that fails."""
    from PIL import Image as pil

    if isinstance(image, np.ndarray):
        return None
    try:
        with (
            quiet_headers(),
            pil.open(io.BytesIO(image) if isinstance(image, bytes) else image, formats=FORMATS) as header,
        ):
            return read(header)
    except Exception:  # on damaged headers PIL raises a dozen kinds of exception
        return None
