"""A page where a person looks at images and keeps, relabels or drops each: `index.html` beside `thumbnails/`.

The page is plain HTML with one script, loads nothing from a network, and keeps the progress in the browser.
What the person decided is downloaded as `fixes.csv` or `labels.jsonl`; nothing else is changed.
"""

import base64
import contextlib
import hashlib
import json
import os
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

import numpy as np

from keras_vit.data.image_set import Image
from keras_vit.data.probe import quiet_headers, shown_pixels
from keras_vit.data.sources.fixes import COLUMNS
from keras_vit.data.values import UnreadableImage
from keras_vit.errors import InputError
from keras_vit.files import cell, is_taken, make_folder, remove_made, work_folder, write_text
from keras_vit.report.kit import render
from keras_vit.text import shown

if TYPE_CHECKING:
    from keras_vit.data.decode import Decoding

PAGE = "index.html"
THUMBNAILS = "thumbnails"
SIDE = 256
"""Pixels of the longer side of a thumbnail: 10,000 photographs of steel then take about 80 MB."""
SMALL = 64
"""Up to this side an image is kept exactly, as PNG, and the page enlarges it without blur."""
QUALITY = 85
SHOWN_FROM = 500
"""So many thumbnails show a bar on a terminal while they are made."""

Task = Literal["fixes", "labels"]


@dataclass(frozen=True)
class Finding:
    """One reason why a person should look at an image.

    Args:
        kind: what the page filters by, such as `"probably wrong label"`: the same words for all images.
        text: a sentence on this image, or nothing.
    """

    kind: str
    text: str = ""


@dataclass(frozen=True)
class ImageToCheck:
    """One image of a page.

    Args:
        path: what `fixes.csv` calls it: its name in the image set.
        sha256: of its content: `keras_vit.data.origin.content_hash`.
        image: to make its thumbnail of.
        label: the label that it has, as `keras_vit.data.targets.label_text` gives it: the name of a class, or
            a JSON list of several; `None` if it has none yet.
        suggested: the label that it may have instead, in the same form; `None` if there is no suggestion.
        score: how sure the finding is, or how unsure the label, 0 to 1; the page shows the largest first.
        confidence: of the suggested label; `None` if it is not known.
        findings: why it is on the page.
        kept: whether a person has looked at it before and kept it.
        file: of an image without a label, the path that `labels.jsonl` has; `None` for `path`.
    """

    path: str
    sha256: str
    image: Image
    label: str | None = None
    suggested: str | None = None
    score: float = 0.0
    confidence: float | None = None
    findings: tuple[Finding, ...] = ()
    kept: bool = False
    file: Path | None = None


@contextlib.contextmanager
def new_folder(out: str | Path, option: str = "--out") -> Iterator[Path]:
    """A folder for the time of the block, which appears at its path whole at the end, or not at all.

    Args:
        out: the path, where nothing may be but an empty folder; the folders above it are made.
        option: the command's option that names it, for error messages.

    Raises:
        InputError: there is something at the path, or it cannot be written.
    """
    out = Path(os.path.abspath(Path(out).expanduser()))
    check_new_folder(out, option)
    made = make_folder(out.parent, option)
    try:
        with work_folder(out.parent, out.name) as new:
            yield new
            if is_taken(out):
                raise InputError(f"{out} appeared in the meantime: choose another {option}.")
            os.replace(new, out)
    finally:
        remove_made(made)  # only where nothing was written


def check_new_folder(out: str | Path, option: str = "--out") -> None:
    """Raises InputError, before the work, where `new_folder` would."""
    if is_taken(Path(out).expanduser()):
        raise InputError(f"{out} exists already: choose another {option}, or remove it.")


