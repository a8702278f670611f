"""What the labels of images are: one class per image, int64 (n,); or any number of them, uint8 (n, classes).

With several labels, a row has a 1 for each label of the image; an image without any has a row of zeros.
"""

import json
from collections.abc import Sequence

import numpy as np

from keras_vit.errors import InputError
from keras_vit.text import shown


def is_several(labels: np.ndarray) -> bool:
    """Whether images may have several labels."""
    return labels.ndim == 2


def targets_of(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """What a model is to answer: float32 (n, classes), one-hot, or a 1 for each label of the image."""
    if is_several(labels):
        return labels.astype("float32")
    return np.eye(num_classes, dtype="float32")[labels]


def counts_of(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """How many images have each label: int64 (classes,)."""
    if is_several(labels):
        return labels.sum(axis=0, dtype=np.int64)
    return np.bincount(labels, minlength=num_classes)


def as_several(labels: np.ndarray, num_classes: int) -> np.ndarray:
    """The labels as those of images that may have several: uint8 (n, classes)."""
    return targets_of(labels, num_classes).astype(np.uint8)


def same_labels(labels: np.ndarray, positions: Sequence[int]) -> bool:
    """Whether the images at these positions have the same label, or the same set of labels."""
    found = labels[list(positions)]
    return bool((found == found[0]).all())


def label_text(labels: np.ndarray, position: int, class_names: Sequence[str]) -> str:
    """The label of an image as a table has it: the name of its class, or a JSON list of its labels."""
    if not is_several(labels):
        return shown(class_names[labels[position]])
    return names_as_json([shown(class_names[i]) for i in np.flatnonzero(labels[position]).tolist()])


def names_as_json(names: Sequence[str]) -> str:
    """Names of labels as a JSON list, which holds names with any separator."""
    return json.dumps(list(names), ensure_ascii=False)


def names_from_json(text: str) -> list[str]:
    """The names in a JSON list.

    Raises:
        InputError: half a sentence, where it is not a JSON list of texts.
    """
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, list) or not all(isinstance(name, str) for name in found):
        raise InputError(f"{text[:80]!r} is not a JSON list of labels")
    return found


def labels_of_texts(texts: Sequence[str], class_names: Sequence[str], several: bool) -> np.ndarray:
    """The labels of images from what `label_text` gave for them.

    Raises:
        InputError: half a sentence, where a text is not of these classes.
    """
    place = {shown(name): i for i, name in enumerate(class_names)}

    def position(name: str) -> int:
        if name not in place:
            raise InputError(f"{name!r} is not a class of the run")
        return place[name]

    if not several:
        return np.array([position(text) for text in texts], np.int64)
    found = np.zeros((len(texts), len(class_names)), np.uint8)
    for row, text in zip(found, texts, strict=True):
        row[[position(name) for name in names_from_json(text)]] = 1
    return found
