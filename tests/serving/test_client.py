"""The client against the stand-in for TensorFlow Serving: answers, batches, retries."""

import contextlib
import os

import numpy as np
import pytest

from keras_vit.errors import ServerError
from keras_vit.serving import client
from tests.serving.brightness_model import CLASSES, expected, noise_png, png
from tests.serving.protocols import BRIGHTNESS, ask, both, free_port

pytestmark = [pytest.mark.same_on_every_backend, pytest.mark.usefixtures("sleeps")]


# Answers


@both
def test_answers(double, protocol, bright_files):
    answers = ask(double, protocol, bright_files)
    assert [answer.image for answer in answers] == [str(path) for path in bright_files]
    for answer, brightness in zip(answers, BRIGHTNESS, strict=True):
        np.testing.assert_allclose(answer.probabilities, expected(brightness), atol=1e-6)
        assert answer.label == CLASSES[np.argmax(expected(brightness))]
        assert answer.confidence == max(answer.probabilities)
        assert answer.reject is (brightness > 250)
        assert answer.error is None


def test_both_protocols_give_the_same_numbers(double, bright_files):
    assert ask(double, "grpc", bright_files) == ask(double, "rest", bright_files)


@both
def test_a_version_can_be_chosen(double, protocol, bright_files):
    assert ask(double, protocol, bright_files, version=1) == ask(double, protocol, bright_files)
    assert double.requested_versions == [1, None]


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
        file.truncate(client.MAX_FILE_BYTES + 1)  # takes no space on the disk


UNDECODABLE = "the server cannot decode it as an image"
BAD_FILES = {
    "text": (text, UNDECODABLE),
    "0 bytes": (nothing, UNDECODABLE),
    "missing": (lambda folder: None, "there is no such file"),
    "a folder": (folder, "it is not a file"),
    "a pipe": (pipe, "it is not a file"),
    "no permission": (locked, "cannot be read: Permission denied"),
    "huge": (huge, "more than 512 MiB, too large to send"),
}


@both
@pytest.mark.parametrize(("make", "error"), BAD_FILES.values(), ids=BAD_FILES.keys())
def test_a_bad_image_is_named_and_does_not_affect_others(
    make, error, double, protocol, bright_files, tmp_path
):
    make(tmp_path)
    bad = tmp_path / "bad"
    answers = ask(double, protocol, [*bright_files[:2], bad, *bright_files[2:]])
    assert answers.pop(2) == client.Answer(str(bad), reject=error == UNDECODABLE or None, error=error)
    assert answers == ask(double, protocol, bright_files)


@both
def test_unreadable_files_send_no_request(double, protocol):
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
    """Each request stays below the 4 MiB of gRPC, unless a single image is larger."""
    sides = (1100, 1100, 1100, 2300, 1100, 8)  # about 1.2 MB each, and one of 5.3 MB
    paths = [tmp_path / f"{i}.png" for i in range(len(sides))]
    for path, side in zip(paths, sides, strict=True):
        path.write_bytes(noise_png(side))
    answers = ask(double, protocol, paths)
    assert double.batches == [2, 1, 1, 2]
    assert [answer.label for answer in answers] == ["gray"] * len(sides)


def test_a_large_answer(double, bright_files):
    """More than the 4 MiB that a gRPC client accepts by default."""
    many = 300_000

    def change(outputs):
        found = outputs["probabilities"]
        return {**outputs, "probabilities": np.pad(found, ((0, 0), (0, many - found.shape[1])))}

    double.change = change
    assert [len(answer.probabilities) for answer in ask(double, "grpc", bright_files)] == [many] * len(
        bright_files
    )


# Temporary failures


def bounds(attempt):
    longest = 0.5 * 2**attempt
    return longest / 2, longest


@both
@pytest.mark.parametrize("code", ["UNAVAILABLE", "RESOURCE_EXHAUSTED", "DEADLINE_EXCEEDED"])
def test_a_temporary_failure(code, double, protocol, bright_files, sleeps):
    double.refusals = [code, code]
    assert ask(double, protocol, bright_files) == ask(double, protocol, bright_files)
    assert double.batches == [5] * 4
    assert len(sleeps) == 2
    for attempt, waited in enumerate(sleeps):
        low, high = bounds(attempt)
        assert low <= waited <= high


@both
@pytest.mark.parametrize("retries", [0, 2])
def test_a_permanent_failure(retries, double, protocol, bright_files, sleeps):
    double.refusals = ["UNAVAILABLE"] * 9
    with pytest.raises(ServerError, match=r"refuses the request \(.*\): set to refuse\.") as caught:
        ask(double, protocol, bright_files, retries=retries)
    assert len(double.batches) == retries + 1
    assert len(sleeps) == retries
    assert getattr(caught.value, "__notes__", []) == (["Tried 3 times."] if retries else [])


@both
@pytest.mark.parametrize("code", ["INVALID_ARGUMENT", "NOT_FOUND", "FAILED_PRECONDITION", "INTERNAL"])
def test_an_error_of_the_request_is_not_retried(code, double, protocol, bright_files, sleeps):
    double.refusals = [code]
    with pytest.raises(ServerError, match="set to refuse"):
        ask(double, protocol, bright_files)
    assert len(double.batches) == 1
    assert sleeps == []


def test_waits_grow_to_half_a_minute_and_are_random(double, bright_files, sleeps):
    double.refusals = ["UNAVAILABLE"] * 12
    ask(double, "rest", bright_files, retries=12)
    assert len(set(sleeps)) == 12
    assert all(15 <= waited <= 30 for waited in sleeps[6:])


@both
def test_a_server_that_starts_during_the_retries(double, protocol, bright_files, monkeypatch, tmp_path):
    from tests.serving.serving_double import served

    port, waited = free_port(), []
    with contextlib.ExitStack() as stack:

        def start(seconds):
            waited.append(seconds)
            if len(waited) == 2:
                stack.enter_context(served(double.folder, (port, 0) if protocol == "grpc" else (0, port)))

        monkeypatch.setattr(client, "sleep", start)
        found = client.request(f"127.0.0.1:{port}", bright_files, protocol=protocol)
    assert len(waited) == 2
    assert found == ask(double, protocol, bright_files)


@both
def test_a_silent_server(double, protocol, bright_files, monkeypatch):
    double.release.clear()
    with pytest.raises(ServerError, match=r"gave no answer within 0\.2 s: raise the timeout\."):
        ask(double, protocol, bright_files, timeout=0.2, retries=1)
    assert len(double.batches) == 2
    monkeypatch.setattr(client, "sleep", lambda seconds: double.release.set())
    assert [answer.label for answer in ask(double, protocol, bright_files, timeout=0.5)] == [
        CLASSES[np.argmax(expected(brightness))] for brightness in BRIGHTNESS
    ]


@both
def test_answers_before_an_error_are_kept(double, protocol, bright_files):
    double.refusals = [None, None, "INTERNAL"]
    with pytest.raises(ServerError) as caught:
        ask(double, protocol, bright_files, batch_size=2)
    assert [answer.image for answer in caught.value.answers] == [str(path) for path in bright_files[:4]]
