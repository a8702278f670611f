"""Starts processes on this machine, receives their results, and leaves none behind."""

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
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import partial
from itertools import takewhile
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, NoReturn

from keras_vit.errors import InputError, ProcessFailed
from keras_vit.process.exit_codes import FAILED, FINE, WRONG_USAGE
from keras_vit.text import Shown, say

STARTER = "KERAS_VIT_STARTER"  # tells a command of `run_command` which process it belongs to
SECONDS_TO_END = 5.0  # of its own will, before a process is killed
STARTED = "started: process"  # followed by its number: the first line that each process writes into its log
Context = Any  # of multiprocessing, which has no one type for its contexts
_DEVICE = re.compile(r"\d+|(GPU|MIG)-\S+")


def gpus() -> list[str]:
    """The GPUs that this process may use, as CUDA_VISIBLE_DEVICES names them."""
    chosen = os.environ.get("CUDA_VISIBLE_DEVICES")
    if chosen is not None:
        # Like CUDA, ignore everything from the first word on that does not name a device.
        return list(takewhile(_DEVICE.fullmatch, map(str.strip, chosen.split(","))))
    try:
        words = ["nvidia-smi", "--query-gpu=index", "--format=csv,noheader"]
        found = subprocess.run(words, capture_output=True, text=True, timeout=60)
    except (OSError, subprocess.TimeoutExpired):
        return []
    return list(filter(_DEVICE.fullmatch, found.stdout.split())) if found.returncode == 0 else []


def make_context(use_fork: bool) -> Context:
    """How processes start: as a copy of this one, which has imported everything, or as a new one.

    Copying takes no time, but a backend that has already used its GPUs fails in the copy.
    """
    return multiprocessing.get_context("fork" if use_fork and sys.platform == "linux" else "spawn")


def start(
    context: Context,
    target: Callable[..., int | None],
    *arguments: Any,
    log: Path,
    environment: dict[str, str],
    cores: Iterable[int] = (),
) -> BaseProcess:
    """Starts a process that ends when this one does.

    Args:
        context: from `make_context`.
        target: the function that it runs, which returns its exit code; `None` for success.
        *arguments: of `target`.
        log: the file that its output is appended to.
        environment: variables to set.
        cores: the processors that it may use; all if none are given.
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


def call(context: Context, target: Callable[..., Any], *arguments: Any, log: Path) -> Any:
    """Calls a function in a process of its own, so that it leaves nothing in the memory of this one.

    Args:
        context: from `make_context`.
        target: the function.
        *arguments: of `target`.
        log: the file that its output is appended to.

    Returns:
        What `target` returns.

    Raises:
        InputError: from `target`.
        ProcessFailed: the process ended without a result.
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


def run_command(words: Sequence[str], environment: Mapping[str, str]) -> subprocess.CompletedProcess[str]:
    """Runs a command of this package, which ends with this process, and returns what it printed.

    Args:
        words: of the command; it must call `end_with_starter` first.
        environment: all its variables.
    """
    process = subprocess.Popen(
        words,
        env={**environment, STARTER: str(os.getpid()), "PYTHONIOENCODING": "utf-8:backslashreplace"},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        encoding="utf-8",
        errors="backslashreplace",
    )
    with process:
        try:
            output, errors = process.communicate()
        except BaseException:
            process.terminate()
            try:
                process.wait(SECONDS_TO_END)
            except subprocess.TimeoutExpired:
                process.kill()
            raise
    return subprocess.CompletedProcess(words, process.returncode, output, errors)


def end(processes: Iterable[BaseProcess]) -> None:
    """Ends processes, by force if they do not end within five seconds."""
    running = [process for process in processes if process.is_alive()]
    for process in running:
        process.terminate()
    for process in running:
        process.join(SECONDS_TO_END)
        if process.is_alive():
            process.kill()
            process.join()


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
        say(error, flush=True)
        code = WRONG_USAGE
    except SystemExit as stop:
        code = stop.code
        if isinstance(code, str):  # like the interpreter: print the message and fail
            say(code, flush=True)
            code = FAILED
    except BaseException:
        traceback.print_exc()
        code = FAILED
    _leave(code)


def _settle(log, parent):
    """Makes this process end with its parent, leave Ctrl-C to it, and print to a file."""
    end_with(parent)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(FAILED))  # finally blocks run
    with open(log, "ab", buffering=0) as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    # A copy of a notebook's process would print into the notebook.
    text = partial(
        os.fdopen, mode="w", buffering=1, encoding="utf-8", errors="backslashreplace", closefd=False
    )
    streams: Any = Shown(text(1)), Shown(text(2))
    sys.stdout, sys.stderr = streams
    gpu = os.environ.get("CUDA_VISIBLE_DEVICES")
    say(f"{STARTED} {os.getpid()}" + (f", GPU {gpu}" if gpu else ""), flush=True)


def _leave(code: int | None) -> NoReturn:
    """Ends this process without the backends' exit handlers, which may take seconds or wait for threads."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code or FINE)


def end_with(parent: int) -> None:
    """Ends this process as soon as the process `parent`, which started it, has ended."""

    def watch():
        while os.getppid() == parent:
            time.sleep(0.5)
        os._exit(FAILED)

    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG
    threading.Thread(target=watch, daemon=True, name="parent").start()


def end_with_starter() -> None:
    """Ends this command with the one that started it: `run_command`, or torchrun; otherwise does nothing.

    It is called before anything is imported that takes time: the starter may end at once.
    """
    starter = os.environ.pop(STARTER, None)
    if starter is not None:
        end_with(int(starter))
    elif "TORCHELASTIC_RUN_ID" in os.environ:  # a torchrun that is killed leaves its workers training
        end_with(os.getppid())


def stop_on_signals() -> None:
    """Makes SIGTERM and SIGHUP what Ctrl-C is: an exception, so that what was begun is ended and removed.

    A signal that is ignored, as SIGHUP under nohup, stays so. Training needs none of it: it can be killed at
    any moment, and several processes that wait for each other would not notice the exception.
    """

    def stop(*_: Any) -> NoReturn:
        raise KeyboardInterrupt

    for name in ("SIGTERM", "SIGHUP"):
        number = getattr(signal, name, None)
        if number is not None and signal.getsignal(number) == signal.SIG_DFL:
            signal.signal(number, stop)
