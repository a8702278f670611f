"""The learning rate of each step."""

import keras

from keras_vit.training.recipe import Recipe


def make_schedule(
    recipe: Recipe, steps_per_epoch: int
) -> float | keras.optimizers.schedules.LearningRateSchedule:
    """The learning rate by step: it rises linearly from 0, then stays constant or falls to 0 as a cosine.

    The rise takes at most half of a short run, so that the highest rate is reached.

    Args:
        recipe: the `Recipe`.
        steps_per_epoch: optimizer steps per epoch.

    Returns:
        What a Keras optimizer accepts as `learning_rate`.
    """
    schedules = keras.optimizers.schedules
    total = recipe.epochs * steps_per_epoch
    warmup = min(round(recipe.warmup_epochs * steps_per_epoch), total // 2)
    if recipe.schedule == "constant":
        if not warmup:
            return recipe.learning_rate
        # PolynomialDecay of power 1 is a line, also upwards, and stays at its end.
        return schedules.PolynomialDecay(0.0, warmup, end_learning_rate=recipe.learning_rate)
    if not warmup:
        return schedules.CosineDecay(recipe.learning_rate, total)
    return schedules.CosineDecay(0.0, total - warmup, warmup_target=recipe.learning_rate, warmup_steps=warmup)
