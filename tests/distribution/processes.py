"""Starts modules of the tests in new processes, like a launcher on the loopback device."""

import json
import os
import socket
import subprocess
import sys

import keras

from tests.helpers.paths import ROOT

BACKEND = keras.backend.backend()
LIMIT = 600  # seconds until a test stops waiting for a process


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def environment(process_id=None, ports=()):
    """The environment of a process.

    Args:
        process_id: the number of the process in its run; `None` for a single process.
        ports: one per process of the run; they go into TF_CONFIG, Keras's variables or torchrun's.
    """
    variables = {
        **os.environ,
        "KERAS_BACKEND": BACKEND,
        "PYTHONPATH": str(ROOT),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }
    if process_id is None:
        return variables
    addresses = [f"127.0.0.1:{port}" for port in ports]
    if BACKEND == "tensorflow":
        task = {"type": "worker", "index": process_id}
        variables["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
    elif BACKEND == "jax":
        variables["KERAS_DISTRIBUTION_JOB_ADDRESSES"] = addresses[0]
        variables["KERAS_DISTRIBUTION_NUM_PROCESSES"] = str(len(ports))
        variables["KERAS_DISTRIBUTION_PROCESS_ID"] = str(process_id)
    else:  # what torchrun sets
        variables.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(ports[0]), WORLD_SIZE=str(len(ports)))
        variables.update(RANK=str(process_id), LOCAL_RANK=str(process_id), LOCAL_WORLD_SIZE=str(len(ports)))
    return variables


def start(module, *arguments, count=None, killed=()):
    """Starts `tests.distribution.MODULE` as `count` processes of one run, or as a single process.

    `train` kills the processes whose numbers are in `killed` in their second epoch or, with {number: epoch},
    in another one.
    """
    ports = free_ports(count or 0)
    killed = killed if isinstance(killed, dict) else dict.fromkeys(killed, 1)
    return [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", "-m", f"tests.distribution.{module}", *map(str, arguments)],
            env={
                **(environment(i, ports) if count else environment()),
                **({"DIES_IN_EPOCH": str(killed[i])} if i in killed else {}),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(count or 1)
    ]


def finish(processes, code=0):
    """Waits until all processes have ended with `code`. Returns the output of each."""
    try:
        printed = [process.communicate(timeout=LIMIT)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, text in zip(processes, printed, strict=True):
        assert process.returncode == code, text[-4000:]
    return printed
