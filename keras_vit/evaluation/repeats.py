"""What several runs of the same settings say together: the mean, its interval, and all test images."""

from collections.abc import Mapping, Sequence
from typing import Any, Literal

import numpy as np

from keras_vit.evaluation.labels import label_metrics
from keras_vit.evaluation.metrics import classification_metrics
from keras_vit.evaluation.ordered import order_figures

AVERAGED = ("accuracy", "balanced_accuracy")
AVERAGED_OF_LABELS = ("mean_average_precision", "macro_f1")
AVERAGED_OF_ORDER = ("mean_absolute_error", "quadratic_kappa")
"""Of ordered classes, beside `AVERAGED`. Neither is a share."""


def corrected_interval(
    values: Sequence[float],
    train: float,
    test: float,
    confidence: float = 0.95,
    bounds: tuple[float, float] = (0.0, 1.0),
) -> tuple[float, float] | None:
    """The corrected resampled t-interval of a mean over runs whose training images overlap. By scipy.

    The runs share training images, so their results vary less than those of independent ones, and the usual
    interval is too narrow. The variance of the mean is (1/k + test/train) s² here instead of s²/k.

    Reference: C. Nadeau, Y. Bengio, "Inference for the generalization error", Machine Learning 52 (2003)
    239-281.

    Args:
        values: a share per run, two or more.
        train: number of training images of a run.
        test: number of test images of a run.
        confidence: coverage of the interval, between 0 and 1.
        bounds: the least and the largest possible value.

    Returns:
        `(low, high)`, cut to the bounds; `None` if all values are equal, which says nothing of how they vary.

    Raises:
        ValueError: there are fewer than two values, or no images.
    """
    from scipy.stats import t

    found = np.asarray(values, np.float64)
    if len(found) < 2 or train <= 0 or test <= 0:
        raise ValueError(
            f"An interval takes two runs or more with images. Received: {len(found)} values, train={train}, "
            f"test={test}"
        )
    if not 0 < confidence < 1:
        raise ValueError(f"confidence must lie between 0 and 1. Received: {confidence}")
    if np.ptp(found) == 0:
        return None
    scale = np.sqrt((1 / len(found) + test / train) * found.var(ddof=1))
    low, high = t.interval(confidence, len(found) - 1, loc=found.mean(), scale=scale)
    return max(bounds[0], float(low)), min(bounds[1], float(high))


def judge_repeats(
    kind: Literal["folds", "seeds"],
    runs: Mapping[str, Mapping[str, Any]],
    counts: Sequence[Mapping[str, int]],
    pooled: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
) -> dict[str, Any]:
    """The evaluation of several runs together, ready for JSON: `metrics.json` of their folder.

    Args:
        kind: what they differ in.
        runs: name of a run -> its `metrics.json`.
        counts: how many images each has per part.
        pooled: of folds, the labels, the probabilities, (n, classes), and what is named, of all images, each
            by the run that is tested on it: int (n,), the classes; or with several labels per image (n,
            labels) of 0 and 1. `None` for seeds, which test some images several times.

    Returns:
        A dict: `warning`, first and only where a run learned nothing; `kind`; `class_names`; `runs`, a row
        per run with `run`, `accuracy`, `balanced_accuracy`, `macro_f1`, `log_loss`, `correct`, `images` and
        `warning` (of its own `metrics.json`, or None); `mean`, per figure of `AVERAGED` (of several labels
        `AVERAGED_OF_LABELS`, of ordered classes also `AVERAGED_OF_ORDER`) its `mean`,
        `interval` (see `corrected_interval`; None if all runs agree), `least`, `largest` and
        `standard_deviation`; `training_images` and `test_images` of a run, on average, which the interval
        needs; `pooled`: for folds the `classification_metrics` of all images, for seeds the
        `confusion_matrix`, the sum over the runs, with `images` and `correct`.
    """
    names = next(iter(runs.values()))["class_names"]
    best = {name: metrics["best"] for name, metrics in runs.items()}
    first = next(iter(best.values()))
    averaged: tuple[str, ...] = AVERAGED
    several, ordered = "mean_average_precision" in first, "mean_absolute_error" in first
    if several:
        averaged = AVERAGED_OF_LABELS
    elif ordered:
        averaged = (*AVERAGED, *AVERAGED_OF_ORDER)
    keys = dict.fromkeys((*averaged, "accuracy", "macro_f1", "log_loss", "correct", "images"))
    rows = [
        {"run": name, **{key: found.get(key) for key in keys}, "warning": runs[name].get("warning")}
        for name, found in best.items()
    ]
    train, test = (float(np.mean([count[part] for count in counts])) for part in ("train", "test"))
    if several:
        together = _labels_together(list(best.values()), names, pooled)
    elif pooled is None:
        matrix = np.sum([found["confusion_matrix"] for found in best.values()], axis=0)
        together = {
            "images": int(matrix.sum()),
            "correct": int(np.trace(matrix)),
            "per_class": _per_class(matrix, names),
            "confusion_matrix": matrix.tolist(),
            **(order_figures(matrix) if ordered else {}),
        }
    else:
        together = classification_metrics(*pooled[:2], names, pooled[2], ordered)
    warned = [row["run"] for row in rows if row["warning"]]
    return {
        **({"warning": _warning(warned, len(rows))} if warned else {}),
        "kind": kind,
        "class_names": names,
        "runs": rows,
        "mean": {key: _mean(key, [row[key] or 0.0 for row in rows], train, test) for key in averaged},
        "training_images": train,
        "test_images": test,
        "pooled": together,
    }


