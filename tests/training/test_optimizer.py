"""Schedule, optimizer, loss and XLA of a recipe, compared with formulas and numpy."""

import math

import keras
import numpy as np
import pytest

from keras_vit.errors import InputError
from keras_vit.model.vit import ViT
from keras_vit.training.optimizer import choose_xla, compile_model, make_optimizer, pays_on_torch
from keras_vit.training.recipe import Recipe
from keras_vit.training.schedule import make_schedule
from tests.helpers.checks import to_numpy

BACKEND = keras.backend.backend()
PLAIN = dict(schedule="constant", warmup_epochs=0.0, clip_norm=None, label_smoothing=0.0, xla=None)
STEPS = 10  # per epoch


def tiny_vit(**changes):
    """A ViT with variables of every kind."""
    arguments = dict(
        image_shape=(8, 8, 1),
        num_classes=3,
        patch_size=4,
        dim=8,
        depth=1,
        num_heads=2,
        num_registers=1,
        head_hidden_dim=8,
        qk_norm=True,
        layer_scale=0.1,
    )
    return ViT(**{**arguments, **changes})


def linear_model(classes=3, features=2):
    model = keras.Sequential([keras.Input((features,)), keras.layers.Dense(classes)])
    rng = np.random.default_rng(0)
    model.set_weights([rng.normal(size=weight.shape) for weight in model.weights])
    return model


def rate(schedule, step):
    return float(to_numpy(schedule(step))) if callable(schedule) else schedule


def expected_rate(step, kind, warmup, total, peak):
    if step < warmup:
        return peak * step / warmup
    if kind == "constant":
        return peak
    return peak * 0.5 * (1 + math.cos(math.pi * (step - warmup) / (total - warmup)))


