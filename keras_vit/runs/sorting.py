"""Puts images into folders by what a run says of them: whole files, never over another one."""

import contextlib
import errno
import filecmp
import os
import re
import shutil
from collections import defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path, PurePosixPath
from typing import Literal

from keras_vit.data.sources.archive import ZipMember
from keras_vit.data.sources.kinds import IMAGE_SUFFIXES, is_hidden
from keras_vit.errors import InputError
from keras_vit.files import open_regular, whole_file, work_name
from keras_vit.runs.listing import Listed, Source
from keras_vit.runs.predictions import Prediction

How = Literal["copy", "move", "link"]

UNREADABLE, REJECTED, REFER, UNSURE = "_unreadable", "_rejected", "_refer", "_unsure"
"""The folders beside those of the classes, the first that fits an image."""

LONGEST_FOLDER = 100
"""Bytes of the name of a class's folder; a longer one is cut, and ends with a part of its hash."""

LONGEST_NAME = 200
"""Bytes of the name of a file: systems allow 255, and writing it whole adds some."""

ILLEGAL = re.compile(r'[\x00-\x1f\x7f<>:"/\\|?*]')
"""What a name cannot hold on Linux, macOS or Windows."""

RESERVED = re.compile(r"(con|prn|aux|nul|com[0-9]|lpt[0-9])(\..*)?", re.IGNORECASE)
"""Names of devices on Windows."""


def folder_names(class_names: Sequence[str]) -> dict[str, str]:
    """The folder of each class: its name, without what no system allows, numbered where two are alike.

    Args:
        class_names: of the run.
    """
    taken = {UNREADABLE, REJECTED, REFER, UNSURE}
    found = {}
    # Names that are legal come first, so that no other takes them.
    for name in sorted(class_names, key=lambda name: _legal(name) != name):
        found[name] = _free(_legal(name), "", taken)
        taken.add(found[name].casefold())
    return {name: found[name] for name in class_names}


def _legal(name: str) -> str:
    # "_", and not nothing: "a/b" and "ab" are two classes.
    legal = ILLEGAL.sub("_", name).rstrip(". ") or "_"
    if RESERVED.fullmatch(legal) or is_hidden(PurePosixPath(legal)):
        legal = f"_{legal.lstrip('.')}"
    encoded = legal.encode("utf-8", "replace")
    if len(encoded) > LONGEST_FOLDER:
        kept = encoded[: LONGEST_FOLDER - 9].decode("utf-8", "ignore")
        legal = f"{kept}_{sha256(name.encode('utf-8', 'replace')).hexdigest()[:8]}"
    return legal


def _free(stem: str, end: str, taken: Iterable[str]) -> str:
    """The name, or the name with the first number that is not taken; upper and lower case are the same."""
    name, number = f"{stem}{end}", 1
    while name.casefold() in taken:
        number += 1
        name = f"{stem}_{number}{end}"
    return name


@dataclass
class Sorter:
    """Says where images belong, and puts them there.

    Args:
        folder: that is filled.
        how: whether files are copied, moved or linked.
        class_names: of the run.
        min_confidence: a label that is less sure does not count; `None` for any.
    """

    folder: Path
    how: How
    class_names: Sequence[str]
    min_confidence: float | None = None
    _taken: dict[str, set[str]] = field(default_factory=lambda: defaultdict(set))
    _made: set[Path] = field(default_factory=set)

    def __post_init__(self) -> None:
        self.folder_of = folder_names(self.class_names)

    def notes(self) -> list[str]:
        """Which classes have folders of other names, one line each."""
        return [
            f'the folder of the class "{name}" is called {folder}'
            for name, folder in self.folder_of.items()
            if name != folder
        ]

    def target_of(self, item: Listed, answer: Prediction) -> str | None:
        """The path that an image gets in the folder, which no other has; `None` if it cannot be opened."""
        if answer.error is not None and not _can_be_opened(item.image):
            return None
        folder = self._folder_of(answer)
        stem, end = _name_of(item)
        name = _free(stem, end, self._taken[folder])
        found = f"{folder}/{name}"
        self.take(found)
        return found

    def take(self, target: str) -> None:
        """Notes that a path is taken."""
        folder, _, name = target.partition("/")
        self._taken[folder].add(name.casefold())

    def _folder_of(self, answer: Prediction) -> str:
        if answer.error is not None:
            return UNREADABLE
        if answer.reject:
            return REJECTED
        if answer.refer:
            return REFER
        if self.min_confidence is not None and (answer.confidence or 0.0) < self.min_confidence:
            return UNSURE
        assert answer.label is not None
        return self.folder_of[answer.label]

    def place(self, image: Source, target: str) -> None:
        """Puts an image where it belongs; does nothing where it is already.

        Args:
            image: as it is listed.
            target: of `target_of`.

        Raises:
            OSError: it cannot be read or written; nothing is half-written, and the image is not lost.
        """
        path = self.folder / target
        if path.parent not in self._made:
            path.parent.mkdir(exist_ok=True)
            self._made.add(path.parent)
        if not isinstance(image, Path):
            if not path.exists():
                with whole_file(path, "wb") as file:
                    file.write(image.read() if isinstance(image, ZipMember) else image)
        elif self.how == "link":
            if not os.path.lexists(path):
                os.symlink(os.path.abspath(image), path)
        elif self.how == "copy":
            if not os.path.lexists(path):
                _copy(image, path, to_the_disk=False)
        else:
            _move(image, path)

    def path(self, target: str) -> Path:
        """Where an image is put."""
        return self.folder / target


