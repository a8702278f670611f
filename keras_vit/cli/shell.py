"""What all commands share: parsing, and one sentence for words that do not fit."""

import contextlib
import io
import os
import re
import sys
from collections.abc import Iterator
from typing import Any

import tyro

from keras_vit.errors import InputError


def parse_words(form: Any, arguments: list[str] | None, **options: Any) -> Any:
    """What `tyro.cli` makes of the words of a command.

    Args:
        form: a dataclass, or a union of subcommands.
        arguments: the words; `None` takes them from the command line.
        **options: of `tyro.cli`.

    Raises:
        SystemExit: after --help.
        InputError: the words do not fit, or a value is out of its range.
    """
    printed = io.StringIO()
    words = sys.argv[1:] if arguments is None else arguments
    try:
        with contextlib.redirect_stderr(printed), _wide_lines(when=not {"-h", "--help"} & set(words)):
            return tyro.cli(form, args=words, **options)
    except SystemExit as stop:
        if not stop.code:
            raise
        cause: BaseException | None = stop
        while cause is not None and not isinstance(cause, InputError):
            cause = cause.__context__
        raise cause or InputError(box_as_sentence(printed.getvalue())) from None


@contextlib.contextmanager
def _wide_lines(when: bool) -> Iterator[None]:
    """Keeps tyro from wrapping its message, which would break long paths apart."""
    before = os.environ.get("COLUMNS")
    if when:
        os.environ["COLUMNS"] = "10000"
    try:
        yield
    finally:
        if when:
            os.environ.pop("COLUMNS")
            os.environ.update({} if before is None else {"COLUMNS": before})


REWORDED = (
    (
        r"Unrecognized or misplaced options: (\S+) \(applied to ([\w -]+)\).*",
        lambda found: f"{found[1]} is not an option of {found[2]}",
    ),
    (
        r"Error parsing (\S+): invalid literal for int\(\) with base 10: (.*)",
        lambda found: f"{found[1]} must be a whole number. Received: {found[2]}",
    ),
    (
        r"Error parsing (\S+): could not convert string to float: (.*)",
        lambda found: f"{found[1]} must be a number. Received: {found[2]}",
    ),
    (
        r"Error parsing (\S+): no type matching (.*) could be instantiated from \[(.*)\]",
        lambda found: f"{found[1]} must be {_in_words(found[2])}. Received: {found[3]}",
    ),
    (
        r"invalid choice (.*) for argument '(\S+)'. Expected one of \((.*)\)",
        # tyro's order changes from run to run.
        lambda found: (
            f"{found[2]} must be one of {', '.join(sorted(found[3].split(', ')))}. Received: {found[1]}"
        ),
    ),
)
"""Messages of tyro in words of Python, and how our other messages say the same."""


def _in_words(metavar: str) -> str:
    """`"{None}|INT|{INT INT}"` as `"None, or INT, or INT INT"`."""
    return ", or ".join(metavar.replace("{", "").replace("}", "").split("|"))


def box_as_sentence(box: str) -> str:
    """The message that tyro prints in a box, in one line.

    Args:
        box: what tyro printed: parts between lines; the first says what is wrong, the last names --help.
    """
    # Where the output is not in UTF-8 there is no frame, and the title is a part of its own.
    framed = box.startswith("╭")
    lines = [line.strip("│ ") for line in box.splitlines() if not line.startswith(("╭", "╰"))]
    text = "\n".join("\n" if re.fullmatch("─+|-+", line) else line for line in lines)
    parts = [" ".join(part.split()) for part in text.split("\n\n") if part.strip()]
    message, *others = parts if framed else parts[1:]
    for pattern, reworded in REWORDED:
        message = re.sub(pattern, reworded, message)
    sentences = [(message[:1].upper() + message[1:]).rstrip(".")]
    for part in others:
        if part.startswith("Perhaps you meant"):
            option = part.split()[3]
            if option not in message.replace(",", " ").split():  # else it is an option of another command
                sentences.append(f"Perhaps you meant {option}")
        elif part.startswith("Unrecognized options"):
            sentences.append(part)
        elif part.startswith("Available subcommands"):
            sentences.append(part.replace("Available subcommands", "The commands are"))
        elif found := re.search(r"\S+( \w+)* --help", part):
            sentences.append(f"See {found[0].removeprefix('run ')}")
    return ". ".join(sentences) + "."
