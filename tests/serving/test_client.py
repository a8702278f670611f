"""The client against the stand-in for TensorFlow Serving: answers, batches, retries, and what goes wrong."""

import contextlib
import dataclasses
import os
import socket
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from brightness_model import CLASSES, expected, noise_png, png

from keras_vit.errors import InputError, ServerError
from keras_vit.serving import client

pytestmark = pytest.mark.same_on_every_backend

both = pytest.mark.parametrize("protocol", ["grpc", "rest"])
BRIGHTNESS = (3, 100, 140, 200, 255)


@pytest.fixture(autouse=True)
def sleeps(monkeypatch):
    """The waits between retries, in seconds, none of which is waited."""
    waited: list[float] = []
    monkeypatch.setattr(client, "sleep", waited.append)
    return waited


@pytest.fixture
def files(tmp_path):
    """Images of `BRIGHTNESS`."""
    paths = [tmp_path / f"{i}.png" for i in range(len(BRIGHTNESS))]
    for path, brightness in zip(paths, BRIGHTNESS, strict=True):
        path.write_bytes(png(brightness))
    return paths


def ask(double, protocol, images, **options):
    return client.request(getattr(double, protocol), images, protocol=protocol, **options)


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


# Answers


@both
def test_answers(double, protocol, files):
    answers = ask(double, protocol, files)
    assert [answer.image for answer in answers] == [str(path) for path in files]
    for answer, brightness in zip(answers, BRIGHTNESS, strict=True):
        np.testing.assert_allclose(answer.probabilities, expected(brightness), atol=1e-6)
        assert answer.label == CLASSES[np.argmax(expected(brightness))]
        assert answer.confidence == max(answer.probabilities)
        assert answer.reject is (brightness > 250)
        assert answer.error is None


def test_both_protocols_give_the_same_numbers(double, files):
    assert ask(double, "grpc", files) == ask(double, "rest", files)


@both
def test_a_version_can_be_chosen(double, protocol, files):
    assert ask(double, protocol, files, version=1) == ask(double, protocol, files)


def text(folder):
    (folder / "bad").write_text("no image")


def nothing(folder):
    (folder / "bad").write_bytes(b"")


def folder(folder):
    (folder / "bad").mkdir()


def pipe(folder):
    os.mkfifo(folder / "bad")


def locked(folder):
    (folder / "bad").write_bytes(png(0))
    (folder / "bad").chmod(0)
    if os.access(folder / "bad", os.R_OK):
        pytest.skip("this user may read everything")


def huge(folder):
    with open(folder / "bad", "wb") as file:
        file.truncate(client.MAX_FILE_BYTES + 1)  # takes no room on the disk


UNDECODABLE = "the server cannot decode it as an image"
BAD_FILES = {
    "text": (text, UNDECODABLE),
    "0 bytes": (nothing, UNDECODABLE),
    "missing": (lambda folder: None, "there is no such file"),
    "a folder": (folder, "it is no file"),
    "a pipe": (pipe, "it is no file"),
    "not ours": (locked, "cannot be read: Permission denied"),
    "huge": (huge, "more than 512 MiB, too large to send"),
}


