"""What a run begins with beside its images: a model, from scratch or from published weights."""

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from keras_vit.data.image_set import ImageSet
from keras_vit.data.preprocess import Preprocessing
from keras_vit.errors import InputError
from keras_vit.model.config import ViTConfig
from keras_vit.model.vit import ViT
from keras_vit.model.weights.adapt import FREE, adapt
from keras_vit.model.weights.describe import architecture, told_in_words
from keras_vit.model.weights.published import AUTO as PUBLISHED
from keras_vit.model.weights.published import auto_table
from keras_vit.model.weights.read import read_weights
from keras_vit.model.weights.told import NotTold
from keras_vit.model.weights.weights import Weights
from keras_vit.text import say
from keras_vit.training.config import AUTO, NONE, TrainConfig, learns_drawn
from keras_vit.training.recipe import PRETRAINED_RECIPES, RECIPE_CHANGES, RECIPES, Recipe

FEWEST_PER_CLASS = 30
"""Training images per class below which the head alone is fitted: all weights would learn them by heart."""


@dataclass(frozen=True)
class Start:
    """The model of a run before it is built, and the preprocessing that it needs.

    Args:
        name: of the model, such as `"Ti/16"`.
        preprocessing: of the images.
        vit: the architecture; the images decide the number of classes.
        weights: published ones, as they are in their file; `None` from scratch.
        notes: what was converted for these images, one line each.
    """

    name: str
    preprocessing: Preprocessing
    vit: ViTConfig
    weights: Weights | None = None
    notes: tuple[str, ...] = ()

    def build(self, config: TrainConfig, class_names: Sequence[str]) -> ViT:
        """The model with its first weights.

        Published weights keep their head if it is for the same classes. Another head is new; it sees the
        class token beside the mean of the patch tokens, where the weights have both, no hidden layer stands
        between them and the head, and the settings do not say otherwise.
        """
        if self.weights is None:
            return build_from_scratch(config, len(class_names))
        changes = {name: value for name, value in config.changes.items() if name in FREE}
        same_classes = self.weights.class_names is not None and self.weights.class_names == tuple(class_names)
        only_token = self.weights.config.pooling == "token" and not self.weights.config.head_hidden_dim
        if not same_classes and only_token:
            changes.setdefault("pooling", "token+gap")
        shape = self.preprocessing.image_shape
        adapted = adapt(self.weights, shape, len(class_names), changes, new_head=not same_classes)
        return ViT.from_weights(adapted, dtype=config.recipe.precision)

    def has_new_head(self, model: ViT) -> bool:
        """Whether a model that `build` returned has a head that begins with zeros."""
        return model.pretrained is not None and model.pretrained.class_names is None

    def describe(self) -> dict[str, Any] | None:
        """What config.json and the model card say of the published weights, ready for JSON."""
        if self.weights is None:
            return None
        weights, origin = self.weights, self.weights.origin
        return {
            "source": origin.source,
            "family": weights.family,
            "revision": origin.revision,
            "sha256": origin.sha256,
            "licence": origin.licence,
            "mean": list(weights.mean),
            "std": list(weights.std),
            "interpolation": weights.interpolation,
            "image_shape": list(weights.config.image_shape),
            "told_by": dict(weights.told_by),
            "unused": list(weights.unused),
            "notes": list(self.notes),
        }

    def lines(self) -> list[str]:
        """What is printed of the published weights, one line each."""
        if self.weights is None:
            return []
        weights, shown = self.weights, self.preprocessing
        told = told_in_words(weights.told_by)
        unused = f"; unused: {', '.join(weights.unused)}" if weights.unused else ""
        height, width, channels = shown.image_shape
        return [
            f"weights: {weights.origin.source} ({weights.family}), {self.name}, "
            f"licence {weights.origin.licence or 'not stated in the file'}{unused}",
            f"told: {told or 'everything by the tensors'}",
            f"images: {height}x{width}x{channels}, {shown.interpolation}, mean {_numbers(shown.mean)}, "
            f"std {_numbers(shown.std)}",
            *self.notes,
        ]


def build_from_scratch(config: TrainConfig, num_classes: int) -> ViT:
    """The model of a run from scratch, with its first weights.

    Raises:
        InputError: the model cannot be built for these images.
    """
    try:
        return ViT.from_variant(
            config.size,
            image_shape=config.image_shape,
            num_classes=num_classes,
            dtype=config.recipe.precision,
            **config.changes,
        )
    except ValueError as error:
        raise InputError(str(error)) from error


