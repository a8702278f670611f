"""The names in a zip as its writer meant them."""

import struct
import zipfile
import zlib
from collections.abc import Sequence

UTF8_FLAG = 0x800
UNICODE_PATH = 0x7075
"""Id of Info-ZIP's extra field with a name in UTF-8."""

DOS_WRITERS = (0, 10, 11, 14)
"""Systems of the writer, as a zip numbers them, that part folders with a backslash: FAT, NTFS, MVS, VFAT."""


def member_names(members: Sequence[zipfile.ZipInfo]) -> tuple[list[str], tuple[str, ...]]:
    """The name of each member of a zip, with `/` between folders.

    A name without the flag for UTF-8 is UTF-8 all the same if all such names of the zip can be: programs on
    Linux and macOS write them so. Otherwise it is in cp437, as the zip format has it.

    Returns:
        The names, one per member; and what the user must know of them, one line each.
    """
    raw = [None if member.flag_bits & UTF8_FLAG else _raw(member) for member in members]
    is_utf8 = all(_decoded(name) is not None for name in raw if name is not None)
    names, guessed = [], []
    for member, name in zip(members, raw, strict=True):
        text = member.orig_filename.partition("\0")[0]
        if name is not None:
            told = _unicode_path(member, name)
            decoded = _decoded(name) if is_utf8 else None
            text = told or decoded or text
            if told is None and decoded is None and not name.isascii():
                guessed.append(text)
        names.append(text)
    only_backslashes = not any("/" in name for name in names)
    names = [
        name.replace("\\", "/") if only_backslashes or member.create_system in DOS_WRITERS else name
        for member, name in zip(members, names, strict=True)
    ]
    notes: tuple[str, ...] = ()
    if guessed:
        notes = (
            f"names in the zip that are not UTF-8 were read as cp437 ({len(guessed)}), such as {guessed[0]}: "
            "pack it again if they look wrong",
        )
    return names, notes


def _raw(member: zipfile.ZipInfo) -> bytes:
    """The bytes of a name that Python has decoded as cp437."""
    return member.orig_filename.partition("\0")[0].encode("cp437", "replace")


def _decoded(raw: bytes) -> str | None:
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError:
        return None


def _unicode_path(member: zipfile.ZipInfo, raw: bytes) -> str | None:
    """The name in the extra field, if it is of this name."""
    extra = member.extra
    while len(extra) >= 4:
        kind, size = struct.unpack_from("<HH", extra)
        content, extra = extra[4 : 4 + size], extra[4 + size :]
        if kind == UNICODE_PATH and len(content) > 5 and content[0] == 1:
            crc = struct.unpack_from("<L", content, 1)[0]
            return _decoded(content[5:]) if crc == zlib.crc32(raw) else None
    return None