def write_page(
    folder: Path,
    images: Sequence[ImageToCheck],
    *,
    title: str,
    source: str,
    class_names: Sequence[str],
    several: bool = False,
    decoding: "Decoding | None" = None,
    task: Task = "fixes",
    lines: Sequence[str] = (),
    labelled: Sequence[Mapping[str, str]] = (),
    fixes: Sequence[Mapping[str, str]] = (),
) -> None:
    """Writes `index.html` and `thumbnails/` into a folder, such as that of `new_folder`.

    Args:
        folder: exists.
        images: in any order. An image that cannot be decoded has no thumbnail.
        title: of the page.
        source: which images these are.
        class_names: what a person can choose from.
        several: whether an image may have several labels, or none.
        decoding: how files become pixels; `None` for the defaults.
        task: `"fixes"` to correct labels, which gives `fixes.csv`; `"labels"` for images without labels,
            which gives `labels.jsonl`, a table to train with.
        lines: sentences for the top of the page.
        labelled: rows of images that have labels already, path, label and part, which `labels.jsonl` begins
            with.
        fixes: what was decided before and counts already, as `ImageSet.fixes` has it: `fixes.csv` holds it
            too, unless it is decided again.

    Raises:
        OSError: the folder cannot be written.
    """
    images = sorted(images, key=lambda image: -image.score)  # stable
    thumbnails = _write_thumbnails(folder / THUMBNAILS, [image.image for image in images], decoding)
    kinds = sorted({finding.kind for image in images for finding in image.findings})
    rows = [
        {
            **_named("path", image.path),
            **({"at": os.fspath(image.file)} if image.file is not None else {}),
            "sha256": image.sha256,
            "label": _labels(image.label, several),
            "suggested": _labels(image.suggested, several),
            "score": round(float(image.score), 4),
            "findings": [[kinds.index(found.kind), shown(found.text)] for found in image.findings],
            **({"sure": round(float(image.confidence), 4)} if image.confidence is not None else {}),
            **({"kept": 1} if image.kept else {}),
            **({"file": file, "small": int(file.endswith(".png"))} if file else {}),
        }
        for image, file in zip(images, thumbnails, strict=True)
    ]
    data: dict[str, Any] = {
        "task": task,
        "several": several,
        "classes": [_named("name", name) for name in class_names],
        "kinds": [shown(kind) for kind in kinds],
        "images": rows,
        **({"labelled": [dict(row) for row in labelled]} if labelled else {}),
        **({"before": [[cell(row[name]) for name in COLUMNS] for row in fixes]} if fixes else {}),
    }
    # What is kept in the browser belongs to these images and findings alone.
    data["key"] = "keras-vit " + hashlib.sha256(_json([title, source, data]).encode()).hexdigest()[:32]
    write_text(folder / PAGE, _page(data, title, source, lines))


def _page(data: dict[str, Any], title: str, source: str, lines: Sequence[str]) -> str:
    from importlib.resources import files

    from markupsafe import Markup

    script = files("keras_vit.report").joinpath("labelling.js").read_text(encoding="utf-8")
    digest = base64.b64encode(hashlib.sha256(script.encode()).digest()).decode()
    return render(
        "labelling",
        title=title,
        source=source,
        lines=lines,
        task=data["task"],
        count=len(data["images"]),
        script=Markup(script),
        script_hash=f"sha256-{digest}",
        data=Markup(_json(data)),
    )


def _json(value: Any) -> str:
    """JSON that can stand in a script element: ASCII, and nothing that closes the element."""
    text = json.dumps(value, separators=(",", ":"))
    return text.replace("<", "\\u003c").replace(">", "\\u003e").replace("&", "\\u0026")


def _named(key: str, value: str) -> dict[str, str]:
    """A text as the page shows it, and where they differ as the cell of a CSV file."""
    text, written = shown(value), str(cell(value))
    return {key: text} if text == written else {key: text, "cell": written}


def _labels(text: str | None, several: bool) -> list[str] | None:
    """The names of labels as the page shows them."""
    if text is None:
        return None
    return [shown(name) for name in (json.loads(text) if several else [text])]


def _write_thumbnails(folder: Path, images: Sequence[Image], decoding: "Decoding | None") -> list[str | None]:
    """Writes one picture per image, and returns where the page finds them; `None` for unreadable ones."""
    from tqdm import tqdm

    folder.mkdir()

    def write(i: int) -> str | None:
        try:
            pixels = shown_pixels(images[i], decoding)
        except UnreadableImage:
            return None
        name, encoded = _thumbnail(pixels)
        name = f"{i:05d}{name}"
        (folder / name).write_bytes(encoded)  # whole with its folder; to sync 10,000 files takes minutes
        return f"{THUMBNAILS}/{name}"

    disable = None if len(images) >= SHOWN_FROM else True  # None: not where the error output is a file
    with (
        quiet_headers(),
        ThreadPoolExecutor(min(4, os.cpu_count() or 1)) as pool,
        tqdm(total=len(images), desc="thumbnails", unit=" images", leave=False, disable=disable) as bar,
    ):
        found: list[str | None] = []
        for start in range(0, len(images), 256):
            found += pool.map(write, range(start, min(start + 256, len(images))))
            bar.update(len(found) - start)
    return found


def _thumbnail(pixels: np.ndarray) -> tuple[str, bytes]:
    """The suffix and the bytes of the picture of an image."""
    import io

    from PIL import Image as pil

    picture = pil.fromarray(np.ascontiguousarray(pixels[:, :, 0] if pixels.shape[2] == 1 else pixels))
    small = max(picture.size) <= SMALL
    if not small:
        picture.thumbnail((SIDE, SIDE), pil.Resampling.LANCZOS, reducing_gap=3.0)
    file = io.BytesIO()
    picture.save(file, *(("PNG",) if small else ("JPEG",)), quality=QUALITY)
    return ".png" if small else ".jpg", file.getvalue()
