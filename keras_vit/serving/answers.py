"""What the answer of a server must be: the outputs of an exported model, for each image, that agree."""

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import numpy as np

from keras_vit.data.targets import names_from_json
from keras_vit.errors import InputError, ServerError

OUTPUTS = ("probabilities", "label", "confidence", "reject")
SET_OUTPUTS = ("prediction_set", "refer")
"""Both or none: a model without prediction sets, as those of earlier versions, has none."""
LABEL_OUTPUTS = ("labels", "label_names", "thresholds")
"""All or none: of a model of several labels per image."""
LIKELIEST = "likeliest"
"""Of a model whose label is named by a rule, not by the largest probability."""
NAMES = ("label", LIKELIEST)
# Of an answer per image: more than 100,000 classes as JSON. What a server claims is checked before it is
# expanded, so an answer takes at most some multiples of its bytes.
BYTES_PER_IMAGE = 2 * 1024**2
# gRPC's own limit, 4 MiB, is too small for 1024 images with 1000 classes.
MAX_ANSWER_BYTES = 64 * 1024**2
TOLERANCE = 1e-3  # of sums and maxima: the served model may compute with less precision

TEXTS = (*NAMES, "label_names")

PER_CLASS = ("probabilities", "prediction_set", "labels", "thresholds")

Row = tuple[list[float], str, float, float, list[float] | None, float | None, str | None, list[str] | None]


def most_bytes(images: int) -> int:
    """The most bytes that an answer about so many images may have."""
    return min(MAX_ANSWER_BYTES, BYTES_PER_IMAGE * max(images, 1))


def check_shapes(address: str, shapes: Mapping[str, tuple[int, ...] | None], images: int) -> None:
    """Checks what an answer claims to hold, before it is expanded.

    Args:
        address: of the server.
        shapes: output name -> its shape; `None` if it has no number of axes.
        images: how many were sent.

    Raises:
        ServerError: an output is missing, or a shape is not that of so many images and some classes.
    """
    missing = [name for name in OUTPUTS if name not in shapes]
    if missing:
        raise ServerError(
            f"{address} does not serve a model that `keras-vit export` made: its outputs are "
            f"{', '.join(sorted(shapes)) or 'none'}, without {', '.join(missing)}."
        )
    if len({name in shapes for name in SET_OUTPUTS}) > 1:
        raise nonsense(address, f"only one of {' and '.join(SET_OUTPUTS)} is there")
    given = [name for name in LABEL_OUTPUTS if name in shapes]
    if given and len(given) < len(LABEL_OUTPUTS):
        raise nonsense(address, f"only {' and '.join(given)} of {', '.join(LABEL_OUTPUTS)} is there")
    found = {name: shapes[name] for name in answered(shapes)}
    classes = (found["probabilities"] or ())[1:2]
    wanted = {name: (images, *(classes if name in PER_CLASS else ())) for name in found}
    if found != wanted or not classes or classes[0] < 1:
        raise nonsense(address, f"{images} images were sent, the shapes of the answer are {found}")
    if 4 * images * classes[0] > most_bytes(images):
        raise nonsense(address, f"it claims {classes[0]:,} classes, more than are read for {images} images")


def answered(outputs: Mapping[str, Any]) -> tuple[str, ...]:
    """The outputs that are read: all but those of `OUTPUTS` only where they are there."""
    return OUTPUTS + tuple(name for name in (*SET_OUTPUTS, LIKELIEST, *LABEL_OUTPUTS) if name in outputs)


class Reader:
    """Reads answers of one model, whose classes are the same in each.

    Args:
        address: of the server.
    """

    def __init__(self, address: str):
        self.address = address
        self._classes: int | None = None
        self._label_of: dict[int, str] = {}  # index of the largest probability -> label

    def rows(self, outputs: Mapping[str, Any], images: int) -> Iterator[Row]:
        """What `Row` has, image by image; `None` for each output that the model lacks.

        Args:
            outputs: output name -> one value per image; others than `answered` are not looked at.
            images: how many were sent.

        Raises:
            ServerError: the answer is not that of an exported model, or it contradicts itself.
        """
        shapes = {name: _shape(value) for name, value in outputs.items()}
        check_shapes(self.address, shapes, images)
        texts = {name: outputs[name] for name in NAMES if name in outputs}
        try:
            # JSON may hold more digits than a float32: this makes REST and gRPC return the same number.
            numbers = {name: _numbers(outputs[name]) for name in answered(outputs) if name not in TEXTS}
            named = {name: [_text(one) for one in _listed(values)] for name, values in texts.items()}
            lists = [_names(text) for text in _listed(outputs["label_names"])] if "labels" in shapes else None
        except (TypeError, ValueError, OverflowError) as error:
            raise nonsense(self.address, str(error)) from error
        if not all(((value >= 0) & (value <= 1)).all() for value in numbers.values()):
            raise nonsense(self.address, "its numbers are not all in 0..1")
        labels, likeliest = named["label"], named.get(LIKELIEST)
        self._check_same_model(numbers["probabilities"], likeliest or labels)
        has_sets = "refer" in numbers
        for row, label in enumerate(labels):
            at = -1 if likeliest is None else self._number_of(label, likeliest[row])
            contradiction = _contradiction(
                label,
                numbers["probabilities"][row],
                numbers["confidence"][row],
                numbers["reject"][row],
                at,
                several=lists is not None,
            )
            if likeliest is not None and bool(label) != bool(likeliest[row]):
                contradiction = contradiction or "an image has only one of label and likeliest"
            if lists is not None and not contradiction:
                contradiction = _of_labels(label, numbers["labels"][row], lists[row])
            if has_sets and not contradiction:
                contradiction = _of_sets(label, *(numbers[name][row] for name in SET_OUTPUTS))
            if contradiction:
                raise nonsense(self.address, contradiction)
        columns: dict[str, list[Any]] = {name: value.tolist() for name, value in numbers.items()}
        columns |= named if lists is None else {**named, "label_names": lists}
        without: list[None] = [None] * images
        every = (*OUTPUTS, *SET_OUTPUTS, LIKELIEST, "label_names")
        return zip(*(columns.get(name, without) for name in every), strict=True)

    def _number_of(self, label: str, likeliest: str) -> int | None:
        """The number of the class that a rule has named: -1 for the likeliest, `None` while unknown."""
        if label == likeliest:
            return -1
        return next((i for i, known in self._label_of.items() if known == label), None)

    def _check_same_model(self, probabilities: np.ndarray, labels: Sequence[str]) -> None:
        """Raises ServerError if the label of a class is not always the same."""
        classes = probabilities.shape[1]
        if self._classes not in (None, classes):
            raise ServerError(
                f"{self.address} has changed its model between two requests, from {self._classes} to "
                f"{classes} classes: send the images again."
            )
        self._classes = classes
        for row, label in zip(probabilities, labels, strict=True):
            best = np.flatnonzero(row == row.max())
            if not label or len(best) > 1:  # not decoded, or a tie
                continue
            known = self._label_of.setdefault(int(best[0]), label)
            if known != label or sum(label == other for other in self._label_of.values()) > 1:
                raise nonsense(self.address, f"the label {label!r} does not belong to one class alone")


