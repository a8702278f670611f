"""Hyperband's oracle, with files that survive a power cut and workers that may die."""

import math
import os
import shutil
import time
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from keras_vit.errors import InputError
from keras_vit.files import read_json, write_json
from keras_vit.search.trial_check import fault, is_state
from keras_vit.search.trial_files import SET_ASIDE, WEIGHTS
from keras_vit.text import say
from keras_vit.training.checkpoint import CHECKPOINT

DRAWS = 1000
KEEP = 3  # trials whose weights are kept
LOST_AFTER = 120.0  # seconds of silence after which the trial of a worker is given to another
LOST = "Its file was damaged, or not of this search, and was set aside."
ENDED = (TrialStatus.COMPLETED, TrialStatus.FAILED)


class ViTOracle(keras_tuner.oracles.HyperbandOracle):
    """KerasTuner's Hyperband oracle, which can be killed at any moment and continues.

    Its files are written whole or not at all, and one good copy is kept. A trial that has ended is counted
    once and never run again, whichever process died in between. Failed trials come last in their rung, so
    that halving continues without them. The files of losing trials are removed.

    Args:
        fits: whether a point, as values by name, is within the budget; other points are not drawn.
        shared: whether workers ask over the network. They outlive this process, so they keep their trials
            after a restart, until they are silent for `LOST_AFTER` seconds.
        max_trials: begin no more trials than these.
        stop_at: seconds since the epoch (`time.time()`) after which none is begun.
        space: what is searched: `reload` takes it instead of the one in the file. `None` trusts the file.
        **options: of `keras_tuner.oracles.HyperbandOracle`.

    Raises:
        InputError: from `reload` if both `oracle.json` and its copy are damaged; from a search if none of
            1,000 points is within the budget.
    """

    def __init__(
        self,
        fits: Callable[[dict], bool] = lambda values: True,
        shared: bool = False,
        max_trials: int | None = None,
        stop_at: float | None = None,
        space: keras_tuner.HyperParameters | None = None,
        **options: Any,
    ):
        super().__init__(**options)
        self.space = space
        self.fits = fits
        self.shared = shared
        self.stop_at = stop_at
        self.most_trials = max_trials  # KerasTuner's max_trials would shorten the numbers of trials
        self.is_over = False
        self.trials: dict[str, Trial]
        self.end_order: list[str]
        self._asked: dict[str, float] = {}  # tuner id -> when it last asked for a trial
        self._seen: dict[str, float] = {}  # trial id -> when its worker last reported it
        self._given: dict[str, set[str]] = {}  # trial id -> the workers that got it

    @property
    def file(self) -> Path:
        return Path(self._project_dir) / "oracle.json"

    @property
    def good_copy(self) -> Path:
        return self.file.with_name("oracle.good.json")

    def folder_of(self, trial_id: str) -> Path:
        return Path(self._project_dir) / f"trial_{trial_id}"

    # Files.

    def save(self):
        if self.file.is_file():
            beside = self.good_copy.with_name("oracle.good.json.new")
            shutil.copyfile(self.file, beside)
            os.replace(beside, self.good_copy)
        write_json(self.file, self.get_state())

    def reload(self):
        if not is_state(self.file):
            if not is_state(self.good_copy):
                raise InputError(
                    f"{self.file} and its copy are damaged: begin the search again in another directory, or "
                    "with overwrite=True."
                )
            shutil.copyfile(self.good_copy, self.file)
        self._set_bad_trials_aside()
        super().reload()  # queues all trials that were running, to run them again
        # KerasTuner reads them in the order of the folder's files. Of equal trials the first one is the best:
        # in another order it could be one whose weights were removed.
        self.trials = {trial_id: self.trials[trial_id] for trial_id in self.start_order}
        if self.space is not None:
            self.hyperparameters = self.space.copy()
        for trial_id in self.start_order:  # a kill may have come between a trial's own file and this one
            if self.trials[trial_id].status in ENDED and trial_id not in self.end_order:
                self.end_order.append(trial_id)
        queued: list[str] = self._retry_queue  # type: ignore[has-type]  # KerasTuner's is not annotated
        unfinished = [one for one in dict.fromkeys(queued) if one not in self.end_order]
        queued.clear()
        holders = {held: tuner for tuner, held in read_json(self.file)["ongoing_trials"].items()}
        for trial_id in unfinished:
            if self.shared and trial_id in holders:
                self.ongoing_trials[holders[trial_id]] = self.trials[trial_id]
                self._given.setdefault(trial_id, set()).add(holders[trial_id])
            else:
                queued.insert(0, trial_id)  # it is emptied from its end

    def _set_bad_trials_aside(self):
        """Renames the files of trials that cannot be of this search, so that the others go on.

        In its place, a trial that the oracle knows counts as failed.
        """
        state = read_json(self.file)
        known = dict.fromkeys(state["start_order"])
        space = self.space or keras_tuner.HyperParameters.from_config(state["hyperparameters"])
        found = {file.parent.name.removeprefix("trial_"): file for file in self._trial_files()}
        for trial_id in [*known, *(found.keys() - known)]:
            file = self.folder_of(trial_id) / "trial.json"
            wrong = fault(file, trial_id, space, known) if trial_id in known else "is not of this search"
            if wrong is None:
                continue
            if file.exists():
                os.replace(file, file.with_name(SET_ASIDE))
            counts = ", and the trial counts as failed" if trial_id in known else ""
            say(f"{file} {wrong}: it was set aside as {SET_ASIDE}{counts}.", flush=True)
            if trial_id in known:
                lost = Trial(keras_tuner.HyperParameters(), trial_id, TrialStatus.FAILED, LOST)
                self._save_trial(lost)

    def _trial_files(self):
        return Path(self._project_dir).glob("trial_*/trial.json")

    def _save_trial(self, trial):
        self.folder_of(trial.trial_id).mkdir(exist_ok=True)
        write_json(self.folder_of(trial.trial_id) / "trial.json", trial.get_state())

    # What workers ask.

    @keras_tuner.synchronized
    def create_trial(self, tuner_id):
        now = time.monotonic()
        self._asked[tuner_id] = now
        self._take_back_lost_trials(now)
        trial = super().create_trial(tuner_id)
        if trial.status == TrialStatus.RUNNING:
            self._given.setdefault(trial.trial_id, set()).add(tuner_id)
            self._seen[trial.trial_id] = now
            # One that is run again is judged by its last run alone.
            trial.metrics = Trial(trial.hyperparameters, trial.trial_id).metrics
        elif trial.status == TrialStatus.STOPPED:
            self.is_over = True
        return trial

    def was_given(self, trial_id: str, tuner_id: str) -> bool:
        """Whether a worker got a trial from this oracle."""
        return tuner_id in self._given.get(trial_id, ())

    def update_space(self, hyperparameters):
        if not self.trials:  # a worker cannot widen the space of a search that runs
            super().update_space(hyperparameters)

    def score_trial(self, trial):
        name = self.objective.name
        history = trial.metrics.get_history(name) if trial.metrics.exists(name) else []
        if history and all(math.isfinite(value) for found in history for value in found.value):
            super().score_trial(trial)
        else:
            trial.score = math.nan  # KerasTuner lets a trial fail whose score is NaN, but not one of infinity

    def _check_consecutive_failures(self):
        whole = self.end_order
        self.end_order = [one for one in whole if self.trials[one].message != LOST]
        try:
            super()._check_consecutive_failures()
        finally:
            self.end_order = whole

    def _take_back_lost_trials(self, now):
        for tuner_id, trial in list(self.ongoing_trials.items() if self.shared else ()):
            if now - self._seen.setdefault(trial.trial_id, now) > LOST_AFTER:
                del self.ongoing_trials[tuner_id]
                self.tuner_ids.discard(tuner_id)
                self._retry_queue.append(trial.trial_id)

    def get_trial(self, trial_id):
        self._seen[trial_id] = time.monotonic()
        return super().get_trial(trial_id)

    @keras_tuner.synchronized
    def update_trial(self, trial_id, metrics, step=0):
        if trial_id in self.end_order:  # a late report from a worker that was given up
            return self.trials[trial_id]
        return super().update_trial(trial_id, metrics, step=step)

    @keras_tuner.synchronized
    def end_trial(self, trial):
        if trial.trial_id in self.end_order:
            return
        if trial.trial_id in self._retry_queue:  # its worker was given up, but is alive
            self._retry_queue.remove(trial.trial_id)
        for tuner_id, ongoing in self.ongoing_trials.items():
            if ongoing.trial_id == trial.trial_id:
                self._asked[tuner_id] = time.monotonic()  # it is about to ask again
        super().end_trial(trial)
        self._remove_files_of_losers()

    def has_answered_all(self) -> bool:
        """Whether the search is over, and every worker knows it."""
        limit = time.monotonic() - LOST_AFTER / 4
        waiting = [one for one in self.tuner_ids if self._asked.get(one, limit) > limit]
        return self.is_over and not self.ongoing_trials and not waiting

    # What is tried.

    def populate_space(self, trial_id):
        if self.most_trials and len(self.trials) >= self.most_trials:
            return {"status": TrialStatus.STOPPED}
        if self.stop_at and time.time() >= self.stop_at:
            return {"status": TrialStatus.STOPPED}
        failed = [trial for trial in self.trials.values() if trial.status == TrialStatus.FAILED]
        worst = float("-inf") if self.objective.direction == "max" else float("inf")
        # KerasTuner promotes only after enough trials of a rung: one failure would stop its bracket.
        for trial in failed:
            trial.status, trial.score = TrialStatus.COMPLETED, worst
        try:
            return super().populate_space(trial_id)
        finally:
            for trial in failed:
                trial.status, trial.score = TrialStatus.FAILED, None

    def _random_values(self):
        for _ in range(DRAWS):
            values = super()._random_values()
            if values is None or self.fits(values):
                return values
        raise InputError(
            f"None of {DRAWS} random points is within the budget: raise it, or narrow the space."
        )

    # What is kept.

    def _remove_files_of_losers(self):
        best = {trial.trial_id for trial in self.get_best_trials(KEEP)}
        resumable = self.resumable()
        for trial_id in self.end_order:
            if trial_id not in resumable:
                (self.folder_of(trial_id) / CHECKPOINT).unlink(missing_ok=True)
            if trial_id not in best:
                (self.folder_of(trial_id) / WEIGHTS).unlink(missing_ok=True)

    def resumable(self) -> set[str]:
        """The trials whose state may still be needed: to promote them, or to repeat a promoted one."""
        wanted = {
            trial.hyperparameters.values.get("tuner/trial_id")
            for trial_id, trial in self.trials.items()
            if trial_id not in self.end_order
        }
        for bracket in self.get_state()["brackets"]:
            for number, (earlier, later) in enumerate(pairwise(bracket["rounds"]), 1):
                if len(later) < self._get_size(bracket["bracket_num"], number):
                    promoted = {info["past_id"] for info in later}
                    wanted |= {info["id"] for info in earlier} - promoted
        return wanted - {None}
