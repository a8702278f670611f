"""Where the images of a table are."""

import os
import posixpath
import re
import stat
import unicodedata
from collections import defaultdict
from collections.abc import Callable, Iterable
from urllib.parse import unquote

from keras_vit.data.sources.kinds import IMAGE_SUFFIXES
from keras_vit.data.sources.layout import FURNITURE
from keras_vit.data.sources.part_names import part_name
from keras_vit.data.sources.parts import NEUTRAL_FOLDERS
from keras_vit.data.sources.tables.entries import Entry, Found, TableOptions, in_words, places, some
from keras_vit.data.sources.tables.records import is_image_name
from keras_vit.errors import InputError

ADDRESS = re.compile(r"[A-Za-z][A-Za-z0-9+.-]+://")


class Folder:
    """The files of a folder by their names, also nearly equal ones; listed once."""

    def __init__(self, path: str):
        self.names: set[str] = set()
        self.by_fold: dict[str, list[str]] = defaultdict(list)
        self.by_stem: dict[str, list[str]] = defaultdict(list)
        try:
            found = os.listdir(path)
        except (OSError, ValueError):
            return
        for name in found:
            self.names.add(name)
            self.by_fold[_fold(name)].append(name)
            stem, suffix = os.path.splitext(name)
            if suffix.lower() in IMAGE_SUFFIXES:
                self.by_stem[_fold(stem)].append(name)


def _fold(name: str) -> str:
    return unicodedata.normalize("NFC", name).casefold()


