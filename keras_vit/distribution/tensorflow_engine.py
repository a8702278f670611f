"""MirroredStrategy on one machine, MultiWorkerMirroredStrategy on several."""

import contextlib
from collections.abc import Callable
from typing import Any

import keras
import numpy as np

from keras_vit.distribution import guards
from keras_vit.distribution.cluster import Cluster
from keras_vit.distribution.engine import Distribution, lost_process
from keras_vit.errors import InputError


class Mirrored(Distribution):
    """A copy of the model on each device of this machine (tf.distribute.MirroredStrategy)."""

    kind = "data"
    engine = "MirroredStrategy"

    def __init__(self, devices: list[str]):
        import tensorflow as tf

        # By default TensorFlow tries to reduce as on GPUs, and warns on CPUs.
        reduce = tf.distribute.HierarchicalCopyAllReduce if devices[0].startswith("CPU") else None
        self.strategy = tf.distribute.MirroredStrategy(devices, cross_device_ops=reduce() if reduce else None)
        self.num_devices = self.num_replicas = len(devices)

    def scope(self):
        return self.strategy.scope()

    def check_model(self, model):
        if keras.distribution.distribution() is not None:
            raise InputError(
                "keras.distribution does nothing on the tensorflow backend: leave it out, "
                "keras_vit.distribute() is enough."
            )

    def check_compile(self, model, arguments):
        guards.check_compiled_steps(arguments, self.engine)
        guards.check_losses(arguments, self.engine, (*guards.EQUAL_SHARES, "sum"))
        optimizer = guards.optimizer_of(arguments)
        if optimizer.gradient_accumulation_steps:
            raise InputError(
                f"gradient_accumulation_steps does not work under {self.engine}: use a larger batch or remat."
            )
        if not _is_distributed(optimizer.variables[0].value):
            raise InputError("This optimizer was made outside of distribute(): make it inside.")
        if isinstance(optimizer, keras.optimizers.LossScaleOptimizer):
            raise InputError(
                f"LossScaleOptimizer does not work under {self.engine}, because its scale would differ "
                "between the devices: leave it out, and use mixed_bfloat16."
            )
        return {**arguments, "optimizer": optimizer, "jit_compile": False}

    def prepare_optimizer(self, model):
        optimizer = model.optimizer
        if any((optimizer.clipnorm, optimizer.global_clipnorm, optimizer.clipvalue)):
            optimizer.apply = clip_together(optimizer)

    def fit_arguments(self, model, arguments):
        guards.check_batches(self, arguments)
        if arguments.get("validation_data") is not None:
            whole = _as_batches(arguments["validation_data"])
            arguments["validation_data"] = self._whole_batches(whole)
            arguments.setdefault("validation_steps", _count(whole))
        return {**arguments, "x": guards.process_share(self, arguments["x"])}

    def evaluate_arguments(self, arguments):
        import tensorflow as tf

        x, y = arguments["x"], arguments.pop("y")
        if isinstance(x, tf.distribute.DistributedDataset):  # made in fit_arguments
            return arguments
        whole = _as_batches(x if y is None else (x, y), arguments.get("batch_size") or 32)
        return {
            **arguments,
            "x": self._whole_batches(whole),
            "steps": arguments.get("steps") or _count(whole),
        }

    def _whole_batches(self, batches):
        """Batches that each replica gets whole.

        With shared batches a replica would sometimes have no image, and convolutions on CPUs fail on that.
        Sums and counts grow by the same factor, so means equal those of one device.
        """
        import tensorflow as tf

        copies = self.num_replicas // self.num_processes
        return self._one_by_one(batches.flat_map(lambda *b: tf.data.Dataset.from_tensors(b).repeat(copies)))

    def _one_by_one(self, batches):
        """A dataset whose elements are each the batch of one replica."""
        return self.strategy.distribute_datasets_from_function(lambda _: batches)

    def predict(self, model, keras_predict, x, **arguments):
        """Predicts on one device of each process: Keras itself would gather the rows of all workers."""
        import tensorflow as tf

        forward = tf.function(lambda images: model(images, training=False), reduce_retracing=True)
        batches = _as_batches(x, arguments.get("batch_size") or 32)
        only_images = (batch[0] if isinstance(batch, tuple) else batch for batch in batches)
        return np.concatenate([forward(images).numpy() for images in only_images])


