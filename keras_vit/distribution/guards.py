"""Checks that several backends share: they refuse what would silently differ from one device."""

from collections.abc import Collection
from typing import Any

import keras

from keras_vit.distribution.engine import Distribution, ProcessShare
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


def check_batches(distribution: Distribution, arguments: dict) -> None:
    """Refuses batches for `fit` that the replicas cannot share equally, including a partial last batch.

    Raises:
        InputError: it names the wrong size and how to fix it.
    """
    x = arguments["x"]
    if arguments.get("validation_split"):
        raise InputError("validation_split does not work on several devices: use validation_data.")
    if isinstance(x, ProcessShare):
        size = batch_size_of(x.batches)
        distribution.check_batch_size(size * distribution.num_processes)
        return
    if hasattr(x, "element_spec"):
        distribution.check_batch_size(batch_size_of(x))
        return
    if distribution.num_processes > 1:
        raise InputError(
            "fit in several processes takes a tf.data.Dataset of global batches, the same in each process. "
            f"Received: x={type(x).__name__}"
        )
    if not hasattr(x, "shape"):
        raise InputError(
            f"fit on several devices takes arrays or a tf.data.Dataset. Received: x={type(x).__name__}"
        )
    size = arguments.get("batch_size") or 32
    distribution.check_batch_size(size)
    if len(x) % size:
        raise InputError(
            f"The last batch of {size} has only {len(x) % size} of {len(x)} images, which changes its "
            f"weight on several devices: leave {len(x) % size} images out, or use a tf.data.Dataset that is "
            "batched with drop_remainder=True."
        )


def batch_size_of(dataset: Any) -> int:
    """The batch size of a dataset. Raises InputError if its batches may differ in size."""
    sizes = {spec.shape[0] if spec.shape.rank else None for spec in keras.tree.flatten(dataset.element_spec)}
    if len(sizes) != 1 or None in sizes:
        raise InputError(
            "The last batch of this dataset may be partial, which changes its weight on several "
            "devices: batch it with drop_remainder=True."
        )
    return int(sizes.pop() or 0)


def process_share(distribution: Distribution, x: Any) -> Any:
    """The share of this process of each global batch, as a dataset."""
    if isinstance(x, ProcessShare):
        return x.batches
    if distribution.num_processes == 1:
        return x
    size = batch_size_of(x) // distribution.num_processes
    first = size * distribution.process_id
    return x.map(lambda *batch: keras.tree.map_structure(lambda rows: rows[first : first + size], batch))
