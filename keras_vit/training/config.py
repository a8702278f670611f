"""The settings of a training run, as plain values.

Nothing here imports Keras: the command line reads it first.
"""

import dataclasses
import secrets
from dataclasses import field
from datetime import datetime
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import Field

from keras_vit.data.groups import GroupBy
from keras_vit.data.ordered import read_order
from keras_vit.data.pixel_range import PixelRange
from keras_vit.data.preprocess import (
    Aspect,
    Deviations,
    Interpolation,
    Levels,
    Means,
    Preprocessing,
    ShownChannels,
    TiffPages,
)
from keras_vit.data.split import SplitDuplicates, settings_with_split
from keras_vit.errors import InputError
from keras_vit.evaluation.least_recall import LeastRecalls
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
"""Values of `init` that name no weights: begin from scratch; and choose published weights. `AUTO` is a value
of the settings `OF_THE_IMAGES` too: choose by the images."""

DEFAULT_MODEL = "defect-pool/8"
"""The model for the drawn defects. Other images choose one."""

OF_THE_IMAGES = ("model", "image_size", "channels")
"""Settings that the images decide, see `training/defaults.py`."""

INTERNAL = ("fixed_batch",)
"""Fields that are no options, and not stored."""

DEVICES = ("distribute", "devices", "model_devices", "nodes")
WHERE = ("out", "resume", *DEVICES)
"""Settings of where a run is made, not of what it computes. A file of settings has none of them."""


ChannelsOrAuto = Literal["auto"] | Channels

Several = Annotated[int, Field(ge=2)]

CHANGES_OF_0_1_0 = {"depth", "num_heads", "dim", "mlp_dim", "stem", "drop_path_rate"}
"""What version 0.1.0 wrote as changes, always all six; null for the value of the size."""

WHOLE_RECIPE_OF_BEFORE = {"optimizer", "learning_rate", "schedule", "epochs", "batch_size", "augmentation"}
"""A recipe with all these and without `sampling` was written by a version that drew every image once."""


