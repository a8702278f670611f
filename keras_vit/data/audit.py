"""What is in an image set, before a model is trained on it: counts, sizes, broken files, duplicates."""

from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import TYPE_CHECKING

import numpy as np

from keras_vit.data.duplicates import Duplicates, find_duplicates
from keras_vit.data.image_set import SPLIT_PARTS, ImageSet
from keras_vit.data.overview import measured_channels
from keras_vit.data.pixel_range import PixelRange, choose_range
from keras_vit.data.probe import ImageInfo
from keras_vit.data.reading import ReadImages, read_images
from keras_vit.data.split import Split, SplitDuplicates, split_image_set
from keras_vit.data.targets import counts_of, same_labels
from keras_vit.data.tiff import TiffPage
from keras_vit.errors import InputError
from keras_vit.text import shown

if TYPE_CHECKING:
    from keras_vit.data.decode import Decoding

PAIRED = 100  # equal images of which every pair is listed
LISTED = 10  # lines per finding in the printed table and in an error


@dataclass(frozen=True)
class UnreadableItem:
    """The name of an image that cannot be read, or that is damaged, and the reason."""

    name: str
    reason: str


@dataclass(frozen=True)
class DuplicatePair:
    """Two images that are equal (`exact`) or nearly so, with their parts if the split is known.

    `likeness` is 1 for exact duplicates; see `near_duplicates.find_near_duplicates` for the others.
    """

    first: str
    second: str
    likeness: float
    exact: bool
    first_part: str | None = None
    second_part: str | None = None


