"""The settings of a search from published weights: what is searched, and what contradicts the weights."""

import dataclasses
import json
from pathlib import Path

import pytest

from keras_vit.cli.main import parse
from keras_vit.errors import InputError
from keras_vit.model.weights.published import AUTO
from keras_vit.search.best import best_config, train_config_at
from keras_vit.search.config import SearchConfig, describe_search, from_dict, to_dict
from keras_vit.search.finetune_space import TUNING, FinetuneSpace, LoraSpace, PublishedWeights
from keras_vit.search.folder import command_of
from keras_vit.search.point import in_words, unfrozen_blocks
from keras_vit.search.space import describe, freeze
from keras_vit.training.config import TrainConfig
from keras_vit.training.recipe import PRETRAINED_RECIPES, RECIPE_CHANGES, RECIPES
from tests.search.running import case_name

pytestmark = pytest.mark.same_on_every_backend

WEIGHTS = PublishedWeights(
    sha256="ab" * 32, name="Ti/16", depth=12, image_shape=(224, 224, 3), parameters=5_500_000, mult_adds=10**9
)
FREE = {
    "finetune": ["layer_decay", "unfrozen_share", "drop_path_rate", "learning_rate", "weight_decay"],
    "lora": ["lora_rank", "drop_path_rate", "learning_rate", "weight_decay"],
}


def config(recipe="finetune", weights=WEIGHTS, **settings):
    return SearchConfig(init="timm:ti", recipe=recipe, weights=weights, **settings)


def test_each_recipe_that_trains_by_steps_has_a_space():
    assert set(TUNING) == set(PRETRAINED_RECIPES) - {"probe"} == set(FREE)


@pytest.mark.parametrize("recipe", TUNING)
def test_what_is_searched(recipe):
    assert TUNING[recipe].searched() == [*FREE[recipe], "batch_size", "augmentation"]
    asked = config(recipe)
    assert asked.search_space() == dataclasses.replace(TUNING[recipe], depth=12)
    assert asked.image_shape == (224, 224, 3)
    described = describe_search(asked)
    assert described == json.loads(json.dumps(described))
    assert described["frozen"] == {"depth": 12, "epochs": 9}


@pytest.mark.parametrize("recipe", TUNING)
def test_the_first_point_is_the_recipe(recipe):
    asked = config(recipe, max_epochs=RECIPES[recipe].epochs)
    found = train_config_at(asked.search_space().default_point(), asked.train_config)
    assert found.recipe == RECIPES[recipe]
    assert found.changes == {"drop_path_rate": 0.0, **RECIPE_CHANGES.get(recipe, {})}
    assert (found.init, found.model, found.image_size) == ("timm:ti", None, None)


@pytest.mark.parametrize(
    ("share", "depth", "blocks"),
    [(1.0, 12, None), (0.5, 12, 6), (0.25, 12, 3), (0.25, 2, 1), (0.3, 10, 3), (0.0, 12, 0), (0.75, 1, 1)],
)
def test_a_share_of_the_blocks(share, depth, blocks):
    assert unfrozen_blocks(share, depth) == blocks


def test_a_point_becomes_a_run():
    asked = config(precision="mixed_bfloat16", image_size=112, seed=3)
    values = {
        **asked.search_space().default_point(),
        **dict(layer_decay=0.6, unfrozen_share=0.5, learning_rate=1e-4, weight_decay=0.01, batch_size=16),
        **dict(augmentation=0.0, drop_path_rate=0.2),
    }
    found = train_config_at(values, asked.train_config)
    recipe = found.recipe
    assert (recipe.tune, recipe.layer_decay, recipe.unfrozen_blocks, recipe.epochs) == ("all", 0.6, 6, 9)
    assert (recipe.learning_rate, recipe.weight_decay, recipe.batch_size) == (1e-4, 0.01, 16)
    assert (recipe.augmentation.flip, recipe.augmentation.crop) == ("none", 0.0)
    assert (recipe.precision, found.image_size, found.seed) == ("mixed_bfloat16", 112, 3)
    assert found.changes == {"drop_path_rate": 0.2}
    assert in_words(values) == "layer decay 0.6, unfrozen share 0.5"


def test_a_point_of_lora_becomes_a_run():
    asked = config("lora")
    values = {**asked.search_space().default_point(), "lora_rank": 8}
    found = train_config_at(values, asked.train_config).recipe
    assert (found.tune, found.lora_rank, found.unfrozen_blocks, found.layer_decay) == ("lora", 8, None, 1.0)
    assert in_words(values) == "lora rank 8"


