"""The settings of a search, as plain values. Nothing here imports Keras, so `--help` answers at once."""

import dataclasses
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from keras_vit.data.groups import GroupBy
from keras_vit.data.pixel_range import PixelRange
from keras_vit.data.preprocess import Levels, ShownChannels, TiffPages
from keras_vit.data.split import SplitDuplicates, settings_with_split
from keras_vit.errors import InputError
from keras_vit.search.base_space import Space
from keras_vit.search.finetune_space import EPOCHS, TUNING, PublishedWeights
from keras_vit.search.ranges import all_values
from keras_vit.search.space import BUDGETS, SearchSpace, describe, freeze
from keras_vit.search.spaces import NAMED, NamedSpace, OwnSpace, load_space
from keras_vit.training.config import AUTO, NONE, TrainConfig
from keras_vit.training.options import Option
from keras_vit.training.recipe import RECIPES, Precision, Recipe
from keras_vit.validation import (
    Channels,
    Count,
    Folder,
    Seed,
    Text,
    from_plain,
    helps,
    hints,
    to_plain,
    validated,
)

WHERE = (
    "out",
    "workers",
    "host",
    "port",
    "distribute",
    "devices",
    "max_minutes",
    "max_trials",
    "tensorboard",
    "retrain",
    "resume",
)
"""Settings of where and how far a search is run, not of what it is: they may differ when it is continued."""

INTERNAL = ("own_space", "weights")
"""Fields that hold what was read, so that it need not be read again. They are no options."""

Fraction = Annotated[float, Field(gt=0.0, le=0.9)]


