"""What a run begins with: weights, preprocessing and recipe, and what it says of them."""

import dataclasses
import os
import re
import subprocess
import sys

import numpy as np
import pytest

from keras_vit import ViT
from keras_vit.cache import FOLDER
from keras_vit.cli.main import main
from keras_vit.data.image_set import ImageSet
from keras_vit.errors import InputError
from keras_vit.model.config import SIZES, Size
from keras_vit.model.weights.published import Choice
from keras_vit.process.exit_codes import FINE, WRONG_USAGE
from keras_vit.runs.folder import load_run
from keras_vit.training import start
from keras_vit.training.config import AUTO, NONE, TrainConfig
from keras_vit.training.recipe import RECIPES
from keras_vit.training.start import begin, check_recipe, choose_recipe, choose_weights
from tests.helpers import tiny
from tests.helpers.paths import ROOT
from tests.helpers.published import answers
from tests.helpers.random_tensors import random_images
from tests.helpers.sources import LICENCE, STD, tensors


@pytest.fixture(autouse=True)
def own_cache(monkeypatch, tmp_path):
    monkeypatch.setenv(FOLDER, str(tmp_path / "cache"))


# The images


def test_another_mean_can_be_given(source):
    config = TrainConfig(init=str(source), mean=(0.1, 0.2, 0.3), interpolation="bilinear")
    begun = begin(config)
    assert begun.preprocessing.mean == (0.1, 0.2, 0.3)
    assert begun.preprocessing.std == STD
    assert begun.preprocessing.interpolation == "bilinear"
    assert begun.describe()["told_by"]["mean"] == "argument"
    assert begun.describe()["told_by"]["std"] != "argument"


def test_gray_images_get_the_model_of_three_equal_channels(source):
    gray = np.random.default_rng(0).uniform(size=(3, 16, 16, 1))
    answered = []
    for channels in (1, 3):
        config = TrainConfig(init=str(source), channels=channels, changes={"pooling": "token"})
        begun = begin(config)
        assert begun.preprocessing.image_shape == (16, 16, channels)
        numbers = begun.preprocessing.numbers()
        scaled = (np.repeat(gray, channels, axis=-1) - numbers["mean"]) / numbers["std"]
        model = begun.build(config, tuple("abc"))
        answered.append(answers(model.extractor("features"), scaled.astype("float32")))
    np.testing.assert_allclose(answered[0], answered[1], atol=1e-5)


# The model


def test_the_model_is_that_of_the_weights(source):
    config = TrainConfig(init=str(source))
    begun = begin(config)
    model = begun.build(config, ("cat", "dog"))
    assert model.config.num_classes == 2
    assert model.config.pooling == "token+gap"
    assert begun.has_new_head(model)
    head = model.get_layer("head").get_weights()
    assert not any(array.any() for array in head)
    whole = ViT.from_pretrained(source)
    images = random_images((16, 16, 3))
    expected = answers(whole.extractor("patch_tokens"), images)
    np.testing.assert_allclose(answers(model.extractor("patch_tokens"), images), expected, atol=1e-5)
    kernel = np.asarray(tensors()["blocks.1.mlp.fc1.weight"]).T
    np.testing.assert_array_equal(model.get_layer("block_1").mlp.expand.get_weights()[0], kernel)


@pytest.mark.parametrize(
    ("settings", "shape"),
    [({}, (16, 16, 3)), (dict(image_size=32), (32, 32, 3)), (dict(image_size=(24, 40)), (24, 40, 3))],
)
def test_the_image_size_is_that_of_the_weights_or_given(settings, shape, source):
    config = TrainConfig(init=str(source), **settings)
    begun = begin(config)
    assert begun.preprocessing.image_shape == begun.vit.image_shape == shape
    assert begun.build(config, ("a", "b")).image_shape == shape
    assert any("positions resized" in line for line in begun.lines()) == bool(settings)
    assert begun.describe()["notes"] == list(begun.notes)


def test_precision_and_changes_of_the_recipe_are_used(source):
    recipe = dataclasses.replace(RECIPES["finetune"], precision="mixed_bfloat16")
    changes = {"drop_path_rate": 0.2, "pooling": "gap", "num_heads": 4}
    config = TrainConfig(init=str(source), recipe=recipe, changes=changes)
    model = begin(config).build(config, ("a", "b"))
    assert model.get_config()["dtype"] == "mixed_bfloat16"
    assert (model.config.drop_path_rate, model.config.pooling) == (0.2, "gap")


