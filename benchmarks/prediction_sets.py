"""Trains over the five splits of a data set; prints what prediction sets and referral do on the test images.

    python -m benchmarks.prediction_sets --data NEU --init WEIGHTS --recipe probe
    python -m benchmarks.prediction_sets --data NEU --model defect-conv/4 --epochs 30

Each split is one `keras-vit train`. Options that are not known here are those of `train`; KERAS_BACKEND
chooses the backend. The last table compares the sets that other scores would give, on the validation images
alone: the threshold for each of them is of the others.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np

from keras_vit.errors import InputError
from keras_vit.evaluation.trust import fitted_sets, referral_figures, with_risk
from keras_vit.runs.answer import answer_images
from keras_vit.runs.folder import Run, load_run
from keras_vit.runs.judged_images import own_images

RISKS = (0.005, 0.01, 0.02)
LEVEL = 0.95


def train(words: list[str], seed: int, out: Path) -> Run:
    """The run of one split; one that is there already is used."""
    if not out.exists():
        command = [sys.executable, "-m", "keras_vit", "train", *words, "--seed", str(seed), "--out", str(out)]
        process = subprocess.run(command, capture_output=True, text=True)
        if process.returncode:
            sys.exit(process.stderr)
    return load_run(out)


def answers_of(run: Run, part: str) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Log-odds (n, classes), probabilities (n, classes) and labels (n,) of the images of a part."""
    images = own_images(run).of_part(part)
    label_of = {name: i for i, name in enumerate(run.class_names)}
    labels = np.array([label_of[images.class_names[label]] for label in images.labels])
    answers = answer_images(run.answer_model, images.images, run.preprocessing)
    return answers["log_odds"], answers["probabilities"], labels


def sizes_by_score(probabilities: np.ndarray, labels: np.ndarray) -> dict[str, float]:
    """The mean size of the sets that different scores give, each with the threshold of all other images."""
    order = np.argsort(-probabilities, axis=1)
    rank = np.argsort(order, axis=1)
    up_to = np.take_along_axis(np.cumsum(np.take_along_axis(probabilities, order, 1), axis=1), rank, 1)
    scores = {
        "1 - probability": 1 - probabilities,
        "APS": up_to,
        "RAPS (0.01 per class after the second)": up_to + 0.01 * np.maximum(0, rank - 1),
    }
    found = {}
    for name, score in scores.items():
        of_true = score[np.arange(len(labels)), labels]
        sizes = []
        for i in range(len(labels)):
            others = np.sort(np.delete(of_true, i))
            sizes.append((score[i] <= others[int(np.ceil((len(others) + 1) * LEVEL)) - 1]).sum())
        found[name] = float(np.mean(sizes))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="of the splits")
    parser.add_argument("--out", type=Path, help="keep the run folders here, and use those that are there")
    options, words = parser.parse_known_args()
    rows, compared = [], []
    referred: dict[str, list[dict]] = {
        "no risk: the set is not the label alone": [],
        **{f"{100 * r:g} %": [] for r in RISKS},
    }
    unsupported: dict[str, list[str]] = {}
    with tempfile.TemporaryDirectory() as folder:
        out = options.out or Path(folder)
        for seed in options.seeds:
            run = train(words, seed, out / f"seed-{seed}")
            odds, probabilities, labels = answers_of(run, "test")
            right = probabilities.argmax(axis=1) == labels
            sets = run.metrics["prediction_sets"]
            rows.append({"accuracy": right.mean(), **sets["test"]})
            for name, risk in zip(referred, (None, *RISKS), strict=True):
                try:
                    fitted = fitted_sets(with_risk(run.metrics, risk, f"split {seed}"))
                except InputError as error:
                    unsupported.setdefault(name, []).append(str(error))
                    continue
                referred[name].append(referral_figures(fitted.refers(odds), right))
            _, probabilities, labels = answers_of(run, "validation")
            compared.append(sizes_by_score(probabilities, labels))
            print(f"split {seed}: {sets['images']} calibration images", rows[-1], file=sys.stderr, flush=True)
    print("| splits | accuracy | coverage of 95 % sets | mean size | empty | several classes |")
    print("|---|---|---|---|---|---|")
    columns = ("accuracy", "coverage", "mean_size", "empty", "several")
    means = {name: np.mean([row[name] for row in rows]) for name in columns}
    each = ", ".join(f"{100 * row['coverage']:.1f}" for row in rows)
    print(
        f"| {len(rows)} | {means['accuracy']:.2%} | {means['coverage']:.2%} ({each}) | "
        f"{means['mean_size']:.3f} | {means['empty']:.2%} | {means['several']:.2%} |\n"
    )
    print("| accepted risk | referred | right of the rest | wrong and not referred, of all | splits |")
    print("|---|---|---|---|---|")
    for name, found in referred.items():
        if found:
            answered, good = (sum(row[key] for row in found) for key in ("answered", "right"))
            images = sum(row["images"] for row in found)
            shares = ", ".join(f"{100 * row['share']:.1f}" for row in found)
            print(
                f"| {name} | {1 - answered / images:.2%} ({shares}) | {good / answered:.2%} "
                f"({good:,} of {answered:,}) | {(answered - good) / images:.2%} | {len(found)} |"
            )
        for line in unsupported.get(name, []):
            print(f"| {name} | not supported: {line} | | | |")
    print("\n| score, validation images | mean size |\n|---|---|")
    for name in compared[0]:
        print(f"| {name} | {np.mean([row[name] for row in compared]):.3f} |")


if __name__ == "__main__":
    main()
