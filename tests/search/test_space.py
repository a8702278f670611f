"""Every point of a space can be built, whatever is frozen in it."""

import keras_tuner
import pytest

from keras_vit.errors import InputError
from keras_vit.search.space import (
    Choice,
    Range,
    SearchSpace,
    count_parameters,
    recipe_at,
    vit_arguments,
)
from keras_vit.vit import ViT

pytestmark = pytest.mark.same_on_every_backend

SPACES = {
    "default": SearchSpace(),
    "frozen dim": SearchSpace(dim=64),
    "three heads": SearchSpace(num_heads=Choice((3, 6)), dim=Range(20, 100, default=50)),
    "linear only": SearchSpace(
        stem="linear", patch_size=Choice((2, 7)), num_heads=5, dim=Range(1, 40, default=9)
    ),
    "patches": SearchSpace(patch_size=Choice((2, 4)), mlp_ratio=3, depth=Choice((1, 3))),
}


def points(space, count):
    """What a random search of KerasTuner would try."""
    known = keras_tuner.HyperParameters()
    space.declare(known)
    for seed in range(count):
        drawn = keras_tuner.HyperParameters()
        for i, hyperparameter in enumerate(known.space):
            drawn.merge([hyperparameter])
            drawn.values[hyperparameter.name] = hyperparameter.random_sample(1000 * seed + i)
        yield space.declare(drawn)


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_a_thousand_points_are_valid(space):
    widths = set()
    for values in points(space, 1000):
        assert values["dim"] % values["num_heads"] == 0
        if values["stem"] == "conv":
            assert values["dim"] % values["patch_size"] == 0
        assert values["dim"] in space.dim_values()
        recipe_at(values, space.epochs)
        widths.add(values["dim"])
    assert widths == set(space.dim_values())


@pytest.mark.parametrize("space", SPACES.values(), ids=SPACES)
def test_points_build_with_the_parameters_that_were_counted(space):
    for values in points(space, 4):
        model = ViT(image_shape=(28, 28, 1), num_classes=6, **vit_arguments(values))
        assert model.count_params() == count_parameters(values, (28, 28, 1), 6)


def test_the_default_point_is_the_first():
    values = SearchSpace().declare(keras_tuner.HyperParameters())
    assert (values["depth"], values["num_heads"], values["dim"], values["stem"]) == (6, 4, 64, "conv")
    recipe = recipe_at(values, 27)
    assert (recipe.learning_rate, recipe.batch_size, recipe.epochs) == (2e-3, 32, 27)
    assert (recipe.augmentation.flip, recipe.augmentation.crop) == ("both", 0.1)


def test_only_what_is_not_frozen_is_searched():
    space = SearchSpace(depth=3, stem="conv")
    hp = keras_tuner.HyperParameters()
    space.declare(hp)
    assert [one.name for one in hp.space] == space.searched()
    assert "depth" not in space.searched()
    assert "dim" in space.searched()


def test_whole_numbers_on_a_log_scale():
    space = SearchSpace(depth=Range(1, 64, default=4, log=True))
    depths = [values["depth"] for values in points(space, 1000)]
    assert all(isinstance(depth, int) and 1 <= depth <= 64 for depth in depths)
    assert 0.35 < sum(depth < 8 for depth in depths) / 1000 < 0.65  # of whole octaves 3 of 6 lie below 8


WRONG = {
    "range": (lambda: Range(3, 3, default=3), "low must be below high"),
    "log from 0": (lambda: Range(0.0, 1.0, default=0.5, log=True), "low above 0 must be below high"),
    "default outside": (lambda: Range(1, 3, default=4), "default must be 1 or more and 3 at most"),
    "no choice": (lambda: Choice(()), "at least one"),
    "twice": (lambda: Choice((1, 1)), "different ones"),
    "no dim": (lambda: SearchSpace(dim=Range(9, 15, default=9)), "No dim in .* is a multiple of 8"),
    "frozen dim": (lambda: SearchSpace(dim=20), "dim=20 is no multiple of 8"),
    "epochs": (lambda: SearchSpace(epochs=0), "epochs must be 1 or more"),
}


@pytest.mark.parametrize(("make", "message"), WRONG.values(), ids=WRONG)
def test_a_space_without_points_is_refused(make, message):
    with pytest.raises(InputError, match=message):
        make()
