"""Processes of one machine: started afresh from this one, watched, and never left behind."""

import ctypes
import multiprocessing
import os
import re
import signal
import subprocess
import sys
import threading
import time
import traceback
from collections.abc import Callable
from functools import partial
from itertools import takewhile
from pathlib import Path
from typing import Any

from keras_vit.errors import InputError, ProcessFailed
from keras_vit.process.exit_codes import FAILED, FINE, WRONG_USAGE

BEGUN = "begun: process"  # with its number, the first line of each in its log
DEVICE = re.compile(r"\d+|(GPU|MIG)-\S+")


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        # As CUDA reads it: what comes after a name that is none is not seen.
        return list(takewhile(DEVICE.fullmatch, map(str.strip, chosen.split(","))))
    try:
        words = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        told = subprocess.run(words, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return list(filter(DEVICE.fullmatch, told.stdout.split())) if told.returncode == 0 else []


def make_context(use_fork: bool):
    """How processes begin: as a copy of this one, which has imported all, or as a new one.

    Copying takes no time, but a backend that has looked at its GPUs does not survive it.
    """
    return multiprocessing.get_context("fork" if use_fork and sys.platform == "linux" else "spawn")


def start(context, target: Callable, *arguments, log: Path, environment: dict[str, str], cores=()):
    """Starts a process that ends when this one does.

    Args:
        context: of `make_context`.
        target: what it does; its result is its exit code.
        *arguments: of `target`.
        log: gets what it prints, after what is there.
        environment: variables to set.
        cores: the processors it may use; all where there are none.
    """
    before = dict(os.environ)
    os.environ.update(environment)  # a new process reads them while it imports
    try:
        process = context.Process(
            target=_begin, args=(target, arguments, log, environment, tuple(cores), os.getpid())
        )
        process.start()
    finally:
        os.environ.clear()
        os.environ.update(before)
    return process


def call(context, target: Callable, *arguments, log: Path) -> Any:
    """What `target` returns in a process of its own, so that this one keeps no trace of it.

    What it prints goes to the file `log`.

    Raises:
        InputError: from `target`.
        ProcessFailed: the process ended without an answer.
    """
    here, there = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(there, target, arguments, log, os.getpid()))
    process.start()
    there.close()
    try:
        kind, value = here.recv()
    except EOFError:
        process.join()
        code = process.exitcode
        raise ProcessFailed(f"{target.__name__} ended with exit code {code}: see {log}.") from None
    finally:
        if process.is_alive() and sys.exc_info()[0] is not None:
            process.kill()
        process.join()
    if kind == "error":
        raise InputError(value)
    return value


def _answer(pipe, target, arguments, log, parent):
    _settle(log, parent)
    try:
        pipe.send(("value", target(*arguments)))
    except InputError as error:
        pipe.send(("error", str(error)))
    except BaseException:
        traceback.print_exc()
        _leave(FAILED)
    _leave(FINE)


def _begin(target, arguments, log, environment, cores, parent):
    os.environ.update(environment)
    _settle(log, parent)
    if cores and hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, cores)
    try:
        code = target(*arguments)
    except InputError as error:
        print(error, flush=True)
        code = WRONG_USAGE
    except SystemExit as stop:
        code = stop.code
        if isinstance(code, str):  # as the interpreter has it: a message, and a failure
            print(code, flush=True)
            code = FAILED
    except BaseException:
        traceback.print_exc()
        code = FAILED
    _leave(code)


def _settle(log, parent):
    """Ends with the parent, leaves Ctrl-C to it, and prints to a file."""
    end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(FAILED))  # what is open is cleaned up
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    # A copy of a notebook's process would print into the notebook.
    text = partial(
        os.fdopen, mode="w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )
    sys.stdout, sys.stderr = text(1), text(2)
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
    print(f"{BEGUN} {os.getpid()}" + (f", GPU {gpu}" if gpu else ""), flush=True)


def _leave(code):
    """Ends this process without the backends' farewell, which may take seconds or wait for threads."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or FINE)


def end_with(parent: int) -> None:
    """Ends this process as soon as the process `parent`, which started it, is gone."""

    def watch():
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(FAILED)

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    threading.Thread(target=watch, daemon=True, name="parent").start()
