"""What a layer must know of the other replicas that train the same step.

A replica is a copy of the model that sees its share of a batch. TensorFlow runs the code of a layer once
for each replica, torch in a process of its own; JAX runs it once for the whole batch, so there is nothing
to know.
"""

import keras


def num_replicas() -> int:
    """How many replicas run this layer side by side, each on its own share of the batch."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        context = _tensorflow_context()
        return context.num_replicas_in_sync if context else 1
    return _torch_world()[0] if backend == "torch" else 1


def replica_id():
    """The number of this replica, an int32 scalar of the backend or an int."""
    backend = keras.backend.backend()
    if backend == "tensorflow":
        context = _tensorflow_context()
        return context.replica_id_in_sync_group if context else 0
    return _torch_world()[1] if backend == "torch" else 0


def mean_over_replicas(value):
    """The mean of a tensor over all replicas; gradients flow through it to all of them."""
    if num_replicas() == 1:
        return value
    if keras.backend.backend() == "tensorflow":
        import tensorflow as tf

        return tf.distribute.get_replica_context().all_reduce(tf.distribute.ReduceOp.MEAN, value)
    from keras_vit.distribution.torch_engine import differentiable_mean

    return differentiable_mean(value)


def _tensorflow_context():
    import tensorflow as tf

    return tf.distribute.get_replica_context() if tf.distribute.has_strategy() else None


def _torch_world() -> tuple[int, int]:
    import torch.distributed as dist

    if not (dist.is_available() and dist.is_initialized()):
        return 1, 0
    return dist.get_world_size(), dist.get_rank()
