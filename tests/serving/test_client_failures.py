"""The client without a server, with wrong answers or wrong arguments, and what remains of it afterwards."""

import dataclasses
import json
import os
import subprocess
import sys

import numpy as np
import pytest

from keras_vit.errors import InputError, ServerError
from keras_vit.serving import client
from tests.helpers.paths import ROOT
from tests.serving.brightness_model import CLASSES, png
from tests.serving.protocols import ask, both, free_port

pytestmark = [pytest.mark.same_on_every_backend, pytest.mark.usefixtures("sleeps")]


# Servers that do not answer, or answer wrongly


UNREACHABLE = {
    "no server": (lambda: f"127.0.0.1:{free_port()}", "Connection refused"),
    "no such host": (lambda: "nosuch.invalid:8501", ""),
}


@both
@pytest.mark.parametrize(("address", "reason"), UNREACHABLE.values(), ids=UNREACHABLE.keys())
def test_an_unreachable_server(address, reason, protocol, bright_files):
    address = address()
    with pytest.raises(
        ServerError, match=rf"^{address} cannot be reached \({reason}.*\): TensorFlow Serving has"
    ):
        client.request(address, bright_files, protocol=protocol, retries=0)


@pytest.mark.parametrize(("protocol", "port"), [("grpc", "rest"), ("rest", "grpc")])
def test_the_port_of_the_other_protocol(protocol, port, double, bright_files):
    with pytest.raises(ServerError, match="TensorFlow Serving has gRPC at port 8500 and REST at 8501"):
        client.request(getattr(double, port), bright_files, protocol=protocol, retries=0)


@both
@pytest.mark.parametrize("wrong", [{"name": "nosuch"}, {"name": "no such/name"}, {"version": 9}])
def test_a_model_that_is_not_served(wrong, double, protocol, bright_files):
    with pytest.raises(
        ServerError, match=r"\((NOT_FOUND|404 Not Found)\): .* Check the name and the version"
    ):
        ask(double, protocol, bright_files, **wrong)


@both
def test_a_model_that_fails_on_a_damaged_image(double, protocol, tmp_path):
    """An exported model does not fail. The message of another model is shown."""
    (tmp_path / "truncated.png").write_bytes(png(0)[:-20])
    with pytest.raises(ServerError, match=r"\((INVALID_ARGUMENT|400 Bad Request)\): .*Invalid PNG data"):
        ask(double, protocol, [tmp_path / "truncated.png"])


def without(name):
    return lambda outputs: {key: value for key, value in outputs.items() if key != name}


def with_output(name, change):
    return lambda outputs: {**outputs, name: change(outputs[name])}


WRONG_OUTPUTS = {
    "another model's outputs": (
        lambda outputs: {"dense": outputs["probabilities"], "score": outputs["confidence"]},
        "its outputs are dense, score, without probabilities, label, confidence, reject",
    ),
    "no reject": (without("reject"), "confidence, label, probabilities, without reject"),
    "too few probabilities": (with_output("probabilities", lambda value: value[:-1]), "4|5 images were sent"),
    "flat probabilities": (with_output("probabilities", lambda value: value[:, 0]), "5 images were sent"),
    "NaN": (with_output("probabilities", lambda value: value * np.nan), "not all in 0..1"),
    "logits": (with_output("probabilities", lambda value: value - 2), "not all in 0..1"),
    "labels for numbers": (
        with_output("confidence", lambda value: np.array([b"x"] * 5, object)),
        "x' is not a number",
    ),
    "numbers for labels": (with_output("label", lambda value: np.zeros(5, "int32")), "0 is not a label"),
    "text for numbers": (
        with_output("reject", lambda value: np.array([b"1"] * 5, object)),
        "1' is not a number",
    ),
    "true for 1": (with_output("reject", lambda value: value > 0), "(True|False) is not a number"),
    "half rejected": (with_output("reject", lambda value: value + np.float32(0.5)), "not all in 0..1|is 0.5"),
    "another label": (
        with_output("label", lambda value: np.array([b"light", *value[1:]], object)),
        "the label 'light' does not belong to one class alone",
    ),
    "one label for all": (
        with_output("label", lambda value: np.array([b"dark"] * 5, object)),
        "the label 'dark' does not belong to one class alone",
    ),
    "no label of a decoded image": (
        with_output("label", lambda value: np.array([*value[:4], b""], object)),
        "an image without a label has probabilities",
    ),
    "another confidence": (
        with_output("confidence", lambda value: value * np.float32(0.5)),
        "a confidence is .*, and the largest probability",
    ),
    "a sum above 1": (
        lambda outputs: {
            **outputs,
            "probabilities": np.ones_like(outputs["probabilities"]),
            "confidence": np.ones_like(outputs["confidence"]),
        },
        "the probabilities of an image sum to 3, not to 1",
    ),
    "a sum below 1": (
        lambda outputs: {
            **outputs,
            "probabilities": outputs["probabilities"] * np.float32(0.9),
            "confidence": outputs["confidence"] * np.float32(0.9),
        },
        "the probabilities of an image sum to 0.9, not to 1",
    ),
    "infinite": (with_output("confidence", lambda value: value * np.inf), "not all in 0..1"),
    "no classes": (with_output("probabilities", lambda value: value[:, :0]), "5 images were sent"),
    "an answer too many": (
        lambda outputs: {name: np.concatenate([value, value[:1]]) for name, value in outputs.items()},
        "5 images were sent",
    ),
}