class Finder:
    """Finds the images of one table.

    Args:
        found: the table.
        options: how it is to be read.
    """

    def __init__(self, found: Found, options: TableOptions):
        self.found, self.options = found, options
        self.file = found.file
        self.root = os.path.abspath(found.root)
        self.folders: dict[str, Folder] = {}
        self.kinds: dict[str, str] = {}

    def locate(self) -> list[str]:
        """The path of the image of each entry, relative to the folder of the table where it is written so.

        Raises:
            InputError: paths are empty, are addresses, leave the folder of the table, or name no file.
        """
        self._refuse()
        texts = [self._local(entry) for entry in self.found.entries]
        self._check_outside(texts)
        relative = [i for i, text in enumerate(texts) if not os.path.isabs(text)]
        if len(relative) < len(texts):
            number = in_words(len(texts) - len(relative), "absolute path")
            self.found.notes.append(f"{number}, taken as written")
        places_of = [self._first_place(text, self.found.entries[i], "") for i, text in enumerate(texts)]
        missing = [i for i, place in enumerate(places_of) if place is None]
        # Some of many are more likely lost than elsewhere, unless these are addresses of a server.
        if missing and (len(missing) == len(texts) or all(self.found.entries[i].others for i in missing)):
            base, found = self._elsewhere(texts)
            if base is not None:
                self.found.notes.append(f"the paths count from {base}/, not from the folder of the table")
                places_of = [place or found[i] for i, place in enumerate(places_of)]
        places_of = self._nearly(texts, places_of)
        self._check(texts, places_of)
        return [place for place in places_of if place is not None]

    def _refuse(self) -> None:
        for what, is_wrong in _WRONG:
            wrong = [entry for entry in self.found.entries if is_wrong(entry)]
            if wrong:
                raise InputError(f"{self.file} has {what} in {places([entry.where for entry in wrong])}.")

    def _local(self, entry: Entry) -> str:
        text = entry.path.removeprefix("file://")
        if os.sep == "/" and "\\" in text and not os.path.lexists(os.path.join(self.root, text)):
            text = text.replace("\\", "/")
        return posixpath.normpath(text) if os.sep == "/" else os.path.normpath(text)

    def _check_outside(self, texts: list[str]) -> None:
        outside = [i for i, text in enumerate(texts) if text.replace(os.sep, "/").split("/")[0] == ".."]
        if outside and not self.options.allow_outside:
            raise InputError(
                f"{self.file} has paths that leave its folder ({places(self._where(outside))}: "
                f"{texts[outside[0]]}): add --allow-outside if you trust the table, or move it above the "
                "images."
            )

    def _where(self, positions: Iterable[int]) -> list[str]:
        return [self.found.entries[i].where for i in positions]

    def _kind(self, path: str) -> str:
        """What is at a path in or outside the folder of the table: a file, something else, or nothing."""
        kind = self.kinds.get(path)
        if kind is None:
            try:
                mode = os.stat(os.path.join(self.root, path)).st_mode
                kind = "file" if stat.S_ISREG(mode) else "folder" if stat.S_ISDIR(mode) else "device or pipe"
            except (OSError, ValueError):
                kind = ""
            self.kinds[path] = kind
        return kind

    def _first_place(self, text: str, entry: Entry, base: str) -> str | None:
        for option in (text, *entry.others):
            path = posixpath.normpath(posixpath.join(base, option)) if base else option
            if self._kind(path):
                return path
        return None

    def _elsewhere(self, texts: list[str]) -> tuple[str | None, list[str | None]]:
        """The folder that the paths count from, if it is another one; all paths from the table's folder."""
        best: tuple[int, str | None, list[str | None]] = (0, None, [])
        for base in self._bases():
            places_of = [
                self._first_place(text, entry, base)
                for text, entry in zip(texts, self.found.entries, strict=True)
            ]
            places_of = self._nearly(texts, places_of, base, say=False)
            number = sum(place is not None for place in places_of)
            if number > best[0]:
                best = (number, base, places_of)
        return best[1], best[2]

    def _bases(self) -> list[str]:
        """Folders beside the table that may hold its images, the likeliest first."""
        bases = self._bases_in(self.root, "")
        if os.path.basename(self.root).lower() in FURNITURE:  # annotations/instances_train.json
            above = os.path.dirname(self.root)
            bases += ["..", *self._bases_in(above, "..")]
        return bases

    def _bases_in(self, folder: str, prefix: str) -> list[str]:
        stem = self.file.stem.lower()
        role = _role(stem)
        try:
            with os.scandir(folder) as entries:
                names = sorted(entry.name for entry in entries if entry.is_dir())
        except OSError:
            return []

        def rank(name: str) -> int | None:
            lower = name.lower()
            if lower == stem:
                return 0
            if role is not None and _role(lower) == role:
                return 1
            if lower in stem.split("_"):  # instances_train2017.json: train2017
                return 2
            return 3 if lower in NEUTRAL_FOLDERS | {"upload", "media"} else None

        ranked = [(rank(name), name) for name in names]
        chosen = [(place, name) for place, name in ranked if place is not None]
        if not chosen and len(names) == 1:
            chosen = [(4, names[0])]
        return [posixpath.join(prefix, name) for _, name in sorted(chosen)]

    def _nearly(
        self, texts: list[str], places_of: list[str | None], base: str = "", say: bool = True
    ) -> list[str | None]:
        """Looks for names without their suffix, in other capital letters, or in another Unicode form."""
        result, added, folded = list(places_of), 0, 0
        for i, place in enumerate(places_of):
            if place is not None:
                continue
            for option in (texts[i], *self.found.entries[i].others):
                path = posixpath.normpath(posixpath.join(base, option))
                parent, name = posixpath.split(path)
                folder = self._folder(parent)
                same = folder.by_fold.get(_fold(name), [])
                with_suffix = [] if is_image_name(name) else folder.by_stem.get(_fold(name), [])
                if len(with_suffix) > 1:
                    entry = self.found.entries[i]
                    raise InputError(
                        f"{self.file} names {entry.path} in {entry.where}, which may be "
                        f"{some(sorted(with_suffix))}: "
                        "write the suffix."
                    )
                if len(same) == 1 or with_suffix:
                    result[i] = posixpath.join(parent, (same or with_suffix)[0])
                    added, folded = added + (not same), folded + bool(same)
                    break
        if say and added:
            self.found.notes.append(f"{in_words(added, 'path')} without a suffix: that of the file was added")
        if say and folded:
            self.found.notes.append(
                f"{in_words(folded, 'path')} found by a name that differs in capital letters or in its "
                "form of Unicode"
            )
        return result

    def _folder(self, path: str) -> Folder:
        if path not in self.folders:
            self.folders[path] = Folder(os.path.join(self.root, path))
        return self.folders[path]

    def _check(self, texts: list[str], places_of: list[str | None]) -> None:
        missing = [i for i, place in enumerate(places_of) if place is None]
        if missing:
            number = f"{len(missing):,} of {in_words(len(texts), 'image')}"
            raise InputError(
                f"{self.file} names {number} that {'is' if len(missing) == 1 else 'are'} not there "
                f"({places(self._where(missing))}: {texts[missing[0]][:200]}): correct the paths, "
                f"which count from {self.root}, or remove the rows."
            )
        for kind in ("folder", "device or pipe"):
            wrong = [
                i for i, place in enumerate(places_of) if place is not None and self._kind(place) == kind
            ]
            if wrong:
                raise InputError(
                    f"{self.file} names a {kind} in place of an image ({places(self._where(wrong))}: "
                    f"{texts[wrong[0]]}): give the path of a file."
                )


def _role(name: str) -> str | None:
    told = part_name(name)
    return told.role if told and told.is_sure else None


def server_paths(address: str) -> tuple[str, tuple[str, ...]]:
    """Where an image of Label Studio may be, whose address is that of its server or of a storage.

    Returns:
        The likeliest path, and others.
    """
    plain = address
    if "/data/local-files/" in address and "?d=" in address:
        path = unquote(address.partition("?d=")[2]).lstrip("/")
        return path, (posixpath.basename(path),)
    if ADDRESS.match(address) or address.startswith("/data/"):
        plain = posixpath.basename(unquote(address.partition("?")[0]))
        return plain, (re.sub(r"^[0-9a-f]{8}-", "", plain),)
    return plain, (re.sub(r"^[0-9a-f]{8}-", "", posixpath.basename(plain)),)


_WRONG: tuple[tuple[str, Callable[[Entry], bool]], ...] = (
    ("no path", lambda entry: not entry.path),
    ("a NUL character in a path", lambda entry: "\0" in entry.path),
    (
        "addresses in place of paths, and nothing is downloaded,",
        lambda entry: bool(ADDRESS.match(entry.path)) and not entry.path.startswith("file://"),
    ),
)
