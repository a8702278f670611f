"""A stand-in for TensorFlow Serving on loopback.

It uses the real messages and stubs of the protocol (tensorflow-serving-api), a SavedModel that TensorFlow
runs, and gRPC and HTTP over sockets. It replaces the choice of the model, the checks of a request, the codes
and messages of errors, and the conversion between JSON and tensors. These follow the sources of TensorFlow
Serving and the page of its REST API. There is no batching, no version policy and no warm-up.

Sources: tensorflow_serving/servables/tensorflow/{predict_util,get_model_metadata_impl}.cc,
tensorflow_serving/model_servers/{http_server,http_rest_api_handler,get_model_status_impl}.cc,
tensorflow_serving/util/json_tensor.cc, https://www.tensorflow.org/tfx/serving/api_rest
"""

import contextlib
import json
import re
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import grpc
import tensorflow as tf
from google.protobuf.json_format import MessageToDict
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel
from tensorflow_serving.apis import prediction_service_pb2_grpc
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataResponse, SignatureDefMap
from tensorflow_serving.apis.get_model_status_pb2 import GetModelStatusResponse
from tensorflow_serving.apis.predict_pb2 import PredictResponse

from tests.serving import double_json

DEFAULT = "serving_default"
HTTP_STATUS = {  # http_server.cc
    "INVALID_ARGUMENT": 400,
    "FAILED_PRECONDITION": 400,
    "NOT_FOUND": 404,
    "RESOURCE_EXHAUSTED": 429,
    "INTERNAL": 500,
    "UNAVAILABLE": 503,
    "DEADLINE_EXCEEDED": 504,
}


class Refusal(Exception):
    """A gRPC status code and its text."""

    def __init__(self, code, text):
        super().__init__(code, text)
        self.code, self.text = code, text


@dataclass
class Version:
    """One SavedModel: its signatures and functions."""

    signature_def: dict
    functions: Any

    @classmethod
    def load(cls, folder):
        stored = SavedModel.FromString((folder / "saved_model.pb").read_bytes())
        (graph,) = (graph for graph in stored.meta_graphs if "serve" in graph.meta_info_def.tags)
        return cls(dict(graph.signature_def), tf.saved_model.load(str(folder), tags=["serve"]).signatures)

    def run(self, signature, inputs):
        """Returns the outputs by name. `inputs` are tensors by name."""
        if signature not in self.signature_def:
            raise Refusal("FAILED_PRECONDITION", f'Serving signature key "{signature}" not found.')
        wanted = self.signature_def[signature].inputs
        if set(inputs) != set(wanted):
            raise Refusal(
                "INVALID_ARGUMENT",
                f"input size does not match signature: {len(inputs)}!={len(wanted)} "
                f"len({{{','.join(sorted(inputs))}}}) != len({{{','.join(sorted(wanted))}}}).",
            )
        for name, info in wanted.items():
            kind, shape = tf.dtypes.as_dtype(info.dtype), tf.TensorShape(info.tensor_shape)
            if inputs[name].dtype != kind or not shape.is_compatible_with(inputs[name].shape):
                raise Refusal(
                    "INVALID_ARGUMENT",
                    f"Expects {name} to be {kind.name} {shape} but {inputs[name].dtype.name} "
                    f"{inputs[name].shape} is provided.",
                )
        try:
            return self.functions[signature](**inputs)
        except tf.errors.OpError as error:
            raise Refusal("INVALID_ARGUMENT", error.message) from error


