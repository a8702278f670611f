"""search(): starts the processes of a search, keeps them alive, and draws the conclusion."""

import dataclasses
import gc
import os
import time
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path

from keras_vit.errors import InputError, ProcessFailed
from keras_vit.evaluation.trials import SearchRecord
from keras_vit.files import work_folder
from keras_vit.process import children
from keras_vit.process.backend import import_quietly, share_compilations
from keras_vit.process.children import Context
from keras_vit.process.exit_codes import FINE, GIVEN_UP, ONCE_MORE, WRONG_USAGE
from keras_vit.search.best import write_best
from keras_vit.search.conclude import conclude
from keras_vit.search.config import SearchConfig
from keras_vit.search.folder import (
    add_wall_seconds,
    begin_or_continue,
    locked,
    logs,
    wall_seconds,
    write_or_check_images,
)
from keras_vit.search.progress import Display, plan
from keras_vit.search.results import read_search, write_trials
from keras_vit.search.slots import TUNER_ID, Slot, joins_another, make_slots
from keras_vit.search.trial_files import SET_ASIDE, last_line
from keras_vit.search.worker import Images, Job, prepare_images, work
from keras_vit.text import say

MOST_DEATHS = 8  # of one process in a row, without a trial that ends, before the search gives up
POLL_SECONDS = 0.1
SHOW_SECONDS = 1.0


class SearchFailed(ProcessFailed):
    """The search cannot go on; the message says why, and where to read more."""


def search(config: SearchConfig) -> SearchRecord:
    """Searches until all points are tried or the time is over; continues a search that is in the folder.

    Args:
        config: the search. If the environment has KerasTuner's variables, this process only does the part
            of it that they name: the chief, or one worker.

    Returns:
        What was found.

    Raises:
        InputError: an option or an image cannot be used, or KerasTuner is not installed.
        SearchFailed: trials or processes fail again and again.
    """
    if find_spec("keras_tuner") is None:
        raise InputError('A search needs KerasTuner: pip install "keras-vit-defects[tune]".')
    if joins_another():
        config = _stored(config)
        _run(config, make_slots(config), None, read_search)  # the chief's machine keeps the files up to date
        return read_search(config.folder)
    with locked(config.folder, is_shared=config.host is not None or TUNER_ID in os.environ):
        config = begin_or_continue(config)
        with work_folder(config.folder, ".compiled") as compiled:
            share_compilations(compiled.absolute())
            stop_at = time.time() + 60 * config.max_minutes if config.max_minutes else None
            config, images, context = _run(config, make_slots(config), stop_at, Bookkeeper().update)
            conclude(config, images, context, wall_seconds(config.folder))
    return read_search(config.folder)


def _stored(config: SearchConfig) -> SearchConfig:
    if not (config.folder / "search.json").is_file():
        raise InputError(
            f"{config.folder} does not hold a search to join: start the chief first, on a disk that both see."
        )
    return begin_or_continue(config)


def _run(
    config: SearchConfig,
    slots: list[Slot],
    stop_at: float | None,
    read: Callable[[Path], SearchRecord],
) -> tuple[SearchConfig, Images, Context]:
    """Prepares the images, then runs the slots until they are done.

    Args:
        config: the search.
        slots: its processes on this machine.
        stop_at: `time.time()` after which no trial is begun.
        read: from the folder to what is in it; it may also write files that depend on it.

    Returns:
        The search, which now knows its weights, if it has some; the images; and how processes start.
    """
    use_fork = not children.gpus() and not str(config.data).startswith("tfds:")
    context = children.make_context(use_fork)
    if use_fork:
        # Copies of this process need not import. It computes nothing: afterwards it could not be copied.
        import_quietly("keras_vit.training.run", "keras_vit.search.hyperband")
        gc.collect()
        gc.freeze()  # copies need not scan what was imported, at each trial
    images = children.call(context, prepare_images, config, log=logs(config.folder) / "images.log")
    if images.first is not None:
        config = dataclasses.replace(config, weights=images.first.known)
    write_or_check_images(config, images)
    say(*images.audit.split("\n"), *(images.first.lines if images.first else ()), flush=True)
    gc.freeze()  # nor the images
    job = Job(config, images, stop_at)
    rungs = plan(config.max_epochs, config.factor, config.iterations)
    workers = sum(not slot.is_chief for slot in slots)
    display = Display(rungs, workers, config.max_trials, stop_at)
    try:
        _keep_alive(slots, context, job, lambda: display.show(read(config.folder)))
    finally:
        children.end(slot.process for slot in slots if slot.process is not None)
        display.end()
    for file in sorted(config.folder.glob(f"trial_*/{SET_ASIDE}")):
        say(f"{file} is damaged or not of this search, and was set aside: the files in logs say why.")
    return config, images, context


def _keep_alive(slots: list[Slot], context: Context, job: Job, show: Callable[[], None]) -> None:
    """Starts the process of each slot, and starts it again when it dies, until all are done."""
    shown = 0.0
    while not all(slot.is_done for slot in slots):
        for slot in slots:
            if not slot.is_done and (slot.process is None or not slot.process.is_alive()):
                _start_again(slot, context, job)
        if any(slot.is_chief and slot.is_done for slot in slots):
            break  # it has informed all workers
        if time.monotonic() - shown > SHOW_SECONDS:
            show()
            shown = time.monotonic()
        time.sleep(POLL_SECONDS)
    show()


def _start_again(slot: Slot, context: Context, job: Job) -> None:
    """Starts the process of a slot, unless the exit code of its last one says that it is done or hopeless."""
    code = None if slot.process is None else slot.process.exitcode
    log = logs(job.config.folder) / f"{slot.name}.log"
    if code == FINE:
        slot.is_done = True
        return
    if code == WRONG_USAGE:
        raise InputError(_last_line(log))
    if code == GIVEN_UP:
        raise SearchFailed(f"{_last_line(log)} The full output is in {log}.")
    ended = sum(trial.has_ended for trial in read_search(job.config.folder).trials)
    if code not in (None, ONCE_MORE):
        slot.deaths = slot.deaths + 1 if ended == slot.ended_before else 1
        if slot.deaths >= MOST_DEATHS:
            raise SearchFailed(
                f"{slot.name} has died {slot.deaths} times without a trial that ended, the last time with "
                f"exit code {code}: see {log}."
            )
        time.sleep(min(slot.deaths - 1, 5))
    slot.ended_before = ended
    slot.process = children.start(context, work, job, log=log, environment=slot.environment, cores=slot.cores)


class Bookkeeper:
    """Keeps trials.csv, best.json and the time of a search up to date."""

    def __init__(self) -> None:
        self._written: list[tuple[str, str]] = []
        self._begin = time.monotonic()

    def update(self, folder: Path) -> SearchRecord:
        """Reads the folder of a search, and writes the files if a trial has begun or ended since."""
        record = read_search(folder)
        found = [(trial.trial_id, trial.status) for trial in record.trials]
        if found != self._written:
            self._written = found
            write_trials(record)
            write_best(record)
            self._begin = add_wall_seconds(folder, self._begin)
        return record


def _last_line(log: Path) -> str:
    return last_line(log) or f"{log} is empty."
