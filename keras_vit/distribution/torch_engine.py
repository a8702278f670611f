"""torch.distributed: processes that torchrun has started, each with a device and a copy of the model."""

import atexit
import contextlib
import ctypes
import gc
import os
import socket
import sys
import tempfile
import uuid
import weakref
from datetime import timedelta

import keras
import numpy as np
import torch
import torch.distributed as dist

from keras_vit.distribution import guards
from keras_vit.distribution.cluster import Cluster
from keras_vit.distribution.engine import Distribution, known, lost_process
from keras_vit.distribution.loopback import HOST, keep_collectives_on_loopback
from keras_vit.distribution.torch_batches import (
    any_batches,
    check_sampler,
    check_whole,
    with_one_writer,
)
from keras_vit.errors import InputError

# A process that is alive but does not answer for this long counts as lost.
TIMEOUT = timedelta(minutes=10)


class Processes(Distribution):
    """A process per device. Each optimizer gets the mean of the gradients of all processes."""

    kind = "data"
    engine = "torch.distributed"

    def __init__(self) -> None:
        self._group = weakref.ref(dist.group.WORLD)  # see `_leave`
        self.num_devices = self.num_replicas = self.num_processes = dist.get_world_size()
        self.process_id = dist.get_rank()
        self.sees_all = False
        self.rows_of_all: float | None = None  # of the step that is under way
        self.loss_of_all: torch.Tensor | None = None

    def is_current(self) -> bool:
        """Whether these are the processes of torch's default group."""
        group = self._group()
        return group is not None and group is dist.group.WORLD

    def check_compile(self, model, arguments):
        guards.check_compiled_steps(arguments, self.engine)
        guards.check_losses(arguments, self.engine)
        return {**arguments, "jit_compile": False}

    def owns(self, model):
        return self.is_current()  # torch's weights are the same on any number of processes

    def check_model(self, model):
        guards.check_batch_norms(model, self.engine, "use another normalization")

    def prepare_optimizer(self, model):
        self._count_all_rows(model)
        optimizer = model.optimizer
        if "apply" in vars(optimizer):
            return
        keras_apply = optimizer.apply

        def apply(grads, trainable_variables=None):
            # Before the optimizer does anything with them: clipping, accumulation, loss scaling.
            return keras_apply(mean_of_gradients(list(grads)), trainable_variables)

        optimizer.apply = apply

    def _count_all_rows(self, model):
        """Makes the mean of the epoch's losses weight a batch by its rows in all processes.

        By the rows of this process alone, the processes would log different losses, and callbacks that look
        at the loss would stop one of them.
        """
        tracker = next((one for one in model.metrics if one.name == "loss"), None)
        if tracker is None or "update_state" in vars(tracker):
            return
        keras_update = tracker.update_state

        def update_state(values, sample_weight=None):
            rows, self.rows_of_all = self.rows_of_all, None
            if rows is not None and not self.sees_all:
                values, sample_weight = self.loss_of_all, rows  # to the last bit the same in all processes
            return keras_update(values, sample_weight=sample_weight)

        tracker.update_state = update_state

    def fit_arguments(self, model, arguments):
        validation = arguments.get("validation_data")
        check_whole(validation[0] if isinstance(validation, tuple | list) else validation, "validation_data")
        arguments = {**arguments, "callbacks": with_one_writer(arguments.get("callbacks"))}
        if not self.was_entered:
            return any_batches(self, arguments)
        if isinstance(arguments["x"], torch.utils.data.DataLoader):
            check_sampler(self, arguments["x"])
            return arguments  # the sampler gives each process equally many
        return guards.process_share(self, guards.check_batches(self, arguments))

    def callbacks(self, model):
        return [_SameWeights()]

    def before_a_batch(self, model):
        if vars(model).get("_trained_together") is not model.optimizer:
            vars(model)["_trained_together"] = model.optimizer
            give_weights_of_chief(model)

    def evaluate_arguments(self, arguments):
        check_whole(arguments["x"], "evaluate")
        return arguments

    def predict(self, model, keras_predict, x, **arguments):
        check_whole(x, "predict")
        return keras_predict(x, **arguments)

    @contextlib.contextmanager
    def evaluating(self):
        before, self.sees_all = self.sees_all, True
        try:
            yield
        finally:
            self.sees_all = before

    def tracked_loss(self, loss, rows):
        own = torch.stack([loss.detach().double() * rows, torch.full_like(loss.detach().double(), rows)])
        dist.all_reduce(own)
        of_all = float(own[1])
        self.rows_of_all, self.loss_of_all = of_all, (own[0] / own[1]).to(loss.dtype)
        # The optimizer gets the mean over the processes, whose shares may be unequal.
        weighted = loss * (rows * self.num_processes / of_all)
        return weighted + (self.loss_of_all - weighted.detach())

    def gather(self, values):
        if self.sees_all:
            return values
        given = [keras.ops.convert_to_tensor(one) for one in keras.tree.flatten(values) if one is not None]
        leaves = [one.detach().contiguous() for one in given]
        sizes = self._of_all(torch.tensor([len(one) for one in leaves], device=leaves[0].device))

        def rows_of_all(rows, counts):
            longest = max(counts)
            if len(rows) < longest:
                rows = torch.cat([rows, rows.new_zeros((longest - len(rows), *rows.shape[1:]))])
            return torch.cat([one[:count] for one, count in zip(self._of_all(rows), counts, strict=True)])

        found = iter([rows_of_all(*pair) for pair in zip(leaves, torch.stack(sizes).T.tolist(), strict=True)])
        return keras.tree.map_structure(
            lambda one: None if one is None else next(found), values, none_is_leaf=True
        )

    def _of_all(self, tensor):
        found = [torch.empty_like(tensor) for _ in range(self.num_processes)]
        dist.all_gather(found, tensor)
        return found

    def broadcast(self, array):
        tensor = torch.from_numpy(np.array(array)).to(_device())
        dist.broadcast(tensor, src=0)
        return tensor.cpu().numpy()

    def lost(self, error):
        text = str(error)
        gone = isinstance(error, dist.DistBackendError | dist.DistNetworkError) or (
            isinstance(error, RuntimeError)
            and any(word in text for word in ("gloo", "Connection closed", "Connection reset", "Timed out"))
        )
        return lost_process(error) if gone else None


