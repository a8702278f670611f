"""How well runs recognise corrupted test images, over the splits of a data set: rows of accuracy.md.

    python -m benchmarks.corruptions --data NEU --model defect-conv/8 --image-size 64 --recipe robust
    python -m benchmarks.corruptions --halves --data NEU --init WEIGHTS --recipe probe --corrupted-copies 2

With `--halves` a run is trained on four of the eight kinds of corruption, and another on the other four; the
mean over kinds seen in training and over kinds not seen are told apart. Options that are not known here are
those of `train`. KERAS_BACKEND chooses the backend.
"""

import argparse
import shlex
import tempfile
from pathlib import Path

import numpy as np

from benchmarks.pretrained import keras_vit

HALVES = (("noise", "motion", "contrast", "jpeg"), ("blur", "brightness", "uneven", "rotate"))
"""As in the sketch that the goals come from."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="of the splits")
    parser.add_argument("--halves", action="store_true", help="train on four of the eight kinds")
    parser.add_argument("--out", type=Path, help="keep the run folders here")
    options, words = parser.parse_known_args()
    print("| command | seed | trained on | clean | kinds seen | kinds not seen | all |\n" + "|---" * 7 + "|")
    means = []
    with tempfile.TemporaryDirectory() as folder:
        out, cache = options.out or Path(folder), Path(folder) / "cache"
        for seed in options.seeds:
            for half in HALVES if options.halves else (None,):
                kinds = ["--corruptions", *half] if half else []
                run = out / "-".join(["seed", str(seed), *(half or ())])
                keras_vit("train", *words, *kinds, "--seed", str(seed), "--out", str(run), cache=cache)
                found = keras_vit("evaluate", str(run), "--corruptions", cache=cache)["corruptions"]
                row = [100 * found["clean"], *shares(found["rows"], half), 100 * found["mean"]]
                means.append(row)
                name = ", ".join(half or ("as the recipe says",))
                print(f"| | {seed} | {name} | " + cells(row), flush=True)
    command = shlex.join(["keras-vit", "train", *words])
    print(f"| `{command}` | mean | | " + cells(np.mean(means, axis=0)))


def shares(rows: list[dict], half: tuple[str, ...] | None) -> list[float]:
    """Per cent right of the kinds that the run has seen in training, and of the others."""
    if half is None:
        return [np.nan, np.nan]
    seen = [100 * row["accuracy"] for row in rows if row["kind"] in half]
    others = [100 * row["accuracy"] for row in rows if row["kind"] not in half]
    return [float(np.mean(seen)), float(np.mean(others))]


def cells(values) -> str:
    return " | ".join("-" if np.isnan(value) else f"{value:.1f}" for value in values) + " |"


if __name__ == "__main__":
    main()
