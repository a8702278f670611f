"""What is to be known of image files that a run is asked about."""

import sys
from collections.abc import Sequence
from pathlib import Path

from keras_vit.data.preprocess import Preprocessing
from keras_vit.data.reading import ReadImages
from keras_vit.text import say


def say_notes(paths: Sequence[Path | str], read: ReadImages, preprocessing: Preprocessing) -> None:
    """Says on the error output which files are damaged, or have 16 bits that nothing is known of."""
    notes = Notes(preprocessing)
    notes.say_damage(paths, read)
    notes.say_wide()


class Notes:
    """The same for images that come a few at a time.

    Args:
        preprocessing: of the run.
    """

    def __init__(self, preprocessing: Preprocessing):
        self._without_range = preprocessing.pixel_range is None
        self._first: Path | str | None = None
        self._wide = 0

    def say_damage(self, paths: Sequence[Path | str], read: ReadImages) -> None:
        """Says which of some files are damaged, and counts those with 16 bits."""
        for path, info in zip(paths, read.infos, strict=True):
            if info is not None and info.warning is not None:
                say(f"{path}: {info.warning}", stream=sys.stderr)
            if info is not None and info.bits == 16 and self._without_range:
                self._first = path if self._first is None else self._first
                self._wide += 1

    def say_wide(self) -> None:
        """Says how many files had 16 bits that nothing is known of, if any."""
        if self._wide:
            say(
                f"{self._first}: 16 bits per channel, {self._wide} such image{'s' * (self._wide > 1)}; 0 to "
                "65535 become black to white, since the run has no range of its own.",
                stream=sys.stderr,
            )
