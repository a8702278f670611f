"""Arrays as this package takes them: uint8 pixels (n, height, width, channels), and one label per image."""

from collections.abc import Mapping

import numpy as np

from keras_vit.data.values import MOST_CHANNELS
from keras_vit.errors import InputError

CHANNELS = (1, 3, 4)
"""Of pictures; the last of four is alpha."""

Pixels = np.ndarray | list[bytes]
"""uint8 (n, height, width, channels), or a TIFF in memory of each image with values beyond 0 to 255."""


def as_pixels(source: str, arrays: Mapping[str, np.ndarray]) -> tuple[dict[str, Pixels], list[str]]:
    """Converts arrays of images where there is one way to do it.

    Values beyond 0 to 255 are kept as they are, each image as a TIFF in memory: the run scales them by its
    range, as it does those of files.

    All arrays of a file are converted in the same way: images of the train and of the test part stay alike.

    Args:
        source: for messages.
        arrays: name -> images.

    Returns:
        name -> uint8 (n, height, width, channels), or one TIFF per image; and what was converted, one line
        each.

    Raises:
        InputError: there is none, or more than one way; the message has the line of numpy that converts them.
    """
    notes: list[str] = []
    shaped = {name: _shaped(source, name, pixels, notes) for name, pixels in arrays.items()}
    filled = {name: pixels for name, pixels in shaped.items() if pixels.size}
    if all(pixels.dtype == np.uint8 for pixels in filled.values()):
        if filled and max(pixels.max() for pixels in filled.values()) == 1:
            notes.append(f"{' and '.join(filled)}: all pixels are 0 or 1 of 255, nearly black")
        return {name: pixels.astype(np.uint8, copy=False) for name, pixels in shaped.items()}, notes
    ranges = {name: _range(source, name, pixels) for name, pixels in filled.items()}
    if min(low for low, _ in ranges.values()) < 0 or max(high for _, high in ranges.values()) > 255:
        return _as_values(source, shaped, notes), notes
    factor = _factor(source, filled, ranges)
    names = " and ".join(filled)
    dtypes = ", ".join(sorted({str(pixels.dtype) for pixels in filled.values()}))
    are_whole = all(pixels.dtype.kind in "iu" for pixels in filled.values())
    how = "multiplied by 255 and rounded" if factor == 255 else "converted" if are_whole else "rounded"
    notes.append(f"{names}: {dtypes} pixels of 0 to {255 // factor} are {how} to uint8")
    return {name: _to_uint8(pixels, factor) for name, pixels in shaped.items()}, notes


def _as_values(source: str, arrays: Mapping[str, np.ndarray], notes: list[str]) -> dict[str, Pixels]:
    from keras_vit.data.tiff import write_tiff

    kinds = {str(pixels.dtype) for pixels in arrays.values() if pixels.size}
    if len(kinds) > 1:
        raise InputError(
            f"{source} has images of several types, {', '.join(sorted(kinds))}: their values may not have "
            "one meaning. Save all of them in one type."
        )
    (kind,) = kinds
    kept = kind if kind in ("uint16", "int16", "float32") else "float32"
    told = "" if kept == kind else ", read as float32,"
    notes.append(f"{' and '.join(arrays)}: values of {kind}{told} are scaled by the range of the run")
    return {name: [write_tiff(image.astype(kept)) for image in pixels] for name, pixels in arrays.items()}


def as_labels(source: str, name: str, labels: np.ndarray, notes: list[str]) -> np.ndarray:
    """One integer or text per image, shape (n,).

    Args:
        source: for messages.
        name: of the array.
        labels: of a part.
        notes: gets a line for what is converted.

    Raises:
        InputError: there is no single label per image.
    """
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim == 2 and labels.dtype.kind in "biuf" and _is_one_hot(labels):
        notes.append(f"{name}: one-hot rows of {labels.shape[1]} are read as the positions of their ones")
        return labels.argmax(axis=1)
    if labels.ndim == 2 and labels.dtype.kind == "f" and labels.size:
        raise InputError(
            f"{source}: {name} must be one integer or text per image, shape (n,). Received: {labels.dtype} "
            f"{labels.shape}. If each row has the probabilities of the classes, this takes the likeliest: "
            f"{name} = {name}.argmax(axis=1)"
        )
    if labels.ndim == 1 and labels.dtype.kind == "S":
        try:
            labels = np.char.decode(labels, "utf-8")
        except UnicodeDecodeError as error:
            raise InputError(f"{source}: {name} has bytes that are not UTF-8. Save it as text.") from error
    if (
        labels.ndim == 1
        and labels.dtype.kind == "f"
        and np.isfinite(labels).all()
        and (labels % 1 == 0).all()
    ):
        notes.append(f"{name}: {labels.dtype} labels are read as whole numbers")
        return labels.astype(np.int64)
    if labels.ndim == 1 and labels.dtype.kind == "b":
        notes.append(f"{name}: False is read as class 0, True as class 1")
        return labels.astype(np.int64)
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise InputError(
            f"{source}: {name} must be one integer or text per image, shape (n,). "
            f"Received: {labels.dtype} {labels.shape}"
        )
    return labels


