"""The images of a zip, read into memory and never written to disk; the tricks of hostile zips are refused."""

import re
import stat
import zipfile
import zlib
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

from keras_vit.data.image_set import ImageSet
from keras_vit.data.sources.kinds import HEAD_BYTES, SourceFiles, is_hidden
from keras_vit.data.sources.layout import arrange
from keras_vit.data.sources.member_names import member_names
from keras_vit.errors import InputError

TOTAL_LIMIT = 2 * 1024**3  # bytes, uncompressed
# Deflate reaches 1032 : 1 on zeros; image files, compressed already, stay near 1 : 1.
RATIO_LIMIT = 200
RATIO_FREE = 10 * 1024**2  # bytes: a smaller member may have any ratio

FIX = "unpack it yourself and give the folder."


@dataclass(frozen=True)
class ZipMember:
    """An image in a zip that is read when it is asked for."""

    path: Path
    archive: zipfile.ZipFile
    info: zipfile.ZipInfo

    def read(self) -> bytes:
        """The bytes of the member.

        Raises:
            InputError: it is damaged.
        """
        return _read(self.path, self.archive, self.info)


def read_zip(path: Path, classes: Sequence[str] | None = None, in_groups: bool = False) -> ImageSet:
    """The images of a zip as an image set of encoded bytes.

    Args:
        path: of the zip.
        classes: as `load_image_set` takes them.
        in_groups: as `arrange` takes it.

    Raises:
        InputError: the file is not a zip, is damaged, encrypted, has unsafe names or the marks of a zip bomb,
            or `layout.arrange` finds no classes.
    """
    files = SourceFiles(str(path))
    try:
        with zipfile.ZipFile(path) as archive:
            _sort_members(files, path, archive, lambda info: _read(path, archive, info))
    except (zipfile.BadZipFile, UnicodeDecodeError, OSError) as error:
        raise _not_a_zip(path, error) from error
    return arrange(files, is_archive=True, classes=classes, name=path.stem, in_groups=in_groups)


def files_of_zip(path: Path) -> SourceFiles:
    """The files of a zip, whose images are `ZipMember`s: they are read later, one at a time.

    Args:
        path: of the zip, which stays open as long as one of the members is there.

    Raises:
        InputError: as `read_zip`, but for the classes.
    """
    files = SourceFiles(str(path))
    try:
        archive = zipfile.ZipFile(path)
        _sort_members(files, path, archive, lambda info: ZipMember(path, archive, info))
    except (zipfile.BadZipFile, UnicodeDecodeError, OSError) as error:
        raise _not_a_zip(path, error) from error
    return files


def _not_a_zip(path: Path, error: Exception) -> InputError:
    if isinstance(error, OSError):
        return InputError(f"{path} cannot be read: {error.strerror or error}.")
    # A name that is not the UTF-8 it claims to be is damage too.
    return InputError(f"{path} is not a zip file, or it was cut short: pack or download it again.")


def _sort_members(
    files: SourceFiles, path: Path, archive: zipfile.ZipFile, load: Callable[[zipfile.ZipInfo], Any]
) -> None:
    """Sorts the members of a zip into images and others."""
    seen: set[PurePosixPath] = set()
    for text, info in _checked(path, archive, files.notes):
        name, is_folder = PurePosixPath(text), text.endswith("/")
        folders = [name, *name.parents] if is_folder else name.parents
        files.folders |= {folder for folder in folders if folder.parts and not is_hidden(folder)}
        if is_folder:
            continue
        if name in seen:
            raise InputError(f"{path} holds {name} twice: {FIX}")
        seen.add(name)
        if _is_special(info):
            files.skipped["link or device"].append(name)
        else:
            _add(files, path, archive, name, info, load)


def _checked(path: Path, archive: zipfile.ZipFile, notes: list[str]) -> list[tuple[str, zipfile.ZipInfo]]:
    """The members of a zip with their names, after a check of all of them."""
    members = archive.infolist()
    names, told = member_names(members)
    notes += told
    total = 0
    for name, info in zip(names, members, strict=True):
        parts = name.replace("\\", "/").split("/")
        if name.startswith(("/", "\\")) or re.match(r"[A-Za-z]:", name) or ".." in parts:
            raise InputError(
                f"{path} holds {name}, a name that leads out of the zip; it may be an attack. If you trust "
                f"it, {FIX}"
            )
        if info.flag_bits & 0x1:
            raise InputError(f"{path} is encrypted, {name} needs a password: {FIX}")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(
                f"{path} holds {name}, packed by a method that is not read ({info.compress_type}): {FIX}"
            )
        if info.file_size > RATIO_FREE and info.file_size > RATIO_LIMIT * max(info.compress_size, 1):
            raise InputError(
                f"{path} holds {name}, which would grow from {info.compress_size:,} to {info.file_size:,} "
                f"bytes; it may be a zip bomb. If you trust it, {FIX}"
            )
        total += info.file_size
        if total > TOTAL_LIMIT:
            raise InputError(
                f"{path} would grow to more than {TOTAL_LIMIT // 1024**3} GiB in memory (counted up to "
                f"{name}): {FIX}"
            )
    return list(zip(names, members, strict=True))


def _is_special(info: zipfile.ZipInfo) -> bool:
    """Whether a member is a link, a pipe or a device of the system that packed it."""
    kind = stat.S_IFMT(info.external_attr >> 16)
    return kind not in (0, stat.S_IFREG, stat.S_IFDIR)


def _add(files, path, archive, name, info, load):
    def head() -> bytes:
        return _read(path, archive, info, HEAD_BYTES)

    files.add(name, lambda: load(info), head)


def _read(path, archive, info, first=None):
    """The bytes of one member, or its first ones. Its header may lie: no more than it says is inflated."""
    try:
        with archive.open(info) as member:
            content = member.read(info.file_size + 1 if first is None else first)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"{path} is damaged at {info.filename} ({error}). Pack or download it again."
        ) from error
    if first is None and len(content) != info.file_size:
        raise InputError(
            f"{path} is damaged at {info.filename}: {len(content):,} bytes, but its header says "
            f"{info.file_size:,}. Pack or download it again."
        )
    return content
