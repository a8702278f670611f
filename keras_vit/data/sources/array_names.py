"""The names of arrays of images and labels in .npz files."""

import re
from collections.abc import Iterable, Mapping
from typing import NamedTuple

from keras_vit.data.sources.part_names import part_name
from keras_vit.errors import InputError

IMAGES = frozenset(
    {
        "x", "image", "images", "img", "imgs", "pixels", "picture", "pictures", "data", "inputs", "input",
        "features",
    }
)  # fmt: skip
LABELS = frozenset(
    {"y", "label", "labels", "target", "targets", "output", "outputs", "classes", "class", "ids"}
)
FILLERS = frozenset({"set", "ds", "dataset", "arr", "array"})
CLASS_NAMES = frozenset({"class_names", "label_names", "target_names", "category_names"})
NAMES = (
    "x and y, images and labels, or x_train, y_train, x_test, y_test (x_val, y_val), or train_images, "
    "train_labels and so on"
)


class Pair(NamedTuple):
    """Names of the arrays of images and of their labels."""

    images: str
    labels: str


class Found(NamedTuple):
    """What the arrays of a file are.

    Args:
        pairs: part -> the names of its arrays; the part is empty in a file without parts.
        class_names: the array with the names of the classes, or `None`.
        unused: all other arrays.
    """

    pairs: Mapping[str, Pair]
    class_names: str | None
    unused: tuple[str, ...]


def find_arrays(source: str, names: Iterable[str], judging: bool) -> Found:
    """Tells images, labels and parts by the names of arrays.

    Args:
        source: for messages.
        names: of the arrays.
        judging: whether the images only judge a run, which needs no train part.

    Raises:
        InputError: no images with labels are found, or two arrays have the same meaning.
    """
    names = list(names)
    if set(names) == {"arr_0", "arr_1"}:  # numpy.savez(path, x, y)
        return Found({"": Pair("arr_0", "arr_1")}, None, ())
    meant: dict[tuple[str, str], str] = {}
    class_names = next((name for name in names if name.lower() in CLASS_NAMES), None)
    for name in names:
        meaning = None if name == class_names else _meaning(name)
        if meaning in meant:
            raise InputError(
                f"{source} has {meant[meaning]} and {name}, which may both be the {meaning[1]}. Keep "
                "one of them."
            )
        if meaning:
            meant[meaning] = name
    parts = list(dict.fromkeys(part for part, _ in meant))
    pairs = {}
    for part in parts:
        images, labels = meant.get((part, "images")), meant.get((part, "labels"))
        if images and labels:
            pairs[part] = Pair(images, labels)
        elif part in ("", "train", "validation"):
            have = images or labels or ""
            raise InputError(f"{source} has no {_other_name(have)}. It must hold {NAMES}.")
    if "" in pairs and len(pairs) > 1:
        raise InputError(
            f"{source} has {' and '.join(pairs[''])} as well as arrays for train and test. Keep one "
            "of the two."
        )
    if not pairs or not (judging or "" in pairs or "train" in pairs):
        raise InputError(
            f"{source} has no images and labels under a known name. It must hold {NAMES}. It holds "
            f"{_list(names) or 'nothing'}."
        )
    used = {name for pair in pairs.values() for name in pair} | {class_names}
    return Found(pairs, class_names, tuple(name for name in names if name not in used))


def _meaning(name: str) -> tuple[str, str] | None:
    """(part, `"images"` or `"labels"`) of `x_train`, `trainImages`, `Xtest`, or `None`."""
    words = re.findall(r"[A-Za-z]+", re.sub(r"([a-z0-9])([A-Z])", r"\1_\2", name))
    words = [piece for word in words for piece in _split_glued(word.lower())]
    kinds = {"images" if word in IMAGES else "labels" for word in words if word in IMAGES | LABELS}
    # "image_labels" and "train_data_labels" are labels.
    kinds = {"labels"} if len(kinds) == 2 else kinds
    roles = {found.role for word in words if (found := part_name(word))}
    others = [word for word in words if word not in IMAGES | LABELS and not part_name(word)]
    if (
        len(kinds) != 1
        or len(roles) > 1
        or any(word not in ("set", "ds", "dataset", "arr", "array") for word in others)
    ):
        return None
    return (roles.pop() if roles else "", kinds.pop())


def _split_glued(word: str) -> list[str]:
    """`xtrain` is x, train."""
    for short in ("x", "y"):
        if word.startswith(short) and part_name(word[1:]):
            return [short, word[1:]]
        if word.endswith(short) and part_name(word[:-1]):
            return [word[:-1], short]
    return [word]


def _other_name(name: str) -> str:
    """What the labels of `x_train` are called, and the images of `train_labels`."""
    swap = {"x": "y", "y": "x", "X": "y", "Y": "X", "images": "labels", "labels": "images"}
    for word, other in swap.items():
        found = re.sub(rf"(?<![A-Za-z]){word}(?![A-Za-z])", other, name)
        if found != name:
            return f"array {found}"
    return f"array that goes with {name}"


def _list(names: list[str]) -> str:
    return ", ".join(names[:10]) + (f" and {len(names) - 10} more" if len(names) > 10 else "")
