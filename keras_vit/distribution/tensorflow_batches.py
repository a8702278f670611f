"""What TensorFlow's replicas share of a step: its batch, and its gradients."""

import itertools
import random
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import keras

from keras_vit.distribution import guards
from keras_vit.distribution.engine import Distribution
from keras_vit.errors import InputError


def as_batches(x: Any, batch_size: int = 32) -> Any:
    """A dataset of the batches of one pass, in their order.

    Args:
        x: a dataset; arrays, also in a tuple or a dict; or what gives batches: a `keras.utils.PyDataset`, a
            `DataLoader` of torch, a generator.
        batch_size: for arrays.

    Raises:
        InputError: it is none of these.
    """
    import tensorflow as tf

    if isinstance(x, tf.data.Dataset):
        return x
    if gives_batches(x):
        return _generated(x)
    try:
        return tf.data.Dataset.from_tensor_slices(keras.tree.lists_to_tuples(x)).batch(batch_size)
    except (TypeError, ValueError) as error:
        raise InputError(
            "evaluate, predict and validation on several devices take arrays, a tf.data.Dataset or what "
            f"gives batches. Received: {type(x).__name__}"
        ) from error


def known_batches(arguments: dict, is_endless: bool) -> dict:
    """Arguments with a dataset in place of what gives batches, so that their shapes are known.

    Args:
        arguments: of `fit`, `evaluate` or `predict`.
        is_endless: whether one pass follows the other, as in `fit`.

    Raises:
        InputError: `fit` cannot know how many batches there are.
    """
    given = dict(arguments)
    if not gives_batches(given.get("x")):
        return given
    if is_endless:
        given["steps_per_epoch"] = given.get("steps_per_epoch") or _count_of_pass(given["x"])
        if not given["steps_per_epoch"]:
            raise InputError(f"A {type(given['x']).__name__} needs steps_per_epoch.")
    given["x"] = _generated(given["x"], is_endless, is_endless and given.get("shuffle", True))
    return given


