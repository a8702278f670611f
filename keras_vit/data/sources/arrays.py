"""Images and labels in an .npz file, under the names that Keras, MedMNIST and others use."""

import math
import zipfile
from collections.abc import Iterable, Sequence
from pathlib import Path

import numpy as np

from keras_vit.data.class_names import class_name, in_order, notes_on
from keras_vit.data.image_set import SPLIT_PARTS, ImageSet
from keras_vit.data.sources.array_names import Found, find_arrays
from keras_vit.data.sources.part_names import EVALUATION, PREDICTION
from keras_vit.data.sources.pixels import as_labels, as_pixels
from keras_vit.errors import InputError

TOTAL_LIMIT = 8 * 1024**3  # bytes, uncompressed


def read_npz(path: Path, classes: Sequence[str] | None = None) -> ImageSet:
    """The images of an .npz file as an image set of uint8 arrays, in the order of the file.

    It holds images, uint8 (n, height, width) or (n, height, width, channels), and labels, integers or text
    (n,) or (n, 1), as `x` and `y`, as `images` and `labels`, or in parts: `x_train` and `y_train` or
    `train_images` and `train_labels`, the same with `val` or `valid` (optional) and `test`. `class_names`
    (k,) is optional: label i is the class of `class_names[i]`. The name of an image is its position:
    `x_train[12]`.

    Other types of pixels, channels first and one-hot labels are converted where there is one way to do it.
    What is converted and which arrays are not used is in `notes`.

    Args:
        path: of the file.
        classes: as `load_image_set` takes them.

    Raises:
        InputError: the file is not as described here; the message names the array.
    """
    found, arrays = _load(path, judging=classes is not None)
    notes = [f"arrays that are not used: {_list(found.unused)}"] if found.unused else []
    pairs = _settled(str(path), found, notes)
    pixels, told = as_pixels(str(path), {pair.images: arrays[pair.images] for pair in pairs.values()})
    notes += told
    images, names, labels, parts = [], [], [], []
    for part, (x, y) in pairs.items():
        values = as_labels(str(path), y, arrays[y], notes)
        if len(pixels[x]) != len(values):
            raise InputError(f"{path}: {x} has {len(pixels[x])} images, but {y} has {len(values)} labels.")
        images += list(pixels[x])
        names += [f"{x}[{i}]" for i in range(len(pixels[x]))]
        labels.append(values)
        parts += [part] * len(pixels[x])
    if not images:
        raise InputError(f"{path} holds no images: its arrays are empty.")
    if len({values.dtype.kind == "U" for values in labels}) > 1:
        raise InputError(f"{path} has labels in words and in numbers: save all of them in one way.")
    named = None if found.class_names is None else arrays[found.class_names]
    class_names, numbers, told = _classes(path, named, np.concatenate(labels))
    if classes is None:
        _check_learned(path, class_names, numbers, parts)
    return ImageSet(
        source=str(path),
        class_names=class_names,
        images=images,
        names=tuple(names),
        labels=numbers,
        parts=tuple(parts) if len(pairs) > 1 and classes is None else None,
        notes=(*notes, *told),
    )


def _load(path: Path, judging: bool) -> tuple[Found, dict[str, np.ndarray]]:
    """What the arrays are, and those that are used; the others are not read."""
    try:
        with zipfile.ZipFile(path) as archive:
            size = sum(info.file_size for info in archive.infolist())
        if size > TOTAL_LIMIT:
            raise InputError(
                f"{path} would take {size / 1024**3:.0f} GiB of memory, more than the "
                f"{TOTAL_LIMIT // 1024**3} allowed. Save the images as files in class folders and give the "
                "folder."
            )
        with np.load(path, allow_pickle=False) as archive:
            found = find_arrays(str(path), archive.files, judging)
            used = [name for pair in found.pairs.values() for name in pair]
            used += [found.class_names] if found.class_names else []
            for name in used:
                _check_header(archive.zip, name)
            return found, {name: archive[name] for name in used}
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


