"""What is left on the disk: files and folders that are there whole or not at all."""

import contextlib
import csv
import errno
import io
import json
import numbers
import os
import re
import secrets
import shutil
import stat
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

from keras_vit.errors import InputError
from keras_vit.text import shown

UNFINISHED = ".partial"
"""What the name of a run ends with until it is finished."""


def work_name(name: str) -> str:
    """The name of a file or folder while it is written: a random one, so that no two processes share it."""
    return f"{name}.{secrets.token_hex(4)}.new"


def is_work_name(found: str, name: str | None = None) -> bool:
    """Whether `work_name` gave a name, to `name` or to anything; earlier versions wrote NAME.new."""
    wanted = ".+" if name is None else re.escape(name)
    return bool(re.fullmatch(rf"{wanted}(\.[0-9a-f]{{8}})?\.new", found, re.DOTALL))


@contextlib.contextmanager
def work_folder(parent: Path, name: str) -> Iterator[Path]:
    """A new folder for the time of the block, unless the block renames it; its maker alone removes it.

    Args:
        parent: the folder that it is in.
        name: what its name begins with.
    """
    folder = parent / work_name(name)
    folder.mkdir()  # not tempfile.mkdtemp, whose folders no other user could read once they are published
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def whole_file(path: Path, mode: str = "w", **options: Any) -> Iterator[IO[Any]]:
    """Opens a file for writing next to its path, and renames it to its path at the end of the block.

    If the block fails, an earlier file at the path stays and the new one is removed.

    Args:
        path: of the file.
        mode: `"w"` or `"wb"`.
        **options: of `open`; the default encoding of text is UTF-8, with escapes for what it cannot encode.
    """
    new = path.with_name(work_name(path.name))
    if "b" not in mode:
        options.setdefault("encoding", "utf-8")
        options.setdefault("errors", "backslashreplace")  # half characters, in file names that are not UTF-8
    try:
        with open(new, mode.replace("w", "x"), **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # without it, a power cut can leave an empty file under the new name
        os.replace(new, path)
    except BaseException:
        new.unlink(missing_ok=True)  # on a full disk it would take the space that is left
        raise


JSON_BYTES = 256 * 1024**2
"""The most that a JSON file may have: the trials of a search have a few megabytes."""
CSV_BYTES = 1024**3
"""The most that a CSV file may have: the record of a million images has 200 megabytes."""

_KINDS = {
    stat.S_IFDIR: "a folder",
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
}


def require_regular(path: str | Path, most: int | None = None) -> None:
    """Raises OSError for what is not a file on a disk, which may block whoever opens it or never end.

    Args:
        path: links are followed.
        most: bytes that the file may have; `None` for any number.

    Raises:
        OSError: it is not a regular file, is larger, or does not exist; `strerror` says which.
    """
    _check_regular(os.stat(path), path, most)


@contextlib.contextmanager
def open_regular(path: str | Path, most: int | None = None) -> Iterator[io.BufferedReader]:
    """Opens a regular file for reading bytes; arguments and errors as `require_regular`."""
    require_regular(path, most)  # opening a device can already change it
    # Without blocking: another process may have put a pipe in its place.
    with open(path, "rb", opener=lambda name, flags: os.open(name, flags | _NONBLOCK)) as file:
        _check_regular(os.fstat(file.fileno()), path, most)
        yield file


def read_bytes(path: str | Path, most: int, first: int | None = None) -> bytes:
    """The bytes of a regular file.

    Args:
        path: links are followed.
        most: bytes that the file may have.
        first: how many to read from its beginning, of a file of any size; `None` reads the whole file.

    Raises:
        OSError: as `require_regular`, or it cannot be read.
    """
    with open_regular(path, most if first is None else None) as file:
        content = file.read(most + 1 if first is None else first)
    if len(content) > most:  # it grows, or its system does not know its size
        raise _too_large(path, most)
    return content


_NONBLOCK = getattr(os, "O_NONBLOCK", 0)


def _check_regular(found: os.stat_result, path: str | Path, most: int | None) -> None:
    if not stat.S_ISREG(found.st_mode):
        kind = _KINDS.get(stat.S_IFMT(found.st_mode), "something special")
        raise OSError(errno.EINVAL, f"{kind}, not a regular file", str(path))
    if most is not None and found.st_size > most:
        raise _too_large(path, most)


def _too_large(path: str | Path, most: int) -> OSError:
    return OSError(errno.EFBIG, f"more than the {most // 1024**2} MiB allowed", str(path))


def read_json(path: Path, fix: str = "restore it, or make it again") -> Any:
    """The content of a JSON file.

    Args:
        path: of the file.
        fix: what to do if the file cannot be read, for the error message.

    Raises:
        InputError: the file is missing, cannot be read, or is not JSON.
    """
    try:
        return json.loads(read_bytes(path, JSON_BYTES).decode("utf-8"))
    except FileNotFoundError:
        raise InputError(f"There is no file {path}: {fix}.") from None
    except OSError as error:
        if os.path.isdir(path):
            raise InputError(f"{path} is a folder: {fix}.") from None
        raise InputError(f"{path} cannot be read ({error.strerror}): {fix}.") from error
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}): {fix}.") from error


def write_text(path: Path, text: str) -> None:
    """Writes a text file, whole or not at all."""
    with whole_file(path) as file:
        file.write(text)


def write_json(path: Path, value: Any) -> None:
    """Writes a JSON file, whole or not at all."""
    write_text(path, json.dumps(value, indent=2) + "\n")


