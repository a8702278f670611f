"""MirroredStrategy on one machine, MultiWorkerMirroredStrategy on several."""

import contextlib
import json
from typing import Any

import keras
import numpy as np

from keras_vit.distribution import guards
from keras_vit.distribution.cluster import Cluster, read_cluster
from keras_vit.distribution.engine import Distribution, built_outside, known, lost_process, made_outside
from keras_vit.distribution.tensorflow_batches import (
    any_batches,
    apply_to_all,
    as_batches,
    clip,
    count_of,
    known_batches,
)
from keras_vit.errors import InputError


class Mirrored(Distribution):
    """A copy of the model on each device of this machine (tf.distribute.MirroredStrategy).

    Args:
        strategy: TensorFlow's own object, ours or the user's.
    """

    kind = "data"

    def __init__(self, strategy: Any):
        self.strategy = strategy
        self.engine = type(strategy).__name__
        self.num_devices = self.num_replicas = strategy.num_replicas_in_sync

    def scope(self):
        return self.strategy.scope()

    def owns(self, model):
        return _home(model) is self.strategy

    def check_home(self, model):
        if model.weights and not self.owns(model):
            raise built_outside(self)

    def check_model(self, model):
        if keras.distribution.distribution() is not None:
            raise InputError(
                "keras.distribution does nothing on the tensorflow backend: leave it out, "
                "keras_vit.distribute() is enough."
            )
        if self.was_entered:
            guards.check_batch_norms(model, self.engine, "use synchronized=True")

    def check_compile(self, model, arguments):
        guards.check_compiled_steps(arguments, self.engine)
        guards.check_losses(arguments, self.engine, (*guards.EQUAL_SHARES, "sum"))
        optimizer = guards.optimizer_of(arguments)
        if _without_scaling(optimizer).gradient_accumulation_steps:
            raise InputError(
                f"gradient_accumulation_steps does not work under {self.engine}: use a larger batch or remat."
            )
        if not _is_distributed(optimizer.variables[0].value):
            raise made_outside(self)
        return {**arguments, "optimizer": optimizer, "jit_compile": False}

    def prepare_optimizer(self, model):
        optimizer = _without_scaling(model.optimizer)
        if "apply" in vars(model.optimizer) or "apply" in vars(optimizer):
            return
        if any((optimizer.clipnorm, optimizer.global_clipnorm, optimizer.clipvalue)):
            optimizer.apply = apply_to_all(optimizer, clip)
        if optimizer is not model.optimizer:
            # Keras looks for overflow in the gradients of the first replica only.
            model.optimizer.apply = apply_to_all(model.optimizer)

    def known_batches(self, arguments, is_fit):
        return known_batches(arguments, is_fit) if self.takes_any_batches or not is_fit else arguments

    @property
    def takes_any_batches(self):
        """Whether batches are shared whatever their size: in a user's own scope, as in Keras."""
        return not self.was_entered and self.num_processes == 1

    def spec_of(self, batches):
        import tensorflow as tf

        if not isinstance(batches, tf.distribute.DistributedDataset):
            return super().spec_of(batches)
        first = next(iter(batches))  # its element_spec does not tell the shapes
        return tf.nest.map_structure(lambda one: self.strategy.experimental_local_results(one)[0], first)

    def fit_arguments(self, model, arguments):
        arguments = (any_batches if self.takes_any_batches else guards.check_batches)(self, arguments)
        if arguments.get("validation_data") is not None:
            size = arguments.get("validation_batch_size") or arguments.get("batch_size")
            whole = as_batches(arguments["validation_data"], size or 32)
            arguments["validation_data"] = self._whole_batches(whole)
            if arguments.get("validation_steps") is None:
                arguments["validation_steps"] = count_of(whole)
        return guards.process_share(self, arguments)

    def tracked_loss(self, loss, rows):
        """The gradients of unequal shares, which Keras would add up as if they were equal."""
        import tensorflow as tf

        context = tf.distribute.get_replica_context()
        if self.num_processes > 1 or context is None:  # the shares are equal; or not in a step
            return loss
        rows = tf.cast(rows, loss.dtype)
        of_all = context.all_reduce(tf.distribute.ReduceOp.SUM, rows)
        weighted = loss * rows * self.num_replicas / of_all
        return tf.stop_gradient(loss - weighted) + weighted

    def evaluate_arguments(self, arguments):
        import tensorflow as tf

        if isinstance(arguments["x"], tf.distribute.DistributedDataset):  # made in fit_arguments
            return arguments
        data = [arguments.pop(name, None) for name in ("x", "y", "sample_weight")]
        given = tuple(one for one in data if one is not None)
        whole = as_batches(given[0] if len(given) == 1 else given, arguments.get("batch_size") or 32)
        return {
            **arguments,
            "x": self._whole_batches(whole),
            "steps": arguments.get("steps") or count_of(whole),
        }

    def _whole_batches(self, batches):
        """Batches that each replica gets whole.

        With shared batches a replica would sometimes have no image, and convolutions on CPUs fail on that.
        Sums and counts grow by the same factor, so means equal those of one device.
        """
        import tensorflow as tf

        copies = self.num_replicas // self.num_processes
        return self.one_by_one(batches.flat_map(lambda *b: tf.data.Dataset.from_tensors(b).repeat(copies)))

    def one_by_one(self, batches):
        """A dataset whose elements are each the batch of one replica."""
        return self.strategy.distribute_datasets_from_function(lambda _: batches)

    def predict(self, model, keras_predict, x, **arguments):
        """Predicts on one device of each process: Keras itself would gather the rows of all workers."""
        import tensorflow as tf

        forward = tf.function(lambda images: model(images, training=False), reduce_retracing=True)
        batches = x
        if not isinstance(x, tf.data.Dataset):  # one element per row, also where x is a list of arrays
            batches = as_batches((x,), arguments.get("batch_size") or 32)
        if arguments.get("steps"):
            batches = batches.take(arguments["steps"])
        only_images = (batch[0] if isinstance(batch, tuple) else batch for batch in batches)
        found = [keras.tree.map_structure(lambda one: one.numpy(), forward(images)) for images in only_images]
        return keras.tree.map_structure(lambda *pieces: np.concatenate(pieces), *found)


