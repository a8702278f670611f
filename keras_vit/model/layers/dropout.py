import random

import keras
from keras import layers, ops

from keras_vit.distribution.replicas import num_replicas, replica_id


class ReplicaSeed(keras.random.SeedGenerator):
    """Random seeds that differ between the replicas of a model, from a state that is the same in all."""

    def next(self, ordered=True):
        seed = super().next(ordered)
        if num_replicas() == 1:
            return seed
        # Far apart: on torch, Keras adds both halves of a seed, of which the second counts the calls.
        return seed + ops.cast(ops.stack([replica_id() * 10_000_019, 0]), seed.dtype)


@keras.saving.register_keras_serializable(package="keras_vit")
class Dropout(layers.Layer):
    """Dropout with other masks on each replica: Keras's has the same ones under MirroredStrategy.

    Its random state is a variable on every backend, so that a run that goes on draws what an uncut one draws.
    Srivastava et al. 2014 (https://jmlr.org/papers/v15/srivastava14a.html).

    Args:
        rate: share of the values set to zero in training, 0 up to and without 1.
        noise_shape: shape of the mask, with 1 where values share their fate; `None` for each its own.
            `(None, 1, 1)` is stochastic depth (https://arxiv.org/abs/1603.09382).

    Input shape:
        Any.

    Output shape:
        That of the input.

    Raises:
        ValueError: `rate` is outside its range.

    Example:
        >>> Dropout(0.5)(np.ones((2, 8)), training=True).shape
        (2, 8)
    """

    def __init__(self, rate, noise_shape=None, **kwargs):
        super().__init__(**kwargs)
        if not 0 <= rate < 1:
            raise ValueError(f"rate must be 0 or more and below 1. Received: rate={rate}")
        self.rate = rate
        self.noise_shape = noise_shape and tuple(noise_shape)  # a file gives a list
        if rate:
            # A seed of its own: without one, torch would draw from its global generator.
            self.seed_generator = ReplicaSeed(random.randint(1, 10**9))
        self.supports_masking = True
        self.built = True

    def call(self, inputs, training=False):
        if not training or not self.rate:
            return inputs
        return keras.random.dropout(inputs, self.rate, self.noise_shape, self.seed_generator)

    def compute_output_shape(self, input_shape):
        return input_shape

    def get_config(self):
        return {**super().get_config(), "rate": self.rate, "noise_shape": self.noise_shape}