@validated
class TrainConfig:
    """Data, model, recipe and output folder of a training run.

    Raises:
        InputError: a value is of another type, or out of its range, or the model cannot be built.
    """

    data: Text | None = None
    """class folders, train/validation/test folders, NEU's flat files, a .zip of these, a table of paths and
    labels (.csv, .tsv, .jsonl, .parquet, the export of a tool, or the images.csv of a run), an .npz, or
    tfds:NAME; by default drawn steel defects"""
    crop_boxes: bool = False
    """make each box of a table an image: of COCO, Label Studio or CVAT, or of columns such as xmin, ymin,
    xmax, ymax"""
    allow_outside: bool = False
    """let relative paths leave the folder of their table"""
    several_labels: bool = False
    """read several labels per image from a table: in the cells of one column, in a column of 0 and 1 for each
    label, or in a row for each"""
    label_columns: Annotated[tuple[Text, ...], Field(strict=False)] = ()
    """the columns of a table that hold these labels: one for each label, or one for all"""
    ordered: Text | None = None
    """the classes from the lowest to the highest, such as low,middle,high: how far a mistake is from the
    truth then counts too"""
    fixes: Text | None = None
    """a fixes.csv of the page of keras-vit audit: images are dropped or relabelled as it says, for this
    command alone"""
    init: Text = NONE
    """begin with published weights: a file, a folder with config.json, a run folder, timm:NAME, or
    hf:REPO[@REVISION]; auto chooses from a table; none begins from scratch"""
    model: Text | None = None
    """size/patch, such as defect/4, S/16 or B/16; auto (the default) chooses by number and size of the
    images, and is defect-pool/8 for the drawn defects, and with --init that of the weights"""
    image_size: Count | Annotated[tuple[Count, Count], Field(strict=False)] | Literal["auto"] | None = None
    """side in pixels, or height and width; auto (the default without --model) chooses by number and size of
    the images; by default that of the weights or of the named model, 28 or 56 for the defect sizes, 224 for
    the others"""
    channels: ChannelsOrAuto | None = None
    """1 reads images as gray, 3 as RGB; 2 and 4 to 32 are channels of measurement, of TIFF or npz; auto (the
    default without --model) is 1 where all images are gray, the number of channels where it is another one,
    and 3 otherwise; by default that of the weights or of the named model, 1 for the defect sizes, 3 for the
    others"""
    show_channels: ShownChannels | None = None
    """of channels of measurement, the one or three that pictures show as gray or as red, green and blue, from
    1; by default the first three"""
    tiff_page: TiffPages | None = None
    """which page of a TIFF is read, from 1; channels reads its pages as channels; by default files with
    several are refused"""
    aspect: Aspect = "stretch"
    """what happens to images of another aspect ratio"""
    mean: Means | None = None
    """subtracted from pixels in 0..1, one value or one per channel; by default that of the weights, or 0.5"""
    std: Deviations | None = None
    """pixels are then divided by it, one value or one per channel; by default that of the weights, or 0.5"""
    interpolation: Interpolation | None = None
    """how images are resized; by default as for the weights, or bilinear"""
    background: Levels = (255,)
    """what is seen where an image is transparent: a gray level, or red, green and blue, 0 to 255"""
    pixel_range: PixelRange = "auto"
    """which values of images with more than 8 bits per channel become black and white (also --window): two
    values in the units of the files, or two for each channel of measurement; two percentiles of the training
    images, such as 1% 99%; dtype for 0 and 65535; auto for the window of DICOM files, and for what nearly all
    values of the training images lie between"""
    unlabeled: Text | None = None
    """a folder of images without labels, of the same kind as the training images, for --recipe probe"""
    ood_examples: Text | None = None
    """a folder of images unlike the training images, which are to be rejected: half of them choose what the
    rejection looks at, the other half are counted"""
    test_fraction: Annotated[float, Field(gt=0.0, le=0.9)] = 0.2
    """share of each class that is the test part, if the data have none"""
    validation_fraction: Annotated[float, Field(ge=0.0, le=0.9)] = 0.1
    """share of the rest of each class that chooses the best epoch; 0 for none"""
    group_by: GroupBy | None = None
    """keep images of one part, patient, strip or video in one part of the split: column:NAME of a table,
    regex:EXPRESSION found in the image's name (what its brackets hold), or parent, the folder's name"""
    split_duplicates: SplitDuplicates = "together"
    """images that show the same thing, as the audit finds them, are drawn into one part of the split
    (together), or each by itself (keep)"""
    accept_risk: Annotated[float, Field(gt=0.0, lt=1.0)] | None = None
    """at most this share of the images that are not referred to a person may be labelled wrongly; by default
    images are referred whose prediction set is not their label alone"""
    min_recall: LeastRecalls | None = None
    """name a class so often that at least this share of its images is found, CLASS=RECALL, such as
    scratches=0.98; several may be given. Chosen on images that the model is not trained on"""
    costs: Text | None = None
    """name the class with the least expected cost: a CSV file with a column per class that may be named and a
    row per true class, or a JSON object of true class to named class to cost"""
    merge_validation: bool = False
    """train on the validation images too and keep the last epoch: for settings that were chosen already"""
    skip_unreadable: bool = False
    """leave unreadable images out instead of stopping"""
    changes: dict[str, Any] = field(default_factory=dict)
    """arguments of `ViTConfig` with other values than the size has"""
    recipe: Recipe = field(default_factory=lambda: RECIPES["default"])
    seed: Seed = 0
    """of the split, the first weights, the order and the augmentation"""
    folds: Several | None = None
    """train so many runs, fold-1, fold-2, ... in --out, and test each image once, by the run that was not
    trained on it; --test-fraction does not count then"""
    fold: Count | None = None
    """train only this one of the --folds, as a run of its own"""
    seeds: Several | None = None
    """train so many runs, seed-0, seed-1, ... in --out, each with another --seed"""
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
    fixed_batch: bool = field(default=False, compare=False, repr=False)
    """whether the batch size was given, so that it is not cut to the number of training images"""

    def __post_init__(self):
        if self.model not in (None, AUTO):
            named_size(self.model)
        unknown = self.changes.keys() - set(CHANGEABLE)
        if unknown:
            raise InputError(
                f"changes may have {', '.join(CHANGEABLE)}. Received: {', '.join(map(str, sorted(unknown)))}"
            )
        if self.init == NONE and not self.follows_images:
            try:
                model = self.vit_config(num_classes=2)  # the images decide how many there are
            except InputError as error:
                raise InputError(f"{error} for {self.size}") from None
            changes = {name: getattr(model, name) for name in self.changes}
            # Refuses a mean of three values for gray images, too.
            _ = self.preprocessing
        else:
            check_fields(**self.changes)  # whether they fit together, the weights or the images decide
            changes = self.changes
        ordered = {name: changes[name] for name in CHANGEABLE if name in changes}
        object.__setattr__(self, "changes", ordered)
        if self.unlabeled is not None and self.init == NONE:
            raise InputError("Images without labels need published weights: add --init, or omit --unlabeled.")
        self._check_several()
        if self.ordered is not None:
            read_order(self.ordered)
            if self.several_labels or self.label_columns:
                raise InputError(
                    "--ordered is for one class per image, and several labels have no order: omit --ordered, "
                    "or --several-labels and --label-columns."
                )
        if self.resume and self.out is None:
            raise InputError("Which run is to be resumed? Give its folder with --out.")

    def _check_several(self) -> None:
        if self.fold is not None and (self.folds is None or self.fold > self.folds):
            known = f"of 1 to {self.folds}" if self.folds else "of --folds, such as --folds 5 --fold 1"
            raise InputError(f"fold is the number of one {known}. Received: fold={self.fold}")
        if self.seeds is not None and self.folds is not None:
            raise InputError(
                "Either --folds tests every image once, or --seeds draws a split per seed: give one of them."
            )
        if self.seeds is not None and self.seed:
            raise InputError(
                f"--seeds {self.seeds} trains the seeds 0 to {self.seeds - 1}: omit --seed {self.seed}."
            )
        default = type(self).test_fraction
        if self.folds is not None and self.test_fraction != default:
            raise InputError(
                f"With --folds {self.folds}, each run is tested on one of {self.folds} equal parts: omit "
                f"--test-fraction {self.test_fraction:g}."
            )

    @property
    def is_several(self) -> bool:
        """Whether these are the settings of several runs in one folder."""
        return self.seeds is not None or (self.folds is not None and self.fold is None)

    @property
    def test_share(self) -> float:
        """The share of the images that is the test part of a run, if the data have none."""
        return self.test_fraction if self.folds is None else 1 / self.folds

    @property
    def of_tables(self) -> dict[str, Any]:
        """How `load_image_set` reads the images: its arguments by name."""
        return {
            "crop_boxes": self.crop_boxes,
            "allow_outside": self.allow_outside,
            "group_by": self.group_by,
            "several_labels": self.several_labels,
            "label_columns": self.label_columns,
            "ordered": () if self.ordered is None else read_order(self.ordered),
            "fixes": self.fixes,
        }

    @property
    def follows_images(self) -> tuple[str, ...]:
        """Which of the settings `OF_THE_IMAGES` the images are still to decide; none of the drawn defects.

        A model that is named decides size and channels, unless these are `AUTO`.
        """
        if self.data is None or self.init != NONE:
            return ()
        open_values = (None, AUTO) if self.model in (None, AUTO) else (AUTO,)
        return tuple(name for name in OF_THE_IMAGES if getattr(self, name) in open_values)

    @property
    def size(self) -> str:
        """The name of the size, of a run from scratch; `AUTO` while the images are still to decide it."""
        if "model" in self.follows_images:
            return AUTO
        return DEFAULT_MODEL if self.model in (None, AUTO) else self.model

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """(height, width, channels) of what the model gets, in a run from scratch."""
        if self.follows_images:
            raise InputError(f"The images decide {', '.join(self.follows_images)}: give values for them.")
        return self.image_shape_from(default_image_size(self.size), default_channels(self.size))

    def image_shape_from(self, size: int | tuple[int, int], channels: int) -> tuple[int, int, int]:
        """(height, width, channels) of what the model gets: the given ones where the settings name none."""
        wanted = size if self.image_size is None or isinstance(self.image_size, str) else self.image_size
        height, width = (wanted, wanted) if isinstance(wanted, int) else wanted
        return (height, width, self.channels if isinstance(self.channels, int) else channels)

    @property
    def preprocessing(self) -> Preprocessing:
        """How images become what the model gets, in a run from scratch."""
        return Preprocessing(
            self.image_shape,
            self.aspect,
            self.mean,
            self.std,
            self.interpolation or "bilinear",
            background=self.background,
            tiff_page=self.tiff_page,
            shown_channels=self.show_channels,
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
    """The folder of a run whose settings name none: runs/, date and time, the model, and random digits.

    Without these, commands that are started in the same second would want the same folder.
    """
    name = config.size.replace("/", "-") if config.init == NONE else "pretrained"
    return Path("runs") / f"{datetime.now():%Y%m%d-%H%M%S}-{name}-{secrets.token_hex(3)}"


def learns_drawn(data: Any, init: Any, model: Any) -> bool:
    """Whether these settings are of the drawn defects and of their model, which has a recipe of its own."""
    return data is None and init == NONE and model in (None, AUTO, DEFAULT_MODEL)


def to_dict(config: TrainConfig) -> dict[str, Any]:
    """Ready for JSON, without the settings of `WHERE`."""
    return {name: value for name, value in to_plain(config).items() if name not in WHERE + INTERNAL}


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
    if "skip_unreadable" in plain:  # written by a version, which writes all settings
        plain = settings_with_split(plain)
    recipe = plain.get("recipe")
    if isinstance(recipe, dict) and set(recipe) >= WHOLE_RECIPE_OF_BEFORE and "sampling" not in recipe:
        plain = {**plain, "recipe": {**recipe, "sampling": "uniform"}}
    config = from_plain(TrainConfig, _merged(to_dict(TrainConfig()), plain))
    return dataclasses.replace(config, **where)


def _merged(defaults: dict[str, Any], plain: dict[str, Any]) -> dict[str, Any]:
    """Plain values over the defaults, at each level."""
    found = {**defaults, **plain}
    for name, default in defaults.items():
        if isinstance(default, dict) and isinstance(found[name], dict):
            found[name] = _merged(default, found[name])
    return found
