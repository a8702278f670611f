"""The probe: a linear head that is fitted to the features of frozen weights, in seconds."""

import dataclasses
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, get_args

import numpy as np

from keras_vit.data.image_set import Image, ImageSet
from keras_vit.data.pipeline import ImageData, Part, read_pixels
from keras_vit.evaluation.labels import figures_of_logits
from keras_vit.evaluation.trust import FOLDS, CalibrationImages
from keras_vit.model.vit import ViT
from keras_vit.runs.features import FeatureReader
from keras_vit.runs.images import with_unlabeled
from keras_vit.runs.ood_features import ood_columns
from keras_vit.text import say
from keras_vit.training.balance import class_counts, is_uneven
from keras_vit.training.config import TrainConfig
from keras_vit.training.head import FEW, Head, fit_few, fit_head, fit_spread, log_softmax
from keras_vit.training.judged import judge_run
from keras_vit.training.label_head import fit_label_head
from keras_vit.training.learned import sides_of
from keras_vit.training.outputs import write_run
from keras_vit.training.prepare import Prepared
from keras_vit.training.spread import TABLE, Spread, Unlabeled, read_unlabeled, spread_labels
from keras_vit.training.start import Start

PARTS: tuple[Part, ...] = get_args(Part)

MIRRORED = {(2,): ("horizontal", "both"), (1,): ("vertical", "both"), (1, 2): ("both",)}
"""Axes of a batch of images that are turned around -> values of `flip` that allow it."""


def feature_reader(start: Start, model: ViT, data: ImageData) -> FeatureReader:
    """What gives the features of the images of a run, whose model has published weights."""
    assert start.weights is not None
    # Weights that the file does not have are drawn, so their features belong to one run.
    known = not model.pretrained.new if model.pretrained else False
    return FeatureReader(model, data.preprocessing, start.weights.origin.sha256 if known else None)


def begin_with_probe(start: Start, model: ViT, data: ImageData, image_set: ImageSet) -> None:
    """Gives the new head of a model the values that a probe finds, so that training begins where it ends.

    Args:
        start: with published weights.
        model: with these weights and a head of zeros, before it is compiled.
        data: the images, prepared for the model.
        image_set: the images as they came.
    """
    reader = feature_reader(start, model, data)
    head, features = fit_probe(reader, data, image_set)
    set_head(model, head)
    say(
        f"head: fitted to the features of {len(features)} training images ({reader.computed} computed, "
        f"{reader.found} from the cache), strength {head.strength:g}"
    )


def fit_probe(reader: FeatureReader, data: ImageData, image_set: ImageSet) -> tuple[Head, np.ndarray]:
    """The head that a probe finds for the training images, and its inputs without those of other views.

    Args:
        reader: of `feature_reader`.
        data: the images, prepared for the model.
        image_set: the images as they came.
    """
    as_it_came = dict(zip(image_set.names, image_set.images, strict=True))
    images = data.image_set.take(data.split.train).images
    features = reader.of_head(reader(images, [as_it_came[name] for name in data.names("train")]))
    return _fit_to_training(features, reader, data)[0], features


def is_few(data: ImageData) -> bool:
    """Whether the training images are so few that the head is fitted to their mirror images too.

    Where classes are very uneven, the median class counts, not the largest one.
    """
    counts = class_counts(data)
    if is_uneven(counts) and np.median(counts[counts > 0]) < FEW:
        return True
    return len(data.split.train) < FEW * data.num_classes


def has_folds(config: TrainConfig, data: ImageData) -> bool:
    """Whether each training image is answered by a head that was fitted without it."""
    return config.recipe.tune == "head" and config.unlabeled is None and not is_few(data)


