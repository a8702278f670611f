"""The settings of a run: values, their limits, and the command that repeats it."""

import dataclasses
import json
import re
import shlex
from pathlib import Path

import pytest

from keras_vit.cli.main import parse
from keras_vit.data.augmentation import Augmentation
from keras_vit.errors import InputError
from keras_vit.model.config import CHANGEABLE
from keras_vit.training.config import TrainConfig, default_folder, from_dict, to_dict
from keras_vit.training.options import PARTS, command_of, differences, with_options
from keras_vit.training.recipe import RECIPES, Recipe
from keras_vit.training.start import build_from_scratch

pytestmark = pytest.mark.same_on_every_backend

LAB = RECIPES["lab"]
FULL = TrainConfig(
    data="my images",
    model="S/16",
    image_size=(32, 48),
    channels=1,
    aspect="pad",
    test_fraction=0.25,
    validation_fraction=0.0,
    merge_validation=True,
    skip_unreadable=True,
    changes=dict(
        dim=72,
        depth=3,
        num_heads=4,
        mlp_dim=100,
        head_dim=20,
        stem="linear",
        num_registers=2,
        position="sincos2d",
        pooling="map",
        head_hidden_dim=30,
        qkv_bias=False,
        qk_norm=True,
        activation="swiglu",
        dropout_rate=0.11,
        attention_dropout_rate=0.12,
        drop_path_rate=0.1,
        layer_scale=1e-5,
        remat=False,
        norm_epsilon=1e-5,
        pre_norm=True,
        final_norm="none",
        patch_bias=False,
        patch_norm=True,
        projection_bias=False,
        mlp_bias=False,
        head_activation="tanh",
        class_token=True,
        class_position=False,
    ),
    recipe=Recipe(
        optimizer="sgd",
        learning_rate=0.02,
        schedule="constant",
        warmup_epochs=0.5,
        weight_decay=1e-5,
        clip_norm=None,
        label_smoothing=0.05,
        ema_decay=0.9,
        epochs=7,
        batch_size=3,
        early_stopping=2,
        precision="mixed_bfloat16",
        xla=False,
        augmentation=Augmentation(
            flip="vertical",
            crop=0.3,
            brightness=0.31,
            contrast=0.32,
            rand_augment=0.33,
            mixup=0.34,
            cutmix=0.35,
            erasing=0.36,
        ),
    ),
    seed=5,
    out=Path("runs/a run"),
)
CONFIGS = {
    "defaults": TrainConfig(),
    "lab": TrainConfig(recipe=LAB, model="defect/4"),
    "xla on": TrainConfig(recipe=dataclasses.replace(RECIPES["default"], xla=True)),
    "xla off": TrainConfig(recipe=dataclasses.replace(LAB, xla=False)),
    "one size": TrainConfig(image_size=32),
    "no augmentation": TrainConfig(
        recipe=dataclasses.replace(RECIPES["default"], augmentation=Augmentation())
    ),
    "everything": FULL,
    "what a size has, taken away": TrainConfig(
        model="defect/4", changes=dict(head_dim=None, head_hidden_dim=None, qkv_bias=True, dropout_rate=0.0)
    ),
    "recomputed blocks": TrainConfig(changes=dict(remat=True, layer_scale=None, mlp_dim=None)),
}


def test_lab_is_the_reference_recipe():
    assert (LAB.optimizer, LAB.learning_rate, LAB.batch_size, LAB.epochs) == ("adam", 3e-4, 64, 30)


def test_lab_has_only_the_settings_of_the_reference():
    assert (LAB.schedule, LAB.warmup_epochs, LAB.weight_decay) == ("constant", 0.0, 0.0)
    assert (LAB.clip_norm, LAB.label_smoothing, LAB.ema_decay, LAB.early_stopping) == (None, 0.0, None, None)
    assert LAB.precision == "float32"
    assert LAB.augmentation == Augmentation()


