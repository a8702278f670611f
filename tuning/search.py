"""search(): starts the processes of a search, keeps them alive, and draws the conclusion."""

import gc
import os
import socket
import tempfile
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from keras_vit.errors import InputError
from tuning import processes
from tuning.best import write_best
from tuning.conclude import conclude
from tuning.config import SearchConfig
from tuning.folder import begin_or_go_on, locked, logs, remember_images, timed, wall_seconds
from tuning.progress import Display, plan
from tuning.quiet import import_all, share_compilations
from tuning.record import SearchRecord, read_search, write_trials
from tuning.worker import Images, Job, prepare_images, work

MOST_DEATHS = 8  # of one process in a row without a trial that ends, before the search gives up
POLL = 0.1
SHOW_EVERY = 1.0
ADDRESS = ("KERASTUNER_ORACLE_IP", "KERASTUNER_ORACLE_PORT")
TUNER_ID = "KERASTUNER_TUNER_ID"


class SearchFailed(RuntimeError):
    """The search cannot go on; the message says why and where to read more."""


@dataclass
class Slot:
    """A place that a process of the search has, under one id, however often it is started again.

    Args:
        environment: KerasTuner's variables, and the GPU.
        cores: processors it may use; all where there are none.
    """

    name: str
    environment: dict[str, str] = field(default_factory=dict)
    cores: tuple[int, ...] = ()
    process: Any = None
    deaths: int = 0
    ended_before: int = 0  # trials that had ended when its last process began
    is_done: bool = False

    @property
    def is_chief(self) -> bool:
        return "chief" in self.name


def search(config: SearchConfig) -> SearchRecord:
    """Searches until all is tried or the time is over; goes on with a search that is in the folder.

    Args:
        config: the search. In a process whose environment has KerasTuner's variables, only that part of it
            which they name: the chief, or one worker.

    Returns:
        What was found.

    Raises:
        InputError: an option or an image cannot be used.
        SearchFailed: trials or processes fail again and again.
    """
    joins = TUNER_ID in os.environ and "chief" not in os.environ[TUNER_ID]
    if joins:
        config = _stored(config)
        _run(config, _joined_slots(), None)
        return read_search(config.folder)
    with locked(config.folder), tempfile.TemporaryDirectory(prefix="keras-vit-") as cache:
        share_compilations(cache)
        config = begin_or_go_on(config)
        images, context = _run(config, _slots(config), _stop_at(config))
        conclude(config, images, context, wall_seconds(config.folder))
    return read_search(config.folder)


def _stop_at(config) -> float | None:
    return time.time() + 60 * config.max_minutes if config.max_minutes else None


def _stored(config: SearchConfig) -> SearchConfig:
    if not (config.folder / "search.json").is_file():
        raise InputError(
            f"{config.folder} holds no search to join: start the chief first, on a disk that both see."
        )
    return begin_or_go_on(config)


