"""A file of settings: files that --config reads, and files that it refuses with one sentence."""

import dataclasses
import json
from pathlib import Path

import pytest

from keras_vit.cli.main import main, parse
from keras_vit.errors import InputError
from keras_vit.process.exit_codes import WRONG_USAGE
from keras_vit.training.config import WHERE, TrainConfig, to_dict
from keras_vit.training.config_file import read_config
from keras_vit.training.recipe import RECIPES
from tests.training.test_config import CONFIGS

pytestmark = pytest.mark.same_on_every_backend


@pytest.fixture
def file(tmp_path):
    def write(content) -> Path:
        path = tmp_path / "best.json"
        path.write_text(content if isinstance(content, str) else json.dumps(content))
        return path

    return write


def without_place(config):
    return {name: value for name, value in vars(config).items() if name not in WHERE}


@pytest.mark.parametrize("config", CONFIGS.values(), ids=CONFIGS.keys())
@pytest.mark.parametrize("wrap", ["alone", "of a run", "with what was found"])
def test_the_result_of_to_dict_can_be_read(config, wrap, file):
    plain = to_dict(config)
    if wrap == "of a run":
        plain = {"model": config.model, "versions": {}, "train": plain}
    if wrap == "with what was found":
        plain = {"found": {"trial": "0003", "validation_accuracy": 0.9}, **plain}
    assert without_place(read_config(file(plain))) == without_place(config)


def test_omitted_settings_have_their_defaults(file):
    found = read_config(file({"model": "S/16", "recipe": {"epochs": 3, "augmentation": {"crop": 0}}}))
    assert found.model == "S/16"
    assert (found.recipe.epochs, found.recipe.augmentation.crop) == (3, 0.0)
    assert found.recipe.augmentation.flip == RECIPES["default"].augmentation.flip
    assert read_config(file({})) == TrainConfig()


WRONG = {
    "no JSON": ("{", "best.json is not JSON (Expecting property name"),
    "a list": ([], "best.json cannot be used: it holds no settings by name."),
    "a word": ('"best"', "it holds no settings by name"),
    "an unknown key": ({"modle": "S/16"}, "it has unknown settings: modle."),
    "a key for people": ({"trial": "0003"}, "it has unknown settings: trial."),
    "where a run is made": (
        {"out": "runs/best", "devices": 2},
        "settings that belong on the command line: devices, out.",
    ),
    "an unknown key of the recipe": ({"recipe": {"rate": 1.0}}, "it has unknown settings: rate."),
    "no recipe": ({"recipe": "lab"}, "recipe must be a JSON object. Received: recipe='lab'"),
    "no changes": ({"changes": None}, "changes must be a JSON object. Received: changes=None"),
    "many epochs": (
        {"recipe": {"epochs": "many"}},
        "epochs must be a whole number. Received: epochs='many'",
    ),
    "half an epoch": ({"recipe": {"epochs": 1.5}}, "epochs must be a whole number. Received: epochs=1.5"),
    "true epochs": ({"recipe": {"epochs": True}}, "epochs must be a whole number. Received: epochs=True"),
    "a word for a rate": ({"recipe": {"learning_rate": "1e-3"}}, "learning_rate must be a number."),
    "a rate out of range": ({"recipe": {"learning_rate": 0}}, "learning_rate must be above 0.0"),
    "rate NaN": ('{"recipe": {"learning_rate": NaN}}', "learning_rate must be above 0.0"),
    "null for a number": ({"seed": None}, "seed must be a whole number. Received: seed=None"),
    "a number for text": ({"data": 3}, "data must be text or null. Received: data=3"),
    "a list for text": ({"model": ["S/16"]}, "model must be text or null. Received: model=['S/16']"),
    "1 for true": ({"merge_validation": 1}, "merge_validation must be true or false"),
    "no such aspect": ({"aspect": "squash"}, "aspect must be one of 'stretch', 'crop', 'pad'"),
    "channels": ({"channels": 33}, "channels must be 1 or more and 32 at most. Received: channels=33"),
    "channels 1.0": ({"channels": 1.0}, "channels must be 'auto' or a whole number or null"),
    "three sides": (
        {"image_size": [1, 2, 3]},
        "image_size must be a whole number or a list of 2 whole numbers or 'auto' or null",
    ),
    "words for sides": ({"image_size": ["28", 28]}, "image_size must be"),
    "no such model": ({"model": "defect-conv"}, "such as B/16"),
    "heads": (
        {"changes": {"dim": 30}},
        "unless head_dim is given. Received: num_heads=4, dim=30 for defect-pool/8",
    ),
}