def begin(config: TrainConfig) -> Start:
    """Reads the published weights of a run, if its settings name some.

    Args:
        config: with an `init` other than `AUTO`.

    Raises:
        InputError: the weights cannot be used, or the settings contradict them.
    """
    if config.init == NONE:
        return Start(config.size, config.preprocessing, config.vit_config(num_classes=2))
    told = {name: value for name, value in config.changes.items() if name not in FREE or name == "pooling"}
    given = {name: getattr(config, name) for name in ("mean", "std", "interpolation")}
    told |= {name: value for name, value in given.items() if value is not None}
    try:
        weights = read_weights(config.init, **told)
    except NotTold as error:
        if config.image_size is None or "image_size" not in error.names:
            raise
        # A file with fixed positions does not tell the size of its images; another file's size is its own.
        weights = read_weights(config.init, **told, image_size=config.image_size)
    name = architecture(weights.config)
    if config.model is not None and config.model != name.partition(" with")[0]:
        raise InputError(
            f"{config.init} is a {name}, not a {config.model}: omit --model, which the weights decide."
        )
    height, width, channels = weights.config.image_shape
    shape = config.image_shape_from((height, width), channels)
    wanted = adapt(weights, shape)
    preprocessing = Preprocessing(
        shape,
        config.aspect,
        wanted.mean,
        wanted.std,
        config.interpolation or weights.interpolation,
        background=config.background,
        tiff_page=config.tiff_page,
        shown_channels=config.show_channels,
    )
    return Start(name, preprocessing, wanted.config, weights, wanted.notes)


def choose_weights(config: TrainConfig) -> TrainConfig:
    """The settings with the weights that `init="auto"` stands for: the first of the table that can be had.

    Without a network, and with nothing in the cache, the run is one from scratch. Both are printed.
    """
    if config.init != AUTO:
        return config
    say("published weights for --init auto, the first that can be had:")
    say(*auto_table().split("\n"))
    reason = ""
    for row in PUBLISHED:
        try:
            read_weights(row.source)
        except InputError as error:
            reason = reason or str(error)
            continue
        say(f"chosen: {row.source}, licence {row.licence}")
        return dataclasses.replace(config, init=row.source)
    say(f"None can be had, so the run begins from scratch. {reason}")
    return _without_weights(config)


def _without_weights(config: TrainConfig) -> TrainConfig:
    """The settings of a run from scratch: those that a recipe for published weights has are the defaults'."""

    def changed(name: str) -> dict[str, Any]:
        fields = [field.name for field in dataclasses.fields(Recipe)]  # type: ignore[arg-type]
        return {
            field: getattr(config.recipe, field)
            for field in fields
            if getattr(config.recipe, field) != getattr(RECIPES[name], field)
        }

    nearest = min(RECIPES, key=lambda name: len(changed(name)))
    recipe, changes = config.recipe, dict(config.changes)
    if nearest in PRETRAINED_RECIPES:
        only = ("tune", "layer_decay", "unfrozen_blocks", "unfreeze_every", "lora_rank", "lora_on")
        kept = {name: value for name, value in changed(nearest).items() if name not in only}
        recipe = dataclasses.replace(RECIPES["default"], **kept)
        for name, value in RECIPE_CHANGES.get(nearest, {}).items():
            if changes.get(name) == value:
                del changes[name]
    return dataclasses.replace(config, init=NONE, changes=changes, recipe=recipe, unlabeled=None)


def choose_recipe(config: TrainConfig, image_set: ImageSet) -> TrainConfig:
    """The settings with the recipe that published weights need, where they have that of a run from scratch.

    With few images per class only the head is fitted, otherwise all weights. The reason is printed. The drawn
    defects have a recipe of their own, too, for the model that is trained on them by default.
    """
    if config.recipe != RECIPES["default"]:
        return config
    if config.init == NONE:
        if not learns_drawn(config.data, config.init, config.model):
            return config
        say("recipe: drawn (no --data: the drawn defects); --recipe or --epochs chooses otherwise")
        return dataclasses.replace(config, recipe=RECIPES["drawn"])
    classes = len(image_set.class_names)
    training = len(image_set) * (1 - config.test_share) * (1 - config.validation_fraction)
    if image_set.parts is not None:
        training = sum(part == "train" for part in image_set.parts)
    per_class = int(training / classes)
    name = "probe" if per_class < FEWEST_PER_CLASS or config.unlabeled is not None else "finetune"
    reason = f"about {per_class} training images per class, the limit is {FEWEST_PER_CLASS}"
    if config.unlabeled is not None:
        reason = "images without labels are used by this recipe"
    say(f"recipe: {name} ({reason}); --recipe probe, finetune or lora chooses another")
    changes = {**RECIPE_CHANGES.get(name, {}), **config.changes}
    return dataclasses.replace(config, recipe=RECIPES[name], changes=changes)


def check_recipe(config: TrainConfig) -> None:
    """Raises InputError where a recipe needs published weights and there are none, or settings clash."""
    recipe: Recipe = config.recipe
    if config.init == NONE and recipe.tune != "all":
        raise InputError(
            f"The recipe trains {'the head' if recipe.tune == 'head' else 'additions to the kernels'} alone, "
            "which needs published weights: add --init, or omit --recipe and --tune."
        )
    if config.unlabeled is not None and recipe.tune != "head":
        raise InputError("Images without labels are for --recipe probe: add it, or omit --unlabeled.")


def _numbers(values: Sequence[float] | None) -> str:
    return " ".join(f"{value:g}" for value in values or (0.5,))
