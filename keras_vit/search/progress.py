"""Progress of a search in lines to print: trials done and running, the best so far, time left."""

import math
import shutil
import sys
import time
from dataclasses import dataclass, replace

import numpy as np

from keras_vit.evaluation.trials import SearchRecord, TrialRecord
from keras_vit.search.point import in_words
from keras_vit.text import say, shown


@dataclass(frozen=True)
class Rung:
    """Trials of one bracket that train up to the same epoch."""

    bracket: int
    number: int
    trials: int
    initial_epoch: int
    epochs: int


def plan(max_epochs: int, factor: int, iterations: int = 1) -> list[Rung]:
    """The rungs of Hyperband in KerasTuner, in the order in which they are filled."""
    brackets = 1 + math.floor(math.log(max_epochs, factor) + 1e-9)
    end_size = math.ceil(1 + math.log(max_epochs, factor))
    rungs = []
    for bracket in reversed(range(brackets)):
        before = 0
        for number in range(bracket + 1):
            trials = math.ceil(end_size / (bracket + 1) * factor ** (bracket - number))
            epochs = math.ceil(max_epochs / factor ** (bracket - number))
            rungs.append(Rung(bracket, number, trials, before, epochs))
            before = epochs
    return rungs * iterations


def first_trials(rungs: list[Rung], most: int | None) -> list[Rung]:
    """The part of the rungs that the first `most` trials fill; all if that is `None`."""
    if most is None:
        return rungs
    found: list[Rung] = []
    for rung in rungs:
        trials = min(rung.trials, most - sum(one.trials for one in found))
        if trials:
            found.append(replace(rung, trials=trials))
    return found


def seconds_left(record: SearchRecord, rungs: list[Rung], workers: int) -> float | None:
    """An estimate from the completed trials: seconds per trial plus seconds per epoch.

    Returns:
        Seconds; `None` before a trial is completed.
    """
    done = [trial for trial in record.completed if trial.seconds is not None]
    if not done:
        return None
    epochs = np.array([trial.epochs - trial.initial_epoch for trial in done], float)
    seconds = np.array([trial.seconds for trial in done], float)
    start, each = 0.0, seconds.sum() / epochs.sum()
    if len(set(epochs)) > 1:
        each, start = np.polyfit(epochs, seconds, 1)
        if min(each, start) < 0:
            start, each = 0.0, seconds.sum() / epochs.sum()
    ended = [trial for trial in record.trials if trial.has_ended]
    trials_left = sum(rung.trials for rung in rungs) - len(ended)
    if trials_left <= 0:
        return 0.0
    epochs_left = sum(rung.trials * (rung.epochs - rung.initial_epoch) for rung in rungs) - sum(
        trial.epochs - trial.initial_epoch for trial in ended
    )
    return max(0.0, trials_left * start + epochs_left * each) / max(workers, 1)


def trial_line(trial: TrialRecord) -> str:
    """One line for a trial that has ended."""
    rate = f"learning rate {trial.values['learning_rate']:.1e}"
    first = trial.initial_epoch + 1
    where = f"epochs {first} to {trial.epochs}" if trial.epochs > first else f"epoch {first}"
    result = f"{trial.score:.1%}" if trial.score is not None else f"failed: {trial.error}"
    from_ = f", from {trial.promoted_from}" if trial.promoted_from else ""
    return f"{trial.trial_id}  {result:>6}  {where}{from_}; {in_words(trial.values)}, {rate}"


def state_line(
    record: SearchRecord,
    rungs: list[Rung],
    workers: int,
    most: int | None = None,
    seconds: float | None = None,
) -> str:
    """Trials done and running, the best so far, time left.

    Args:
        record: the search so far.
        rungs: what is planned.
        workers: number of processes that try points at the same time.
        most: largest number of trials to begin.
        seconds: until no further trial is begun.
    """
    if most is not None:
        rungs = first_trials(rungs, max(most, len(record.trials)))
    planned = sum(rung.trials for rung in rungs)
    failed = sum(trial.status == "FAILED" for trial in record.trials)
    running = sum(trial.status == "RUNNING" for trial in record.trials)
    parts = [f"{len(record.completed) + failed} of {planned} trials done"]
    if failed:
        parts.append(f"{failed} failed")
    parts.append(f"{running} running")
    if record.best is not None:
        parts.append(f"best {record.best.score:.1%} ({record.best.trial_id})")
    left = seconds_left(record, rungs, workers)
    if left is not None:
        parts.append(f"about {minutes(left if seconds is None else min(left, max(seconds, 0.0)))} left")
    return ", ".join(parts)


def minutes(seconds: float) -> str:
    """`"50 s"`, `"12 min"`, `"3 h 20 min"`."""
    if seconds < 90:
        return f"{round(seconds)} s"
    whole = round(seconds / 60)
    return f"{whole} min" if whole < 90 else f"{whole // 60} h {whole % 60} min"


class Display:
    """Prints each trial when it ends, and the state of the search below it.

    If the output is not a terminal, the state is printed with each trial.

    Args:
        rungs: what is planned.
        workers: number of processes that try points at the same time.
        most: largest number of trials to begin.
        stop_at: `time.time()` after which none is begun.
    """

    def __init__(
        self, rungs: list[Rung], workers: int, most: int | None = None, stop_at: float | None = None
    ):
        self.rungs = rungs
        self.workers = workers
        self.most = most
        self.stop_at = stop_at
        self.printed: set[str] | None = None
        self.live = sys.stdout.isatty()

    def show(self, record: SearchRecord) -> None:
        """Prints what has changed since the last call."""
        ended = [trial for trial in record.trials if trial.has_ended]
        seconds = None if self.stop_at is None else self.stop_at - time.time()
        state = state_line(record, self.rungs, self.workers, self.most, seconds)
        if self.printed is None:
            self.printed = {trial.trial_id for trial in ended}
            if ended:
                say(f"continues: {state}", flush=True)
        for trial in ended:
            if trial.trial_id not in self.printed:
                self.printed.add(trial.trial_id)
                self._clear()
                say(trial_line(trial) if self.live else f"{trial_line(trial)}  [{state}]", flush=True)
        if self.live:
            self._clear()
            sys.stdout.write(shown(state)[: shutil.get_terminal_size().columns - 1])
            sys.stdout.flush()

    def end(self) -> None:
        """Clears the line of the state."""
        self._clear()

    def _clear(self):
        if self.live:
            sys.stdout.write("\r\x1b[K")
            sys.stdout.flush()
