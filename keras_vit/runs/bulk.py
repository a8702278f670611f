"""Any number of images to a table and into folders, by a command that can be cut off and goes on."""

import contextlib
import itertools
import os
import sys
from collections import defaultdict, deque
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path
from typing import Any, NamedTuple
from zlib import crc32

from keras_vit.data.sources import is_table
from keras_vit.data.sources.archive import ZipMember
from keras_vit.errors import InputError
from keras_vit.files import (
    check_new_file,
    is_taken,
    is_work_name,
    journal_of,
    make_folder,
    partial_of,
    remove_made,
    write_csv,
)
from keras_vit.locks import lock_beside, locked
from keras_vit.runs.ensemble import Ensemble
from keras_vit.runs.folder import CONFIG, ENSEMBLE, Run
from keras_vit.runs.journal import Entry, Journal
from keras_vit.runs.listing import HowListed, Listed, Source, list_images
from keras_vit.runs.prediction_table import columns_of, row_of
from keras_vit.runs.predictions import Prediction
from keras_vit.runs.sorting import How, Sorter, require_linkable, require_movable
from keras_vit.runs.stream import stream
from keras_vit.sealed import sha256_of
from keras_vit.text import say

TOGETHER = 64
"""So many answers are written down at once."""

SORTED_TO = "sorted_to"
"""The column of the table with the path that an image has in the folder."""


@dataclass(frozen=True)
class Sorting:
    """Where images are put.

    Args:
        folder: that is made, with one folder per class.
        how: whether files are copied, moved or linked (symbolic links).
        min_confidence: images whose label is less sure go to a folder of their own; `None` for none.
    """

    folder: Path
    how: How = "copy"
    min_confidence: float | None = None

    @property
    def work(self) -> Path:
        """What the folder is called until all images are in it."""
        return partial_of(self.folder)


@dataclass(frozen=True)
class Job:
    """What is to be done with some images.

    Args:
        run: with the rule that counts.
        given: paths of image files, folders, zips and tables, and patterns.
        flips, accept_risk: as of `keras_vit.predict`.
        crop_boxes, allow_outside: how tables are read.
        csv: a table that is written; `None` for none.
        sorting: where images are put; `None` for nowhere.
        rule: what else the answers depend on, ready for JSON.
    """

    run: Run | Ensemble
    given: Sequence[Path]
    flips: bool = False
    accept_risk: float | None = None
    crop_boxes: bool = False
    allow_outside: bool = False
    csv: Path | None = None
    sorting: Sorting | None = None
    rule: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if self.sorting is not None and self.run.several:
            raise InputError(
                f"{self.run.path} names several labels per image, so no image has one folder: omit "
                "--sort-into, and use --csv."
            )
        for run in self.run.runs if isinstance(self.run, Ensemble) else (self.run,):
            run.accepting(self.accept_risk)  # says now that it cannot be

    @property
    def moves(self) -> bool:
        return self.sorting is not None and self.sorting.how == "move"

    @property
    def journal(self) -> Path | None:
        """The file that holds the answers until the command is finished; `None` if nothing is written."""
        if self.csv is not None:
            return journal_of(self.csv)
        if self.sorting is not None:
            return self.sorting.work.with_name(self.sorting.work.name + ".json")
        return None

    def command(self) -> dict[str, Any]:
        """What must be the same for answers to be gone on with, ready for JSON."""
        # What a shell makes of strips/*.jpg is another list when half of the files are moved.
        given = [path for path in self.given if not self.moves or os.path.isdir(path) or is_table(path)]
        where = self.sorting
        return {
            "the run": sha256_of(self.run.path / (ENSEMBLE if isinstance(self.run, Ensemble) else CONFIG)),
            "the images": [os.path.abspath(path) for path in given],
            "the options": [self.flips, self.accept_risk, self.crop_boxes, self.allow_outside, self.rule],
            "--csv": None if self.csv is None else os.path.abspath(self.csv),
            "--sort-into": None
            if where is None
            else [os.path.abspath(where.folder), where.how, where.min_confidence],
        }

    def table(self, entries: Iterator[Entry]) -> Iterator[dict[str, Any]]:
        """The rows of the table."""
        for entry in entries:
            row = row_of(entry.answer, self.run.class_names, self.run.several)
            if self.sorting is not None:
                row[SORTED_TO] = None if entry.target is None else str(self.sorting.folder / entry.target)
            yield row

    def columns(self) -> list[str]:
        """Of the table."""
        more = [] if self.sorting is None else [SORTED_TO]
        return [*columns_of(self.run.class_names, self.run.several), *more]


class Answered(NamedTuple):
    """One image with its answer, and the path that it is sorted to, if it is."""

    answer: Prediction
    sorted_to: str | None


