"""Processes of one machine: what they return, how they end, and that none is left behind."""

import contextlib
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from keras_vit.errors import InputError
from keras_vit.process.children import (
    STARTED,
    ProcessFailed,
    call,
    make_context,
    run_command,
    start,
)
from keras_vit.process.exit_codes import FAILED, FINE, GIVEN_UP, ONCE_MORE, WRONG_USAGE
from tests.search.running import environment, wait_for

pytestmark = [
    pytest.mark.same_on_every_backend,
    # Modules that other tests imported have started threads, which these targets do not use.
    pytest.mark.filterwarnings("ignore:.*fork:DeprecationWarning", "ignore:.*fork:RuntimeWarning"),
]

FORK, SPAWN = make_context(True), make_context(False)
both = pytest.mark.parametrize("context", [FORK, SPAWN], ids=["fork", "spawn"])


# What the processes do. At the top level, so that a new process can import it.


def answer(*values):
    print("pätch", values)
    print("to stderr", file=sys.stderr)
    return values


def speak(line):
    print(line)


def much(size):
    return b"x" * size


def refuse(message):
    raise InputError(message)


def fail(message):
    raise KeyError(message)


def leave(code):
    sys.exit(code)


def vanish(code):
    os._exit(code)


def be_killed(number):
    os.kill(os.getpid(), number)
    time.sleep(60)


def return_an_unpicklable_value(_):
    return lambda: None


def print_environment(names):
    print("environment", *(os.environ.get(name) for name in names))
    print("cores", sorted(os.sched_getaffinity(0)))


def wait_and_clean_up(folder):
    try:
        (folder / "started").touch()
        time.sleep(60)
    finally:
        (folder / "cleaned").touch()


def wait_for_file(file):
    file.with_name("started").touch()
    while not file.is_file():
        time.sleep(0.02)
    return 7


def wait_as_child(name):
    print("child", os.getpid(), name, flush=True)
    time.sleep(60)


def text(log):
    return log.read_text(encoding="utf-8")


# call


@both
def test_a_call_returns_what_its_target_does(context, tmp_path, capfd):
    log = tmp_path / "log"
    log.write_text("an earlier line\n")
    assert call(context, answer, 1, None, {"a": [2.5]}, log=log) == (1, None, {"a": [2.5]})
    earlier, first, output, error = text(log).splitlines()
    assert earlier == "an earlier line"
    assert re.fullmatch(rf"{STARTED} \d+", first)
    assert first.split()[-1] != str(os.getpid())
    assert (output, error) == ("pätch (1, None, {'a': [2.5]})", "to stderr")
    assert capfd.readouterr() == ("", "")


def test_an_answer_may_be_large(tmp_path):
    assert len(call(FORK, much, 10_000_000, log=tmp_path / "log")) == 10_000_000


@both
def test_an_input_error_reaches_the_parent(context, tmp_path):
    with pytest.raises(InputError, match=r"^no such images\.$"):
        call(context, refuse, "no such images.", log=tmp_path / "log")


@pytest.mark.parametrize(
    ("context", "target", "argument", "code", "shown"),
    [
        (FORK, be_killed, signal.SIGKILL, -signal.SIGKILL, ""),
        (SPAWN, be_killed, signal.SIGKILL, -signal.SIGKILL, ""),
        (FORK, vanish, 3, 3, ""),
        (FORK, vanish, 0, 0, ""),
        (FORK, fail, "boom", FAILED, "KeyError: 'boom'"),
        (SPAWN, fail, "boom", FAILED, "KeyError: 'boom'"),
        (FORK, leave, 4, FAILED, "SystemExit: 4"),
        (FORK, return_an_unpicklable_value, None, FAILED, "pickle"),
    ],
)
def test_a_call_without_an_answer_names_the_log(context, target, argument, code, shown, tmp_path):
    log = tmp_path / "log"
    with pytest.raises(ProcessFailed) as caught:
        call(context, target, argument, log=log)
    assert str(caught.value) == f"{target.__name__} ended with exit code {code}: see {log}."
    assert shown in text(log)
    assert ("Traceback" in text(log)) == bool(shown)


# start


ENDS = [
    (speak, "pätch", FINE, "pätch"),
    (leave, None, FINE, None),
    (leave, FINE, FINE, None),
    (leave, ONCE_MORE, ONCE_MORE, None),
    (leave, GIVEN_UP, GIVEN_UP, None),
    (leave, "a text", FAILED, "a text"),
    (refuse, "a mistake.", WRONG_USAGE, "a mistake."),
    (fail, "boom", FAILED, "KeyError: 'boom'"),
    (be_killed, signal.SIGKILL, -signal.SIGKILL, None),
]