@validated
class SearchConfig:
    """Search space, data, length and folder of a search.

    Fields without a text here mean what they mean for `TrainConfig` and `Recipe`.

    Raises:
        InputError: a value cannot be used.
    """

    space: Text = None  # type: ignore[assignment]  # __post_init__ decides it
    """what is searched: defect28 (the default), small images around the study's model; small, sizes from Ti
    to S; or a Python file that defines SPACE = SearchSpace(...). With --init, the recipe decides it"""
    init: Text = NONE
    """begin each trial with published weights, and search how they are fine-tuned: a file, a folder with
    config.json, a run folder, timm:NAME, or hf:REPO[@REVISION]"""
    recipe: Literal["finetune", "lora"] | None = None
    """with --init, the recipe whose settings are searched; by default finetune"""
    data: Text | None = None
    crop_boxes: bool = False
    allow_outside: bool = False
    fixes: Text | None = None
    out: Folder | None = None
    """the folder of the search; by default searches/ and the space's name. A search in it is continued"""
    max_epochs: Count = None  # type: ignore[assignment]  # __post_init__ decides it
    """of the longest trials; by default 27, and 9 with --init"""
    factor: Annotated[int, Field(ge=2)] = 3
    """one trial of so many is promoted to so many times the epochs"""
    iterations: Count = 1
    """how often the whole of Hyperband is run, with other points"""
    max_trials: Count | None = None
    """begin no more trials than these"""
    max_minutes: Annotated[float, Field(gt=0.0)] | None = None
    """begin no trial after so many minutes, counted from each start"""
    max_parameters: Count | None = None
    """larger models are not tried"""
    max_mult_adds: Count | None = None
    """models with more, per image, are not tried"""
    freeze: Annotated[tuple[str, ...], Field(strict=False)] = ()
    """values that are not searched, such as depth=6 stem=conv"""
    image_size: Count | None = None
    """side in pixels; by default that of the space or of the weights"""
    channels: Channels | None = None
    """1 reads images as gray, 3 as RGB; by default as the space or the weights have it"""
    aspect: Literal["stretch", "crop", "pad"] = "stretch"
    background: Levels = (255,)
    pixel_range: PixelRange = "auto"
    tiff_page: TiffPages | None = None
    show_channels: ShownChannels | None = None
    test_fraction: Fraction = 0.2
    """share of each class that is the test part, if the data have none; the search never sees it"""
    validation_fraction: Fraction = 0.1
    """share of the rest of each class that judges the trials"""
    group_by: GroupBy | None = None
    split_duplicates: SplitDuplicates = "together"
    skip_unreadable: bool = False
    precision: Precision = "float32"
    xla: bool | None = None
    seed: Seed = 0
    """of the split, the points, the first weights and the order"""
    workers: Annotated[int, Field(ge=0)] | None = None
    """number of processes that try points at the same time; by default one per GPU, otherwise one"""
    host: str | None = None
    """address of this machine at which workers on other machines find the chief"""
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """of the chief; by default a free one"""
    distribute: Literal["none", "data", "model"] = "none"
    """let several devices train each trial together"""
    devices: Count | None = None
    """number of devices per worker, with --distribute"""
    tensorboard: bool = False
    """write logs and HParams for TensorBoard"""
    retrain: bool = True
    """at the end, train the best point on train and validation images, and test it once"""
    resume: bool = True
    """continue a search that is in the folder; --no-resume refuses to"""
    own_space: OwnSpace | None = None
    """what the file given as space defines; by default it is read from there"""
    weights: PublishedWeights | None = None
    """what the search knows of its published weights; `None` before they are read"""

    def __post_init__(self):
        self._settle_space()
        if self.space not in NAMED and self.own_space is None and self.init == NONE:
            if not self.space.endswith(".py"):
                raise InputError(
                    f"space must be one of {', '.join(NAMED)}, or a Python file such as my_space.py. "
                    f"Received: space={self.space!r}"
                )
            object.__setattr__(self, "own_space", load_space(Path(self.space)))
        if self.devices and self.distribute == "none":
            raise InputError("devices goes with distribute: add --distribute data, or omit --devices.")
        if self.workers == 0 and self.host is None:
            raise InputError("workers=0 is a chief that waits for others: give its address with --host.")
        epochs = self._space.epochs
        if epochs not in (self.max_epochs, SearchSpace().epochs) and self.init == NONE:
            raise InputError(
                f"Hyperband sets the epochs: omit epochs={epochs} in {self.space}, and use --max-epochs."
            )
        if not self.search_space().searched():
            raise InputError("--freeze leaves nothing to search: omit some of its values.")
        if self.init != NONE:
            return
        height, width, _ = self.image_shape
        for size in self.patch_sizes:
            if height % size or width % size:
                raise InputError(
                    f"patch_size={size} does not divide images of {height}x{width} pixels: choose another "
                    "--image-size, or --freeze patch_size at one that does."
                )

    def _settle_space(self):
        """Gives space, recipe and max_epochs the values that follow from each other."""
        space, recipe = self.space, self.recipe  # None if they are not given
        if self.init == NONE:
            if recipe is not None:
                raise InputError(
                    "recipe chooses how published weights are fine-tuned: add --init, or omit --recipe."
                )
            if space in TUNING:
                raise InputError(f"space={space} begins with published weights: add --init SOURCE.")
            space = space or "defect28"
        else:
            self._check_space_of_weights()
            recipe = recipe or ("lora" if space == "lora" else "finetune")
            space = recipe
        object.__setattr__(self, "space", space)
        object.__setattr__(self, "recipe", recipe)
        if self.max_epochs is None:
            object.__setattr__(self, "max_epochs", EPOCHS if recipe else SearchSpace().epochs)

    def _check_space_of_weights(self):
        """Raises InputError for settings that contradict published weights."""
        if self.init == AUTO:
            raise InputError(
                "A search may be continued, so its weights must be named: instead of --init auto, give "
                "--init one of the names that keras-vit train --init auto prints."
            )
        if self.space is not None and self.space not in TUNING:
            raise InputError(
                f"The weights of --init decide the architecture, which --space {self.space} searches: omit "
                "one of the two."
            )
        if self.space and self.recipe and self.space != self.recipe:
            raise InputError(f"--space {self.space} contradicts --recipe {self.recipe}: omit one of the two.")
        for name in BUDGETS:
            if getattr(self, name) is not None:
                raise InputError(
                    f"{name} chooses among architectures, and the weights of --init decide that: omit "
                    f"--{name.replace('_', '-')}."
                )

    def search_space(self) -> Space:
        """The space with this search's length, budgets and frozen values."""
        given = [word.partition("=") for word in self.freeze]
        for name, equals, value in given:
            if not (name and equals and value):
                raise InputError(
                    f"--freeze takes NAME=VALUE, such as depth=6. Received: {name}{equals}{value}"
                )
            if name == "epochs":
                raise InputError(f"Hyperband sets the epochs: instead of {name}={value}, use --max-epochs.")
        names = [name for name, _, _ in given]
        for name in names:
            if names.count(name) > 1:
                raise InputError(f"--freeze has {name} more than once: omit all but one.")
        budgets = {name: limit for name in BUDGETS if (limit := getattr(self, name)) is not None}
        if self.weights is not None:
            budgets = {"depth": self.weights.depth}
        space = dataclasses.replace(self._space, epochs=self.max_epochs, **budgets)  # type: ignore[type-var]
        return freeze(space, {name: value for name, _, value in given})

    @property
    def _space(self) -> Space:
        return TUNING[self.space] if self.init != NONE else self._named.space

    @property
    def _named(self) -> NamedSpace | OwnSpace:
        named = NAMED.get(self.space, self.own_space)
        assert named is not None  # __post_init__ has seen to it
        return named

    @property
    def folder(self) -> Path:
        """The folder of the search."""
        return self.out or Path("searches") / Path(self.space).stem

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of what the models get. Published weights must have been read."""
        if self.init != NONE:
            assert self.weights is not None
            return self.weights.image_shape
        height, width, channels = self._named.image_shape
        return (self.image_size or height, self.image_size or width, self.channels or channels)

    @property
    def patch_sizes(self) -> tuple[int, ...]:
        """Those that are tried; the first is the default."""
        space = self.search_space()
        assert isinstance(space, SearchSpace)
        return all_values(space.patch_size)

    @property
    def train_config(self) -> TrainConfig:
        """The run that the space is laid out around: which images there are, and how they are read."""
        model: dict[str, Any] = dict(init=self.init, image_size=self.image_size, channels=self.channels)
        if self.init == NONE:
            height, width, channels = self.image_shape
            model = dict(
                model=f"{self._named.space.model}/{self.patch_sizes[0]}",
                image_size=height if height == width else (height, width),
                channels=channels,
            )
        return TrainConfig(
            data=self.data,
            crop_boxes=self.crop_boxes,
            allow_outside=self.allow_outside,
            fixes=self.fixes,
            **model,
            aspect=self.aspect,
            background=self.background,
            pixel_range=self.pixel_range,
            tiff_page=self.tiff_page,
            show_channels=self.show_channels,
            test_fraction=self.test_fraction,
            validation_fraction=self.validation_fraction,
            group_by=self.group_by,
            split_duplicates=self.split_duplicates,
            skip_unreadable=self.skip_unreadable,
            # The largest batch, so that a lack of images for it is found while they are read.
            recipe=dataclasses.replace(self.base_recipe, batch_size=max(self.search_space().batch_sizes())),
            fixed_batch=True,
            seed=self.seed,
        )

    @property
    def base_recipe(self) -> Recipe:
        """What the space does not set."""
        return dataclasses.replace(RECIPES[self.recipe or "default"], precision=self.precision, xla=self.xla)


def options() -> dict[str, Option]:
    """The options of `keras-vit search` by name."""
    default = to_plain(SearchConfig())
    texts = {**helps(Recipe), **helps(TrainConfig)}
    texts |= {name: text for name, text in helps(SearchConfig).items() if text}
    return {
        field.name: Option(
            hints(SearchConfig)[field.name],
            " ".join(texts[field.name].split()),
            str(default[field.name] or None),
        )
        for field in dataclasses.fields(SearchConfig)
        if field.name not in INTERNAL
    }


def to_dict(config: SearchConfig) -> dict[str, Any]:
    """What the search is, ready for JSON, without the settings of `WHERE`."""
    plain = {name: value for name, value in to_plain(config).items() if name not in WHERE}
    absent = [name for name in INTERNAL if plain[name] is None]
    if config.init == NONE:
        absent += ["init", "recipe"]  # as earlier versions wrote it
    return {name: value for name, value in plain.items() if name not in absent}


def where(config: SearchConfig) -> dict[str, Any]:
    """Where and how far a search is run, ready for JSON, without its folder."""
    return {name: getattr(config, name) for name in WHERE if name != "out"}


def from_dict(plain: Any, asked: SearchConfig) -> SearchConfig:
    """The search that is stored, run where and as far as is asked for now.

    Args:
        plain: what `to_dict` gave.
        asked: its settings of `WHERE` are taken. Others that are not defaults must be as stored.

    Raises:
        InputError: another search is asked for, or the values do not fit this version.
    """
    try:
        if not isinstance(plain, dict) or "space" not in plain:
            raise InputError("it names no space")
        if plain.keys() & set(WHERE):
            raise InputError("it has settings that belong on the command line")
        stored = from_plain(SearchConfig, settings_with_split(plain))
        stored = dataclasses.replace(stored, **{name: getattr(asked, name) for name in WHERE})
    except InputError as error:
        raise InputError(
            f"{asked.folder}/search.json is damaged ({str(error).rstrip('.')}): begin a search elsewhere."
        ) from error
    _check_same_search(stored, asked)
    return stored


def _check_same_search(stored: SearchConfig, asked: SearchConfig) -> None:
    then, now, default = to_dict(stored), to_dict(asked), to_dict(SearchConfig())
    if stored.own_space and asked.own_space:
        if stored.own_space != asked.own_space:
            raise InputError(
                f"{asked.space} has changed since {asked.folder} was started: undo the change, or omit "
                "--space to continue with the space as it was, or start another search with another --out."
            )
        del then["space"]  # the same file may be given by another path
    if asked.init != NONE:
        default |= {"init": NONE, "recipe": "finetune", "max_epochs": EPOCHS}
        then = {"init": stored.init, **then}
        del then["space"]  # that of the recipe
    for name, value in then.items():
        if name not in now or name in INTERNAL:
            continue
        same = sorted(now[name]) == sorted(value) if name == "freeze" else now[name] == value
        if not same and now[name] != default[name]:
            option = name.replace("_", "-")
            raise InputError(
                f"{asked.folder} was started with {name}={value}, not {now[name]}: omit --{option} to "
                "continue it, or start another search with another --out."
            )


def describe_search(config: SearchConfig) -> dict[str, Any]:
    """What the report shows of the space."""
    space = config.search_space()
    return {
        "space": config.space,
        "searched": space.searched(),
        "space_fields": describe(space),
        **({"init": config.init, "recipe": config.recipe} if config.init != NONE else {}),
        "frozen": {name: value for name, value in space.point({}).items() if name not in space.searched()},
        "image_shape": list(config.image_shape),
        "max_epochs": config.max_epochs,
        "factor": config.factor,
        "seed": config.seed,
    }
