"""What a search from published weights may change: how they are fine-tuned. Nothing here imports Keras."""

from dataclasses import dataclass
from typing import Annotated, Any, ClassVar

import numpy as np
from pydantic import Field

from keras_vit.data.augmentation import Flip
from keras_vit.search.base_space import Space
from keras_vit.search.ranges import Choice, Each, Range
from keras_vit.search.space import Counts, DropPathRate, LearningRate, Strength, WeightDecay
from keras_vit.validation import Count, Shape, validated

Share = Annotated[Range | Choice | float, Each(Annotated[float, Field(ge=0.0, le=1.0)])]
Decay = Annotated[Range | Choice | float, Each(Annotated[float, Field(gt=0.0, le=1.0)])]

EPOCHS = 9
"""Of the longest trials, by default: the recipes end after 6, and Hyperband wants a power of 3."""


@validated
class FinetuneSpace(Space):
    """Settings of the recipe `finetune`; the first point is that recipe.

    Raises:
        InputError: a field holds a wrong type or is out of its limits.
    """

    GIVEN: ClassVar = ("depth",)

    depth: Count | None = None
    """number of blocks of the weights; `None` before these are read"""
    layer_decay: Decay = Range(0.5, 1.0, default=0.75, step=0.05)
    """learning rate and weight decay of a block, as a share of those of the block above it"""
    unfrozen_share: Share = Range(0.25, 1.0, default=1.0, step=0.25)
    """depth of unfreezing: the share of the blocks that are trained, from the last one down, at least one
    block if it is above 0; 1 trains every weight"""
    drop_path_rate: DropPathRate = Range(0.0, 0.3, default=0.1, step=0.05)
    """stochastic depth of the last block"""
    learning_rate: LearningRate = Range(5e-5, 2e-3, default=5e-4, log=True)
    """the highest one of the schedule"""
    weight_decay: WeightDecay = Range(1e-3, 0.3, default=0.05, log=True)
    """of AdamW"""
    batch_size: Counts = Choice((32, 16, 64))
    """images per step"""
    augmentation: Strength = Range(0.0, 1.0, default=0.75, step=0.25)
    """strength: 0 for none; otherwise flips, and shifts by up to 0.2 times this fraction of the side"""
    epochs: Counts = EPOCHS
    """of a trial, over which its schedule is laid out; with Hyperband a number, that of its longest trial"""


@validated
class LoraSpace(Space):
    """Settings of the recipe `lora`; the first point is that recipe.

    Raises:
        InputError: a field holds a wrong type or is out of its limits.
    """

    GIVEN: ClassVar = ("depth",)

    depth: Count | None = None
    """number of blocks of the weights; `None` before these are read"""
    lora_rank: Counts = Choice((4, 2, 8, 16))
    """rank of the additions to a kernel"""
    drop_path_rate: DropPathRate = Range(0.0, 0.3, default=0.0, step=0.05)
    """stochastic depth of the last block"""
    learning_rate: LearningRate = Range(3e-4, 8e-3, default=2e-3, log=True)
    """the highest one of the schedule"""
    weight_decay: WeightDecay = Range(1e-3, 0.3, default=0.05, log=True)
    """of AdamW"""
    batch_size: Counts = Choice((32, 16, 64))
    """images per step"""
    augmentation: Strength = Range(0.0, 1.0, default=0.75, step=0.25)
    """strength: 0 for none; otherwise flips, and shifts by up to 0.2 times this fraction of the side"""
    epochs: Counts = EPOCHS
    """of a trial, over which its schedule is laid out; with Hyperband a number, that of its longest trial"""


@validated
class PublishedWeights:
    """What a search knows of its weights once they are read: search.json keeps it."""

    sha256: str
    """of their files"""
    name: str
    """of the architecture, such as Ti/16"""
    depth: Count
    """number of blocks"""
    image_shape: Shape
    """(height, width, channels) of what the model gets"""
    parameters: Count
    """of the model with its head"""
    mult_adds: Count
    """of that model, for one image, forward"""


@dataclass(frozen=True)
class FirstWeights:
    """What all trials of a search begin with, but for the weights themselves, which each process reads.

    Args:
        known: what the search keeps of its weights.
        described: what config.json and the model card say of them.
        lines: what is printed of them.
        heads: kernel and bias of the head that a probe has found, by the flips of the training images, since
            the probe of few images sees these too; `None` if the weights keep their own.
    """

    known: PublishedWeights
    described: dict[str, Any]
    lines: list[str]
    heads: dict[Flip, list[np.ndarray]] | None


TUNING: dict[str, Space] = {"finetune": FinetuneSpace(), "lora": LoraSpace()}
"""The spaces of a search from published weights, by the recipe that is their first point."""
