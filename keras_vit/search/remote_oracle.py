"""An oracle in another process: that of the chief for its workers, that of the first process of a trial."""

import threading
import time
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from keras_vit.distribution import Distribution
from keras_vit.errors import DistributionError

HEARTBEAT = 10.0  # seconds between the reports of a worker, far less than the oracle's LOST_AFTER
PATIENCE = 600.0  # seconds that a worker waits for a chief that does not answer
DISTRUST = 30.0  # seconds that it waits for one that it shares no secret with: it may just have started again


class PatientOracle:
    """The oracle of the chief, as a worker sees it; the chief may die and come back.

    A client raises if the chief ends while it answers, and the tuner would take that for a failure of the
    trial. Here the question is repeated. While a trial runs, the worker reports it to the chief every
    `HEARTBEAT` seconds.

    Args:
        client: a `keras_vit.search.chief.ChiefClient`.

    Raises:
        DistributionError: from a question if the chief does not answer for `PATIENCE` seconds, or does not
            know the secret of the search for `DISTRUST` seconds.
        keras_tuner.errors.FatalRuntimeError: from a question if the chief raises an error.
    """

    def __init__(self, client):
        self._client = client
        self._trial_id: str | None = None
        threading.Thread(target=self._beat, daemon=True, name="heartbeat").start()

    def __getattr__(self, name):
        return getattr(self._client, name)

    def create_trial(self, tuner_id):
        trial = self._ask("create_trial", tuner_id)
        self._trial_id = trial.trial_id if trial.status == TrialStatus.RUNNING else None
        return trial

    def end_trial(self, trial):
        self._ask("end_trial", trial)
        self._trial_id = None

    def update_trial(self, trial_id, metrics, step=0):
        return self._ask("update_trial", trial_id, metrics, step)

    def get_trial(self, trial_id):
        return self._ask("get_trial", trial_id)

    def get_best_trials(self, num_trials=1):
        return self._ask("get_best_trials", num_trials)

    def get_space(self):
        return self._ask("get_space")

    def _ask(self, question, *words):
        import grpc

        begin = time.monotonic()
        while True:
            try:
                return getattr(self._client, question)(*words)
            except grpc.RpcError as error:
                if error.code() is grpc.StatusCode.UNKNOWN:  # raised by the oracle itself
                    raise keras_tuner.errors.FatalRuntimeError(error.details()) from error
                waited = time.monotonic() - begin
                if error.code() is grpc.StatusCode.UNAUTHENTICATED and waited > DISTRUST:
                    raise DistributionError(
                        "The chief of the search and this worker do not share a secret "
                        f"({error.details()}): start both with the same --out, on a disk that both see."
                    ) from error
                if waited > PATIENCE:
                    raise DistributionError(
                        f"The chief of the search cannot be reached ({error.code().name.lower()}): start it "
                        "again with the same command, then this worker."
                    ) from error
            time.sleep(1)

    def _beat(self):
        import grpc

        while True:
            time.sleep(HEARTBEAT)
            trial_id = self._trial_id
            if trial_id is not None:
                try:
                    self._client.get_trial(trial_id)
                except (grpc.RpcError, keras_tuner.errors.FatalError):
                    continue  # the next one comes soon


class FirstProcessOracle:
    """One oracle for the processes that train each trial together: the first one asks for all.

    Args:
        oracle: that of this process; only that of the first process is asked.
        distribution: of the processes.
    """

    def __init__(self, oracle: Any, distribution: Distribution):
        self._oracle = oracle
        self._distribution = distribution

    def __getattr__(self, name):
        return getattr(self._oracle, name)

    def create_trial(self, tuner_id):
        return self._trial(lambda: self._oracle.create_trial(tuner_id))

    def get_trial(self, trial_id):
        return self._trial(lambda: self._oracle.get_trial(trial_id))

    def update_trial(self, trial_id, metrics, step=0):
        return self._trial(lambda: self._oracle.update_trial(trial_id, metrics, step=step))

    def end_trial(self, trial):
        self._distribution.from_chief(lambda: self._oracle.end_trial(trial))

    def get_best_trials(self, num_trials=1):
        states = self._distribution.from_chief(
            lambda: [trial.get_state() for trial in self._oracle.get_best_trials(num_trials)]
        )
        return [Trial.from_state(state) for state in states]

    def save(self):
        self._distribution.from_chief(lambda: self._oracle.save())

    def _trial(self, ask):
        return Trial.from_state(self._distribution.from_chief(lambda: ask().get_state()))
