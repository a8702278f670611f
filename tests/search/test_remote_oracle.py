"""A worker whose chief ends, returns or refuses; and the processes that share a trial."""

import threading
import time

import grpc
import keras_tuner
import pytest
from keras_tuner.engine.trial import Trial

from keras_vit.distribution import Distribution
from keras_vit.errors import DistributionError
from keras_vit.search import remote_oracle as remote
from keras_vit.search.remote_oracle import FirstProcessOracle, PatientOracle

pytestmark = pytest.mark.same_on_every_backend


class Gone(grpc.RpcError):
    def __init__(self, code, details=""):
        self.code = lambda: code
        self.details = lambda: details


class Client:
    """KerasTuner's client, with a chief that raises the given failures first."""

    objective = "val_accuracy"

    def __init__(self, *failures):
        self.failures = list(failures)
        self.requests = []

    def _answer(self, *arguments):
        self.requests.append(arguments)
        if self.failures:
            raise self.failures.pop(0)
        return arguments

    def update_trial(self, trial_id, metrics, step=0):
        return self._answer(trial_id, metrics, step)

    def create_trial(self, tuner_id):
        self._answer(tuner_id)
        return Trial(keras_tuner.HyperParameters(), "0007", "RUNNING")

    def end_trial(self, trial):
        self._answer("ended", trial.trial_id)

    def get_trial(self, trial_id):
        self.requests.append(("beat", trial_id))


@pytest.fixture
def fast(monkeypatch):
    sleep = time.sleep
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: sleep(seconds / 1000))


UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("code", [UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED])
def test_a_request_is_repeated_until_the_chief_is_back(fast, code):
    client = Client(Gone(code), Gone(code))
    assert PatientOracle(client).update_trial("0007", {"val_accuracy": 0.5}) == (
        "0007",
        {"val_accuracy": 0.5},
        0,
    )
    assert len([arguments for arguments in client.requests if arguments[0] == "0007"]) == 3


def test_a_chief_that_does_not_return_is_an_error(fast, monkeypatch):
    monkeypatch.setattr(remote, "PATIENCE", 0.05)
    oracle = PatientOracle(Client(*[Gone(UNAVAILABLE)] * 10_000))
    with pytest.raises(DistributionError, match=r"The chief .* cannot be reached \(unavailable\): start it"):
        oracle.update_trial("0007", {})


def test_an_error_of_the_oracle_ends_the_worker(fast):
    oracle = PatientOracle(Client(Gone(grpc.StatusCode.UNKNOWN, "3 trials in a row have failed")))
    with pytest.raises(keras_tuner.errors.FatalError, match="3 trials in a row have failed"):
        oracle.update_trial("0007", {})


def test_a_worker_sends_heartbeats_while_a_trial_runs(fast):
    client = Client()
    oracle = PatientOracle(client)
    assert oracle.objective == "val_accuracy"
    trial = oracle.create_trial("worker0")
    until = time.monotonic() + 30
    while ("beat", "0007") not in client.requests and time.monotonic() < until:
        threading.Event().wait(0.01)
    assert ("beat", "0007") in client.requests
    oracle.end_trial(trial)
    beats = client.requests.count(("beat", "0007"))
    threading.Event().wait(0.1)
    assert client.requests.count(("beat", "0007")) <= beats + 1  # one may have been sent already


class TwoProcesses(Distribution):
    """One of two processes. A list carries the answers from the first to the second."""

    num_processes = 2

    def __init__(self, process_id, texts):
        self.process_id, self.texts = process_id, texts

    def _broadcast_text(self, text):
        if self.is_chief:
            self.texts.append(text)
            return text
        return self.texts.pop(0)


def test_the_first_process_of_a_trial_asks_for_all():
    texts, client = [], Client()
    first = FirstProcessOracle(client, TwoProcesses(0, texts))
    second = FirstProcessOracle(None, TwoProcesses(1, texts))
    trials = [oracle.create_trial("worker0") for oracle in (first, second)]
    assert [trial.trial_id for trial in trials] == ["0007", "0007"]
    for oracle, trial in zip((first, second), trials, strict=True):
        oracle.end_trial(trial)
    assert client.requests == [("worker0",), ("ended", "0007")]
    assert not texts
