"""`distribute()`: selects the devices of the current backend."""

from typing import Literal

import keras

from keras_vit.distribution.ambient import current_distribution
from keras_vit.distribution.cluster import Cluster, read_cluster
from keras_vit.distribution.engine import Distribution
from keras_vit.distribution.synchronised import watch
from keras_vit.errors import InputError
from keras_vit.validation import Count, validated


@validated
class _Request:
    """The arguments of `distribute` that a type can check."""

    kind: Literal["auto", "none", "data", "model"]
    devices: Count | None
    model_devices: Count | None
    nodes: Count | None


def distribute(
    kind: str = "auto",
    devices: int | None = None,
    *,
    model_devices: int | None = None,
    nodes: int | None = None,
    layout: dict[str, tuple] | None = None,
) -> Distribution:
    """The devices and machines that train one model together, on any backend.

    Enter it before anything else uses the backend, which learns about its devices and processes at its start.

    | backend | one machine | several processes, which a launcher announces |
    |---|---|---|
    | TensorFlow | `MirroredStrategy` | `MultiWorkerMirroredStrategy`, from TF_CONFIG |
    | JAX | `keras.distribution.DataParallel`, `ModelParallel` | `keras.distribution.initialize`, or Slurm |
    | torch | processes of torchrun | the same |

    Args:
        kind: `"data"`: each device has a copy of the model and a share of the batch. `"model"` (JAX): the
            kernels of a copy are split over `model_devices`. `"none"`: one device. `"auto"`: `"data"` if
            there is more than one device, or if `devices` is more than 1.
        devices: number of devices per process; `None` for all GPUs or TPUs, or one CPU. It may be more than
            the number of processors, to try things out on a CPU.
        model_devices: number of devices that one copy of the model is split over; `None` for all devices of a
            process.
        nodes: number of machines that the run must have; `None` for any.
        layout: more rules for kind `"model"`. A rule maps a regular expression for the path of a weight to
            `"model"` or `None` per axis of the weight.

    Returns:
        A `Distribution`, a context manager. Models that are built inside stay on its devices.

    Raises:
        InputError: the backend does not have this kind, the devices or processes do not exist, or the
            variables of the launcher cannot be understood.

    Example:
        >>> with keras_vit.distribute():
        ...     model = keras_vit.ViT.from_variant("S/16", image_shape=(224, 224, 3), num_classes=6)
        ...     model.compile("adamw", keras.losses.CategoricalCrossentropy(from_logits=True))
        >>> model.fit(data.train, steps_per_epoch=data.steps_per_epoch, shuffle=False)
    """
    _Request(kind, devices, model_devices, nodes)  # type: ignore[arg-type]
    if kind != "model" and (model_devices or layout):
        raise InputError(f"model_devices and layout are for kind='model'. Received: kind={kind!r}")
    backend = keras.backend.backend()
    cluster = read_cluster(backend)
    _check_nodes(nodes, cluster, backend)
    _check_user_has_none(kind)
    if kind == "none":
        return _one_device(devices, cluster)
    found = _on_backend(backend, kind, devices, cluster, model_devices, layout)
    if found.num_devices == 1 and kind != "auto":
        raise InputError(
            f"kind={kind!r} needs more than one device, and {backend} has one: set devices=2 (on a machine "
            "without GPUs, the devices share the processors), or use kind='none'."
        )
    if found.num_devices > 1:
        watch()
    return found


def _check_user_has_none(kind: str) -> None:
    """Refuses two sets of devices at a time: that of the user's own strategy and another one."""
    current = current_distribution()
    if current.was_entered or current.num_devices == 1:
        return  # `__enter__` knows about another distribute()
    if keras.backend.backend() == "torch" and kind != "none":
        return  # the same processes
    raise InputError(
        f"This distribute() is inside your own {current.engine}, which models use without it: leave one of "
        "them out."
    )


def _one_device(devices: int | None, cluster: Cluster) -> Distribution:
    if cluster.num_processes > 1:
        raise InputError(
            f"{cluster.announced_by} announces {cluster.num_processes} processes, and with kind='none' each "
            "would train its own model: use kind='data', or start one process."
        )
    if devices and devices > 1:
        raise InputError(f"kind='none' is one device. Received: devices={devices}")
    return Distribution()


def _on_backend(
    backend: str,
    kind: str,
    devices: int | None,
    cluster: Cluster,
    model_devices: int | None,
    layout: dict[str, tuple] | None,
) -> Distribution:
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
    "torch": "start it with torchrun --nnodes",
}


def _check_nodes(nodes: int | None, cluster: Cluster, backend: str) -> None:
    if nodes is not None and nodes != cluster.nodes:
        raise InputError(
            f"nodes={nodes}, but the launcher of this process announces {cluster.nodes}: "
            f"{LAUNCH.get(backend, 'start one process on each machine')}, see docs/cluster.md."
        )