class MultiWorker(Mirrored):
    """A copy of the model on each device of each machine (tf.distribute.MultiWorkerMirroredStrategy)."""

    engine = "MultiWorkerMirroredStrategy"

    def __init__(self, cluster: Cluster):
        import tensorflow as tf

        try:
            self.strategy = tf.distribute.MultiWorkerMirroredStrategy()
        except RuntimeError as error:
            raise InputError(
                "TensorFlow was used in this process before it knew about the other processes: enter "
                "distribute() first."
            ) from error
        self.num_devices = self.num_replicas = self.strategy.num_replicas_in_sync
        self.num_processes, self.process_id = cluster.num_processes, cluster.process_id

    def fit_arguments(self, model, arguments):
        arguments = super().fit_arguments(model, arguments)
        batches = arguments["x"]
        size = guards.batch_size_of(batches) * self.num_processes // self.num_replicas
        if not arguments.get("steps_per_epoch"):
            arguments["steps_per_epoch"], batches = _count(batches), batches.repeat()
        # Otherwise TensorFlow would share the files or the batches once more.
        return {**arguments, "x": self._one_by_one(batches.rebatch(size, drop_remainder=True))}

    def step_logs(self, logs):
        # Keras reduces the logs of the workers along an axis, and a scalar does not have one.
        import tensorflow as tf

        return {name: tf.reshape(value, (1,)) for name, value in logs.items()}

    def broadcast(self, array):
        import tensorflow as tf

        # All reductions support int64, but not every other type of integer.
        kind = array.dtype if np.issubdtype(array.dtype, np.floating) else np.int64
        given = tf.constant((array if self.is_chief else np.zeros_like(array)).astype(kind))

        def on_replica():
            first = tf.distribute.get_replica_context().replica_id_in_sync_group == 0
            return tf.where(first, given, tf.zeros_like(given))

        found = self.strategy.reduce("SUM", self.strategy.run(on_replica), axis=None)
        return found.numpy().astype(array.dtype)

    def lost(self, error):
        import tensorflow as tf

        kinds = ("Unavailable", "Aborted", "Internal", "Cancelled", "DeadlineExceeded", "FailedPrecondition")
        gone = isinstance(error, tuple(getattr(tf.errors, f"{kind}Error") for kind in kinds))
        return lost_process(error) if gone else None


def tensorflow_distribution(kind: str, devices: int | None, cluster: Cluster) -> Distribution:
    """See `distribute`."""
    import tensorflow as tf

    if kind == "model":
        raise InputError(
            "TensorFlow under Keras 3 cannot split a model over devices, keras.distribution does nothing "
            "there: use the JAX backend (KERAS_BACKEND=jax) for kind 'model', or kind 'data'."
        )
    gpus = tf.config.list_physical_devices("GPU")
    if cluster.num_processes > 1:
        _keep_gpus(gpus, devices)
        return MultiWorker(cluster)
    if gpus:
        if devices and devices > len(gpus):
            raise InputError(f"devices={devices} is more than the {len(gpus)} GPUs here: use fewer.")
        names = [f"GPU:{i}" for i in range(devices or len(gpus))]
    else:
        names = _logical_cpus(devices or 1)
    return Mirrored(names) if len(names) > 1 else Distribution()


def _keep_gpus(gpus: list, devices: int | None) -> None:
    import tensorflow as tf

    if devices is None:
        return
    if devices > max(len(gpus), 1):
        raise InputError(
            f"devices={devices} is more than the {len(gpus) or 'one CPU'} that TensorFlow can use in each of "
            "several processes: use fewer, or start more processes."
        )
    with contextlib.suppress(RuntimeError):  # TensorFlow has started: MultiWorker raises the error
        tf.config.set_visible_devices(gpus[:devices], "GPU")


def _logical_cpus(count: int) -> list[str]:
    """The names of `count` CPU devices, into which TensorFlow divides the CPU before it starts."""
    import tensorflow as tf

    if count > 1:
        one = tf.config.list_physical_devices("CPU")[0]
        configuration = [tf.config.LogicalDeviceConfiguration()] * count
        try:
            tf.config.set_logical_device_configuration(one, configuration)
        except RuntimeError as error:
            found = len(tf.config.list_logical_devices("CPU"))
            if found < count:
                raise InputError(
                    f"TensorFlow has started with {found} CPU device{'s' * (found > 1)}, it is too late for "
                    f"{count}: enter distribute(devices={count}) before anything else uses TensorFlow."
                ) from error
    return [f"CPU:{i}" for i in range(count)]


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


def _as_batches(x: Any, batch_size: int = 32) -> Any:
    """A dataset of batches, which is made from arrays if `x` is not a dataset."""
    import tensorflow as tf

    if isinstance(x, tf.data.Dataset):
        return x
    return tf.data.Dataset.from_tensor_slices(tuple(x) if isinstance(x, list) else x).batch(batch_size)


def _count(batches: Any) -> int | None:
    """The number of batches, or `None` if the dataset does not know it."""
    count = int(batches.cardinality())
    return count if count >= 0 else None


def _is_distributed(variable: Any) -> bool:
    import tensorflow as tf

    return isinstance(variable, tf.distribute.DistributedValues)
