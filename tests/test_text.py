"""Text that others have written is escaped wherever it leaves the program."""

import io
import sys
import unicodedata

import pytest

from keras_vit import errors
from keras_vit.text import Shown, encodable, say, shown, shown_lines, shown_paragraphs

pytestmark = pytest.mark.same_on_every_backend

HOSTILE = {
    "an escape of the terminal": ("a\x1b[2Jb", r"a\x1b[2Jb"),
    "an escape of 8 bits": ("a\x9b2Jb", r"a\x9b2Jb"),
    "a title": ("\x1b]0;evil\x07", r"\x1b]0;evil\x07"),
    "a line of its own": ("a\nkeras-vit: fine", r"a\nkeras-vit: fine"),
    "the beginning of the line": ("a\rb", r"a\rb"),
    "a tab": ("a\tb", r"a\tb"),
    "backspace and delete": ("a\b\x7f", r"a\x08\x7f"),
    "a null": ("a\0b", r"a\x00b"),
    "right to left": ("gpj.\u202eexe", r"gpj.\u202eexe"),
    "isolates": ("\u2066a\u2069", r"\u2066a\u2069"),
    "marks of direction": ("\u200ea\u200f\u061c", r"\u200ea\u200f\u061c"),
    "no width": ("a\u200bb\u2060\ufeff\u00ad", r"a\u200bb\u2060\ufeff\xad"),
    "a blank letter": ("a\u3164", r"a\u3164"),
    "ends of lines of Unicode": ("a\u2028b\u2029c\x85d", r"a\u2028b\u2029c\x85d"),
    "tags": ("a\U000e0041", r"a\U000e0041"),
    "a byte that is not UTF-8": ("caf\udce9.png", r"caf\xe9.png"),
    "half a character": ("a\ud800", r"a\ud800"),
}
PLAIN = [
    "",
    "strip_17.jpg",
    "Ünïcode/日本語 \u3000é e\u0301.png",
    "عربي עברית",
    "C:\\a\\b",
    "👍🏽 ❤️",
    "a\u00a0b",
]


@pytest.mark.parametrize(("text", "wanted"), HOSTILE.values(), ids=HOSTILE.keys())
def test_hidden_characters_are_escaped(text, wanted):
    assert shown(text) == wanted
    assert shown(wanted) == wanted
    assert shown(text).isprintable()


@pytest.mark.parametrize("text", PLAIN)
def test_text_in_any_script_stays(text):
    assert shown(text) == shown_lines(text) == shown_paragraphs(text) == text


def test_every_control_character_of_unicode_is_escaped():
    """Except the Arabic signs that stand before a number, which are visible."""
    signs = [0x0600, 0x0601, 0x0602, 0x0603, 0x0604, 0x0605, 0x06DD, 0x070F, 0x0890, 0x0891, 0x08E2]
    hidden = ("Cc", "Cf", "Cs", "Zl", "Zp")
    passed = [c for c in map(chr, range(0x110000)) if unicodedata.category(c) in hidden and shown(c) == c]
    assert passed == list(map(chr, signs))


def test_a_message_has_lines_of_its_own_only_if_they_are_indented():
    assert shown_lines("a:\n  b\n    c") == "a:\n  b\n    c"
    assert shown_lines("a\nb\n c") == r"a\nb\n c"
    assert shown_paragraphs("a\n\tb\x1b\n") == "a\n\tb\\x1b\n"


@pytest.mark.parametrize(
    "kind", [errors.InputError, errors.DistributionError, errors.ServerError, errors.ProcessFailed]
)
def test_messages_of_exceptions_are_escaped(kind):
    assert str(kind("no a\x1b[2J\nb\u202e.png")) == r"no a\x1b[2J\nb\u202e.png"


class Table:
    def __str__(self):
        return "a\n  b\x1b"


def test_what_is_said_has_one_line_each(capsys):
    say("a\nb", 3, "c\x1b", Table())
    assert capsys.readouterr().out == "a\\nb\n3\nc\\x1b\na\n  b\\x1b\n"


@pytest.mark.parametrize(
    ("encoding", "wanted"), [("ascii", "\\xe9\\u2192"), ("cp1252", "é\\u2192"), ("utf-8", "é→")]
)
def test_what_the_output_cannot_encode_is_escaped(encoding, wanted, monkeypatch):
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    assert encodable("é→", stream) == wanted
    monkeypatch.setattr(sys, "stdout", stream)
    say("é→")
    stream.flush()
    assert stream.buffer.getvalue().decode(encoding) == wanted + "\n"


class Terminal(io.StringIO):
    def isatty(self):
        return True


BAR = "\b\b\r\x1b[1m3/10\x1b[0m \x1b[32m━━\x1b[0m\x1b[37m━\x1b[0m\x1b[K\n"


@pytest.mark.parametrize(
    ("stream", "written"), [(Terminal(), BAR), (io.StringIO(), shown_paragraphs(BAR))], ids=["tty", "file"]
)
def test_the_last_door_lets_a_progress_bar_through_on_a_terminal(stream, written):
    Shown(stream).write(BAR)
    assert stream.getvalue() == written


@pytest.mark.parametrize("stream", [Terminal(), io.StringIO()], ids=["tty", "file"])
def test_the_last_door_escapes_the_rest(stream):
    door = Shown(stream)
    assert door.write("\x1b[31mred\x1b[8m\x1b]0;t\x07\u202e") == 19
    door.writelines(["\x9b", "\n"])
    assert stream.getvalue() == "\\x1b[31mred\\x1b[8m\\x1b]0;t\\x07\\u202e\\x9b\n"
    assert door.isatty() == stream.isatty()