@pytest.mark.parametrize("kind", ["constant", "cosine"])
@pytest.mark.parametrize("warmup_epochs", [0.0, 0.5, 2.0])
def test_learning_rate_by_step(kind, warmup_epochs):
    recipe = Recipe(schedule=kind, warmup_epochs=warmup_epochs, epochs=8, learning_rate=0.3)
    schedule = make_schedule(recipe, STEPS)
    warmup, total = round(warmup_epochs * STEPS), 8 * STEPS
    for step in sorted({0, 1, warmup // 2, warmup, warmup + 1, (warmup + total) // 2, total - 1, total}):
        expected = expected_rate(step, kind, warmup, total, 0.3)
        assert rate(schedule, step) == pytest.approx(expected, abs=1e-6), step
    end = 0.3 if kind == "constant" else 0.0
    assert rate(schedule, 10 * total) == pytest.approx(end, abs=1e-7)


def test_learning_rate_of_a_run_shorter_than_its_warmup():
    schedule = make_schedule(Recipe(schedule="cosine", warmup_epochs=3.0, epochs=1, learning_rate=0.3), STEPS)
    half = STEPS // 2
    assert rate(schedule, half - 1) == pytest.approx(0.3 * (half - 1) / half)
    assert rate(schedule, half) == pytest.approx(0.3)
    assert rate(schedule, STEPS) == pytest.approx(0.0, abs=1e-7)


def step_without_gradient(model, optimizer):
    """The paths of the variables that change in a step without gradient, starting from 1."""
    for variable in model.trainable_variables:
        variable.assign(np.ones(variable.shape))
    optimizer.build(model.trainable_variables)
    zeros = [keras.ops.zeros(variable.shape) for variable in model.trainable_variables]
    optimizer.apply(zeros, model.trainable_variables)
    changed = {}
    for variable in model.trainable_variables:
        value = to_numpy(variable)
        if not np.array_equal(value, np.ones(variable.shape)):
            changed[variable.path] = value
    return changed


@pytest.mark.parametrize(
    ("kind", "changes"),
    [
        ("adamw", {"stem": "conv"}),
        ("sgd", {"pooling": "map", "activation": "swiglu"}),
    ],
)
def test_weight_decay_applies_to_kernels_only(kind, changes):
    model = tiny_vit(**changes)
    recipe = Recipe(**PLAIN, optimizer=kind, learning_rate=0.5, weight_decay=0.1)
    changed = step_without_gradient(model, make_optimizer(model, recipe, STEPS))

    # The kernels of Dense and Conv layers, but not tables of positions or tokens, which are added.
    added = ("positions", "position_embedding", "registers", "cls", "probe", "add_cls")
    expected = {
        variable.path
        for variable in model.trainable_variables
        if len([side for side in variable.shape if side > 1]) > 1
        and not any(word in part for part in variable.path.split("/")[-2:] for word in added)
    }
    assert set(changed) == expected
    assert len(expected) >= 6
    for path, value in changed.items():
        np.testing.assert_allclose(value, 1 - 0.5 * 0.1, atol=1e-6, err_msg=path)


@pytest.mark.parametrize(
    ("kind", "weight_decay"), [("adam", 0.0), ("adam", 0.1), ("adamw", 0.0), ("sgd", 0.0)]
)
def test_no_weight_decay(kind, weight_decay):
    model = linear_model()
    recipe = Recipe(**PLAIN, optimizer=kind, learning_rate=0.5, weight_decay=weight_decay)
    assert step_without_gradient(model, make_optimizer(model, recipe, STEPS)) == {}


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
@pytest.mark.parametrize("ema_decay", [None, 0.9])
def test_optimizer_of_a_recipe(kind, ema_decay):
    recipe = Recipe(optimizer=kind, ema_decay=ema_decay, learning_rate=0.2, warmup_epochs=2.0)
    optimizer = make_optimizer(linear_model(), recipe, STEPS)
    assert type(optimizer).__name__.lower() == kind  # on torch, a subclass of the same name
    assert optimizer.use_ema == (ema_decay is not None)
    if ema_decay:
        assert optimizer.ema_momentum == ema_decay
    if kind == "sgd":
        assert (optimizer.momentum, optimizer.nesterov) == (0.9, True)
    assert float(to_numpy(optimizer.learning_rate)) == 0  # the warm-up begins


def test_moving_average_of_the_weights():
    model = linear_model()
    recipe = Recipe(**PLAIN, optimizer="sgd", learning_rate=0.1, weight_decay=0.0, ema_decay=0.9)
    compile_model(model, recipe, STEPS)
    x, y = np.ones((4, 2), "float32"), np.eye(3, dtype="float32")[[0, 1, 2, 0]]
    average = None
    for _ in range(4):
        model.train_on_batch(x, y)
        weights = to_numpy(model.weights[0])
        # The average starts after the first step, so that the initial weights have no effect.
        average = weights if average is None else 0.9 * average + 0.1 * weights
    assert np.abs(average - weights).max() > 1e-3
    model.optimizer.finalize_variable_values(model.trainable_variables)
    np.testing.assert_allclose(to_numpy(model.weights[0]), average, atol=1e-5)


@pytest.mark.parametrize(("clip_norm", "length"), [(None, 100.0), (2.0, 2.0), (1000.0, 100.0)])
def test_clip_norm_uses_the_norm_of_all_gradients(clip_norm, length):
    model = linear_model()
    recipe = Recipe(
        **{**PLAIN, "clip_norm": clip_norm}, optimizer="sgd", learning_rate=0.01, weight_decay=0.0
    )
    optimizer = make_optimizer(model, recipe, STEPS)
    optimizer.build(model.trainable_variables)
    rng = np.random.default_rng(0)
    gradients = [rng.normal(size=v.shape).astype("float32") for v in model.trainable_variables]
    norm = math.sqrt(sum((g**2).sum() for g in gradients))
    before = model.get_weights()
    scaled = [keras.ops.convert_to_tensor(g * 100 / norm) for g in gradients]
    optimizer.apply(scaled, model.trainable_variables)
    # The first step with Nesterov momentum 0.9 is 1.9 times the gradient.
    for g, old, new in zip(gradients, before, model.get_weights(), strict=True):
        np.testing.assert_allclose(old - new, 0.01 * 1.9 * g / norm * length, rtol=2e-3, atol=1e-6)


@pytest.mark.parametrize("label_smoothing", [0.0, 0.1, 0.4])
def test_loss_and_accuracy_against_numpy(label_smoothing):
    model = linear_model()
    compile_model(model, Recipe(label_smoothing=label_smoothing), STEPS)
    rng = np.random.default_rng(1)
    x, labels = rng.normal(size=(16, 2)).astype("float32"), rng.integers(0, 3, 16)
    found = model.evaluate(x, np.eye(3, dtype="float32")[labels], verbose=0, return_dict=True)

    kernel, bias = model.get_weights()
    logits = x @ kernel + bias
    log_softmax = logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
    targets = (1 - label_smoothing) * np.eye(3)[labels] + label_smoothing / 3
    assert found["loss"] == pytest.approx(-(targets * log_softmax).sum(axis=1).mean(), rel=1e-5)
    assert found["accuracy"] == pytest.approx((logits.argmax(axis=1) == labels).mean())


XLA = {
    "tensorflow": {None: True, True: True, False: False},
    "jax": {None: "auto", True: True, False: False},
    "torch": {None: False, True: True, False: False},
}


@pytest.mark.parametrize("backend", sorted(XLA))
def test_the_choice_of_xla(backend, monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: backend)
    assert {setting: choose_xla(setting) for setting in XLA[backend]} == XLA[backend]
    assert choose_xla(None, 2) is (False if backend != "jax" else "auto")
    assert (
        choose_xla(None, 1, pays_on_torch=True) is {"tensorflow": True, "jax": "auto", "torch": True}[backend]
    )
    assert (
        choose_xla(None, 2, pays_on_torch=True)
        is {"tensorflow": False, "jax": "auto", "torch": False}[backend]
    )


@pytest.mark.skipif(BACKEND != "torch", reason="how torch compiles")
def test_torch_compiles_a_vit_alone():
    with pytest.raises(InputError, match="On the torch backend only a ViT is compiled: leave --xla out"):
        compile_model(linear_model(), Recipe(xla=True), STEPS)
    for wanted in (True, False):
        model = tiny_vit()
        compile_model(model, Recipe(xla=wanted), STEPS)
        assert model.jit_compile is wanted


@pytest.mark.skipif(BACKEND != "torch", reason="how torch compiles")
def test_on_a_gpu_the_number_of_steps_decides(monkeypatch):
    import torch

    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    model = tiny_vit()
    assert pays_on_torch(model, Recipe(epochs=10, batch_size=64), steps_per_epoch=100)
    assert not pays_on_torch(model, Recipe(epochs=10, batch_size=64), steps_per_epoch=99)
    assert not pays_on_torch(tiny_vit(remat=True), Recipe(epochs=10), steps_per_epoch=100)


@pytest.mark.skipif(BACKEND != "torch", reason="how torch compiles")
def test_torch_compiles_a_run_that_is_long_enough(monkeypatch):
    """257 s on one core: 32.3 million multiply-adds per image of `defect/4`, at 7e9 per second."""
    import torch

    model = ViT.from_variant("defect/4", image_shape=(28, 28, 1), num_classes=6)
    long, short = Recipe(epochs=30, batch_size=64), Recipe(epochs=27, batch_size=64)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 1)
    assert pays_on_torch(model, long, steps_per_epoch=29)
    assert not pays_on_torch(model, short, steps_per_epoch=29)
    assert not pays_on_torch(tiny_vit(remat=True), Recipe(epochs=10**9), STEPS)
    assert not pays_on_torch(linear_model(), Recipe(epochs=10**9), STEPS)
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    assert not pays_on_torch(model, long, steps_per_epoch=29)


def test_a_compiled_model_uses_the_choice():
    model = linear_model()
    compile_model(model, Recipe(), STEPS)
    expected = {"tensorflow": True, "jax": True, "torch": False}
    assert model.jit_compile is expected[BACKEND]


@pytest.mark.parametrize("kind", ["adam", "adamw", "sgd"])
def test_a_resumed_optimizer_continues_the_schedule(kind):
    recipe = Recipe(optimizer=kind, learning_rate=0.1, warmup_epochs=0.4, epochs=1)  # 4 steps, then cosine
    x = np.random.default_rng(0).normal(size=(8, 2)).astype("float32")
    y = np.eye(3, dtype="float32")[[0, 1, 2, 0, 1, 2, 0, 1]]

    def compiled():
        model = linear_model()
        compile_model(model, recipe, STEPS)
        model.optimizer.build(model.trainable_variables)
        return model

    first = compiled()
    for _ in range(6):
        first.train_on_batch(x, y)
    second = compiled()
    for old, new in zip(first.optimizer.variables, second.optimizer.variables, strict=True):
        new.assign(to_numpy(old))
    second.set_weights(first.get_weights())

    for step in (6, 7):
        expected = expected_rate(step, "cosine", 4, STEPS, 0.1)
        assert float(to_numpy(second.optimizer.learning_rate)) == pytest.approx(expected, rel=1e-5)
        first.train_on_batch(x, y)
        second.train_on_batch(x, y)
        for a, b in zip(first.get_weights(), second.get_weights(), strict=True):
            np.testing.assert_allclose(a, b, atol=1e-7)


@pytest.mark.parametrize(("precision", "scaled"), [("float32", False), ("mixed_float16", True)])
def test_only_float16_scales_its_loss(precision, scaled):
    model = tiny_vit(dtype=precision)
    compile_model(model, Recipe(precision=precision), STEPS)
    assert isinstance(model.optimizer, keras.optimizers.LossScaleOptimizer) == scaled
