"""What torch's processes share of `fit`: batches of any size, and the files that callbacks write."""

import hashlib
import random
from collections.abc import Callable, Iterator
from typing import Any

import keras
import numpy as np
import torch
import torch.distributed as dist
from torch.utils.data import DataLoader, DistributedSampler, IterableDataset

from keras_vit.distribution import guards
from keras_vit.distribution.engine import Distribution, ProcessShare
from keras_vit.distribution.tensorflow_batches import share_of
from keras_vit.errors import InputError

_COMPARED_ROWS = 64

# Callbacks of Keras that write files, and where to.
_WRITE_TO = {
    keras.callbacks.ModelCheckpoint: "filepath",
    keras.callbacks.BackupAndRestore: "backup_dir",
    keras.callbacks.CSVLogger: "filename",
    keras.callbacks.TensorBoard: "log_dir",
}


def sampler_of(x: Any) -> DistributedSampler | None:
    """The DistributedSampler of a DataLoader, if it has one, also inside its `batch_sampler`."""
    if not isinstance(x, DataLoader):
        return None
    for sampler in (x.sampler, getattr(x.batch_sampler, "sampler", None)):
        if isinstance(sampler, DistributedSampler):
            return sampler
    return None


def check_sampler(distribution: Distribution, x: Any) -> None:
    """Raises InputError if a DataLoader does not give each process its own share."""
    sampler = sampler_of(x)
    if sampler is None:
        raise InputError(
            "This DataLoader gives every process all images: make it with "
            "sampler=torch.utils.data.DistributedSampler(...), or use arrays or a tf.data.Dataset."
        )
    given, expected = (
        (sampler.num_replicas, sampler.rank),
        (distribution.num_processes, distribution.process_id),
    )
    if given != expected:
        raise InputError(
            f"The DistributedSampler of this DataLoader was made for process {given[1]} of {given[0]}, but "
            f"this is process {expected[1]} of {expected[0]}: leave num_replicas and rank out."
        )


def check_whole(x: Any, place: str) -> None:
    """Raises InputError if `evaluate`, `predict` or `validation_data` gets the images of one process only."""
    if sampler_of(x) is not None:
        raise InputError(
            f"{place} gives every process the result for all images, but this DataLoader has a "
            "DistributedSampler, which leaves a part of them to each: make it without."
        )


def any_batches(distribution: Distribution, arguments: dict) -> dict:
    """The arguments of `fit` in a user's own group, where batches of any size are shared.

    All processes give the same batches in the same order, or a DataLoader with a DistributedSampler, whose
    batches are shares already.

    Raises:
        InputError: the processes give different batches.
    """
    arguments = guards.split_validation(arguments)
    x = arguments["x"]
    if isinstance(x, ProcessShare):
        return {**arguments, "x": x.batches}
    if sampler_of(x) is not None:
        check_sampler(distribution, x)
        return arguments
    share = _Share(distribution)
    if hasattr(x, "element_spec"):
        _check_same(next(iter(x.take(1).as_numpy_iterator()), None), "tf.data.Dataset")
        return {**arguments, "x": x.map(lambda *batch: share_of(batch, share.number, share.count))}
    if isinstance(x, keras.utils.PyDataset):
        _check_same(x[0], "PyDataset", x.num_batches)
        shares: Any = _Shares(share, x.num_batches, x.__getitem__, arguments.get("shuffle", True), like=x)
        return {**arguments, "x": shares}
    if isinstance(x, DataLoader):
        _check_same(next(iter(x), None), "DataLoader", len(x) if hasattr(x.dataset, "__len__") else None)
        return {**arguments, "x": DataLoader(_shared_loader(x, share), batch_size=None)}
    arrays = [one for one in keras.tree.flatten(x) if one is not None]
    if arrays and all(hasattr(one, "shape") and len(one) for one in arrays):
        return _shared_arrays(distribution, share, arguments)
    if hasattr(x, "__next__"):
        return {**arguments, "x": _shared_generator(x, share)}
    return arguments  # Keras says what is wrong


