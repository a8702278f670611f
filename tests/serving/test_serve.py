"""`keras-vit serve` over HTTP: what TensorFlow Serving's contract does not say."""

import base64
import http.client
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from keras_vit.errors import InputError
from keras_vit.serving import client
from tests.serving.brightness_model import CLASSES, expected, png
from tests.serving.protocols import BRIGHTNESS

pytest.importorskip("uvicorn", reason="needs the extra serve")

pytestmark = pytest.mark.same_on_every_backend


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    from tests.serving import brightness_model

    folder = tmp_path_factory.mktemp("models") / "vit"
    for version in (1, 2):
        brightness_model.write(folder / str(version))
    return folder


@pytest.fixture(scope="module")
def server(model):
    from tests.serving.serving import serving

    with serving(model, allow_hosts=("steel.example",)) as started:
        yield started


@pytest.fixture(scope="module")
def hasty(model):
    """A server that waits for a second."""
    from tests.serving.serving import serving

    with serving(model, timeout=1.0) as started:
        yield started


def body_of(*files):
    return json.dumps({"instances": [{"b64": base64.b64encode(file).decode()} for file in files]}).encode()


def ask(address, body, path="/v1/models/vit:predict", method="POST", headers=()):
    connection = http.client.HTTPConnection(address, timeout=60)
    try:
        connection.request(method, path, body, dict(headers))
        response = connection.getresponse()
        return response, response.read()
    finally:
        connection.close()


def raw(address, content, seconds=20.0):
    """What the server sends to raw bytes, until it closes the connection."""
    host, port = address.split(":")
    with socket.create_connection((host, int(port)), seconds) as connection:
        connection.sendall(content)
        found = b""
        while part := connection.recv(65536):
            found += part
    return found


# Answers


def test_request_answers(server, bright_files):
    answers = client.request(server.address, bright_files, batch_size=2)
    for answer, brightness in zip(answers, BRIGHTNESS, strict=True):
        np.testing.assert_allclose(answer.probabilities, expected(brightness), atol=1e-6)
        assert answer.label == CLASSES[np.argmax(expected(brightness))]
        assert answer.reject is (brightness > 250)


def test_the_newest_version_is_served(server):
    response, content = ask(server.address, None, "/v1/models/vit", "GET")
    (status,) = json.loads(content)["model_version_status"]
    assert (response.status, status["version"]) == (200, "2")


def test_requests_that_wait_are_answered_together_and_each_gets_its_own(server):
    """The calls of the model hold several requests, and one bad file fails its own request only."""
    sizes = []
    served = server.server.served
    call = type(served).call

    def counted(self, signature, inputs):
        sizes.append(len(next(iter(inputs.values()))))
        time.sleep(0.02)
        return call(self, signature, inputs)

    files = [png(i) for i in range(60)] + [png(0)[:-20]]  # the last fails the call that it is in
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(type(served), "call", counted)
        with ThreadPoolExecutor(30) as pool:
            found = list(pool.map(lambda file: ask(server.address, body_of(file)), files))
    for i, (response, content) in enumerate(found[:-1]):
        assert response.status == 200
        (answer,) = json.loads(content)["predictions"]
        np.testing.assert_allclose(answer["probabilities"], expected(i), atol=1e-6)
    assert found[-1][0].status == 400
    assert "Invalid PNG data" in json.loads(found[-1][1])["error"]
    assert 2 <= max(sizes) <= 32


def test_a_request_of_more_images_than_a_batch(server):
    files = [png(i) for i in range(70)]
    response, content = ask(server.address, body_of(*files))
    assert response.status == 200
    found = [row["probabilities"] for row in json.loads(content)["predictions"]]
    np.testing.assert_allclose(found, [expected(i) for i in range(70)], atol=1e-6)


# Limits


def test_a_full_queue(server, monkeypatch):
    from keras_vit.serving.server import worker

    monkeypatch.setattr(worker, "MOST_WAITING", 3)
    began, release = threading.Event(), threading.Event()
    server.server.worker.submit_call(lambda: (began.set(), release.wait(20)))
    began.wait(20)
    waiting = [
        server.server.worker.submit("serving_default", {"image_bytes": np.array([png(0)], object)})
        for _ in range(3)
    ]
    response, content = ask(server.address, body_of(png(0)))
    release.set()
    assert (response.status, response.getheader("Retry-After")) == (503, "1")
    assert "queue" in json.loads(content)["error"]
    assert all(one.result(20)["label"][0] == b"dark" for one in waiting)


def test_a_model_that_takes_too_long(hasty):
    release = threading.Event()
    hasty.server.worker.submit_call(lambda: release.wait(20))
    response, content = ask(hasty.address, body_of(png(0)))
    release.set()
    assert response.status == 504
    assert json.loads(content)["error"] == "The model gave no answer within 1 s: try again later"


