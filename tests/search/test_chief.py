"""The chief answers the workers of its search alone, and believes nothing that it did not hand out."""

import contextlib
import json
import math
import os
import socket
import stat
import threading

import grpc
import keras_tuner
import pytest

from keras_vit.errors import DistributionError, InputError
from keras_vit.search import chief, remote_oracle
from keras_vit.search.chief import METHOD, SERVICE, SIGNATURE, ChiefClient, serve
from keras_vit.search.remote_oracle import PatientOracle
from keras_vit.search.token import TOKEN, is_signed, make_token, read_token, sign
from tests.search.test_oracle import open_oracle

pytestmark = pytest.mark.same_on_every_backend


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


@pytest.fixture
def search(tmp_path, monkeypatch):
    """An oracle that is served in a thread: (oracle, folder, address)."""
    monkeypatch.setattr(chief, "LAST_ANSWER_SECONDS", 0)
    oracle, address = open_oracle(tmp_path, shared=True), f"127.0.0.1:{free_port()}"
    ended = []
    oracle.has_answered_all = lambda: bool(ended)
    folder = tmp_path / "search"
    make_token(folder)
    thread = threading.Thread(target=serve, args=(oracle, folder, address))
    thread.start()
    yield oracle, folder, address
    ended.append(True)
    thread.join()


@contextlib.contextmanager
def calling(address):
    with grpc.insecure_channel(address) as channel:
        yield channel.unary_unary(f"/{SERVICE}/{METHOD}")


def client(search, name="worker0"):
    oracle, folder, address = search
    return ChiefClient(oracle, folder, address, name)


def test_a_worker_ends_a_trial(search):
    oracle, _, _ = search
    worker = client(search)
    trial = worker.create_trial("worker0")
    assert worker.get_trial(trial.trial_id).hyperparameters.values == trial.hyperparameters.values
    worker.update_trial(trial.trial_id, {"val_accuracy": 0.1 + 0.2}, step=2)
    trial.status = "COMPLETED"
    worker.end_trial(trial)
    assert oracle.trials[trial.trial_id].score == 0.1 + 0.2
    assert [one.score for one in worker.get_best_trials(1)] == [0.1 + 0.2]
    assert [one.name for one in worker.get_space().space] == ["x"]
    assert worker.objective.name == "val_accuracy"


def test_the_reason_of_a_failure_arrives(search):
    oracle, _, _ = search
    worker = client(search)
    trial = worker.create_trial("worker0")
    trial.status, trial.message = "FAILED", "no memory"
    worker.end_trial(trial)
    assert (oracle.trials["0000"].status, oracle.trials["0000"].message) == ("FAILED", "no memory")


def question(nonce="0", **asked):
    return json.dumps({"asked": asked, "nonce": nonce}).encode()


CREATE = question(name="create_trial", tuner_id="worker0")
UNSIGNED = {
    "no signature": lambda token: (),
    "an empty one": lambda token: ((SIGNATURE, ""),),
    "the token itself": lambda token: ((SIGNATURE, token.decode()),),
    "of another token": lambda token: ((SIGNATURE, sign(b"0" * 64, "question", CREATE)),),
    "of another question": lambda token: ((SIGNATURE, sign(token, "question", CREATE + b" ")),),
    "of an answer": lambda token: ((SIGNATURE, sign(token, "answer to 0", CREATE)),),
}


@pytest.mark.parametrize("signature", UNSIGNED.values(), ids=UNSIGNED.keys())
def test_who_does_not_know_the_secret_is_refused(search, signature):
    oracle, folder, address = search
    with calling(address) as call, pytest.raises(grpc.RpcError) as refusal:
        call(CREATE, metadata=signature(read_token(folder)), timeout=20, wait_for_ready=True)
    assert refusal.value.code() is grpc.StatusCode.UNAUTHENTICATED
    assert not oracle.trials


def test_keras_tuners_own_client_is_refused(search, monkeypatch):
    """The one that could feed a chief of KerasTuner: it needs no secret."""
    oracle, _, address = search
    host, port = address.split(":")
    for name, value in (("IP", host), ("PORT", port)):
        monkeypatch.setenv(f"KERASTUNER_ORACLE_{name}", value)
    monkeypatch.setenv("KERASTUNER_TUNER_ID", "stranger")
    tuner = keras_tuner.RandomSearch(
        lambda hp: None, "val_accuracy", directory=oracle._directory, project_name="x"
    )
    with pytest.raises(grpc.RpcError) as refusal:
        tuner.oracle.create_trial("stranger")
    assert refusal.value.code() is grpc.StatusCode.UNIMPLEMENTED
    assert not oracle.trials