def test_the_default_recipe_is_adamw_with_warmup_cosine_decay_smoothing_and_augmentation():
    recipe = RECIPES["default"]
    assert (recipe.optimizer, recipe.schedule) == ("adamw", "cosine")
    assert min(recipe.warmup_epochs, recipe.weight_decay, recipe.label_smoothing) > 0
    assert recipe.augmentation != Augmentation()


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_config_survives_json(config):
    plain = json.loads(json.dumps(to_dict(config)))
    assert from_dict(plain, out=config.out) == config


def test_to_dict_has_what_is_trained_but_not_where():
    assert {"out", "resume"}.isdisjoint(to_dict(FULL))


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
def test_command_of_repeats_the_run(config):
    command = shlex.split(command_of(config))
    assert command[0] == "keras-vit"
    # The command names the default size, so that it repeats the run in a later version too.
    assert parse(command[1:]).run == dataclasses.replace(config, model=config.size)


def test_command_of_names_no_defaults():
    assert command_of(TrainConfig(recipe=LAB, model="defect/4")) == (
        "keras-vit train --model defect/4 --recipe lab"
    )


def test_differences_by_option():
    other = dataclasses.replace(FULL, seed=6, recipe=dataclasses.replace(FULL.recipe, epochs=8))
    assert differences(FULL, other) == {"seed": 5, "epochs": 7}
    assert differences(FULL, FULL) == {}
    deeper = dataclasses.replace(FULL, changes={**FULL.changes, "depth": 4})
    assert differences(deeper, FULL) == {"depth": 4}


@pytest.mark.parametrize(
    ("given", "shape"),
    [
        (dict(model="defect/4"), (28, 28, 1)),
        (dict(model="defect-conv/4"), (28, 28, 1)),
        (dict(model="B/16"), (224, 224, 3)),
        (dict(model="defect/4", image_size=32, channels=3), (32, 32, 3)),
        (dict(model="S/16", image_size=(32, 64), channels=1), (32, 64, 1)),
    ],
)
def test_image_shape(given, shape):
    assert TrainConfig(**given).image_shape == shape


def test_num_heads_need_not_divide_dim_with_head_dim():
    config = TrainConfig(model="defect/4", changes=dict(dim=30))
    assert build_from_scratch(config, 6).get_config()["dim"] == 30


def test_changes_hold_only_differences_from_the_size():
    changes = dict(depth=3, num_heads=2, dim=32, mlp_dim=48, stem="linear", drop_path_rate=0.1)
    found = build_from_scratch(TrainConfig(changes=changes), 6).get_config()
    assert {name: found[name] for name in changes} == changes
    unchanged = build_from_scratch(TrainConfig(), 6).get_config()
    assert {name for name in found if found[name] != unchanged[name]} == set(changes)


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({}, "defect-pool/8"),
        (dict(depth=8), "defect-pool/8 with depth 8"),
        (
            dict(dim=32, stem="linear", drop_path_rate=0.1),
            "defect-pool/8 with dim 32, stem linear, drop_path_rate 0.1",
        ),
    ],
)
def test_the_architecture_as_text(changes, text):
    assert TrainConfig(changes=changes).architecture == text


def test_a_config_without_a_newer_field():
    plain = json.loads(json.dumps(to_dict(TrainConfig(seed=3))))
    del plain["changes"], plain["merge_validation"]
    assert from_dict(plain) == TrainConfig(seed=3)


def test_the_default_folder_is_named_after_the_time_and_the_model():
    folder = default_folder(TrainConfig(model="defect/4"))
    assert folder.parent == Path("runs")
    assert re.fullmatch(r"\d{8}-\d{6}-defect-4-[0-9a-f]{6}", folder.name)


def test_commands_of_the_same_second_have_different_default_folders():
    assert len({default_folder(TrainConfig()) for _ in range(100)}) > 98


def changed(**changes):
    return dict(changes=changes)


