"""The audit of the images in words: what is wrong, for the top of the page, and everything, for its end."""

from collections.abc import Mapping, Sequence
from typing import Any

from keras_vit.report.kit import count, words

# In this order on the page: what may be wrong comes first.
NAMES = {
    "unreadable": "images that cannot be read",
    "damaged": "images that are damaged, but were read",
    "first_of_several": "images of which only the first page or frame was read",
    "label_conflicts": "equal images in more than one class",
    "leaks": "equal or nearly equal images in different parts",
    "exact_duplicates": "equal images",
    "near_duplicates": "nearly equal images",
    "near_duplicates_found": "pairs of nearly equal images",
    "near_duplicates_skipped": "search for nearly equal images",
    "source": "source",
    "images": "images",
    "classes": "images per class",
    "imbalance": "largest class / smallest class",
    "height": "height in pixels",
    "width": "width in pixels",
    "sizes": "most frequent sizes (height x width)",
    "kinds": "kinds of files",
    "pixels": "range of values",
    "notes": "how the images were read",
}


def warnings(audit: Mapping[str, Any] | None, test_images: int) -> list[str]:
    """What the audit found that may make the figures wrong, as sentences; the worst first.

    Args:
        audit: as `render_report` takes it.
        test_images: how many images were tested.
    """
    audit = audit or {}
    found = _leak_warnings(audit.get("leaks") or (), test_images)
    conflicts = audit.get("label_conflicts") or ()
    if conflicts:
        many = len(conflicts) > 1
        found.append(
            f"{len(conflicts):,} group{'s' if many else ''} of equal images {'are' if many else 'is'} in "
            f"more than one class, such as {_line(conflicts[0])}. At most one of the labels can be right: "
            "correct or remove the others, and train again."
        )
    unreadable = audit.get("unreadable") or ()
    if unreadable:
        many = len(unreadable) > 1
        found.append(
            f"{len(unreadable):,} image{'s' if many else ''} cannot be read and {'were' if many else 'was'} "
            f"left out, such as {_line(unreadable[0])}."
        )
    damaged = audit.get("damaged") or ()
    if damaged:
        found.append(
            f"{len(damaged):,} damaged image{'s' * (len(damaged) > 1)} can be read, such as "
            f"{_line(damaged[0])}. A part of the picture may be missing: look at what the data audit lists."
        )
    if audit.get("near_duplicates_skipped"):
        found.append(
            f"Nearly equal images were {audit['near_duplicates_skipped']}. It is not known whether test "
            "images have copies among the training images."
        )
    return found


def _leak_warnings(leaks: Sequence[Mapping[str, Any]], test_images: int) -> list[str]:
    """Of pairs in different parts: those with a test image, then those of validation and training images."""
    tested = [pair for pair in leaks if "test" in (pair["first_part"], pair["second_part"])]
    others = [pair for pair in leaks if "test" not in (pair["first_part"], pair["second_part"])]
    found = []
    if tested:
        number = len(_names(tested, "test"))
        found.append(
            f"{count(number)} of the {count(test_images)} test images {'has' if number == 1 else 'have'} an "
            f"equal or nearly equal image in another part, such as {duplicate_line(tested[0])}. The test "
            "accuracy may be too high: remove the copies, and train again."
        )
    if others:
        number = len(_names(others, "validation"))
        found.append(
            f"{count(number)} validation image{' has' if number == 1 else 's have'} an equal or nearly equal "
            f"image among the training images, such as {duplicate_line(others[0])}. The epoch and the "
            "temperature that they chose may be wrong ones: remove the copies, and train again."
        )
    return found


def _names(pairs: Sequence[Mapping[str, Any]], part: str) -> set[str]:
    return {pair[which] for pair in pairs for which in ("first", "second") if pair[f"{which}_part"] == part}


def rows(audit: Mapping[str, Any]) -> list[tuple[str, list[str]]]:
    """(name, lines) for each entry of the audit; a key that has no name here is shown as it is."""
    known = [key for key in NAMES if key in audit]
    more = [key for key in audit if key not in NAMES]
    shown = {**audit}
    for key in ("near_duplicates_skipped", "pixels"):
        if audit.get(key) is None:
            shown.pop(key, None)
    if not audit.get("notes"):
        shown.pop("notes", None)
    pairs = audit.get("near_duplicates")
    if isinstance(pairs, Sequence) and audit.get("near_duplicates_found") == len(pairs):
        shown.pop("near_duplicates_found", None)  # all of them are listed
    return [
        (NAMES.get(key, key.replace("_", " ")), shown[key] if key == "notes" else lines(shown[key]))
        for key in known + more
        if key in shown
    ]


def lines(value: Any) -> list[str]:
    """A finding as lines: one per item of a nested list or mapping, otherwise a single line."""
    if isinstance(value, Mapping):
        if {"min", "median", "max"} <= value.keys():
            return [f"{words(value['min'])} to {words(value['max'])}, median {words(value['median'])}"]
        if any(isinstance(v, Mapping) for v in value.values()):
            return [f"{k}: {_counts(v)}" for k, v in value.items()]
    if isinstance(value, (list, tuple)) and any(isinstance(v, (Mapping, list, tuple)) for v in value):
        return [_line(v) for v in value]
    return [words(value)]


def _line(value: Any) -> str:
    if isinstance(value, Mapping):
        if {"first", "second", "exact"} <= value.keys():
            return duplicate_line(value)
        if value.keys() == {"name", "reason"}:
            return f"{value['name']}: {value['reason']}"
    if isinstance(value, (list, tuple)):
        return " = ".join(map(str, value))
    return words(value)


def _counts(value: Any) -> str:
    """`{"all": 300, "train": 240}` as "300 (train 240)"."""
    if not isinstance(value, Mapping):
        return words(value)
    parts = ", ".join(f"{name} {words(number)}" for name, number in value.items() if name != "all")
    if "all" not in value:
        return parts or "none"
    return f"{words(value['all'])} ({parts})" if parts else words(value["all"])


def duplicate_line(pair: Mapping[str, Any]) -> str:
    """A pair of images that show the same, each with its part of the split."""
    first, second = (
        f"{pair[which]} ({part})" if part else str(pair[which])
        for which in ("first", "second")
        for part in [pair.get(f"{which}_part")]
    )
    return f"{first} = {second}" if pair["exact"] else f"{first} ~ {second}, {pair['likeness']:.2f}"