@dataclass(frozen=True)
class Audit:
    """What `audit_images` found. `str(audit)` is a table for people, `to_dict()` is ready for JSON.

    Args:
        source: what the user asked for.
        images: how many images, readable or not.
        classes: class name -> part -> number of images, unreadable ones too; `"all"` is always a key.
        height: min, median and max in pixels over the readable images; empty if there are none.
        width: the same.
        sizes: the most frequent sizes, `"200 x 200"` (height x width) -> number of images.
        kinds: `"JPEG, 3 channels"` -> number of images; `"array, ..."` for pixels in memory.
        pixels: which values of images with 16 bits become black and white, in words; `None` without such
            images.
        unreadable: in the order of the image set.
        damaged: images that can be read although their decoder complains, with what it says.
        first_of_several: images whose file has further pages or frames, which are not read.
        exact_duplicates: groups of names with the same decoded pixels; three equal channels count as one.
        near_duplicates: pairs that show the same thing, most alike first, without exact duplicates.
        near_duplicates_found: how many there are; the list ends at `near_duplicates.LISTED_PAIRS`.
        near_duplicates_skipped: why they were not searched for, or `None`.
        leaks: pairs, exact or near, whose images are in different parts of the split.
        label_conflicts: groups of exact duplicates that are in more than one class.
        imbalance: the number of images of the largest class divided by that of the smallest; infinite if a
            class is empty.
        without_labels: how many images have none of several labels; `None` where each has one class. Then
            `classes` counts the images with each label, and conflicts are other sets of labels.
        notes: what is not used or was converted when the source was read, one line each. `str(audit)` leaves
            them out, since `load_image_set` has said them.
    """

    source: str
    images: int
    classes: dict[str, dict[str, int]]
    height: dict[str, float]
    width: dict[str, float]
    sizes: dict[str, int]
    kinds: dict[str, int]
    pixels: str | None
    unreadable: tuple[UnreadableItem, ...]
    damaged: tuple[UnreadableItem, ...]
    first_of_several: tuple[str, ...]
    exact_duplicates: tuple[tuple[str, ...], ...]
    near_duplicates: tuple[DuplicatePair, ...]
    near_duplicates_found: int
    near_duplicates_skipped: str | None
    leaks: tuple[DuplicatePair, ...]
    label_conflicts: tuple[tuple[str, ...], ...]
    imbalance: float
    without_labels: int | None = None
    notes: tuple[str, ...] = ()

    def to_dict(self) -> dict:
        """The audit as dicts, lists, texts and numbers; an infinite imbalance becomes `None`."""
        plain = asdict(self)
        plain["imbalance"] = self.imbalance if np.isfinite(self.imbalance) else None
        if self.without_labels is None:
            del plain["without_labels"]
        for key, value in plain.items():
            if isinstance(value, tuple):
                plain[key] = [list(item) if isinstance(item, tuple) else item for item in value]
        return plain

    def __str__(self) -> str:
        return "\n".join(map(shown, [*self._head(), *self._findings()]))

    def _head(self) -> Iterator[str]:
        parts = [part for part in ("all", *SPLIT_PARTS) if any(part in row for row in self.classes.values())]
        width = max(len("class"), *(len(name) for name in self.classes))
        thing, things = ("class", "classes") if self.without_labels is None else ("label", "labels")
        yield f"{self.source}: {self.images:,} images, {len(self.classes)} {things}"
        yield f"  {thing:{width}}" + "".join(f"{part:>12}" for part in parts)
        for name, row in self.classes.items():
            yield f"  {name:{width}}" + "".join(f"{row.get(part, 0):>12,}" for part in parts)
        if self.without_labels is not None:
            yield f"  images without a label: {self.without_labels:,}"
        yield f"  largest {thing} / smallest {thing}: {self.imbalance:.3g}"
        if self.sizes:
            yield "  sizes (height x width): " + ", ".join(f"{k} ({n:,})" for k, n in self.sizes.items())
        if len(self.sizes) > 1:
            for side, found in (("height", self.height), ("width", self.width)):
                yield f"  {side}: {found['min']:g} to {found['max']:g}, median {found['median']:g}"
        if self.kinds:
            yield "  files: " + ", ".join(f"{kind} ({n:,})" for kind, n in self.kinds.items())
        if self.pixels:
            yield f"  pixels: {self.pixels}"

    def _findings(self) -> Iterator[str]:
        yield f"  unreadable: {len(self.unreadable) or 'none'}"
        yield from _some(f"{item.name}: {item.reason}" for item in self.unreadable)
        if self.damaged:
            yield f"  damaged, but read: {len(self.damaged)}"
            yield from _some(f"{item.name}: {item.reason}" for item in self.damaged)
        if self.first_of_several:
            yield f"  more than one page or frame, of which the first is read: {len(self.first_of_several)}"
            yield from _some(self.first_of_several)
        yield f"  exact duplicates: {_groups(len(self.exact_duplicates))}"
        yield from _some(" = ".join(group) for group in self.exact_duplicates)
        if self.label_conflicts:
            which = "in more than one class" if self.without_labels is None else "with other labels"
            yield f"  of these {which}: {_groups(len(self.label_conflicts))}"
            yield from _some(" = ".join(group) for group in self.label_conflicts)
        found = self.near_duplicates_found
        pairs = f"{found:,} pair{'s' * (found > 1)}" if found else "none"
        yield f"  near duplicates: {self.near_duplicates_skipped or pairs}"
        yield from _some(f"{c.first} ~ {c.second} ({c.likeness:.2f})" for c in self.near_duplicates)
        if any(set(row) - {"all"} for row in self.classes.values()):
            yield f"  duplicates across the split: {len(self.leaks) or 'none'}"
            yield from _some(
                f"{c.first} ({c.first_part}) {'=' if c.exact else '~'} {c.second} ({c.second_part})"
                for c in self.leaks
            )