@both
@pytest.mark.parametrize(("make", "error"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_image_is_named_and_spoils_no_other(make, error, double, protocol, files, tmp_path):
    make(tmp_path)
    bad = tmp_path / "bad"
    answers = ask(double, protocol, [*files[:2], bad, *files[2:]])
    assert answers.pop(2) == client.Answer(str(bad), reject=error == UNDECODABLE or None, error=error)
    assert answers == ask(double, protocol, files)


@both
def test_files_that_cannot_be_read_ask_nothing(double, protocol):
    answers = ask(double, protocol, ["nosuch", "a\0zero"])
    assert [answer.error for answer in answers] == ["there is no such file", "there is no such file"]
    assert double.batches == []


@both
def test_no_images(double, protocol):
    assert ask(double, protocol, []) == []
    assert double.batches == []


# Batches


@both
@pytest.mark.parametrize(
    ("images", "batch_size", "batches"),
    [(5, 5, [5]), (5, 2, [2, 2, 1]), (5, 1, [1] * 5), (33, None, [32, 1])],
)
def test_batches_of_images(images, batch_size, batches, double, protocol, tmp_path):
    for i in range(images):
        (tmp_path / f"{i}.png").write_bytes(png(7 * i))
    options = {} if batch_size is None else {"batch_size": batch_size}
    answers = ask(double, protocol, [tmp_path / f"{i}.png" for i in range(images)], **options)
    assert double.batches == batches
    for i, answer in enumerate(answers):
        np.testing.assert_allclose(answer.probabilities, expected(7 * i), atol=1e-6)


@both
def test_batches_of_bytes(double, protocol, tmp_path):
    """Each request stays below gRPC's 4 MiB, but for an image that is larger itself."""
    sides = (1100, 1100, 1100, 2300, 1100, 8)  # 1.2 MB each, one of 5.3 MB
    paths = [tmp_path / f"{i}.png" for i in range(len(sides))]
    for path, side in zip(paths, sides, strict=True):
        path.write_bytes(noise_png(side))
    answers = ask(double, protocol, paths)
    assert double.batches == [2, 1, 1, 2]
    assert [answer.label for answer in answers] == ["gray"] * len(sides)


def test_a_long_answer(double, files):
    """More than the 4 MiB that a gRPC client takes by itself."""
    many = 300_000

    def change(outputs):
        count = len(outputs["label"])
        return {**outputs, "probabilities": np.full((count, many), 1 / many, "float32")}

    double.change = change
    assert [len(answer.probabilities) for answer in ask(double, "grpc", files)] == [many] * len(files)


# Failures that may pass


def bounds(attempt):
    longest = 0.5 * 2**attempt
    return longest / 2, longest


@both
@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"])
def test_a_failure_that_passes(code, double, protocol, files, sleeps):
    double.refusals = [code, code]
    assert ask(double, protocol, files) == ask(double, protocol, files)
    assert double.batches == [5] * 4
    assert len(sleeps) == 2
    for attempt, waited in enumerate(sleeps):
        low, high = bounds(attempt)
        assert low <= waited <= high


@both
@pytest.mark.parametrize("retries", [0, 2])
def test_a_failure_that_stays(retries, double, protocol, files, sleeps):
    double.refusals = ["UNAVAILABLE"] * 9
    with pytest.raises(ServerError, match=r"refuses the request \(.*\): told to refuse\.") as caught:
        ask(double, protocol, files, retries=retries)
    assert len(double.batches) == retries + 1
    assert len(sleeps) == retries
    assert getattr(caught.value, "__notes__", []) == (["Asked 3 times."] if retries else [])


@both
@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "INTERNAL"])
def test_a_failure_that_cannot_pass_is_not_tried_again(code, double, protocol, files, sleeps):
    double.refusals = [code]
    with pytest.raises(ServerError, match="told to refuse"):
        ask(double, protocol, files)
    assert len(double.batches) == 1
    assert sleeps == []


def test_waits_grow_to_half_a_minute_and_differ(double, files, sleeps):
    double.refusals = ["UNAVAILABLE"] * 12
    ask(double, "rest", files, retries=12)
    assert len(set(sleeps)) == 12
    assert all(15 <= waited <= 30 for waited in sleeps[6:])


@both
def test_a_server_that_starts_meanwhile_is_found(double, protocol, files, monkeypatch, tmp_path):
    from serving_double import served

    port, waited = free_port(), []
    with contextlib.ExitStack() as stack:

        def start(seconds):
            waited.append(seconds)
            if len(waited) == 2:
                stack.enter_context(served(double.folder, (port, 0) if protocol == "grpc" else (0, port)))

        monkeypatch.setattr(client, "sleep", start)
        found = client.request(f"127.0.0.1:{port}", files, protocol=protocol)
    assert len(waited) == 2
    assert found == ask(double, protocol, files)


@both
def test_a_silent_server(double, protocol, files, monkeypatch):
    double.release.clear()
    with pytest.raises(ServerError, match=r"gave no answer within 0\.2 s: allow more with timeout\."):
        ask(double, protocol, files, timeout=0.2, retries=1)
    assert len(double.batches) == 2
    monkeypatch.setattr(client, "sleep", lambda seconds: double.release.set())
    assert [answer.label for answer in ask(double, protocol, files, timeout=0.5)] == [
        CLASSES[np.argmax(expected(brightness))] for brightness in BRIGHTNESS
    ]


@both
def test_answers_before_a_failure_are_kept(double, protocol, files):
    double.refusals = [None, None, "INTERNAL"]
    with pytest.raises(ServerError) as caught:
        ask(double, protocol, files, batch_size=2)
    assert [answer.image for answer in caught.value.answers] == [str(path) for path in files[:4]]


# Who does not answer, or not well


UNREACHABLE = {
    "nobody listens": (lambda: f"127.0.0.1:{free_port()}", "Connection refused"),
    "no such host": (lambda: "nosuch.invalid:8501", ""),
}