def give_weights_of_chief(model: keras.Model) -> None:
    """Gives every process the weights of the chief, and the state of its optimizer."""
    optimizer = model.optimizer
    for variable in [*model.variables, *(optimizer.variables if optimizer else [])]:
        dist.broadcast(variable.value.data, src=0)


class _SameWeights(keras.callbacks.Callback):
    """Gives every process the weights of the chief before training, and checks that they stay the same.

    They would not if a `train_step` by hand used another optimizer than that of the model.
    """

    def on_train_begin(self, logs=None):
        self.checked = False
        give_weights_of_chief(self.model)

    def on_train_batch_end(self, batch, logs=None):
        if not self.checked:  # the first step tells, before hours are lost
            self.checked = True
            self._check()

    def on_epoch_end(self, epoch, logs=None):
        self._check()

    def _check(self):
        weights = self.model.weights
        sums = torch.stack([weight.value.detach().double().sum() for weight in weights])
        least, most = sums.clone(), sums.clone()
        dist.all_reduce(least, op=dist.ReduceOp.MIN)
        dist.all_reduce(most, op=dist.ReduceOp.MAX)
        for weight, low, high in zip(weights, least.tolist(), most.tolist(), strict=True):
            if low != high:
                raise InputError(
                    f"The weight {weight.path!r} differs between the processes after a step of "
                    f"{type(self.model).__name__}: in a train_step of your own, change weights by "
                    "self.optimizer only."
                )


class _DifferentiableMean(torch.autograd.Function):
    @staticmethod
    def forward(context, value):
        return _mean(value)

    @staticmethod
    def backward(context, gradient):
        return _mean(gradient)


def differentiable_mean(value: torch.Tensor) -> torch.Tensor:
    """The mean of a tensor over all processes, with gradients to each process."""
    return _DifferentiableMean.apply(value)


def mean_of_gradients(gradients: list) -> list:
    """The mean of each gradient over all processes, in one reduction."""
    there = [gradient for gradient in gradients if gradient is not None]
    flat = _mean(torch.cat([gradient.reshape(-1) for gradient in there]))
    pieces = iter(torch.split(flat, [gradient.numel() for gradient in there]))
    return [None if old is None else next(pieces).view_as(old) for old in gradients]


def _mean(value):
    value = value.detach().clone().contiguous()
    dist.all_reduce(value)
    return value / dist.get_world_size()


def _device():
    return "cuda" if torch.cuda.is_available() else "cpu"


def _join():
    if torch.cuda.is_available():
        # "cuda" in Keras is the current device.
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    backend = "nccl" if torch.cuda.is_available() else "gloo"
    # Other launchers than torchrun may not say how many processes are on this machine.
    if os.environ.get("LOCAL_WORLD_SIZE") == os.environ["WORLD_SIZE"]:
        keep_collectives_on_loopback()
        dist.init_process_group(backend, timeout=TIMEOUT, **_meeting_on_loopback())
    else:
        dist.init_process_group(backend, timeout=TIMEOUT)
    atexit.register(_leave)
    _end_without_destructors()


def _leave():
    """Ends the threads of the group before Python ends.

    One of them may still have to let go of the last tensor, for which it needs Python's lock. Python ends a
    thread that asks for it too late, and C++ then aborts the whole process. The threads end when nothing
    refers to the group, so nobody here may keep it.
    """
    if dist.is_initialized():
        dist.destroy_process_group()
    gc.collect()  # torch's own references are a cycle


