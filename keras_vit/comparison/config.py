"""The settings of a comparison of models, as plain values. Nothing here imports Keras: `--help` is quick."""

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import field
from pathlib import Path
from typing import Annotated, Any, Literal, get_args

from pydantic import Field

from keras_vit.data.augmentation import Augmentation
from keras_vit.errors import InputError
from keras_vit.process.command import repeat_command
from keras_vit.training.config import AUTO, DEVICES, INTERNAL, NONE, TrainConfig
from keras_vit.training.config import to_dict as train_to_dict
from keras_vit.training.options import Option
from keras_vit.training.recipe import RECIPES, Recipe
from keras_vit.validation import Count, Folder, helps, hints, to_plain, validated

ModelName = Literal["cnn", "resnet", "vit", "defect-conv", "probe", "finetune"]
MODELS: tuple[ModelName, ...] = get_args(ModelName)
PRETRAINED: tuple[ModelName, ...] = ("probe", "finetune")
"""Those that begin with published weights."""

ALL = "all"
PerClass = Count | Literal["all"]

WHERE = ("out", "resume", "max_minutes")
"""Settings of where and how far a comparison goes: they may differ when it is continued."""

EXTENDED = ("models", "per_class", "repeats")
"""Settings of which trainings there are. They may change, too: each training depends on itself alone."""

NOT_TAKEN = (
    *("data", "several_labels", "label_columns", "model", "unlabeled"),
    *("ood_examples", "validation_fraction", "merge_validation", "accept_risk", "min_recall", "costs"),
    *("changes", "recipe", "fold", "seeds", "out", "resume", *DEVICES, *INTERNAL),
)
"""Settings of a run that a comparison decides itself, or does not have."""

OF_RECIPE = (
    *("epochs", "batch_size", "learning_rate", "weight_decay", "label_smoothing", "class_weights"),
    *("sampling", "precision"),
)
"""Settings of a recipe that may be changed."""

OTHER_HELP = {
    "init": "also compare published weights, as probe and finetune: a file, a folder with config.json, a run "
    "folder, timm:NAME, or hf:REPO[@REVISION]",
    "image_size": "of the models from scratch: side in pixels, or height and width; by default the images "
    "decide it, as for train. Published weights keep theirs",
    "mean": "of published weights: subtracted from pixels in 0..1, one value or one per channel; by default "
    "theirs",
    "std": "of published weights: pixels are then divided by it; by default theirs",
    "interpolation": "of published weights: how images are resized for them; by default as they need",
    "epochs": "passes over all training images; with fewer images there are more, see docs/compare.md",
    "seed": "of the split, the draws of images, the first weights and the order",
    "folds": "compare on so many splits, which together test each image once; --test-fraction does not "
    "count then",
}
"""Texts of options that mean something else than for `train`."""


@validated
class CompareConfig:
    """Models, numbers of images and folder of a comparison, and the run that all its models share.

    Raises:
        InputError: a value cannot be used.
    """

    models: Annotated[tuple[ModelName, ...], Field(strict=False)] = ()
    """what is compared: cnn, a small plain CNN; resnet, a ResNet of the cost of defect-conv; vit, the ViT of
    the reference study; defect-conv, a ViT with convolutions before it; with --init also probe and finetune.
    By default all of these"""
    per_class: Annotated[tuple[PerClass, ...], Field(min_length=1, strict=False)] = (5, 10, 30, 100, "all")
    """numbers of training images per class; numbers that the data do not have are left out"""
    repeats: Count = 3
    """how often each is trained, on other images drawn and with other first weights"""
    max_minutes: Annotated[float, Field(gt=0.0)] | None = None
    """leave out what does not fit into so many minutes by the estimate, and begin nothing after them"""
    out: Folder | None = None
    """the folder of the comparison; by default comparisons/ and the name of the data. One in it is
    continued"""
    resume: bool = True
    """continue a comparison that is in the folder; --no-resume refuses to"""
    train: TrainConfig = field(default_factory=TrainConfig)

    def __post_init__(self):
        for name in ("models", "per_class"):
            given = getattr(self, name)
            repeated = [value for value in given if given.count(value) > 1]
            if repeated:
                option = name.replace("_", "-")
                raise InputError(f"--{option} has {repeated[0]} more than once: omit all but one.")
        ordered = tuple(name for name in MODELS if name in self.models)
        object.__setattr__(self, "models", ordered)
        numbers = sorted(number for number in self.per_class if number != ALL)
        object.__setattr__(self, "per_class", (*numbers, *([ALL] if ALL in self.per_class else [])))
        if self.train.init == AUTO:
            raise InputError(
                "A comparison may be continued, so its weights must be named: instead of --init auto, give "
                "--init one of the names that keras-vit train --init auto prints."
            )
        wanted = [name for name in self.models if name in PRETRAINED]
        if wanted and self.train.init == NONE:
            raise InputError(f"--models {wanted[0]} begins with published weights: add --init SOURCE.")

    @property
    def names(self) -> tuple[ModelName, ...]:
        """The models that are compared, in the order of `MODELS`."""
        known = [name for name in MODELS if name not in PRETRAINED or self.train.init != NONE]
        return tuple(name for name in known if not self.models or name in self.models)

    @property
    def folder(self) -> Path:
        """The folder of the comparison."""
        if self.out is not None:
            return self.out
        data = self.train.data
        name = "drawn" if data is None else Path(data).stem or Path(data).absolute().name or "images"
        return Path("comparisons") / re.sub(r"[^\w. -]", "-", name)