@dataclass
class Double:
    """A folder of a model, served.

    Args:
        folder: the folder of the model, which has its name.
        versions: number -> `Version`.
        state: the status of each version.
        refusals: codes that the next requests are refused with, one each; `None` for one that is answered.
        release: while it is not set, requests get no answer.
        change: a function of the outputs, a dict of numpy arrays, that changes them before they are sent.
        raw: bytes that REST sends instead of its JSON.
        batches: the number of images in each Predict request, refused ones too.
        requested_versions: the version that each request asked for, `None` if it gave none.
    """

    folder: Path
    versions: dict[int, Version]
    state: str = "AVAILABLE"
    refusals: list[str | None] = field(default_factory=list)
    release: threading.Event = field(default_factory=threading.Event)
    change: Any = None
    raw: bytes | None = None
    batches: list[int] = field(default_factory=list)
    requested_versions: list[int | None] = field(default_factory=list)
    grpc: str = ""
    rest: str = ""

    @property
    def name(self):
        return self.folder.name

    def reset(self):
        self.state, self.change, self.raw = "AVAILABLE", None, None
        self.refusals.clear()
        self.batches.clear()
        self.requested_versions.clear()
        self.release.set()

    def version(self, name, number):
        found = max(self.versions) if number is None else number
        if name != self.name or found not in self.versions:
            version_text = f"Latest({name})" if number is None else f"Specific({name}, {number})"
            raise Refusal("NOT_FOUND", f"Servable not found for request: {version_text}")
        return found, self.versions[found]

    def predict(self, name, number, signature, inputs):
        self.requested_versions.append(number)
        self.batches.append(max((len(value) for value in inputs.values()), default=0))
        code = self.refusals.pop(0) if self.refusals else None
        if code:
            raise Refusal(code, "set to refuse")
        self.release.wait(20)
        found, version = self.version(name, number)
        outputs = {key: value.numpy() for key, value in version.run(signature, inputs).items()}
        return found, self.change(outputs) if self.change else outputs

    def metadata(self, name, number):
        found, version = self.version(name, number)
        answer = GetModelMetadataResponse()
        answer.model_spec.name, answer.model_spec.version.value = self.name, found
        answer.metadata["signature_def"].Pack(SignatureDefMap(signature_def=version.signature_def))
        return answer

    def status(self, name, version=None):
        if name != self.name:
            raise Refusal("NOT_FOUND", f"Could not find any versions of model {name}")
        if version is not None and version not in self.versions:
            raise Refusal("NOT_FOUND", f"Could not find version {version} of model {name}")
        answer = GetModelStatusResponse()
        for number in sorted(self.versions, reverse=True) if version is None else [version]:
            answer.model_version_status.add(version=number, state=self.state, status={})
        return answer


class Grpc(prediction_service_pb2_grpc.PredictionServiceServicer):
    def __init__(self, double):
        self.double = double

    def Predict(self, request, context):
        spec = request.model_spec
        with _refusing(context):
            signature = spec.signature_name or DEFAULT
            inputs = {key: tf.constant(tf.make_ndarray(value)) for key, value in request.inputs.items()}
            found, outputs = self.double.predict(spec.name, _number(spec), signature, inputs)
            answer = PredictResponse()
            answer.model_spec.name, answer.model_spec.signature_name = spec.name, signature
            answer.model_spec.version.value = found
            for key, value in outputs.items():
                answer.outputs[key].CopyFrom(tf.make_tensor_proto(value))
            return answer

    def GetModelMetadata(self, request, context):
        with _refusing(context):
            if list(request.metadata_field) != ["signature_def"]:
                raise Refusal("INVALID_ARGUMENT", f"Metadata field {request.metadata_field} is not supported")
            return self.double.metadata(request.model_spec.name, _number(request.model_spec))


def _number(spec):
    return spec.version.value if spec.HasField("version") else None


@contextlib.contextmanager
def _refusing(context):
    try:
        yield
    except Refusal as refusal:
        context.abort(grpc.StatusCode[refusal.code], refusal.text)


