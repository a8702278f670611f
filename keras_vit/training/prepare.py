"""The images of a run, split and audited."""

import dataclasses
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_vit.data.audit import Audit, audit_images, drop_unreadable, require_readable
from keras_vit.data.duplicates import find_duplicates
from keras_vit.data.folds import fold_split
from keras_vit.data.image_set import SPLIT_PARTS, ImageSet
from keras_vit.data.pipeline import ImageData
from keras_vit.data.pixel_range import choose_range, line_of_range
from keras_vit.data.preprocess import Preprocessing
from keras_vit.data.reading import read_images
from keras_vit.data.sources import load_image_set
from keras_vit.data.split import Split, crossing, split_image_set
from keras_vit.data.targets import counts_of
from keras_vit.runs.images import ImageRecord, record_images
from keras_vit.training.balance import choose_sampling, images_that_count, weights_of_classes
from keras_vit.training.config import TrainConfig
from keras_vit.training.defaults import cut_batch
from keras_vit.training.recipe import BALANCED

CHANGED = "Restore them to continue, or begin anew with another --out."


def same_images(record: ImageRecord, image_set: ImageSet) -> tuple[ImageSet, list[str]]:
    """The images that a run or a search has seen before, in their order; and what to say of the others.

    Args:
        record: what it remembers of them.
        image_set: the source as it is now.

    Raises:
        InputError: images have been replaced or removed, or have another label.
    """
    found = record.find(image_set)
    found.check(SPLIT_PARTS, CHANGED)
    return found.restored(), found.notes()


@dataclass(frozen=True)
class Prepared:
    """The images of a run.

    Args:
        data: them, split.
        audit: what was found in them.
        record: what the run remembers of them: `images.csv`.
        notes: what to say of how they were split, one line each.
    """

    data: ImageData
    audit: Audit
    record: ImageRecord
    notes: tuple[str, ...] = ()


def prepare_data(config: TrainConfig, keep_originals: bool = True, **given: Any) -> tuple[ImageData, Audit]:
    """The images of a run, and what the audit found; arguments and errors as `prepare`."""
    prepared = prepare(config, keep_originals, **given)
    return prepared.data, prepared.audit


def prepare(
    config: TrainConfig,
    keep_originals: bool = True,
    *,
    preprocessing: Preprocessing | None = None,
    image_set: ImageSet | None = None,
    keep_prepared: bool = True,
    record: ImageRecord | None = None,
    replicas: int = 1,
    is_settled: bool = False,
) -> Prepared:
    """The images of a run, each decoded once, split, and what the audit found.

    Args:
        config: all settings of the run.
        keep_originals: whether the images are also kept as they came, for the report.
        preprocessing: of the images; `None` for that of a run from scratch.
        image_set: what `config.data` names, if it is loaded already.
        keep_prepared: whether the images are prepared for the model now. Otherwise that is done where they
            are needed.
        record: of the same run, or of the search that it belongs to, whose split is used again; `image_set`
            is then what `same_images` returns. `None` draws the split.
        replicas: copies of the model that share each batch equally.
        is_settled: whether `preprocessing` has its range of values already, as that of a run that continues.

    Raises:
        InputError: the source cannot be used, or there are unreadable images and the settings do not skip
            them.
    """
    if image_set is None:
        image_set = load_image_set(config.data, **config.of_tables)
    if preprocessing is None:
        preprocessing = config.preprocessing
    notes: list[str] = []
    came, split = image_set, _split(config, image_set, record)
    if is_settled:
        told = line_of_range(preprocessing.pixel_range)
    else:
        # A search and its best run, which may train on the validation images too, measure the same images.
        measured = record.split(merge_validation=False) if record else split
        pixel_range, told = choose_range(config.pixel_range, image_set, measured, preprocessing)
        preprocessing = dataclasses.replace(preprocessing, pixel_range=pixel_range)
    prepared_by = preprocessing if keep_prepared else None
    images = read_images(image_set.images, prepared_by, keep_originals, preprocessing.decoding)
    duplicates = find_duplicates(images)
    alike = None
    if record is None and config.split_duplicates == "together":
        alike, drawn = duplicates.groups, _split(config, image_set, alike=duplicates.groups)
        if crossed := crossing(split, alike):
            notes.append(_line_of_duplicates(crossed))
        split = drawn
        if preprocessing.pixel_range is not None and not is_settled:
            pixel_range, told = choose_range(config.pixel_range, image_set, split, preprocessing)
            if pixel_range != preprocessing.pixel_range:  # some of the images that it was measured on moved
                preprocessing = dataclasses.replace(preprocessing, pixel_range=pixel_range)
                prepared_by = preprocessing if keep_prepared else None
                images = read_images(image_set.images, prepared_by, keep_originals, preprocessing.decoding)
    audit = audit_images(image_set, split, images, told, duplicates)
    image_set = images.put_into(image_set)
    if audit.unreadable and config.skip_unreadable and record is None:
        image_set = drop_unreadable(image_set, audit)
        split = _split(config, image_set, alike=None if alike is None else alike[images.readable])
    else:
        require_readable(audit)
    counts = counts_of(image_set.labels[split.train], len(image_set.class_names))
    batch_size = cut_batch(config, images_that_count(config.recipe, counts), replicas)
    if config.recipe.tune == "head":  # it is fitted to all images at once: fewer than a batch are enough
        batch_size = min(batch_size, len(split.train))
    data = ImageData(
        image_set,
        split,
        preprocessing,
        batch_size,
        config.seed,
        config.recipe.augmentation,
        choose_sampling(config.recipe, counts)[0] == BALANCED,
        weights_of_classes(config.recipe.class_weights, counts, image_set.class_names),
    )
    if record is None:
        unreadable = [i for i, reason in enumerate(images.reasons) if reason is not None]
        readable = images.take(images.readable)
        record = record_images(came.take(images.readable), split, came.take(unreadable), readable)
    elif config.merge_validation:
        record = record.merged()
    return Prepared(data, audit, record, tuple(notes))


def _line_of_duplicates(groups: int) -> str:
    number = f"{groups:,} group{'s' * (groups != 1)} of images that show the same thing"
    return (
        f"{number} would have been in two parts of the split: each is in one (--split-duplicates keep leaves "
        "them)"
    )


def _split(
    config: TrainConfig,
    image_set: ImageSet,
    record: ImageRecord | None = None,
    alike: np.ndarray | None = None,
) -> Split:
    if record is not None:
        return record.split(config.merge_validation)
    settings: dict[str, Any] = dict(
        seed=config.seed,
        validation_fraction=config.validation_fraction,
        merge_validation=config.merge_validation,
        alike=alike,
    )
    if config.folds is not None and config.fold is not None:
        return fold_split(image_set, folds=config.folds, fold=config.fold, **settings)
    return split_image_set(image_set, test_fraction=config.test_fraction, **settings)