def _end_without_destructors():
    """Lets the process end after Python has, with its exit code, before the destructors of C++ run.

    One of torch's sometimes finds a thread still running and aborts a process that has done its work, and
    torchrun then calls the whole run failed; it was seen three times in some fifty short runs. glibc calls
    the last `on_exit` first, with the exit code, so its `_exit` can be the function. Elsewhere nothing
    is changed.
    """
    with contextlib.suppress(OSError, AttributeError):
        libc = ctypes.CDLL(None)
        libc.on_exit(libc._exit, None)


def _meeting_on_loopback():
    """Where the processes of one machine find each other, as arguments of `init_process_group`."""
    names = ("RANK", "WORLD_SIZE", "MASTER_PORT")
    if os.environ.get("TORCHELASTIC_USE_AGENT_STORE") == "True" or not os.environ.keys() >= set(names):
        return {}  # torchrun itself listens; or torch says what is missing
    rank, count, port = (int(os.environ[name]) for name in names)
    if rank == 0:  # torch would bind it to all addresses of the machine
        listens = socket.create_server((HOST, port)).detach()
        store = dist.TCPStore(HOST, port, count, is_master=True, timeout=TIMEOUT, master_listen_fd=listens)
    else:
        store = dist.TCPStore(HOST, port, count, is_master=False, timeout=TIMEOUT)
    return {"store": store, "rank": rank, "world_size": count}


def _processes() -> Processes:
    """The devices of torch's default group; the same object for the same group."""
    for one in known:
        if isinstance(one, Processes) and one.is_current():
            return one
    found = Processes()
    found.remember()
    return found


def adopted_processes() -> Distribution | None:
    """The processes of a group that the user has initialised."""
    if not (dist.is_available() and dist.is_initialized()) or dist.get_world_size() == 1:
        return None
    return _processes()


def torch_distribution(kind: str, devices: int | None, cluster: Cluster) -> Distribution:
    """See `distribute`."""
    if kind == "model":
        raise InputError(
            "Keras 3 cannot split a model over devices on the torch backend: use the JAX backend "
            "(KERAS_BACKEND=jax) for kind 'model', or kind 'data'."
        )
    if cluster.num_processes == 1:
        if (found := adopted_processes()) is not None:  # started without a launcher
            return found
        if devices and devices > 1:
            raise InputError(
                "On the torch backend each device has its own process: start this as "
                f"`torchrun --standalone --nproc-per-node {devices} ...`."
            )
        return Distribution()
    here = int(os.environ.get("LOCAL_WORLD_SIZE", cluster.num_processes))
    if devices and devices != here:
        raise InputError(
            f"torchrun started {here} processes on this machine, one per device, but devices={devices}: "
            f"use --nproc-per-node {devices}, or leave devices out."
        )
    if not dist.is_initialized():
        try:
            _join()
        except (OSError, ValueError, RuntimeError) as error:  # dist.DistError is a RuntimeError
            raise InputError(
                f"The processes of this run could not join ({str(error).splitlines()[0]}): start all of "
                "them with torchrun and the same arguments."
            ) from error
    return _processes()


def torchrun_command(kind: str, devices: int | None, arguments: list[str]) -> list[str] | None:
    """The command to run instead of this process, so that each device has its own process.

    Args:
        kind: see `distribute`.
        devices: see `distribute`.
        arguments: of Python, in each of the processes.

    Returns:
        The torchrun command as a list of words; `None` if one process is enough, or if torchrun has started
        this one.
    """
    if kind not in ("auto", "data") or "WORLD_SIZE" in os.environ:
        return None
    count = devices or torch.cuda.device_count()
    if count < 2:
        return None
    # Like --standalone, which would listen on all addresses of the machine: the launcher meets itself in a
    # file, and leaves it to the processes how they meet.
    os.environ["TORCH_DISABLE_SHARE_RDZV_TCP_STORE"] = "1"
    meeting = {"rdzv-backend": "c10d", "rdzv-conf": "store_type=file", "rdzv-endpoint": _meeting_file()}
    options = {"nnodes": 1, "nproc-per-node": count, **meeting, "rdzv-id": uuid.uuid4()}
    run = [sys.executable, "-m", "torch.distributed.run"]
    return [*run, *(f"--{name}={value}" for name, value in options.items()), *arguments]


def _meeting_file() -> str:
    """The path of an empty file for the command that replaces this process; in memory, where that works."""
    if sys.platform != "linux":
        handle, path = tempfile.mkstemp(prefix="keras-vit-")
        os.close(handle)
        return path
    handle = os.memfd_create("torchrun")
    os.set_inheritable(handle, True)
    return f"/proc/self/fd/{handle}"