@pytest.mark.parametrize(
    ("context", "target", "argument", "code", "shown"),
    [*((FORK, *end) for end in ENDS), *((SPAWN, *end) for end in ENDS[3:4] + ENDS[6:])],
)
def test_how_a_process_ends(context, target, argument, code, shown, tmp_path):
    log = tmp_path / "log"
    process = start(context, target, argument, log=log, environment={})
    process.join(60)
    assert process.exitcode == code
    lines = text(log).splitlines()
    assert lines[0].startswith(f"{STARTED} {process.pid}")
    assert ("Traceback" in text(log)) == (target is fail)
    assert lines[1:] == [] if shown is None else lines[-1] == shown


def test_the_return_value_of_a_target_is_the_exit_code(tmp_path):
    file = tmp_path / "file"
    file.touch()
    process = start(FORK, wait_for_file, file, log=tmp_path / "log", environment={})
    process.join(60)
    assert process.exitcode == 7


@both
def test_environment_and_cores_change_in_the_process_only(context, tmp_path, monkeypatch):
    monkeypatch.setenv("ALREADY", "here")
    monkeypatch.setenv("CHANGED", "before")
    monkeypatch.delenv("NEW", raising=False)
    before, cores = dict(os.environ), os.sched_getaffinity(0)
    given = {"CHANGED": "after", "NEW": "", "CUDA_VISIBLE_DEVICES": "3"}
    log, core = tmp_path / "log", max(cores)
    for some in ((core,), ()):
        names = ["ALREADY", "CHANGED", "NEW"]
        process = start(context, print_environment, names, log=log, environment=given, cores=some)
        process.join(60)
        assert process.exitcode == FINE
        assert f"cores {sorted(some or cores)}" in text(log)
    assert text(log).count("environment here after \n") == 2
    assert f"{STARTED} {process.pid}, GPU 3" in text(log)
    assert dict(os.environ) == before
    assert os.sched_getaffinity(0) == cores


def test_the_environment_is_unchanged_if_a_process_cannot_start(tmp_path):
    before = dict(os.environ)
    with pytest.raises(Exception, match=r"pickle|lambda"):
        start(SPAWN, lambda: None, log=tmp_path / "log", environment={"NEW": "1"})
    assert dict(os.environ) == before


@both
def test_terminate_cleans_up(context, tmp_path):
    process = start(context, wait_and_clean_up, tmp_path, log=tmp_path / "log", environment={})
    wait_for((tmp_path / "started").is_file, "the start of the process")
    process.terminate()
    process.join(60)
    assert process.exitcode == FAILED
    assert (tmp_path / "cleaned").is_file()
    assert "Traceback" not in text(tmp_path / "log")


def test_ctrl_c_is_left_to_the_parent(tmp_path):
    process = start(FORK, wait_for_file, tmp_path / "file", log=tmp_path / "log", environment={})
    wait_for((tmp_path / "started").is_file, "the start of the process")
    os.kill(process.pid, signal.SIGINT)
    (tmp_path / "file").touch()
    process.join(60)
    assert process.exitcode == 7


# When the parent ends


PARENT = """
import sys, time
from pathlib import Path
from tests.process import test_children as targets
from keras_vit.process.children import call, make_context, start

how, fork, log, platform = sys.argv[1], sys.argv[2] == "fork", Path(sys.argv[3]), sys.argv[4]
context = make_context(fork)
sys.platform = platform  # a forked process keeps it
if how == "start":
    start(context, targets.wait_as_child, how, log=log, environment={})
    time.sleep(60)
else:
    call(context, targets.wait_as_child, how, log=log)
"""


@pytest.mark.parametrize(
    ("how", "context", "platform"),
    [
        ("start", "fork", "linux"),
        ("start", "spawn", "linux"),
        ("call", "fork", "linux"),
        ("start", "fork", "sun"),
    ],
)
def test_a_process_ends_with_its_parent(how, context, platform, tmp_path):
    log = tmp_path / "log"
    command = [sys.executable, "-c", PARENT, how, context, str(log), platform]
    parent = subprocess.Popen(command, env=environment())
    try:
        found = wait_for(
            lambda: re.search(r"child (\d+)", text(log)) if log.is_file() else None, "the start of the child"
        )
    finally:
        parent.kill()
        parent.wait()
    child = int(found[1])
    wait_for(lambda: not is_running(child), "the end of the child")