def probe_run(
    folder: Path,
    described: dict[str, Any],
    start: Start,
    model: ViT,
    prepared: Prepared,
    config: TrainConfig,
    examples: Sequence[Image] = (),
) -> None:
    """Fits the head of a run with frozen weights, judges it and writes the files of the run.

    Args:
        folder: of the run while it is made.
        described: of `describe`.
        start: with published weights.
        model: with these weights.
        prepared: the images, as they came.
        config: of the run.
        examples: of what is to be rejected.

    Raises:
        InputError: the folder without labels cannot be used.
    """
    data, record = prepared.data, None
    more = None
    if config.unlabeled is not None:
        more = read_unlabeled(config.unlabeled, data.image_set, data.split, data.preprocessing.decoding)
    if more is not None:
        say(more.line())
        record = with_unlabeled(prepared.record, more.names, more.images, more.digests)
    reader = feature_reader(start, model, data)
    begin = time.perf_counter()
    full = _features_by_part(reader, data)
    found = {part: reader.of_head(values) for part, values in full.items()}
    labels: dict[Part, np.ndarray] = {part: data.labels(part) for part in PARTS}
    spread = None
    if more is not None:
        features = reader(more.images)
        spread = _spread(reader, data, more, full["train"], features)
        spread.write(folder / TABLE)
        say(spread.line())
        if spread.trusted.any() and data.augmentation.corrupted_copies:
            say("corrupted copies: not made, since the head is fitted to spread labels too")
            augmentation = dataclasses.replace(data.augmentation, corrupted_copies=0)
            data = data.with_batches(data.batch_size, augmentation)
    if spread is not None and spread.trusted.any():
        inputs, targets, weight = _with_spread(found["train"], labels["train"], reader, features, spread)
        if data.class_weights is not None:
            weight *= data.class_weights[targets]
        head = fit_spread(inputs, targets, weight, data.num_classes)
    else:
        head, inputs = _fit_to_training(found["train"], reader, data)
    feature_seconds = time.perf_counter() - begin - head.seconds
    set_head(model, head)
    logits = {part: head.logits(values) for part, values in found.items()}
    calibration = _calibration(head, labels["train"], logits["validation"], labels["validation"])
    metrics = judge_run(
        config,
        data,
        logits=logits,
        last_logits=logits["test"],
        calibration=calibration,
        training=np.arange(len(labels["train"])),
        sides=sides_of(prepared.audit),
    )
    metrics["probe"] = {
        "strength": head.strength,
        "grid": head.grid,
        "judged_on": head.judged_on,
        "width": len(head.kernel),
        "computed": reader.computed,
        "from_cache": reader.found,
        "feature_seconds": round(feature_seconds, 2),
        "fit_seconds": round(head.seconds, 2),
        "fitted_to": len(inputs),
    }
    if spread is not None:
        metrics["unlabeled"] = spread.describe()
    how = f"chosen on {head.judged_on}".replace("chosen on nothing: ", "not chosen, since ")
    say(
        f"features: {reader.computed} images computed, {reader.found} from the cache, "
        f"{feature_seconds:.1f} s; head: fitted to {len(inputs)} rows in {head.seconds:.1f} s, "
        f"strength {head.strength:g}, {how}"
    )
    seconds = round(feature_seconds + head.seconds, 2)
    row: dict[str, Any] = {"epoch": 1}
    prefixes: dict[Part, str] = {"train": "", "validation": "val_"}
    for part, prefix in prefixes.items():
        if len(labels[part]) and data.several:
            row |= {
                prefix + name: value for name, value in figures_of_logits(labels[part], logits[part]).items()
            }
        elif len(labels[part]):
            log_p = log_softmax(logits[part])
            row[f"{prefix}accuracy"] = float((log_p.argmax(axis=1) == labels[part]).mean())
            row[f"{prefix}loss"] = float(-log_p[np.arange(len(log_p)), labels[part]].mean())
    history = [{**row, "seconds": seconds}]
    described = {**described, "seconds": seconds}
    write_run(
        *(folder, described, model, data, prepared.audit, history, metrics),
        test_logits=logits["test"],
        calibration=calibration,
        features=reader,
        record=record,
        examples=examples,
    )


