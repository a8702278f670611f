"""What a run is made from, as plain values. Nothing here imports Keras: the command line reads it first."""

import dataclasses
import shlex
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any, Literal

from keras_vit.data.augmentation import Augmentation
from keras_vit.errors import InputError, check_choice, check_range
from keras_vit.model.config import default_channels, default_image_size
from keras_vit.training.architecture import Architecture, check_architecture
from keras_vit.training.recipe import RECIPES, Recipe

DEVICES = ("distribute", "devices", "model_devices", "nodes")


@dataclass(frozen=True)
class TrainConfig:
    """Data, model, recipe and place of one training run.

    Raises:
        InputError: a value cannot be used.
    """

    data: str | None = None
    """class folders, train/validation/test folders, NEU's flat files, a .zip of these, an .npz, or tfds:NAME;
    without it, drawn steel defects"""
    model: str = "defect-conv/4"
    """size/patch, such as defect/4, S/16 or B/16"""
    image_size: int | tuple[int, int] | None = None
    """pixels a side, or height and width; 28 for the defect sizes, else 224"""
    channels: Literal[1, 3] | None = None
    """1 reads images as gray, 3 as RGB; 1 for the defect sizes, else 3"""
    aspect: Literal["stretch", "crop", "pad"] = "stretch"
    """what happens to images of another aspect ratio"""
    test_fraction: float = 0.2
    """share of each class kept for the test, where the data have no test part"""
    validation_fraction: float = 0.1
    """share of each class's rest kept to choose the best epoch; 0 for none"""
    merge_validation: bool = False
    """train on the validation images too and keep the last epoch: for settings that were chosen already"""
    skip_unreadable: bool = False
    """leave unreadable images out instead of stopping"""
    changes: Architecture = field(default_factory=Architecture)
    recipe: Recipe = field(default_factory=lambda: RECIPES["default"])
    seed: int = 0
    """of the split, the first weights, the order and the augmentation"""
    out: Path | None = None
    """the run folder to make; by default runs/ and the date"""
    resume: bool = False
    """go on with the run in --out that was cut off"""
    distribute: Literal["auto", "none", "data", "model"] = "auto"
    """share each batch among devices (data), or cut the model over them as well (model, JAX only); auto
    takes all GPUs, and the processes that the launcher announces"""
    devices: int | None = None
    """of each process; all GPUs or one CPU by default"""
    model_devices: int | None = None
    """devices that a copy of the model is cut over, with --distribute model; all by default"""
    nodes: int | None = None
    """machines that the run must have; see docs/cluster.md"""

    def __post_init__(self):
        check_architecture(self.model, self.changes)
        check_range("test_fraction", self.test_fraction, 0.0, 0.9, open_low=True)
        check_range("validation_fraction", self.validation_fraction, 0.0, 0.9)
        check_range("seed", self.seed, 0, 2**31 - 1)
        check_choice("distribute", self.distribute, ("auto", "none", "data", "model"))
        for name in ("devices", "model_devices", "nodes"):
            check_range(name, getattr(self, name), 1, None)
        if min(self.image_shape) < 1:
            raise InputError(f"image_size must be 1 or more. Received: image_size={self.image_size}")
        if self.channels not in (None, 1, 3):
            raise InputError(f"channels must be 1 (gray) or 3 (RGB). Received: channels={self.channels}")
        if self.resume and self.out is None:
            raise InputError("Say which run to resume: give its folder with --out.")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of what the model gets."""
        size = default_image_size(self.model) if self.image_size is None else self.image_size
        height, width = (size, size) if isinstance(size, int) else size
        return (height, width, self.channels or default_channels(self.model))

    @property
    def architecture(self) -> str:
        """The model in words: `"defect-conv/4 with depth 8"`."""
        return f"{self.model} with {self.changes}" if self.changes.given() else self.model


def default_folder(config: TrainConfig) -> Path:
    return Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{config.model.replace('/', '-')}"


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """JSON-ready; the folder, `resume` and the devices are left out: they say where, not what."""
    plain = dataclasses.asdict(config)
    for name in ("out", "resume", *DEVICES):
        del plain[name]
    return plain


def from_dict(plain: dict[str, Any], **changes) -> TrainConfig:
    """What `to_dict` told, with other fields changed.

    Raises:
        KeyError, TypeError: it is none of what `to_dict` gives; fields newer than the file may be missing.
    """
    augmentation = Augmentation(**plain["recipe"]["augmentation"])
    recipe = Recipe(**{**plain["recipe"], "augmentation": augmentation})
    size = plain["image_size"]
    size = tuple(size) if isinstance(size, list) else size
    architecture = Architecture(**plain.get("changes", {}))
    told = {**plain, "recipe": recipe, "image_size": size, "changes": architecture}
    return TrainConfig(**{**told, **changes})


def differences(config: TrainConfig, other: TrainConfig) -> list[tuple[str, Any]]:
    """Options, by name, in which a config differs from another, with the config's value."""

    def flat(plain):
        recipe = plain.pop("recipe")
        return plain | plain.pop("changes") | recipe.pop("augmentation") | recipe

    ours, theirs = flat(to_dict(config)), flat(to_dict(other))
    return [(name, value) for name, value in ours.items() if value != theirs[name]]


def command_of(config: TrainConfig) -> str:
    """The shell command that repeats a run, with no option that is a default anyway."""
    candidates = {
        name: differences(config, TrainConfig(recipe=recipe, model=config.model))
        for name, recipe in RECIPES.items()
    }
    nearest = min(candidates, key=lambda name: len(candidates[name]))
    words = ["keras-vit", "train", "--model", config.model]
    if nearest != "default":
        words += ["--recipe", nearest]
    for name, value in candidates[nearest]:
        flag = name.replace("_", "-")
        if isinstance(value, bool) and name != "xla":  # xla may also be None: it takes a word
            words.append(f"--{flag}" if value else f"--no-{flag}")
        else:
            values = value if isinstance(value, list | tuple) else [value]
            words += [f"--{flag}", *map(str, values)]
    for name in DEVICES:
        if getattr(config, name) != getattr(TrainConfig, name):
            words += [f"--{name.replace('_', '-')}", str(getattr(config, name))]
    if config.out is not None:
        words += ["--out", str(config.out)]
    return shlex.join(words)