def _is_one_hot(labels: np.ndarray) -> bool:
    return labels.shape[1] > 1 and bool(
        ((labels == 0) | (labels == 1)).all() and (labels.sum(axis=1) == 1).all()
    )


def _shaped(source: str, name: str, pixels: np.ndarray, notes: list[str]) -> np.ndarray:
    if pixels.ndim == 3 and 0 not in pixels.shape[1:]:
        return pixels[..., np.newaxis]
    if pixels.ndim == 4 and 0 not in pixels.shape[1:]:
        if pixels.shape[-1] in CHANNELS:
            return pixels
        few = range(1, MOST_CHANNELS + 1)
        is_first = pixels.shape[1] < pixels.shape[2] == pixels.shape[3] and pixels.shape[1] in few
        if pixels.shape[-1] in few and not is_first:
            return pixels
        if pixels.shape[1] in few:
            notes.append(f"{name}: channels first {pixels.shape} is read as channels last")
            return np.moveaxis(pixels, 1, -1)
    hint = ""
    if pixels.ndim == 4 and pixels.shape[2] in CHANNELS:
        hint = f" If the images are counted by the last axis: {name} = np.moveaxis({name}, -1, 0)"
    elif pixels.ndim == 2 and pixels.shape[1]:
        side = round(pixels.shape[1] ** 0.5)
        if side * side == pixels.shape[1] and side > 1:
            hint = f" If each row is a square gray image: {name} = {name}.reshape(-1, {side}, {side})"
    raise InputError(
        f"{source}: {name} must have the shape (n, height, width), or (n, height, width, channels) with 1 to "
        f"{MOST_CHANNELS} channels. Received: {pixels.shape}.{hint}"
    )


def _range(source: str, name: str, pixels: np.ndarray) -> tuple[float, float]:
    if pixels.dtype.kind not in "biuf":
        raise InputError(f"{source}: {name} must be pixels, 0 to 255. Received: {pixels.dtype}")
    low, high = float(pixels.min()), float(pixels.max())
    if not np.isfinite([low, high]).all():
        raise InputError(f"{source}: {name} has values that are not finite: leave these images out.")
    return low, high


def _factor(source: str, arrays: Mapping[str, np.ndarray], ranges: Mapping[str, tuple[float, float]]) -> int:
    """What the pixels are multiplied by: 255 for those of 0 to 1."""
    high = max(high for _, high in ranges.values())
    found = ", ".join(
        f"{name} {arrays[name].dtype} {low:g} to {high:g}" for name, (low, high) in ranges.items()
    )
    are_whole = all(pixels.dtype.kind in "iu" for pixels in arrays.values())
    message = f"{source} must have uint8 pixels, 0 to 255. Received: {found}."
    units = {name for name, (_, top) in ranges.items() if top <= 1 and arrays[name].dtype.kind in "bf"}
    if units and len(units) < len(arrays):
        name = min(units)
        raise InputError(
            f"{message} Some are of 0 to 1 and some are not: {name} = ({name} * 255).round().astype('uint8')"
        )
    if are_whole and high == 1:
        name = next(iter(arrays))
        raise InputError(f"{message} If 1 is white: {name} = ({name} * 255).astype('uint8')")
    return 255 if units else 1


def _to_uint8(pixels: np.ndarray, factor: int) -> np.ndarray:
    if pixels.dtype == np.uint8:
        return pixels
    # One image at a time: float64 for all would take many times the memory.
    converted = np.empty(pixels.shape, np.uint8)
    for i, image in enumerate(pixels):
        converted[i] = np.rint(image.astype(np.float64) * factor)
    return converted
