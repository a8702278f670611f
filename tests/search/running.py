"""Searches as a user starts them: `keras-vit search` in a process of its own, on tiny images."""

import os
import re
import subprocess
import sys
import time
from pathlib import Path

from keras_vit.process.children import STARTED
from tests.helpers import tiny
from tests.helpers.paths import ROOT

LIMIT = 400  # seconds until a test stops a search

# 15 trials: 4, 2 and 1; 3 and 2; 3.
FIFTEEN = ("--max-epochs", "4", "--factor", "2")
FROZEN = ("depth=1", "num_heads=2", "dim=16", "stem=linear", "patch_size=4", "mlp_ratio=2", "batch_size=8")
XLA = () if tiny.BACKEND == "jax" else ("--xla", "False")


def command(images, out, *more):
    return command_of_words(images, out, *FIFTEEN, "--freeze", *FROZEN, "--no-retrain", *more)


def command_of_words(images, out, *words):
    """The command with these words alone."""
    arguments = [*XLA, "--data", images, "--out", out, *words]
    return [sys.executable, "-W", "ignore", "-m", "keras_vit", "search", *map(str, arguments)]


def environment(**more):
    return {**os.environ, "PYTHONPATH": str(ROOT), "TF_CPP_MIN_LOG_LEVEL": "3", **more}


def start(images, out, *more, **variables):
    """Starts a search. `finish` returns its output."""
    return _start(command(images, out, *more), **variables)


def start_words(images, out, *words, **variables):
    """Starts a search with these words alone."""
    return _start(command_of_words(images, out, *words), **variables)


def _start(words, **variables):
    return subprocess.Popen(
        words,
        env=environment(**variables),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish(process, code=0) -> str:
    try:
        output = process.communicate(timeout=LIMIT)[0]
    finally:
        process.kill()
    assert process.returncode == code, output[-4000:]
    return output


def process_of(out, name) -> int | None:
    """The id of the process that was started last with this name."""
    log = Path(out) / "logs" / f"{name}.log"
    numbers = re.findall(rf"{STARTED} (\d+)", log.read_text(errors="replace")) if log.is_file() else []
    return int(numbers[-1]) if numbers else None


def wait_for(found, description):
    """Waits until `found()` is true, and returns its value."""
    until = time.monotonic() + LIMIT
    while time.monotonic() < until:
        value = found()
        if value:
            return value
        time.sleep(0.1)
    raise AssertionError(f"{description} did not happen in {LIMIT} s")


def case_name(value) -> str:
    """The name of a case: the same in each process of the tests, unlike the address of a function."""
    if isinstance(value, list | tuple):
        return "+".join(map(case_name, value))
    return getattr(value, "__name__", None) or str(value)
