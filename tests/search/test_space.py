"""Every point of a space is valid and can be built. Freezing, writing and reading a space."""

import json
import subprocess
import sys

import keras_tuner
import pytest

from keras_vit.errors import InputError
from keras_vit.model.vit import ViT
from keras_vit.search.point import recipe_at, vit_arguments
from keras_vit.search.space import (
    NAMES,
    Choice,
    Range,
    SearchSpace,
    describe,
    freeze,
    space_from_dict,
)
from keras_vit.search.spaces import NAMED, SPACES

pytestmark = pytest.mark.same_on_every_backend

CASES = {
    "default": SearchSpace(),
    "frozen dim": SearchSpace(dim=64),
    "some dims": SearchSpace(dim=Choice((64, 32, 72))),
    "three heads": SearchSpace(num_heads=Choice((3, 6)), dim=Range(20, 100, default=50)),
    "linear only": SearchSpace(
        stem="linear", patch_size=Choice((2, 7)), num_heads=5, dim=Range(1, 40, default=9)
    ),
    "patches": SearchSpace(patch_size=Choice((2, 4)), mlp_ratio=3, depth=Choice((1, 3))),
    "heads with head_dim": SearchSpace(model="defect", stem="linear", dim=Range(60, 70, default=67)),
    "steps of 12 and of 8": SearchSpace(dim=Range(36, 144, default=72, step=12)),
    "epochs too": SearchSpace(epochs=Range(3, 9, default=9, step=3), mlp_ratio=Range(1, 4, default=2)),
    **SPACES,
}


def points(space, count):
    """Points that a random search of KerasTuner would try."""
    known = keras_tuner.HyperParameters()
    space.declare(known)
    for seed in range(count):
        drawn = keras_tuner.HyperParameters()
        for i, hyperparameter in enumerate(known.space):
            drawn.merge([hyperparameter])
            drawn.values[hyperparameter.name] = hyperparameter.random_sample(1000 * seed + i)
        yield space.declare(drawn)


@pytest.mark.parametrize("space", CASES.values(), ids=CASES)
def test_a_thousand_points_are_valid(space):
    widths = set()
    for values in points(space, 1000):
        own_width = values["model"] == "defect"
        assert own_width or values["dim"] % values["num_heads"] == 0
        if values["stem"] == "conv":
            assert values["dim"] % values["patch_size"] == 0
        assert values["dim"] in space.dim_values()
        assert recipe_at(values).epochs == values["epochs"]
        assert list(values) == ["model", *NAMES]
        widths.add(values["dim"])
    assert widths == set(space.dim_values())


@pytest.mark.long
@pytest.mark.parametrize("name", ["default", *SPACES])
def test_a_thousand_points_are_built(name):
    """All blocks are the same, so a point is built with one. Each depth and rate is built once in full."""
    space = CASES[name]
    shape = NAMED[name].image_shape if name in NAMED else (28, 28, 1)
    built: set = set()
    for values in points(space, 1000):
        arguments = vit_arguments(values)
        one_block = {**arguments, "depth": 1, "drop_path_rate": 0.0}
        parts = {
            tuple(sorted(one_block.items())): one_block,
            ("depth", arguments["depth"]): arguments,
            ("drop_path_rate", arguments["drop_path_rate"]): arguments,
        }
        for part in parts.keys() - built:
            model = ViT(image_shape=shape, num_classes=6, **parts[part])
            assert model.output_shape == (None, 6)
        built |= parts.keys()
    assert {part[0] for part in built if len(part) == 2} == {"depth", "drop_path_rate"}


def test_steps_of_floats_reach_the_end_and_are_round():
    space = SearchSpace()
    for name, expected in (
        ("drop_path_rate", [0.0, 0.05, 0.1, 0.15, 0.2]),
        ("augmentation", [0.0, 0.25, 0.5, 0.75, 1.0]),
    ):
        assert sorted({values[name] for values in points(space, 300)}) == expected


def test_the_default_point_is_the_first():
    values = SearchSpace().declare(keras_tuner.HyperParameters())
    assert (values["depth"], values["num_heads"], values["dim"], values["stem"]) == (6, 4, 64, "conv")
    recipe = recipe_at(values)
    assert (recipe.learning_rate, recipe.batch_size, recipe.epochs) == (2e-3, 32, 27)
    assert (recipe.augmentation.flip, recipe.augmentation.crop) == ("both", 0.1)


