"""The last handler: whatever fails, the command prints one sentence and gives an exit code."""

import contextlib
import errno
import os
import sys
import threading
import traceback
from collections.abc import Callable, Iterator
from typing import Any

from keras_vit.errors import DistributionError, InputError, ProcessFailed, ServerError, first_line
from keras_vit.process.exit_codes import FAILED, FINE, WRONG_USAGE
from keras_vit.text import Shown, encodable, shown_lines, shown_paragraphs

DEBUG = "KERAS_VIT_DEBUG"
"""the environment variable that --debug sets, so that the processes of a command show their tracebacks too"""

DISK, LIMIT, MEMORY, FILES = (
    "The disk is full{}: free some space.",
    "A file{} is larger than this system or this shell allows: raise the limit (ulimit -f), or write to "
    "another disk.",
    "There is not enough memory: take fewer or smaller images at a time (--batch-size, --image-size), or "
    "raise the limit (ulimit -v).",
    "Too many files are open{}: raise the limit (ulimit -n).",
)
EXHAUSTED = {
    errno.ENOSPC: DISK,
    errno.EDQUOT: DISK,
    errno.EFBIG: LIMIT,
    errno.ENOMEM: MEMORY,
    errno.EMFILE: FILES,
    errno.ENFILE: FILES,
}
"""What a system lacks, by the number of the error."""

EXHAUSTED_IN_WORDS = {
    "no space left on device": DISK,
    "disk quota exceeded": DISK,
    "file too large": LIMIT,
    "cannot allocate memory": MEMORY,
    "failed to map segment": MEMORY,
    "can't allocate memory": MEMORY,
    "can't start new thread": MEMORY,
    "bad_alloc": MEMORY,
    "out of memory": MEMORY,
    "oom when allocating": MEMORY,
    "too many open files": FILES,
}
"""The same in the messages of libraries, whose exceptions have no number."""


def exit_code_of(command: Callable[[], int | None], program: str = "keras-vit") -> int:
    """Calls a command, and prints one sentence in place of a traceback.

    With --debug, or the environment variable KERAS_VIT_DEBUG, the traceback comes before the sentence.

    Args:
        command: returns an exit code; `None` for success.
        program: its name, with which the sentence begins.

    Returns:
        The exit code.
    """
    _open_closed_streams()
    for stream in (sys.stdout, sys.stderr):
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    def fail(sentence: str, error: BaseException, code: int = FAILED) -> int:
        if os.environ.get(DEBUG):
            _tell(shown_paragraphs("".join(traceback.format_exception(error)).rstrip()))
        # A note on an error says how to continue.
        _tell(shown_lines(" ".join([f"{program}:", sentence, *getattr(error, "__notes__", ())])))
        return code

    with _hooks(program):
        try:
            code = command() or FINE
            sys.stdout.flush()  # a full disk or a reader that has ended is found now, not at the exit
            return code
        except SystemExit:
            raise  # after --help
        except DistributionError as error:
            code = fail(str(error), error)
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)  # at a normal exit the backends would wait for the lost process
        except (ServerError, ProcessFailed) as error:
            return fail(str(error), error)
        except InputError as error:
            return fail(str(error), error, WRONG_USAGE)
        except KeyboardInterrupt as error:
            return fail("Stopped.", error)
        except BrokenPipeError:
            _drop_output()  # the reader of our output has ended
            return FAILED
        except BaseException as error:  # libraries in Rust raise such
            code = fail(sentence_of(error), error)
            _drop_output()
            return code


def sentence_of(error: BaseException) -> str:
    """One sentence for an exception that no part of the program expects.

    Args:
        error: the exception. What it was raised from, or while, may tell that the system lacks something.
    """
    cause: BaseException | None = error
    seen = set()
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        lack = _lack(cause)
        if lack:
            where = _file_of(cause)
            return lack.format(f" at {where}" if where else "")
        cause = cause.__cause__ or cause.__context__
    where = _file_of(error)
    if where and isinstance(error, OSError) and error.strerror:
        return f"{where}: {error.strerror}."
    message = first_line(error).rstrip(".")
    kind = type(error).__name__
    told = kind if message == kind else f"{kind}: {message}"
    advice = f"{_memory_limit()}Run the command again with --debug for the traceback."
    return f"This was not expected: {told}. {advice}"