WRONG = {
    "unknown model": (TrainConfig, dict(model="nosuch/4"), "sizes are Ti, S, B"),
    "no patch size": (TrainConfig, dict(model="defect"), "such as B/16"),
    "patch 0": (TrainConfig, dict(model="defect/0"), "such as B/16"),
    "test_fraction 0": (TrainConfig, dict(test_fraction=0.0), "test_fraction must be above 0"),
    "test_fraction 1": (TrainConfig, dict(test_fraction=1.0), "test_fraction must be"),
    "validation_fraction": (
        TrainConfig,
        dict(validation_fraction=-0.1),
        "validation_fraction must be 0.0 or",
    ),
    "seed": (TrainConfig, dict(seed=-1), "seed must be 0 or more"),
    "image_size 0": (TrainConfig, dict(image_size=0), "image_size must be 1 or more"),
    "image_size -4": (TrainConfig, dict(image_size=(28, -4)), "image_size must be 1 or more"),
    "channels": (
        TrainConfig,
        dict(channels=33),
        "channels must be 1 or more and 32 at most. Received: channels=33",
    ),
    "channels 0": (
        TrainConfig,
        dict(channels=0),
        "channels must be 1 or more and 32 at most. Received: channels=0",
    ),
    "channels True": (TrainConfig, dict(channels=True), "channels must be 'auto' or a whole number or None"),
    "depth 0": (TrainConfig, changed(depth=0), "depth must be 1 or more. Received: depth=0"),
    "no heads": (TrainConfig, changed(num_heads=0), "num_heads must be 1 or more"),
    "dim 0": (TrainConfig, changed(dim=0), "dim must be 1 or more"),
    "mlp_dim 0": (TrainConfig, changed(mlp_dim=0), "mlp_dim must be 1 or more"),
    "no such stem": (
        TrainConfig,
        changed(stem="cnov"),
        "stem must be one of 'linear', 'conv', 'conv-pool'",
    ),
    "drop path 1": (
        TrainConfig,
        changed(drop_path_rate=1.0),
        "must be 0.0 or more and below 1.0",
    ),
    "depth None": (TrainConfig, changed(depth=None), "depth must be a whole number. Received: depth=None"),
    "depth as text": (TrainConfig, changed(depth="8"), "depth must be a whole number. Received: depth='8'"),
    "a change of nothing": (
        TrainConfig,
        changed(depht=8),
        "changes may have dim, depth, num_heads, mlp_dim, head_dim, stem, ",
    ),
    "the shape as a change": (TrainConfig, changed(image_shape=(28, 28, 1)), "Received: image_shape"),
    "changes as text": (
        TrainConfig,
        dict(changes="depth=8"),
        "changes must be a dict. Received: changes=",
    ),
    "dim and heads": (
        TrainConfig,
        changed(dim=36, num_heads=8),
        "unless head_dim is given. Received: num_heads=8, dim=36 for defect-pool/8",
    ),
    "dim and the size's heads": (
        TrainConfig,
        dict(model="S/16", changes=dict(dim=200)),
        "num_heads must divide dim, unless head_dim is given. Received: num_heads=6, dim=200 for S/16",
    ),
    "dim and stem": (
        TrainConfig,
        dict(model="S/16", changes=dict(dim=36, stem="conv")),
        'stem="conv" with patch_size=16 needs a dim that 16 divides. Received: dim=36 for S/16',
    ),
    "patch and stem": (
        TrainConfig,
        dict(model="B/14", changes=dict(stem="conv")),
        "so patch_size must be 2, 4, 8, 16, ... Received: patch_size=14 for B/14",
    ),
    "patch and image": (
        TrainConfig,
        dict(image_size=30),
        "patch_size must divide the height and the width of the image. Received: patch_size=8, image 30x30",
    ),
    "remat and dropout": (
        TrainConfig,
        dict(model="defect/4", changes=dict(remat=True)),
        "drop_path_rate",
    ),
    "resume what": (TrainConfig, dict(resume=True), "Give its folder with --out"),
    "data 3": (TrainConfig, dict(data=3), "data must be text or None. Received: data=3"),
    "no such aspect": (
        TrainConfig,
        dict(aspect="nonsense"),
        "aspect must be one of 'stretch', 'crop', 'pad'. Received: aspect='nonsense'",
    ),
    "1 for true": (TrainConfig, dict(merge_validation=1), "merge_validation must be true or false"),
    "a recipe's name": (TrainConfig, dict(recipe="lab"), "recipe must be a Recipe. Received: recipe='lab'"),
    "out 3": (TrainConfig, dict(out=3), "out must be a path or None. Received: out=3"),
    "seed 1.0": (TrainConfig, dict(seed=1.0), "seed must be a whole number. Received: seed=1.0"),
    "epochs as text": (Recipe, dict(epochs="8"), "epochs must be a whole number. Received: epochs='8'"),
    "rate True": (
        Recipe,
        dict(learning_rate=True),
        "learning_rate must be a number. Received: ",
    ),
    "learning_rate 0": (Recipe, dict(learning_rate=0.0), "learning_rate must be above 0"),
    "no such optimizer": (Recipe, dict(optimizer="adan"), "optimizer must be one of 'adam', 'adamw', 'sgd'"),
    "no such schedule": (Recipe, dict(schedule="line"), "Received: schedule='line'"),
    "no such precision": (Recipe, dict(precision="float8"), "Received: precision='float8'"),
    "learning_rate nan": (Recipe, dict(learning_rate=float("nan")), "Received: learning_rate=nan"),
    "learning_rate inf": (Recipe, dict(learning_rate=float("inf")), "Received: learning_rate=inf"),
    "warmup_epochs": (Recipe, dict(warmup_epochs=-1.0), "warmup_epochs must be 0"),
    "weight_decay": (Recipe, dict(weight_decay=-0.1), "weight_decay must be 0"),
    "clip_norm": (Recipe, dict(clip_norm=0.0), "clip_norm must be above 0"),
    "label_smoothing": (Recipe, dict(label_smoothing=1.0), "label_smoothing must be 0"),
    "ema_decay": (Recipe, dict(ema_decay=1.0), "ema_decay must be above 0"),
    "epochs": (Recipe, dict(epochs=0), "epochs must be 1 or more"),
    "batch_size": (Recipe, dict(batch_size=0), "batch_size must be 1 or more"),
    "early_stopping": (Recipe, dict(early_stopping=0), "early_stopping must be 1 or more"),
    "crop": (Augmentation, dict(crop=1.5), "crop must be 0"),
    "mixup": (Augmentation, dict(mixup=-1.0), "mixup must be 0"),
}


