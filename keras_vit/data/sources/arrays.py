"""Images and labels in an .npz file, under the names that Keras, MedMNIST and others use."""

import zipfile
from pathlib import Path

import numpy as np

from keras_vit.data.image_set import ImageSet
from keras_vit.errors import InputError

TOTAL_LIMIT = 8 * 1024**3  # bytes, uncompressed
WHOLE = (("x", "y"), ("images", "labels"))
PARTS = {
    "train": (("x_train", "y_train"), ("train_images", "train_labels")),
    "validation": (("x_val", "y_val"), ("x_validation", "y_validation"), ("val_images", "val_labels")),
    "test": (("x_test", "y_test"), ("test_images", "test_labels")),
}
NAMES = "x and y, images and labels, or x_train, y_train, x_test, y_test (x_val, y_val)"


def read_npz(path: Path) -> ImageSet:
    """The images of an .npz file as an image set of uint8 arrays, in the order of the file.

    It holds images, uint8 (n, height, width) or (n, height, width, channels), and labels, integers or text
    (n,) or (n, 1), as `x` and `y`, as `images` and `labels`, or in parts: `x_train` and `y_train` or
    `train_images` and `train_labels`, the same with `val` (optional) and `test`. `class_names` (k,) is
    optional: label i is the class of `class_names[i]`. The name of an image is its position: `x_train[12]`.

    Raises:
        InputError: the file is not as described here; the message names the array.
    """
    arrays = _load(path)
    pairs = _pairs(path, arrays)
    images, names, labels, parts = [], [], [], []
    for part, (x, y) in pairs.items():
        pixels, values = _pixels(path, x, arrays[x]), _labels(path, y, arrays[y])
        if len(pixels) != len(values):
            raise InputError(f"{path}: {x} has {len(pixels)} images, but {y} has {len(values)} labels.")
        images += list(pixels)
        names += [f"{x}[{i}]" for i in range(len(pixels))]
        labels.append(values)
        parts += [part] * len(pixels)
    if not images:
        raise InputError(f"{path} holds no images: its arrays are empty.")
    class_names, numbers = _classes(path, arrays.get("class_names"), np.concatenate(labels))
    return ImageSet(
        source=str(path),
        class_names=class_names,
        images=images,
        names=tuple(names),
        labels=numbers,
        parts=tuple(parts) if len(pairs) > 1 else None,
    )


def _load(path):
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
        if size > TOTAL_LIMIT:
            raise InputError(
                f"{path} would take {size / 1024**3:.0f} GiB of memory, more than the "
                f"{TOTAL_LIMIT // 1024**3} allowed. Save the images as files in class folders and give the "
                "folder."
            )
        known = {name for pair in (*WHOLE, *(p for part in PARTS.values() for p in part)) for name in pair}
        with np.load(path, allow_pickle=False) as archive:
            return {name: archive[name] for name in archive.files if name in known | {"class_names"}}
    except InputError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise ten kinds of exception for damaged files
        if "allow_pickle" in str(error):
            raise InputError(
                f"{path} holds Python objects, which are not loaded for safety. Save plain arrays of numbers."
            ) from error
        raise InputError(
            f"{path} is not an .npz file, or it is damaged ({error}). Write it again with "
            "numpy.savez_compressed."
        ) from error


def _pairs(path, arrays):
    """part -> (name of the images, name of the labels); the part of a file without parts is None."""
    found = {
        part: pair
        for part, pairs in [(None, WHOLE), *PARTS.items()]
        for pair in pairs
        if pair[0] in arrays or pair[1] in arrays
    }
    for pair in found.values():
        for name in pair:
            if name not in arrays:
                raise InputError(f"{path} has no array {name}. It must hold {NAMES}.")
    if None in found and len(found) > 1:
        raise InputError(
            f"{path} has {' and '.join(found[None])} as well as arrays for train and test. Keep one of the "
            "two."
        )
    if not found or (None not in found and "train" not in found):
        raise InputError(f"{path} has no images and labels under a known name. It must hold {NAMES}.")
    return found


def _pixels(path, name, pixels):
    if pixels.dtype != np.uint8:
        raise InputError(f"{path}: {name} must be uint8 pixels, 0 to 255. Received: {pixels.dtype}")
    if pixels.ndim == 3:
        pixels = pixels[..., np.newaxis]
    if pixels.ndim != 4 or pixels.shape[-1] not in (1, 3, 4) or 0 in pixels.shape[1:]:
        raise InputError(
            f"{path}: {name} must have the shape (n, height, width), or (n, height, width, channels) with "
            f"1, 3 or 4 channels. Received: {pixels.shape}"
        )
    return pixels


def _labels(path, name, labels):
    if labels.ndim == 2 and labels.shape[1] == 1:
        labels = labels[:, 0]
    if labels.ndim != 1 or labels.dtype.kind not in "iuU":
        raise InputError(
            f"{path}: {name} must be one integer or text per image, shape (n,). "
            f"Received: {labels.dtype} {labels.shape}"
        )
    return labels


def _classes(path, class_names, labels):
    """(class names, int64 labels)."""
    if class_names is None or labels.dtype.kind == "U":
        found, numbers = np.unique(labels, return_inverse=True)
        if len(found) < 2:
            raise InputError(f'{path} holds only one class, "{found[0]}". A classifier needs two or more.')
        return tuple(map(str, found)), numbers.astype(np.int64)
    if (
        class_names.ndim != 1
        or class_names.dtype.kind != "U"
        or len(set(class_names)) < max(2, len(class_names))
    ):
        raise InputError(
            f"{path}: class_names must be two or more different texts, shape (k,). "
            f"Received: {class_names.dtype} {class_names.shape}"
        )
    wrong = labels[(labels < 0) | (labels >= len(class_names))]
    if len(wrong):
        raise InputError(
            f"{path}: a label is {wrong[0]}, but class_names has {len(class_names)} names, so labels go "
            f"from 0 to {len(class_names) - 1}."
        )
    if len(np.unique(labels)) < 2:
        raise InputError(
            f'{path} holds only one class, "{class_names[labels[0]]}". A classifier needs two or more.'
        )
    return tuple(map(str, class_names)), labels.astype(np.int64)
