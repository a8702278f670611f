"""What a search costs beyond its trials, and whether it frees their memory.

    python benchmarks/search.py --trials 30

Runs `keras-vit search` on the drawn defects and prints, from the files of the search and from what the
operating system says about its processes (Linux):

- overhead: wall time divided by the sum of the seconds in `fit`, minus one; for the whole command, and up to
  the last trial, without the report;
- memory after each trial: of all processes of the search together, between a trial and the next; that after
  the last trial divided by that after the third. And that of the process that ran the trial, at its end.
"""

import re
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path

import tyro

from keras_vit.files import read_json
from keras_vit.process.children import STARTED
from keras_vit.search.results import read_search

MIB = 2**20


@dataclass(frozen=True)
class Benchmark:
    """A search whose time and memory are measured.

    Args:
        trials: how many.
        max_epochs: of the longest.
        space: as for the search.
        freeze: as for the search.
    """

    trials: int = 30
    max_epochs: int = 9
    space: str = "defect28"
    freeze: tuple[str, ...] = ()


def main(asked: Benchmark) -> None:
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "search"
        words = ["-m", "keras_vit", "search", "--space", asked.space, "--max-epochs", asked.max_epochs]
        words += ["--iterations", 9, "--max-trials", asked.trials, "--no-retrain", "--out", out]
        words += ["--freeze", *asked.freeze] if asked.freeze else []
        begin = time.monotonic()
        search = subprocess.Popen([sys.executable, *map(str, words)], stdout=subprocess.DEVNULL)
        after, at_end = watch(search, out)
        whole = time.monotonic() - begin
        if search.returncode:
            sys.exit(f"the search ended with exit code {search.returncode}")
        record = read_search(out)
        fit = sum(trial.seconds or 0.0 for trial in record.trials)
        wall = read_json(out / "wall_seconds.json")
    print(f"{record.config['backend']}, {len(record.completed)} trials")
    print(f"in fit {fit:.1f} s; whole command {whole:.1f} s: overhead {whole / fit - 1:.1%}")
    print(f"to the last trial, without the report, {wall:.1f} s: overhead {wall / fit - 1:.1%}")
    for name, found in (("search after a trial", after), ("process at a trial's end", at_end)):
        third, last, count = found[2] / MIB, found[-1] / MIB, len(found)
        print(f"{name}: {third:.0f} MiB after 3, {last:.0f} MiB after {count}: {last / third:.3f}")
        print("  MiB: " + " ".join(f"{value / MIB:.0f}" for value in found))


def watch(search, out: Path) -> tuple[list[float], list[float]]:
    """Measures the processes until the search ends.

    Returns:
        For each trial in the order they ended, bytes: of all processes, the least between its end and
        that of the next trial (what was not freed); of the process that ran it, at the end of `fit`.
    """
    after: list[float] = []
    at_end: list[float] = []
    last_of_process = 0.0
    seen = 0
    while search.poll() is None:
        time.sleep(0.05)
        worker = process_of(out)
        command, own = resident(search.pid), resident(worker)
        ended = len(list(out.glob("trial_*/result.json")))
        if ended > seen:
            at_end.append(own or last_of_process)
            after.append(command + own)
            seen = ended
        elif after and command and len(list(out.glob("trial_*"))) == seen:
            after[-1] = min(after[-1], command + own)
        last_of_process = own or last_of_process
    return after, at_end


def process_of(out: Path) -> int | None:
    log = out / "logs" / "tuner0.log"
    found = re.findall(rf"{STARTED} (\d+)", log.read_text(errors="replace")) if log.is_file() else []
    return int(found[-1]) if found else None


def resident(process: int | None) -> float:
    """Bytes of memory that a process holds now; 0 if there is none."""
    try:
        return int(Path(f"/proc/{process}/statm").read_text().split()[1]) * 4096.0
    except (OSError, IndexError):
        return 0.0


if __name__ == "__main__":
    main(tyro.cli(Benchmark, description=__doc__))