def any_batches(distribution: Distribution, arguments: dict) -> dict:
    """The arguments of `fit` in a user's own scope, where batches of any size are shared.

    Raises:
        InputError: a dataset does not know its number of batches; or `class_weight` with a batch that cannot
            be shared equally.
    """
    import tensorflow as tf

    arguments = guards.split_validation(arguments)
    x, size = arguments["x"], arguments.get("batch_size") or 32
    if not isinstance(x, tf.data.Dataset):
        arrays = keras.tree.flatten(x)
        if not all(hasattr(one, "shape") for one in arrays):
            return arguments  # a distributed dataset; or Keras says what is wrong
        if not len(arrays[0]) % size and not size % distribution.num_replicas:
            return arguments  # Keras shares them equally
        names = [name for name in ("x", "y", "sample_weight") if arguments.get(name) is not None]
        given = keras.tree.lists_to_tuples(tuple(arguments[name] for name in names))
        rows = tf.data.Dataset.from_tensor_slices(given)
        if arguments.get("shuffle", True):
            rows = rows.shuffle(len(arrays[0]), reshuffle_each_iteration=True)
        x = rows.batch(size)
        arguments = {key: value for key, value in arguments.items() if key not in (*names, "batch_size")}
    elif _is_shared_equally(x, distribution.num_replicas):
        return arguments  # Keras shares them
    if arguments.get("class_weight"):
        raise InputError(
            "class_weight needs batches here that all devices share equally: use arrays and leave some "
            "images out, or use sample_weight."
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


def gives_batches(x: Any) -> bool:
    """Whether it gives one batch after the other: a PyDataset, a DataLoader, a generator."""
    if isinstance(x, keras.utils.PyDataset):
        return True
    is_data = hasattr(x, "shape") or hasattr(x, "element_spec") or isinstance(x, list | tuple | dict | str)
    return hasattr(x, "__iter__") and not is_data


def _count_of_pass(x: Any) -> int | None:
    """The number of batches that one pass gives, if it knows it."""
    if isinstance(x, keras.utils.PyDataset):
        return x.num_batches
    return len(x) if hasattr(x, "__len__") else None


def _generated(x: Any, is_endless: bool = False, shuffle: bool = False) -> Any:
    """A dataset of what gives batches.

    Args:
        x: see `gives_batches`.
        is_endless: whether one pass follows the other.
        shuffle: whether each pass of a PyDataset has an order of its own, as in Keras's `fit`.
    """
    import tensorflow as tf

    count = _count_of_pass(x)
    is_numbered = isinstance(x, keras.utils.PyDataset)
    first = None
    if count != 0:
        first = x[0] if is_numbered else next(iter(x), None)
    if first is None:
        raise InputError(f"This {type(x).__name__} gives no batch.")
    if not is_numbered and iter(x) is x:  # a generator gives each batch once
        x = itertools.chain([first], x)
    signature = keras.tree.map_structure(
        lambda one: tf.TensorSpec((None, *one.shape[1:]), one.dtype), _arrays(first)
    )
    batches = tf.data.Dataset.from_generator(
        lambda: map(_arrays, _one_pass(x, count, shuffle)), output_signature=signature
    )
    if is_endless:
        return batches.repeat()  # from the beginning, in another order
    return batches if count is None else batches.apply(tf.data.experimental.assert_cardinality(count))


def _one_pass(x: Any, count: int | None, shuffle: bool) -> Iterator[Any]:
    if not isinstance(x, keras.utils.PyDataset):
        yield from x
        return
    numbers: Iterable[int] = itertools.count() if count is None else range(count)
    for number in random.sample(range(count), count) if shuffle and count is not None else numbers:
        yield x[number]
    x.on_epoch_end()


def _arrays(batch: Any) -> Any:
    return keras.tree.map_structure(keras.ops.convert_to_numpy, keras.tree.lists_to_tuples(batch))


def _is_shared_equally(batches: Any, count: int) -> bool:
    """Whether all batches of a dataset have one size, of which `count` replicas get equal shares."""
    sizes = {spec.shape[0] if spec.shape.rank else None for spec in keras.tree.flatten(batches.element_spec)}
    return None not in sizes and len(sizes) == 1 and int(sizes.pop() or 0) % count == 0


def _shares(batches: Any, count: int) -> Any:
    """The shares of each batch, as equal as its rows allow, one after the other.

    Each replica gets one. Of fewer rows than replicas, each gets all: then the gradients are right, and the
    batch counts more in the mean of the epoch's logs.
    """
    import tensorflow as tf

    numbers = tf.data.Dataset.range(count)
    return batches.flat_map(lambda *batch: numbers.map(lambda number: share_of(batch, number, count)))


def share_of(batch: Any, number: Any, count: int) -> Any:
    """The rows of a batch of TensorFlow's that one of `count` replicas gets."""
    import tensorflow as tf

    rows = tf.shape(keras.tree.flatten(batch)[0], out_type=tf.int64)[0]
    first = tf.where(rows < count, tf.zeros_like(rows), rows * number // count)
    last = tf.where(rows < count, rows, rows * (number + 1) // count)
    return keras.tree.map_structure(lambda one: one[first:last], batch)


def count_of(batches: Any) -> int | None:
    """The number of batches, or `None` if the dataset does not know it."""
    count = int(batches.cardinality())
    return count if count >= 0 else None


def apply_to_all(
    optimizer: keras.optimizers.Optimizer, change: Callable[[list, Any], list] | None = None
) -> Callable[..., Any]:
    """An `optimizer.apply` that sees the gradients of the whole batch instead of those of each replica.

    Args:
        optimizer: of Keras, which adds up the gradients of the replicas at its very end.
        change: what is done to the gradients before, such as `clip`. Keras's own clipping then has nothing
            left to clip.
    """
    keras_apply = optimizer.apply

    def apply(grads, trainable_variables=None):
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        there = [gradient for gradient in grads if gradient is not None]
        summed = context.all_reduce(tf.distribute.ReduceOp.SUM, there)
        changed = iter(change(summed, optimizer) if change else summed)
        count = context.num_replicas_in_sync  # Keras sums over the replicas once more
        shares = [None if gradient is None else next(changed) / count for gradient in grads]
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
