import random
from collections.abc import Sequence
from typing import Any

import keras
from keras import ops

from keras_vit.distribution.replicas import num_replicas, replica_id
from keras_vit.model.config import check_as
from keras_vit.model.layers.base import ViTLayer
from keras_vit.validation import Seed


class ReplicaSeed(keras.random.SeedGenerator):
    """Random seeds that differ between the replicas of a model, from a state that is the same on all."""

    def next(self, ordered=True):
        seed = super().next(ordered)
        if num_replicas() == 1:
            return seed
        # Far apart: on torch, Keras adds the two halves of a seed, and the second one counts the calls.
        return seed + ops.cast(ops.stack([replica_id() * 10_000_019, 0]), seed.dtype)


def part_seed(seed: int | None, part: int) -> int | None:
    """The seed of a part of a layer: parts with one seed would drop the same values."""
    return None if seed is None else (seed + part * 7_919) % 2**31


@keras.saving.register_keras_serializable(package="keras_vit")
class Dropout(ViTLayer):
    """Dropout with different masks on each replica: that of Keras has the same ones under MirroredStrategy.

    Srivastava et al. 2014 (https://jmlr.org/papers/v15/srivastava14a.html). The random state is a variable on
    every backend, so a resumed run draws the same masks as an uninterrupted one.

    Args:
        rate: fraction of the values that training sets to zero: 0 or more and below 1.
        noise_shape: shape of the mask, with 1 for an axis whose values are dropped together. `None` drops
            each value by itself; `(None, 1, 1)` is stochastic depth (https://arxiv.org/abs/1603.09382).
        seed: of the random state: a whole number, or `None` for a random one.

    Input shape:
        Any.

    Output shape:
        The input shape.

    Raises:
        ValueError: `rate` or `seed` is outside of its range.

    Example:
        >>> Dropout(0.5)(np.ones((2, 8)), training=True).shape
        (2, 8)
    """

    def __init__(
        self,
        rate: float,
        noise_shape: Sequence[int | None] | None = None,
        seed: Seed | None = None,
        **kwargs: Any,
    ):
        super().__init__(**kwargs)
        check_as("dropout_rate", rate=rate)
        self.rate = rate
        self.seed = seed
        self.noise_shape = noise_shape and tuple(noise_shape)  # a file gives a list
        # With a seed: without one, torch would draw from its global generator.
        self._first_seed = random.randint(1, 10**9) if rate and seed is None else seed
        self.supports_masking = True
        self.built = not rate

    def build(self, input_shape):
        # Here, so that the name of the state, which is part of torch's state_dict, is below that of the layer
        # around it; by default, Keras numbers the states of the process.
        if self.rate:
            self.seed_generator = ReplicaSeed(self._first_seed, name="seed_generator")

    def call(self, inputs, training=False):
        if not training or not self.rate:
            return inputs
        if keras.backend.backend() == "torch":
            from keras_vit.model.layers.torch_masks import dropped

            return dropped(inputs, self)
        return keras.random.dropout(inputs, self.rate, self.noise_shape, self.seed_generator)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "noise_shape": self.noise_shape, "seed": self.seed}
