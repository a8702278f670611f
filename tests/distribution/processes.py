"""Starts what the tests want to run in processes of their own, as a launcher on loopback would."""

import json
import os
import socket
import subprocess
import sys
from pathlib import Path

import keras

TESTS = Path(__file__).parent.parent
BACKEND = keras.backend.backend()
LIMIT = 240  # seconds until a test gives a process up


def free_ports(count):
    sockets = [socket.socket() for _ in range(count)]
    for one in sockets:
        one.bind(("127.0.0.1", 0))
    ports = [one.getsockname()[1] for one in sockets]
    for one in sockets:
        one.close()
    return ports


def environment(process_id=None, ports=()):
    """The environment of one process; of several, as TF_CONFIG, Keras's variables or torchrun say it."""
    found = {
        **os.environ,
        "KERAS_BACKEND": BACKEND,
        "PYTHONPATH": os.pathsep.join([str(TESTS), str(TESTS.parent)]),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "OMP_NUM_THREADS": "1",
        "PYTHONUNBUFFERED": "1",
    }
    if process_id is None:
        return found
    addresses = [f"127.0.0.1:{port}" for port in ports]
    if BACKEND == "tensorflow":
        task = {"type": "worker", "index": process_id}
        found["TF_CONFIG"] = json.dumps({"cluster": {"worker": addresses}, "task": task})
    elif BACKEND == "jax":
        found["KERAS_DISTRIBUTION_JOB_ADDRESSES"] = addresses[0]
        found["KERAS_DISTRIBUTION_NUM_PROCESSES"] = str(len(ports))
        found["KERAS_DISTRIBUTION_PROCESS_ID"] = str(process_id)
    else:  # what torchrun sets
        found.update(MASTER_ADDR="127.0.0.1", MASTER_PORT=str(ports[0]), WORLD_SIZE=str(len(ports)))
        found.update(RANK=str(process_id), LOCAL_RANK=str(process_id), LOCAL_WORLD_SIZE=str(len(ports)))
    return found


def start(arguments, count=None, dying=()):
    """`count` processes of one run, or one process that belongs to none.

    `train.py` kills those of the numbers `dying` in their second epoch or, with {number: epoch}, in another.
    """
    ports = free_ports(count or 0)
    dying = dying if isinstance(dying, dict) else dict.fromkeys(dying, 1)
    return [
        subprocess.Popen(
            [sys.executable, "-W", "ignore", *map(str, arguments)],
            env={
                **(environment(i, ports) if count else environment()),
                **({"DIES_IN_EPOCH": str(dying[i])} if i in dying else {}),
            },
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        for i in range(count or 1)
    ]


def finish(processes, code=0):
    """What each printed, after all ended with `code`."""
    try:
        said = [process.communicate(timeout=LIMIT)[0] for process in processes]
    finally:
        for process in processes:
            process.kill()
    for process, text in zip(processes, said, strict=True):
        assert process.returncode == code, text[-4000:]
    return said