def _lack(error: BaseException) -> str | None:
    """What the system lacks, with a place for where; `None` if it is something else."""
    if isinstance(error, MemoryError):
        return MEMORY
    if isinstance(error, OSError) and error.errno in EXHAUSTED:
        return EXHAUSTED[error.errno]
    message = str(error).lower()
    return next((lack for words, lack in EXHAUSTED_IN_WORDS.items() if words in message), None)


def _memory_limit() -> str:
    """A sentence on the limit of memory, if there is one: libraries hide what fails by it."""
    try:
        import resource
    except ImportError:  # Windows
        return ""
    limit = resource.getrlimit(resource.RLIMIT_AS)[0]
    if limit == resource.RLIM_INFINITY:
        return ""
    return f"The reason may be the limit of {limit / 1e9:.1f} GB of memory (ulimit -v). "


def _file_of(error: BaseException) -> str | None:
    name = getattr(error, "filename", None)
    return os.fsdecode(name) if isinstance(name, str | bytes | os.PathLike) else None


@contextlib.contextmanager
def shown_streams() -> Iterator[None]:
    """What is printed in this block, by libraries too, is escaped: see `keras_vit.text.Shown`."""
    stdout: Any = Shown(sys.stdout)
    stderr: Any = Shown(sys.stderr)
    with contextlib.redirect_stdout(stdout), contextlib.redirect_stderr(stderr):
        yield


@contextlib.contextmanager
def debugging(on: bool) -> Iterator[None]:
    """Whether commands in this block, and the processes that they start, show tracebacks.

    Args:
        on: `False` leaves it to the environment variable.
    """
    before = os.environ.get(DEBUG)
    if on:
        os.environ[DEBUG] = "1"
    try:
        yield
    finally:
        if on:
            os.environ.pop(DEBUG)
            os.environ.update({} if before is None else {DEBUG: before})


@contextlib.contextmanager
def _hooks(program: str) -> Iterator[None]:
    """What fails in another thread, or while an object is removed, is one line too."""

    def in_thread(args: Any) -> None:
        if args.exc_type is not SystemExit and args.exc_value is not None:
            _ignored(args.exc_value, f"in the thread {args.thread.name if args.thread else '?'}")

    def unraisable(args: Any) -> None:
        if args.exc_value is not None:
            _ignored(args.exc_value, "at the end of an object")

    def _ignored(error: BaseException, where: str) -> None:
        if os.environ.get(DEBUG):
            _tell(shown_paragraphs("".join(traceback.format_exception(error)).rstrip()))
        with contextlib.suppress(Exception):
            _tell(shown_lines(f"{program}: {where}: {type(error).__name__}: {first_line(error)}"))

    before = threading.excepthook, sys.unraisablehook
    threading.excepthook, sys.unraisablehook = in_thread, unraisable
    try:
        yield
    finally:
        threading.excepthook, sys.unraisablehook = before


def _tell(text: str) -> None:
    """Prints to the error output; if that is closed or full, nobody can be told."""
    with contextlib.suppress(OSError, ValueError):
        print(encodable(text, sys.stderr), file=sys.stderr, flush=True)


def _open_closed_streams() -> None:
    """Opens what the caller has closed (`>&-`): else the next file would get its number, and our output."""
    for number, name in ((0, "stdin"), (1, "stdout"), (2, "stderr")):
        if getattr(sys, name) is not None:
            continue
        try:
            os.fstat(number)
        except OSError:
            os.open(os.devnull, os.O_RDWR)  # the lowest number that is free, which is this one
        mode = "r" if name == "stdin" else "w"
        setattr(sys, name, os.fdopen(number, mode, errors="backslashreplace", closefd=False))


def _drop_output() -> None:
    """Sends output that cannot be written to nowhere: Python would complain again when it flushes."""
    try:
        sys.stdout.flush()
    except OSError:
        with contextlib.suppress(OSError, ValueError):
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
