"""The two protocols of TensorFlow Serving: REST with the standard library alone, gRPC with its own stubs.

Each has `predict`, from image files to the outputs by their names, and `signature_def`. Each opens one
connection per call: a server that was restarted is found again, and nothing stays open between calls.
"""

import base64
import http.client
import json
import re
import socket
import urllib.error
import urllib.request
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote

import numpy as np

from keras_vit.errors import InputError, ServerError
from keras_vit.serving.answers import answered, check_shapes, most_bytes
from keras_vit.serving.timed_http import Unfinished, open_url

INPUT = "image_bytes"
PASSING_CODES = ("UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED")
PASSING_STATUSES = (429, 502, 503, 504)
# Of an answer as JSON, per image: lists, objects and their entries. Python's take far more memory than bytes.
PARTS_PER_IMAGE = 1000
PORTS = "TensorFlow Serving has gRPC at port 8500 and REST at 8501"


@dataclass(frozen=True)
class Rest:
    """TensorFlow Serving's REST API.

    Source: https://www.tensorflow.org/tfx/serving/api_rest

    Args:
        address: "HOST:PORT".
        name: of the model.
        version: of the model; `None` for the latest.
        timeout: seconds that a call may take, from finding the host to the last byte of the answer.
    """

    address: str
    name: str
    version: int | None
    timeout: float

    def predict(self, images: list[bytes]) -> dict[str, list]:
        """Output name -> one value per image."""
        return self._predict({"instances": [{"b64": base64.b64encode(image).decode()} for image in images]})

    def predict_arrays(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, list]:
        """The same of a signature that takes arrays, by their names; each has one entry per image."""
        rows = zip(*(array.tolist() for array in inputs.values()), strict=True)
        instances: list = [dict(zip(inputs, row, strict=True)) for row in rows]
        if len(inputs) == 1:
            instances = [next(iter(row.values())) for row in instances]
        return self._predict({"signature_name": signature, "instances": instances})

    def _predict(self, body: dict) -> dict[str, list]:
        answer = self._call(":predict", json.dumps(body).encode(), len(body["instances"]))
        try:
            rows = answer["predictions"]
            return {name: [row[name] for row in rows] for name in rows[0]}
        except (KeyError, IndexError, TypeError) as error:
            raise _unusable(self.address, answer) from error

    def signature_def(self) -> dict:
        """Signature name -> its SignatureDef, as JSON has it."""
        answer = self._call("/metadata")
        try:
            return answer["metadata"]["signature_def"]["signature_def"]
        except (KeyError, TypeError) as error:
            raise _unusable(self.address, answer) from error

    def _call(self, method, body=None, images=None):
        version = "" if self.version is None else f"/versions/{self.version}"
        url = f"http://{self.address}/v1/models/{quote(self.name, safe='')}{version}{method}"
        request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
        most = most_bytes(images or 1)
        try:
            with open_url(request, self.timeout) as response:
                content = response.read(most + 1)
        except urllib.error.HTTPError as error:
            with error:
                raise self._refusal(error) from error
        except (OSError, http.client.HTTPException) as error:
            reason = error.reason if isinstance(error, urllib.error.URLError) else error
            raise self._failure(reason) from error
        if len(content) > most:
            raise _unusable(self.address, f"more than {most:,} bytes")
        if images and sum(map(content.count, (b"[", b"{", b":"))) > PARTS_PER_IMAGE * images:
            raise _unusable(self.address, "more lists and objects than an answer has")
        try:
            return json.loads(content)
        except (ValueError, RecursionError) as error:
            raise _unusable(self.address, content.decode(errors="replace")) from error

    def _refusal(self, error):
        if 300 <= error.code < 400:
            where = _short(error.headers.get("Location", "nowhere"))
            return ServerError(
                f"{self.address} redirects the request to {where}, which is not followed: give the address "
                "of the server itself."
            )
        try:
            reason = json.loads(error.read(most_bytes(1)))["error"]
        except (ValueError, KeyError, TypeError, RecursionError, OSError, http.client.HTTPException):
            reason = ""  # the answer is not TensorFlow Serving's, but that of a proxy
        return _refusal(self.address, f"{error.code} {error.reason}", reason, error.code in PASSING_STATUSES)

    def _failure(self, reason):
        if isinstance(reason, Unfinished):
            return ServerError(
                f"{self.address} did not finish its answer within {self.timeout:g} s: raise the timeout."
            )
        if isinstance(reason, TimeoutError):
            return _silence(self.address, self.timeout)
        if isinstance(reason, socket.gaierror):
            return _unreachable(self.address, reason.strerror, reason.errno == socket.EAI_AGAIN)
        if isinstance(reason, ConnectionError):
            return _unreachable(self.address, reason.strerror or reason, True)
        if isinstance(reason, OSError):
            return _unreachable(self.address, reason.strerror or reason)
        return _unusable(self.address, reason)