def _check_header(archive: zipfile.ZipFile, name: str) -> None:
    """Raises ValueError for an array that claims more bytes than it has: numpy would take them first."""
    info = archive.getinfo(f"{name}.npy" if f"{name}.npy" in archive.namelist() else name)
    with archive.open(info) as file:
        version = np.lib.format.read_magic(file)
        read = (
            np.lib.format.read_array_header_1_0 if version == (1, 0) else np.lib.format.read_array_header_2_0
        )
        shape, _, dtype = read(file)
    if not dtype.hasobject and math.prod(shape) * dtype.itemsize > info.file_size:
        raise ValueError(f"{name} claims the shape {shape}, more than its bytes")


def _settled(source: str, found: Found, notes: list[str]) -> dict:
    """The pairs with evaluation and prediction arrays as test or validation part, whichever has none yet."""
    pairs = {part: pair for part, pair in found.pairs.items() if part not in (EVALUATION, PREDICTION)}
    for part in (EVALUATION, PREDICTION):
        if part in found.pairs:
            free = next((name for name in ("test", "validation") if name not in pairs), None)
            if free is None:
                raise InputError(
                    f"{source} has arrays for validation, for test and also {found.pairs[part].images}. "
                    "Keep two."
                )
            pairs[free] = found.pairs[part]
            notes.append(f"{found.pairs[part].images} is used as the {free} part")
    return {part: pairs[part] for part in ("", *SPLIT_PARTS) if part in pairs}


def _classes(
    path: Path, class_names: np.ndarray | None, labels: np.ndarray
) -> tuple[tuple[str, ...], np.ndarray, list[str]]:
    """(class names, int64 labels, what the user must know of the names)."""
    if labels.dtype.kind == "U":
        raw = {str(text): class_name(str(text), f"a label of {path}") for text in np.unique(labels)}
        names = in_order(raw.values())
        numbers = {text: names.index(name) for text, name in raw.items()}
        notes = notes_on(raw)
        if class_names is not None:
            notes.append("class_names is not used: the labels are in words")
        return names, np.array([numbers[str(text)] for text in labels], np.int64), notes
    if class_names is None:
        found, positions = np.unique(labels, return_inverse=True)
        return tuple(map(str, found)), positions.reshape(-1).astype(np.int64), []
    if class_names.dtype.kind == "S":
        class_names = np.char.decode(class_names, "utf-8")
    if class_names.ndim != 1 or class_names.dtype.kind != "U":
        raise _wrong_names(path, class_names)
    raw = {str(text): class_name(str(text), f"class_names of {path}") for text in class_names}
    names = tuple(raw[str(text)] for text in class_names)
    if len(set(names)) < max(2, len(names)):
        raise _wrong_names(path, class_names)
    wrong = labels[(labels < 0) | (labels >= len(names))]
    if len(wrong):
        raise InputError(
            f"{path}: a label is {wrong[0]}, but class_names has {len(names)} names, so labels go "
            f"from 0 to {len(names) - 1}."
        )
    return names, labels.astype(np.int64), notes_on(raw)


def _wrong_names(path: Path, class_names: np.ndarray) -> InputError:
    return InputError(
        f"{path}: class_names must be two or more different texts, shape (k,). "
        f"Received: {class_names.dtype} {class_names.shape}"
    )


def _check_learned(
    path: Path, class_names: tuple[str, ...], labels: np.ndarray, parts: Sequence[str]
) -> None:
    found = np.unique(labels)
    if len(found) < 2:
        raise InputError(
            f'{path} holds only one class, "{class_names[found[0]]}". A classifier needs two or more.'
        )
    learned = np.unique(labels[[part in ("", "train") for part in parts]])
    lacking = [class_names[label] for label in found if label not in learned]
    if lacking:
        raise InputError(
            f"{path} has no training images of the classes {_list(lacking)}, but images of other parts. Add "
            "some to the arrays of the train part, or remove the class."
        )


def _list(names: Iterable[str]) -> str:
    found = list(names)
    return ", ".join(found[:10] + [f"and {len(found) - 10} more"] * (len(found) > 10))
