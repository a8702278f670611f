"""Checks that several backends share: they refuse what would silently differ from one device."""

import math
import random
from collections.abc import Collection
from typing import Any

import keras
import numpy as np

from keras_vit.distribution.engine import Distribution, ProcessShare
from keras_vit.distribution.layers_inside import all_layers, of_this_package
from keras_vit.errors import InputError

EQUAL_SHARES = ("sum_over_batch_size", "mean")


def refuse(arguments: dict, name: str, engine: str, allowed: Collection[Any] = (None, 1)) -> None:
    """Refuses an argument of `compile` that does not work under an engine."""
    if arguments.get(name) not in allowed:
        raise InputError(f"{name}={arguments[name]} does not work under {engine}: leave it out.")


def check_compiled_steps(arguments: dict, engine: str) -> None:
    """Refuses XLA and several steps per execution."""
    refuse(arguments, "jit_compile", engine, allowed=(None, "auto", False))
    refuse(arguments, "steps_per_execution", engine)


def check_losses(arguments: dict, engine: str, allowed: Collection[str] = EQUAL_SHARES) -> None:
    """Refuses losses whose gradient is not the mean of the replicas' gradients."""
    for loss in keras.tree.flatten(arguments.get("loss")):
        reduction = getattr(loss, "reduction", EQUAL_SHARES[0])
        if reduction not in allowed:
            raise InputError(
                f"A loss with reduction={reduction!r} differs from one device under {engine}: use "
                f"reduction={EQUAL_SHARES[0]!r}."
            )


def optimizer_of(arguments: dict) -> keras.optimizers.Optimizer:
    """The optimizer that `compile` got, as an object."""
    return keras.optimizers.get(arguments["optimizer"])


def check_batch_norms(model: keras.Model, engine: str, instead: str) -> None:
    """Refuses batch normalization by the statistics of each replica; that of this package takes all."""
    for layer in all_layers(model):
        if (
            isinstance(layer, keras.layers.BatchNormalization)
            and not (of_this_package(layer) or layer.synchronized)
            and layer.trainable
        ):
            raise InputError(
                f"The layer {layer.name!r} would normalise the share of each device by itself under "
                f"{engine}, which differs from one device: {instead}, or freeze it."
            )


def split_validation(arguments: dict) -> dict:
    """The arguments of `fit` with `validation_data` in place of `validation_split`, as Keras splits."""
    given = dict(arguments)
    share = given.pop("validation_split", None)
    if not share or given.get("validation_data") is not None:
        return given
    names = [name for name in ("x", "y", "sample_weight") if given.get(name) is not None]
    arrays = keras.tree.flatten([given[name] for name in names])
    if not all(hasattr(one, "shape") for one in arrays):
        raise InputError(
            "Without arrays, validation_split does not work on several devices: use validation_data."
        )
    first = math.floor(len(arrays[0]) * (1.0 - share))
    parts = keras.tree.map_structure
    given["validation_data"] = tuple(parts(lambda one: one[first:], given[name]) for name in names)
    given.update({name: parts(lambda one: one[:first], given[name]) for name in names})
    return given


def check_batches(distribution: Distribution, arguments: dict) -> dict:
    """Refuses batches for `fit` that the replicas cannot share equally, including a partial last batch.

    Returns:
        The arguments; arrays of fewer rows than a batch become one batch, as on one device.

    Raises:
        InputError: it names the wrong size and how to fix it.
    """
    arguments = split_validation(arguments)
    x = arguments["x"]
    if isinstance(x, ProcessShare):
        size = batch_size_of(x.batches)
        distribution.check_batch_size(size * distribution.num_processes)
        return arguments
    if hasattr(x, "element_spec"):
        distribution.check_batch_size(batch_size_of(x))
        return arguments
    if not hasattr(x, "shape"):
        raise InputError(
            f"fit on several devices takes arrays or a tf.data.Dataset. Received: x={type(x).__name__}"
        )
    size = min(arguments.get("batch_size") or 32, len(x))
    distribution.check_batch_size(size)
    if len(x) % size:
        raise InputError(
            f"The last batch of {size} has only {len(x) % size} of {len(x)} images, which changes its "
            f"weight on several devices: leave {len(x) % size} images out, or use a tf.data.Dataset that is "
            "batched with drop_remainder=True."
        )
    return {**arguments, "batch_size": size}


def batch_size_of(dataset: Any) -> int:
    """The batch size of a dataset. Raises InputError if its batches may differ in size."""
    sizes = {spec.shape[0] if spec.shape.rank else None for spec in keras.tree.flatten(dataset.element_spec)}
    if len(sizes) != 1 or None in sizes:
        raise InputError(
            "The last batch of this dataset may be partial, which changes its weight on several "
            "devices: batch it with drop_remainder=True."
        )
    return int(sizes.pop() or 0)


def process_share(distribution: Distribution, arguments: dict) -> dict:
    """The arguments of `fit` with the share of this process of each global batch, as a dataset."""
    x = arguments["x"]
    if isinstance(x, ProcessShare):
        return {**arguments, "x": x.batches}
    if distribution.num_processes == 1:
        return arguments
    if not hasattr(x, "element_spec"):
        arguments = _in_the_same_order(distribution, arguments)
        x = arguments["x"]
    size = batch_size_of(x) // distribution.num_processes
    first = size * distribution.process_id
    share = x.map(lambda *batch: keras.tree.map_structure(lambda rows: rows[first : first + size], batch))
    return {**arguments, "x": share}


def _in_the_same_order(distribution: Distribution, arguments: dict) -> dict:
    """Arrays as a dataset of global batches that all processes shuffle in the same way."""
    import tensorflow as tf

    given = dict(arguments)
    arrays = [given.pop(name, None) for name in ("x", "y", "sample_weight")]
    rows = tf.data.Dataset.from_tensor_slices(
        tuple(keras.ops.convert_to_numpy(one) for one in arrays if one is not None)
    )
    if given.pop("shuffle", True):
        seed = distribution.broadcast(np.array([random.randrange(2**31)], "int32"))
        rows = rows.shuffle(len(arrays[0]), seed=int(seed[0]), reshuffle_each_iteration=True)
    batches = rows.batch(given.pop("batch_size"), drop_remainder=True)
    return {**given, "x": batches, "shuffle": False}
