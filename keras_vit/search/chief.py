"""The chief's door: workers ask the oracle over gRPC, and both sides sign what they say.

KerasTuner's own door answers whoever finds its port: any process of the machine, or of the network with
`--host`, could end the search with a score of its own. Here nothing is read before its signature is right.
Messages are JSON, so that nothing in them is code.
"""

import json
import secrets
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import grpc
import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from keras_vit.errors import InputError, first_line
from keras_vit.search.oracle import ViTOracle
from keras_vit.search.token import is_signed, make_token, read_token, remove_token, sign
from keras_vit.text import say

SERVICE, METHOD = "keras_vit.Search", "Ask"
SIGNATURE = "signature"  # of the metadata, in both directions
QUESTION, ANSWER = "question", "answer"
BIND_SECONDS = 10.0  # that an address is waited for: a chief that was killed may still hold it
LAST_ANSWER_SECONDS = 0.5
TIMEOUT = 60.0  # seconds for a question; `PatientOracle` asks again
ENDS = (TrialStatus.COMPLETED, TrialStatus.INVALID, TrialStatus.FAILED)


class NotAWorker(ValueError):
    """A question that a worker of this search would not ask."""


class Unanswered(grpc.RpcError):
    """No answer that can be trusted.

    Args:
        code: as that of other `RpcError`.
        details: why.
    """

    def __init__(self, code: grpc.StatusCode, details: str):
        super().__init__(details)
        self.code, self.details = lambda: code, lambda: details


def serve(oracle: ViTOracle, folder: Path, address: str) -> None:
    """Answers the workers until the search is over and all of them know it.

    Args:
        oracle: of the search.
        folder: of the search.
        address: `host:port` to listen on.

    Raises:
        InputError: the address cannot be had.
    """
    token = make_token(folder)
    # One thread: KerasTuner's oracle keeps its lock when it raises, for the thread that had it.
    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
        handlers = {METHOD: grpc.unary_unary_rpc_method_handler(Door(oracle, token).answer)}
        server.add_generic_rpc_handlers((grpc.method_handlers_generic_handler(SERVICE, handlers),))
        _bind(server, address)
        server.start()
        try:
            while not oracle.has_answered_all():
                time.sleep(0.2)
            time.sleep(LAST_ANSWER_SECONDS)  # the last answer is on its way
        finally:
            server.stop(None).wait()
    remove_token(folder)


def _bind(server: Any, address: str) -> None:
    until = time.monotonic() + BIND_SECONDS
    while True:
        try:
            if server.add_insecure_port(address):
                return
            reason = "it is in use"
        except RuntimeError as error:
            reason = first_line(error)
        if time.monotonic() > until:
            raise InputError(
                f"The chief of the search cannot listen at {address} ({reason}): choose another --port, or "
                "--host."
            )
        time.sleep(0.5)


class Door:
    """Answers signed questions, each with a signature of its own.

    Args:
        oracle: of the search.
        token: its secret.
    """

    def __init__(self, oracle: ViTOracle, token: bytes):
        self._oracle, self._token = oracle, token

    def answer(self, question: bytes, context: Any) -> bytes:
        given = dict(context.invocation_metadata()).get(SIGNATURE)
        if not is_signed(self._token, QUESTION, question, given):
            context.abort(grpc.StatusCode.UNAUTHENTICATED, "this is not a worker of this search")
        asked = json.loads(question)
        try:
            found = {"answer": self._answer(**asked["asked"])}
        except Exception as error:  # also of KerasTuner; the worker ends with it
            found = {"error": str(error) or type(error).__name__}
        content = json.dumps(found).encode()
        context.set_trailing_metadata(((SIGNATURE, sign(self._token, _reply(asked["nonce"]), content)),))
        return content

    def _answer(self, name: str, tuner_id: str, **words: Any) -> Any:
        oracle = self._oracle
        match name:
            case "create_trial":
                return oracle.create_trial(tuner_id).get_state()
            case "get_space":
                return oracle.get_space().get_config()
            case "get_best_trials":
                return [trial.get_state() for trial in oracle.get_best_trials(words["num_trials"])]
        trial_id = words["trial_id"]
        if trial_id not in oracle.trials:
            raise NotAWorker(f"There is no trial {trial_id!r}.")
        if not oracle.was_given(trial_id, tuner_id):
            say(f"{tuner_id} reports on trial {trial_id}, which it was not given: ignored.", flush=True)
            return oracle.trials[trial_id].get_state()
        match name:
            case "get_trial":
                return oracle.get_trial(trial_id).get_state()
            case "update_trial":
                metrics = {str(key): float(value) for key, value in words["metrics"].items()}
                return oracle.update_trial(trial_id, metrics, step=int(words["step"])).get_state()
            case "end_trial":
                if words["status"] not in ENDS:
                    raise NotAWorker(f"A trial does not end as {words['status']!r}.")
                # Of the worker's copy only how it ended is taken: its point is the oracle's.
                copy = Trial.from_state(oracle.trials[trial_id].get_state())
                copy.status, copy.message = words["status"], words["message"]
                return oracle.end_trial(copy)
        raise NotAWorker(f"The chief does not know the question {name!r}.")


