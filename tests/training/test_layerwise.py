"""Rates by layer, frozen weights and gradual unfreezing, compared with torch's AdamW and timm's figures."""

import math

import keras
import numpy as np
import pytest

from keras_vit.errors import InputError
from keras_vit.model.vit import ViT
from keras_vit.training.checkpoint import restore_checkpoint, save_checkpoint
from keras_vit.training.layerwise import LayerwiseAdam, LayerwiseSGD, Share, shares_of
from keras_vit.training.optimizer import compile_model, make_optimizer
from keras_vit.training.recipe import Recipe
from keras_vit.training.unfreezing import check_tuning, choose_trained
from tests.helpers.checks import to_numpy

BACKEND = keras.backend.backend()
STEPS = 10  # per epoch
SMALL = dict(image_shape=(8, 8, 1), num_classes=3, patch_size=4, dim=8, depth=2, num_heads=2)
# Compiling takes longer than these models run.
PLAIN = dict(
    schedule="constant", warmup_epochs=0.0, clip_norm=None, xla=False if BACKEND == "tensorflow" else None
)


def small_vit(**changes):
    return ViT(**{**SMALL, **changes})


def batch(model, size=8):
    rng = np.random.default_rng(0)
    images = rng.uniform(-1, 1, (size, *model.image_shape)).astype("float32")
    return images, np.eye(3, dtype="float32")[rng.integers(0, 3, size)]


def values(model):
    return {weight.path: value for weight, value in zip(model.weights, model.get_weights(), strict=True)}


def changed(before, after):
    """The layers of which a weight has changed."""
    return {path.partition("/")[0] for path in before if not np.array_equal(before[path], after[path])}


# Rates by layer.

# `param_groups_layer_decay(model, 0.05, layer_decay=0.75)` of timm 1.0.31 for vit_tiny_patch16_224:
# `lr_scale` of patch_embed, cls_token and pos_embed; of each block; of head. `norm` has that of block 11.
TIMM = [0.023757, 0.031676, 0.042235, 0.056314, 0.075085, 0.100113, 0.133484,
        0.177979, 0.237305, 0.316406, 0.421875, 0.5625, 0.75, 1.0]  # fmt: skip


@pytest.mark.same_on_every_backend
def test_rates_of_twelve_blocks_are_those_of_timm():
    model = small_vit(depth=12, num_registers=1, pre_norm=True, head_hidden_dim=8)
    recipe = Recipe(layer_decay=0.75, weight_decay=0.05)
    shares = dict(zip(values_paths(model), shares_of(model, recipe, STEPS), strict=True))
    below = ("patch_embed", "add_cls", "position_embedding", "pre_norm")
    expected = {
        **dict.fromkeys(below, TIMM[0]),
        **{f"block_{i}": TIMM[i + 1] for i in range(12)},
        "norm": TIMM[12],
        "head_hidden": TIMM[13],
        "head": TIMM[13],
    }
    assert {path.partition("/")[0] for path in shares} == set(expected)
    for path, share in shares.items():
        assert share.rate == pytest.approx(expected[path.partition("/")[0]], abs=1e-6), path
        assert share.weight_decay == (0.05 if path.endswith("/kernel") else 0.0), path
        assert share.first_step == 0, path


def values_paths(model):
    return [variable.path for variable in model.trainable_variables]


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    ("changes", "top"),
    [
        (dict(pooling="map"), {"pool", "head"}),
        (dict(pooling="gap", final_norm="pooled"), {"norm", "head"}),
        (dict(pooling="token+gap"), {"head"}),
        (dict(pooling="token", final_norm="pooled"), {"head"}),  # one token: the norm is one of tokens
    ],
)
def test_layers_with_the_rate_of_the_head(changes, top):
    model = small_vit(**changes)
    shares = zip(values_paths(model), shares_of(model, Recipe(layer_decay=0.5), STEPS), strict=True)
    assert {path.partition("/")[0] for path, share in shares if share.rate == 1.0} == top