@pytest.mark.parametrize("space", CASES.values(), ids=CASES)
def test_a_tuner_begins_with_the_default_point(space):
    assert space.default_point() == space.declare(keras_tuner.HyperParameters())


def test_frozen_fields_are_not_searched():
    space = SearchSpace(depth=3, stem="conv")
    hp = keras_tuner.HyperParameters()
    space.declare(hp)
    assert [one.name for one in hp.space] == space.searched()
    assert "depth" not in space.searched()
    assert "dim" in space.searched()
    assert "epochs" not in space.searched()
    assert "epochs" in CASES["epochs too"].searched()


def test_a_point_has_the_frozen_fields_too():
    space = SearchSpace(depth=3, model="S", epochs=9)
    searched = {name: 1 for name in space.searched()}
    point = space.point({**searched, "tuner/epochs": 3})
    assert list(point) == ["model", *NAMES]
    assert (point["model"], point["depth"], point["epochs"], point["dim"]) == ("S", 3, 9, 1)


def test_whole_numbers_on_a_log_scale():
    space = SearchSpace(depth=Range(1, 64, default=4, log=True))
    depths = [values["depth"] for values in points(space, 1000)]
    assert all(isinstance(depth, int) and 1 <= depth <= 64 for depth in depths)
    assert 0.35 < sum(depth < 8 for depth in depths) / 1000 < 0.65  # 3 of 6 octaves lie below 8


# Freezing


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ({"depth": 6}, {"depth": 6}),
        ({"depth": "6", "stem": "conv"}, {"depth": 6, "stem": "conv"}),
        ({"learning_rate": "1e-3", "weight_decay": "0"}, {"learning_rate": 1e-3, "weight_decay": 0.0}),
        ({"epochs": "9", "dim": "48", "num_heads": "4"}, {"epochs": 9, "dim": 48, "num_heads": 4}),
        ({"patch_size": "7", "stem": "linear"}, {"patch_size": 7, "stem": "linear"}),
        ({}, {}),
    ],
)
def test_freeze(values, expected):
    space = SearchSpace()
    frozen = freeze(space, values)
    assert {name: getattr(frozen, name) for name in expected} == expected
    assert all(type(getattr(frozen, name)) is type(value) for name, value in expected.items())
    assert set(space.searched()) - set(frozen.searched()) == expected.keys() - {"epochs", "patch_size"}
    assert space == SearchSpace()


WRONG_TO_FREEZE = {
    "no such name": ({"depht": 6}, "There is no depht to freeze: the fields are depth, num_heads, dim"),
    "a budget": ({"max_parameters": "5"}, "There is no max_parameters to freeze"),
    "words": ({"depth": "six"}, "depth must be a whole number. Received: depth='six'"),
    "a share": ({"depth": "6.5"}, "depth must be a whole number. Received: depth=6.5"),
    "words for a rate": (
        {"learning_rate": "fast"},
        "learning_rate must be a number. Received: learning_rate",
    ),
    "nan": ({"learning_rate": "nan"}, "learning_rate must be a number. Received: learning_rate='nan'"),
    "NaN": ({"learning_rate": "NaN"}, "learning_rate must be above 0.0"),
    "no stem": ({"stem": "cnov"}, "stem must be one of 'linear', 'conv', 'conv-pool'. Received: stem='cnov'"),
    "0": ({"depth": "0"}, "depth must be 1 or more. Received: depth=0"),
    "a dim that heads do not divide": (
        {"dim": "20"},
        "num_heads must divide dim, unless head_dim is given. Received: num_heads=8, dim=20",
    ),
    "a patch size without a stem": (
        {"patch_size": "7"},
        "so patch_size must be 2, 4, 8, 16, ... Received: patch_size=7",
    ),
    "nothing": (
        {"depth": None},
        "depth must be a whole number, or a Range or a Choice of such values. Received: depth=None",
    ),
}


@pytest.mark.parametrize(("values", "message"), WRONG_TO_FREEZE.values(), ids=WRONG_TO_FREEZE)
def test_wrong_values_to_freeze(values, message):
    with pytest.raises(InputError) as caught:
        freeze(SearchSpace(), values)
    assert message in str(caught.value)


# Writing and reading