def _slots(config) -> list[Slot]:
    """The processes of this machine: one alone, or a chief and its workers."""
    if TUNER_ID in os.environ:  # the chief, as a launcher names it
        return [Slot("chief", {name: os.environ[name] for name in (TUNER_ID, *ADDRESS)})]
    gpus = processes.gpus()
    count = config.workers if config.workers is not None else max(len(gpus), 1)
    if count == 1 and config.host is None:
        return [Slot("tuner0", {TUNER_ID: "tuner0"})]
    host, port = config.host or "127.0.0.1", str(config.port or _free_port(config.host or "127.0.0.1"))
    address = dict(zip(ADDRESS, (host, port), strict=True))
    if config.host:
        print(
            f"To join from another machine that has {config.folder} on a shared disk:\n  "
            f"{TUNER_ID}=NAME {ADDRESS[0]}={host} {ADDRESS[1]}={port} "
            f"python -m tuning --out {config.folder}",
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


def _joined_slots() -> list[Slot]:
    for name in ADDRESS:
        if name not in os.environ:
            raise InputError(
                f"{TUNER_ID} is set and {name} is not: set it to the chief's, or unset {TUNER_ID}."
            )
    return [Slot(os.environ[TUNER_ID], {name: os.environ[name] for name in (TUNER_ID, *ADDRESS)})]


def _share_of_cores(i, count) -> tuple[int, ...]:
    """Processors for one of `count` workers, so that they do not wait for each other's threads."""
    if not hasattr(os, "sched_getaffinity"):
        return ()
    cores = sorted(os.sched_getaffinity(0))
    if count > len(cores):
        return (cores[i % len(cores)],)
    return tuple(cores[i * len(cores) // count : (i + 1) * len(cores) // count])


def _free_port(host) -> int:
    with socket.socket() as one:
        try:
            one.bind((host, 0))
        except OSError as error:
            raise InputError(
                f"{host} is no address of this machine ({error.strerror}): change --host."
            ) from error
        return one.getsockname()[1]


def _run(config, slots, stop_at) -> tuple[Images, Any]:
    """Prepares the images, then runs the slots to their end."""
    use_fork = not processes.gpus() and not str(config.data).startswith("tfds:")
    context = processes.make_context(use_fork)
    if use_fork:
        import_all()
    images = processes.call(context, prepare_images, config, log=logs(config.folder) / "images.log")
    remember_images(config, images)
    print(images.audit, flush=True)
    gc.freeze()  # of the images too
    job = Job(config, images, stop_at)
    rungs = plan(config.max_epochs, config.factor, config.iterations)
    workers = sum(not slot.is_chief for slot in slots)
    display = Display(rungs, workers, config.max_trials)
    with timed(config.folder):
        try:
            _keep_alive(slots, context, job, display)
        finally:
            _end(slots)
            display.end()
    return images, context


def _keep_alive(slots, context, job, display) -> None:
    """Starts each slot's process, again when it dies, until all are done."""
    folder = job.config.folder
    shown = 0.0
    while not all(slot.is_done for slot in slots):
        for slot in slots:
            if not slot.is_done and (slot.process is None or not slot.process.is_alive()):
                _look_after(slot, context, job)
        if any(slot.is_chief and slot.is_done for slot in slots):
            break  # it has told all workers
        if time.monotonic() - shown > SHOW_EVERY:
            display.show(_note(folder))
            shown = time.monotonic()
        time.sleep(POLL)
    display.show(_note(folder))


def _look_after(slot: Slot, context, job: Job) -> None:
    code = None if slot.process is None else slot.process.exitcode
    log = logs(job.config.folder) / f"{slot.name}.log"
    if code == processes.FINE:
        slot.is_done = True
        return
    if code == processes.WRONG_USAGE:
        raise InputError(_last_line(log))
    if code == processes.GIVEN_UP:
        raise SearchFailed(f"{_last_line(log)} The whole of it is in {log}.")
    ended = sum(trial.status in ("COMPLETED", "FAILED") for trial in read_search(job.config.folder).trials)
    if code not in (None, processes.ONCE_MORE):
        slot.deaths = slot.deaths + 1 if ended == slot.ended_before else 1
        if slot.deaths >= MOST_DEATHS:
            raise SearchFailed(
                f"{slot.name} has died {slot.deaths} times without a trial that ended, the last time with "
                f"exit code {code}: see {log}."
            )
        time.sleep(min(slot.deaths - 1, 5))
    slot.ended_before = ended
    slot.process = processes.start(
        context, work, job, log=log, environment=slot.environment, cores=slot.cores
    )


def _note(folder: Path) -> SearchRecord:
    """Reads what there is, and writes it where people look: trials.csv and best.json."""
    record = read_search(folder)
    if record.completed:
        write_trials(record)
        write_best(record)
    return record


def _end(slots) -> None:
    for slot in slots:
        if slot.process is not None and slot.process.is_alive():
            slot.process.terminate()
    for slot in slots:
        if slot.process is not None:
            slot.process.join(5)
            if slot.process.is_alive():
                slot.process.kill()
                slot.process.join()


def _last_line(log: Path) -> str:
    lines = log.read_text(encoding="utf-8", errors="replace").strip().splitlines()
    return lines[-1] if lines else f"{log} is empty."
