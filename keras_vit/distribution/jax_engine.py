"""keras.distribution: DataParallel and ModelParallel, in one process or many."""

import contextlib
import os
import re
from typing import Any

import jax
import keras
import numpy as np

from keras_vit.distribution import guards
from keras_vit.distribution.cluster import Cluster
from keras_vit.distribution.engine import Distribution, lost_process
from keras_vit.distribution.loopback import is_loopback
from keras_vit.errors import InputError

# How the kernels of a ViT are split: by columns at the start of a branch, by rows at its end, so that nothing
# is exchanged in between. The head stays whole: the number of classes is seldom a multiple of the devices.
LAYOUT = {
    r".*block_\d+/attention/qkv/kernel": (None, "model"),
    r".*block_\d+/attention/qkv/bias": ("model",),
    r".*block_\d+/attention/projection/kernel": ("model", None),
    r".*block_\d+/mlp/expand/kernel": (None, "model"),
    r".*block_\d+/mlp/expand/bias": ("model",),
    r".*block_\d+/mlp/contract/kernel": ("model", None),
}


class _WholeBatches:
    """If `whole_batches` is set, every process and device sees whole batches instead of its share."""

    whole_batches = False

    def get_data_layout(self, data_shape):
        if self.whole_batches:
            return keras.distribution.TensorLayout([None] * len(data_shape), self.device_mesh)  # type: ignore
        return super().get_data_layout(data_shape)  # type: ignore[misc]


class _DataParallel(_WholeBatches, keras.distribution.DataParallel):
    pass


class _ModelParallel(_WholeBatches, keras.distribution.ModelParallel):
    def get_variable_layout(self, variable):
        layout = super().get_variable_layout(variable)
        pieces = dict(zip(self.device_mesh.axis_names, self.device_mesh.shape, strict=True))
        for size, axis in zip(variable.shape, layout.axes, strict=True):
            if axis and size % pieces[axis]:
                raise InputError(
                    f"{variable.path} of shape {tuple(variable.shape)} cannot be split over {pieces[axis]} "
                    f"devices, because {size} is not a multiple: use fewer model_devices, or another width."
                )
        return layout


class Sharded(Distribution):
    """A mesh of devices: its first axis shares the batch, its second axis, if any, splits the kernels."""

    def __init__(self, kind: str, names: list[str], cluster: Cluster, model_devices: int, layout: dict):
        self.kind = kind
        self.num_devices = len(names)
        self.num_processes, self.process_id = cluster.num_processes, cluster.process_id
        self.model_devices = model_devices
        self.num_replicas = self.num_devices // model_devices
        self.layout = layout
        if kind == "data":
            self.engine = "keras.distribution.DataParallel"
            self.sharding = _DataParallel(devices=names, auto_shard_dataset=False)
            return
        self.engine = "keras.distribution.ModelParallel"
        mesh = keras.distribution.DeviceMesh((self.num_replicas, model_devices), ("batch", "model"), names)
        rules = keras.distribution.LayoutMap(mesh)
        for pattern, axes in layout.items():
            rules[pattern] = tuple(axes)
        self.sharding = _ModelParallel(layout_map=rules, batch_dim_name="batch", auto_shard_dataset=False)

    def scope(self):
        return self.sharding.scope()

    def check_model(self, model):
        for pattern in self.layout:
            optional = pattern in LAYOUT and pattern.endswith("bias")  # a ViT may have no biases
            if not optional and not any(re.fullmatch(pattern, variable.path) for variable in model.weights):
                raise InputError(
                    f"The layout rule {pattern!r} matches no weight of this model, so nothing would be split "
                    f"by it: fix the rule; the path of a weight is for example {model.weights[0].path!r}."
                )

    def check_compile(self, model, arguments):
        if self.num_processes > 1:
            guards.refuse(arguments, "steps_per_execution", "several JAX processes")
        optimizer = guards.optimizer_of(arguments)
        mine = set(self.sharding.device_mesh.backend_mesh.devices.flat)
        if optimizer.variables[0].value.sharding.device_set != mine:
            raise InputError("This optimizer was made outside of distribute(): make it inside.")
        return {**arguments, "optimizer": optimizer}

    def fit_arguments(self, model, arguments):
        guards.check_batches(self, arguments)
        return {**arguments, "x": guards.process_share(self, arguments["x"])}

    @contextlib.contextmanager
    def evaluating(self):
        before, self.sharding.whole_batches = self.sharding.whole_batches, True
        try:
            yield
        finally:
            self.sharding.whole_batches = before

    def values(self, variables):
        return [_whole(variable.value) for variable in variables]

    def broadcast(self, array):
        from jax.experimental.multihost_utils import broadcast_one_to_all

        return np.asarray(broadcast_one_to_all(array, is_source=self.is_chief))

    def lost(self, error):
        gone = isinstance(error, jax.errors.JaxRuntimeError) and any(
            word in str(error)
            for word in ("Gloo", "UNAVAILABLE", "DEADLINE", "heartbeat", "NCCL", "closed by")
        )
        return lost_process(error) if gone and self.num_processes > 1 else None


