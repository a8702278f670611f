"""The images of a zip, read into memory and never written to disk; the tricks of hostile zips are refused."""

import re
import zipfile
import zlib
from pathlib import Path, PurePosixPath

from keras_vit.data.image_set import ImageSet
from keras_vit.data.sources.layout import IMAGE_SUFFIXES, arrange, is_hidden
from keras_vit.errors import InputError

TOTAL_LIMIT = 2 * 1024**3  # bytes, uncompressed
# Deflate reaches 1032 : 1 on zeros; image files, compressed already, stay near 1 : 1.
RATIO_LIMIT = 200
RATIO_FREE = 10 * 1024**2  # bytes: a smaller member may have any ratio

FIX = "unpack it yourself and give the folder."


def read_zip(path: Path) -> ImageSet:
    """The images of a zip as an image set of encoded bytes.

    Raises:
        InputError: the file is not a zip, is damaged, encrypted, has unsafe names or the marks of a zip bomb,
            or `layout.arrange` finds no classes.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            members = [info for info in archive.infolist() if not info.is_dir()]
            _check(path, members)
            files: dict[PurePosixPath, bytes] = {}
            for info in members:
                name = PurePosixPath(info.filename)
                if name in files:
                    raise InputError(f"{path} holds {info.filename} twice: {FIX}")
                wanted = name.suffix.lower() in IMAGE_SUFFIXES and not is_hidden(name)
                files[name] = _read(path, archive, info) if wanted else b""
    except zipfile.BadZipFile as error:
        raise InputError(
            f"{path} is not a zip file, or it was cut short: pack or download it again."
        ) from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error
    return arrange(str(path), files, is_archive=True)


def _check(path, members):
    total = 0
    for info in members:
        name = info.filename.replace("\\", "/")
        if name.startswith("/") or re.match(r"[A-Za-z]:", name) or ".." in name.split("/"):
            raise InputError(
                f"{path} holds {info.filename}, a name that leads out of the zip; it may be an attack. If "
                f"you trust it, {FIX}"
            )
        if info.flag_bits & 0x1:
            raise InputError(f"{path} is encrypted, {info.filename} needs a password: {FIX}")
        if info.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise InputError(
                f"{path} holds {info.filename}, packed by a method that is not read ({info.compress_type}): "
                f"{FIX}"
            )
        if info.file_size > RATIO_FREE and info.file_size > RATIO_LIMIT * max(info.compress_size, 1):
            raise InputError(
                f"{path} holds {info.filename}, which would grow from {info.compress_size:,} to "
                f"{info.file_size:,} bytes; it may be a zip bomb. If you trust it, {FIX}"
            )
        total += info.file_size
        if total > TOTAL_LIMIT:
            raise InputError(
                f"{path} would grow to more than {TOTAL_LIMIT // 1024**3} GiB in memory (counted up to "
                f"{info.filename}): {FIX}"
            )


def _read(path, archive, info):
    """The bytes of one member. Its header may lie: no more than it says is inflated."""
    try:
        with archive.open(info) as member:
            content = member.read(info.file_size + 1)
    except (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError) as error:
        raise InputError(
            f"{path} is damaged at {info.filename} ({error}). Pack or download it again."
        ) from error
    if len(content) != info.file_size:
        raise InputError(
            f"{path} is damaged at {info.filename}: {len(content):,} bytes, but its header says "
            f"{info.file_size:,}. Pack or download it again."
        )
    return content