def audit_images(
    image_set: ImageSet,
    split: Split | None = None,
    images: ReadImages | None = None,
    pixels: str | None = None,
    duplicates: Duplicates | None = None,
) -> Audit:
    """Finds what to know about images before a model is trained on them.

    Args:
        image_set: an `ImageSet`.
        split: its split, for the counts and the duplicates across it; without one `image_set.parts` is used.
        images: what `read_images` returned for `image_set.images`; `None` reads and decodes each image once,
            as a run with default settings does.
        pixels: of `Audit`, where `images` are given.
        duplicates: what `find_duplicates` found among these images; `None` searches for them.

    Returns:
        An `Audit`. Unreadable images are in it, not raised: `require_readable` raises.
    """
    if images is None:
        images, pixels, _ = _read_by_default(image_set, split)
    duplicates = duplicates or find_duplicates(images)
    parts = _parts(image_set, split)
    good = [info for info in images.infos if info is not None]
    groups, near = duplicates.exact, _near(image_set, duplicates, parts)
    counts = counts_of(image_set.labels, len(image_set.class_names)).tolist()
    sizes = Counter(f"{info.height} x {info.width}" for info in good)
    kinds = Counter(map(_kind_in_words, good))
    across = [pair for group in groups for pair in _across(image_set, group, parts)]
    return Audit(
        source=image_set.source,
        images=len(image_set),
        classes=_classes(image_set, parts),
        height=_range([info.height for info in good]),
        width=_range([info.width for info in good]),
        sizes=dict(sizes.most_common(5)),
        kinds=dict(kinds.most_common()),
        pixels=pixels,
        unreadable=tuple(
            UnreadableItem(name, reason)
            for name, reason in zip(image_set.names, images.reasons, strict=True)
            if reason is not None
        ),
        damaged=tuple(
            UnreadableItem(name, info.warning)
            for name, info in zip(image_set.names, images.infos, strict=True)
            if info is not None and info.warning is not None
        ),
        first_of_several=tuple(
            name
            for name, info in zip(image_set.names, images.infos, strict=True)
            if info is not None and info.has_more
        ),
        exact_duplicates=_names(image_set, groups),
        near_duplicates=near,
        near_duplicates_found=duplicates.near_found,
        near_duplicates_skipped=duplicates.near_skipped,
        leaks=(*across, *(pair for pair in near if pair.first_part != pair.second_part)),
        label_conflicts=_names(image_set, [g for g in groups if not same_labels(image_set.labels, g)]),
        imbalance=max(counts) / min(counts) if min(counts) else float("inf"),
        without_labels=int((~image_set.labels.any(axis=1)).sum()) if image_set.several else None,
        notes=image_set.notes,
    )


@dataclass(frozen=True)
class Audited:
    """An audit, and what it was made of.

    Args:
        audit: what was found.
        read: the images as they were read, with fingerprints.
        duplicates: those among them.
        decoding: how files become pixels.
    """

    audit: Audit
    read: ReadImages
    duplicates: Duplicates
    decoding: "Decoding"


def audit_split(
    image_set: ImageSet,
    seed: int,
    split_duplicates: SplitDuplicates,
    pixel_range: PixelRange = "auto",
    tiff_page: TiffPage = None,
) -> Audited:
    """`audit_images` of the split that a run with default settings draws.

    Args:
        image_set: all images.
        seed: of the split.
        split_duplicates: as of a run.
        pixel_range: as of a run.
        tiff_page: as of a run.

    Raises:
        InputError: the images cannot be split, or have no such range.
    """
    split = split_image_set(image_set, seed=seed)
    images, pixels, decoding = _read_by_default(image_set, split, pixel_range, tiff_page)
    duplicates = find_duplicates(images)
    if split_duplicates == "together":
        split = split_image_set(image_set, seed=seed, alike=duplicates.groups)
    audit = audit_images(image_set, split, images, pixels, duplicates)
    return Audited(audit, images, duplicates, decoding)


def require_readable(audit: Audit) -> None:
    """Raises an `InputError` that names up to ten unreadable images and the fix, if there are any."""
    if not audit.unreadable:
        return
    lines = "\n".join(map(shown, _some(f"{item.name}: {item.reason}" for item in audit.unreadable)))
    number = len(audit.unreadable)
    them = "them" if number > 1 else "it"
    raise InputError(
        f"{number} of the {audit.images:,} images in {audit.source} cannot be read. Remove or replace "
        f"{them}, or leave {them} out with --skip-unreadable:\n{lines}"
    )


def drop_unreadable(image_set: ImageSet, audit: Audit) -> ImageSet:
    """The image set without the images that its audit calls unreadable."""
    unreadable = {item.name for item in audit.unreadable}
    return image_set.take([i for i, name in enumerate(image_set.names) if name not in unreadable])