REFUSED = {
    "nested lists": (b'{"instances":' + b"[" * 200_000, 400, "JSON Parse error: nested too deeply"),
    "nested objects": (b'{"a":' * 200_000, 400, "JSON Parse error: nested too deeply"),
    "many values": (b'{"instances":[' + b"0," * 10_000_001 + b"0]}", 413, "values"),
    "many images": (body_of(*[b""] * 1025), 400, "at most 1024 images"),
    "a number of many digits": (b'{"instances":[' + b"9" * 10_000 + b"]}", 400, "JSON Parse error"),
    "not UTF-8": (b'{"instances":["\xff"]}', 400, "JSON Parse error"),
    "half of a pair": (b'{"instances":["\\ud800"]}', 400, "JSON Parse error"),
    "a name with a half of a pair": (b'{"signature_name":"\\ud800","instances":[1]}', 400, "not found"),
    "a lot of text": (b'{"instances":1,"x":"' + b"x" * 10**6 + b'"}', 400, "Excepting 'instances'"),
}


@pytest.mark.parametrize(("body", "status", "text"), REFUSED.values(), ids=REFUSED.keys())
def test_hostile_bodies(body, status, text, server):
    response, content = ask(server.address, body)
    answer = json.loads(content)
    assert (response.status, list(answer)) == (status, ["error"])
    assert text in answer["error"]
    assert len(content) < 1000


def head(length, more=""):
    first = "POST /v1/models/vit:predict HTTP/1.1\r\nHost: localhost"
    return f"{first}\r\nContent-Length: {length}\r\n{more}\r\n".encode()


RAW = {
    "a body that is too large": (head(10**9, "Expect: 100-continue\r\n"), b"413", "at most 32 MiB"),
    "not HTTP": (b"\x16\x03\x01\0\0", b"400", "Malformed request"),
    "two lengths": (head(1, "Content-Length: 2\r\n") + b"x", b"400", "Malformed request"),
}


@pytest.mark.parametrize(("content", "status", "text"), RAW.values(), ids=RAW.keys())
def test_hostile_connections(content, status, text, server):
    first, _, body = raw(server.address, content).partition(b"\r\n\r\n")
    assert first.split(b" ")[1] == status
    assert text in json.loads(body)["error"]


def test_a_header_that_does_not_end_is_closed(hasty):
    assert raw(hasty.address, b"GET / HTTP/1.1\r\nHost: loc") == b""


def test_a_body_that_does_not_come(hasty):
    found = raw(hasty.address, head(100) + b"{")
    assert found.startswith(b"HTTP/1.1 408")
    assert b"did not arrive within 1 s" in found


def test_a_chunked_body_that_is_too_large(server, monkeypatch):
    from keras_vit.serving.server import body

    monkeypatch.setattr(body, "MAX_BODY", 10_000)
    chunk = b"4000\r\n" + b"x" * 0x4000 + b"\r\n"
    request = b"POST /v1/models/vit:predict HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n"
    first, _, _ = raw(server.address, request + chunk).partition(b"\r\n\r\n")
    assert first.startswith(b"HTTP/1.1 413")


def test_bodies_together_have_a_limit(server, monkeypatch):
    from keras_vit.serving.server import body

    monkeypatch.setattr(body, "TOGETHER", 10)
    response, content = ask(server.address, body_of(png(0)))
    assert (response.status, response.getheader("Retry-After")) == (503, "1")
    assert "memory" in json.loads(content)["error"]


# Browsers

GUARDED = {
    "no Host": (b"GET / HTTP/1.0\r\n\r\n", b"200"),
    "an address": (b"GET / HTTP/1.1\r\nHost: 127.0.0.1:8501\r\nConnection: close\r\n\r\n", b"200"),
    "an address of IPv6": (b"GET / HTTP/1.1\r\nHost: [::1]:8501\r\nConnection: close\r\n\r\n", b"200"),
    "a name that is allowed": (b"GET / HTTP/1.1\r\nHost: Steel.example\r\nConnection: close\r\n\r\n", b"200"),
    "its own page": (
        b"GET / HTTP/1.1\r\nHost: localhost:1\r\nOrigin: http://localhost:1\r\nConnection: close\r\n\r\n",
        b"200",
    ),
    "another name": (b"GET / HTTP/1.1\r\nHost: evil.example\r\n\r\n", b"403"),
    "a name that looks like it": (b"GET / HTTP/1.1\r\nHost: localhost.evil.example\r\n\r\n", b"403"),
    "a broken name": (b"GET / HTTP/1.1\r\nHost: [::1\r\n\r\n", b"403"),
    "another page": (b"GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: http://evil.example\r\n\r\n", b"403"),
    "another port": (b"GET / HTTP/1.1\r\nHost: localhost:1\r\nOrigin: http://localhost:2\r\n\r\n", b"403"),
    "a page of nowhere": (b"GET / HTTP/1.1\r\nHost: localhost\r\nOrigin: null\r\n\r\n", b"403"),
}