def _fit_to_training(inputs: np.ndarray, reader: FeatureReader, data: ImageData) -> tuple[Head, np.ndarray]:
    """The head, and the inputs that it was fitted to.

    Besides those of the training images these are of their corrupted copies, as the recipe says, and of
    their mirror images where images are few.
    """
    views = [inputs, *_corrupted(reader, data)]
    few = is_few(data)
    if few:
        views += _mirrored(reader, data)
    rows = np.concatenate(views)
    labels = np.concatenate([data.labels("train")] * len(views))
    weight = data.train_weights(drawn=not few)
    weight = None if weight is None else np.tile(weight, len(views))
    image_of = np.tile(np.arange(len(inputs)), len(views))
    if data.several:
        return fit_label_head(rows, labels, weight, image_of), rows
    if few:
        return fit_few(rows, labels, data.num_classes, weight, equally=data.balanced), rows
    return fit_head(rows, labels, data.num_classes, weight, image_of), rows


def _calibration(
    head: Head, labels: np.ndarray, validation_logits: np.ndarray, validation_labels: np.ndarray
) -> CalibrationImages:
    """Images that a head was not fitted to: those of the validation part, and with folds all others too.

    Their corrupted copies, which come after them in the folds, are left out: later images are like the clean
    ones.
    """
    if head.out_of_fold is None:
        return CalibrationImages(validation_logits, validation_labels)
    return CalibrationImages(
        np.concatenate([head.out_of_fold[: len(labels)], validation_logits]),
        np.concatenate([labels, validation_labels]),
        FOLDS,
    )


def _features_by_part(reader: FeatureReader, data: ImageData) -> dict[Part, np.ndarray]:
    """The features of all images of a run, read as one sequence: each size of a batch is compiled once."""
    positions = [getattr(data.split, part) for part in PARTS]
    features = reader(data.image_set.take(np.concatenate(positions)).images)
    ends = np.cumsum([len(part) for part in positions])
    return dict(zip(PARTS, np.split(features, ends[:-1]), strict=True))


def _features_of_graph(reader: FeatureReader, features: np.ndarray) -> np.ndarray:
    """The features that show best which images are alike: those of half of the blocks beside the head's.

    With five labelled images per class of NEU, 99.2 % of the spread labels are right with both, 99.0 % with
    either alone.
    """
    half = slice(*ood_columns(reader.model)["half"])
    return np.concatenate([features[:, half], reader.of_head(features)], axis=1)


def _spread(
    reader: FeatureReader, data: ImageData, more: Unlabeled, training: np.ndarray, features: np.ndarray
) -> Spread:
    """The labels of images without any, by the features of these and of the training images."""
    labels = data.labels("train")
    probabilities = spread_labels(
        _features_of_graph(reader, training),
        labels,
        _features_of_graph(reader, features),
        data.num_classes,
    )
    return Spread(more, data.class_names, probabilities, np.bincount(labels, minlength=data.num_classes))


def _with_spread(
    inputs: np.ndarray, labels: np.ndarray, reader: FeatureReader, features: np.ndarray, spread: Spread
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Inputs of the head, labels and weights: of the training images, then of those with a trusted label."""
    used = spread.trusted
    return (
        np.concatenate([inputs, reader.of_head(features)[used]]),
        np.concatenate([labels, spread.labels[used]]),
        np.concatenate([np.ones(len(labels)), spread.confidence[used]]),
    )


def _corrupted(reader: FeatureReader, data: ImageData) -> list[np.ndarray]:
    """Inputs of the head for each of the corrupted copies: one array (n, width) per copy."""
    copies = data.augmentation.corrupted_copies
    if not copies:
        return []
    found = reader.of_head(reader([image.astype("float32") for image in data.corrupted]))
    return np.split(found, copies)


def _mirrored(reader: FeatureReader, data: ImageData) -> list[np.ndarray]:
    """Inputs of the head for the mirror images, as the recipe says: one array (n, width) per direction."""
    flip = data.augmentation.flip
    ways = [axes for axes, names in MIRRORED.items() if flip in names]
    if not ways:
        return []
    pixels = read_pixels(data.image_set.take(data.split.train).images, data.preprocessing)
    turned = [image for axes in ways for image in np.flip(pixels, axes)]
    return np.split(reader.of_head(reader(turned)), len(ways))


def set_head(model: ViT, head: Head) -> None:
    """Gives the last layer of a model the values of a fitted head."""
    model.get_layer("head").set_weights([head.kernel, head.bias])
