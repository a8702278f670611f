"""The cost of a point equals the cost of its model, and is counted without building it."""

import dataclasses

import pytest

from keras_vit.model.config import SIZES
from keras_vit.model.summary import summary
from keras_vit.model.vit import ViT
from keras_vit.search.point import count_mult_adds, count_parameters, recipe_at, vit_arguments
from keras_vit.search.space import Range, SearchSpace
from keras_vit.training.recipe import RECIPES, Recipe

REFERENCE = dict(
    model="defect-conv",
    depth=6,
    num_heads=4,
    dim=64,
    patch_size=4,
    mlp_ratio=2,
    stem="conv",
    drop_path_rate=0.0,
    learning_rate=1e-3,
    weight_decay=0.05,
    batch_size=32,
    augmentation=0.5,
    epochs=27,
)
GRAY, TALL = (28, 28, 1), (64, 32, 3)
POINTS = {
    "reference": ({}, GRAY),
    "one block": (dict(depth=1), GRAY),
    "linear": (dict(stem="linear", depth=2), GRAY),
    "patch 2": (dict(patch_size=2, depth=1), GRAY),
    "patch 7": (dict(patch_size=7, stem="linear", depth=1, num_heads=8), GRAY),
    "not square": (dict(patch_size=8, depth=2, dim=48, num_heads=3, mlp_ratio=3), TALL),
    "patch 16": (dict(patch_size=16, depth=1, dim=32), TALL),
    "patch 16, linear": (dict(patch_size=16, stem="linear", depth=1, dim=36), TALL),
    "defect": (dict(model="defect", stem="linear", depth=1, dim=30), GRAY),
    "defect with a stem": (dict(model="defect", depth=1, num_heads=2), GRAY),
    **{
        name: (dict(model=name, depth=1, num_heads=3, dim=48, patch_size=16), TALL)
        for name in SIZES
        if not name.startswith("defect")
    },
}


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(("changes", "shape"), POINTS.values(), ids=POINTS)
def test_the_cost_is_that_of_the_built_model(changes, shape):
    values = {**REFERENCE, **changes}
    model = ViT(image_shape=shape, num_classes=6, **vit_arguments(values))
    totals = summary(model).totals
    assert count_parameters(values, shape, 6) == totals.parameters == model.count_params()
    assert count_mult_adds(values, shape, 6) == totals.mult_adds_per_image


SAME = {
    "defect-conv/4": ({}, GRAY, 6, 221_846),
    "defect/4": (dict(model="defect", stem="linear"), GRAY, 6, 508_166),
    "Ti/16": (
        dict(model="Ti", stem="linear", depth=12, num_heads=3, dim=192, mlp_ratio=4, patch_size=16),
        (224, 224, 3),
        1000,
        5_717_416,
    ),
    "S/16": (
        dict(model="S", stem="linear", depth=12, num_heads=6, dim=384, mlp_ratio=4, patch_size=16),
        (224, 224, 3),
        1000,
        22_050_664,
    ),
}


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    ("name", "changes", "shape", "classes", "parameters"), [(k, *v) for k, v in SAME.items()]
)
def test_a_point_with_the_numbers_of_a_size_is_that_size(name, changes, shape, classes, parameters):
    values = {**REFERENCE, **changes}
    at_point = ViT(image_shape=shape, num_classes=classes, **vit_arguments(values))
    named = ViT.from_variant(name, image_shape=shape, num_classes=classes)
    assert at_point.get_config() == named.get_config()
    assert count_parameters(values, shape, classes) == parameters


def test_the_recipe_of_a_point():
    base = dataclasses.replace(RECIPES["lab"], precision="mixed_bfloat16", epochs=99)
    recipe = recipe_at({**REFERENCE, "augmentation": 0.25}, base)
    assert (recipe.learning_rate, recipe.weight_decay, recipe.batch_size, recipe.epochs) == (
        1e-3,
        0.05,
        32,
        27,
    )
    assert (recipe.augmentation.flip, recipe.augmentation.crop) == ("both", 0.05)
    assert (recipe.optimizer, recipe.precision) == ("adam", "mixed_bfloat16")
    nothing = recipe_at({**REFERENCE, "augmentation": 0.0})
    assert nothing.augmentation == Recipe().augmentation


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    ("budgets", "expected"),
    [
        ({}, None),
        (dict(max_parameters=221_846, max_mult_adds=20_000_000), None),
        (
            dict(max_parameters=221_845),
            "221,846 parameters, more than the 221,845 parameters of the budget",
        ),
        (dict(max_mult_adds=12_000_000), "mult-adds, more than the 12,000,000 mult-adds of the budget"),
        (dict(max_parameters=1, max_mult_adds=1), "221,846 parameters, more than the 1 parameters"),
    ],
)
def test_points_over_a_budget(budgets, expected):
    space = SearchSpace(depth=Range(1, 9, default=3), **budgets)
    found = space.excess({**REFERENCE, "tuner/epochs": 3}, GRAY, 6)
    assert (found is None) if expected is None else (expected in found)