@both
@pytest.mark.parametrize(("address", "reason"), UNREACHABLE.values(), ids=UNREACHABLE.keys())
def test_a_server_out_of_reach(address, reason, protocol, files):
    address = address()
    with pytest.raises(
        ServerError, match=rf"^{address} cannot be reached \({reason}.*\): TensorFlow Serving has"
    ):
        client.request(address, files, protocol=protocol, retries=0)


@pytest.mark.parametrize(("protocol", "port"), [("grpc", "rest"), ("rest", "grpc")])
def test_the_port_of_the_other_protocol(protocol, port, double, files):
    with pytest.raises(ServerError, match="TensorFlow Serving has gRPC at port 8500 and REST at 8501"):
        client.request(getattr(double, port), files, protocol=protocol, retries=0)


@both
@pytest.mark.parametrize("wrong", [{"name": "nosuch"}, {"name": "no such/name"}, {"version": 9}])
def test_a_model_that_is_not_served(wrong, double, protocol, files):
    with pytest.raises(
        ServerError, match=r"\((NOT_FOUND|404 Not Found)\): .* Check the name and the version"
    ):
        ask(double, protocol, files, **wrong)


@both
def test_a_model_that_fails_on_a_damaged_image(double, protocol, tmp_path):
    """An exported model does not; the sentence of another one is passed on."""
    (tmp_path / "cut.png").write_bytes(png(0)[:-20])
    with pytest.raises(ServerError, match=r"\((INVALID_ARGUMENT|400 Bad Request)\): .*Invalid PNG data"):
        ask(double, protocol, [tmp_path / "cut.png"])


def without(name):
    return lambda outputs: {key: value for key, value in outputs.items() if key != name}


def with_output(name, change):
    return lambda outputs: {**outputs, name: change(outputs[name])}


NONSENSE = {
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
        "could not",
    ),
    "numbers for labels": (with_output("label", lambda value: np.zeros(5, "int32")), "0 is no label"),
}


@both
@pytest.mark.parametrize(("change", "message"), NONSENSE.values(), ids=NONSENSE.keys())
def test_an_answer_that_makes_no_sense(change, message, double, protocol, files, sleeps):
    double.change = change
    with pytest.raises(ServerError, match=message) as caught:
        ask(double, protocol, files)
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
def test_a_body_that_makes_no_sense(raw, double, files):
    double.raw = raw
    for call in (lambda: ask(double, "rest", files), lambda: client.signatures(double.rest)):
        with pytest.raises(ServerError, match=f"^{double.rest} (does not answer as|describes)") as caught:
            call()
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 400


# What can be asked of a model


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
def test_bad_arguments(wrong, message, files):
    with pytest.raises(InputError) as caught:
        client.request(**{"address": "127.0.0.1:1", "images": files, **wrong})
    assert message in str(caught.value)


@pytest.mark.parametrize(
    ("address", "protocol"),
    [("localhost:8500", "grpc"), ("localhost:8501", "rest"), ("[::1]:8500", "grpc"), ("a-b.c_d:443", "rest")],
)
def test_the_port_tells_the_protocol(address, protocol):
    assert client.protocol_of(address) == protocol
    assert client.protocol_of(address, "rest") == "rest"


def test_grpc_without_the_stubs(monkeypatch, files):
    monkeypatch.setitem(sys.modules, "tensorflow_serving.apis.predict_pb2", None)
    with pytest.raises(InputError, match=r"pip install \"keras-vit-defects\[serving\]\", or ask over REST"):
        client.request("localhost:8500", files)


# Names for probabilities


def test_named_probabilities(double, files):
    answers = ask(double, "rest", [*files, "nosuch"])
    plain, named = client.to_json(answers), client.to_json(answers, CLASSES)
    assert plain == [dataclasses.asdict(answer) for answer in answers]
    for answer, item in zip(answers[:-1], named, strict=False):
        assert item["probabilities"] == dict(zip(CLASSES, answer.probabilities, strict=True))
    assert named[-1] == plain[-1]


@pytest.mark.parametrize("names", [CLASSES[:2], (*CLASSES, "other"), CLASSES[::-1], ("a", "b", "c"), ()])
def test_names_of_another_model(names, double, files):
    with pytest.raises(InputError, match="The labels are not those of the model, which has 3 classes"):
        client.to_json(ask(double, "rest", files), names)


# Nothing is left behind


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
def test_no_thread_is_left_and_a_forked_process_can_ask(double, protocol, files):
    words = [sys.executable, "-W", "ignore::DeprecationWarning", "-c", FORKING]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    process = subprocess.run(
        [*words, protocol, getattr(double, protocol), str(files[0])],
        env=environment,
        cwd=Path(__file__).parents[2],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert process.returncode == 0, process.stderr
    assert process.stdout == "dark\n"