@pytest.mark.parametrize("space", CASES.values(), ids=CASES)
def test_a_space_is_written_as_json_and_read_back(space):
    described = json.loads(json.dumps(describe(space)))
    assert space_from_dict(described) == space
    assert describe(space_from_dict(described)) == described


def test_the_description_of_a_space():
    described = describe(SearchSpace(depth=3, max_parameters=10))
    assert described["depth"] == 3
    assert described["model"] == "defect-conv"
    assert described["num_heads"] == {"values": [4, 2, 8], "default": 4}
    assert described["drop_path_rate"] == {
        "low": 0.0,
        "high": 0.2,
        "default": 0.0,
        "step": 0.05,
        "log": False,
    }
    assert (described["max_parameters"], described["max_mult_adds"]) == (10, None)


def test_the_description_of_ranges():
    space = space_from_dict(
        {"depth": {"low": 1, "high": 3, "default": 2}, "batch_size": {"values": [8, 16], "default": 16}}
    )
    assert space == SearchSpace(depth=Range(1, 3, default=2), batch_size=Choice((16, 8)))


WRONG_TO_READ = {
    "a list": ([], "The space cannot be used: it holds no settings by name."),
    "no such field": ({"depht": 3}, "The space cannot be used: it has unknown settings: depht."),
    "half a range": ({"depth": {"low": 1}}, "depth is not a range or a choice: the setting high is missing."),
    "another key": (
        {"depth": {"low": 1, "high": 2, "default": 1, "by": 3}},
        "depth is not a range or a choice: it has unknown settings: by.",
    ),
    "no values": (
        {"depth": {"values": []}},
        "depth is not a range or a choice: values must hold at least one",
    ),
    "a default that is not a value": (
        {"depth": {"values": [1], "default": 2}},
        "default must be one of the values. Received: default=2, values=(1,)",
    ),
    "values of two kinds": ({"depth": {"values": [1, "2"]}}, "values must be of one type"),
    "a wrong range": ({"depth": {"low": 3, "high": 2, "default": 3}}, "low must be below high"),
    "a wrong value": ({"depth": [1, 2]}, "depth must be a whole number"),
}


@pytest.mark.parametrize(("described", "message"), WRONG_TO_READ.values(), ids=WRONG_TO_READ)
def test_descriptions_that_cannot_be_read(described, message):
    with pytest.raises(InputError) as caught:
        space_from_dict(described)
    assert message in str(caught.value)


def test_a_space_is_read_without_keras():
    script = (
        "import sys, keras_vit.search.spaces, keras_vit.search\n"
        "print(sorted({'keras', 'keras_tuner', 'tensorflow', 'jax', 'torch'} & set(sys.modules)))"
    )
    process = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, timeout=120)
    assert process.stdout.strip() == "[]", process.stderr


# Invalid spaces

