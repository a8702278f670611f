"""The settings of a training run, as plain values.

Nothing here imports Keras: the command line reads it first.
"""

import dataclasses
from dataclasses import field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from keras_vit.data.preprocess import Aspect, Deviations, Interpolation, Means, Preprocessing
from keras_vit.errors import InputError
from keras_vit.model.config import (
    CHANGEABLE,
    ViTConfig,
    check_fields,
    default_channels,
    default_image_size,
    named_size,
    variant_arguments,
)
from keras_vit.training.recipe import RECIPES, Recipe
from keras_vit.validation import Channels, Count, Folder, Seed, Text, from_plain, to_plain, validated

NONE, AUTO = "none", "auto"
"""Values of `init` that name no weights: begin from scratch; and choose published weights."""

DEFAULT_MODEL = "defect-conv/4"

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
    init: Text = NONE
    """begin with published weights: a file, a folder with config.json, a run folder, timm:NAME, or
    hf:REPO[@REVISION]; auto chooses from a table; none begins from scratch"""
    model: Text | None = None
    """size/patch, such as defect/4, S/16 or B/16; by default defect-conv/4, and with --init that of the
    weights"""
    image_size: Count | Annotated[tuple[Count, Count], Field(strict=False)] | None = None
    """side in pixels, or height and width; by default that of the weights, 28 for the defect sizes, 224 for
    the others"""
    channels: Channels | None = None
    """1 reads images as gray, 3 as RGB; by default that of the weights, 1 for the defect sizes, 3 for
    the others"""
    aspect: Aspect = "stretch"
    """what happens to images of another aspect ratio"""
    mean: Means | None = None
    """subtracted from pixels in 0..1, one value or one per channel; by default that of the weights, or 0.5"""
    std: Deviations | None = None
    """pixels are then divided by it, one value or one per channel; by default that of the weights, or 0.5"""
    interpolation: Interpolation | None = None
    """how images are resized; by default as for the weights, or bilinear"""
    unlabeled: Text | None = None
    """a folder of images without labels, of the same kind as the training images, for --recipe probe"""
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
        if self.model is not None:
            named_size(self.model)
        unknown = self.changes.keys() - set(CHANGEABLE)
        if unknown:
            raise InputError(
                f"changes may have {', '.join(CHANGEABLE)}. Received: {', '.join(map(str, sorted(unknown)))}"
            )
        if self.init == NONE:
            try:
                model = self.vit_config(num_classes=2)  # the images decide how many there are
            except InputError as error:
                raise InputError(f"{error} for {self.size}") from None
            changes = {name: getattr(model, name) for name in self.changes}
            # Refuses a mean of three values for gray images, too.
            _ = self.preprocessing
        else:
            check_fields(**self.changes)  # whether they fit together, the weights decide
            changes = self.changes
        ordered = {name: changes[name] for name in CHANGEABLE if name in changes}
        object.__setattr__(self, "changes", ordered)
        if self.unlabeled is not None and self.init == NONE:
            raise InputError("Images without labels need published weights: add --init, or omit --unlabeled.")
        if self.resume and self.out is None:
            raise InputError("Which run is to be resumed? Give its folder with --out.")

    @property
    def size(self) -> str:
        """The name of the size, of a run from scratch."""
        return DEFAULT_MODEL if self.model is None else self.model

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of what the model gets, in a run from scratch."""
        return self.image_shape_from(default_image_size(self.size), default_channels(self.size))

    def image_shape_from(self, size: int | tuple[int, int], channels: int) -> tuple[int, int, int]:
        """(height, width, channels) of what the model gets: the given ones where the settings name none."""
        wanted = size if self.image_size is None else self.image_size
        height, width = (wanted, wanted) if isinstance(wanted, int) else wanted
        return (height, width, self.channels or channels)

    @property
    def preprocessing(self) -> Preprocessing:
        """How images become what the model gets, in a run from scratch."""
        return Preprocessing(
            self.image_shape, self.aspect, self.mean, self.std, self.interpolation or "bilinear"
        )

    def vit_config(self, num_classes: int) -> ViTConfig:
        """The model of a run from scratch, for images of this many classes."""
        arguments = {**variant_arguments(self.size), **self.changes}
        return ViTConfig(image_shape=self.image_shape, num_classes=num_classes, **arguments)

    @property
    def architecture(self) -> str:
        """The model in words: `"defect-conv/4 with depth 8"`, or the source of the weights."""
        changes = ", ".join(f"{name} {value}" for name, value in self.changes.items())
        name = self.size if self.init == NONE else self.init
        return f"{name} with {changes}" if changes else name


def default_folder(config: TrainConfig) -> Path:
    """The folder of a run whose settings name none: runs/, the date, the time and the model."""
    name = config.size.replace("/", "-") if config.init == NONE else "pretrained"
    return Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{name}"


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
