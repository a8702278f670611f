"""The health check of the compose file, run unchanged against the REST server of the stand-in."""

import shutil
import socket
import subprocess

import pytest

from keras_vit.serving.server_files import health_check

pytestmark = [
    pytest.mark.same_on_every_backend,
    pytest.mark.skipif(shutil.which("bash") is None, reason="the check is bash's"),
]

HEALTHY, UNHEALTHY = 0, 1  # the exit codes of a Docker health check


def exit_code(name, port):
    kind, *command = health_check(name)
    assert kind == "CMD"
    assert all("$" not in argument for argument in command)
    assert sum(argument.count("8501") for argument in command) == 1
    command = [argument.replace("8501", str(port)) for argument in command]
    return subprocess.run(command, capture_output=True, timeout=20).returncode


def port_of(address):
    return int(address.rpartition(":")[2])


@pytest.mark.parametrize(
    ("name", "state", "code"),
    [
        ("vit", "AVAILABLE", HEALTHY),
        ("vit", "START", UNHEALTHY),
        ("vit", "LOADING", UNHEALTHY),
        ("vit", "UNLOADING", UNHEALTHY),
        ("vit", "END", UNHEALTHY),
        ("nosuch", "AVAILABLE", UNHEALTHY),
        ("vi", "AVAILABLE", UNHEALTHY),
        ("it's 100 % $HOME; exit 0 #", "AVAILABLE", UNHEALTHY),
    ],
)
def test_a_server_in_each_state(name, state, code, double):
    double.state = state
    assert exit_code(name, port_of(double.rest)) == code


def test_the_other_port(double):
    assert exit_code("vit", port_of(double.grpc)) == UNHEALTHY


def test_no_server():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port = listener.getsockname()[1]
    assert exit_code("vit", port) == UNHEALTHY