REFUSED = {
    "another model": (dict(model="S/16"), "mlp_dim 128, not a S/16: omit --model, which the weights"),
    "another width": (dict(changes={"dim": 64}), "dim=32"),
    "an image size that patches do not divide": (dict(image_size=20), "20"),
    "a mean of two channels": (dict(mean=(0.1, 0.2)), "mean"),
    "no such file": (dict(init="none.safetensors"), "There is no file or folder none.safetensors"),
}


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("case", REFUSED)
def test_settings_that_contradict_the_weights(case, source):
    settings, words = REFUSED[case]
    with pytest.raises(InputError, match=re.escape(words)) as error:
        begin(TrainConfig(**{"init": str(source), **settings}))
    assert "\n" not in str(error.value)


@pytest.mark.same_on_every_backend
def test_the_name_of_the_model_may_be_given(source, monkeypatch):
    known = dict(dim=32, depth=2, num_heads=4, mlp_dim=128)
    monkeypatch.setitem(SIZES, "known", Size(known, image_size=16, channels=3))
    assert begin(TrainConfig(init=str(source), model="known/8")).name == "known/8"
    with pytest.raises(InputError, match=re.escape(f"{source} is a known/8, not a known/4: omit --model")):
        begin(TrainConfig(init=str(source), model="known/4"))


@pytest.mark.same_on_every_backend
def test_a_contradicting_model_leaves_nothing_behind(source, colours, tmp_path, capsys):
    words = ["train", "--data", colours, "--init", source, "--model", "S/16", "--out", tmp_path / "run"]
    assert main([str(word) for word in words]) == WRONG_USAGE
    assert "omit --model, which the weights decide" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


# A run as the source


def test_a_run_gives_its_head_to_the_same_classes(trained):
    config = TrainConfig(init=str(trained[0]))
    begun = begin(config)
    model = begun.build(config, tiny.CLASSES)
    assert not begun.has_new_head(model)
    old = load_run(trained[0]).model
    for ours, theirs in zip(model.get_weights(), old.get_weights(), strict=True):
        np.testing.assert_array_equal(ours, theirs)
    assert begun.preprocessing.numbers() == {"mean": [0.5], "std": [0.5]}
    assert begun.preprocessing.interpolation == "bilinear"


@pytest.mark.parametrize(
    ("classes", "changes"),
    [
        (("a", "b", "c"), {}),
        (tiny.CLASSES[::-1], {}),
        (("a", "b"), {}),
        (tiny.CLASSES, {"pooling": "gap"}),
        (("a", "b", "c"), {"pooling": "token"}),
    ],
    ids=str,
)
def test_a_run_gives_other_classes_a_new_head(classes, changes, trained):
    config = TrainConfig(init=str(trained[0]), changes=changes)
    begun = begin(config)
    model = begun.build(config, classes)
    assert begun.has_new_head(model)
    assert not any(array.any() for array in model.get_layer("head").get_weights())
    assert model.config.num_classes == len(classes)


@pytest.mark.same_on_every_backend
@pytest.mark.long
def test_a_run_of_another_size_continues(trained, images, tmp_path, capsys):
    """The same classes on larger images: the head stays, the positions are resized."""
    words = ["train", "--init", trained[0], "--data", images, "--image-size", "32", "--out", tmp_path / "run"]
    words += ["--recipe", "finetune", "--epochs", "1", "--batch-size", "8", *tiny.NO_XLA]
    assert main([str(word) for word in words]) == FINE
    run = load_run(tmp_path / "run")
    assert run.model.image_shape == (32, 32, 1)
    printed = capsys.readouterr().out
    assert "positions resized from 7x7 to 8x8 patches (bicubic)" in printed
    assert "head: fitted" not in printed
    assert run.config["weights"]["family"] == "keras_vit"
    assert run.config["preprocessing"]["mean"] == [0.5]


# The choice of the recipe


def image_set(each, parts=None, classes=3):
    labels = np.repeat(np.arange(classes), each)
    return ImageSet(
        images=[np.zeros((4, 4, 1), "uint8")] * len(labels),
        labels=labels,
        class_names=tuple(f"class {i}" for i in range(classes)),
        names=tuple(str(i) for i in range(len(labels))),
        source="drawn",
        parts=parts,
    )


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    ("each", "settings", "expected", "reason"),
    [
        (40, {}, "probe", "about 28 training images per class, the limit is 30"),
        (42, {}, "finetune", "about 30 training images per class, the limit is 30"),
        (38, dict(test_fraction=0.1), "finetune", "about 30 training images per class"),
        (400, dict(unlabeled="more"), "probe", "images without labels are used by this recipe"),
    ],
)
def test_the_number_of_images_chooses_the_recipe(each, settings, expected, reason, capsys):
    config = choose_recipe(TrainConfig(init="some", **settings), image_set(each))
    assert config.recipe == RECIPES[expected]
    assert config.changes == ({"drop_path_rate": 0.1} if expected == "finetune" else {})
    printed = capsys.readouterr().out
    assert printed.startswith(f"recipe: {expected} ({reason}")
    assert printed.endswith("; --recipe probe, finetune or lora chooses another\n")
    check_recipe(config)