def is_running(process) -> bool:
    """Whether a process runs. A zombie does not: some init processes never collect them."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


def test_a_call_that_is_interrupted_leaves_no_process(tmp_path):
    def interrupt(*_):
        raise KeyboardInterrupt

    log = tmp_path / "log"
    before = signal.signal(signal.SIGALRM, interrupt)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.5)
        with pytest.raises(KeyboardInterrupt):
            call(FORK, wait_as_child, "x", log=log)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    child = int(re.search(rf"{STARTED} (\d+)", text(log))[1])
    assert not is_running(child)


# Commands that a command starts


STARTER = """
import os, signal, sys
from keras_vit.process.children import run_command, stop_on_signals

signal.signal(signal.SIGINT, signal.default_int_handler)  # a background job of a shell ignores it
stop_on_signals()
try:
    found = run_command([sys.executable, *sys.argv[1:]], os.environ)
    print(found.returncode, found.stdout, found.stderr)
except KeyboardInterrupt:
    sys.exit(3)
"""

PUBLISH = """
import sys, time
from pathlib import Path
from keras_vit.process.children import end_with_starter, stop_on_signals

end_with_starter()
stop_on_signals()
try:
    time.sleep(float(sys.argv[2]))
    Path(sys.argv[1], "published").touch()
finally:
    Path(sys.argv[1], "cleaned").touch()
"""


SIGNALS = (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGQUIT)


@contextlib.contextmanager
def started(*words):
    """The starter of a command, and the number of the process of the command."""
    starter = subprocess.Popen(
        [sys.executable, "-c", STARTER, *map(str, words)],
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        # What has started the tests may ignore signals, as nohup does, and its children with it.
        preexec_fn=lambda: [signal.signal(number, signal.SIG_DFL) for number in SIGNALS],
    )
    children = Path(f"/proc/{starter.pid}/task/{starter.pid}/children")
    try:
        yield starter, int(wait_for(lambda: children.read_text(), "the start of the command"))
    finally:
        starter.kill()
        starter.communicate()


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (signal.SIGTERM, 3),
        (signal.SIGINT, 3),
        (signal.SIGHUP, 3),
        (signal.SIGKILL, -signal.SIGKILL),
        (signal.SIGQUIT, -signal.SIGQUIT),
    ],
)
def test_a_command_ends_with_its_starter_and_publishes_nothing(number, code, tmp_path):
    with started("-c", PUBLISH, tmp_path, 3) as (starter, child):
        time.sleep(0.5)
        starter.send_signal(number)
        assert starter.wait(30) == code
        wait_for(lambda: not is_running(child), "the end of the command")
    assert not (tmp_path / "published").exists()
    assert (tmp_path / "cleaned").exists() == (code == 3)  # those that can be caught


def test_a_command_of_the_package_ends_with_its_starter(tmp_path):
    """Before it has imported anything that takes time."""
    with started("-m", "keras_vit", "train", "--out", tmp_path / "run") as (starter, child):
        starter.kill()
        wait_for(lambda: not is_running(child), "the end of the command")
    assert list(tmp_path.iterdir()) == []


def test_a_worker_of_torchrun_ends_with_it(tmp_path):
    script = f"import os; os.environ['TORCHELASTIC_RUN_ID'] = 'none'\n{PUBLISH}"
    parent = "import subprocess, sys; subprocess.run([sys.executable, *sys.argv[1:]])"
    with subprocess.Popen(
        [sys.executable, "-c", parent, "-c", script, tmp_path, "3"], env=environment()
    ) as agent:
        children = Path(f"/proc/{agent.pid}/task/{agent.pid}/children")
        child = int(wait_for(lambda: children.read_text(), "the start of the worker"))
        time.sleep(0.5)
        agent.kill()
        wait_for(lambda: not is_running(child), "the end of the worker")
    assert list(tmp_path.iterdir()) == []


def test_what_a_command_printed_is_returned(tmp_path):
    found = run_command([sys.executable, "-c", "import sys; print(1); sys.exit('no')"], os.environ)
    assert (found.returncode, found.stdout, found.stderr) == (1, "1\n", "no\n")
    assert run_command([sys.executable, "-c", PUBLISH, str(tmp_path), "0"], os.environ).returncode == 0
    assert {path.name for path in tmp_path.iterdir()} == {"published", "cleaned"}


def test_an_ignored_signal_stays_ignored():
    """That of a terminal that is closed, under nohup."""
    script = (
        "import signal; from keras_vit.process.children import stop_on_signals\n"
        "signal.signal(signal.SIGHUP, signal.SIG_IGN); stop_on_signals()\n"
        "print(signal.getsignal(signal.SIGHUP) == signal.SIG_IGN, signal.getsignal(signal.SIGTERM))"
    )
    printed = subprocess.run(
        [sys.executable, "-c", script], env=environment(), capture_output=True, text=True
    )
    assert printed.stdout.startswith("True <function")
