"""The answers of a command that is not finished: with them, the same command goes on where it was cut off."""

import json
import os
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import IO, Any, NamedTuple

from keras_vit.errors import InputError
from keras_vit.files import open_regular, whole_file
from keras_vit.runs.predictions import Prediction

KIND = "keras_vit predict"


class Entry(NamedTuple):
    """One finished image.

    Args:
        answer: what the run says of it.
        mark: of the image, which changes when its file does.
        target: where it is sorted to, a path in the folder; `None` for nowhere.
    """

    answer: Prediction
    mark: tuple[int, int] | None
    target: str | None


class Journal:
    """A file of JSON lines: what the command is, and one line per image that is finished.

    Args:
        path: of the file.
        command: what the answers depend on, ready for JSON.
        finish: what to do with a file of another command, for the error message.

    Raises:
        InputError: there is such a file, of another command or of another program.
    """

    def __init__(self, path: Path, command: Mapping[str, Any], finish: str):
        self.path = path
        self.command = json.loads(json.dumps(command))
        self.was_there = os.path.lexists(path)
        self.is_complete = False
        self._file: IO[str] | None = None
        if self.was_there:
            self._check(finish)

    def _check(self, finish: str) -> None:
        try:
            with open_regular(self.path) as file:
                head = json.loads(file.readline())
            is_ours = head.get("kind") == KIND
        except (OSError, ValueError, AttributeError):
            is_ours, head = False, {}
        if not is_ours:
            raise InputError(f"{self.path} is not of this command: remove it, or choose another name.")
        differs = [name for name in self.command if head.get("command", {}).get(name) != self.command[name]]
        if differs:
            raise InputError(
                f"{self.path} holds the answers of another command that was cut off (it differs in "
                f"{', '.join(differs)}): {finish}"
            )

    def entries(self) -> Iterator[Entry]:
        """The finished images, in order; a line that was cut off is none."""
        if not self.was_there and self._file is None:
            return
        with open(self.path, encoding="utf-8") as file:
            next(file, None)
            for line in file:
                try:
                    found = json.loads(line) if line.endswith("\n") else None
                except ValueError:
                    found = None
                if found is None:  # of a full disk or a power cut
                    return
                if "complete" in found:
                    self.is_complete = True
                    continue
                answer = found["answer"]
                for name in ("prediction_set", "labels"):
                    answer[name] = None if answer[name] is None else tuple(answer[name])
                mark = None if found["mark"] is None else tuple(found["mark"])
                yield Entry(Prediction(**answer), mark, found["target"])

    def begin(self, entries: Iterable[Entry]) -> None:
        """Writes the file anew, with these images; more can be added then."""
        with whole_file(self.path) as file:
            file.write(json.dumps({"kind": KIND, "command": self.command}) + "\n")
            for entry in entries:
                file.write(_line(entry))
        self._file = open(self.path, "a", encoding="utf-8")  # noqa: SIM115  (until `close`)

    def add(self, entries: Iterable[Entry], to_the_disk: bool) -> None:
        """Adds finished images; they are in the file when this returns.

        Args:
            entries: one per image.
            to_the_disk: whether a power cut may not lose them.
        """
        assert self._file is not None
        self._file.write("".join(map(_line, entries)))
        self._file.flush()
        if to_the_disk:
            os.fsync(self._file.fileno())

    def complete(self) -> None:
        """Notes that all images are finished."""
        assert self._file is not None
        self._file.write('{"complete": true}\n')
        self._file.flush()
        os.fsync(self._file.fileno())

    def close(self, remove: bool) -> None:
        """Ends the writing.

        Args:
            remove: whether the file is not needed any more.
        """
        if self._file is not None:
            self._file.close()
        if remove:
            self.path.unlink(missing_ok=True)


def _line(entry: Entry) -> str:
    return json.dumps({"answer": vars(entry.answer), "mark": entry.mark, "target": entry.target}) + "\n"
