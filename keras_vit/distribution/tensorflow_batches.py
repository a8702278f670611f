"""What TensorFlow's replicas share of a step: its batch, and the gradients that are clipped."""

from collections.abc import Callable
from typing import Any

import keras

from keras_vit.distribution import guards
from keras_vit.distribution.engine import Distribution
from keras_vit.errors import InputError


def as_batches(x: Any, batch_size: int = 32) -> Any:
    """A dataset of batches, which is made from arrays if `x` is not a dataset."""
    import tensorflow as tf

    if isinstance(x, tf.data.Dataset):
        return x
    try:
        return tf.data.Dataset.from_tensor_slices(tuple(x) if isinstance(x, list) else x).batch(batch_size)
    except (TypeError, ValueError) as error:
        raise InputError(
            "evaluate, predict and validation on several devices take arrays or a tf.data.Dataset. "
            f"Received: {type(x).__name__}"
        ) from error


def any_batches(distribution: Distribution, arguments: dict) -> dict:
    """The arguments of `fit` in a user's own scope, where batches of any size are shared.

    Raises:
        InputError: a dataset does not know its number of batches; or `class_weight` with a batch that cannot
            be shared equally.
    """
    import tensorflow as tf

    arguments = guards.split_validation(arguments)
    x, size = arguments["x"], arguments.get("batch_size") or 32
    if hasattr(x, "shape"):
        if not len(x) % size and not size % distribution.num_replicas:
            return arguments  # Keras shares them equally
        names = [name for name in ("x", "y", "sample_weight") if arguments.get(name) is not None]
        rows = tf.data.Dataset.from_tensor_slices(tuple(arguments[name] for name in names))
        if arguments.get("shuffle", True):
            rows = rows.shuffle(len(x), reshuffle_each_iteration=True)
        x = rows.batch(size)
        arguments = {key: value for key, value in arguments.items() if key not in (*names, "batch_size")}
    elif not isinstance(x, tf.data.Dataset) or _is_shared_equally(x, distribution.num_replicas):
        return arguments  # Keras makes batches of it, or shares
    if arguments.get("class_weight"):
        raise InputError(
            "class_weight needs batches here that all devices share equally: leave some images out, or use "
            "sample_weight."
        )
    steps = arguments.get("steps_per_epoch") or count_of(x)
    if steps is None:
        raise InputError(
            "This dataset does not know how many batches it has, and the last one may be partial: give "
            "steps_per_epoch, or batch it with drop_remainder=True."
        )
    # Without an end, because TensorFlow wraps batches of any size in conditions at the end of a dataset.
    shares = _shares(x, distribution.num_replicas).repeat()
    return {
        **arguments,
        "x": distribution.one_by_one(shares),  # type: ignore[attr-defined]
        "steps_per_epoch": steps,
        "shuffle": False,
    }


def _is_shared_equally(batches: Any, count: int) -> bool:
    """Whether all batches of a dataset have one size, of which `count` replicas get equal shares."""
    sizes = {spec.shape[0] if spec.shape.rank else None for spec in keras.tree.flatten(batches.element_spec)}
    return None not in sizes and len(sizes) == 1 and int(sizes.pop() or 0) % count == 0


def _shares(batches: Any, count: int) -> Any:
    """The shares of each batch, as equal as its rows allow, one after the other.

    Each replica gets one. Of less rows than replicas, each gets all: then the gradients are right, and the
    batch counts more in the mean of the epoch's logs.
    """
    import tensorflow as tf

    def share(number, batch):
        rows = tf.shape(keras.tree.flatten(batch)[0], out_type=tf.int64)[0]
        first = tf.where(rows < count, tf.zeros_like(rows), rows * number // count)
        last = tf.where(rows < count, rows, rows * (number + 1) // count)
        return keras.tree.map_structure(lambda one: one[first:last], batch)

    numbers = tf.data.Dataset.range(count)
    return batches.flat_map(lambda *batch: numbers.map(lambda number: share(number, batch)))


def count_of(batches: Any) -> int | None:
    """The number of batches, or `None` if the dataset does not know it."""
    count = int(batches.cardinality())
    return count if count >= 0 else None


def clip_together(optimizer: keras.optimizers.Optimizer) -> Callable[..., Any]:
    """An `optimizer.apply` that clips the gradient of the whole batch instead of that of each replica."""
    keras_apply = optimizer.apply

    def apply(grads, trainable_variables=None):
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        summed = context.all_reduce(tf.distribute.ReduceOp.SUM, list(grads))
        clipped = clip(summed, optimizer)
        # Keras sums over the replicas once more. Its own clipping then has nothing left to clip.
        shares = [gradient / context.num_replicas_in_sync for gradient in clipped]
        return keras_apply(shares, trainable_variables)

    return apply


def clip(gradients: list, optimizer: keras.optimizers.Optimizer) -> list:
    """The gradients, clipped by the settings of the optimizer."""
    import tensorflow as tf

    if optimizer.clipnorm:
        return [tf.clip_by_norm(gradient, optimizer.clipnorm) for gradient in gradients]
    if optimizer.global_clipnorm:
        return tf.clip_by_global_norm(gradients, optimizer.global_clipnorm)[0]
    return [tf.clip_by_value(gradient, -optimizer.clipvalue, optimizer.clipvalue) for gradient in gradients]
