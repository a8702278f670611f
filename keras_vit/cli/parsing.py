"""tyro, with our own sentence where a value is out of its range."""

import contextlib
import io
import sys

import tyro

from keras_vit.errors import InputError


def parse_words(shape, arguments: list[str] | None, **options):
    """What `tyro.cli` makes of the words of a command.

    Args:
        shape: a dataclass, or a union of subcommands.
        arguments: the words; `None` takes them from the command line.
        **options: of `tyro.cli`.

    Raises:
        SystemExit: 0 after --help, 2 for words that do not fit.
        InputError: a value is out of its range.
    """
    said = io.StringIO()
    try:
        with contextlib.redirect_stderr(said):
            return tyro.cli(shape, args=arguments, **options)
    except SystemExit as stop:
        behind: BaseException | None = stop
        while behind is not None and not isinstance(behind, InputError):
            behind = behind.__context__
        if behind is not None:
            raise behind from None  # its sentence is clearer than the box that tyro puts it in
        print(said.getvalue(), end="", file=sys.stderr)
        raise
