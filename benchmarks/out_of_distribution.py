"""How many images unlike the training images a run rejects, before and after: rows of accuracy.md.

    python -m benchmarks.out_of_distribution --data NEU --other X-SDD --weights WEIGHTS
    python -m benchmarks.out_of_distribution --data X-SDD --other NEU --weights WEIGHTS
    python -m benchmarks.out_of_distribution --data NEU -- --model defect-conv/4 --image-size 28 --channels 1

Each split is one `train`; then the images of the other data set and the drawn defects are judged by the run's
rejection, and by that of earlier versions: one covariance for all classes and features, with a threshold from
the validation images. With --runs, runs that are there are judged. Options behind `--` are those of `train`.
"""

import argparse
import contextlib
import sys
import tempfile
from pathlib import Path

import numpy as np


def earlier(features: dict[str, np.ndarray], labels: np.ndarray, first: int) -> dict[str, float]:
    """The shares that the rejection of earlier versions rejects, by kind."""
    from keras_vit.evaluation.ood_fit import fit_ood_detector

    old = {name: values[:, first:] for name, values in features.items()}
    detector, reason = fit_ood_detector(old["train"], labels, old["validation"], one_covariance=True)
    assert detector is not None, reason
    return {name: float(detector.rejects(values).mean()) for name, values in old.items()}


def judge(run, data: str, others: dict[str, list]) -> tuple[dict[str, float], dict[str, float]]:
    """The shares that are rejected before and after."""
    from keras_vit.data.sources import load_image_set
    from keras_vit.data.split import split_image_set
    from keras_vit.runs.features import FeatureReader
    from keras_vit.runs.ood_features import ood_columns

    settings, weights = run.config["train"], run.config.get("weights") or {}
    image_set = load_image_set(data)
    split = split_image_set(
        image_set,
        seed=settings["seed"],
        test_fraction=settings["test_fraction"],
        validation_fraction=settings["validation_fraction"],
    )
    parts = {
        "train": image_set.take(split.train),
        "validation": image_set.take(split.validation),
        "own test": image_set.take(split.test),
    }
    frozen = settings["recipe"]["tune"] == "head"
    reader = FeatureReader(run.model, run.preprocessing, weights.get("sha256") if frozen else None)
    features = {name: reader(part.images) for name, part in parts.items()}
    features |= {name: reader(images) for name, images in others.items()}
    print(f"features: {reader.computed} computed, {reader.found} from the cache", file=sys.stderr)
    after = {name: float(run.rejection.rejects(values).mean()) for name, values in features.items()}
    before = earlier(features, parts["train"].labels, ood_columns(run.model)["contrast"][0])
    return before, after


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", required=True, help="images to train on")
    parser.add_argument("--other", help="images of another kind")
    parser.add_argument("--weights", help="published weights; the recipe is then probe")
    parser.add_argument("--seeds", type=int, nargs="+", default=[0, 1, 2, 3, 4], help="of the splits")
    parser.add_argument("--runs", help="folder of the runs, one per seed, which are kept")
    parser.add_argument("words", nargs="*", help="options of train")
    options = parser.parse_args()

    from keras_vit.cli.main import main as keras_vit
    from keras_vit.data.sources import load_image_set
    from keras_vit.runs.folder import load_run
    from keras_vit.runs.ood_images import DRAWN, ood_example_images

    words = [*options.words, "--data", options.data]
    if options.weights:
        words += ["--init", options.weights, "--recipe", "probe"]
    rows: list[tuple[dict[str, float], dict[str, float]]] = []
    with contextlib.ExitStack() as stack:
        folder = Path(options.runs or stack.enter_context(tempfile.TemporaryDirectory()))
        for seed in options.seeds:
            path = folder / f"seed-{seed}"
            if not path.exists():
                with contextlib.redirect_stdout(sys.stderr):
                    given = [*words, "--split-duplicates", "keep", "--seed", str(seed), "--out", str(path)]
                    code = keras_vit(["train", *given])
                if code:
                    sys.exit(code)
            run = load_run(path)
            others = {DRAWN: ood_example_images(run.preprocessing.image_shape)[DRAWN]}
            if options.other:
                others = {"other": list(load_image_set(options.other).images), **others}
            rows.append(judge(run, options.data, others))
            print(f"seed {seed}: {rows[-1]}", file=sys.stderr, flush=True)
    print("| rejected | " + " | ".join(name for name in rows[0][0] if name != "train") + " |")
    for when, found in (("before", [row[0] for row in rows]), ("after", [row[1] for row in rows])):
        shares = [100 * np.mean([row[name] for row in found]) for name in found[0] if name != "train"]
        print(f"| {when} | " + " | ".join(f"{share:.1f} %" for share in shares) + " |")


if __name__ == "__main__":
    main()