class MultiWorker(Mirrored):
    """A copy of the model on each device of each machine (tf.distribute.MultiWorkerMirroredStrategy)."""

    def __init__(self, strategy: Any, cluster: Cluster):
        super().__init__(strategy)
        self.engine = "MultiWorkerMirroredStrategy"
        self.num_processes, self.process_id = cluster.num_processes, cluster.process_id

    def fit_arguments(self, model, arguments):
        arguments = super().fit_arguments(model, arguments)
        batches = arguments["x"]
        size = guards.batch_size_of(batches) * self.num_processes // self.num_replicas
        if not arguments.get("steps_per_epoch"):
            arguments["steps_per_epoch"], batches = count_of(batches), batches.repeat()
        # Otherwise TensorFlow would share the files or the batches once more.
        return {**arguments, "x": self.one_by_one(batches.rebatch(size, drop_remainder=True))}

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


REFUSED = ("CentralStorageStrategy", "ParameterServerStrategy")
"""Strategies under which `fit` of Keras 3 gives wrong numbers, or does not work."""


def adopted_strategy(model: keras.Model | None) -> Distribution | None:
    """The devices of the strategy that the user has entered, or that a model was built in.

    Raises:
        InputError: `fit` gives wrong numbers under it.
    """
    import tensorflow as tf

    strategy = tf.distribute.get_strategy() if tf.distribute.has_strategy() else None
    if strategy is None and model is not None:
        strategy = _home(model)
    if strategy is None:
        return None
    name = next((name for name in REFUSED if name in _names(strategy)), None)
    if name:
        raise InputError(
            f"fit of Keras 3 gives wrong numbers, or fails, under TensorFlow's own {name}: use "
            "tf.distribute.MirroredStrategy() or keras_vit.distribute()."
        )
    if strategy.num_replicas_in_sync == 1:
        return None  # what Keras does there is what it does on one device
    found = next((one for one in known if getattr(one, "strategy", None) is strategy), None)
    if found is None:
        cluster = _cluster_of(strategy)
        found = MultiWorker(strategy, cluster) if cluster.num_processes > 1 else Mirrored(strategy)
        found.remember()
    return found