@pytest.mark.same_on_every_backend
def test_only_the_training_part_counts_where_the_data_have_parts(capsys):
    parts = [*["train"] * 87, *["test"] * 33]
    assert choose_recipe(TrainConfig(init="some"), image_set(40, parts)).recipe == RECIPES["probe"]
    assert "about 29 training images per class" in capsys.readouterr().out


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("name", ["lab", "probe", "finetune", "lora"])
def test_a_recipe_that_was_given_stays(name, capsys):
    config = TrainConfig(init="some", recipe=RECIPES[name])
    assert choose_recipe(config, image_set(3)) == config
    assert capsys.readouterr().out == ""


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (dict(recipe=RECIPES["probe"]), "trains the head alone, which needs published weights: add --init"),
        (dict(recipe=RECIPES["lora"]), "trains additions to the kernels alone, which needs published"),
        (
            dict(init="some", recipe=RECIPES["finetune"], unlabeled="more"),
            "Images without labels are for --recipe probe",
        ),
    ],
)
def test_recipes_that_do_not_fit(settings, words):
    with pytest.raises(InputError, match=words):
        check_recipe(TrainConfig(**settings))


# --init auto


@pytest.mark.same_on_every_backend
def test_auto_takes_the_first_of_the_table_that_can_be_had(source, monkeypatch, capsys):
    rows = (
        Choice("none.safetensors", "mit", 1, 16, "cannot be had"),
        Choice(str(source), LICENCE, 1, 16, "can be had"),
    )
    monkeypatch.setattr(start, "PUBLISHED", rows)
    config = TrainConfig(init=AUTO, seed=3)
    assert choose_weights(config) == dataclasses.replace(config, init=str(source))
    assert capsys.readouterr().out.endswith(f"chosen: {source}, licence {LICENCE}\n")


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("init", [NONE, "some"])
def test_other_sources_are_not_chosen(init, capsys):
    config = TrainConfig(init=init)
    assert choose_weights(config) is config
    assert capsys.readouterr().out == ""


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    ("recipe", "changes"),
    [("default", {}), ("probe", {}), ("lora", {}), ("finetune", {"drop_path_rate": 0.1}), ("lab", {})],
)
def test_auto_without_any_weights_is_a_run_from_scratch(recipe, changes, monkeypatch, capsys):
    monkeypatch.setattr(start, "PUBLISHED", (Choice("none.safetensors", "mit", 1, 16, "cannot be had"),))
    given = TrainConfig(init=AUTO, recipe=RECIPES[recipe], changes=changes, unlabeled="more")
    config = choose_weights(given)
    assert config == TrainConfig(recipe=RECIPES["lab" if recipe == "lab" else "default"])
    check_recipe(config)
    assert (
        "None can be had, so the run begins from scratch. There is no file or folder none.safetensors"
        in capsys.readouterr().out
    )


@pytest.mark.same_on_every_backend
@pytest.mark.long
def test_auto_without_a_network_trains_from_scratch(images, tmp_path):
    script = (
        "import sys\n"
        "from tests.helpers import tiny\n"
        "from keras_vit.cli.main import main\n"
        "with tiny.size():\n"
        "    sys.exit(main(sys.argv[1:]))\n"
    )
    words = ["train", "--init", "auto", "--data", images, "--out", tmp_path / "run", "--model", tiny.MODEL]
    words += ["--epochs", "1", "--batch-size", "8", *tiny.NO_XLA]
    environment = {"HF_HUB_OFFLINE": "1", "HF_HOME": str(tmp_path / "empty"), "PYTHONPATH": str(ROOT)}
    ran = subprocess.run(
        [sys.executable, "-c", script, *map(str, words)],
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert ran.returncode == FINE, ran.stderr
    assert "None can be had, so the run begins from scratch." in ran.stdout
    assert "HF_HUB_OFFLINE is set" in ran.stdout
    assert "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k" in ran.stdout
    config = load_run(tmp_path / "run").config
    assert "weights" not in config
    assert (config["train"]["init"], config["train"]["model"]) == (NONE, tiny.MODEL)
    assert (config["recipe"]["epochs"], config["recipe"]["layer_decay"]) == (1, 1.0)