@both
@pytest.mark.parametrize(("change", "message"), WRONG_OUTPUTS.values(), ids=WRONG_OUTPUTS.keys())
def test_wrong_outputs(change, message, double, protocol, bright_files, sleeps):
    double.change = change
    with pytest.raises(ServerError, match=message) as caught:
        ask(double, protocol, bright_files)
    assert str(caught.value).startswith(getattr(double, protocol))
    assert "\n" not in str(caught.value)
    assert sleeps == []


RAW = {
    "a web page": b"<html>\x1b[31mhello</html>",
    "nothing": b"",
    "binary": bytes(range(256)),
    "a number": b"1",
    "other JSON": b'{"ok": true}',
    "no predictions": b'{"predictions": []}',
    "plain numbers": b'{"predictions": [1, 2, 3, 4, 5]}',
    "uneven rows": b'{"predictions": [{"a": 1}, {"b": 2}]}',
    "deep": b"[" * 100_000,
}


@pytest.mark.parametrize("raw", RAW.values(), ids=RAW.keys())
def test_wrong_response_bodies(raw, double, bright_files):
    double.raw = raw
    for call in (lambda: ask(double, "rest", bright_files), lambda: client.signatures(double.rest)):
        with pytest.raises(ServerError, match=f"^{double.rest} (does not answer as|describes)") as caught:
            call()
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 400


# The signatures of a model


@both
def test_signatures(double, protocol):
    found = client.signatures(getattr(double, protocol), protocol=protocol)
    answers = {
        "confidence": "float32 (?)",
        "label": "string (?)",
        "probabilities": "float32 (?, 3)",
        "reject": "int32 (?)",
    }
    assert found == {
        "serving_default": {"inputs": {"image_bytes": "string (?)"}, "outputs": answers},
        "images": {"inputs": {"images": "float32 (?, ?, ?, ?)"}, "outputs": answers},
        "images_uint8": {"inputs": {"images": "uint8 (?, ?, ?, ?)"}, "outputs": answers},
        "features": {
            "inputs": {"image_bytes": "string (?)"},
            "outputs": {"features": "float32 (?, 1)", "reject": "int32 (?)"},
        },
    }


@both
def test_signatures_of_no_model(double, protocol):
    with pytest.raises(ServerError, match=r"Servable not found for request: Specific\(vit, 9\)"):
        client.signatures(getattr(double, protocol), protocol=protocol, version=9)


@pytest.mark.parametrize(
    ("info", "shown"),
    [
        (
            {"dtype": "DT_FLOAT", "tensor_shape": {"dim": [{"size": "-1"}, {"size": "28"}, {}]}},
            "float32 (?, 28, 0)",
        ),
        ({"dtype": "DT_INT64", "tensor_shape": {"unknown_rank": True}}, "int64"),
        ({"dtype": "DT_STRING"}, "string ()"),
    ],
)
def test_a_tensor_of_another_model(info, shown, double):
    """The metadata of any model can be read, even if JSON omits default values."""
    signature_def = {"ask": {"outputs": {"y": info}}, "__saved_model_init_op": {"outputs": {"x": info}}}
    double.raw = json.dumps({"metadata": {"signature_def": {"signature_def": signature_def}}}).encode()
    assert client.signatures(double.rest) == {"ask": {"inputs": {}, "outputs": {"y": shown}}}


