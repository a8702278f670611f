"""Workers that join a chief by KerasTuner's variables, and one worker for each GPU."""

import socket

import pytest

from keras_vit.process.children import STARTED
from keras_vit.search.results import read_search
from tests.search.running import finish, start, wait_for

pytestmark = [pytest.mark.long, pytest.mark.same_on_every_backend]


def statuses(out):
    return [trial.status for trial in read_search(out).trials]


def test_a_worker_joins_a_chief_of_another_start(images, tmp_path):
    out = tmp_path / "search"
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    chief = start(
        images, out, "--max-trials", "3", "--workers", "0", "--host", "127.0.0.1", "--port", str(port)
    )
    try:
        wait_for((out / "search.json").is_file, "the chief's start")
        variables = {
            "KERASTUNER_TUNER_ID": "two",
            "KERASTUNER_ORACLE_IP": "127.0.0.1",
            "KERASTUNER_ORACLE_PORT": str(port),
        }
        output = finish(start(images, out, **variables))
        assert "3 of 3 trials done" not in output  # a worker does not know the limits of the chief
        assert f"KERASTUNER_ORACLE_PORT={port}" in finish(chief)
    finally:
        chief.kill()
    assert statuses(out) == ["COMPLETED"] * 3
    assert (out / "logs" / "two.log").is_file()


def test_each_gpu_gets_a_worker(images, tmp_path):
    # There is no GPU here: the test sees that each worker gets a GPU of its own.
    out = tmp_path / "search"
    finish(start(images, out, "--max-trials", "3", CUDA_VISIBLE_DEVICES="0,1"))
    assert statuses(out) == ["COMPLETED"] * 3
    for number in (0, 1):
        assert f", GPU {number}\n" in (out / "logs" / f"worker{number}.log").read_text()
    first_line = (out / "logs" / "chief.log").read_text().splitlines()[0]
    assert first_line.startswith(STARTED)
    assert "GPU" not in first_line
