"""What all commands share: parsing, exit codes, and one sentence for each error."""

import contextlib
import errno
import io
import os
import sys
from collections.abc import Callable
from typing import Any

import tyro

from keras_vit.errors import DistributionError, InputError, ProcessFailed, ServerError
from keras_vit.process.exit_codes import FAILED, FINE, WRONG_USAGE


def parse_words(form: Any, arguments: list[str] | None, **options: Any) -> Any:
    """What `tyro.cli` makes of the words of a command.

    Args:
        form: a dataclass, or a union of subcommands.
        arguments: the words; `None` takes them from the command line.
        **options: of `tyro.cli`.

    Raises:
        SystemExit: 0 after --help, 2 for words that do not fit.
        InputError: a value is out of its range.
    """
    printed = io.StringIO()
    try:
        with contextlib.redirect_stderr(printed):
            return tyro.cli(form, args=arguments, **options)
    except SystemExit as stop:
        cause: BaseException | None = stop
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__context__
        if cause is not None:
            raise cause from None  # its sentence is clearer than the box that tyro puts it in
        print(printed.getvalue(), end="", file=sys.stderr)
        raise


def exit_code_of(command: Callable[[], int | None], program: str = "keras-vit") -> int:
    """Calls a command, and prints one sentence in place of a traceback.

    Args:
        command: returns an exit code; `None` for success.
        program: its name, with which the sentence begins.

    Returns:
        The exit code.
    """

    def fail(sentence: str, code: int = FAILED, error: BaseException | None = None) -> int:
        # A note on an error says how to continue.
        notes = getattr(error, "__notes__", ())
        print(" ".join([f"{program}:", sentence, *notes]), file=sys.stderr)
        return code

    try:
        return command() or FINE
    except DistributionError as error:
        code = fail(str(error))
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code)  # at a normal exit the backends would wait for the lost process
    except (ServerError, ProcessFailed) as error:
        return fail(str(error), error=error)
    except InputError as error:
        return fail(str(error), WRONG_USAGE)
    except KeyboardInterrupt as error:
        return fail("Stopped.", error=error)
    except BrokenPipeError:
        # The reader of our output has ended; Python would complain again when it flushes.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except OSError as error:
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            where = f" at {error.filename}" if error.filename else ""
            return fail(f"The disk is full{where}: free some space.", error=error)
        if error.filename is None:
            raise
        return fail(f"{error.filename}: {error.strerror}.", error=error)
