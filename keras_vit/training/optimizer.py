"""A model made ready for `model.fit` by a recipe."""

import keras

from keras_vit.distribution import current_distribution
from keras_vit.errors import InputError


def compile_model(model, recipe, steps_per_epoch):
    """Compiles a model with the optimizer, schedule and loss of a recipe.

    Args:
        model: a built `keras.Model` that returns logits.
        recipe: a `Recipe`.
        steps_per_epoch: optimizer steps an epoch; the schedule is laid out in steps.

    Raises:
        InputError: the recipe asks for XLA where the backend has none that works.
    """
    optimizer = make_optimizer(model, recipe, steps_per_epoch)
    if recipe.precision == "mixed_float16":
        # Small gradients would vanish. Keras scales by itself only where the whole model has this policy, and
        # the logits of ours are float32.
        optimizer = keras.optimizers.LossScaleOptimizer(optimizer)
    model.compile(
        optimizer=optimizer,
        loss=keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=recipe.label_smoothing),
        metrics=[keras.metrics.CategoricalAccuracy(name="accuracy")],
        jit_compile=choose_xla(recipe.xla, current_distribution().num_devices),
    )


def make_optimizer(model, recipe, steps_per_epoch):
    """The optimizer of a recipe; weight decay spares all but the kernels of the model."""
    schedule = make_schedule(recipe, steps_per_epoch)
    shared = dict(global_clipnorm=recipe.clip_norm)
    if recipe.ema_decay:
        shared.update(use_ema=True, ema_momentum=recipe.ema_decay)
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


def make_schedule(recipe, steps_per_epoch):
    """The learning rate by step: a linear climb from 0, then constant or a cosine down to 0.

    The climb takes half of a short run at most, so that the highest rate is reached.
    """
    total = recipe.epochs * steps_per_epoch
    warmup = min(round(recipe.warmup_epochs * steps_per_epoch), total // 2)
    if recipe.schedule == "constant":
        if not warmup:
            return recipe.learning_rate
        # PolynomialDecay of power 1 is a line, upwards too, and stays at its end.
        return keras.optimizers.schedules.PolynomialDecay(0.0, warmup, end_learning_rate=recipe.learning_rate)
    if not warmup:
        return keras.optimizers.schedules.CosineDecay(recipe.learning_rate, total)
    return keras.optimizers.schedules.CosineDecay(
        0.0, total - warmup, warmup_target=recipe.learning_rate, warmup_steps=warmup
    )


def choose_xla(asked, num_devices=1):
    """What `jit_compile` is to be: `asked`, or by default what is known to be safe and fast.

    Keras's own "auto" leaves XLA off on CPUs, where TensorFlow trains this model four times faster with
    it. torch's compiler runs into its recompilation limit.
    """
    backend = keras.backend.backend()
    if backend == "torch":
        if asked:
            raise InputError("XLA does not work with the torch backend: leave --xla out.")
        return False
    if backend == "jax":
        return "auto" if asked is None else asked
    return num_devices == 1 if asked is None else asked