class Bulk:
    """The images of a job, and the answers that an earlier command has left of them.

    Args:
        job: what is to be done.

    Attributes:
        names: of all images, in the order of their answers.
        kept: how many answers there are already.

    Raises:
        InputError: the images, or the places to write to, cannot be used. Nothing is written then.
    """

    def __init__(self, job: Job):
        self.job = job
        self._sorter = self._made_sorter()
        self._journal: Journal | None = None
        entries: list[Entry] = []
        if job.journal is not None:
            self._journal = Journal(job.journal, job.command(), self._way_out())
            entries = list(self._journal.entries())
            self._check_places()
        self._done: list[tuple[Entry, Source | None]] = [(entry, None) for entry in entries]
        self._waiting: list[Listed] = []
        if self._journal is None or not self._journal.is_complete:
            self._done, self._waiting = self._with_answers(entries, self._listed(bool(entries)))
        self.kept = self._written_down = len(self._done)
        self.names = [entry.answer.image for entry, _ in self._done] + [item.name for item in self._waiting]

    def _made_sorter(self) -> Sorter | None:
        where = self.job.sorting
        if where is None:
            return None
        return Sorter(where.work, where.how, self.job.run.class_names, where.min_confidence)

    def _way_out(self) -> str:
        where, moved = self.job.sorting, ""
        if where is not None and os.path.lexists(where.work):
            moved = f" and {where.work} (look first whether it holds images that were moved)"
        return (
            f"repeat that command to finish it, write to another place, or remove {self.job.journal}{moved}."
        )

    def _check_places(self) -> None:
        """Raises InputError if something would be replaced, or cannot be written."""
        assert self._journal is not None
        if self._journal.is_complete:
            return
        if self.job.csv is not None:
            check_new_file(self.job.csv, "--csv")
        where = self.job.sorting
        if where is None:
            return
        if os.path.ismount(where.folder):
            raise InputError(f"{where.folder} is a disk of its own: give --sort-into a folder in it.")
        if is_taken(where.folder):
            raise InputError(
                f"{where.folder} exists already and is not empty: give --sort-into a new folder."
            )
        if not self._journal.was_there and os.path.lexists(where.work):
            raise InputError(
                f"{where.work} is in the way: look whether it holds images that were moved, remove it, or "
                "give --sort-into another folder."
            )

    def _listed(self, may_be_empty: bool) -> list[Listed]:
        """The images that are given and can be sorted."""
        job, where = self.job, self.job.sorting
        own = () if where is None else (where.folder, where.work)
        how = HowListed(job.crop_boxes, job.allow_outside, own, may_be_empty)
        found = list_images(job.given, job.run.class_names, how)
        if where is None:
            return found
        once: dict[Any, Listed] = {}
        for item in found:
            once.setdefault(_place_of(item), item)
        if len(once) < len(found):
            told = f"{len(found) - len(once):,} of the images are given twice: each is sorted once"
            say(told, stream=sys.stderr)
        found = list(once.values())
        if where.how == "move":
            require_movable(found)
        elif where.how == "link":
            require_linkable(found)
        return found

    def _with_answers(
        self, entries: list[Entry], listed: list[Listed]
    ) -> tuple[list[tuple[Entry, Source | None]], list[Listed]]:
        """The answers that still count, with what is to be sorted; and the images that have none."""
        if not entries:
            return [], listed
        same: dict[tuple, deque[int]] = defaultdict(deque)
        for i, item in enumerate(listed):
            same[item.name, _mark(item.image)].append(i)
        names, used, moved = {item.name for item in listed}, set(), set()
        done: list[tuple[Entry, Source | None]] = []
        for entry in entries:
            places = same.get((entry.answer.image, entry.mark))
            target = None if entry.target is None or self._sorter is None else self._sorter.path(entry.target)
            if places:
                i = places.popleft()
                used.add(i)
                done.append((entry, listed[i].image))
            elif self.job.moves and target is not None and os.path.lexists(target):
                moved.add(entry.answer.image)
                done.append((entry, None))
            elif entry.answer.image in names:  # the file has changed since
                if target is not None:
                    target.unlink(missing_ok=True)
            else:
                done.append((entry, None))
        waiting = [
            item
            for i, item in enumerate(listed)
            if i not in used and not (item.name in moved and not os.path.lexists(str(item.image)))
        ]
        return done, waiting

    def notes(self) -> list[str]:
        """What is to be known of the folders, one line each."""
        return [] if self._sorter is None else self._sorter.notes()

    def answers(self) -> Generator[Answered, None, None]:
        """The answers of all images, those of an earlier command first; each when it is written down.

        Raises:
            OSError: something cannot be read or written. The error has a note on how to go on.
        """
        if self._journal is None:
            for answer in self._stream():
                yield Answered(answer, None)
            return
        with locked(
            lock_beside(self._journal.path), f"Another command writes {self.job.csv or self._work}"
        ) as lock:
            if lock.is_held:
                self._clear()
            yield from self._written()

    @property
    def _work(self) -> Path | None:
        return None if self.job.sorting is None else self.job.sorting.work

    def _clear(self) -> None:
        """Removes the files that a command which was killed has left half-written."""
        folders = [] if self._work is None or not self._work.is_dir() else list(self._work.iterdir())
        for path in itertools.chain.from_iterable(folder.iterdir() for folder in folders if folder.is_dir()):
            if is_work_name(path.name):
                path.unlink(missing_ok=True)
        assert self._journal is not None
        for target in (self._journal.path, self.job.csv):
            for path in [] if target is None else list(target.parent.iterdir()):
                if is_work_name(path.name, target.name if target else None):
                    path.unlink(missing_ok=True)

    def _written(self) -> Iterator[Answered]:
        journal, made = self._journal, []
        assert journal is not None
        try:
            if not journal.is_complete:
                if self._work is not None:
                    made = make_folder(self._work, "--sort-into")
                journal.begin(entry for entry, _ in self._done)
                self._written_down = len(self._done)
                for entry, image in self._done:
                    if entry.target is not None and self._sorter is not None:
                        self._sorter.take(entry.target)
                        if image is not None:
                            self._sorter.place(image, entry.target)
            for entry, _ in self._done:
                yield self._answered(entry)
            for entries in self._new_entries():
                yield from map(self._answered, entries)
            if not journal.is_complete:
                journal.complete()
            self._finish()
        except BaseException as error:
            kept = self._written_down > 0 or journal.is_complete
            if kept and not isinstance(error, GeneratorExit):
                error.add_note(
                    f"{self._written_down:,} of {len(self.names):,} images are finished: the same command "
                    "goes on."
                )
            journal.close(remove=not kept)
            if not kept:
                remove_made(made)
            raise

    def _new_entries(self) -> Iterator[list[Entry]]:
        """The answers that were not known, a few at a time: written down, then the images are sorted."""
        assert self._journal is not None
        if not self._waiting:
            return
        answers = self._stream()
        rest = iter(self._waiting)
        with contextlib.closing(answers):
            while items := list(itertools.islice(rest, TOGETHER)):
                entries = []
                for item, answer in zip(items, answers, strict=False):
                    target = None if self._sorter is None else self._sorter.target_of(item, answer)
                    entries.append(Entry(answer, _mark(item.image), target))
                # A moved image is known by this alone, so it must be there after a power cut.
                self._journal.add(entries, to_the_disk=self.job.moves)
                self._written_down += len(entries)
                for item, entry in zip(items, entries, strict=True):
                    if entry.target is not None and self._sorter is not None:
                        self._sorter.place(item.image, entry.target)
                yield entries

    def _stream(self) -> Generator[Prediction, None, None]:
        return stream(self.job.run, self._waiting, self.job.flips, self.job.accept_risk)

    def _answered(self, entry: Entry) -> Answered:
        where = self.job.sorting
        placed = where is not None and entry.target is not None
        return Answered(entry.answer, str(where.folder / entry.target) if placed else None)  # type: ignore

    def _finish(self) -> None:
        """Gives the table and the folder their names."""
        assert self._journal is not None
        if self.job.csv is not None:
            write_csv(self.job.csv, self.job.table(self._journal.entries()), self.job.columns())
        where = self.job.sorting
        if where is not None and where.work.is_dir():
            with contextlib.suppress(OSError):
                where.folder.rmdir()  # an empty one
            os.rename(where.work, where.folder)
        self._journal.close(remove=True)


def _mark(image: Source) -> tuple[int, int] | None:
    """What changes when an image does; `None` for a file that is not there."""
    if isinstance(image, ZipMember):
        return image.info.file_size, image.info.CRC
    if isinstance(image, Path):
        with contextlib.suppress(OSError, ValueError):
            found = os.stat(image)
            return found.st_size, found.st_mtime_ns
        return None
    data = image if isinstance(image, bytes) else image.tobytes()
    return len(data), crc32(data)


@lru_cache(1024)
def _real(folder: Path) -> str:
    return os.path.realpath(folder)


def _place_of(item: Listed) -> Any:
    """The same for one image under two paths, but not for two links or two names of one file."""
    if isinstance(item.image, Path):
        return _real(item.image.parent), item.image.name
    return item.name
