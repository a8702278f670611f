"""The files in the folder of a trial, beside KerasTuner's trial.json."""

import os
from pathlib import Path

from keras_vit.files import open_regular

RESULT = "result.json"  # history, seconds of fit, number of parameters
ERROR = "error.txt"  # the traceback of a trial that failed
KILLED = "killed.json"  # how often its process was killed
WEIGHTS = "checkpoint.weights.h5"  # KerasTuner's: of its best epoch
SET_ASIDE = "trial.json.set-aside"  # what stood as trial.json and cannot be of this search

END_BYTES = 64 * 1024  # of a log, which may be of any length, in which its last line is looked for


def last_line(path: Path) -> str | None:
    """The last line of a text file that is not empty; `None` if it has none, or is not a file."""
    try:
        with open_regular(path) as file:
            file.seek(max(0, os.fstat(file.fileno()).st_size - END_BYTES))
            lines = file.read(END_BYTES).decode("utf-8", "replace").strip().splitlines()
    except OSError:
        return None
    return lines[-1] if lines else None
