"""The settings of a run as flat options: those of `keras-vit train`, and the command that repeats a run.

Nothing here imports Keras: the command line reads it first.
"""

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args

from keras_vit.data.augmentation import Augmentation
from keras_vit.model.config import CHANGEABLE, ViTConfig
from keras_vit.process.command import repeat_command
from keras_vit.training.config import (
    INTERNAL,
    NONE,
    OF_THE_IMAGES,
    WHERE,
    TrainConfig,
    learns_drawn,
    to_dict,
)
from keras_vit.training.recipe import RECIPE_CHANGES, RECIPES, Recipe
from keras_vit.validation import helps, hints


def _fields(cls: Any, *parts: str) -> tuple[str, ...]:
    return tuple(field.name for field in dataclasses.fields(cls) if field.name not in parts)


PARTS: dict[type, tuple[str, ...]] = {
    TrainConfig: _fields(TrainConfig, "changes", "recipe", *INTERNAL),
    ViTConfig: CHANGEABLE,
    Recipe: _fields(Recipe, "augmentation"),
    Augmentation: _fields(Augmentation),
}
"""The settings of a run, which are all options, by the class that has them."""

RESETTABLE = {
    name
    for name in CHANGEABLE
    if (hint := hints(ViTConfig)[name]) is not bool and type(None) not in get_args(hint)
}
"""Arguments of a model for which `None`, which is not a value of them, stands for the size's own value."""

WORDS = {name for name in CHANGEABLE if {bool, type(None)} <= set(get_args(hints(ViTConfig)[name]))}
"""Arguments of a model that are true, false or `None`: the command line takes a word for them."""


@dataclass(frozen=True)
class Option:
    """An option of the command.

    Args:
        type: of its value.
        help: what it sets.
        default: in words.
    """

    type: Any
    help: str
    default: str


def options_of(cls: type) -> dict[str, Option]:
    """The options by name that set the fields of one of the classes of a run, see `PARTS`."""
    default, lab = (_flat(TrainConfig(recipe=RECIPES[name])) for name in ("default", "lab"))
    found = {}
    for name in PARTS[cls]:
        hint, words = hints(cls)[name], "that of the size"
        if name in RESETTABLE:
            hint = hint | None
        if name not in CHANGEABLE:
            same = default[name] == lab[name]
            words = str(default[name]) if same else f"{default[name]}; {lab[name]} with --recipe lab"
        if name in OF_THE_IMAGES:
            words = "auto, or that of --model or --init" if name != "model" else "auto, or that of --init"
        found[name] = Option(hint, " ".join(helps(cls)[name].split()), words)
    return found


RECIPE = Option(
    Literal[tuple(RECIPES)],
    "the recipe that the options below change; lab is that of the reference study; by default that of the "
    "file given with --config",
    "default",
)


def with_options(config: TrainConfig, given: Mapping[str, Any]) -> TrainConfig:
    """The settings of a run with other values for some options.

    Args:
        config: the settings.
        given: values by option name. "recipe" names a recipe, which replaces that of the settings as a whole.

    Raises:
        InputError: a value does not fit.
    """
    run, changes, recipe, augmentation = (
        {name: given[name] for name in names if name in given} for names in PARTS.values()
    )
    changes = {**config.changes, **changes}
    for name in RESETTABLE & changes.keys():
        if changes[name] is None:
            del changes[name]
    base = RECIPES[given["recipe"]] if "recipe" in given else config.recipe
    if "recipe" in given:
        changes = {**RECIPE_CHANGES.get(given["recipe"], {}), **changes}
    elif given.get("init", config.init) != NONE and base == RECIPES["default"] and (recipe or augmentation):
        base = RECIPES["finetune"]  # the settings of a training that is named, so not a probe
        changes = {**RECIPE_CHANGES["finetune"], **changes}
    elif base == RECIPES["default"] and (recipe or augmentation) and _on_drawn(config, run):
        base = RECIPES["drawn"]
    augmented = dataclasses.replace(base.augmentation, **augmentation)
    if "folds" in given:
        run.setdefault("fold", None)  # that of a file of settings is one of other folds
    if "batch_size" in recipe:
        run["fixed_batch"] = True
    return dataclasses.replace(
        config,
        changes=changes,
        recipe=dataclasses.replace(base, augmentation=augmented, **recipe),
        **run,
    )


def _on_drawn(config: TrainConfig, given: Mapping[str, Any]) -> bool:
    """Whether a run has by default the recipe of the drawn defects, see `choose_recipe`."""
    data, init, model, resume = (
        given.get(name, getattr(config, name)) for name in ("data", "init", "model", "resume")
    )
    # A run that continues has its own settings, and need not name its data.
    return learns_drawn(data, init, model) and not resume


def differences(config: TrainConfig, other: TrainConfig) -> dict[str, Any]:
    """The options in which a config differs from another, with the config's values.

    The settings of where it is made do not count.
    """
    theirs = _flat(other)
    return {
        name: value
        for name, value in _flat(config).items()
        if name not in WHERE and (name not in theirs or value != theirs[name])
    }


def command_of(config: TrainConfig) -> str:
    """The shell command that repeats a run, without the options that have their defaults."""
    defaults = {
        name: TrainConfig(
            init=config.init,
            recipe=recipe,
            model=config.model,
            image_size=config.image_size,  # 28 pixels cannot be cut into all patch sizes
            channels=config.channels,
            changes=dict(RECIPE_CHANGES.get(name, {})) if config.init != NONE else {},
        )
        for name, recipe in RECIPES.items()
    }
    nearest = min(defaults, key=lambda name: len(differences(config, defaults[name])))
    unset = {**_flat(defaults[nearest]), "recipe": "default", "resume": config.resume}
    unset |= {"image_size": None, "channels": None}
    if _on_drawn(config, {"resume": False}):
        del unset["recipe"]  # other options would mean the recipe drawn
    for name in WORDS - unset.keys():
        unset[name] = "that of the size"  # so that it is written as a word, not as a flag
    del unset["init"], unset["model"]  # one of them is always named
    first = {"model": config.size} if config.init == NONE else {"init": config.init, "model": config.model}
    settings = _flat(config)
    settings = {**first, "recipe": nearest, **{n: v for n, v in settings.items() if n not in first}}
    if config.init == NONE:
        del settings["init"]
    elif config.model is None:
        del settings["model"]
    return repeat_command(["keras-vit", "train"], settings, unset)


def _flat(config: TrainConfig) -> dict[str, Any]:
    """Values by option name, those of `WHERE` last; of the model, the ones that the config changes."""
    plain = to_dict(config)
    recipe, changes = plain.pop("recipe"), plain.pop("changes")
    where = {name: getattr(config, name) for name in (*WHERE[1:], WHERE[0])}
    return plain | changes | recipe.pop("augmentation") | recipe | where