WRONG = {
    "range": (lambda: Range(3, 3, default=3), "low must be below high"),
    "log from 0": (lambda: Range(0.0, 1.0, default=0.5, log=True), "low above 0 must be below high"),
    "default outside": (lambda: Range(1, 3, default=4), "default must be 1 or more and 3 at most"),
    "default between steps": (
        lambda: Range(0.0, 1.0, default=0.3, step=0.25),
        "default must be low plus a number of steps",
    ),
    "step 0": (lambda: Range(1, 3, default=1, step=0), "step must be above 0"),
    "half a step": (lambda: Range(1, 3, default=1, step=0.5), "has a whole default and step; write low=1.0"),
    "steps and log": (lambda: Range(1, 9, default=1, step=2, log=True), "step and log exclude each other"),
    "words": (lambda: Range("1", "3", default="2"), "low must be a number. Received: low='1'"),
    "no end": (
        lambda: Range(1.0, float("inf"), default=2.0),
        "high must be a finite number. Received: high=inf",
    ),
    "yes and no": (lambda: Range(False, True, default=True), "low must be a number. Received: low=False"),
    "no choice": (lambda: Choice(()), "at least one"),
    "twice": (lambda: Choice((1, 1)), "values must differ from each other. Received: values=(1, 1)"),
    "two kinds": (lambda: Choice((0, 0.5)), "values must be of one type"),
    "a word for values": (lambda: Choice("conv"), "values must be a list. Received: values='conv'"),
    "a number for values": (lambda: Choice(4), "values must be a list. Received: values=4"),
    "lists in a list": (lambda: Choice([[1], [2]]), "values must be of one type"),
    "no dim": (
        lambda: SearchSpace(dim=Range(9, 15, default=9)),
        "works with all choices of num_heads, patch_size and stem: widen it",
    ),
    "no dim at steps": (
        lambda: SearchSpace(dim=Range(36, 70, default=36, step=18)),
        "No dim in Range(low=36",
    ),
    "frozen dim": (lambda: SearchSpace(dim=20), "num_heads must divide dim"),
    "one of the dims": (lambda: SearchSpace(dim=Choice((64, 20))), "num_heads must divide dim"),
    "dim on a log scale": (
        lambda: SearchSpace(dim=Range(32, 64, default=32, log=True)),
        "dim has steps, and no log scale: omit log",
    ),
    "no such model": (lambda: SearchSpace(model="defect-conv/4"), "model must be one of 'Ti', 'S', 'B'"),
    "epochs": (lambda: SearchSpace(epochs=0), "epochs must be 1 or more"),
    "epochs from 0": (lambda: SearchSpace(epochs=Range(0, 3, default=1)), "epochs must be 1 or more"),
    "a list": (lambda: SearchSpace(depth=[2, 4]), "depth must be a whole number, or a Range or a Choice of"),
    "a word": (lambda: SearchSpace(depth="6"), "Received: depth='6'"),
    "yes": (lambda: SearchSpace(depth=True), "depth must be a whole number"),
    "no heads": (lambda: SearchSpace(num_heads=0), "num_heads must be 1 or more. Received: num_heads=0"),
    "no heads among the values": (
        lambda: SearchSpace(num_heads=Choice((2, 0))),
        "num_heads must be 1 or more",
    ),
    "a range of heads": (
        lambda: SearchSpace(num_heads=Range(2, 4, default=2)),
        "num_heads must be a whole number, or a Choice of such values",
    ),
    "half a block": (lambda: SearchSpace(depth=Range(1, 2.5, default=1)), "depth must be a whole number"),
    "no stem": (
        lambda: SearchSpace(stem=Choice(("conv", "cnov"))),
        "stem must be one of 'linear', 'conv', 'conv-pool'",
    ),
    "a number for a stem": (
        lambda: SearchSpace(stem=3),
        "stem must be one of 'linear', 'conv', 'conv-pool', or a Choice of such values. Received: stem=3",
    ),
    "patch 7, conv": (lambda: SearchSpace(patch_size=7, stem="conv"), "Received: patch_size=7"),
    "patch 1, conv": (
        lambda: SearchSpace(patch_size=1),
        "patch_size must be 2, 4, 8, 16, ... Received: patch_size=1",
    ),
    "one of the patches": (
        lambda: SearchSpace(patch_size=Choice((4, 7))),
        'stem="conv" halves the image at each layer, so patch_size must be 2, 4, 8, 16, ... '
        "Received: patch_size=7",
    ),
    "rate 1": (
        lambda: SearchSpace(drop_path_rate=1.0),
        "drop_path_rate must be 0.0 or more and 0.99 at most",
    ),
    "a rate in words": (
        lambda: SearchSpace(learning_rate="1e-3"),
        "learning_rate must be a number, or a Range",
    ),
    "rate 0": (lambda: SearchSpace(learning_rate=Choice((1e-3, 0.0))), "learning_rate must be above 0.0"),
    "a whole range of rates": (
        lambda: SearchSpace(drop_path_rate=Range(0, 0.5, default=0), augmentation=Range(0, 1, default=0)),
        "augmentation=Range(0, 1, ...) would be whole numbers only: write 0.0 and 1.0.",
    ),
    "strength": (lambda: SearchSpace(augmentation=1.5), "augmentation must be 0.0 or more and 1.0 at most"),
    "no parameters": (lambda: SearchSpace(max_parameters=0), "max_parameters must be 1 or more"),
    "a budget in words": (lambda: SearchSpace(max_mult_adds="1e6"), "max_mult_adds must be a whole number"),
    "a budget with a point": (lambda: SearchSpace(max_parameters=1e6), "max_parameters must be a whole"),
}


@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG)
def test_a_space_without_points_is_refused(make, message):
    with pytest.raises(InputError) as caught:
        make()
    assert message in str(caught.value)
