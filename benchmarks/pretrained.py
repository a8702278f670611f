"""Runs `keras-vit train --init WEIGHTS` over the five splits of a data set, and prints a row of accuracy.md.

    python -m benchmarks.pretrained --data NEU --init WEIGHTS --recipe probe
    python -m benchmarks.pretrained --data NEU --init WEIGHTS --recipe finetune --merge-validation

Each split is one command, timed as a whole process. The first one begins with an empty cache of features.
Options that are not known here are those of `train`. KERAS_BACKEND chooses the backend.
"""

import argparse
import json
import os
import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np


def keras_vit(*words: str, cache: Path) -> dict:
    """The answer in JSON of a command."""
    environment = {**os.environ, "KERAS_VIT_CACHE": str(cache)}
    process = subprocess.run(
        [sys.executable, "-m", "keras_vit", *words, "--json"],
        env=environment,
        capture_output=True,
        text=True,
    )
    if process.returncode:
        sys.exit(process.stderr)
    return json.loads(process.stdout.strip().splitlines()[-1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="of the splits")
    parser.add_argument("--flips", action="store_true", help="also judge the mean over four mirror images")
    parser.add_argument("--out", type=Path, help="keep the run folders here")
    options, words = parser.parse_known_args()
    accuracies, flipped, seconds = [], [], []
    with tempfile.TemporaryDirectory() as folder:
        out, cache = options.out or Path(folder), Path(folder) / "cache"
        for seed in options.seeds:
            begin = time.perf_counter()
            run = out / f"seed-{seed}"
            answer = keras_vit("train", *words, "--seed", str(seed), "--out", str(run), cache=cache)
            seconds.append(time.perf_counter() - begin)
            accuracies.append(100 * answer["best"]["accuracy"])
            if options.flips:
                judged = keras_vit("evaluate", str(run), "--flips-at-test", cache=cache)
                flipped.append(100 * judged["accuracy"])
            print(f"seed {seed}: {accuracies[-1]:.2f} %, {seconds[-1]:.0f} s", file=sys.stderr, flush=True)
    command = shlex.join(["keras-vit", "train", *words])
    splits = ", ".join(f"{value:.1f}" for value in accuracies)
    print(f"| `{command}` | {splits} | {np.mean(accuracies):.2f} % | {seconds[0]:.0f} s, ", end="")
    print(
        f"then {np.median(seconds[1:] or seconds):.0f} s |"
        + (f" with mirror images {np.mean(flipped):.2f} % |" if flipped else "")
    )


if __name__ == "__main__":
    main()
