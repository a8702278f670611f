"""The folder of an export, DIR/NAME/VERSION, which a watching server must never see half-written."""

import contextlib
import errno
import os
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from pydantic import Field

from keras_vit.errors import InputError, first_line
from keras_vit.files import is_taken, make_folder, remove_made, work_folder
from keras_vit.locks import Lock, lock_beside, locked, remove
from keras_vit.validation import validated

SAVED_MODEL = "saved_model.pb"
EXPORTING = ".exporting"  # how the name of a version begins while it is written
LARGEST_VERSION = 2**63 - 1  # TensorFlow Serving reads versions as int64, and passes over larger ones


@validated
class _Version:
    """The version of an export."""

    version: Annotated[int, Field(ge=1, le=LARGEST_VERSION)] | None


@contextlib.contextmanager
def clear_errors(failure: str, folder: Path, fix: str = "give another --to") -> Iterator[None]:
    """Turns the errors of another library's writer into one sentence: each library has its own errors.

    Args:
        failure: the beginning of the sentence.
        folder: that is written into.
        fix: what to do.

    Raises:
        OSError: the disk is full, or the writer raised one.
        InputError: the writer raised any other error.
    """
    try:
        yield
    except (InputError, OSError):
        raise
    except Exception as error:
        if "No space left" in str(error):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder)) from error
        raise InputError(f"{failure} ({first_line(error)}): {fix}.") from error


@dataclass
class NewVersion:
    """A version that is being made.

    Args:
        folder: where its files are written, next to the versions, under a name that no server takes for a
            version.
        path: `models/name/VERSION`, once it exists.
    """

    folder: Path
    path: Path


@contextlib.contextmanager
def new_version(models: Path, name: str, version: int | None = None) -> Iterator[NewVersion]:
    """An empty folder to write an export into; after the block it is renamed to `models/name/VERSION`.

    One export at a time writes versions of a model: it holds a lock from before the first check. If the block
    fails, the folder is removed, and so are its parents that were made for it.

    Args:
        models: the folder of all models, made if it does not exist.
        name: of the model.
        version: 1 or more; `None` takes the one after the newest.

    Yields:
        A `NewVersion` whose `path` is valid after the block.

    Raises:
        InputError: the name is not valid, the version exists, another export writes versions of this model,
            or the folder cannot be written.
    """
    check_name(name)
    folder = models / name
    with locked(lock_beside(folder), f"Another export writes {folder}", "--to") as lock:
        check_version(folder, version)
        made = make_folder(folder, "--to")
        _remove_dead(folder, lock)
        try:
            with work_folder(folder, EXPORTING) as temporary:
                new = NewVersion(temporary, temporary)
                yield new
                new.path = _rename(temporary, folder, version)
        except BaseException:
            remove_made(made)
            raise


def _remove_dead(folder: Path, lock: Lock) -> None:
    """Removes what killed exports have left, those of earlier versions too."""
    lock.clear(folder, EXPORTING)
    if lock.is_held:
        for path in folder.iterdir():
            if re.fullmatch(rf"\{EXPORTING}-\d+", path.name):
                remove(path)


def check_name(name: str) -> None:
    """Raises InputError for a name that cannot be a folder, or be part of the server's address."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.-]*", name):
        raise InputError(
            "A model's name is made of letters, digits, _, . and -, and begins with a letter or a digit. "
            f"Received: name={name!r}"
        )


def check_version(folder: Path, version: int | None) -> None:
    """Checks the version of a new export before any work is done for it.

    Args:
        folder: of the model.
        version: `None` for the one after the newest.

    Raises:
        InputError: no server would serve it, or it exists.
    """
    _Version(version)
    found = versions_of(folder)
    if version in found and is_taken(folder / str(version)):
        raise InputError(
            f"{folder / str(version)} exists: leave --version out for the next one, or choose another."
        )
    if version is None and found and found[-1] >= LARGEST_VERSION:
        raise InputError(
            f"{folder / str(found[-1])} is the largest version that there can be: give a --version below it."
        )


def versions_of(folder: Path) -> list[int]:
    """The versions in the folder of a model, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir())


def _rename(temporary: Path, folder: Path, version: int | None) -> Path:
    """Gives the finished folder its number, which another export may have taken in the meantime."""
    while True:
        number = version or max(versions_of(folder), default=0) + 1
        try:
            os.rename(temporary, folder / str(number))
            return folder / str(number)
        except OSError as error:
            if error.errno not in (errno.EEXIST, errno.ENOTEMPTY):
                raise
            if version is not None:
                raise InputError(
                    f"{folder / str(version)} was made in the meantime: choose another version."
                ) from None