class ChiefClient:
    """The oracle of the chief, as a worker sees it: see `serve`.

    A question raises `grpc.RpcError` if the chief does not answer, and
    `keras_tuner.errors.FatalRuntimeError` if the oracle raised an error.

    Args:
        oracle: this process's own, which tells the objective.
        folder: of the search, where the secret is.
        address: `host:port` of the chief.
        tuner_id: of this worker.
    """

    def __init__(self, oracle: Any, folder: Path, address: str, tuner_id: str):
        self.objective, self.max_trials = oracle.objective, oracle.max_trials
        self._folder, self._tuner_id = folder, tuner_id
        # A proxy, which the environment may name, cannot reach this machine's own addresses.
        channel = grpc.insecure_channel(address, options=[("grpc.enable_http_proxy", 0)])
        self._call = channel.unary_unary(f"/{SERVICE}/{METHOD}")

    def create_trial(self, tuner_id):
        return Trial.from_state(self._ask("create_trial"))

    def get_trial(self, trial_id):
        return Trial.from_state(self._ask("get_trial", trial_id=trial_id))

    def update_trial(self, trial_id, metrics, step=0):
        numbers = {name: float(value) for name, value in metrics.items()}
        return Trial.from_state(self._ask("update_trial", trial_id=trial_id, metrics=numbers, step=int(step)))

    def end_trial(self, trial):
        self._ask("end_trial", trial_id=trial.trial_id, status=trial.status, message=trial.message)

    def get_best_trials(self, num_trials=1):
        return [Trial.from_state(state) for state in self._ask("get_best_trials", num_trials=num_trials)]

    def get_space(self):
        return keras_tuner.HyperParameters.from_config(self._ask("get_space"))

    def _ask(self, name: str, **words: Any) -> Any:
        token, nonce = read_token(self._folder), secrets.token_hex(16)
        if token is None:
            raise Unanswered(grpc.StatusCode.UNAUTHENTICATED, f"there is no token in {self._folder}")
        asked = {"name": name, "tuner_id": self._tuner_id, **words}
        question = json.dumps({"asked": asked, "nonce": nonce}).encode()
        signed = ((SIGNATURE, sign(token, QUESTION, question)),)
        content, call = self._call.with_call(question, metadata=signed, timeout=TIMEOUT, wait_for_ready=True)
        given = dict(call.trailing_metadata()).get(SIGNATURE)
        if not is_signed(token, _reply(nonce), content, given):
            raise Unanswered(grpc.StatusCode.UNAUTHENTICATED, "the answer is not that of the chief")
        found = json.loads(content)
        if "error" in found:
            raise keras_tuner.errors.FatalRuntimeError(found["error"])
        return found["answer"]


def _reply(nonce: str) -> str:
    """What the signature of an answer is for: one question alone."""
    return f"{ANSWER} to {nonce}"