def configure(data: str | None, given: Mapping[str, Any]) -> CompareConfig:
    """The settings of a comparison.

    Args:
        data: what `keras-vit train --data` takes; `None` for the drawn defects.
        given: values by option name.

    Raises:
        InputError: a value does not fit.
    """
    own = {name: given[name] for name in _own() if name in given}
    recipe = {name: given[name] for name in OF_RECIPE if name in given}
    augmentation = {name: given[name] for name in helps(Augmentation) if name in given}
    run = {name: given[name] for name in _of_run() if name in given}
    base = RECIPES["default"]
    augmented = dataclasses.replace(base.augmentation, **augmentation)
    train = TrainConfig(
        data=data,
        recipe=dataclasses.replace(base, augmentation=augmented, **recipe),
        fixed_batch="batch_size" in recipe,
        validation_fraction=0.0,
        merge_validation=True,
        **run,
    )
    return CompareConfig(train=train, **own)


def options() -> dict[str, Option]:
    """The options of `keras-vit compare DATA` by name."""
    found = {}
    default = configure(None, {})
    for cls, names, value in (
        (CompareConfig, _own(), default),
        (TrainConfig, _of_run(), default.train),
        (Recipe, OF_RECIPE, default.train.recipe),
        (Augmentation, tuple(helps(Augmentation)), default.train.recipe.augmentation),
    ):
        texts = helps(cls) | OTHER_HELP
        plain = to_plain(value)
        for name in names:
            words = plain[name]
            words = " ".join(map(str, words)) or None if isinstance(words, list) else words
            found[name] = Option(hints(cls)[name], " ".join(texts[name].split()), str(words))
    return found


def _own() -> tuple[str, ...]:
    return tuple(name for name in helps(CompareConfig) if name != "train")


def _of_run() -> tuple[str, ...]:
    return tuple(name for name in helps(TrainConfig) if name not in NOT_TAKEN)


def to_dict(config: CompareConfig) -> dict[str, Any]:
    """What the comparison is, ready for JSON, without the settings of `WHERE`."""
    plain = {name: value for name, value in to_plain(config).items() if name not in WHERE}
    return {**plain, "train": train_to_dict(config.train), "fixed_batch": config.train.fixed_batch}


def command_of(config: CompareConfig) -> str:
    """The shell command that repeats the comparison, without options that have their defaults."""
    settings, defaults = _flat(config), _flat(configure(None, {}))
    first, data = ["keras-vit", "compare"], config.train.data
    if data is not None:
        first.append(f"./{data}" if data.startswith("-") else data)
    if config.train.fixed_batch:
        del defaults["batch_size"]
    return repeat_command(first, {**settings, "out": config.folder}, defaults)


def _flat(config: CompareConfig) -> dict[str, Any]:
    plain = to_dict(config)
    train = plain.pop("train")
    recipe = train["recipe"]
    every = {**plain, **train, **recipe, **recipe["augmentation"]}
    return {name: every[name] for name in options() if name in every}
