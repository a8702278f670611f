"""Optimizer and loss of a model, as a recipe has them."""

from typing import Any, Literal

import keras

from keras_vit.distribution import current_distribution
from keras_vit.errors import InputError
from keras_vit.model.cost import count_mult_adds
from keras_vit.model.vit import ViT
from keras_vit.training.layerwise import LayerwiseAdam, LayerwiseSGD, is_layerwise, shares_of
from keras_vit.training.objective import loss_of, metrics_of
from keras_vit.training.recipe import Recipe
from keras_vit.training.schedule import make_schedule
from keras_vit.training.unfreezing import choose_trained, require_vit


def compile_model(model: keras.Model, recipe: Recipe, steps_per_epoch: int, several: bool = False) -> None:
    """Compiles a model with the optimizer, schedule and loss of a recipe, and freezes what it does not train.

    Args:
        model: a built `keras.Model` that returns logits; a `ViT` for a recipe that does not train every
            weight alike. It has its first weights: those that it begins with, from a file or drawn.
        recipe: a `Recipe`.
        steps_per_epoch: optimizer steps per epoch; the schedule is counted in steps.
        several: whether images have several labels.

    Raises:
        InputError: the recipe wants a compiled step, and torch can compile that of a `ViT` alone; or it does
            not suit the model, see `check_tuning`.
    """
    if recipe.xla and keras.backend.backend() == "torch" and not isinstance(model, ViT):
        raise InputError("On the torch backend only a ViT is compiled: leave --xla out.")
    choose_trained(model, recipe)
    optimizer = make_optimizer(model, recipe, steps_per_epoch)
    if recipe.precision == "mixed_float16":
        # Without it, small gradients would become 0. Keras scales by itself only if the whole model has this
        # policy, and the logits of ours are float32.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(
        optimizer=optimizer,
        loss=loss_of(recipe, several),
        metrics=metrics_of(recipe, model.output_shape[-1], several),
        jit_compile=choose_xla(
            recipe.xla, current_distribution().num_devices, pays_on_torch(model, recipe, steps_per_epoch)
        ),
    )
    # Before the first step: TensorFlow traces a step that makes variables a second time. Of the 10.5 CPU
    # seconds of the first step of defect-conv/4 that took 3.2.
    model.optimizer.build(model.trainable_variables)


def make_optimizer(model: keras.Model, recipe: Recipe, steps_per_epoch: int) -> keras.optimizers.Optimizer:
    """The optimizer of a recipe; weight decay applies to the kernels of the model alone.

    Args:
        model: with its frozen weights chosen.
        recipe: the `Recipe`.
        steps_per_epoch: optimizer steps per epoch.
    """
    schedule = make_schedule(recipe, steps_per_epoch)
    shared: dict[str, Any] = dict(global_clipnorm=recipe.clip_norm)
    if recipe.ema_decay:
        shared.update(use_ema=True, ema_momentum=recipe.ema_decay)
    if is_layerwise(recipe):
        shares = shares_of(require_vit(model), recipe, steps_per_epoch)
        if recipe.optimizer == "sgd":
            return LayerwiseSGD(schedule, shares=shares, momentum=0.9, nesterov=True, **shared)
        return LayerwiseAdam(schedule, shares=shares, **shared)
    if recipe.optimizer == "adam":
        return keras.optimizers.Adam(schedule, **shared)
    if recipe.optimizer == "sgd":
        optimizer = keras.optimizers.SGD(
            schedule, momentum=0.9, nesterov=True, weight_decay=recipe.weight_decay or None, **shared
        )
    else:
        optimizer = keras.optimizers.AdamW(schedule, weight_decay=recipe.weight_decay, **shared)
    spared = [variable for variable in model.trainable_variables if variable.name != "kernel"]
    optimizer.exclude_from_weight_decay(var_list=spared)
    return optimizer


def choose_xla(
    wanted: bool | None, num_devices: int = 1, pays_on_torch: bool = False
) -> bool | Literal["auto"]:
    """The value of `jit_compile`: what the recipe wants, or by default what is safe and fast.

    Keras's own "auto" leaves XLA off on CPUs, where TensorFlow trains this model four times faster with it.

    Args:
        wanted: of the recipe; `None` for the default.
        num_devices: that train together.
        pays_on_torch: whether the compiled step of torch gains more than it costs, see `pays_on_torch`.
    """
    backend = keras.backend.backend()
    if wanted is not None:
        return wanted
    if backend == "jax":
        return "auto"
    return num_devices == 1 and (backend == "tensorflow" or pays_on_torch)


MULT_ADDS_PER_SECOND = 7e9
"""Of the forward pass, in the steps of a run on one core with torch, not compiled: about 290 ms for 64 images
of `defect/4` on an AMD EPYC of 2025."""
STEPS_THAT_PAY_ON_GPU = 1000
"""On an H200, compiling takes 20 to 30 s, and each step then takes about 50 ms less, of the smallest and of a
large model: most of that is Python's time."""
SECONDS_THAT_PAY = 240.0
"""Compiling takes half a minute and a step then 0.75 of its time: even after 2 minutes, so twice that."""


def pays_on_torch(model: keras.Model, recipe: Recipe, steps_per_epoch: int) -> bool:
    """Whether a run on torch is long enough to compile its training step.

    By the size of the model and the number of steps, not by a clock: the steps of two runs of one command are
    equal to the last bit.

    Args:
        model: on one device.
        recipe: the `Recipe`.
        steps_per_epoch: of `recipe.batch_size` images.
    """
    if keras.backend.backend() != "torch" or not isinstance(model, ViT) or model.config.remat:
        return False
    import torch

    if torch.cuda.is_available():
        return recipe.epochs * steps_per_epoch >= STEPS_THAT_PAY_ON_GPU
    images = recipe.epochs * steps_per_epoch * recipe.batch_size
    speed = MULT_ADDS_PER_SECOND * torch.get_num_threads()
    return images * count_mult_adds(model.config) / speed >= SECONDS_THAT_PAY
