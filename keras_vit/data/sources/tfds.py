"""Image sets from TensorFlow Datasets, an optional dependency."""

import logging
import os
from collections.abc import Sequence

import numpy as np

from keras_vit.data.class_names import class_name, notes_on
from keras_vit.data.image_set import SPLIT_PARTS, ImageSet
from keras_vit.data.sources.kinds import images_in_words
from keras_vit.data.sources.part_names import EVALUATION, part_name
from keras_vit.errors import InputError

LOGGER = logging.getLogger(__name__)
SIZE_LIMIT = 8 * 1024**3  # bytes: an image set is held in memory
NAME_FEATURES = ("file_name", "image/filename", "filename")


def read_tfds(name: str, classes: Sequence[str] | None = None) -> ImageSet:
    """The images of a TFDS data set as an image set of encoded bytes.

    A data set that is not prepared yet is downloaded to `TFDS_DATA_DIR`, or `~/tensorflow_datasets`, after a
    line in the log that says so. The splits train, validation and test, in their usual spellings, become
    parts; splits with other names and images without a label are left out, which `notes` says. A data set
    with one split has no parts.

    Args:
        name: `"mnist"`, `"NAME/CONFIG"`, `"NAME:VERSION"`; `"neu_det"` is
            `keras_vit.data.sources.neu_det.NeuDet`.
        classes: as `load_image_set` takes them.

    Raises:
        InputError: TFDS is not installed, the name is unknown, the data set cannot be prepared, is larger
            than 8 GiB, or has no 8-bit image with a class label.
    """
    try:
        import tensorflow_datasets as tfds

        if name.split("/")[0].split(":")[0] == "neu_det":
            import keras_vit.data.sources.neu_det  # noqa: F401 -- the class definition registers the name
    except ImportError as error:
        raise InputError(
            f'tfds:{name} needs TensorFlow Datasets: pip install "keras-vit-defects[tfds]". ({error})'
        ) from error
    builder = _builder(tfds, name)
    _prepare(builder, name)
    if builder.info.dataset_size > SIZE_LIMIT:
        raise InputError(
            f"tfds:{name} has {builder.info.dataset_size / 1024**3:.0f} GiB, more than the "
            f"{SIZE_LIMIT // 1024**3} that are held in memory. Choose a smaller data set or configuration."
        )
    return _read(tfds, builder, name, judging=classes is not None)


def _builder(tfds, name):
    try:
        return tfds.builder(name, data_dir=os.environ.get("TFDS_DATA_DIR"))
    except tfds.core.DatasetNotFoundError as error:
        raise InputError(
            f"TensorFlow Datasets has no data set {name!r}. The names are listed at "
            "https://www.tensorflow.org/datasets/catalog/overview"
        ) from error
    except Exception as error:  # TFDS raises what its data sets raise
        raise InputError(f"tfds:{name} cannot be used: {_last_line(error)}") from error


def _prepare(builder, name):
    if builder.info.splits:
        return
    if name.split("/")[0].split(":")[0] == "neu_det":
        raise InputError(
            f"tfds:neu_det is not prepared in {builder.data_path}. Get the images as the README says, then "
            "call keras_vit.data.sources.neu_det.prepare_neu_det(folder) once, or give the folder itself as "
            "data."
        )
    size = builder.info.download_size
    LOGGER.warning(
        "tfds:%s is not on this machine yet: TensorFlow Datasets downloads it (%s) to %s.",
        name,
        size or "size unknown",
        builder.data_path,
    )
    try:
        builder.download_and_prepare()
    except Exception as error:  # network, disk, manual downloads, missing packages of the data set
        raise InputError(f"tfds:{name} could not be downloaded and prepared: {_last_line(error)}") from error


def _last_line(error):
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return " ".join(lines)[:600] if lines else type(error).__name__


def _features(tfds, builder, name):
    """The names of the features of the image, the label and, if there is one, the file name."""
    features = builder.info.features
    keys = list(features.keys()) if isinstance(features, tfds.features.FeaturesDict) else []
    supervised = builder.info.supervised_keys
    if supervised and all(isinstance(key, str) for key in supervised):
        keys = [*supervised, *keys]
    images = [
        key
        for key in keys
        if isinstance(features[key], tfds.features.Image)
        and not isinstance(features[key], tfds.features.LabeledImage)
        and features[key].np_dtype == np.uint8
    ]
    labels = [key for key in keys if isinstance(features[key], tfds.features.ClassLabel)]
    if not images or not labels:
        raise InputError(
            f"tfds:{name} has no 8-bit image with a class label: it is not a data set for classification."
        )
    names = [key for key in NAME_FEATURES if key in keys and isinstance(features[key], tfds.features.Text)]
    return images[0], labels[0], names[0] if names else None


def _read(tfds, builder, name, judging):
    image_key, label_key, name_key = _features(tfds, builder, name)
    features = builder.info.features
    decoders = {
        key: tfds.decode.SkipDecoding() for key in features if isinstance(features[key], tfds.features.Image)
    }
    found = list(builder.info.splits)
    splits = _parts(found) if len(found) > 1 else {found[0]: "train"}
    if "train" not in splits.values() and not (judging and splits):
        raise InputError(f"tfds:{name} has no train split. It has: {', '.join(found)}.")
    unused = [split for split in found if split not in splits]
    notes = [f"splits that are not used: {', '.join(unused)}"] if unused else []

    rows = []
    for split in sorted(splits, key=lambda split: SPLIT_PARTS.index(splits[split])):
        examples = builder.as_dataset(split=split, decoders=decoders, shuffle_files=False)
        for i, example in enumerate(examples.as_numpy_iterator()):
            shown = example[name_key].decode("utf-8", "backslashreplace") if name_key else f"{split}[{i}]"
            rows.append((example[image_key], shown, int(example[label_key]), splits[split]))
    unlabeled = [row[1] for row in rows if row[2] < 0]
    if unlabeled:
        notes.append(f"{images_in_words(len(unlabeled))} without a label, not used, such as {unlabeled[0]}")
    rows = [row for row in rows if row[2] >= 0]
    labels = np.array([row[2] for row in rows], dtype=np.int64)
    raw = {text: class_name(text, f"tfds:{name}") for text in features[label_key].names or ()}
    class_names = tuple(raw.values())
    if not judging and len(np.unique(labels)) < 2:
        raise InputError(
            f"tfds:{name} holds fewer than two classes with images. A classifier needs two or more."
        )
    names = tuple(row[1] for row in rows)
    if len(set(names)) < len(names):
        names = tuple(f"{shown} ({i})" for i, shown in enumerate(names))
    parts = tuple(str(row[3]) for row in rows)
    return ImageSet(
        source=f"tfds:{name}",
        class_names=class_names,
        images=[row[0] for row in rows],
        names=names,
        labels=labels,
        parts=parts if len(set(parts)) > 1 and not judging else None,
        notes=(*notes, *notes_on(raw)),
    )


def _parts(splits):
    """Split -> part, for the splits that are used."""
    roles = {split: found.role for split in splits if (found := part_name(split)) and found.is_sure}
    parts = {split: role for split, role in roles.items() if role in SPLIT_PARTS}
    for split, role in roles.items():
        free = [part for part in ("test", "validation") if part not in parts.values()]
        if role == EVALUATION and free:
            parts[split] = free[0]
    return parts
