"""What a layer must know about the other replicas that train the same step.

A replica is a copy of the model that sees its share of a batch. TensorFlow runs the code of a layer once per
replica, torch once in the process of each replica. JAX runs it once for the whole batch, as on one device.
"""

from typing import Any

import keras


def num_replicas() -> int:
    """The number of replicas that run this layer at the same time, each on its own share of the batch."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        context = _tensorflow_context()
        return context.num_replicas_in_sync if context else 1
    return _torch_world()[0] if backend == "torch" else 1


def replica_id() -> Any:
    """The number of this replica: an int, or an int32 scalar of the backend."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        context = _tensorflow_context()
        return context.replica_id_in_sync_group if context else 0
    return _torch_world()[1] if backend == "torch" else 0


def mean_over_replicas(value: Any, rows: Any = 1) -> Any:
    """The mean of a tensor over all replicas; gradients flow back to all of them.

    Args:
        value: the mean over the rows of this replica.
        rows: their number, which may differ.
    """
    if num_replicas() == 1:
        return value
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        weight = tf.cast(rows, value.dtype)
        # In one piece: two reductions at a time could meet each other's counterpart.
        piece = tf.concat([tf.reshape(value * weight, [-1]), [weight]], 0)
        summed = tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.SUM, piece)
        return tf.reshape(summed[:-1], tf.shape(value)) / summed[-1]
    import torch

    from keras_vit.distribution.torch_engine import differentiable_mean

    piece = torch.cat([(value * rows).reshape(-1), value.new_full((1,), float(rows))])
    summed = differentiable_mean(piece)
    return (summed[:-1] / summed[-1]).view_as(value)


def _tensorflow_context():
    import tensorflow as tf

    return tf.distribute.get_replica_context() if tf.distribute.has_strategy() else None


def _torch_world() -> tuple[int, int]:
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return 1, 0
    return dist.get_world_size(), dist.get_rank()