@pytest.mark.parametrize(("content", "message"), WRONG.values(), ids=WRONG)
def test_wrong_files(content, message, file, capsys):
    path = file(content)
    with pytest.raises(InputError) as caught:
        read_config(path)
    assert str(caught.value).startswith(str(path))
    assert message in str(caught.value)
    assert main(["train", "--config", str(path)]) == WRONG_USAGE
    assert capsys.readouterr().err == f"keras-vit: {caught.value}\n"


def test_paths_that_cannot_be_read(tmp_path, capsys):
    for path, message in (
        (
            tmp_path / "nosuch.json",
            "There is no file {}: give the best.json of a search or the config.json of",
        ),
        (tmp_path, "{} is a folder: give the best.json"),
        (tmp_path / ("x" * 300), "cannot be read (File name too long)"),
    ):
        assert main(["train", f"--config={path}"]) == WRONG_USAGE
        assert message.format(path) in capsys.readouterr().err
    (tmp_path / "bytes.json").write_bytes(b"\xff\xfe")
    assert main(["train", "--config", str(tmp_path / "bytes.json")]) == WRONG_USAGE
    assert "bytes.json is not JSON" in capsys.readouterr().err


FILE = {
    "model": "defect-conv/2",
    "changes": {"depth": 8, "drop_path_rate": 0.1},
    "recipe": {"epochs": 9, "batch_size": 64},
    "seed": 4,
}


def test_options_override_the_file(file):
    path = str(file(FILE))
    plain = parse(["train", "--config", path]).run
    assert plain == read_config(Path(path))
    assert (plain.model, plain.changes) == ("defect-conv/2", dict(depth=8, drop_path_rate=0.1))
    assert (plain.recipe.epochs, plain.recipe.batch_size, plain.seed) == (9, 64, 4)

    command = [
        "train",
        "--epochs",
        "3",
        "--config",
        path,
        "--depth",
        "None",
        "--dim",
        "32",
        "--out",
        "runs/x",
    ]
    changed = parse(command).run
    assert changed.changes == dict(dim=32, drop_path_rate=0.1)
    assert (changed.recipe.epochs, changed.recipe.batch_size, changed.seed) == (3, 64, 4)


@pytest.mark.parametrize("first", ["--config", "--recipe"])
def test_a_recipe_replaces_that_of_the_file(first, file):
    options = {"--config": str(file(FILE)), "--recipe": "lab"}
    second = next(name for name in options if name != first)
    found = parse(["train", first, options[first], second, options[second], "--epochs", "5"]).run
    assert found.recipe == dataclasses.replace(RECIPES["lab"], epochs=5)
    assert (found.model, found.changes["depth"], found.seed) == ("defect-conv/2", 8, 4)


def test_of_several_files_the_last_counts(file, tmp_path):
    (tmp_path / "other.json").write_text('{"seed": 5}')
    command = ["train", "--config", str(file(FILE)), "--config", str(tmp_path / "other.json")]
    assert parse(command).run == TrainConfig(seed=5)


def test_a_file_of_version_0_1_0(file):
    """The file has all six changes. In it, null means the value of the size."""
    changes = dict(depth=1, num_heads=2, dim=16, mlp_dim=None, stem=None, drop_path_rate=None)
    assert read_config(file({"changes": changes})).changes == dict(dim=16, depth=1, num_heads=2)
    # Later files hold only the changes, and null may be one.
    assert read_config(file({"changes": dict(mlp_dim=None)})).changes == dict(mlp_dim=None)


@pytest.mark.parametrize("name", ["evaluate", "predict", "summary", "inspect"])
def test_other_subcommands_read_no_settings(name, capsys):
    assert main([name, "x", "--config", "nosuch.json"]) == WRONG_USAGE
    assert "--config" in capsys.readouterr().err
