"""The images of a comparison: loaded, checked, split, prepared for its models, and remembered."""

import dataclasses
import os
import platform
from collections.abc import Mapping, Sequence
from typing import Any

import keras
import numpy as np

from keras_vit.cache import hash_of
from keras_vit.comparison.candidates import scratch_config, titles_of
from keras_vit.comparison.config import PRETRAINED, CompareConfig, command_of, to_dict
from keras_vit.comparison.images import Stage
from keras_vit.data.image_set import ImageSet
from keras_vit.data.origin import content_hash, roots
from keras_vit.data.overview import Overview
from keras_vit.data.sources import load_image_set
from keras_vit.data.targets import counts_of
from keras_vit.data.values import is_measured
from keras_vit.distribution.accelerators import has_accelerator
from keras_vit.distribution.precision import precision_for
from keras_vit.errors import InputError
from keras_vit.process.versions import installed_versions
from keras_vit.text import say
from keras_vit.training.config import NONE
from keras_vit.training.defaults import choose_by_images, line_of_images
from keras_vit.training.outputs import PACKAGES
from keras_vit.training.prepare import prepare
from keras_vit.training.start import Start, begin


class Images:
    """The images of a comparison, prepared for its models, one split at a time.

    Args:
        config: of the comparison.
        stored: its config.json, if it continues.

    Raises:
        InputError: they cannot be compared on, or have changed since the comparison began.
    """

    def __init__(self, config: CompareConfig, stored: Mapping[str, Any] | None):
        self.config = config
        train = config.train
        self.image_set = load_image_set(train.data, **train.of_tables)
        _check_images(self.image_set)
        precision, told = precision_for(train.recipe.precision)
        if told:
            say(told)
        recipe = dataclasses.replace(train.recipe, precision=precision)
        train = dataclasses.replace(train, recipe=recipe)
        self.config = dataclasses.replace(config, train=train)
        overview = Overview(self.image_set.images, train.background, train.tiff_page)
        scratch = scratch_config(train)
        chosen = choose_by_images(scratch, self.image_set, overview, has_accelerator())
        self.scratch = dataclasses.replace(scratch, **chosen)
        self.line = line_of_images(scratch, chosen, overview, self.scratch.image_shape)
        self.start: Start | None = None
        if train.init != NONE:
            # Size and channels that are given are those of the models from scratch; but channels of
            # measurement are not made gray or RGB.
            channels = self.scratch.image_shape[2]
            own = channels if is_measured(channels) else None
            self.start = begin(dataclasses.replace(train, image_size=None, channels=own))
        self._fold: int | None = None
        self._stages: dict[bool, Stage] = {}
        first = self.prepared(self.first_fold)
        self.class_names = first.data.class_names
        if stored is None:
            self.described = self._describe()
        else:
            self._check_same(stored)
            asked = {"asked": to_dict(self.config), "command": command_of(self.config)}
            self.described = {**stored, **asked}

    @property
    def folds(self) -> int:
        """0 for one split."""
        return self.config.train.folds or 0

    @property
    def fold_numbers(self) -> Sequence[int]:
        """From 1; 0 for one split."""
        return range(1, self.folds + 1) if self.folds else (0,)

    @property
    def first_fold(self) -> int:
        return self.fold_numbers[0]

    def prepared(self, fold: int) -> Stage:
        """The images of a split, prepared for the models from scratch."""
        return self._stage(fold, False)

    def stage(self, fold: int, model: str) -> Stage:
        """The images of a split, prepared for a model."""
        return self._stage(fold, model in PRETRAINED)

    def _stage(self, fold: int, of_weights: bool) -> Stage:
        if fold != self._fold:
            settings = dataclasses.replace(self.scratch, fold=fold or None)
            self._prepared = prepare(settings, image_set=self.image_set)
            self._stages = {False: Stage(self._prepared.data)}
            self._fold = fold
        if of_weights not in self._stages:
            assert self.start is not None
            data = self._stages[False].data
            # The files again: prepared at the size of published weights, all images may take gigabytes.
            came = dict(zip(self.image_set.names, self.image_set.images, strict=True))
            images = dataclasses.replace(
                data.image_set, images=[came[name] for name in data.image_set.names], originals=None
            )
            wanted = dataclasses.replace(self.start.preprocessing, pixel_range=data.preprocessing.pixel_range)
            self._stages[True] = Stage(dataclasses.replace(data, image_set=images, preprocessing=wanted))
        return self._stages[of_weights]

    def say_of_images(self) -> None:
        """Prints what was found in the images, and what they decided."""
        for line in self._prepared.notes:
            say(line)
        say(self._prepared.audit)
        if self.line:
            say(self.line)
        for line in self.start.lines() if self.start else ():
            say(line)

    def _describe(self) -> dict[str, Any]:
        """What config.json holds."""
        tested = []
        for fold in reversed(self.fold_numbers):  # so that the first one is there afterwards
            data = self.prepared(fold).data
            groups = None if data.image_set.groups is None else np.asarray(data.image_set.groups)
            tested.append(
                {
                    "labels": data.labels("test").tolist(),
                    "groups": None
                    if groups is None
                    else np.unique(groups, return_inverse=True)[1][data.split.test].tolist(),
                    "training_images": len(data.split.train),
                }
            )
        data, config = self.prepared(self.first_fold).data, self.config
        return {
            "kind": "comparison",
            "asked": to_dict(config),
            "data": {
                "source": data.image_set.source,
                "class_names": list(data.class_names),
                "training_images": counts_of(data.labels("train"), data.num_classes).tolist(),
                **roots(config.train.data, config.folder),
            },
            "tested": tested[::-1],
            "image_shape": list(data.image_shape),
            "titles": titles_of(self.scratch, self.start),
            "weights": self.start.describe() if self.start else None,
            "images": _hash(self.image_set),
            "command": command_of(config),
            "backend": keras.backend.backend(),
            "device": f"{platform.machine()}, {os.cpu_count()} processors",
            "versions": installed_versions(*PACKAGES),
        }

    def _check_same(self, stored: Mapping[str, Any]) -> None:
        folder = self.config.folder
        if stored["images"] != _hash(self.image_set):
            raise InputError(
                f"{self.image_set.source} has changed since {folder} was started: bring the images back, or "
                "start another comparison with another --out."
            )
        if stored["backend"] != keras.backend.backend():
            raise InputError(
                f"{folder} was started on {stored['backend']}, and continues there: set "
                f"KERAS_BACKEND={stored['backend']}."
            )


def _hash(image_set: ImageSet) -> str:
    """Of the names, the labels and the contents of all images."""
    return hash_of(image_set.fingerprint(), *map(content_hash, image_set.images))


def _check_images(image_set: ImageSet) -> None:
    """Raises InputError for images that models are not compared on."""
    if image_set.several:
        raise InputError(
            f"{image_set.source} has several labels per image, and models are compared on one class per "
            "image: train them with keras-vit train instead."
        )