@pytest.mark.parametrize(("layer_decay", "unfreeze_every"), [(0.75, None), (0.75, 0.45), (1.0, 0.45)])
def test_twenty_steps_equal_those_of_torch(layer_decay, unfreeze_every):
    torch = pytest.importorskip("torch")
    model = small_vit(depth=1, mlp_dim=8)  # few shapes: JAX compiles each operation for each
    recipe = Recipe(
        layer_decay=layer_decay,
        unfreeze_every=unfreeze_every,
        learning_rate=0.02,
        warmup_epochs=0.3,
        epochs=2,
        weight_decay=0.1,
        clip_norm=1.0,
    )
    optimizer = make_optimizer(model, recipe, STEPS)
    optimizer.build(model.trainable_variables)
    assert isinstance(optimizer, LayerwiseAdam)
    rng = np.random.default_rng(0)

    level = {"block_0": 1, "norm": 1, "head": 2}
    below = [2 - level.get(path.partition("/")[0], 0) for path in values_paths(model)]
    theirs = [torch.nn.Parameter(torch.tensor(to_numpy(v))) for v in model.trainable_variables]
    groups = [
        {"params": [parameter], "weight_decay": 0.1 if path.endswith("/kernel") else 0.0}
        for parameter, path in zip(theirs, values_paths(model), strict=True)
    ]
    reference = torch.optim.AdamW(groups)
    for step in range(20):
        rate = 0.02 * step / 3 if step < 3 else 0.01 * (1 + math.cos(math.pi * (step - 3) / 17))
        gradients = [rng.normal(size=parameter.shape).astype("float32") for parameter in theirs]
        for group, parameter, gradient, steps in zip(
            reference.param_groups, theirs, gradients, below, strict=True
        ):
            begun = unfreeze_every is None or step >= round(unfreeze_every * STEPS * steps)
            group["lr"] = rate * layer_decay**steps * begun
            # Keras adds its 1e-7 before the correction of the second moment, torch after it.
            group["eps"] = 1e-7 / math.sqrt(1 - 0.999 ** (step + 1))
            parameter.grad = torch.tensor(gradient)
        torch.nn.utils.clip_grad_norm_(theirs, 1.0)
        reference.step()
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in gradients], model.trainable_variables)
    for variable, parameter in zip(model.trainable_variables, theirs, strict=True):
        np.testing.assert_allclose(
            to_numpy(variable), parameter.detach().numpy(), atol=3e-6, err_msg=variable.path
        )


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
def test_equal_shares_are_the_optimizer_of_keras(kind):
    rng = np.random.default_rng(0)
    weights: list = []
    gradients: list = []
    for layer_decay in (1.0, 1.0 - 1e-9):
        keras.utils.set_random_seed(0)
        model = small_vit(depth=1, mlp_dim=8)
        recipe = Recipe(**PLAIN, optimizer=kind, learning_rate=0.01, layer_decay=layer_decay)
        optimizer = make_optimizer(model, recipe, STEPS)
        assert type(optimizer).__name__.startswith("Layerwise") == (layer_decay < 1)
        optimizer.build(model.trainable_variables)
        gradients = gradients or [rng.normal(size=v.shape) for v in model.trainable_variables]
        for step in range(3):
            given = [keras.ops.convert_to_tensor(g * (step - 0.5), "float32") for g in gradients]
            optimizer.apply(given, model.trainable_variables)
        weights.append(model.get_weights())
    for plain, layerwise in zip(*weights, strict=True):
        np.testing.assert_allclose(layerwise, plain, atol=1e-6)


def small_model():
    return keras.Sequential(
        [keras.Input((4,)), keras.layers.Dense(5, name="low"), keras.layers.Dense(3, name="high")]
    )


SHARES = [Share(0.5, 0.1, 2), Share(0.5, 0.0, 2), Share(1.0, 0.1), Share()]


def data_of_small_model():
    rng = np.random.default_rng(0)
    return rng.normal(size=(8, 4)).astype("float32"), rng.normal(size=(8, 3)).astype("float32")


@pytest.mark.parametrize(
    "make",
    [
        lambda: LayerwiseAdam(
            keras.optimizers.schedules.CosineDecay(0.01, 10), shares=SHARES, use_ema=True, global_clipnorm=1.0
        ),
        lambda: LayerwiseSGD(0.01, shares=SHARES, momentum=0.9, nesterov=True),
        lambda: keras.optimizers.LossScaleOptimizer(LayerwiseAdam(0.01, shares=SHARES)),
    ],
)
def test_a_saved_model_continues(make, tmp_path):
    model = small_model()
    model.compile(make(), "mse")
    x, y = data_of_small_model()
    model.train_on_batch(x, y)  # the lower layer has not begun
    model.save(tmp_path / "model.keras")
    loaded = keras.models.load_model(tmp_path / "model.keras")
    assert type(loaded.optimizer) is type(model.optimizer)
    before = loaded.get_weights()
    for _ in range(3):
        model.train_on_batch(x, y)
        loaded.train_on_batch(x, y)
    for old, ours, theirs in zip(before, model.get_weights(), loaded.get_weights(), strict=True):
        assert np.abs(theirs - old).max() > 1e-4
        np.testing.assert_allclose(theirs, ours, atol=1e-6)


