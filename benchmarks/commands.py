"""Whole commands as a user types them: seconds of the process, and how many test images are right.

    python -m benchmarks.commands
    python -m benchmarks.commands --data NEU --weights vit_tiny_patch16_224.safetensors --against CHECKOUT

Each begins with an empty cache of compiled programs, as on a new machine. With `--against`, the first command
is also run by another checkout of this package, in turns.
"""

import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import tyro

FIRST, FINETUNE = "the first command", "fine-tuning"
NOW, BEFORE = "now", "before"


@dataclass(frozen=True)
class Commands:
    """Whole commands.

    Args:
        data: images to fine-tune published weights on.
        weights: a file of them; without these two, fine-tuning is not measured.
        backends: with which to fine-tune.
        against: another checkout of this package, for the first command.
        rounds: of the first command, 3 by default.
        only: `first` or `finetune`; by default both.
    """

    data: str | None = None
    weights: str | None = None
    backends: tuple[str, ...] = ("torch", "tensorflow")
    against: str | None = None
    rounds: int = 3
    only: Literal["first", "finetune"] | None = None


def command_rows(options: Commands) -> list[dict[str, Any]]:
    """The table.

    Returns:
        Rows of `command`, `package` (now or before), `backend`, `wall_s` and `cpu_s` (medians), `accuracy`
        (of the last epoch, on the test images, the lowest of the rounds) and `rounds`.
    """
    checkouts = {NOW: None, **({BEFORE: options.against} if options.against else {})}
    found: dict[tuple[str, str, str], list[tuple[float, float, float]]] = {}
    if options.only in (None, "first"):
        for _ in range(options.rounds):
            for package, checkout in checkouts.items():
                key = FIRST, package, "tensorflow"
                found.setdefault(key, []).append(_run([], "tensorflow", checkout))
    if options.data and options.weights and options.only in (None, "finetune"):
        words = ["--data", options.data, "--init", options.weights, "--recipe", "finetune"]
        for backend in options.backends:
            found[FINETUNE, NOW, backend] = [_run(words, backend)]
    return [
        {
            "command": command,
            "package": package,
            "backend": backend,
            "wall_s": round(statistics.median(wall for wall, _, _ in runs), 1),
            "cpu_s": round(statistics.median(cpu for _, cpu, _ in runs), 1),
            "accuracy": min(accuracy for _, _, accuracy in runs),
            "rounds": len(runs),
        }
        for (command, package, backend), runs in found.items()
    ]


def _run(words: list[str], backend: str, checkout: str | None = None) -> tuple[float, float, float]:
    """Wall and CPU seconds of `keras-vit train`, and the accuracy that it reached."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        environment = {
            **os.environ,
            "KERAS_BACKEND": backend,
            "KERAS_VIT_CACHE": str(folder / "cache"),
            "PYTHONPATH": str(Path(checkout or Path(__file__).parents[1]).resolve()),
        }
        command = [sys.executable, "-m", "keras_vit", "train", *words, "--out", str(folder / "run")]
        before, start = resource.getrusage(resource.RUSAGE_CHILDREN), time.perf_counter()
        subprocess.run(command, env=environment, check=True, stdout=subprocess.DEVNULL, cwd=folder)
        wall, after = time.perf_counter() - start, resource.getrusage(resource.RUSAGE_CHILDREN)
        metrics = json.loads((folder / "run" / "metrics.json").read_text())
    cpu = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return wall, cpu, metrics["last"]["accuracy"]


def main(options: Commands) -> None:
    for row in command_rows(options):
        print("  ".join(f"{name} {value}" for name, value in row.items()), flush=True)


if __name__ == "__main__":
    main(tyro.cli(Commands, description=__doc__))
