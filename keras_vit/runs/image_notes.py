"""What is to be known of image files that a run is asked about."""

import sys
from collections.abc import Sequence
from pathlib import Path

from keras_vit.data.preprocess import Preprocessing
from keras_vit.data.reading import ReadImages
from keras_vit.text import say


def say_notes(paths: Sequence[Path | str], read: ReadImages, preprocessing: Preprocessing) -> None:
    """Says on the error output which files are damaged, or have 16 bits that nothing is known of."""
    infos = [(path, info) for path, info in zip(paths, read.infos, strict=True) if info is not None]
    for path, info in infos:
        if info.warning is not None:
            say(f"{path}: {info.warning}", stream=sys.stderr)
    wide = [path for path, info in infos if info.bits == 16]
    if wide and preprocessing.pixel_range is None:
        say(
            f"{wide[0]}: 16 bits per channel, {len(wide)} such image{'s' * (len(wide) > 1)}; 0 to 65535 "
            "become black to white, since the run has no range of its own.",
            stream=sys.stderr,
        )