# Arguments


BAD_ARGUMENTS = {
    "no port": ({"address": "localhost"}, "Give the server as HOST:PORT, such as localhost:8501"),
    "a URL": ({"address": "http://localhost:8501"}, "Give the server as HOST:PORT"),
    "a path": ({"address": "localhost:8501/v1"}, "Give the server as HOST:PORT"),
    "port 0": ({"address": "localhost:0"}, "Give the server as HOST:PORT"),
    "port 65536": ({"address": "localhost:65536"}, "Give the server as HOST:PORT"),
    "a line break": ({"address": "local\nhost:8501"}, "Give the server as HOST:PORT"),
    "a port of other digits": ({"address": "localhost:٨٥٠١"}, "Give the server as HOST:PORT"),
    "nothing": ({"address": ""}, "Give the server as HOST:PORT"),
    "no name": ({"name": ""}, "The name of the model is empty"),
    "a negative version": ({"version": -1}, "version must be 0 or more"),
    "too high a version": ({"version": 2**63}, "version must be 0 or more"),
    "protocol": ({"protocol": "http"}, "protocol must be one of 'grpc', 'rest'"),
    "no time": ({"timeout": 0.0}, "timeout must be above 0"),
    "no end": ({"timeout": float("inf")}, "timeout must be above 0"),
    "NaN": ({"timeout": float("nan")}, "timeout must be above 0"),
    "negative retries": ({"retries": -1}, "retries must be 0 or more"),
    "empty batches": ({"batch_size": 0}, "batch_size must be 1 or more"),
}


@pytest.mark.parametrize(("wrong", "message"), BAD_ARGUMENTS.values(), ids=BAD_ARGUMENTS.keys())
def test_bad_arguments(wrong, message, bright_files):
    with pytest.raises(InputError) as caught:
        client.request(**{"address": "127.0.0.1:1", "images": bright_files, **wrong})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("address", "protocol"),
    [("localhost:8500", "grpc"), ("localhost:8501", "rest"), ("[::1]:8500", "grpc"), ("a-b.c_d:443", "rest")],
)
def test_the_port_decides_the_protocol(address, protocol):
    assert client.protocol_of(address) == protocol
    assert client.protocol_of(address, "rest") == "rest"


def test_grpc_without_the_stubs(monkeypatch, bright_files):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis.predict_pb2", None)
    with pytest.raises(InputError, match=r"pip install \"keras-vit-defects\[serving\]\", or ask over REST"):
        client.request("localhost:8500", bright_files)


# Names for probabilities


def test_named_probabilities(double, bright_files):
    answers = ask(double, "rest", [*bright_files, "nosuch"])
    plain, named = client.to_json(answers), client.to_json(answers, CLASSES)
    assert plain == [dataclasses.asdict(answer) for answer in answers]
    for answer, item in zip(answers[:-1], named, strict=False):
        assert item["probabilities"] == dict(zip(CLASSES, answer.probabilities, strict=True))
    assert named[-1] == plain[-1]


@pytest.mark.parametrize("names", [CLASSES[:2], (*CLASSES, "other"), CLASSES[::-1], ("a", "b", "c"), ()])
def test_names_of_another_model(names, double, bright_files):
    with pytest.raises(InputError, match="The labels are not those of the model, which has 3 classes"):
        client.to_json(ask(double, "rest", bright_files), names)


# No thread remains


FORKING = """
import os, sys, threading
from keras_vit.serving import client

protocol, address, image = sys.argv[1:]
ask = lambda: client.request(address, [image], protocol=protocol, timeout=20)
first = ask()
client.signatures(address, protocol=protocol)
assert threading.enumerate() == [threading.main_thread()]
child = os.fork()
if not child:
    os._exit(0 if ask() == first else 1)
assert os.waitpid(child, 0)[1] == 0
assert ask() == first
print(first[0].label)
"""


@both
def test_no_thread_is_left_and_a_forked_process_can_ask(double, protocol, bright_files):
    command = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.run(
        [*command, protocol, getattr(double, protocol), str(bright_files[0])],
        env=environment,
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout == "dark\n"
