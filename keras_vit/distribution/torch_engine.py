"""Processes that torchrun has started, each with a device and a copy of the model (torch.distributed)."""

import atexit
import contextlib
import os
import sys
from datetime import timedelta

import keras
import numpy as np
import torch
import torch.distributed as dist

from keras_vit.distribution import guards
from keras_vit.distribution.cluster import Cluster
from keras_vit.distribution.engine import Distribution, lost_process
from keras_vit.errors import InputError

# A process that is alive but answers nothing for so long counts as lost.
TIMEOUT = timedelta(minutes=10)


class Processes(Distribution):
    """The mean of the processes' gradients is what each one's optimizer gets."""

    kind = "data"
    engine = "torch.distributed"

    def __init__(self, cluster: Cluster):
        if not dist.is_initialized():
            try:
                _join()
            except (ValueError, RuntimeError) as error:  # dist.DistError is a RuntimeError
                raise InputError(
                    f"The processes of this run could not join ({str(error).splitlines()[0]}): start all of "
                    "them, by torchrun with the same arguments."
                ) from error
        self.num_devices = self.num_replicas = self.num_processes = dist.get_world_size()
        self.process_id = dist.get_rank()
        self.judges = False

    def check_compile(self, model, arguments):
        guards.check_compiled_steps(arguments, self.engine)
        guards.check_losses(arguments, self.engine)
        return {**arguments, "jit_compile": False}

    def prepare_optimizer(self, model):
        optimizer = model.optimizer
        keras_apply = optimizer.apply

        def apply(grads, trainable_variables=None):
            # Before all that the optimizer does with them: clipping, accumulation, the scale of the loss.
            return keras_apply(mean_of_gradients(list(grads)), trainable_variables)

        optimizer.apply = apply

    def fit_arguments(self, model, arguments):
        guards.check_batches(self, arguments)
        self._begin_alike(model)
        return {**arguments, "x": guards.process_share(self, arguments["x"])}

    def _begin_alike(self, model):
        """The chief's weights for all, whatever the others were built with."""
        for variable in model.variables:
            dist.broadcast(variable.value.data, src=0)

    @contextlib.contextmanager
    def judging(self):
        before, self.judges = self.judges, True
        try:
            yield
        finally:
            self.judges = before

    def tracked_loss(self, loss):
        mean = loss.detach().clone()
        dist.all_reduce(mean)
        return loss + (mean / self.num_processes - loss.detach())

    def gather(self, values):
        if self.judges:
            return values

        def rows_of_all(rows):
            if rows is None:
                return None
            rows = rows.detach().contiguous()
            found = [torch.empty_like(rows) for _ in range(self.num_processes)]
            dist.all_gather(found, rows)
            return torch.cat(found)

        return keras.tree.map_structure(rows_of_all, values, none_is_leaf=True)

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


class _DifferentiableMean(torch.autograd.Function):
    @staticmethod
    def forward(context, value):
        return _mean(value)

    @staticmethod
    def backward(context, gradient):
        return _mean(gradient)


def differentiable_mean(value):
    """The mean of a tensor over all processes, with gradients to each."""
    return _DifferentiableMean.apply(value)


def mean_of_gradients(gradients):
    """Each gradient's mean over all processes, reduced in one piece."""
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
        # Keras's "cuda" is the current device.
        torch.cuda.set_device(int(os.environ.get("LOCAL_RANK", 0)) % torch.cuda.device_count())
    dist.init_process_group("nccl" if torch.cuda.is_available() else "gloo", timeout=TIMEOUT)
    atexit.register(dist.destroy_process_group)  # its threads abort a process that ends without it


def torch_distribution(kind: str, devices: int | None, cluster: Cluster) -> Distribution:
    """See `distribute`."""
    if kind == "model":
        raise InputError(
            "Keras 3 cannot cut a model over devices on the torch backend: use the JAX backend "
            "(KERAS_BACKEND=jax) for kind 'model', or kind 'data'."
        )
    if cluster.num_processes == 1:
        if devices and devices > 1:
            raise InputError(
                f"On the torch backend each device has a process of its own: start this as "
                f"`torchrun --standalone --nproc-per-node {devices} ...`."
            )
        return Distribution()
    here = int(os.environ.get("LOCAL_WORLD_SIZE", cluster.num_processes))
    if devices and devices != here:
        raise InputError(
            f"torchrun started {here} processes on this machine, one a device, and devices={devices} are "
            f"asked for: use --nproc-per-node {devices}, or leave devices out."
        )
    return Processes(cluster)


def torchrun_command(kind: str, devices: int | None, arguments: list[str]) -> list[str] | None:
    """What to run in place of this process, so that each device has one of its own.

    Args:
        kind, devices: see `distribute`.
        arguments: of Python, as each of the processes is to get them.

    Returns:
        The words of torchrun's command; `None` where one process is enough, or torchrun has started this one.
    """
    if kind not in ("auto", "data") or "WORLD_SIZE" in os.environ:
        return None
    count = devices or torch.cuda.device_count()
    if count < 2:
        return None
    run = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(count)]
    return [*run, *arguments]