class Rest(BaseHTTPRequestHandler):
    double: Double
    VERSION = r"(?:/versions/(\d+)|/labels/([^/:]+))?"
    CALL = re.compile(rf"(?i)/v1/models/([^/:]+){VERSION}:(classify|regress|predict)")
    STATUS = re.compile(rf"(?i)/v1/models(?:/([^/:]+))?{VERSION}(/metadata)?")

    def do_GET(self):
        self._answer("GET")

    def do_POST(self):
        self._answer("POST")

    def _answer(self, method):
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        try:
            found = (self.CALL if method == "POST" else self.STATUS).fullmatch(self.path)
            if not found:
                raise double_json.Bad(f"Malformed request: {method} {self.path}")
            name, version, label, what = found.groups()
            if not name:
                raise double_json.Bad("Missing model name in request.")
            if label:
                raise double_json.Bad(f"Unrecognized servable version label: {label}")
            number = int(version) if version else None
            if number is not None and number >= 2**63:
                raise double_json.Bad(f"Failed to convert version: {version} to numeric.")
            if what == "predict":
                answer = self._predict(name, number, body)
            elif method == "POST":
                answer = self._examples(name, number, body, what)
            elif what:
                answer = _metadata_as_json(self.double.metadata(name, number))
            else:
                answer = MessageToDict(
                    self.double.status(name, number),
                    preserving_proto_field_name=True,
                    always_print_fields_with_no_presence=True,
                )
            self._send(200, answer)
        except double_json.Bad as bad:
            self._send(400, {"error": str(bad)})
        except Refusal as refusal:
            self._send(HTTP_STATUS[refusal.code], {"error": refusal.text})

    def _predict(self, name, number, body):
        request = double_json.parsed(body)
        signature = request.get("signature_name") or DEFAULT
        signature_def = self.double.version(name, number)[1].signature_def
        if signature not in signature_def:
            raise double_json.Bad(f'Serving signature name: "{signature}" not found in signature def')
        inputs, key = double_json.predict_inputs(request, signature_def[signature].inputs)
        _, outputs = self.double.predict(name, number, signature, inputs)
        return double_json.predictions(outputs, key)

    def _examples(self, name, number, body, verb):
        request = double_json.parsed(body)
        inputs = {"inputs": double_json.examples(request, verb)}
        signature = request.get("signature_name") or DEFAULT
        signature_def = self.double.version(name, number)[1].signature_def
        if signature not in signature_def:
            raise double_json.Bad(f"No signature was found with the name: {signature}")
        wanted, found = f"tensorflow/serving/{verb}", signature_def[signature].method_name
        if wanted != found:
            kind = {"classify": "classification", "regress": "regression"}[verb]
            raise double_json.Bad(f"Expected {kind} signature method_name to be {wanted}. Was: {found}")
        return double_json.results(verb, self.double.predict(name, number, signature, inputs)[1])

    def _send(self, status, answer):
        body = json.dumps(answer, indent=1).encode() if self.double.raw is None else self.double.raw
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def handle(self):
        with contextlib.suppress(ConnectionError):  # the client does not wait any longer
            super().handle()

    def log_message(self, format, *arguments):
        pass


def _metadata_as_json(answer):
    found = SignatureDefMap()
    answer.metadata["signature_def"].Unpack(found)
    options = {"preserving_proto_field_name": True, "always_print_fields_with_no_presence": True}
    return {
        "model_spec": MessageToDict(answer.model_spec, **options),
        "metadata": {"signature_def": MessageToDict(found, **options)},
    }


@contextlib.contextmanager
def served(folder, ports=(0, 0)):
    """Serves the versions in the folder of a model, at the addresses `.grpc` and `.rest` of the `Double`.

    Args:
        folder: `.../NAME`, with the folders of its versions.
        ports: of gRPC and REST; 0 takes a free one.
    """
    folder = Path(folder)
    double = Double(
        folder,
        {int(path.name): Version.load(path) for path in folder.iterdir() if path.name.isdecimal()},
    )
    double.release.set()
    with ThreadPoolExecutor(4) as pool:
        server = grpc.server(
            pool, options=[("grpc.max_receive_message_length", -1), ("grpc.so_reuseport", 0)]
        )
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Grpc(double), server)
        double.grpc = f"127.0.0.1:{server.add_insecure_port(f'127.0.0.1:{ports[0]}')}"
        server.start()
        handler = type("Handler", (Rest,), {"double": double})
        with ThreadingHTTPServer(("127.0.0.1", ports[1]), handler) as web:
            web.daemon_threads = False  # the end waits for these threads
            double.rest = f"127.0.0.1:{web.server_port}"
            listening = threading.Thread(target=web.serve_forever, args=(0.05,))
            listening.start()
            try:
                yield double
            finally:
                double.release.set()
                web.shutdown()
                listening.join()
                server.stop(None).wait()


if __name__ == "__main__":
    with served(sys.argv[1], tuple(map(int, sys.argv[2:4])) or (0, 0)) as started:
        print(started.grpc, started.rest, flush=True)
        sys.stdin.read()  # until the parent process closes it
