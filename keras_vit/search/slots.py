"""The slots of a search on this machine: names, KerasTuner's variables, GPUs and processors of processes."""

import os
import socket
from dataclasses import dataclass, field
from multiprocessing.process import BaseProcess

from keras_vit.errors import InputError
from keras_vit.process.children import gpus as visible_gpus
from keras_vit.search.config import SearchConfig
from keras_vit.text import say

ADDRESS = ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")
TUNER_ID = "KERASTUNER_TUNER_ID"


@dataclass
class Slot:
    """One process of the search under one name, however often it is started again.

    Args:
        name: also its log's.
        environment: KerasTuner's variables, and the GPU.
        cores: the processors that it may use; all if there are none.
    """

    name: str
    environment: dict[str, str] = field(default_factory=dict)
    cores: tuple[int, ...] = ()
    process: BaseProcess | None = None
    deaths: int = 0
    ended_before: int = 0  # trials that had ended when its last process began
    is_done: bool = False

    @property
    def is_chief(self) -> bool:
        return "chief" in self.name


def joins_another() -> bool:
    """Whether the environment makes this machine's process a worker of a chief elsewhere."""
    return TUNER_ID in os.environ and "chief" not in os.environ[TUNER_ID]


def make_slots(config: SearchConfig) -> list[Slot]:
    """One process alone, a chief and its workers, or the one that the environment names.

    Raises:
        InputError: the environment has only some of KerasTuner's variables, or `host` is not this machine.
    """
    if TUNER_ID in os.environ:
        return [_named_slot()]
    gpus = visible_gpus()
    count = config.workers if config.workers is not None else max(len(gpus), 1)
    if count == 1 and config.host is None:
        return [Slot("tuner0", {TUNER_ID: "tuner0"})]
    host, port = config.host or "127.0.0.1", str(config.port or _free_port(config.host or "127.0.0.1"))
    address = dict(zip(ADDRESS, (host, port), strict=True))
    if config.host:
        say(
            f"To join from another machine that has {config.folder} on a shared disk:",
            f"  {TUNER_ID}=NAME {ADDRESS[0]}={host} {ADDRESS[1]}={port} "
            f"keras-vit search --out {config.folder}",
            flush=True,
        )
    chief = Slot("chief", {TUNER_ID: "chief", **address, "CUDA_VISIBLE_DEVICES": ""})
    workers = [Slot(f"worker{i}", {TUNER_ID: f"worker{i}", **address}) for i in range(count)]
    for i, worker in enumerate(workers):
        if gpus:
            worker.environment["CUDA_VISIBLE_DEVICES"] = gpus[i % len(gpus)]
        else:
            worker.cores = _share_of_cores(i, count)
    return [chief, *workers]


def _named_slot() -> Slot:
    for name in ADDRESS:
        if name not in os.environ:
            raise InputError(f"{TUNER_ID} is set and {name} is not: set it too, or unset {TUNER_ID}.")
    return Slot(os.environ[TUNER_ID], {name: os.environ[name] for name in (TUNER_ID, *ADDRESS)})


def _share_of_cores(i: int, count: int) -> tuple[int, ...]:
    """Processors for one of `count` workers, so that they do not wait for each other's threads."""
    if not hasattr(os, "sched_getaffinity"):
        return ()
    cores = sorted(os.sched_getaffinity(0))
    if count > len(cores):
        return (cores[i % len(cores)],)
    return tuple(cores[i * len(cores) // count : (i + 1) * len(cores) // count])


def _free_port(host: str) -> int:
    with socket.socket() as one:
        try:
            one.bind((host, 0))
        except OSError as error:
            raise InputError(
                f"{host} is not an address of this machine ({error.strerror}): change --host."
            ) from error
        return one.getsockname()[1]
