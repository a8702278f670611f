"""Variants in processes of their own that take turns."""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any, Self

BACKENDS = ("tensorflow", "jax", "torch")


class Process:
    """A variant that waits until it is asked for a round.

    Args:
        who: the variant.
        work: as `works.as_arguments` gives it.
        seconds: that a round takes, about.
        package: a checkout whose `keras_vit` is measured; by default the one beside this file.
    """

    def __init__(self, who: str, work: dict[str, Any], seconds: float, package: str | None = None):
        self.who, self.error = who, ""
        threads = str(work["threads"])
        backend = next((one for one in BACKENDS if one in who.split()), "torch")
        environment = {
            **os.environ,
            "KERAS_BACKEND": backend,
            "OMP_NUM_THREADS": threads,
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        self.said = tempfile.TemporaryFile("w+")  # noqa: SIM115 (a pipe that nobody reads would fill up)
        given = json.dumps({"who": who, "work": work, "seconds": seconds, "package": package})
        self.process = subprocess.Popen(
            [sys.executable, "-m", "benchmarks.speed.child", given],
            cwd=Path(__file__).parents[2],
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self.said,
            text=True,
        )

    def is_ready(self) -> bool:
        """Waits until it has prepared itself."""
        return self._wait_for("ready") is not None

    def round(self, what: str) -> float | None:
        """Images per second of a round of `train` or `infer`; `None` if the process has failed."""
        if self.error:
            return None
        try:
            self.process.stdin.write(what + "\n")  # type: ignore[union-attr]
            self.process.stdin.flush()  # type: ignore[union-attr]
        except BrokenPipeError:
            return None
        found = self._wait_for("answer")
        return None if found is None else float(found)

    def _wait_for(self, word: str) -> str | None:
        for line in self.process.stdout:  # type: ignore[union-attr]
            first, _, rest = line.strip().partition(" ")
            if first == word:
                return rest
        code = self.process.wait()
        self.said.seek(0)
        said = self.said.read().strip().splitlines()
        self.error = said[-1] if said else f"exit code {code}"
        return None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: Any) -> None:
        self.process.kill()
        self.process.wait()
        for pipe in (self.process.stdin, self.process.stdout, self.said):
            pipe.close()  # type: ignore[union-attr]


def take_turns(processes: list[Process], what: str, rounds: int) -> dict[str, list[float]]:
    """Images per second of each process in each round; those that failed are left out."""
    found: dict[str, list[float]] = {process.who: [] for process in processes}
    for number in range(rounds + 1):
        for process in processes:
            rate = process.round(what)
            if number and rate is not None:  # the first round compiles
                found[process.who].append(rate)
    return {who: rates for who, rates in found.items() if len(rates) == rounds}
