"""The client against servers that claim too much, take too long, or send it elsewhere."""

import contextlib
import json
import re
import socket
import threading
import time
import tracemalloc
from concurrent.futures import ThreadPoolExecutor

import grpc
import numpy as np
import pytest
from tensorflow.core.framework.tensor_pb2 import TensorProto
from tensorflow_serving.apis import prediction_service_pb2_grpc
from tensorflow_serving.apis.get_model_metadata_pb2 import GetModelMetadataResponse, SignatureDefMap
from tensorflow_serving.apis.predict_pb2 import PredictResponse

from keras_vit.errors import ServerError
from keras_vit.serving import client
from tests.serving.brightness_model import png
from tests.serving.protocols import ask

pytestmark = [pytest.mark.same_on_every_backend, pytest.mark.usefixtures("sleeps")]


@pytest.fixture
def image(tmp_path):
    (tmp_path / "image.png").write_bytes(png(0))
    return tmp_path / "image.png"


@pytest.fixture
def little_memory():
    """Fails if Python and numpy take 100 MB, which what a lying answer claims would exceed."""
    tracemalloc.start()
    yield
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 100_000_000


# Answers over gRPC whose tensors claim more than they hold


@contextlib.contextmanager
def grpc_server(answer):
    class Servicer(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):
            return answer

        def GetModelMetadata(self, request, context):
            return answer

    with ThreadPoolExecutor(1) as pool:
        server = grpc.server(pool, options=[("grpc.so_reuseport", 0)])
        prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(Servicer(), server)
        port = server.add_insecure_port("127.0.0.1:0")
        server.start()
        try:
            yield f"127.0.0.1:{port}"
        finally:
            server.stop(None).wait()


def tensor(dtype, shape, **values):
    made = TensorProto(dtype=dtype, **values)
    for size in shape:
        made.tensor_shape.dim.add(size=size)
    return made


FLOAT, INT32, STRING = 1, 3, 7
HONEST = {
    "probabilities": tensor(FLOAT, (1, 2), float_val=[0.75, 0.25]),
    "label": tensor(STRING, (1,), string_val=[b"a"]),
    "confidence": tensor(FLOAT, (1,), float_val=[0.75]),
    "reject": tensor(INT32, (1,), int_val=[0]),
}
UNKNOWN_RANK = TensorProto(dtype=FLOAT, float_val=[1.0])
UNKNOWN_RANK.tensor_shape.unknown_rank = True
LYING = {
    "a billion classes": (
        {"probabilities": tensor(FLOAT, (1, 10**9), float_val=[0.0])},
        "claims 1,000,000,000",
    ),
    "a billion images": ({"probabilities": tensor(FLOAT, (10**9, 2), float_val=[0.0])}, "1 images were sent"),
    "a billion labels": ({"label": tensor(STRING, (10**9,), string_val=[b"a"])}, "1 images were sent"),
    "a billion rejections": ({"reject": tensor(INT32, (10**9,), int_val=[0])}, "1 images were sent"),
    "more axes": ({"probabilities": tensor(FLOAT, (1, 10**4, 10**5), float_val=[0.0])}, "1 images were sent"),
    "a negative axis": ({"probabilities": tensor(FLOAT, (1, -1), float_val=[0.0])}, "1 images were sent"),
    "no axes": ({"confidence": tensor(FLOAT, (), float_val=[0.0])}, "1 images were sent"),
    "unknown rank": ({"probabilities": UNKNOWN_RANK}, "1 images were sent"),
    "too many classes to read": (
        {"probabilities": tensor(FLOAT, (1, 600_000), float_val=[0.0])},
        "claims 600,000",
    ),
    "fewer bytes than it claims": (
        {"probabilities": tensor(FLOAT, (1, 2), tensor_content=b"1234")},
        "does not answer as TensorFlow Serving",
    ),
    "complex numbers": ({"confidence": tensor(8, (1,), scomplex_val=[1.0, 0.0])}, "is not a number"),
    "an unknown type": ({"confidence": tensor(99, (1,), float_val=[1.0])}, "does not answer as"),
}


@pytest.mark.parametrize(("wrong", "message"), LYING.values(), ids=LYING.keys())
def test_a_tensor_that_claims_too_much_is_not_expanded(wrong, message, image, little_memory):
    answer = PredictResponse(outputs={**HONEST, **wrong})
    with grpc_server(answer) as address, pytest.raises(ServerError, match=message):
        client.request(address, [image], protocol="grpc", retries=0)