@pytest.mark.parametrize(("make", "given", "message"), WRONG.values(), ids=WRONG.keys())
def test_wrong_values(make, given, message):
    with pytest.raises(InputError) as caught:
        make(**given)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


def test_settings_may_have_other_types():
    config = TrainConfig(data=Path("images"), out="runs/first")
    assert (config.data, config.out) == ("images", Path("runs/first"))
    assert TrainConfig(image_size=[24, 32]).image_shape == (24, 32, 1)
    assert TrainConfig(recipe=Recipe(learning_rate=1)).recipe.learning_rate == 1.0


def test_no_option_is_defined_twice():
    names = [name for fields in PARTS.values() for name in fields]
    assert len(names) == len(set(names))
    assert set(CHANGEABLE) <= set(names)


def test_options_are_changed_at_each_level():
    given = dict(seed=3, out=Path("x"), depth=2, recipe="lab", epochs=4, crop=0.3)
    config = with_options(TrainConfig(changes=dict(depth=3, dim=32)), given)
    augmentation = Augmentation(crop=0.3)
    assert config == TrainConfig(
        seed=3,
        out=Path("x"),
        changes=dict(dim=32, depth=2),
        recipe=dataclasses.replace(LAB, epochs=4, augmentation=augmentation),
    )
    assert with_options(config, dict(depth=None)).changes == dict(dim=32)
    assert with_options(config, dict(head_dim=None)).changes == dict(dim=32, depth=2, head_dim=None)
    assert with_options(config, {}) == config
