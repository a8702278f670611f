"""How well a run learns uneven classes: X-SDD with the training part of all classes but one thinned.

    python -m benchmarks.uneven --data X-SDD --share 0.1 -- --model defect-conv/8 --image-size 64 --channels 3
    python -m benchmarks.uneven --data X-SDD --share 0.05 -- --init WEIGHTS --recipe probe

From each class, 20 % of the images are the test part, which stays whole: `stratified_split` with the seed of
the run. Of the rest, `--share` of each class but `--whole` is kept, at least three, drawn with the same seed.
The validation part is drawn from these by `train`. Options behind `--` are those of `train`. The test part
chooses nothing: compare settings by `left_out`, the balanced accuracy on the images that thinning removed.
"""

import argparse
import contextlib
import json
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

from benchmarks.few_labels import link
from keras_vit.data.image_set import ImageSet
from keras_vit.data.split import stratified_split

LEAST = 3
LEFT_OUT = "left out"


def thinned(image_set: ImageSet, share: float, whole: str, seed: int) -> dict[str, np.ndarray]:
    """Positions of the images for training, of those for the test, and of those that are left out."""
    counts = np.bincount(image_set.labels)
    training, test = stratified_split(image_set.labels, np.floor(counts * 0.2 + 0.5).astype(int), seed)
    labels = image_set.labels[training]
    counts = np.bincount(labels)
    kept = np.maximum(LEAST, np.floor(counts * share + 0.5).astype(int))
    kept[image_set.class_names.index(whole)] = counts[image_set.class_names.index(whole)]
    rest, chosen = stratified_split(labels, kept, seed)
    return {"train": training[chosen], "test": test, LEFT_OUT: training[rest]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="a folder of class folders")
    parser.add_argument("--share", type=float, default=0.1, help="of the training images that is kept")
    parser.add_argument("--whole", default="red iron", help="the class that stays whole")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0], help="of the splits and runs")
    parser.add_argument("--runs", help="folder of the runs, which are kept")
    parser.add_argument("words", nargs="*", help="options of train")
    options = parser.parse_args()

    from keras_vit.cli.main import main as keras_vit
    from keras_vit.data.sources import load_image_set
    from keras_vit.runs.evaluate import evaluate
    from keras_vit.runs.folder import load_run

    image_set = load_image_set(options.data)
    rows = []
    with contextlib.ExitStack() as stack:
        folder = Path(options.runs or stack.enter_context(tempfile.TemporaryDirectory()))
        for seed in options.seeds:
            more = folder / f"left-out-{options.share:g}-{seed}"
            data, out = folder / f"images-{options.share:g}-{seed}", folder / f"run-{options.share:g}-{seed}"
            parts = thinned(image_set, options.share, options.whole, seed)
            for part, positions in parts.items():
                place = more if part == LEFT_OUT else data / part
                for i in positions if not place.exists() else ():
                    link(image_set.images[i], place / image_set.class_names[image_set.labels[i]])
            begin = time.perf_counter()
            if not out.exists():
                words = [*options.words, "--data", str(data), "--seed", str(seed), "--out", str(out)]
                with contextlib.redirect_stdout(sys.stderr):
                    code = keras_vit(["train", *words])
                if code:
                    sys.exit(code)
            seconds = round(time.perf_counter() - begin, 1)
            run = load_run(out)
            metrics = run.metrics
            with contextlib.redirect_stdout(sys.stderr):
                left_out = evaluate(run, str(more))["balanced_accuracy"]
            best, last = metrics["best"], metrics["last"]
            row = {
                "seed": seed,
                "balanced": best["balanced_accuracy"],
                "accuracy": best["accuracy"],
                "balanced_last": last["balanced_accuracy"],
                "epoch": best["epoch"],
                "never_named": sum(not any(column) for column in zip(*best["confusion_matrix"], strict=True)),
                "warning": bool(metrics.get("warning")),
                "left_out": left_out,
                "seconds": seconds,
            }
            print(json.dumps(row), flush=True)
            rows.append(row)
    for name in ("balanced", "accuracy", "balanced_last", "left_out"):
        print(f"{name}: mean {100 * np.mean([row[name] for row in rows]):.1f} %, of {len(rows)} runs")


if __name__ == "__main__":
    main()