def _read_by_default(
    image_set: ImageSet, split: Split | None, pixel_range: PixelRange = "auto", tiff_page: TiffPage = None
) -> tuple[ReadImages, str | None, "Decoding"]:
    """The images as a run with default settings reads them, what it says of their values, and how it does."""
    from keras_vit.data.decode import Decoding

    if split is None:
        train = [i for i, part in enumerate(image_set.parts or ()) if part == "train"]
        split = Split(np.array(train or range(len(image_set)), np.int64), *[np.zeros(0, np.int64)] * 2)
    decoding = Decoding(tiff_page=tiff_page, channels=measured_channels(image_set.images, tiff_page))
    try:
        chosen, told = choose_range(pixel_range, image_set, split, decoding)
    except InputError as refused:
        if pixel_range != "auto":
            raise
        chosen, told = None, str(refused)
    decoding = replace(decoding, pixel_range=chosen)
    return read_images(image_set.images, decoding=decoding), told, decoding


def _kind_in_words(info: ImageInfo) -> str:
    """`"PNG, 1 channel"`, `"TIFF, 1 channel, 16 bits"`."""
    bits = {"uint8": "", "uint16": ", 16 bits"}.get(info.stored, f", {info.stored}")
    return f"{info.kind}, {info.channels} channel{'s' * (info.channels > 1)}{bits}"


def _parts(image_set: ImageSet, split: Split | None) -> tuple[str | None, ...]:
    """The part of each image; `None` if no split is known or the split leaves the image out."""
    if split is None:
        return image_set.parts or (None,) * len(image_set)
    parts: list[str | None] = [None] * len(image_set)
    for part in SPLIT_PARTS:
        for i in getattr(split, part):
            parts[i] = part
    return tuple(parts)


def _classes(image_set: ImageSet, parts: tuple[str | None, ...]) -> dict[str, dict[str, int]]:
    classes = {name: {"all": 0} for name in image_set.class_names}
    for part in SPLIT_PARTS:
        if part in parts:
            for row in classes.values():
                row[part] = 0
    of_part, number = np.array([part or "" for part in parts]), len(image_set.class_names)
    for part in ("all", *SPLIT_PARTS):
        labels = image_set.labels if part == "all" else image_set.labels[of_part == part]
        for row, count in zip(classes.values(), counts_of(labels, number).tolist(), strict=True):
            if part in row:
                row[part] = count
    return classes


def _range(values: list[int]) -> dict[str, float]:
    if not values:
        return {}
    return {"min": min(values), "median": float(np.median(values)), "max": max(values)}


def _names(image_set: ImageSet, groups: list[list[int]]) -> tuple[tuple[str, ...], ...]:
    return tuple(tuple(image_set.names[i] for i in group) for group in groups)


def _across(image_set, group, parts):
    """The pairs of a group of exact duplicates that lie in different parts.

    Of a group of more than `PAIRED` images each is in one pair at least: 10,000 equal ones have 10 million.
    """
    pairs: Iterable[tuple[int, int]] = combinations(group, 2)
    if len(group) > PAIRED:
        first_of: dict[str | None, int] = {}
        for i in group:
            first_of.setdefault(parts[i], i)
        others = {part: next((i for p, i in first_of.items() if p != part), None) for part in first_of}
        found = {(min(i, j), max(i, j)) for i in group if (j := others[parts[i]]) is not None}
        pairs = sorted(found)
    for i, j in pairs:
        if parts[i] != parts[j]:
            yield DuplicatePair(image_set.names[i], image_set.names[j], 1.0, True, parts[i], parts[j])


def _near(image_set, duplicates, parts):
    return tuple(
        DuplicatePair(image_set.names[i], image_set.names[j], round(like, 4), False, parts[i], parts[j])
        for i, j, like in duplicates.near
    )


def _groups(number: int) -> str:
    return f"{number:,} group{'s' * (number > 1)}" if number else "none"


def _some(lines: Iterable[str]) -> Iterator[str]:
    """The first lines, indented, and how many more there are."""
    found = list(lines)
    yield from (f"    {line}" for line in found[:LISTED])
    if len(found) > LISTED:
        yield f"    and {len(found) - LISTED:,} more"