def _labels_together(
    found: Sequence[Mapping[str, Any]],
    names: Sequence[str],
    pooled: tuple[np.ndarray, np.ndarray, np.ndarray] | None,
) -> dict[str, Any]:
    """The figures of several labels: of all images where each is tested once, else means over the runs."""
    shown = ("average_precision", "precision", "recall", "f1", "threshold")
    rows: list[dict[str, Any]] = []
    for i, name in enumerate(names):
        of_runs = [one["per_class"][i] for one in found]
        row: dict[str, Any] = {"name": str(name)}
        for key in shown:
            known = [one[key] for one in of_runs if one[key] is not None]
            row[key] = float(np.mean(known)) if known else None
        rows.append({**row, "support": sum(one["support"] for one in of_runs)})
    if pooled is None:
        images, correct = (sum(one[key] for one in found) for key in ("images", "correct"))
        return {"images": images, "correct": correct, "per_class": rows}
    thresholds = [row["threshold"] for row in rows]
    return label_metrics(*pooled[:2], thresholds, names, pooled[2])


def _warning(warned: list[str], count: int) -> str:
    which = f"All {count} runs" if len(warned) == count else f"{len(warned)} of the {count} runs"
    say = "warns that it" if len(warned) == 1 else "warn that they"
    return f"{which} {say} learned nothing ({', '.join(warned)}): read their reports before you use them."


BOUNDS = {"mean_absolute_error": (0.0, np.inf), "quadratic_kappa": (-1.0, 1.0)}


def _mean(key: str, values: list[float], train: float, test: float) -> dict[str, Any]:
    interval = corrected_interval(values, train, test, bounds=BOUNDS.get(key, (0.0, 1.0)))
    return {
        "mean": float(np.mean(values)),
        "interval": None if interval is None else list(interval),
        "least": min(values),
        "largest": max(values),
        "standard_deviation": float(np.std(values, ddof=1)),
        **({"is_share": False} if key in BOUNDS else {}),
    }


def _per_class(matrix: np.ndarray, names: Sequence[str]) -> list[dict[str, Any]]:
    """Precision, recall and F1 per class of a matrix of counts; None for 0 / 0."""
    rows = []
    for i, name in enumerate(names):
        true, predicted, hit = (int(n) for n in (matrix[i].sum(), matrix[:, i].sum(), matrix[i, i]))
        rows.append(
            {
                "name": str(name),
                "precision": hit / predicted if predicted else None,
                "recall": hit / true if true else None,
                "f1": 2 * hit / (true + predicted) if true + predicted else None,
                "support": true,
            }
        )
    return rows


def mean_in_words(found: Mapping[str, Any]) -> str:
    """`"98.3% (95 % interval 97.1% to 99.6%; runs from 97.8% to 98.9%)"`

    Args:
        found: an entry of `mean` of `judge_repeats`.
    """
    if found.get("is_share") is False:
        low, high = found["interval"] or (found["mean"], found["mean"])
        return f"{found['mean']:.3f} (95 % interval {low:.3f} to {high:.3f})"
    if found["interval"] is None:
        return f"{found['mean']:.1%} in every run"
    low, high = found["interval"]
    return (
        f"{found['mean']:.1%} (95 % interval {low:.1%} to {high:.1%}; runs from {found['least']:.1%} to "
        f"{found['largest']:.1%})"
    )
