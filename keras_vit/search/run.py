"""search(): starts the processes of a search, keeps them alive, and draws the conclusion."""

import gc
import tempfile
import time
from pathlib import Path
from typing import Any

from keras_vit.errors import InputError, ProcessFailed
from keras_vit.evaluation.trials import SearchRecord
from keras_vit.process import children as processes
from keras_vit.process.backend import import_quietly, share_compilations
from keras_vit.process.exit_codes import FINE, GIVEN_UP, ONCE_MORE, WRONG_USAGE
from keras_vit.search.best import write_best
from keras_vit.search.conclude import conclude
from keras_vit.search.config import SearchConfig
from keras_vit.search.folder import (
    add_wall_seconds,
    begin_or_go_on,
    locked,
    logs,
    remember_images,
    wall_seconds,
)
from keras_vit.search.progress import Display, plan
from keras_vit.search.record import read_search, write_trials
from keras_vit.search.slots import Slot, joins_another, make_slots
from keras_vit.search.worker import Images, Job, prepare_images, work

MOST_DEATHS = 8  # of one process in a row without a trial that ends, before the search gives up
POLL = 0.1
SHOW_EVERY = 1.0


class SearchFailed(ProcessFailed):
    """The search cannot go on; the message says why, and where to read more."""


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
    if joins_another():
        config = _stored(config)
        _run(config, make_slots(config), None, look_only)
        return read_search(config.folder)
    with locked(config.folder), tempfile.TemporaryDirectory(prefix="keras-vit-") as cache:
        share_compilations(cache)
        config = begin_or_go_on(config)
        images, context = _run(config, make_slots(config), _stop_at(config), Notebook().write)
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


def _run(config, slots, stop_at, note) -> tuple[Images, Any]:
    """Prepares the images, then runs the slots to their end.

    Args:
        note: from the folder to what is in it; it may write down what it sees.
    """
    use_fork = not processes.gpus() and not str(config.data).startswith("tfds:")
    context = processes.make_context(use_fork)
    if use_fork:
        # Copies of this process need not import. It computes nothing: afterwards it could not be copied.
        import_quietly("keras_vit.training.run", "keras_vit.search.hyperband")
        gc.collect()
    images = processes.call(context, prepare_images, config, log=logs(config.folder) / "images.log")
    remember_images(config, images)
    print(images.audit, flush=True)
    gc.freeze()  # copies need not scan what was imported and read, at each trial
    job = Job(config, images, stop_at)
    rungs = plan(config.max_epochs, config.factor, config.iterations)
    workers = sum(not slot.is_chief for slot in slots)
    display = Display(rungs, workers, config.max_trials, stop_at)
    try:
        _keep_alive(slots, context, job, lambda: display.show(note(config.folder)))
    finally:
        _end(slots)
        display.end()
    return images, context


def _keep_alive(slots, context, job, show) -> None:
    """Starts each slot's process, again when it dies, until all are done."""
    shown = 0.0
    while not all(slot.is_done for slot in slots):
        for slot in slots:
            if not slot.is_done and (slot.process is None or not slot.process.is_alive()):
                _look_after(slot, context, job)
        if any(slot.is_chief and slot.is_done for slot in slots):
            break  # it has told all workers
        if time.monotonic() - shown > SHOW_EVERY:
            show()
            shown = time.monotonic()
        time.sleep(POLL)
    show()


def _look_after(slot: Slot, context, job: Job) -> None:
    code = None if slot.process is None else slot.process.exitcode
    log = logs(job.config.folder) / f"{slot.name}.log"
    if code == FINE:
        slot.is_done = True
        return
    if code == WRONG_USAGE:
        raise InputError(_last_line(log))
    if code == GIVEN_UP:
        raise SearchFailed(f"{_last_line(log)} The whole of it is in {log}.")
    ended = sum(trial.status in ("COMPLETED", "FAILED") for trial in read_search(job.config.folder).trials)
    if code not in (None, ONCE_MORE):
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


def look_only(folder: Path) -> SearchRecord:
    """For a worker that has joined: the chief's machine keeps the files."""
    return read_search(folder)


class Notebook:
    """Writes what there is where people look, whenever it has changed: trials.csv, best.json, the time."""

    def __init__(self):
        self.noted: list[tuple[str, str]] = []
        self.begin = time.monotonic()

    def write(self, folder: Path) -> SearchRecord:
        record = read_search(folder)
        found = [(trial.trial_id, trial.status) for trial in record.trials]
        if found != self.noted:
            self.noted = found
            write_trials(record)
            write_best(record)
            self.begin = add_wall_seconds(folder, self.begin)
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
