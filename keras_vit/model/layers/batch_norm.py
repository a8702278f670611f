from typing import Any

import keras
from keras import layers, ops

from keras_vit.distribution.replicas import mean_over_replicas, num_replicas


@keras.saving.register_keras_serializable(package="keras_vit")
class BatchNorm(layers.BatchNormalization):
    """Batch normalization by the statistics of the whole batch, even if several replicas share it.

    Ioffe and Szegedy 2015 (https://arxiv.org/abs/1502.03167). The layer of Keras takes the statistics of each
    replica. With `synchronized=True` it takes those of all, but on TensorFlow only.

    Args:
        momentum: fraction of the moving statistics that a step keeps.
        epsilon: added to the variance.

    Input shape:
        `(batch, ..., channels)`.

    Output shape:
        The input shape.

    Example:
        >>> BatchNorm()(np.ones((2, 7, 7, 8))).shape
        (2, 7, 7, 8)
    """

    def __init__(self, momentum: float = 0.99, epsilon: float = 1e-3, **kwargs: Any):
        super().__init__(momentum=momentum, epsilon=epsilon, **kwargs)

    def get_config(self):
        config = layers.Layer.get_config(self)
        return {**config, "momentum": self.momentum, "epsilon": self.epsilon}

    def call(self, inputs, training=None):
        if not training or not self.trainable or num_replicas() == 1:
            return super().call(inputs, training=training)
        x = ops.cast(inputs, "float32")
        axes = tuple(range(len(x.shape) - 1))
        rows = ops.shape(x)[0]
        mean = mean_over_replicas(ops.mean(x, axes), rows)
        variance = mean_over_replicas(ops.mean(ops.square(x - mean), axes), rows)
        for moving, now in ((self.moving_mean, mean), (self.moving_variance, variance)):
            moving.assign(moving * self.momentum + ops.stop_gradient(now) * (1.0 - self.momentum))
        x = ops.batch_normalization(x, mean, variance, -1, self.beta, self.gamma, self.epsilon)
        return ops.cast(x, self.compute_dtype)