def test_outputs_that_are_not_used_are_not_expanded(image, little_memory):
    more = {"embedding": tensor(FLOAT, (10**5, 10**5), float_val=[0.0])}
    with grpc_server(PredictResponse(outputs={**HONEST, **more})) as address:
        (answer,) = client.request(address, [image], protocol="grpc", retries=0)
    assert (answer.label, answer.confidence) == ("a", 0.75)


def test_an_answer_with_too_many_bytes_is_not_asked_for_again(image, sleeps):
    more = {"padding": tensor(STRING, (1,), string_val=[bytes(3 * 1024**2)])}
    with (
        grpc_server(PredictResponse(outputs={**HONEST, **more})) as address,
        pytest.raises(ServerError, match="larger than max"),
    ):
        client.request(address, [image], protocol="grpc")
    assert sleeps == []


def test_signatures_that_are_not_what_they_claim():
    answer = GetModelMetadataResponse()
    answer.metadata["signature_def"].Pack(SignatureDefMap())
    answer.metadata["signature_def"].value = b"\xff\xff\xff"
    with (
        grpc_server(answer) as address,
        pytest.raises(ServerError, match="does not answer as TensorFlow Serving"),
    ):
        client.signatures(address, protocol="grpc", retries=0)


# Answers over HTTP


def _whole_request(connection):
    request = b""
    while b"\r\n\r\n" not in request:
        request += connection.recv(65536)
    headers, _, body = request.partition(b"\r\n\r\n")
    length = int(re.search(rb"Content-Length: (\d+)", headers, re.IGNORECASE)[1])
    while len(body) < length:
        body += connection.recv(65536)
    return headers + body


@contextlib.contextmanager
def http_server(answer, reads=True):
    """Serves each connection with `answer(connection, stopped)`. Yields the address and the requests."""
    requests, stopped, threads = [], threading.Event(), []

    def serve(connection):
        with connection, contextlib.suppress(OSError):
            requests.append(_whole_request(connection) if reads else b"")
            answer(connection, stopped)

    def accept():
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            threads.append(threading.Thread(target=serve, args=(connection,)))
            threads[-1].start()

    with socket.create_server(("127.0.0.1", 0)) as listener:
        accepting = threading.Thread(target=accept)
        accepting.start()
        try:
            yield f"127.0.0.1:{listener.getsockname()[1]}", requests
        finally:
            stopped.set()
            listener.shutdown(socket.SHUT_RDWR)
            accepting.join()
            for thread in threads:
                thread.join()


def response(body, status="200 OK", *headers):
    lines = [f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers, "", ""]
    return "\r\n".join(lines).encode() + body


def says(content):
    return lambda connection, stopped: connection.sendall(content)


ROW = {"probabilities": [0.75, 0.25], "label": "a", "confidence": 0.75, "reject": 0}
GOOD = json.dumps({"predictions": [ROW]}).encode()


def drips(content, seconds=0.05):
    def send(connection, stopped):
        for byte in content:
            connection.sendall(bytes([byte]))
            if stopped.wait(seconds):
                return

    return send


def never_ends(connection, stopped):
    connection.sendall(b"HTTP/1.1 200 OK\r\n\r\n[")
    while not stopped.wait(0.05):
        connection.sendall(b" ")


def continues_forever(connection, stopped):
    while not stopped.wait(0.05):
        connection.sendall(b"HTTP/1.1 100 Continue\r\n\r\n")


SLOW = {
    "the body": drips(response(GOOD)),
    "the headers": drips(response(GOOD, "200 OK", *[f"X-{i}: 1" for i in range(50)])),
    "a body without an end": never_ends,
    "an error's body": lambda connection, stopped: (
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 900\r\n\r\n"),
        drips(b" " * 900)(connection, stopped),
    ),
    "100 Continue": continues_forever,
}


@pytest.mark.parametrize("answer", SLOW.values(), ids=SLOW.keys())
def test_a_slow_answer_ends_with_the_timeout(answer, image, sleeps):
    with http_server(answer) as (address, requests):
        begin = time.monotonic()
        with pytest.raises(ServerError, match=r"did not finish its answer within 0\.5 s: raise the timeout"):
            client.request(address, [image], protocol="rest", timeout=0.5)
        assert time.monotonic() - begin < 5  # without the deadline, a body of 160 bytes took 8 seconds
        assert len(requests) == 1
    assert sleeps == []


