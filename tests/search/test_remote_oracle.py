"""What a worker makes of a chief that dies, comes back, or refuses; what processes of one trial hear."""

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
    """KerasTuner's client, with a chief that fails as often as is said."""

    objective = "val_accuracy"

    def __init__(self, *failures):
        self.failures = list(failures)
        self.heard = []

    def _answer(self, *words):
        self.heard.append(words)
        if self.failures:
            raise self.failures.pop(0)
        return words

    def update_trial(self, trial_id, metrics, step=0):
        return self._answer(trial_id, metrics, step)

    def create_trial(self, tuner_id):
        self._answer(tuner_id)
        return Trial(keras_tuner.HyperParameters(), "0007", "RUNNING")

    def end_trial(self, trial):
        self._answer("ended", trial.trial_id)

    def get_trial(self, trial_id):
        self.heard.append(("beat", trial_id))


@pytest.fixture
def fast(monkeypatch):
    sleep = time.sleep
    monkeypatch.setattr(remote.time, "sleep", lambda seconds: sleep(seconds / 1000))


UNAVAILABLE = grpc.StatusCode.UNAVAILABLE


@pytest.mark.parametrize("code", [UNAVAILABLE, grpc.StatusCode.CANCELLED, grpc.StatusCode.DEADLINE_EXCEEDED])
def test_a_question_is_asked_again_until_the_chief_is_back(fast, code):
    client = Client(Gone(code), Gone(code))
    assert PatientOracle(client).update_trial("0007", {"val_accuracy": 0.5}) == (
        "0007",
        {"val_accuracy": 0.5},
        0,
    )
    assert len([words for words in client.heard if words[0] == "0007"]) == 3


def test_a_chief_that_is_gone_for_good_is_named(fast, monkeypatch):
    monkeypatch.setattr(remote, "PATIENCE", 0.05)
    oracle = PatientOracle(Client(*[Gone(UNAVAILABLE)] * 10_000))
    with pytest.raises(DistributionError, match=r"The chief .* cannot be reached \(unavailable\): start it"):
        oracle.update_trial("0007", {})


def test_what_the_oracle_raises_ends_the_worker(fast):
    oracle = PatientOracle(Client(Gone(grpc.StatusCode.UNKNOWN, "3 trials in a row have failed")))
    with pytest.raises(keras_tuner.errors.FatalError, match="3 trials in a row have failed"):
        oracle.update_trial("0007", {})


def test_the_chief_hears_of_a_trial_as_long_as_it_is_on(fast):
    client = Client()
    oracle = PatientOracle(client)
    assert oracle.objective == "val_accuracy"
    trial = oracle.create_trial("worker0")
    until = time.monotonic() + 30
    while ("beat", "0007") not in client.heard and time.monotonic() < until:
        threading.Event().wait(0.01)
    assert ("beat", "0007") in client.heard
    oracle.end_trial(trial)
    beats = client.heard.count(("beat", "0007"))
    threading.Event().wait(0.1)
    assert client.heard.count(("beat", "0007")) <= beats + 1  # one may have been on its way


class TwoProcesses(Distribution):
    """As one of two processes sees it; the first's answers are handed on in a list."""

    num_processes = 2

    def __init__(self, process_id, told):
        self.process_id, self.told = process_id, told

    def _broadcast_text(self, text):
        if self.is_chief:
            self.told.append(text)
            return text
        return self.told.pop(0)


def test_the_processes_of_a_trial_hear_what_the_first_asks():
    told, client = [], Client()
    first = FirstProcessOracle(client, TwoProcesses(0, told))
    second = FirstProcessOracle(None, TwoProcesses(1, told))
    begun = [oracle.create_trial("worker0") for oracle in (first, second)]
    assert [trial.trial_id for trial in begun] == ["0007", "0007"]
    for oracle, trial in zip((first, second), begun, strict=True):
        oracle.end_trial(trial)
    assert client.heard == [("worker0",), ("ended", "0007")]
    assert not told