def test_loss_scaling_changes_nothing():
    found = []
    for scaled in (False, True):
        keras.utils.set_random_seed(0)
        model = small_model()
        optimizer = LayerwiseAdam(0.01, shares=SHARES)
        model.compile(keras.optimizers.LossScaleOptimizer(optimizer) if scaled else optimizer, "mse")
        for _ in range(5):
            model.train_on_batch(*data_of_small_model())
        found.append(model.get_weights())
    for plain, scaled in zip(*found, strict=True):
        np.testing.assert_allclose(scaled, plain, atol=1e-5)


def test_accumulated_gradients():
    """Two steps that are accumulated are one step with the mean of the gradients."""
    shares = [Share(0.5, 0.1), Share(0.5), Share(1.0, 0.1), Share()]
    model, optimizer = small_model(), LayerwiseSGD(0.1, shares=shares, gradient_accumulation_steps=2)
    optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(0)
    before = [to_numpy(v) for v in model.trainable_variables]
    gradients = [[rng.normal(size=v.shape).astype("float32") for v in before] for _ in range(2)]
    for one in gradients:
        optimizer.apply([keras.ops.convert_to_tensor(g) for g in one], model.trainable_variables)
    for variable, old, share, g, h in zip(model.trainable_variables, before, shares, *gradients, strict=True):
        expected = old * (1 - 0.1 * share.rate * share.weight_decay) - 0.1 * share.rate * (g + h) / 2
        np.testing.assert_allclose(to_numpy(variable), expected, atol=1e-6)


def test_the_moving_average_is_that_of_the_weights():
    model = small_model()
    model.compile(LayerwiseSGD(0.1, shares=SHARES, use_ema=True, ema_momentum=0.8), "mse")
    average = None
    for _ in range(4):
        model.train_on_batch(*data_of_small_model())
        weights = model.get_weights()
        average = (
            weights if average is None else [0.8 * a + 0.2 * w for a, w in zip(average, weights, strict=True)]
        )
    model.optimizer.finalize_variable_values(model.trainable_variables)
    for found, expected in zip(model.get_weights(), average, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-6)


@pytest.mark.same_on_every_backend
def test_a_share_for_each_weight():
    model = small_model()
    optimizer = LayerwiseAdam(0.1, shares=SHARES[:3])
    with pytest.raises(ValueError, match=r"one share for each weight that is trained. Received: 3 shares, 4"):
        optimizer.build(model.trainable_variables)


# Frozen weights.

BELOW = {"patch_embed", "add_cls", "position_embedding"}
FROZEN = {
    "nothing": ({}, {}, {*BELOW, "block_0", "block_1", "norm", "head"}),
    "all but the head": (dict(unfrozen_blocks=0), {}, {"head"}),
    "all but one block": (dict(unfrozen_blocks=1), {}, {"block_1", "norm", "head"}),
    "the embeddings": (dict(unfrozen_blocks=2), {}, {"block_0", "block_1", "norm", "head"}),
    "a conv stem": (dict(unfrozen_blocks=2), dict(stem="conv"), {"block_0", "block_1", "norm", "head"}),
    "all but pool and head": (dict(unfrozen_blocks=0), dict(pooling="map"), {"pool", "head"}),
    "below a pooled norm": (
        dict(unfrozen_blocks=0),
        dict(pooling="gap", final_norm="pooled", head_hidden_dim=8),
        {"norm", "head_hidden", "head"},
    ),
    "what the head sees": (dict(tune="head"), dict(pooling="map"), {"head"}),
    "what two layers see": (dict(tune="head"), dict(head_hidden_dim=8), {"head_hidden", "head"}),
    "nothing, all at once": (
        dict(layer_decay=0.5),
        dict(stem="conv"),
        {*BELOW, "block_0", "block_1", "norm", "head"},
    ),
}


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize("name", FROZEN)
def test_the_weights_that_are_trained(name):
    settings, changes, expected = FROZEN[name]
    model = small_vit(**changes)
    choose_trained(model, Recipe(**settings))
    assert {path.partition("/")[0] for path in values_paths(model)} == expected
    # All weights of each of these layers, but the statistics of batch norm.
    layers = [layer for layer in model.layers if layer.name in expected]
    wanted = {w.path for layer in layers for w in layer.weights if not w.name.startswith("moving_")}
    assert set(values_paths(model)) == wanted