def test_a_worker_does_not_believe_another_chief(search, monkeypatch):
    _, folder, _ = search

    def answer(content, context):
        return json.dumps({"answer": {"status": "STOPPED"}}).encode()

    monkeypatch.setattr(remote_oracle, "DISTRUST", 0)
    with chief.ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool)
        handlers = {METHOD: grpc.unary_unary_rpc_method_handler(answer)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        worker = PatientOracle(ChiefClient(search[0], folder, f"127.0.0.1:{port}", "worker0"))
        with pytest.raises(
            DistributionError, match=r"do not share a secret.*the answer is not that of the chief"
        ):
            worker.create_trial("worker0")
        server.stop(None).wait()


def test_a_worker_without_the_folder_of_the_chief(search, tmp_path, monkeypatch):
    monkeypatch.setattr(remote_oracle, "DISTRUST", 0)
    worker = PatientOracle(ChiefClient(search[0], tmp_path, search[2], "worker0"))
    with pytest.raises(DistributionError, match=r"there is no token in .*: start both with the same --out"):
        worker.create_trial("worker0")


def test_a_trial_of_another_worker_is_left_alone(search, capsys):
    oracle, _, _ = search
    trial = client(search).create_trial("worker0")
    stranger = client(search, "worker1")
    stranger.update_trial(trial.trial_id, {"val_accuracy": 1.0})
    trial.status = "COMPLETED"
    stranger.end_trial(trial)
    assert not oracle.end_order
    assert not oracle.trials["0000"].metrics.exists("val_accuracy")
    assert "worker1 reports on trial 0000, which it was not given: ignored." in capsys.readouterr().out


def test_the_point_of_a_trial_is_that_of_the_chief(search):
    oracle, _, _ = search
    worker = client(search)
    trial = worker.create_trial("worker0")
    point = dict(trial.hyperparameters.values)
    worker.update_trial(trial.trial_id, {"val_accuracy": 0.5})
    trial.hyperparameters.values["x"] = 7.0
    trial.hyperparameters.Int("y", 0, 10**9)
    trial.status, trial.score = "COMPLETED", 1.0
    worker.end_trial(trial)
    assert oracle.trials["0000"].hyperparameters.values == point
    assert oracle.trials["0000"].score == 0.5
    assert [one.name for one in oracle.get_space().space] == ["x"]


WRONG = {
    "an unknown trial": (lambda worker: worker.get_trial("0009"), "There is no trial '0009'"),
    "an unknown end": (
        lambda worker: worker._ask("end_trial", trial_id="0000", status="STOPPED", message=None),
        "does not end as 'STOPPED'",
    ),
    "an unknown question": (
        lambda worker: worker._ask("save", trial_id="0000"),
        "does not know the question",
    ),
    "words for numbers": (
        lambda worker: worker._ask("update_trial", trial_id="0000", metrics={"val_accuracy": "x"}, step=0),
        "could not convert",
    ),
    "no objective": (lambda worker: worker.update_trial("0000", {"loss": 0.5}), "Objective value missing"),
}


@pytest.mark.parametrize(("ask", "message"), WRONG.values(), ids=WRONG.keys())
def test_a_wrong_question_has_an_error_for_an_answer(search, ask, message):
    worker = client(search)
    worker.create_trial("worker0")
    with pytest.raises(keras_tuner.errors.FatalError, match=message):
        ask(worker)
    worker.update_trial("0000", {"val_accuracy": 0.5})  # the chief goes on


@pytest.mark.filterwarnings("ignore:All-NaN axis encountered:RuntimeWarning")
@pytest.mark.parametrize("score", [math.inf, None])
def test_a_completed_trial_has_a_finite_score(search, score):
    oracle, _, _ = search
    worker = client(search)
    trial = worker.create_trial("worker0")
    if score is not None:
        worker.update_trial(trial.trial_id, {"val_accuracy": score})
    trial.status = "COMPLETED"
    worker.end_trial(trial)
    assert oracle.trials["0000"].status == "FAILED"


def test_an_address_in_use_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(chief, "BIND_SECONDS", 0)
    with socket.create_server(("127.0.0.1", 0)) as taken:
        address = f"127.0.0.1:{taken.getsockname()[1]}"
        with pytest.raises(InputError, match=f"cannot listen at {address} .*: choose another --port"):
            serve(open_oracle(tmp_path), tmp_path, address)


# The secret


def test_the_secret_is_that_of_the_search_alone(tmp_path):
    made = make_token(tmp_path)
    assert make_token(tmp_path) == made == read_token(tmp_path)  # a chief that starts again keeps its workers
    assert stat.S_IMODE((tmp_path / TOKEN).stat().st_mode) == 0o600
    (tmp_path / "other").mkdir()
    assert make_token(tmp_path / "other") != made


@pytest.mark.skipif(os.name != "posix", reason="permissions of POSIX")
def test_a_secret_that_others_could_read_is_replaced(tmp_path):
    made = make_token(tmp_path)
    (tmp_path / TOKEN).chmod(0o644)
    assert make_token(tmp_path) != made
    assert stat.S_IMODE((tmp_path / TOKEN).stat().st_mode) == 0o600


@pytest.mark.parametrize("content", [b"", b"short", b"x" * 5000])
def test_a_damaged_secret_is_replaced(tmp_path, content):
    (tmp_path / TOKEN).write_bytes(content)
    (tmp_path / TOKEN).chmod(0o600)
    assert read_token(tmp_path) is None
    assert len(make_token(tmp_path)) == 64


def test_a_signature_is_of_one_content_and_purpose():
    signed = sign(b"secret", "question", b"content")
    assert is_signed(b"secret", "question", b"content", signed)
    for token, purpose, content, signature in (
        (None, "question", b"content", signed),
        (b"other", "question", b"content", signed),
        (b"secret", "answer", b"content", signed),
        (b"secret", "question", b"other", signed),
        (b"secret", "question", b"content", None),
        (b"secret", "question", b"content", "é"),
    ):
        assert not is_signed(token, purpose, content, signature)
