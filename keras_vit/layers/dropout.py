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
        return seed + ops.cast(ops.stack([replica_id(), 0]), seed.dtype)


@keras.saving.register_keras_serializable(package="keras_vit")
class Dropout(layers.Dropout):
    """Dropout with other masks on each replica: Keras's has the same ones under MirroredStrategy.

    Its seed is a variable on every backend, so that a model that goes on draws what an uncut one draws.

    Args:
        rate: share of the values set to zero in training.
        noise_shape: see `keras.layers.Dropout`.

    Input shape:
        Any.

    Output shape:
        That of the input.

    Example:
        >>> Dropout(0.5)(np.ones((2, 8)), training=True).shape
        (2, 8)
    """

    def __init__(self, rate, noise_shape=None, seed=None, **kwargs):
        super().__init__(rate, noise_shape=noise_shape, seed=seed, **kwargs)
        if self.rate > 0:
            self.seed_generator = ReplicaSeed(random.randint(1, 10**9) if seed is None else seed)