def _names(strategy: Any) -> list[str]:
    # TensorFlow has two classes of some strategies, ...V1 and ...V2.
    return [one.__name__.removesuffix("V1").removesuffix("V2") for one in type(strategy).__mro__]


def _cluster_of(strategy: Any) -> Cluster:
    """The processes of a user's strategy, as its resolver knows them."""
    resolver = strategy.cluster_resolver
    workers = resolver.cluster_spec().as_dict() if resolver is not None else {}
    if not workers or resolver.task_type is None:
        return Cluster()
    task = {"type": resolver.task_type, "index": resolver.task_id}
    return read_cluster("tensorflow", {"TF_CONFIG": json.dumps({"cluster": workers, "task": task})})


def _home(model: keras.Model) -> Any:
    """The strategy that a model was built in; `None` outside of any."""
    import tensorflow as tf

    if model.weights:
        return getattr(model.weights[0].value, "distribute_strategy", None)
    home = model.distribute_strategy  # where there is none, what is in use now
    return home if tf.distribute.has_strategy() or home is not tf.distribute.get_strategy() else None


def tensorflow_distribution(kind: str, devices: int | None, cluster: Cluster) -> Distribution:
    """See `distribute`."""
    import tensorflow as tf

    if kind == "model":
        raise InputError(
            "TensorFlow under Keras 3 cannot split a model over devices, keras.distribution does nothing "
            "there: use the JAX backend (KERAS_BACKEND=jax) for kind 'model', or kind 'data'."
        )
    gpus = tf.config.get_visible_devices("GPU")
    if cluster.num_processes > 1:
        _keep_gpus(gpus, devices)
        return MultiWorker(_multi_worker_strategy(), cluster)
    count = sum(map(_logical_count, gpus))
    if gpus:
        if devices and devices > count:
            raise InputError(f"devices={devices} is more than the {count} GPUs here: use fewer.")
        names = [f"GPU:{i}" for i in range(devices or count)]
    else:
        names = _logical_cpus(devices)
    if len(names) == 1:
        return Distribution()
    # By default TensorFlow tries to reduce as on GPUs, and warns on CPUs.
    reduce = None if gpus else tf.distribute.HierarchicalCopyAllReduce()
    return Mirrored(tf.distribute.MirroredStrategy(names, cross_device_ops=reduce))


def _multi_worker_strategy() -> Any:
    import tensorflow as tf

    try:
        return tf.distribute.MultiWorkerMirroredStrategy()
    except RuntimeError as error:
        raise InputError(
            "TensorFlow was used in this process before it knew about the other processes: enter "
            "distribute() first."
        ) from error


def _logical_count(device: Any) -> int:
    """Into how many devices the user has divided a physical one."""
    import tensorflow as tf

    return len(tf.config.get_logical_device_configuration(device) or [None])


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


def _logical_cpus(count: int | None) -> list[str]:
    """The names of `count` CPU devices, into which TensorFlow divides the CPU before it starts.

    Args:
        count: `None` for those that the user has configured, or one.
    """
    import tensorflow as tf

    one = tf.config.list_physical_devices("CPU")[0]
    configured = _logical_count(one)
    if count is None:
        count = configured
    elif count > configured:
        configuration = [tf.config.LogicalDeviceConfiguration()] * count
        try:
            tf.config.set_logical_device_configuration(one, configuration)
        except RuntimeError as error:
            raise InputError(
                f"TensorFlow has started with {configured} CPU device{'s' * (configured > 1)}, it is too "
                f"late for {count}: enter distribute(devices={count}) before anything else uses TensorFlow."
            ) from error
    return [f"CPU:{i}" for i in range(count)]


def _without_scaling(optimizer: keras.optimizers.Optimizer) -> keras.optimizers.Optimizer:
    """The optimizer inside a `LossScaleOptimizer`, or itself."""
    return getattr(optimizer, "inner_optimizer", optimizer)


def _is_distributed(variable: Any) -> bool:
    import tensorflow as tf

    return isinstance(variable, tf.distribute.DistributedValues)
