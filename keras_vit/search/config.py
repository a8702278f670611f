"""What a search is asked for, as plain values. Nothing here imports Keras, so `--help` answers at once."""

import dataclasses
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from keras_vit.errors import InputError, check_choice, check_range
from keras_vit.search.space import BUDGETS, Choice, SearchSpace, describe, freeze
from keras_vit.search.spaces import NAMED, SPACES
from keras_vit.training.config import TrainConfig
from keras_vit.training.recipe import RECIPES, Precision, Recipe

# Where and how far a search is run, not what it is: these may differ when it goes on.
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


@dataclass(frozen=True)
class SearchConfig:
    """Space, data, length and place of a search.

    Raises:
        InputError: a value cannot be used.
    """

    space: Literal["defect28", "small"] = "defect28"
    """what is searched: defect28, small images around the study's model; small, sizes from Ti to S"""
    data: str | None = None
    """class folders, train/validation/test folders, NEU's flat files, a .zip of these, an .npz, or tfds:NAME;
    without it, drawn steel defects"""
    out: Path | None = None
    """the folder of the search; by default searches/ and the space's name. A search that is there goes on"""
    max_epochs: int = 27
    """of the longest trials"""
    factor: int = 3
    """one trial of so many is promoted to so many times the epochs"""
    iterations: int = 1
    """times the whole of Hyperband is run, with other points"""
    max_trials: int | None = None
    """begin no more than these"""
    max_minutes: float | None = None
    """begin no trial after so many minutes, counted from each start"""
    max_parameters: int | None = None
    """larger models are not tried"""
    max_mult_adds: int | None = None
    """models with more, for one image, are not tried"""
    freeze: tuple[str, ...] = ()
    """values that are not searched, such as depth=6 stem=conv"""
    image_size: int | None = None
    """pixels a side; by default the space's"""
    channels: Literal[1, 3] | None = None
    """1 reads images as gray, 3 as RGB; by default the space's"""
    aspect: Literal["stretch", "crop", "pad"] = "stretch"
    """what happens to images of another aspect ratio"""
    test_fraction: float = 0.2
    """share of each class kept for the test, where the data have no test part; the search never sees it"""
    validation_fraction: float = 0.1
    """share of each class's rest that judges the trials"""
    skip_unreadable: bool = False
    """leave unreadable images out instead of stopping"""
    precision: Precision = "float32"
    """mixed_bfloat16 is faster on recent GPUs"""
    xla: bool | None = None
    """compile with XLA; by default where it is safe: TensorFlow on one device (JAX always compiles)"""
    seed: int = 0
    """of the split, the points, the first weights and the order"""
    workers: int | None = None
    """processes that try points side by side; by default one for each GPU, else one"""
    host: str | None = None
    """address of this machine at which workers of other machines find the chief"""
    port: int | None = None
    """of the chief; by default a free one"""
    distribute: Literal["none", "data", "model"] = "none"
    """let several devices train each trial together"""
    devices: int | None = None
    """of each worker, with --distribute"""
    tensorboard: bool = False
    """write TensorBoard's logs and HParams"""
    retrain: bool = True
    """train the best on train and validation images in the end, and judge it once on the test images"""
    resume: bool = True
    """go on with a search that is there; --no-resume refuses to"""

    def __post_init__(self):
        check_choice("space", self.space, tuple(SPACES))
        for name in ("max_epochs", "iterations", "max_trials", "image_size", "devices"):
            check_range(name, getattr(self, name), 1, None)
        check_range("factor", self.factor, 2, None)
        check_range("max_minutes", self.max_minutes, 0.0, None, open_low=True)
        check_range("workers", self.workers, 0, None)
        check_range("port", self.port, 1, 65535)
        check_range("seed", self.seed, 0, 2**31 - 1)
        check_range("test_fraction", self.test_fraction, 0.0, 0.9, open_low=True)
        check_range("validation_fraction", self.validation_fraction, 0.0, 0.9, open_low=True)
        check_choice("aspect", self.aspect, ("stretch", "crop", "pad"))
        check_choice("distribute", self.distribute, ("none", "data", "model"))
        if self.channels not in (None, 1, 3):
            raise InputError(f"channels must be 1 (gray) or 3 (RGB). Received: channels={self.channels}")
        if self.devices and self.distribute == "none":
            raise InputError("devices goes with distribute: add --distribute data, or leave --devices out.")
        if self.workers == 0 and self.host is None:
            raise InputError("workers=0 is a chief that waits for others: give its address with --host.")
        if not self.search_space().searched():
            raise InputError("--freeze leaves nothing to search: leave some of its values out.")
        for size in self.patch_sizes:
            if self.image_shape[0] % size or self.image_shape[1] % size:
                raise InputError(
                    f"patch_size={size} does not divide images of {self.image_shape[0]} pixels a side: "
                    "choose another --image-size, or --freeze patch_size at one that does."
                )
        _ = self.recipe  # it checks the precision

    def search_space(self) -> SearchSpace:
        """The named space with this search's length, budgets and frozen values."""
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
                raise InputError(f"--freeze has {name} more than once: leave all but one out.")
        space = dataclasses.replace(
            SPACES[self.space],
            epochs=self.max_epochs,
            **{name: limit for name in BUDGETS if (limit := getattr(self, name)) is not None},
        )
        return freeze(space, {name: value for name, _, value in given})

    @property
    def folder(self) -> Path:
        return self.out or Path("searches") / self.space

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of what the models get."""
        height, width, channels = NAMED[self.space].image_shape
        return (self.image_size or height, self.image_size or width, self.channels or channels)

    @property
    def patch_sizes(self) -> tuple[int, ...]:
        """Those that are tried; the first is the default."""
        patch_size = self.search_space().patch_size
        return patch_size.values if isinstance(patch_size, Choice) else (patch_size,)

    @property
    def train_config(self) -> TrainConfig:
        """The run that the space is laid out around: which images there are, and how they are read."""
        return TrainConfig(
            data=self.data,
            model=f"{SPACES[self.space].model}/{self.patch_sizes[0]}",
            image_size=self.image_shape[0],
            channels=self.image_shape[2],  # type: ignore[arg-type]
            aspect=self.aspect,
            test_fraction=self.test_fraction,
            validation_fraction=self.validation_fraction,
            skip_unreadable=self.skip_unreadable,
            # The largest batch, so that too few images for it are found while they are read.
            recipe=dataclasses.replace(self.recipe, batch_size=max(self.search_space().batch_sizes())),
            seed=self.seed,
        )

    @property
    def recipe(self) -> Recipe:
        """What the space does not know."""
        return dataclasses.replace(RECIPES["default"], precision=self.precision, xla=self.xla)


def to_dict(config: SearchConfig) -> dict[str, Any]:
    """What the search is, JSON-ready: where it is run is left out."""
    plain = dataclasses.asdict(config)
    for name in WHERE:
        del plain[name]
    return {**plain, "freeze": list(plain["freeze"])}


def where(config: SearchConfig) -> dict[str, Any]:
    """Where and how far a search is run, JSON-ready, but for its folder."""
    return {name: getattr(config, name) for name in WHERE if name != "out"}


def from_dict(plain: dict[str, Any], asked: SearchConfig) -> SearchConfig:
    """The search that is stored, run where and as far as is asked for now.

    Args:
        plain: what `to_dict` gave.
        asked: its fields `WHERE` are taken; of the others, what differs from the default must be as stored.

    Raises:
        InputError: another search is asked for, or the values do not fit this version.
    """
    place = {name: getattr(asked, name) for name in WHERE}
    try:
        stored = SearchConfig(**{**plain, "freeze": tuple(plain["freeze"])}, **place)
    except (KeyError, TypeError) as error:
        raise InputError(
            f"{asked.folder}/search.json is damaged ({error}): begin a search elsewhere."
        ) from error
    now, default = to_dict(asked), to_dict(SearchConfig())
    for name, value in to_dict(stored).items():
        same = sorted(now[name]) == sorted(value) if name == "freeze" else now[name] == value
        if not same and now[name] != default[name]:
            option = name.replace("_", "-")
            raise InputError(
                f"{asked.folder} was begun with {name}={value}, not {now[name]}: leave --{option} out to go "
                "on with it, or begin another search with another --out."
            )
    return stored


def describe_search(config: SearchConfig) -> dict[str, Any]:
    """What the report says of the space."""
    space = config.search_space()
    return {
        "space": config.space,
        "searched": space.searched(),
        "space_fields": describe(space),
        "frozen": {name: value for name, value in space.point({}).items() if name not in space.searched()},
        "image_shape": list(config.image_shape),
        "max_epochs": config.max_epochs,
        "factor": config.factor,
        "seed": config.seed,
    }
