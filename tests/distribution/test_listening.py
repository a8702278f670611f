"""Runs on one machine listen on loopback, where no other machine can reach them."""

import re
import subprocess
import sys

import pytest

from keras_vit.distribution.loopback import is_loopback
from tests.distribution.processes import BACKEND, LIMIT, environment, finish, free_ports, start
from tests.helpers.paths import ROOT

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc/net/tcp")


def addresses(printed):
    return [line.split() for text in printed for line in re.findall(r"listens: (.*)", text)]


@linux
@pytest.mark.long
@pytest.mark.skipif(BACKEND != "torch", reason="elsewhere the devices of a machine share a process")
def test_devices_that_the_command_starts_listen_on_loopback():
    found = addresses(finish(start("listening", "--start")))
    assert len(found) == 2
    assert {one for line in found for one in line} == {"127.0.0.1"}
    assert any(len(line) > 2 for line in found)  # the store and gloo, beside the socket of the test


@linux
@pytest.mark.long
@pytest.mark.skipif(
    BACKEND != "jax", reason="TensorFlow listens on all addresses (docs/cluster.md); torch is above"
)
def test_processes_on_loopback_listen_there():
    found = addresses(finish(start("listening", count=2)))
    assert len(found) == 2
    assert {one for line in found for one in line} == {"127.0.0.1"}


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    ("address", "expected"),
    [
        ("127.0.0.1:1234", True),
        ("127.8.0.1:1234", True),
        ("localhost:1234", True),
        ("[::1]:1234", True),
        ("one:1234", False),
        ("10.0.0.1:1234", False),
        ("0.0.0.0:1234", False),
        ("localhost.example.org:1234", False),
    ],
)
def test_an_address_of_loopback(address, expected):
    assert is_loopback(address) is expected


@linux
@pytest.mark.skipif(BACKEND != "torch", reason="elsewhere no thread of the processes is left")
@pytest.mark.parametrize("code", [0, 7])
def test_a_joined_process_keeps_its_exit_code_and_what_it_wrote(code):
    words = f"""
import atexit, sys
from keras_vit.distribution.torch_engine import _end_without_destructors
_end_without_destructors()
atexit.register(print, "the last line", end="")
sys.exit({code})
"""
    command = [sys.executable, "-W", "ignore", "-c", words]
    ended = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert ended.returncode == code
    assert ended.stdout == "the last line"


@linux
@pytest.mark.skipif(BACKEND != "torch", reason="elsewhere no thread of the processes is left")
def test_no_thread_of_the_group_outlives_python():
    # Such a thread may ask for Python's lock too late, which aborts the process.
    words = """
import atexit
from pathlib import Path

def threads():
    names = [path.joinpath("comm").read_text().strip() for path in Path("/proc/self/task").iterdir()]
    return [name for name in names if "gloo" in name]

atexit.register(lambda: print("after:", threads()))  # the last to be called
import numpy as np
from keras_vit.distribution.torch_engine import _join, _processes

_join()
found = _processes()
found.broadcast(np.ones(3, "float32"))
print("before:", bool(threads()), found.is_current())
"""
    command = [sys.executable, "-W", "ignore", "-c", words]
    variables = environment(0, free_ports(1))
    ended = subprocess.run(
        command, capture_output=True, text=True, cwd=ROOT, check=False, env=variables, timeout=LIMIT
    )
    assert ended.stdout.splitlines() == ["before: True True", "after: []"], ended.stderr