def write_csv(path: Path, rows: Iterable[Mapping[str, Any]], columns: Sequence[str] | None = None) -> None:
    """Writes a CSV file, whole or not at all, whose cells no spreadsheet takes for a formula: see `cell`.

    Args:
        path: of the file.
        rows: column name -> value, one mapping per row.
        columns: names in the order of the file; `None` takes those of the first row.
    """
    rows = list(rows)
    names = list(rows[0] if rows else ()) if columns is None else list(columns)
    with whole_file(path, newline="") as file:
        writer = csv.writer(file)
        writer.writerow(map(cell, names))
        for row in rows:
            unknown = row.keys() - set(names)
            if unknown:
                raise ValueError(f"a row has columns that the file lacks: {sorted(unknown)}")
            writer.writerow([cell(row.get(name, "")) for name in names])


def read_csv(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file that `write_csv` wrote: column name -> text.

    Raises:
        OSError: the file cannot be read.
        ValueError: a row has more cells than the first one, or the file is not UTF-8.
    """
    text = io.StringIO(read_bytes(path, CSV_BYTES).decode("utf-8"), newline="")
    rows = [[text_of_cell(found) for found in row] for row in csv.reader(text)]
    if not rows:
        return []
    if any(len(row) > len(rows[0]) for row in rows):
        raise ValueError("a row has more cells than there are columns")
    return [dict(zip(rows[0], row, strict=False)) for row in rows[1:]]


def read_table(path: Path) -> list[dict[str, str]]:
    """The rows of a CSV file.

    Raises:
        InputError: half a sentence that says why it cannot be read.
    """
    try:
        rows = read_csv(path)
    except OSError as error:
        raise InputError(f"it cannot be read: {error.strerror}") from error
    except (ValueError, csv.Error) as error:
        raise InputError(f"it is not a CSV file: {error}") from error
    if any(len(row) < len(rows[0]) for row in rows):
        raise InputError("a row has fewer cells than another")
    return rows


FORMULA = ("=", "+", "-", "@", "\uff1d", "\uff0b", "\uff0d", "\uff20")
"""What a spreadsheet takes for the beginning of a formula, from Japanese and Chinese keyboards too."""

NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)([eE][+-]?\d+)?")


def cell(value: Any) -> Any:
    """A value as a cell of a CSV file: a text that could be a formula gets an apostrophe before it.

    A number, and a text that is one, stays as it is. What is not printable is escaped: a tab or the end of a
    line too. A text that begins with an apostrophe gets another one, so that `text_of_cell` gives it back.
    """
    if value is None or isinstance(value, numbers.Number):
        return value
    text = shown(value)
    is_formula = text.lstrip().startswith(FORMULA) and not NUMBER.fullmatch(text)
    return "'" + text if is_formula or text.startswith("'") else text


def text_of_cell(text: str) -> str:
    """The text that `cell` made a cell of; escapes stay."""
    return text[1:] if text.startswith("'") else text


def partial_of(folder: Path) -> Path:
    """The sibling folder that a run is written to until it is finished: the last step is a rename."""
    folder = folder if folder.name else folder.absolute()  # `.` has no name of its own
    return folder.with_name(folder.name + UNFINISHED)


def journal_of(path: Path) -> Path:
    """The sibling file that holds what a command has finished of a file that is not written yet."""
    return path.with_name(path.name + UNFINISHED)


def is_taken(folder: Path) -> bool:
    """Whether something is at a path where a new folder is to be; an empty folder does not count."""
    return os.path.lexists(folder) and (folder.is_symlink() or not folder.is_dir() or any(folder.iterdir()))


def check_new_file(path: Path, option: str) -> None:
    """Raises InputError before the work if a file cannot be written, or would replace another.

    Args:
        path: of the file.
        option: the command's option that names it, for the error message.
    """
    if path.exists() or path.is_symlink():
        raise InputError(f"{path} exists already: give {option} a new name.")
    if not path.parent.is_dir():
        raise InputError(
            f"There is no folder {path.parent}: make it, or give {option} a file in another one."
        )


def make_folder(folder: Path, option: str = "--out") -> list[Path]:
    """Makes a folder and its parents; a folder that exists is fine.

    Args:
        folder: the folder.
        option: the command's option that names it, for the error message.

    Returns:
        The folders that did not exist before, deepest first, as `remove_made` takes them.

    Raises:
        InputError: the folder cannot be made or written to, or its name is not UTF-8; nothing is left behind.
    """
    try:
        os.fsencode(folder).decode("utf-8")
    except UnicodeDecodeError:  # TensorFlow, HDF5 and TensorBoard write no such file
        raise InputError(f"{folder} has a name that is not UTF-8: choose another {option}.") from None
    # Not Path.exists, which raises for a name that is too long.
    missing = [path for path in (folder, *folder.parents) if not os.path.exists(path)]
    parent = missing[-1].parent if missing else folder
    if parent.is_dir() and not os.access(parent, os.W_OK | os.X_OK):
        raise InputError(
            f"{parent} cannot be written to: choose another {option}, or change its permissions."
        )
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        remove_made(missing)
        raise InputError(f"{folder} cannot be made ({error.strerror}): choose another {option}.") from error
    return missing


def remove_made(made: Iterable[Path]) -> None:
    """Removes what `make_folder` has made; a folder that holds something stays.

    Args:
        made: as these return it, deepest first.
    """
    for path in made:
        with contextlib.suppress(OSError):
            path.rmdir() if path.is_dir() else path.unlink()
