"""The settings of a training run, as plain values.

Nothing here imports Keras: the command line reads it first.
"""

import dataclasses
from dataclasses import field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from keras_vit.errors import InputError
from keras_vit.model.config import (
    CHANGEABLE,
    ViTConfig,
    default_channels,
    default_image_size,
    named_size,
    variant_arguments,
)
from keras_vit.training.recipe import RECIPES, Recipe
from keras_vit.validation import Channels, Count, Folder, Seed, Text, from_plain, to_plain, validated

DEVICES = ("distribute", "devices", "model_devices", "nodes")
WHERE = ("out", "resume", *DEVICES)
"""Settings of where a run is made, not of what it computes. A file of settings has none of them."""

CHANGES_OF_0_1_0 = {"depth", "num_heads", "dim", "mlp_dim", "stem", "drop_path_rate"}
"""What version 0.1.0 wrote as changes, always all six; null for the value of the size."""


@validated
class TrainConfig:
    """Data, model, recipe and output folder of a training run.

    Raises:
        InputError: a value is of another type, or out of its range, or the model cannot be built.
    """

    data: Text | None = None
    """class folders, train/validation/test folders, NEU's flat files, a .zip of these, an .npz, or tfds:NAME;
    by default drawn steel defects"""
    model: str = "defect-conv/4"
    """size/patch, such as defect/4, S/16 or B/16"""
    image_size: Count | Annotated[tuple[Count, Count], Field(strict=False)] | None = None
    """side in pixels, or height and width; by default 28 for the defect sizes, 224 for the others"""
    channels: Channels | None = None
    """1 reads images as gray, 3 as RGB; by default 1 for the defect sizes, 3 for the others"""
    aspect: Literal["stretch", "crop", "pad"] = "stretch"
    """what happens to images of another aspect ratio"""
    test_fraction: Annotated[float, Field(gt=0.0, le=0.9)] = 0.2
    """share of each class that is the test part, if the data have none"""
    validation_fraction: Annotated[float, Field(ge=0.0, le=0.9)] = 0.1
    """share of the rest of each class that chooses the best epoch; 0 for none"""
    merge_validation: bool = False
    """train on the validation images too and keep the last epoch: for settings that were chosen already"""
    skip_unreadable: bool = False
    """leave unreadable images out instead of stopping"""
    changes: dict[str, Any] = field(default_factory=dict)
    """arguments of `ViTConfig` with other values than the size has"""
    recipe: Recipe = field(default_factory=lambda: RECIPES["default"])
    seed: Seed = 0
    """of the split, the first weights, the order and the augmentation"""
    out: Folder | None = None
    """the run folder to make; by default runs/ and the date"""
    resume: bool = False
    """continue the run in --out that was cut off"""
    distribute: Literal["auto", "none", "data", "model"] = "auto"
    """share each batch among devices (data), or also cut the model over them (model, JAX only); auto uses all
    GPUs, and the processes that the launcher announces"""
    devices: Count | None = None
    """number of devices per process; by default all GPUs or one CPU"""
    model_devices: Count | None = None
    """number of devices that a copy of the model is cut over, with --distribute model; by default all"""
    nodes: Count | None = None
    """number of machines that the run must have; see docs/cluster.md"""

    def __post_init__(self):
        named_size(self.model)
        unknown = self.changes.keys() - set(CHANGEABLE)
        if unknown:
            raise InputError(
                f"changes may have {', '.join(CHANGEABLE)}. Received: {', '.join(map(str, sorted(unknown)))}"
            )
        try:
            model = self.vit_config(num_classes=2)  # the images decide how many there are
        except InputError as error:
            raise InputError(f"{error} for {self.model}") from None
        ordered = {name: getattr(model, name) for name in CHANGEABLE if name in self.changes}
        object.__setattr__(self, "changes", ordered)
        if self.resume and self.out is None:
            raise InputError("Which run is to be resumed? Give its folder with --out.")

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of what the model gets."""
        size = default_image_size(self.model) if self.image_size is None else self.image_size
        height, width = (size, size) if isinstance(size, int) else size
        return (height, width, self.channels or default_channels(self.model))

    def vit_config(self, num_classes: int) -> ViTConfig:
        """The model of the run, for images of this many classes."""
        arguments = {**variant_arguments(self.model), **self.changes}
        return ViTConfig(image_shape=self.image_shape, num_classes=num_classes, **arguments)

    @property
    def architecture(self) -> str:
        """The model in words: `"defect-conv/4 with depth 8"`."""
        changes = ", ".join(f"{name} {value}" for name, value in self.changes.items())
        return f"{self.model} with {changes}" if changes else self.model


def default_folder(config: TrainConfig) -> Path:
    """The folder of a run whose settings name none: runs/, the date, the time and the model."""
    return Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{config.model.replace('/', '-')}"


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """Ready for JSON, without the settings of `WHERE`."""
    return {name: value for name, value in to_plain(config).items() if name not in WHERE}


def from_dict(plain: Any, **where: Any) -> TrainConfig:
    """The settings that `to_dict` gave, of this version or an earlier one.

    Args:
        plain: as `json.loads` gives it. Settings that it leaves out have the defaults of `TrainConfig()`.
        **where: settings of `WHERE`.

    Raises:
        InputError: a setting is unknown, or a value does not fit.
    """
    if not isinstance(plain, dict):
        raise InputError("it holds no settings by name.")
    named_here = sorted(plain.keys() & set(WHERE))
    if named_here:
        raise InputError(f"it has settings that belong on the command line: {', '.join(named_here)}.")
    changes = plain.get("changes")
    if isinstance(changes, dict) and changes.keys() == CHANGES_OF_0_1_0:
        plain = {**plain, "changes": {name: value for name, value in changes.items() if value is not None}}
    config = from_plain(TrainConfig, _merged(to_dict(TrainConfig()), plain))
    return dataclasses.replace(config, **where)


def _merged(defaults: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    """Plain values over the defaults, at each level."""
    found = {**defaults, **plain}
    for name, default in defaults.items():
        if isinstance(default, dict) and isinstance(found[name], dict):
            found[name] = _merged(default, found[name])
    return found
