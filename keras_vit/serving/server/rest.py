"""TensorFlow Serving's REST API, without HTTP: a path and a body in, an answer in JSON out.

Sources: https://www.tensorflow.org/tfx/serving/api_rest and, for what the page does not say,
tensorflow_serving/model_servers/{http_rest_api_handler,get_model_status_impl}.cc.
"""

import asyncio
import json
import re
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from google.protobuf.json_format import MessageToDict

from keras_vit.serving.server.examples import classify_or_regress
from keras_vit.serving.server.refusal import Refusal, invalid
from keras_vit.serving.server.served import Served
from keras_vit.serving.server.tensors import read_json, read_predict, write_columns, write_rows
from keras_vit.serving.server.worker import Worker

PREFIX = "/v1/"
_VERSION = r"(?:/versions/(\d+)|/labels/([^/:]+))?"
METHOD = re.compile(rf"/v1/models/([^/:]+){_VERSION}:(classify|regress|predict)", re.IGNORECASE)
STATUS = re.compile(rf"/v1/models(?:/([^/:]+))?{_VERSION}(/metadata)?", re.IGNORECASE)
LARGEST = 2**63 - 1
LARGE_BODY = 2**20  # bytes, from which on bodies are read one after the other: lists take far more than they


class Rest:
    """Answers requests about one model.

    Args:
        worker: runs the model.
        timeout: seconds that a request waits for the model.
    """

    def __init__(self, worker: Worker, timeout: float):
        self.worker, self.timeout = worker, timeout
        self.served: Served = worker.served
        self._readers = ThreadPoolExecutor(2, "json")
        self._one_large = asyncio.Lock()

    async def answer(self, method: str, path: str, body: bytes) -> bytes:
        """The body of the answer.

        Raises:
            Refusal: there is none.
        """
        if method == "POST" and (found := METHOD.fullmatch(path)):
            name, number, label, verb = found.groups()
            self._check_model(name, _version(number), label)
            return await (
                self._predict(body) if verb.lower() == "predict" else self._examples(verb.lower(), body)
            )
        if method == "GET" and (found := STATUS.fullmatch(path)):
            name, number, label, metadata = found.groups()
            return (
                self._metadata(name, _version(number), label)
                if metadata
                else self._status(name, number, label)
            )
        raise invalid(f"Malformed request: {method} {path}")

    def _check_model(self, name: str, number: int | None, label: str | None) -> None:
        if label is not None:
            raise invalid(f"Unrecognized servable version label: {label}")
        if name != self.served.name or number not in (None, self.served.version):
            version = f"Latest({name})" if number is None else f"Specific({name}, {number})"
            raise Refusal("NOT_FOUND", f"Servable not found for request: {version}")

    def _status(self, name: str | None, number: str | None, label: str | None) -> bytes:
        if not name:
            raise invalid("Missing model name in request.")
        if label is not None:
            raise invalid(f"Unrecognized servable version label: {label}")
        if name != self.served.name:
            raise Refusal("NOT_FOUND", f"Could not find any versions of model {name}")
        if _version(number) not in (None, self.served.version):
            raise Refusal("NOT_FOUND", f"Could not find version {number} of model {name}")
        status = {
            "version": str(self.served.version),
            "state": "AVAILABLE",
            "status": {"error_code": "OK", "error_message": ""},
        }
        return json.dumps({"model_version_status": [status]}, indent=1).encode()

    def _metadata(self, name: str | None, number: int | None, label: str | None) -> bytes:
        if not name:
            raise invalid("Missing model name in request.")
        self._check_model(name, number, label)
        definitions = {
            key: MessageToDict(
                definition, preserving_proto_field_name=True, always_print_fields_with_no_presence=True
            )
            for key, definition in sorted(self.served.definitions.items())
        }
        spec = {"name": self.served.name, "signature_name": "", "version": str(self.served.version)}
        metadata = {"signature_def": {"signature_def": definitions}}
        return json.dumps({"model_spec": spec, "metadata": metadata}, indent=1).encode()

    async def _predict(self, body: bytes) -> bytes:
        signature, inputs, by_rows = await self._read(
            body, lambda: read_predict(read_json(body), self.served)
        )
        outputs = await self.wait(self.worker.submit(signature, inputs))
        return await self._in_thread(write_rows if by_rows else write_columns, outputs)

    async def _examples(self, verb: str, body: bytes) -> bytes:
        signature, inputs, write = await self._read(
            body, lambda: classify_or_regress(verb, read_json(body), self.served)
        )
        outputs = await self.wait(self.worker.submit(signature, inputs))
        return await self._in_thread(write, outputs)

    async def _read(self, body: bytes, read: Callable[[], Any]) -> Any:
        if len(body) < LARGE_BODY:
            return await self._in_thread(read)
        async with self._one_large:
            return await self._in_thread(read)

    async def _in_thread(self, function: Callable, *arguments: Any) -> Any:
        return await asyncio.get_running_loop().run_in_executor(self._readers, function, *arguments)

    async def wait(self, future: Future) -> Any:
        """What the model answers.

        Raises:
            Refusal: it refuses, or takes too long.
        """
        try:
            return await asyncio.wait_for(asyncio.wrap_future(future), self.timeout)
        except TimeoutError:
            raise Refusal(
                "DEADLINE_EXCEEDED", f"The model gave no answer within {self.timeout:g} s: try again later"
            ) from None

    def end(self) -> None:
        """Ends the threads."""
        self._readers.shutdown()


def _version(number: str | None) -> int | None:
    if number is None:
        return None
    if len(number) > 19 or int(number) > LARGEST:
        raise invalid(f"Failed to convert version: {number[:40]} to numeric.")
    return int(number)