CONTRADICTIONS = [
    (
        dict(init="w", space="defect28"),
        "The weights of --init decide the architecture, which --space defect28 searches: omit one of the "
        "two.",
    ),
    (
        dict(init="w", space="mine.py"),
        "The weights of --init decide the architecture, which --space mine.py searches: omit one of the two.",
    ),
    (
        dict(init="w", space="lora", recipe="finetune"),
        "--space lora contradicts --recipe finetune: omit one of the two.",
    ),
    (dict(space="lora"), "space=lora begins with published weights: add --init SOURCE."),
    (
        dict(recipe="lora"),
        "recipe chooses how published weights are fine-tuned: add --init, or omit --recipe.",
    ),
    (
        dict(init="w", recipe="probe"),
        "recipe must be one of 'finetune', 'lora' or None. Received: recipe='probe'",
    ),
    (
        dict(init="auto"),
        "A search may be continued, so its weights must be named: instead of --init auto, give --init one of "
        "the names that keras-vit train --init auto prints.",
    ),
    (
        dict(init="w", max_parameters=10**6),
        "max_parameters chooses among architectures, and the weights of --init decide that: omit "
        "--max-parameters.",
    ),
    (
        dict(init="w", freeze=("depth=6",)),
        "The weights of --init decide depth: omit it from --freeze, which takes layer_decay, unfrozen_share, "
        "drop_path_rate, learning_rate, weight_decay, batch_size, augmentation, epochs.",
    ),
    (
        dict(init="w", recipe="lora", freeze=("patch_size=8",)),
        "The weights of --init decide patch_size: omit it from --freeze, which takes lora_rank, "
        "drop_path_rate, learning_rate, weight_decay, batch_size, augmentation, epochs.",
    ),
    (
        dict(init="w", recipe="lora", freeze=("layer_decay=0.5",)),
        "There is no layer_decay to freeze: the fields are lora_rank, drop_path_rate, learning_rate, "
        "weight_decay, batch_size, augmentation, epochs.",
    ),
    (
        dict(init="w", freeze=("unfrozen_share=2.0",)),
        "unfrozen_share must be 0.0 or more and 1.0 at most. Received: unfrozen_share=2.0",
    ),
    (
        dict(init="w", freeze=("epochs=3",)),
        "Hyperband sets the epochs: instead of epochs=3, use --max-epochs.",
    ),
]


@pytest.mark.parametrize(("settings", "sentence"), CONTRADICTIONS, ids=case_name)
def test_contradictions_are_one_sentence(settings, sentence):
    with pytest.raises(InputError) as caught:
        SearchConfig(**settings)
    assert str(caught.value) == sentence


def test_auto_has_names_to_give():
    assert AUTO  # the sentence about --init auto sends the user to them


@pytest.mark.parametrize("recipe", TUNING)
def test_the_command(recipe):
    words = f"search --init timm:ti --recipe {recipe} --freeze batch_size=8 --image-size 112"
    asked = parse(words.split()).config
    assert (asked.space, asked.recipe, asked.max_epochs) == (recipe, recipe, 9)
    assert asked.folder == Path("searches") / recipe
    assert parse(command_of(asked).split()[1:]).config == dataclasses.replace(asked, out=asked.folder)
    assert parse(f"search --init timm:ti --space {recipe}".split()).config.recipe == recipe


def test_finetune_is_the_default_recipe():
    assert SearchConfig(init="w").recipe == "finetune"
    assert (SearchConfig().space, SearchConfig().recipe, SearchConfig().max_epochs) == ("defect28", None, 27)


@pytest.mark.parametrize("recipe", TUNING)
def test_settings_are_read_back(recipe):
    stored = config(recipe, freeze=("weight_decay=0.1",), max_epochs=3)
    plain = json.loads(json.dumps(to_dict(stored)))
    assert from_dict(plain, SearchConfig()) == stored
    assert from_dict(plain, SearchConfig(init="timm:ti")) == stored


@pytest.mark.parametrize(
    ("stored", "asked", "sentence"),
    [
        (SearchConfig(), dict(init="timm:ti"), "out was started with init=none, not timm:ti: omit --init"),
        (config(), dict(init="other"), "out was started with init=timm:ti, not other: omit --init"),
        (config(), dict(init="timm:ti", recipe="lora"), "out was started with recipe=finetune, not lora:"),
        (config(), dict(space="small"), "out was started with space=finetune, not small: omit --space"),
        (config(), dict(max_epochs=3), "out was started with max_epochs=9, not 3: omit --max-epochs"),
    ],
    ids=case_name,
)
def test_another_search_is_refused(stored, asked, sentence):
    with pytest.raises(InputError) as caught:
        from_dict(to_dict(stored), SearchConfig(out=Path("out"), **asked))
    assert str(caught.value).startswith(sentence)


@pytest.mark.parametrize(
    ("kind", "field", "message"),
    [
        (FinetuneSpace, dict(layer_decay=0.0), "layer_decay must be above 0.0 and 1.0 at most."),
        (FinetuneSpace, dict(unfrozen_share=-0.5), "unfrozen_share must be 0.0 or more and 1.0 at most."),
        (LoraSpace, dict(lora_rank=0), "lora_rank must be 1 or more."),
        (LoraSpace, dict(learning_rate=20.0), "learning_rate must be above 0.0 and 10.0 at most."),
    ],
    ids=case_name,
)
def test_wrong_fields(kind, field, message):
    with pytest.raises(InputError, match=message):
        kind(**field)


def test_a_frozen_space_is_described():
    space = freeze(FinetuneSpace(), {"layer_decay": "0.8", "batch_size": "8"})
    assert (space.layer_decay, space.batch_sizes()) == (0.8, [8])
    assert describe(space)["learning_rate"] == {
        "low": 5e-5, "high": 2e-3, "default": 5e-4, "step": None, "log": True,
    }  # fmt: skip


def test_the_best_point_needs_no_weights(tmp_path):
    from keras_vit.evaluation.trials import SearchRecord, TrialRecord

    asked = config(out=tmp_path)
    values = {**asked.search_space().default_point(), "unfrozen_share": 0.25}
    trial = TrialRecord("0000", "COMPLETED", 0.9, values, bracket=0, rung=0, initial_epoch=0, epochs=3)
    found = best_config(SearchRecord(tmp_path, {"asked": to_dict(asked)}, [trial]))
    assert isinstance(found, TrainConfig)
    assert (found.init, found.recipe.unfrozen_blocks, found.recipe.epochs) == ("timm:ti", 3, 9)
