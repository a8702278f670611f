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
from keras_vit.distribution.engine import Distribution, built_outside, known, lost_process, made_outside
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

    def shared(self, array):
        """A whole batch inside of a step, shared by the devices if they can have equal shares."""
        mesh = self.device_mesh  # type: ignore[attr-defined]
        replicas = mesh.shape[mesh.axis_names.index(self.batch_dim_name)]  # type: ignore[attr-defined]
        if not getattr(array, "ndim", 0) or array.shape[0] % replicas:
            return array
        layout = super().get_data_layout(array.shape)  # type: ignore[misc]
        return jax.lax.with_sharding_constraint(array, layout.backend_layout)


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


class _AdoptedModelParallel(_WholeBatches, keras.distribution.ModelParallel):
    """A user's ModelParallel, whose layouts stay its own affair."""

    def __init__(self, own: keras.distribution.ModelParallel):
        no_rules = keras.distribution.LayoutMap(own.device_mesh)
        super().__init__(layout_map=no_rules, batch_dim_name=own.batch_dim_name, auto_shard_dataset=False)
        self.get_variable_layout = own.get_variable_layout  # type: ignore[method-assign]
        self.get_tensor_layout = own.get_tensor_layout  # type: ignore[method-assign]


class Sharded(Distribution):
    """A mesh of devices: one axis shares the batch, another one, if any, splits the kernels.

    Args:
        sharding: one of the classes above.
        layout: the rules of ours that must split a weight of the model.
    """

    def __init__(self, sharding: Any, layout: dict | None = None):
        self.sharding, self.layout = sharding, layout or {}
        mesh = sharding.device_mesh
        self.num_devices = int(mesh.devices.size)
        self.num_processes, self.process_id = jax.process_count(), jax.process_index()
        self.num_replicas = mesh.shape[mesh.axis_names.index(sharding.batch_dim_name)]
        self.model_devices = self.num_devices // self.num_replicas
        self.kind = "model" if isinstance(sharding, keras.distribution.ModelParallel) else "data"
        self.engine = f"keras.distribution.{'Model' if self.kind == 'model' else 'Data'}Parallel"
        self.adopted_from: Any = None

    def scope(self):
        return self.sharding.scope()

    def owns(self, model):
        return bool(model.weights) and _devices_of(model.weights[0]) == self._devices()

    def check_home(self, model):
        if model.weights and not self.owns(model):
            raise built_outside(self)

    def _devices(self):
        return set(self.sharding.device_mesh.backend_mesh.devices.flat)

    def check_model(self, model):
        if not model.weights:
            return
        if self.adopted_from is not None and self.model_devices > 1:
            layouts = [self.sharding.get_variable_layout(weight).axes for weight in model.weights]
            if not any(axis for axes in layouts for axis in axes):
                raise InputError(
                    "The layout map of this ModelParallel matches no weight of this model, so nothing would "
                    "be split: fix its rules; the path of a weight is for example "
                    f"{model.weights[0].path!r}."
                )
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
        if _devices_of(optimizer.variables[0]) != self._devices():
            raise made_outside(self)
        return {**arguments, "optimizer": optimizer}

    def fit_arguments(self, model, arguments):
        if self.adopted_from is not None and self.num_processes == 1:
            # Whatever Keras takes, in batches of any size. Keras gives all batches of a pass the layout of
            # the first one, which a partial batch cannot have.
            self.sharding.whole_batches = not self._has_equal_shares(arguments)
            return arguments
        return guards.process_share(self, guards.check_batches(self, arguments))

    def _has_equal_shares(self, arguments):
        """Whether all batches of `fit` are known to have equal shares."""
        x = arguments["x"]
        leaves = keras.tree.flatten(getattr(x, "element_spec", x))
        if (
            not leaves
            or not all(hasattr(one, "shape") for one in leaves)
            or arguments.get("validation_split")
        ):
            return False
        if hasattr(x, "element_spec"):
            return all(one.shape.rank and (one.shape[0] or 1) % self.num_replicas == 0 for one in leaves)
        rows = len(leaves[0])
        size = min(arguments.get("batch_size") or 32, rows) or 1
        return rows % size == 0 and size % self.num_replicas == 0

    def step_arguments(self, arguments):
        if self.adopted_from is None or not self.sharding.whole_batches:
            return arguments
        state, data = arguments
        return state, keras.tree.map_structure(self.sharding.shared, data)

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


def _devices_of(variable: Any) -> set:
    return set(variable.value.sharding.device_set)


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
        return Sharded(_DataParallel(devices=names, auto_shard_dataset=False))
    per_process = len(names) // cluster.num_processes
    cut = model_devices or per_process
    if per_process % cut:
        raise InputError(
            f"model_devices={cut} does not divide the {per_process} devices of a process, and a copy of the "
            f"model cannot leave its process: use a divisor of {per_process}."
        )
    rules = {**LAYOUT, **(layout or {})}
    mesh = keras.distribution.DeviceMesh((len(names) // cut, cut), ("batch", "model"), names)
    layouts = keras.distribution.LayoutMap(mesh)
    for pattern, axes in rules.items():
        layouts[pattern] = tuple(axes)
    sharding = _ModelParallel(layout_map=layouts, batch_dim_name="batch", auto_shard_dataset=False)
    return Sharded(sharding, rules)


def adopted_sharding() -> Distribution | None:
    """The devices of `keras.distribution.set_distribution`, or of a scope of `keras.distribution`."""
    current = keras.distribution.distribution()
    if current is None or current.device_mesh.devices.size == 1:
        return None
    for one in known:
        if isinstance(one, Sharded) and current in (one.sharding, one.adopted_from):
            return one
    if isinstance(current, keras.distribution.ModelParallel):
        found = Sharded(_AdoptedModelParallel(current))
    elif isinstance(current, keras.distribution.DataParallel):
        found = Sharded(_DataParallel(device_mesh=current.device_mesh, auto_shard_dataset=False))
    else:
        return None  # a class of the user's: Keras alone knows what it does
    found.adopted_from = current
    found.remember()
    return found


def _number_in_process(device: Any) -> int:
    same = [other.id for other in jax.devices() if other.process_index == device.process_index]
    return sorted(same).index(device.id)


def _host_devices(count: int | None) -> None:
    """Divides the CPU into several devices, which JAX does only before it starts."""
    if "xla_force_host_platform_device_count" in os.environ.get("XLA_FLAGS", ""):
        return
    if count and count > jax.config.values["jax_num_cpu_devices"]:  # the user may have made more
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
