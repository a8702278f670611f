"""Optimizers whose rate, weight decay and beginning differ from weight to weight."""

from collections.abc import Iterable
from typing import Any, NamedTuple

import keras
from keras import ops

from keras_vit.model.vit import ViT
from keras_vit.training.recipe import Recipe
from keras_vit.training.unfreezing import levels

PACKAGE = "keras_vit"


class Share(NamedTuple):
    """How a weight is trained.

    Args:
        rate: what the learning rate is multiplied by.
        weight_decay: decoupled (Loshchilov and Hutter 2017, https://arxiv.org/abs/1711.05101); in each step
            the weight loses this share of itself times its own learning rate.
        first_step: step of the optimizer, from 0, in which the weight first changes.
    """

    rate: float = 1.0
    weight_decay: float = 0.0
    first_step: int = 0


class _Layerwise(keras.optimizers.Optimizer):
    """What the optimizers below have in common, before the class of Keras that they extend."""

    def __init__(self, learning_rate: Any = 1e-3, *, shares: Iterable[Iterable[Any]], **kwargs: Any):
        super().__init__(learning_rate, **kwargs)
        self.shares = tuple(Share(*share) for share in shares)

    def build(self, variables):
        if len(variables) != len(self.shares):
            raise ValueError(
                "shares must have one share for each weight that is trained. "
                f"Received: {len(self.shares)} shares, {len(variables)} weights"
            )
        super().build(variables)

    def update_step(self, gradient, variable, learning_rate):
        # By its place, as Keras finds the moments: on TensorFlow this is a variable without a path.
        share = self.shares[self._get_variable_index(variable)]
        rate = ops.cast(learning_rate, variable.dtype) * share.rate
        if share.first_step:
            rate = rate * ops.cast(self.iterations >= share.first_step, variable.dtype)
        if share.weight_decay:
            self.assign_sub(variable, variable * (rate * share.weight_decay))
        super().update_step(gradient, variable, rate)

    def get_config(self):
        return {**super().get_config(), "shares": [list(share) for share in self.shares]}


@keras.saving.register_keras_serializable(package=PACKAGE)
class LayerwiseAdam(_Layerwise, keras.optimizers.Adam):
    """Adam with a learning rate, a weight decay and a first step per weight.

    With weight decay it is AdamW with parameter groups. What holds for all weights together, such as clipping
    by the global norm, moving averages and gradient accumulation, is that of `keras.optimizers.Adam`.

    Args:
        learning_rate: a number or a schedule.
        shares: a `Share`, or its values, for each weight that is trained, in the order of
            `model.trainable_variables`.
        **kwargs: of `keras.optimizers.Adam`, without weight_decay.

    Raises:
        ValueError: from `build`, if there are more or fewer weights than shares.

    Example:
        >>> LayerwiseAdam(1e-3, shares=[Share(rate=0.75, weight_decay=0.05), Share(rate=0.75)])
    """


@keras.saving.register_keras_serializable(package=PACKAGE)
class LayerwiseSGD(_Layerwise, keras.optimizers.SGD):
    """Stochastic gradient descent with a learning rate, a weight decay and a first step per weight.

    Args:
        learning_rate: a number or a schedule.
        shares: see `LayerwiseAdam`.
        **kwargs: of `keras.optimizers.SGD`, without weight_decay.

    Raises:
        ValueError: from `build`, if there are more or fewer weights than shares.
    """


def is_layerwise(recipe: Recipe) -> bool:
    """Whether a recipe trains some weights otherwise than others."""
    return recipe.layer_decay < 1.0 or recipe.unfreeze_every is not None


def shares_of(model: ViT, recipe: Recipe, steps_per_epoch: int) -> list[Share]:
    """The share of each weight of a ViT that is trained, in the order of `model.trainable_variables`.

    With a layer decay of d, a block has d times the learning rate of the block above it (BEiT, Bao et al.
    2021, https://arxiv.org/abs/2106.08254): the head has 1, the last block d, the first block d^depth, and
    positions, tokens and patches d^(depth + 1). Weight decay, of kernels alone, falls with the learning rate.

    In gradual unfreezing (Howard and Ruder 2018, https://arxiv.org/abs/1801.06146) the head is trained from
    the first step, and each level below begins `unfreeze_every` epochs after the one above it.

    Args:
        model: with its frozen weights chosen.
        recipe: the `Recipe`.
        steps_per_epoch: optimizer steps per epoch.
    """
    decay = recipe.weight_decay if recipe.optimizer != "adam" else 0.0
    every = (recipe.unfreeze_every or 0.0) * steps_per_epoch
    top = model.config.depth + 1
    level_of = {id(variable): level for layer, level in levels(model) for variable in layer.variables}
    below = [top - level_of[id(variable)] for variable in model.trainable_variables]
    return [
        Share(
            rate=recipe.layer_decay**steps,
            weight_decay=decay if variable.name == "kernel" else 0.0,
            first_step=round(steps * every),
        )
        for variable, steps in zip(model.trainable_variables, below, strict=True)
    ]
