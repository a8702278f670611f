"""One live process per folder: who has a lock, what a second process is told, what dead ones leave."""

import contextlib
import errno
import fcntl
import json
import os
import re
import socket
import subprocess
import sys
import threading
from pathlib import Path

import pytest

from keras_vit import locks
from keras_vit.errors import InputError
from keras_vit.files import is_taken, is_work_name, whole_file, work_folder, work_name
from keras_vit.locks import lock_beside, locked
from tests.helpers import tiny
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.same_on_every_backend

HOLD = """
import sys
from pathlib import Path
from keras_vit.locks import locked

with locked(Path(sys.argv[1]), "busy"):
    print("held", flush=True)
    sys.stdin.read()
"""


@contextlib.contextmanager
def held_by_another(file):
    """A process that holds a lock until it is killed."""
    command = [sys.executable, "-c", HOLD, str(file), "an argument"]
    given = {"env": {**os.environ, "PYTHONPATH": str(ROOT)}, "text": True}
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, **given) as other:
        assert other.stdout.readline() == "held\n"
        try:
            yield other
        finally:
            other.kill()


# One process


def test_a_second_process_is_told_who_is_first_and_the_lock_dies_with_it(tmp_path):
    file = tmp_path / "new" / "folder" / "lock"
    with held_by_another(file) as other:
        with pytest.raises(InputError) as caught, locked(file, "It is busy", "--to"):
            pass
        host = re.escape(socket.gethostname())
        assert re.fullmatch(
            rf"It is busy \(process {other.pid} on {host} since \d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d\S*, "
            rf"`-c \S+/new/folder/lock 'an argument'`\): wait for it, or choose another --to\.",
            str(caught.value),
        )
    assert file.is_file()  # it was killed
    with locked(file, "It is busy") as lock:
        assert lock.is_held
    assert tiny.tree(tmp_path) == {"new": None, "new/folder": None}


def test_a_process_cannot_have_a_lock_twice(tmp_path):
    with locked(tmp_path / "lock", "busy"):
        with (
            pytest.raises(InputError, match=rf"busy \(process {os.getpid()} "),
            locked(tmp_path / "lock", "busy"),
        ):
            pass
        assert (tmp_path / "lock").is_file()


@pytest.mark.parametrize("error", [None, InputError("x"), KeyboardInterrupt()])
def test_a_lock_leaves_what_is_in_its_folders_and_nothing_else(error, tmp_path):
    def work(kept):
        with locked(tmp_path / "a" / "b" / "lock", "busy"):
            if kept:
                (tmp_path / "a" / "mine").touch()
            if error:
                raise error

    for kept in (False, True):
        with pytest.raises(type(error)) if error else contextlib.nullcontext():
            work(kept)
        assert tiny.tree(tmp_path) == ({"a": None, "a/mine": b""} if kept else {})


def test_the_text_of_a_dead_process_decides_nothing(tmp_path):
    file = tmp_path / "lock"
    file.write_text(json.dumps({"kind": locks.KIND, "process": os.getppid(), "host": socket.gethostname()}))
    with locked(file, "busy") as lock:
        assert json.loads(file.read_text())["process"] == os.getpid()
        assert lock.is_held
    assert not file.exists()


@pytest.mark.parametrize(
    "text",
    ["", "{", "[1]", '{"kind": "keras_vit lock", "process": [1, {"a": "\\u001b[2J"}]}', "\\xff" * 5000],
)
def test_the_first_process_is_named_as_far_as_it_can_be(text, tmp_path):
    file = tmp_path / "lock"
    with open(file, "w") as other:
        other.write(text)
        other.flush()
        fcntl.flock(other, fcntl.LOCK_EX)
        with pytest.raises(InputError, match=r"^busy \(.+\): wait for it") as caught, locked(file, "busy"):
            pass
    assert "\x1b" not in str(caught.value)
    assert file.read_text() == text


@pytest.mark.parametrize("text", ["mine", "{}", '{"kind": "other"}'])
def test_a_file_of_something_else_is_not_touched(text, tmp_path):
    (tmp_path / "lock").write_text(text)
    with pytest.raises(InputError) as caught, locked(tmp_path / "lock", "busy"):
        pass
    assert str(caught.value) == f"{tmp_path / 'lock'} is not a lock of this package: choose another --out."
    assert tiny.tree(tmp_path) == {"lock": text.encode()}


def test_what_is_no_file_is_not_a_lock(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "mine").write_text("mine")
    (tmp_path / "link").symlink_to(tmp_path / "mine")
    os.mkfifo(tmp_path / "pipe")
    for name in ("folder", "link", "pipe"):
        with pytest.raises(InputError, match=rf"{name} (cannot be written|is not a lock)"):
            locked(tmp_path / name, "busy").__enter__()
    assert (tmp_path / "mine").read_text() == "mine"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["folder", "link", "mine", "pipe"]