class _Share:
    """The rows of each batch that a process trains, as many in each as the batch allows.

    Of fewer rows than processes, each gets all: then the gradients are right, and the batch counts more in
    the mean of the epoch's metrics.
    """

    def __init__(self, distribution: Distribution):
        self.count, self.number = distribution.num_processes, distribution.process_id

    def of(self, batch: Any) -> Any:
        rows = next(len(one) for one in keras.tree.flatten(batch) if one is not None)
        own = slice(rows * self.number // self.count, rows * (self.number + 1) // self.count)
        if rows < self.count:
            own = slice(0, rows)
        return keras.tree.map_structure(lambda one: None if one is None else one[own], _tuples(batch))


class _Shares(keras.utils.PyDataset):
    """The shares of numbered batches, in an order that is the same in all processes.

    Args:
        share: what of each batch.
        count: how many batches; `None` for no end.
        batch: gives the batch of a number.
        shuffle: whether each pass has an order of its own.
        like: the user's dataset, for its workers.
        on_epoch_end: what is called after each pass.
    """

    def __init__(
        self,
        share: _Share,
        count: int | None,
        batch: Callable[[int], Any],
        shuffle: bool,
        like: keras.utils.PyDataset | None = None,
        on_epoch_end: Callable[[], None] = lambda: None,
    ):
        workers = {
            name: getattr(like, name) for name in ("workers", "use_multiprocessing", "max_queue_size") if like
        }
        super().__init__(**workers)
        self.share, self.count, self.batch = share, count, batch
        self.after = like.on_epoch_end if like is not None else on_epoch_end
        self.order: Any = None
        self.random = np.random.default_rng(_number_of_chief()) if shuffle and count is not None else None
        self._mix()

    @property
    def num_batches(self):
        return self.count

    def __getitem__(self, number):
        return self.share.of(self.batch(number if self.order is None else int(self.order[number])))

    def on_epoch_end(self):
        self.after()
        self._mix()

    def _mix(self):
        if self.random is not None:
            self.order = self.random.permutation(self.count or 0)


def _shared_arrays(distribution: Distribution, share: _Share, arguments: dict) -> dict:
    given = dict(arguments)
    data = tuple(given.pop(name, None) for name in ("x", "y", "sample_weight"))
    data = _tuples(keras.tree.map_structure(lambda one: None if one is None else _array(one), data))
    total = next(len(one) for one in keras.tree.flatten(data) if one is not None)
    kept = np.unique(np.linspace(0, total - 1, _COMPARED_ROWS).astype(int))
    sizes = [one.shape for one in keras.tree.flatten(data) if one is not None]
    _check_same(
        keras.tree.map_structure(lambda one: None if one is None else one[kept], data), "arrays", sizes
    )
    while data[-1] is None:
        data = data[:-1]
    size = min(given.pop("batch_size", None) or 32, total)
    mixed = np.random.default_rng(_number_of_chief()) if given.get("shuffle", True) else None
    rows = np.arange(total)

    def batch(number):
        own = rows[number * size : (number + 1) * size]
        return keras.tree.map_structure(lambda one: None if one is None else one[own], data)

    def mix():
        if mixed is not None:
            mixed.shuffle(rows)

    mix()
    shares = _Shares(share, -(-total // size), batch, shuffle=False, on_epoch_end=mix)
    return {**given, "x": shares, "shuffle": False}


def _shared_generator(x: Iterator[Any], share: _Share) -> Iterator[Any]:
    first = next(x, None)
    _check_same(first, "generator")

    def shares():
        if first is not None:
            yield share.of(first)
        yield from map(share.of, x)

    return shares()


class _LoaderOfShares(IterableDataset):
    def __init__(self, loader: DataLoader, share: _Share):
        self.loader, self.share = loader, share

    def __iter__(self):
        return map(self.share.of, self.loader)


class _SizedLoaderOfShares(_LoaderOfShares):
    def __len__(self):
        return len(self.loader)


def _shared_loader(loader: DataLoader, share: _Share) -> _LoaderOfShares:
    kind = _SizedLoaderOfShares if hasattr(loader.dataset, "__len__") else _LoaderOfShares
    return kind(loader, share)


def _array(one: Any) -> Any:
    return one.detach().cpu().numpy() if isinstance(one, torch.Tensor) else np.asarray(one)


def _tuples(batch: Any) -> Any:
    return keras.tree.lists_to_tuples(batch)


def _number_of_chief() -> int:
    """A number of Python's random stream, that of the chief in all processes."""
    found = [random.randrange(2**31)]
    dist.broadcast_object_list(found, src=0)
    return found[0]


def _check_same(batch: Any, name: str, more: Any = None) -> None:
    """Raises InputError, in every process, if this batch differs between them.

    Of batches only the labels are compared: an augmentation may differ.
    """
    if name != "arrays" and isinstance(batch, tuple | list) and len(batch) > 1:
        batch = batch[1]
    digest = hashlib.sha256(repr(more).encode())
    for one in keras.tree.flatten(batch):
        if one is not None:
            digest.update(np.ascontiguousarray(_array(one)).tobytes())
    found: list = [None] * dist.get_world_size()
    dist.all_gather_object(found, digest.hexdigest())
    if len(set(found)) > 1:
        what = "arrays" if name == "arrays" else f"batches of this {name}"
        raise InputError(
            f"The {what} differ between the processes: give every process the same, in the same order (each "
            "trains its share of every batch), or a DataLoader with a torch.utils.data.DistributedSampler."
        )


def with_one_writer(callbacks: Any) -> Any:
    """The callbacks of `fit`, where of several processes only the first one writes a file."""
    own = (
        []
        if not callbacks or isinstance(callbacks, keras.callbacks.CallbackList)
        else keras.tree.flatten(callbacks)
    )
    paths = [_path_of(callback) for callback in own]
    found: list = [None] * dist.get_world_size()
    dist.all_gather_object(found, paths)
    written = {path for paths in found[: dist.get_rank()] for path in paths if path}
    if not written.intersection(paths):
        return callbacks
    kept = []
    for callback, path in zip(own, paths, strict=True):
        if path not in written:
            kept.append(callback)
        elif isinstance(callback, keras.callbacks.BackupAndRestore):
            kept.append(_Restore(callback))
    return kept


def _path_of(callback: Any) -> str | None:
    for kind, attribute in _WRITE_TO.items():
        if isinstance(callback, kind):
            return f"{kind.__name__} {getattr(callback, attribute)}"
    return None


class _Restore(keras.callbacks.Callback):
    """Reads what the first process has written for `BackupAndRestore`."""

    def __init__(self, callback: keras.callbacks.BackupAndRestore):
        super().__init__()
        self.callback = callback

    def on_train_begin(self, logs=None):
        self.callback.set_model(self.model)
        self.callback.on_train_begin(logs)