def _whole(value: Any) -> np.ndarray:
    """The whole value of an array that may be split over the devices of this process."""
    if value.is_fully_addressable or value.is_fully_replicated:
        return np.asarray(value)
    whole = np.empty(value.shape, value.dtype)
    for shard in value.addressable_shards:
        whole[shard.index] = shard.data
    return whole


def jax_distribution(
    kind: str, devices: int | None, cluster: Cluster, model_devices: int | None, layout: dict | None
) -> Distribution:
    """See `distribute`."""
    _host_devices(devices)
    if cluster.num_processes > 1 and not jax.distributed.is_initialized():
        _join(cluster)
    here = jax.local_device_count()
    if devices and devices > here:
        raise InputError(
            f"devices={devices} is more than the {here} that JAX has here: use fewer, or, on a CPU, enter "
            "distribute() before anything else uses JAX."
        )
    chosen = [d for d in jax.devices() if devices is None or _number_in_process(d) < devices]
    if len(chosen) == 1:
        return Distribution()
    names = [f"{device.platform}:{device.id}" for device in chosen]
    if kind != "model":
        return Sharded("data", names, cluster, 1, {})
    per_process = len(names) // cluster.num_processes
    cut = model_devices or per_process
    if per_process % cut:
        raise InputError(
            f"model_devices={cut} does not divide the {per_process} devices of a process, and a copy of the "
            f"model cannot leave its process: use a divisor of {per_process}."
        )
    return Sharded("model", names, cluster, cut, {**LAYOUT, **(layout or {})})


def _number_in_process(device: Any) -> int:
    same = [other.id for other in jax.devices() if other.process_index == device.process_index]
    return sorted(same).index(device.id)


def _host_devices(count: int | None) -> None:
    """Divides the CPU into several devices, which JAX does only before it starts."""
    if count and "xla_force_host_platform_device_count" not in os.environ.get("XLA_FLAGS", ""):
        with contextlib.suppress(RuntimeError):  # JAX has started: the number of devices is checked later
            jax.config.update("jax_num_cpu_devices", count)


def _join(cluster: Cluster) -> None:
    address = cluster.addresses[0] if cluster.addresses else None
    known = (cluster.num_processes, cluster.process_id) if address else (None, None)
    if address and is_loopback(address):  # JAX would listen on all addresses of the machine
        os.environ.setdefault("JAX_COORDINATOR_BIND_ADDRESS", address)
    try:
        keras.distribution.initialize(address, *known)
    except RuntimeError as error:
        raise InputError(
            f"The processes of this run could not join ({str(error).splitlines()[0]}): start all of them, "
            "and enter distribute() before anything else uses JAX."
        ) from error