@pytest.mark.parametrize("errno_of", ["ENOLCK", "ENOTSUP", "ENOSYS"])
def test_a_disk_without_locks_is_named_and_used(errno_of, tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError(getattr(errno, errno_of), "no locks")

    monkeypatch.setattr(fcntl, "flock", refuse)
    (tmp_path / work_name("a")).touch()
    with locked(tmp_path / "lock", "busy") as lock:
        assert not lock.is_held
        lock.clear(tmp_path)  # they may be of a live process
        assert len(tiny.tree(tmp_path)) == 2
    assert f"{tmp_path} is on a disk without locks" in capsys.readouterr().out
    assert len(tiny.tree(tmp_path)) == 1


def test_a_lock_is_waited_for(tmp_path):
    with held_by_another(tmp_path / "lock") as other:
        threading.Timer(0.3, other.kill).start()
        with locked(tmp_path / "lock", "busy", wait=20):
            assert json.loads((tmp_path / "lock").read_text())["process"] == os.getpid()


COUNT = """
import sys
from pathlib import Path
from keras_vit.locks import locked

file, count = Path(sys.argv[1]), Path(sys.argv[2])
for _ in range(100):
    with locked(file, "busy", wait=60):
        count.write_text(str(int(count.read_text()) + 1))
"""


def test_processes_that_remove_the_lock_do_not_share_it(tmp_path):
    """Each removes the file and the folder of the lock that the others are about to open."""
    count = tmp_path / "count"
    count.write_text("0")
    command = [sys.executable, "-c", COUNT, str(tmp_path / "made" / "lock"), str(count)]
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    processes = [subprocess.Popen(command, env=environment) for _ in range(3)]
    assert [process.wait(60) for process in processes] == [0, 0, 0]
    assert count.read_text() == "300"
    assert not (tmp_path / "made" / "lock").exists()


def test_a_lock_is_beside_a_folder_that_is_not_there_yet(tmp_path, monkeypatch):
    assert lock_beside(tmp_path / "run") == tmp_path / ".run.lock"
    monkeypatch.chdir(tmp_path)
    assert lock_beside(Path()) == tmp_path.parent / f".{tmp_path.name}.lock"


# What dead processes leave


def test_names_of_work():
    names = {work_name("config.json") for _ in range(100)}
    assert len(names) == 100
    for name in names:
        assert is_work_name(name)
        assert is_work_name(name, "config.json")
        assert not is_work_name(name, "onfig.json")
    assert is_work_name("config.json.new", "config.json")  # of earlier versions
    assert not is_work_name("config.json")
    assert not is_work_name("new")
    assert not is_work_name(".new")


def test_what_dead_processes_left_is_removed_and_nothing_else(tmp_path, capsys):
    (tmp_path / work_name("a.json")).write_text("half")
    (tmp_path / work_name(".exporting")).mkdir()
    (tmp_path / work_name(".exporting") / "below").mkdir(parents=True)
    (tmp_path / "kept").mkdir()
    (tmp_path / "kept" / "mine").write_text("mine")
    (tmp_path / work_name("link")).symlink_to(tmp_path / "kept")
    with locked(tmp_path / "lock", "busy") as lock:
        lock.clear(tmp_path, ".exporting")
        assert len(list(tmp_path.iterdir())) == 4
        lock.clear(tmp_path)
        lock.clear(tmp_path / "none")
    assert tiny.tree(tmp_path) == {"kept": None, "kept/mine": b"mine"}
    assert capsys.readouterr().out.count("which a command that was killed has left") == 4


def test_two_writers_of_a_file_do_not_mix(tmp_path):
    with whole_file(tmp_path / "a") as first:
        first.write("first")
        with whole_file(tmp_path / "a") as second:
            second.write("second, which is longer")
        assert (tmp_path / "a").read_text() == "second, which is longer"
    assert tiny.tree(tmp_path) == {"a": b"first"}


def test_a_work_folder_is_removed_unless_it_is_renamed(tmp_path):
    mask = os.umask(0o022)
    try:
        with work_folder(tmp_path, ".a") as folder, work_folder(tmp_path, ".a") as other:
            assert folder != other
            assert folder.stat().st_mode & 0o777 == 0o755
            (other / "file").touch()
            other.rename(tmp_path / "published")
        assert tiny.tree(tmp_path) == {"published": None, "published/file": b""}
        with contextlib.suppress(KeyboardInterrupt), work_folder(tmp_path, ".a") as folder:
            (folder / "file").touch()
            raise KeyboardInterrupt
    finally:
        os.umask(mask)
    assert len(tiny.tree(tmp_path)) == 2


def test_what_is_taken(tmp_path):
    assert not is_taken(tmp_path / "none")
    (tmp_path / "empty").mkdir()
    (tmp_path / "full").mkdir()
    (tmp_path / "full" / "file").touch()
    (tmp_path / "dangling").symlink_to(tmp_path / "none")
    (tmp_path / "link").symlink_to(tmp_path / "empty")
    assert [is_taken(tmp_path / name) for name in ("empty", "full", "full/file", "dangling", "link")] == [
        *(False, True, True, True, True)
    ]
