"""What a recipe refuses, and the recipes that begin with published weights."""

import pytest

from keras_vit.errors import InputError
from keras_vit.training.recipe import RECIPES, Recipe

pytestmark = pytest.mark.same_on_every_backend


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        (dict(layer_decay=0.0), "layer_decay must be above 0.0 and 1.0 at most. Received"),
        (dict(layer_decay=1.1), "layer_decay must be above 0.0 and 1.0 at most. Received"),
        (dict(unfrozen_blocks=-1), "unfrozen_blocks must be 0 or more. Received"),
        (dict(unfreeze_every=0.0), "unfreeze_every must be above 0.0. Received"),
        (dict(tune="none"), "tune must be one of 'all', 'head', 'lora'. Received"),
        (dict(lora_rank=0), "lora_rank must be 1 or more. Received"),
        (dict(lora_on=()), "lora_on must be a list of 'qkv', 'projection', 'mlp'. Received"),
        (dict(lora_on=("qkv", "norm")), "lora_on must be a list of 'qkv', 'projection', 'mlp'. Received"),
        (dict(lora_on=("qkv", "qkv")), "lora_on must name each kernel once. Received"),
        (dict(tune="lora", unfrozen_blocks=1), 'unfrozen_blocks is for tune="all": with tune="lora" every'),
        (dict(tune="head", unfreeze_every=1.0), 'unfreeze_every is for tune="all": with tune="head" every'),
    ],
)
def test_settings_that_a_recipe_refuses(settings, message):
    with pytest.raises(InputError, match=message):
        Recipe(**settings)


def test_recipes_that_begin_with_published_weights():
    """The figures of the sketch that reached 100 % on NEU."""
    recipe = RECIPES["finetune"]
    assert (recipe.optimizer, recipe.learning_rate, recipe.layer_decay) == ("adamw", 5e-4, 0.75)
    assert (recipe.weight_decay, recipe.clip_norm, recipe.label_smoothing) == (0.05, 1.0, 0.1)
    assert (recipe.epochs, recipe.batch_size, recipe.warmup_epochs) == (6, 32, 0.6)
    assert (RECIPES["probe"].tune, RECIPES["lora"].tune) == ("head", "lora")
    assert RECIPES["lora"].lora_on == ("qkv", "projection")
    for name in ("lab", "default"):  # as they were
        assert (RECIPES[name].tune, RECIPES[name].layer_decay, RECIPES[name].unfreeze_every) == (
            "all",
            1.0,
            None,
        )
