"""The text of a table in any of the encodings that spreadsheets write."""

import codecs
from pathlib import Path

from keras_vit.errors import InputError
from keras_vit.files import CSV_BYTES, read_bytes

SAVE = "save it as CSV in UTF-8"

_MARKS = (
    (codecs.BOM_UTF8, "utf-8", "UTF-8"),
    (codecs.BOM_UTF32_LE, "utf-32-le", "UTF-32"),  # before UTF-16, whose mark it begins with
    (codecs.BOM_UTF32_BE, "utf-32-be", "UTF-32"),
    (codecs.BOM_UTF16_LE, "utf-16-le", "UTF-16"),
    (codecs.BOM_UTF16_BE, "utf-16-be", "UTF-16"),
)

_OTHERS = {
    b"PK\x03\x04": "a zip or an Excel file",
    b"\xd0\xcf\x11\xe0": "an old Excel file",
    b"\x1f\x8b": "a gzip file",
    b"%PDF": "a PDF",
    b"PAR1": "a Parquet file, whose name must end with .parquet",
}


def read_text(path: Path, notes: list[str]) -> str:
    """The text of a file: UTF-8, UTF-16 and UTF-32 with or without their mark, or else Latin-1.

    Args:
        path: of the file.
        notes: gets a line where the encoding was guessed.

    Raises:
        InputError: the file cannot be read, is empty, is of another kind, or cannot be decoded.
    """
    try:
        content = read_bytes(path, CSV_BYTES)
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    for start, kind in _OTHERS.items():
        if content.startswith(start):
            raise InputError(f"{path} is not text but {kind}: {SAVE}.")
    text = _decoded(path, content, notes)
    if not text.strip():
        raise InputError(f"{path} is empty: give a table with a row for each image.")
    if "\0" in text:
        line = text.count("\n", 0, text.index("\0")) + 1
        raise InputError(f"{path} has a NUL character in line {line}, as no text has: {SAVE}.")
    return text


def _decoded(path: Path, content: bytes, notes: list[str]) -> str:
    for mark, encoding, name in _MARKS:
        if content.startswith(mark):
            return _strictly(path, content[len(mark) :], encoding, name)
    # Every second byte of plain letters is 0 in UTF-16: the first one or the second one.
    sample = content[: 2**16]
    zeros = [sample[i::2].count(0) for i in (0, 1)]
    if 10 * max(zeros) > 3 * len(sample) and 20 * min(zeros) < len(sample):
        notes.append("read as UTF-16, which it does not say it is")
        return _strictly(path, content, "utf-16-le" if zeros[1] > zeros[0] else "utf-16-be", "UTF-16")
    try:
        return content.decode("utf-8")
    except UnicodeDecodeError as error:
        line = _line(content, error.start)
    if b"\0" in content:
        raise InputError(
            f"{path} is not text: it has a NUL character in line {_line(content, content.index(0))}. "
            f"Give a table, or {SAVE}."
        )
    # What Windows calls ANSI: Latin-1 with letters and signs in place of its control characters.
    text = _strictly(path, content, "cp1252", "UTF-8 nor Latin-1")
    notes.append(f"read as Latin-1, since it is not UTF-8 (line {line})")
    return text


def _strictly(path: Path, content: bytes, encoding: str, name: str) -> str:
    try:
        return content.decode(encoding)
    except UnicodeDecodeError as error:
        step = {"utf-16-le": 2, "utf-16-be": 2, "utf-32-le": 4, "utf-32-be": 4}.get(encoding, 1)
        before = content[: error.start // step * step].decode(encoding, "replace")
        what = "neither " if " nor " in name else "not "
        raise InputError(
            f"{path} cannot be decoded in line {before.count(chr(10)) + 1}: it is {what}{name} there. "
            f"Correct the line, or {SAVE}."
        ) from error


def _line(content: bytes, position: int) -> int:
    return content.count(b"\n", 0, position) + 1
