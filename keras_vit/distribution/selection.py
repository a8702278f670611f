"""distribute(): the one door."""

import keras

from keras_vit.distribution.cluster import Cluster, read_cluster
from keras_vit.distribution.engine import Distribution
from keras_vit.errors import InputError, check_choice, check_range

KINDS = ("auto", "none", "data", "model")


def distribute(
    kind: str = "auto",
    devices: int | None = None,
    *,
    model_devices: int | None = None,
    nodes: int | None = None,
    layout: dict[str, tuple] | None = None,
) -> Distribution:
    """The devices and machines that train one model together, on any backend.

    Enter it before anything else uses the backend: host devices and processes are made known at its start.

    | backend | one machine | several processes, as their launcher announces them |
    |---|---|---|
    | TensorFlow | `MirroredStrategy` | `MultiWorkerMirroredStrategy`, from TF_CONFIG |
    | JAX | `keras.distribution.DataParallel`, `ModelParallel` | `keras.distribution.initialize`, or Slurm |
    | torch | processes of torchrun | the same |

    Args:
        kind: `"data"`: each device has a copy of the model and a share of the batch. `"model"` (JAX): the
            kernels of a copy are cut over `model_devices`. `"none"`: one device. `"auto"`: `"data"` where
            there is more than one device, or more are asked for.
        devices: of each process; `None` for all GPUs or TPUs, or one CPU. More CPU devices than there are
            processors can be asked for, to try things out.
        model_devices: devices over which a copy of the model is cut; `None` for all of a process.
        nodes: machines the run must have; `None` for any.
        layout: more rules for kind `"model"`: a regular expression for the path of a weight -> for each of
            its axes `"model"` or `None`.

    Returns:
        A `Distribution`, to be used as a context manager. Models built inside stay on its devices.

    Raises:
        InputError: the backend has no such kind, the devices or processes are not there, or the launcher's
            variables cannot be understood.

    Example:
        >>> with keras_vit.distribute():
        ...     model = keras_vit.ViT.from_variant("S/16", image_shape=(224, 224, 3), num_classes=6)
        ...     model.compile("adamw", keras.losses.CategoricalCrossentropy(from_logits=True))
        >>> model.fit(data.train, steps_per_epoch=data.steps_per_epoch, shuffle=False)
    """
    check_choice("kind", kind, KINDS)
    check_range("devices", devices, 1, None)
    check_range("model_devices", model_devices, 1, None)
    check_range("nodes", nodes, 1, None)
    if kind != "model" and (model_devices or layout):
        raise InputError(f"model_devices and layout are for kind='model'. Received: kind={kind!r}")
    backend = keras.backend.backend()
    cluster = read_cluster(backend)
    _check_nodes(nodes, cluster, backend)
    if kind == "none":
        return _one_device(devices, cluster)
    found = _on_backend(backend, kind, devices, cluster, model_devices, layout)
    if found.num_devices == 1 and kind != "auto":
        raise InputError(
            f"kind={kind!r} needs more than one device, and {backend} has one here: ask for more with "
            "devices=2 (processors can stand in for GPUs), or use kind='none'."
        )
    return found


def _one_device(devices, cluster) -> Distribution:
    if cluster.num_processes > 1:
        raise InputError(
            f"{cluster.announced_by} announces {cluster.num_processes} processes, and with kind='none' each "
            "would train a model of its own: use kind='data', or start one process."
        )
    if devices and devices > 1:
        raise InputError(f"kind='none' is one device. Received: devices={devices}")
    return Distribution()


def _on_backend(backend, kind, devices, cluster, model_devices, layout) -> Distribution:
    if backend == "tensorflow":
        from keras_vit.distribution.tensorflow_engine import tensorflow_distribution

        return tensorflow_distribution(kind, devices, cluster)
    if backend == "jax":
        from keras_vit.distribution.jax_engine import jax_distribution

        return jax_distribution(kind, devices, cluster, model_devices, layout)
    if backend == "torch":
        from keras_vit.distribution.torch_engine import torch_distribution

        return torch_distribution(kind, devices, cluster)
    raise InputError(f"The {backend} backend trains on one device: use tensorflow, jax or torch.")


LAUNCH = {
    "tensorflow": "set TF_CONFIG on each machine",
    "jax": "set KERAS_DISTRIBUTION_JOB_ADDRESSES, _NUM_PROCESSES and _PROCESS_ID on each machine",
    "torch": "start it by torchrun with --nnodes",
}


def _check_nodes(nodes, cluster: Cluster, backend):
    if nodes is not None and nodes != cluster.nodes:
        raise InputError(
            f"nodes={nodes} are asked for, and the launcher of this process announces {cluster.nodes}: "
            f"{LAUNCH.get(backend, 'start one process on each')}, see docs/cluster.md."
        )
