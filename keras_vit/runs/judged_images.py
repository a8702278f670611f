"""Which images a finished run is judged on: its own, found where they are now, or others."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from keras_vit.data.image_set import SPLIT_PARTS, ImageSet
from keras_vit.data.origin import find_root, recorded_fixes
from keras_vit.data.pipeline import counts_by_part
from keras_vit.data.reading import ReadImages, read_images
from keras_vit.data.sources import load_image_set
from keras_vit.data.split import Split, split_image_set
from keras_vit.data.targets import as_several
from keras_vit.errors import InputError
from keras_vit.runs.folder import Run
from keras_vit.runs.images import Found, ImageRecord
from keras_vit.runs.known import Known, known_images

CHANGED = (
    "Restore them, or evaluate the images as they are with --data; --leave-out-known then leaves out those "
    "that the run has learned from."
)


@dataclass(frozen=True)
class ToJudge:
    """Readable images that a run is judged on, prepared for its model.

    Args:
        images: one or more.
        notes: what is to be known of them, one line each.
        known: how many of them the run has seen, and as what; `None` if that is not known.
    """

    images: ImageSet
    notes: Sequence[str]
    known: dict[str, int] | None


class OwnImages:
    """The readable images that a run was trained and tested on, prepared for its model.

    They are found where they were, each part when it is asked for: by their content, whatever their names are
    now. Those of a run of an earlier version are split once more as they were.

    Args:
        run: the run.

    Raises:
        InputError: the images are gone; or, when a part is asked for, images of that part have changed.
    """

    def __init__(self, run: Run):
        self.run = run
        # Where the run knows its images, their layout and parts need not be those to train on.
        settings = run.config["train"]
        image_set = load_image_set(
            find_root(run.config, run.path),
            run.class_names if run.images else None,
            crop_boxes=settings.get("crop_boxes", False),
            allow_outside=settings.get("allow_outside", False),
            several_labels=settings.get("several_labels", False),
            label_columns=settings.get("label_columns", ()),
            **recorded_fixes(run.config),
        )
        self._found: Found | None = run.images.find(image_set) if run.images else None
        self._all = image_set

    @property
    def train(self) -> ImageSet:
        return self.of_part("train")

    @property
    def test(self) -> ImageSet:
        return self.of_part("test")

    def of_part(self, *parts: str) -> ImageSet:
        """The images of some parts, in the order of the run; those of an empty part are none."""
        if self._found is None:
            image_set, split = self._split_again
            return image_set.take(np.concatenate([getattr(split, part) for part in parts]))
        self._found.check(parts, CHANGED)
        return _readable(self.run, self._found.restored(parts), skip=False)

    def files_of(self, *parts: str) -> tuple[ImageSet, tuple[str, ...]]:
        """The images of some parts as they came, and the part of each; unreadable ones are not among them.

        Raises:
            InputError: images of these parts have changed, or the run has no record of its images.
        """
        if self._found is None:
            raise InputError(f"{self.run.path} has no images.csv: train the run again.")
        self._found.check(parts, CHANGED)
        rows = self._found.record.rows
        told = tuple(rows[i]["part"] for i in self._found.record.of_part(*parts) if i in self._found.places)
        return self._found.restored(parts), told

    def notes(self, *parts: str) -> list[str]:
        """What has changed without an effect on these parts, one line each."""
        if self._found is not None:
            return self._found.notes(parts)
        return [f"{self.run.path} has no images.csv: its test images are drawn again by its seed."]

    @cached_property
    def _split_again(self) -> tuple[ImageSet, Split]:
        """All images and their split, which only the number of test images is compared with."""
        settings = self.run.config["train"]
        image_set = _readable(self.run, _of_classes(self.run, self._all), settings["skip_unreadable"])
        split = split_image_set(
            image_set,
            seed=settings["seed"],
            test_fraction=settings["test_fraction"],
            validation_fraction=settings["validation_fraction"],
            merge_validation=settings.get("merge_validation", False),
        )
        found, known = counts_by_part(split), self.run.config["data"]["counts"]
        for part in ("test", *SPLIT_PARTS):
            if found[part] != known[part]:
                name = "training" if part == "train" else part
                raise InputError(
                    f"{image_set.source} gives {found[part]} {name} images, the run had {known[part]}: the "
                    "data have changed. Train again, or evaluate them as other data with --data."
                )
        return image_set, split


def own_images(run: Run) -> OwnImages:
    """The images of a run, which must be where they were.

    Raises:
        InputError: they are gone.
    """
    return OwnImages(run)


def images_to_judge(run: Run, data: str | None = None) -> ImageSet:
    """The images of `judged_images`."""
    return judged_images(run, data).images


def judged_images(
    run: Run,
    data: str | None = None,
    leave_out_known: bool = False,
    crop_boxes: bool = False,
    allow_outside: bool = False,
    fixes: str | None = None,
    record: ImageRecord | None = None,
) -> ToJudge:
    """The readable test images of a run, or all images of other data, prepared for the run's model.

    Arguments and errors as `evaluate`; `record` is of the images that count as known, `None` for the run's.
    """
    if data is None:
        if crop_boxes or allow_outside:
            raise InputError(
                "The run's own images are read as it was trained: omit --crop-boxes and --allow-outside, or "
                "give other images with --data."
            )
        if fixes is not None:
            raise InputError(
                "The run's own images have the labels that it was trained with: omit --fixes, or give the "
                "same images with --data, and --leave-out-known for those that the run has not learned from."
            )
        if leave_out_known:
            raise InputError(
                "The run has not learned from its own test images: omit --leave-out-known, or give other "
                "images with --data."
            )
        own = own_images(run)
        test = own.test
        counts = {"trained": 0, "chose_epoch": 0, "tested": len(test), "left_out": 0}
        return ToJudge(test, own.notes("test"), counts if run.images else None)
    came = load_image_set(
        data,
        run.class_names,
        crop_boxes=crop_boxes,
        allow_outside=allow_outside,
        several_labels=run.several,
        label_columns=run.config["train"].get("label_columns", ()),
        fixes=fixes,
    )
    came = _of_classes(run, came)
    read = _read(run, came, skip=False)
    image_set = read.put_into(came)
    record = record or run.images
    if record is None:
        if leave_out_known:
            raise InputError(
                f"{run.path} has no images.csv, so it is not known which images it has learned from: omit "
                "--leave-out-known, or train the run again."
            )
        return ToJudge(image_set, [f"Which of these images {run.path} has learned from is not known."], None)
    known = known_images(record, came.images, read)
    return _without_known(image_set, known) if leave_out_known else _with_known(image_set, known)


def _with_known(image_set: ImageSet, known: Known) -> ToJudge:
    line = known.line(image_set.source, left_out=False)
    return ToJudge(image_set, [line] if line else [], {**known.counts(), "left_out": 0})


def _without_known(image_set: ImageSet, known: Known) -> ToJudge:
    kept = known.judged_by
    line = known.line(image_set.source, left_out=True)
    if not kept:
        raise InputError(
            f"The run has learned from all {len(image_set)} images in {image_set.source}: give others, or "
            "omit --leave-out-known."
        )
    counts = {**known.counts(), "left_out": len(image_set) - len(kept)}
    return ToJudge(image_set.take(kept), [line] if line else [], counts)


def _of_classes(run: Run, image_set: ImageSet) -> ImageSet:
    image_set = image_set.in_classes(run.class_names)
    unknown = sorted(set(image_set.class_names) - set(run.class_names))
    if unknown:
        raise InputError(
            f"{image_set.source} has classes that the run was not trained on ({', '.join(unknown)}): "
            f"give images of {', '.join(run.class_names)}."
        )
    if image_set.several and not run.several:
        raise InputError(
            f"{image_set.source} has several labels per image, and {run.path} names one class: give a table "
            "with one label per image."
        )
    if run.several and not image_set.several:
        labels = as_several(image_set.labels, len(image_set.class_names))
        image_set = dataclasses.replace(image_set, labels=labels)
    return image_set


def _read(run: Run, image_set: ImageSet, skip: bool) -> ReadImages:
    read = read_images(image_set.images, run.preprocessing)
    unreadable = [name for name, reason in zip(image_set.names, read.reasons, strict=True) if reason]
    if unreadable and not skip:
        raise InputError(
            f"{image_set.source} has {len(unreadable)} unreadable images ({', '.join(unreadable[:10])}): "
            "remove them."
        )
    return read


def _readable(run: Run, image_set: ImageSet, skip: bool) -> ImageSet:
    read = _read(run, image_set, skip)
    return read.put_into(image_set).take(read.readable)