@pytest.mark.parametrize("name", ["a conv stem", "what the head sees"])
def test_frozen_weights_do_not_change(name):
    settings, changes, expected = FROZEN[name]
    model = small_vit(**changes)
    compile_model(model, Recipe(**PLAIN, learning_rate=0.1, weight_decay=0.1, **settings), STEPS)
    before = values(model)
    model.fit(*batch(model), batch_size=4, epochs=1, verbose=0)
    # Batch norm in a frozen stem keeps its moving statistics too.
    assert changed(before, values(model)) == expected


def test_gradual_unfreezing():
    """The head first; then a level below it at each beginning of a half epoch; all in one compiled step."""
    model = small_vit(stem="conv")
    recipe = Recipe(**PLAIN, learning_rate=0.01, weight_decay=0.1, unfreeze_every=0.2, layer_decay=0.9)
    compile_model(model, recipe, STEPS)
    norms = [path for path in values(model) if "batch_norm" in path]
    assert len(norms) == 8
    before, stages = values(model), []
    for _ in range(7):
        model.train_on_batch(*batch(model))
        stages.append(changed(before, values(model)))
    head, last, first = {"head"}, {"block_1", "norm"}, {"block_0"}
    assert stages[:2] == [head] * 2
    assert stages[2:4] == [head | last] * 2
    assert stages[4:6] == [head | last | first] * 2
    assert stages[6] == {*head, *last, *first, *BELOW}
    # Statistics that move before their turn would change what the model computes.
    for path in norms:
        np.testing.assert_array_equal(values(model)[path], before[path], err_msg=path)


def test_gradual_unfreezing_of_some_blocks():
    model = small_vit()
    compile_model(model, Recipe(**PLAIN, unfreeze_every=0.1, unfrozen_blocks=1), STEPS)
    before = values(model)
    model.train_on_batch(*batch(model))
    assert changed(before, values(model)) == {"head"}
    for _ in range(4):
        model.train_on_batch(*batch(model))
    assert changed(before, values(model)) == {"block_1", "norm", "head"}


def test_a_run_that_was_cut_off_continues_to_unfreeze(tmp_path):
    recipe = Recipe(warmup_epochs=0.2, epochs=1, unfreeze_every=0.2, layer_decay=0.8, xla=PLAIN["xla"])

    def compiled():
        keras.utils.set_random_seed(0)
        model = small_vit(qkv_bias=False)
        compile_model(model, recipe, STEPS)
        return model

    uncut = compiled()
    for step in range(7):
        uncut.train_on_batch(*batch(uncut))
        if step == 2:
            save_checkpoint(tmp_path, uncut, [{"epoch": 1}])
    resumed = compiled()
    assert restore_checkpoint(tmp_path, resumed) == [{"epoch": 1}]
    for _ in range(4):
        resumed.train_on_batch(*batch(resumed))
    for ours, theirs in zip(uncut.get_weights(), resumed.get_weights(), strict=True):
        np.testing.assert_allclose(theirs, ours, atol=1e-6)


# What is refused.


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    ("settings", "changes", "message"),
    [
        (
            dict(unfrozen_blocks=3),
            {},
            "unfrozen_blocks must be 2 at most, the blocks of this model. Received",
        ),
        (
            dict(tune="lora", lora_rank=9),
            {},
            "lora_rank must be 8 at most, the width of this model. Received",
        ),
        (dict(tune="head"), dict(num_classes=0), "This model has no head to train: give num_classes"),
        (dict(unfrozen_blocks=0), dict(num_classes=0), "This model has no head to train: give num_classes"),
    ],
)
def test_a_recipe_that_does_not_suit_the_model(settings, changes, message):
    model = small_vit(**changes)
    with pytest.raises(InputError, match=message):
        check_tuning(Recipe(**settings), model.config)
    before = values_paths(model)
    with pytest.raises(InputError, match=message):
        choose_trained(model, Recipe(**settings))
    assert values_paths(model) == before


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    "settings",
    [dict(layer_decay=0.9), dict(unfreeze_every=1.0), dict(unfrozen_blocks=1), dict(tune="head")],
)
def test_blocks_are_known_of_a_vit_only(settings):
    with pytest.raises(InputError, match=r"are for a keras_vit.ViT. Received: Sequential"):
        compile_model(small_model(), Recipe(**settings), STEPS)
