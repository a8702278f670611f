import dataclasses
import shlex

import pytest

from keras_vit.cli.main import parse
from keras_vit.comparison.config import command_of, configure, options
from keras_vit.errors import InputError

pytestmark = pytest.mark.same_on_every_backend

GIVEN = {
    "nothing": {},
    "numbers and models": {"models": ("cnn", "vit"), "per_class": (5, "all"), "repeats": 1},
    "images": {"image_size": (28, 32), "channels": 3, "ordered": "a,b", "folds": 4, "group_by": "parent"},
    "recipe": {"epochs": 3, "batch_size": 16, "class_weights": "balanced", "flip": "none", "crop": 0.0},
    "weights": {"init": "vit.safetensors", "models": ("probe",)},
}


@pytest.mark.parametrize("case", GIVEN)
def test_settings_survive_the_command_line(case):
    config = configure("my images", GIVEN[case])
    command = parse(shlex.split(command_of(config))[1:])
    again = configure(command.sources[0], command.comparison)
    assert dataclasses.replace(again, out=None) == config


WRONG = {
    "twice the same model": (
        {"models": ("cnn", "cnn")},
        "--models has cnn more than once: omit all but one.",
    ),
    "twice the same number": ({"per_class": (5, 5)}, "--per-class has 5 more than once: omit all but one."),
    "a number that is none": ({"per_class": (0,)}, "per_class must be "),
    "no number": ({"per_class": ()}, "per_class must be "),
    "no repeat": ({"repeats": 0}, "repeats must be 1 or more. Received: repeats=0"),
    "no minute": ({"max_minutes": 0.0}, "max_minutes must be above 0.0. Received: max_minutes=0.0"),
    "no weights": (
        {"models": ("probe",)},
        "--models probe begins with published weights: add --init SOURCE.",
    ),
    "weights without a name": (
        {"init": "auto"},
        "A comparison may be continued, so its weights must be named",
    ),
    "one fold": ({"folds": 1}, "folds must be 2 or more"),
    "a test part beside folds": ({"folds": 3, "test_fraction": 0.3}, "With --folds 3, each run is tested on"),
}


@pytest.mark.parametrize("case", WRONG)
def test_wrong_settings_are_told_in_a_sentence(case):
    given, wanted = WRONG[case]
    with pytest.raises(InputError) as found:
        configure("images", given)
    assert str(found.value).startswith(wanted)


@pytest.mark.parametrize(
    ("data", "wanted"),
    [
        (None, "drawn"),
        ("a/steel.zip", "steel"),
        ("../x-sdd/", "x-sdd"),
        ("tfds:mnist", "tfds-mnist"),
        ("/", "images"),
    ],
)
def test_the_folder_has_the_name_of_the_data(data, wanted):
    assert configure(data, {}).folder.name == wanted


def test_models_are_those_that_can_be_made():
    assert configure(None, {}).names == ("cnn", "resnet", "vit", "defect-conv")
    assert configure(None, {"init": "x"}).names[-2:] == ("probe", "finetune")
    assert configure(None, {"init": "x", "models": ("probe", "cnn")}).names == ("cnn", "probe")


def test_options_of_train_that_a_comparison_decides_are_not_taken():
    assert not options().keys() & {"model", "several_labels", "fold", "seeds", "accept_risk", "devices"}
    assert options().keys() >= {"crop_boxes", "group_by", "image_size", "channels", "flip", "epochs", "init"}


def test_the_command_names_data_whose_name_looks_like_an_option():
    command = parse(shlex.split(command_of(configure("-my images", {})))[1:])
    assert command.sources == ("./-my images",)
