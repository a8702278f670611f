"""Text that leaves the program: file names, class names and answers of servers are written by others.

Such text can hold terminal escapes, characters that reverse or hide other text, line breaks that begin a
line of their own, and bytes that are not UTF-8. It is escaped at four doors: `say`, which prints; the
exceptions of `keras_vit.errors`; the streams of the command line (`Shown`); and the writers of CSV, labels,
model card and report. What is not printable is replaced by the escape that Python writes, such as `\\x1b`.
"""

import re
import sys
from typing import Any, TextIO

_HIDDEN = (
    "\x00-\x1f\x7f-\x9f"  # C0 and C1: line breaks, tabs, terminal escapes
    "\u061c\u200e\u200f\u2028-\u202e\u2066-\u206f"  # bidirectional, ends of lines
    "\u00ad\u034f\u180b-\u180f\u200b-\u200d\u2060-\u2065\ufeff"  # of no width
    "\u115f\u1160\u17b4\u17b5\u3164\uffa0"  # letters that are blank
    "\ufff0-\ufffb\ufffe\uffff"  # notes between the lines, no characters
    "\ud800-\udfff"  # surrogates: a byte that is not UTF-8, or half a character
    "\U000110bd\U000110cd\U00013430-\U0001345f\U0001bca0-\U0001bca3\U0001d173-\U0001d17a"
    "\U000e0000-\U000e00ff"  # controls of other scripts and of music, tags
)
_HIDDEN_CHARACTER = re.compile(f"[{_HIDDEN}]")
_HIDDEN_IN_LINES = re.compile(rf"(?!\n  )[{_HIDDEN}]")
_HIDDEN_IN_PARAGRAPHS = re.compile(rf"(?![\n\t])[{_HIDDEN}]")
# What Keras's progress bar and ours write: colours, bold, to the end of the line; back to its beginning.
_HIDDEN_ON_SCREEN = re.compile(rf"(?!\x1b\[(?:0|1|32|37)?m|\x1b\[K|[\n\t\r\b])[{_HIDDEN}]")
_SHORT = {"\n": "\\n", "\r": "\\r", "\t": "\\t"}


def shown(value: object) -> str:
    """Text on one line, with an escape for each character that is hidden or changes how others are shown.

    Example:
        >>> shown("strip\\x1b[2J\\n.png")
        'strip\\\\x1b[2J\\\\n.png'
    """
    return _HIDDEN_CHARACTER.sub(_escape, str(value))


def shown_lines(value: object) -> str:
    """Like `shown`, for a message: a line break stays where the next line is indented by two spaces or more.

    A name with a line break in it cannot begin a line that looks like one of ours.
    """
    return _HIDDEN_IN_LINES.sub(_escape, str(value))


def shown_paragraphs(value: object) -> str:
    """Like `shown`, but line breaks and tabs stay."""
    return _HIDDEN_IN_PARAGRAPHS.sub(_escape, str(value))


def _escape(found: re.Match) -> str:
    character = found[0]
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # how Python keeps a byte of a file name that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    if code < 0x100:
        return _SHORT.get(character, f"\\x{code:02x}")
    return f"\\u{code:04x}" if code < 0x10000 else f"\\U{code:08x}"


def say(*lines: object, flush: bool = False, stream: TextIO | None = None, end: str = "\n") -> None:
    """Prints each of these on a line of its own, with what is not printable escaped.

    The package prints with nothing else. A text is one line: a line break in it is escaped. An object whose
    text has several lines, such as a table, keeps them.

    Args:
        *lines: what is printed.
        flush: whether it is written at once.
        stream: such as `sys.stderr`; `None` means the standard output.
        end: what follows each, where a line is printed in parts.
    """
    stream = sys.stdout if stream is None else stream
    for value in lines:
        for line in [value] if isinstance(value, str) else str(value).split("\n"):
            print(encodable(shown(line), stream), flush=flush, file=stream, end=end)


def encodable(text: str, stream: TextIO | None) -> str:
    """The text with escapes for what a stream cannot encode, such as `\\u2192` in cp1252."""
    encoding = getattr(stream, "encoding", None) or "utf-8"
    return text.encode(encoding, "backslashreplace").decode(encoding)


class Shown:
    """A stream of the command line that escapes what libraries write: the last door.

    What Keras's progress bar writes on a terminal passes.

    Args:
        stream: the standard output or the error output.
    """

    def __init__(self, stream: TextIO):
        self._stream = stream
        self._hidden = _HIDDEN_ON_SCREEN if stream.isatty() else _HIDDEN_IN_PARAGRAPHS
        if hasattr(stream, "reconfigure"):
            stream.reconfigure(errors="backslashreplace")

    def write(self, text: str) -> int:
        self._stream.write(self._hidden.sub(_escape, text))
        return len(text)

    def writelines(self, lines: Any) -> None:
        for line in lines:
            self.write(line)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)
