"""The model that the trials of a search begin with: published weights, with the head of a probe."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_vit.data.augmentation import Flip
from keras_vit.data.image_set import ImageSet
from keras_vit.data.pipeline import ImageData
from keras_vit.errors import InputError
from keras_vit.model import cost
from keras_vit.model.random_stream import seeded
from keras_vit.model.vit import ViT
from keras_vit.search.best import train_config_at
from keras_vit.search.config import SearchConfig
from keras_vit.search.finetune_space import FinetuneSpace, FirstWeights, LoraSpace, PublishedWeights
from keras_vit.search.point import augmentation_at
from keras_vit.search.ranges import all_values
from keras_vit.training.config import TrainConfig
from keras_vit.training.probe import begin_with_probe, is_few
from keras_vit.training.start import Start, begin
from keras_vit.training.unfreezing import check_tuning


@dataclass(frozen=True)
class Beginning:
    """Builds the model that a trial begins with.

    Args:
        start: with published weights.
        run: the run that the space is laid out around.
        heads: kernel and bias of the head that a probe has found, by the flips of the training images;
            `None` if the weights keep their own.
    """

    start: Start
    run: TrainConfig
    heads: dict[Flip, list[np.ndarray]] | None

    def build(self, values: dict[str, Any], class_names: Sequence[str]) -> ViT:
        """The model at a point, before it is compiled: the one that `keras-vit train` begins with."""
        config = train_config_at(values, self.run)
        model = self.start.build(config, class_names)
        if self.heads is not None:
            model.get_layer("head").set_weights(self.heads[config.recipe.augmentation.flip])
        return model


def read_start(config: SearchConfig) -> Start:
    """Reads the weights of a search.

    Raises:
        InputError: they cannot be used, or are not those that the search was started with.
    """
    start = begin(config.train_config)
    assert start.weights is not None
    if config.weights is not None and config.weights.sha256 != start.weights.origin.sha256:
        raise InputError(
            f"The weights of {config.init} have changed since {config.folder} was started: bring them back, "
            "or start another search with another --out."
        )
    return start


def fit_heads(config: SearchConfig, start: Start, data: ImageData, image_set: ImageSet) -> FirstWeights:
    """Fits the heads that the trials begin with, as `keras-vit train` does.

    Args:
        config: the search.
        start: of `read_start`.
        data: the images, prepared for the model.
        image_set: the images as they came.

    Raises:
        InputError: the space wants what the model does not have, such as a rank above its width.
    """
    assert start.weights is not None
    with seeded(config.seed):
        model = start.build(config.train_config, data.class_names)
    known = PublishedWeights(
        sha256=start.weights.origin.sha256,
        name=start.name,
        depth=model.config.depth,
        image_shape=data.image_shape,
        parameters=cost.count_parameters(model.config),
        mult_adds=cost.count_mult_adds(model.config),
    )
    described = start.describe() or {}
    run = dataclasses.replace(config, weights=known).train_config
    space = config.search_space()
    assert isinstance(space, FinetuneSpace | LoraSpace)
    ranks = all_values(getattr(space, "lora_rank", run.recipe.lora_rank))
    check_tuning(dataclasses.replace(run.recipe, lora_rank=max(ranks)), model.config)
    if not start.has_new_head(model):
        return FirstWeights(known, described, start.lines(), heads=None)
    heads: dict[Flip, list[np.ndarray]] = {}
    for strength in all_values(space.augmentation):
        augmentation = augmentation_at(strength)
        if augmentation.flip not in heads:
            if not heads or is_few(data):
                begin_with_probe(start, model, data.with_batches(data.batch_size, augmentation), image_set)
            heads[augmentation.flip] = model.get_layer("head").get_weights()
    return FirstWeights(known, described, start.lines(), heads)
