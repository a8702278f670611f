"""Files that are there whole or not at all."""

import contextlib
import os
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any


@contextlib.contextmanager
def whole_file(path: Path, mode: str = "w", **options) -> Iterator[IO[Any]]:
    """A file to write into: beside its path, and renamed to it when the block has ended.

    Where the block fails, what stood at the path stays, and nothing is left beside it.

    Args:
        path: of the file.
        mode: `"w"` or `"wb"`.
        **options: of `open`; the encoding of text is UTF-8.
    """
    beside = path.with_name(path.name + ".new")
    if "b" not in mode:
        options.setdefault("encoding", "utf-8")
    try:
        with open(beside, mode, **options) as file:
            yield file
            file.flush()
            os.fsync(file.fileno())  # or a power cut may leave the new name with nothing behind it
        os.replace(beside, path)
    except BaseException:
        beside.unlink(missing_ok=True)  # on a full disk it would take the room that is left
        raise
