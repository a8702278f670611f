"""What bfloat16 costs in accuracy: the same run in both precisions, for several seeds.

    python -m benchmarks.precision --data NEU --seeds 0 1 2

Prints a line per run, and the mean of each precision: test accuracy of the last epoch, as the README quotes
it, and seconds in `fit`. Each run is a process of its own.
"""

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

PRECISIONS = ("float32", "mixed_bfloat16")
MODEL = ["--model", "defect-conv/4", "--image-size", "28", "--channels", "1", "--split-duplicates", "keep"]


def accuracy_of(data: str, precision: str, seed: int, epochs: int) -> tuple[float, float]:
    """Test accuracy of the last epoch, and seconds in `fit`."""
    with tempfile.TemporaryDirectory() as name:
        out = Path(name) / "run"
        words = ["--data", data, *MODEL, "--precision", precision, "--seed", seed, "--epochs", epochs]
        command = [sys.executable, "-m", "keras_vit", "train", *words, "--out", out]
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL)
        metrics, config = (json.loads((out / f"{file}.json").read_text()) for file in ("metrics", "config"))
    return metrics["last"]["accuracy"], config["seconds"]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True)
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--epochs", type=int, default=30)
    given = parser.parse_args()
    found: dict[str, list[float]] = {name: [] for name in PRECISIONS}
    for seed in given.seeds:
        for precision in PRECISIONS:
            accuracy, seconds = accuracy_of(given.data, precision, seed, given.epochs)
            found[precision].append(accuracy)
            print(f"{precision:15} seed {seed}: {accuracy:.1%} at the last epoch, {seconds} s", flush=True)
    for precision, accuracies in found.items():
        print(f"{precision:15} mean {statistics.mean(accuracies):.2%} of {len(accuracies)} seeds")


if __name__ == "__main__":
    main()