def require_movable(items: Iterable[Listed]) -> None:
    """Raises InputError if an image cannot be moved: of a zip, a crop, a link, or in a read-only folder."""
    seen: set[Path] = set()
    for name, image in items:
        if not isinstance(image, Path):
            raise InputError(
                f"{name} is not a file of its own, so it can only be copied: use --copy, or unpack it first."
            )
        if image.is_symlink():
            raise InputError(
                f"{name} is a symbolic link: use --copy or --link, or give the folder that it leads to."
            )
        if image.parent not in seen and os.path.isdir(image.parent):
            seen.add(image.parent)
            if not os.access(image.parent, os.W_OK | os.X_OK):
                raise InputError(
                    f"The folder {image.parent} cannot be written to, so nothing can be moved out of it: use "
                    "--copy or --link, or change its permissions."
                )


def require_linkable(items: Iterable[Listed]) -> None:
    """Raises InputError if an image is not a file that a link can lead to."""
    for name, image in items:
        if not isinstance(image, Path):
            raise InputError(f"{name} is not a file of its own, so no link can lead to it: use --copy.")


def _can_be_opened(image: Source) -> bool:
    if not isinstance(image, Path):
        return not isinstance(image, ZipMember) or _can_be_read(image)
    try:
        with open_regular(image):
            return True
    except OSError:
        return False


def _can_be_read(member: ZipMember) -> bool:
    with contextlib.suppress(InputError):
        return bool(member.read()) or True
    return False


def _name_of(item: Listed) -> tuple[str, str]:
    """The name of a file and its suffix, as they can stand in a folder."""
    if isinstance(item.image, Path):
        stem, end = item.image.stem, item.image.suffix
    else:
        found = PurePosixPath(item.name)
        stem, end = found.stem, found.suffix
        if end.lower() not in IMAGE_SUFFIXES:  # a crop is called strip.png#2, and is a PNG
            stem, end = ILLEGAL.sub("_", found.name), ".png" if isinstance(item.image, bytes) else end
        stem = ILLEGAL.sub("_", stem)
    cut = os.fsencode(stem)[: max(1, LONGEST_NAME - len(os.fsencode(end)))]
    return (stem, end) if cut == os.fsencode(stem) else (cut.decode("utf-8", "ignore"), end)


def _copy(source: Path, target: Path, to_the_disk: bool) -> None:
    """Copies a file with its times under another name, and gives it its own at the end."""
    new = target.with_name(work_name(target.name))
    try:
        with open_regular(source) as old, open(new, "xb") as file:
            shutil.copyfileobj(old, file, 2**20)
            file.flush()
            if to_the_disk:
                os.fsync(file.fileno())
        with contextlib.suppress(OSError):
            shutil.copystat(source, new)
        os.rename(new, target)
    except BaseException:
        with contextlib.suppress(OSError):
            new.unlink()
        raise


def _move(source: Path, target: Path) -> None:
    """Moves a file; across disks it is copied, and removed when the copy is on the disk."""
    if os.path.lexists(target):
        # A command that was killed may have copied it, and not removed it yet.
        if os.path.lexists(source) and filecmp.cmp(source, target, shallow=False):
            source.unlink()
        return
    try:
        os.rename(source, target)
    except OSError as error:
        if error.errno != errno.EXDEV:
            raise
        _copy(source, target, to_the_disk=True)
        _sync_folder(target.parent)
        source.unlink()


def _sync_folder(folder: Path) -> None:
    opened = os.open(folder, os.O_RDONLY)
    try:
        with contextlib.suppress(OSError):  # not every system can
            os.fsync(opened)
    finally:
        os.close(opened)