def test_a_server_that_does_not_read_ends_with_the_timeout(tmp_path):
    (tmp_path / "large.png").write_bytes(bytes(30_000_000))
    with http_server(lambda connection, stopped: stopped.wait(20), reads=False) as (address, _):
        begin = time.monotonic()
        with pytest.raises(ServerError, match=r"gave no answer within 0\.5 s"):
            client.request(address, [tmp_path / "large.png"], protocol="rest", timeout=0.5, retries=0)
        assert time.monotonic() - begin < 10


def test_a_resolver_that_hangs_ends_with_the_timeout(image, monkeypatch):
    hangs = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *arguments, **options: hangs.wait(20))
    with pytest.raises(ServerError, match=r"gave no answer within 0\.3 s"):
        client.request("somewhere.example:8501", [image], protocol="rest", timeout=0.3, retries=0)
    hangs.set()


@pytest.mark.parametrize(
    "status", ["301 Moved", "302 Found", "303 See Other", "307 Temporary", "308 Permanent"]
)
def test_a_redirect_is_not_followed(status, image):
    with http_server(says(response(GOOD))) as (elsewhere, seen):
        to = f"http://{elsewhere}/v1/models/vit:predict"
        with (
            http_server(says(response(b"", status, f"Location: {to}"))) as (address, _),
            pytest.raises(ServerError, match=f"redirects the request to {to}, which is not followed"),
        ):
            client.request(address, [image], protocol="rest")
    assert seen == []


@pytest.mark.parametrize("header", ["Location: http://[", "Location: file:///etc/passwd", "X: y"])
def test_a_redirect_to_nowhere_is_one_sentence(header, image):
    with (
        http_server(says(response(b"", "302 Found", header))) as (address, _),
        pytest.raises(ServerError, match=r"redirects the request to .*, which is not followed"),
    ):
        client.request(address, [image], protocol="rest")


ODD = {
    "too many bytes": (b" " * (2 * 1024**2 + 1), "more than 2,097,152 bytes"),
    "many lists": (b'{"predictions": [' + b"[]," * 300_000 + b"[]]}", "more lists and objects"),
    "many objects": (b'{"predictions": [' + b"{}," * 300_000 + b"{}]}", "more lists and objects"),
    "two rows for an image": (json.dumps({"predictions": [ROW, ROW]}).encode(), "1 images were sent"),
    "a list of lists": (
        json.dumps({"predictions": [{**ROW, "probabilities": [[0.75, 0.25]]}]}).encode(),
        "is not a number",
    ),
    "numbers as text": (
        json.dumps({"predictions": [{**ROW, "confidence": "0.75"}]}).encode(),
        "not a number",
    ),
    "true": (json.dumps({"predictions": [{**ROW, "reject": False}]}).encode(), "False is not a number"),
    "null": (json.dumps({"predictions": [{**ROW, "confidence": None}]}).encode(), "None is not a number"),
    "a huge number": (GOOD.replace(b"0.25", b"1" * 400), "too large"),
    "no list": (b'{"predictions": 7}', "does not answer as TensorFlow Serving"),
}


@pytest.mark.parametrize(("body", "message"), ODD.values(), ids=ODD.keys())
def test_an_odd_body(body, message, image):
    with (
        http_server(says(response(body))) as (address, _),
        pytest.raises(ServerError, match=message) as caught,
    ):
        client.request(address, [image], protocol="rest", retries=0)
    assert len(str(caught.value)) < 400


def test_a_good_body(image):
    with http_server(says(response(GOOD))) as (address, _):
        (answer,) = client.request(address, [image], protocol="rest")
    assert answer == client.Answer(str(image), "a", 0.75, False, (0.75, 0.25))


def test_a_model_that_changes_between_two_requests(image):
    rows = iter([ROW, {**ROW, "probabilities": [0.75, 0.25, 0.0]}])

    def send(connection, stopped):
        connection.sendall(response(json.dumps({"predictions": [next(rows)]}).encode()))

    with (
        http_server(send) as (address, _),
        pytest.raises(ServerError, match="changed its model between two requests, from 2 to 3 classes"),
    ):
        client.request(address, [image, image], protocol="rest", batch_size=1)


def test_a_label_that_changes_its_class_between_two_requests(double, bright_files):
    ask(double, "rest", bright_files, batch_size=1)
    labels = {b"dark": b"light", b"light": b"dark"}
    double.change = lambda outputs: outputs if len(double.batches) < 5 else change_labels(outputs, labels)
    double.batches.clear()
    with pytest.raises(ServerError, match="does not belong to one class alone"):
        ask(double, "rest", bright_files, batch_size=1)


def change_labels(outputs, labels):
    return {**outputs, "label": np.array([labels.get(one, one) for one in outputs["label"]], object)}