def _listed(values: Any) -> list[Any]:
    return values.tolist() if isinstance(values, np.ndarray) else values


def _contradiction(
    label: str,
    probabilities: np.ndarray,
    confidence: float,
    reject: float,
    named: int | None = -1,
    several: bool = False,
) -> str | None:
    """What is wrong with the answer about one image; `None` if nothing is.

    Args:
        label, probabilities, confidence, reject: of the image.
        named: the number of the class that is the label; -1 for the likeliest, `None` if that is not known.
        several: whether an image may have several labels.
    """
    if reject not in (0, 1):
        return f"reject is {reject:g}, neither 0 nor 1"
    if not label:  # of an image that cannot be decoded
        if probabilities.any() or confidence or not reject:
            return "an image without a label has probabilities, or is not rejected"
        return None
    total, largest = float(probabilities.sum(dtype=np.float64)), float(probabilities.max())
    if abs(total - 1) > TOLERANCE and not several:
        return f"the probabilities of an image sum to {total:.4g}, not to 1"
    if named is None:
        if confidence > largest + TOLERANCE:
            return f"a confidence is {confidence:.4g}, and the largest probability {largest:.4g}"
    elif named >= 0:
        if abs(confidence - probabilities[named]) > TOLERANCE:
            return f"a confidence is {confidence:.4g}, and its label's probability {probabilities[named]:.4g}"
    elif abs(confidence - largest) > TOLERANCE:
        return f"a confidence is {confidence:.4g}, and the largest probability {largest:.4g}"
    return None


def _of_sets(label: str, members: np.ndarray, refer: float) -> str | None:
    """What is wrong with the prediction set of one image; `None` if nothing is."""
    if refer not in (0, 1) or not np.isin(members, (0, 1)).all():
        return "prediction_set or refer is neither 0 nor 1"
    if not label and (members.any() or not refer):
        return "an image without a label has a prediction set, or is not referred"
    return None


def _of_labels(label: str, labels: np.ndarray, names: list[str]) -> str | None:
    """What is wrong with the several labels of one image; `None` if nothing is."""
    if not np.isin(labels, (0, 1)).all():
        return "one of labels is neither 0 nor 1"
    if len(set(names)) != int(labels.sum()):
        return f"{int(labels.sum())} labels have {len(set(names))} names"
    return "an image without a label has labels" if names and not label else None


def _names(text: Any) -> list[str]:
    try:
        return names_from_json(_text(text))
    except InputError as error:
        raise ValueError(str(error)) from error


def _shape(value: Any) -> tuple[int, ...] | None:
    """The shape of an array, or of lists in lists as far as the first elements tell."""
    if isinstance(value, np.ndarray):
        return value.shape
    if not isinstance(value, list):
        return None
    rows = [len(row) if isinstance(row, list) else None for row in value]
    if not any(length is not None for length in rows):
        return (len(value),)
    return (len(value), rows[0]) if rows[0] is not None and len(set(rows)) == 1 else None


def _numbers(values: Any) -> np.ndarray:
    if not isinstance(values, np.ndarray):
        for row in values:
            for one in row if isinstance(row, list) else (row,):
                if type(one) not in (int, float):  # True is an int, and numpy reads numbers from text
                    raise TypeError(f"{one!r} is not a number")
        values = np.asarray(values, np.float64)
    if values.dtype.kind not in "fiu":
        raise TypeError(f"{values.ravel()[:1].tolist()[0]!r} is not a number")
    return values.astype(np.float32)


def _text(label: Any) -> str:
    if isinstance(label, bytes):
        return label.decode()
    if not isinstance(label, str):
        raise TypeError(f"{label!r} is not a label")
    return label


def nonsense(address: str, what: str) -> ServerError:
    """The error for an answer that no exported model gives."""
    return ServerError(f"{address} does not answer as a model that `keras-vit export` made: {what}.")