@pytest.mark.parametrize(("content", "status"), GUARDED.values(), ids=GUARDED.keys())
def test_other_sites_are_refused(content, status, server):
    assert raw(server.address, content).split(b" ")[1] == status


def test_headers_of_the_page(server):
    response, content = ask(server.address, None, "/", "GET")
    policy = dict(part.split(" ", 1) for part in response.getheader("Content-Security-Policy").split("; "))
    assert policy["default-src"] == policy["frame-ancestors"] == "'none'"
    assert policy["script-src"].startswith("'nonce-")
    nonce = policy["script-src"][7:-1]
    assert content.decode().count(f'nonce="{nonce}"') == 2
    assert response.getheader("X-Content-Type-Options") == "nosniff"
    again = ask(server.address, None, "/", "GET")[0].getheader("Content-Security-Policy")
    assert nonce not in again


def test_another_site_cannot_send_what_the_page_sends(server):
    response, _ = ask(server.address, png(100), "/answer")
    assert response.status == 400  # a form sends no header of its own
    response, content = ask(server.address, png(100), "/answer", headers={"X-Keras-Vit-Page": "1"})
    assert (response.status, json.loads(content)["label"]) == (200, "gray")


@pytest.mark.parametrize("path", ["/nosuch", "/v2/models/vit", "/../etc/passwd", "//v1/models/vit"])
def test_other_paths(path, server):
    response, content = ask(server.address, None, path, "GET")
    assert response.status in (400, 404)
    assert "Malformed request" in json.loads(content)["error"]


# The command


def test_the_end_waits_for_answers(model):
    from tests.serving.serving import serving

    with serving(model) as started, ThreadPoolExecutor(1) as pool:
        began, release = threading.Event(), threading.Event()
        started.server.worker.submit_call(lambda: (began.set(), release.wait(20)))
        began.wait(20)
        answer = pool.submit(ask, started.address, body_of(png(0)))
        while not started.server.worker._jobs:
            time.sleep(0.01)
        started.server.stop()
        release.set()
        assert answer.result(20)[0].status == 200


def refused(path, **options):
    from keras_vit.serving.server.serve import Server

    with pytest.raises(InputError) as caught:
        Server(path, **options)
    return str(caught.value)


def test_a_port_that_is_taken(model, server):
    port = int(server.address.split(":")[1])
    assert refused(model, port=port) == (
        f"Port {port} of 127.0.0.1 cannot be used (Address already in use): give another --port, or --port 0 "
        "for a free one."
    )


WRONG = {
    "no such folder": ("nosuch", {}, "There is no"),
    "an empty folder": (".", {}, "is not a run folder"),
    "options of a run": ("vit", {"accept_risk": 0.1, "flips": True}, "omit --accept-risk, --flips-at-test."),
    "several models": ("", {}, "is a folder of models, and one is served: give one of"),
    "a name that is no name": ("vit", {"name": "a/b"}, "A model's name is made of"),
    "a port that is none": ("vit", {"port": 70_000}, "port must be"),
    "a host that is not known": ("vit", {"host": "nosuch.invalid"}, "--host nosuch.invalid is not known"),
    "a damaged bundle": ("damaged", {}, "cannot be read as a SavedModel"),
    "another format": ("onnx", {}, "has no saved_model.pb"),
}


@pytest.mark.parametrize(("name", "options", "text"), WRONG.values(), ids=WRONG.keys())
def test_what_cannot_be_served(name, options, text, model, tmp_path):
    (tmp_path / "damaged" / "1").mkdir(parents=True)
    (tmp_path / "damaged" / "1" / "saved_model.pb").write_bytes(b"\xff" * 100)
    (tmp_path / "onnx" / "1").mkdir(parents=True)
    (tmp_path / "empty").mkdir()
    places = {"vit": model, "": model.parent, ".": tmp_path / "empty"}
    assert text in refused(places.get(name, tmp_path / name), **{"port": 0, **options})


def test_the_command_ends_at_a_signal(model):
    command = [sys.executable, "-m", "keras_vit", "serve", str(model), "--port", "0"]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "2"}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment
    ) as it:
        assert it.stdout is not None
        assert "model vit, version 2" in it.stdout.readline()
        assert it.stdout.readline().startswith("ready at http://127.0.0.1:")
        it.send_signal(signal.SIGTERM)
        printed, _ = it.communicate(timeout=60)
        assert (it.returncode, printed) == (0, "ended; answered about 0 images\n")
