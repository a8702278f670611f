"""One live process per folder: the locks that say whose a folder is, and what dead processes have left."""

import contextlib
import json
import os
import shlex
import shutil
import socket
import stat
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any

from keras_vit.errors import InputError
from keras_vit.files import is_work_name, make_folder, remove_made
from keras_vit.text import say

KIND = "keras_vit lock"  # what a lock file says that it is: another file of its name is never touched
MOST_BYTES = 4096
LONGEST_COMMAND = 200
POLL_SECONDS = 0.1


@dataclass(frozen=True)
class Lock:
    """What `locked` yields.

    Args:
        file: the lock file.
        is_held: whether this process is alone. `False` where the system or the disk has no locks.
    """

    file: Path
    is_held: bool

    def clear(self, folder: Path, name: str | None = None) -> None:
        """Removes the work files and work folders that dead processes have left; one line names each.

        They are dead because their makers held the lock that this process holds. Without one, all stay.

        Args:
            folder: where they are, not below it.
            name: as of `files.work_name`, to remove those of one file or folder; `None` for all.
        """
        if not self.is_held or not folder.is_dir():
            return
        for path in sorted(folder.iterdir()):
            if is_work_name(path.name, name):
                remove(path)
                say(f"removed {path}, which a command that was killed has left")


def remove(path: Path) -> None:
    """Removes a file, a link or a folder with all that is in it; as much as can be removed."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        with contextlib.suppress(OSError):
            path.unlink()


def lock_beside(folder: Path) -> Path:
    """The lock file of a folder that does not exist yet: it is next to it, and hidden."""
    folder = folder if folder.name else folder.absolute()
    return folder.with_name(f".{folder.name}.lock")


@contextlib.contextmanager
def locked(file: Path, busy: str, option: str = "--out", wait: float = 0.0) -> Iterator[Lock]:
    """Holds a lock for the time of the block, and removes its file afterwards.

    The system decides who has the lock, and frees it when the process ends, however it ends. The text in the
    file only names the process.

    Args:
        file: of the lock; its folder is made if it does not exist, and removed if it is still empty at the
            end.
        busy: the beginning of the error message if another process has the lock.
        option: the command's option that names the folder, for the error messages.
        wait: seconds to wait for another process.

    Raises:
        InputError: the folder cannot be made or written to, or another process has the lock.
    """
    made: list[Path] = []
    try:
        opened, is_held = _acquire(file, made, busy, option, time.monotonic() + wait)
    except BaseException:
        remove_made(made)
        raise
    try:
        if not is_held:
            say(
                f"{file.parent} is on a disk without locks: make sure that no other command writes the same "
                "folder."
            )
        yield Lock(file, is_held)
    finally:
        _release(file, opened, is_held)
        remove_made(made)


def _acquire(file: Path, made: list[Path], busy: str, option: str, until: float) -> tuple[int, bool]:
    """The descriptor of the lock file, and whether it is locked."""
    flags = os.O_RDWR | os.O_CREAT | getattr(os, "O_NOFOLLOW", 0) | getattr(os, "O_NONBLOCK", 0)
    while True:
        made[:0] = make_folder(file.parent, option)
        try:
            opened = os.open(file, flags, 0o666)
        except FileNotFoundError:  # another process has ended and removed the folder that it had made
            continue
        except OSError as error:
            reason = f"{file} cannot be written ({error.strerror}): choose another {option}."
            raise InputError(reason) from error
        try:
            is_held = _lock(opened)
            if is_held is None:
                holder = _holder(opened)
                if time.monotonic() >= until:
                    raise InputError(f"{busy} ({holder}): wait for it, or choose another {option}.")
                time.sleep(POLL_SECONDS)
            elif not is_held or _is_still(file, opened):
                _sign(file, opened, option)
                return opened, is_held
        except BaseException:
            os.close(opened)
            raise
        os.close(opened)  # the process that had it removed it: this is a lock of nothing


def _lock(opened: int) -> bool | None:
    """Whether the lock was taken; `None` if another process has it, `False` if there are no locks here."""
    try:
        import fcntl

        fcntl.flock(opened, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except (BlockingIOError, PermissionError):
        return None
    except (ImportError, OSError):
        return False
    return True


def _is_still(file: Path, opened: int) -> bool:
    try:
        return os.path.samestat(os.stat(file, follow_symlinks=False), os.fstat(opened))
    except FileNotFoundError:
        return False


def _release(file: Path, opened: int, is_held: bool) -> None:
    # Removed while it is locked: whoever opens it now finds out, by `_is_still`, that it is gone.
    if not is_held or _is_still(file, opened):
        with contextlib.suppress(OSError):
            file.unlink()
    if is_held:
        import fcntl

        with contextlib.suppress(OSError):
            fcntl.flock(opened, fcntl.LOCK_UN)  # for copies of this process too, which have the same lock
    os.close(opened)


def _sign(file: Path, opened: int, option: str) -> None:
    """Writes into the lock file which process has it."""
    if not stat.S_ISREG(os.fstat(opened).st_mode) or (os.fstat(opened).st_size and not _read(opened)):
        raise InputError(f"{file} is not a lock of this package: choose another {option}.")
    words = [Path(sys.argv[0]).name, *sys.argv[1:]] if sys.argv else []
    if words[:1] == ["__main__.py"]:
        words[0] = "keras-vit"
    text = {
        "kind": KIND,
        "process": os.getpid(),
        "host": socket.gethostname(),
        "since": datetime.now().astimezone().isoformat(sep=" ", timespec="seconds"),
        "command": shlex.join(words)[:LONGEST_COMMAND],
    }
    with contextlib.suppress(OSError):  # on a full disk it is a lock without a name
        os.ftruncate(opened, 0)
        os.pwrite(opened, json.dumps(text).encode()[:MOST_BYTES], 0)


def _read(opened: int) -> dict[str, Any]:
    """What a lock file says; nothing if it is empty, or is not a lock file."""
    try:
        text = json.loads(os.pread(opened, MOST_BYTES, 0))
    except (OSError, ValueError, RecursionError):
        return {}
    return text if isinstance(text, dict) and text.get("kind") == KIND else {}


def _holder(opened: int) -> str:
    """Who has a lock, in words; its text may be of any program."""
    text = {name: str(value)[:LONGEST_COMMAND] for name, value in _read(opened).items()}
    if not text:
        return "a process that has not told its number"
    known = {"process": "?", "host": "?", "since": "?", "command": "?", **text}
    return "process {process} on {host} since {since}, `{command}`".format_map(known)