@dataclass(frozen=True)
class Grpc:
    """TensorFlow Serving's PredictionService.

    Args:
        address: as `Rest`.
        name: as `Rest`.
        version: as `Rest`.
        timeout: seconds that a call may take.

    Raises:
        InputError: tensorflow-serving-api is not installed.
    """

    address: str
    name: str
    version: int | None
    timeout: float

    def __post_init__(self):
        try:
            import tensorflow_serving.apis.predict_pb2  # noqa: F401
        except ImportError as error:
            raise InputError(
                'gRPC needs tensorflow-serving-api: pip install "keras-vit-defects[serving]", or ask over '
                f"REST (protocol rest). ({error})"
            ) from error

    def predict(self, images: list[bytes]) -> dict[str, np.ndarray]:
        """Output name -> one value per image."""
        return self._predict({INPUT: np.array(images, object)}, len(images))

    def predict_arrays(self, signature: str, inputs: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        """The same of a signature that takes arrays, by their names; each has one entry per image."""
        return self._predict(inputs, len(next(iter(inputs.values()))), signature)

    def _predict(
        self, inputs: dict[str, np.ndarray], count: int, signature: str | None = None
    ) -> dict[str, np.ndarray]:
        import tensorflow as tf
        from tensorflow_serving.apis.predict_pb2 import PredictRequest

        request = PredictRequest()
        if signature is not None:
            request.model_spec.signature_name = signature
        for name, array in inputs.items():
            request.inputs[name].CopyFrom(tf.make_tensor_proto(array))
        answer = self._call("Predict", request, count)
        # A tensor may claim far more values than it holds, which make_ndarray would fill up.
        check_shapes(self.address, {name: _shape(value) for name, value in answer.outputs.items()}, count)
        try:
            return {name: tf.make_ndarray(answer.outputs[name]) for name in answered(answer.outputs)}
        except (TypeError, ValueError) as error:
            raise _unusable(self.address, error) from error

    def signature_def(self) -> dict:
        """Signature name -> its SignatureDef, as JSON has it."""
        from google.protobuf.json_format import MessageToDict
        from google.protobuf.message import DecodeError
        from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataRequest, SignatureDefMap

        answer = self._call("GetModelMetadata", GetModelMetadataRequest(metadata_field=["signature_def"]))
        found = SignatureDefMap()
        try:
            unpacked = answer.metadata["signature_def"].Unpack(found)
        except DecodeError as error:
            raise _unusable(self.address, error) from error
        if not unpacked:
            raise _unusable(self.address, answer)
        return MessageToDict(found, preserving_proto_field_name=True).get("signature_def", {})

    def _call(self, method, request, images=1):
        import grpc
        from tensorflow_serving.apis.prediction_service_pb2_grpc import PredictionServiceStub

        request.model_spec.name = self.name
        if self.version is not None:
            request.model_spec.version.value = self.version
        options = {
            "grpc.max_send_message_length": -1,
            "grpc.max_receive_message_length": most_bytes(images),
        }
        try:
            with grpc.insecure_channel(self.address, options=list(options.items())) as channel:
                return getattr(PredictionServiceStub(channel), method)(request, timeout=self.timeout)
        except grpc.RpcError as error:
            raise self._failure(error.code().name, error.details() or "") from error

    def _failure(self, code, details):
        if code == "DEADLINE_EXCEEDED":
            return _silence(self.address, self.timeout)
        # A server whose queue is full has the same code; only the text differs.
        if code == "UNAVAILABLE" and re.search("failed to connect|resol(ution|ving)", details):
            return _unreachable(self.address, details.rsplit(": ", 1)[-1], True)
        too_large = "larger than max" in details  # the code is that of a busy server
        return _refusal(self.address, code, details, code in PASSING_CODES and not too_large)


def _shape(tensor: Any) -> tuple[int, ...] | None:
    """The shape that a TensorProto claims; `None` if it has no number of axes."""
    if tensor.tensor_shape.unknown_rank:
        return None
    return tuple(axis.size for axis in tensor.tensor_shape.dim)


def _unreachable(address, reason, may_pass=False):
    return ServerError(f"{address} cannot be reached ({_short(reason)}): {PORTS}.", may_pass)


def _silence(address, timeout):
    return ServerError(f"{address} gave no answer within {timeout:g} s: raise the timeout.", True)


def _refusal(address, code, reason, may_pass):
    reason = _short(reason).rstrip(".") or "no reason given"
    fix = " Check the name and the version of the model." if code.startswith(("NOT_FOUND", "404")) else ""
    return ServerError(f"{address} refuses the request ({_short(code)}): {reason}.{fix}", may_pass)


def _unusable(address, found):
    return ServerError(f"{address} does not answer as TensorFlow Serving ({PORTS}): {_short(found)}")


def _short(text, most=200):
    # A character that is not printable could be a command to the terminal.
    text = "".join(letter if letter.isprintable() else "?" for letter in " ".join(str(text).split()))
    return text if len(text) <= most else f"{text[:most]}..."
