"""The probe: a linear head that is fitted to the features of frozen weights, in seconds."""

import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from keras_vit.data.audit import Audit
from keras_vit.data.image_set import SPLIT_PARTS, ImageSet
from keras_vit.data.pipeline import ImageData
from keras_vit.evaluation.calibration import fit_temperature
from keras_vit.evaluation.judge import judge
from keras_vit.model.vit import ViT
from keras_vit.runs.features import FeatureReader
from keras_vit.training.outputs import write_run
from keras_vit.training.start import Start

GRID = (0.002, 0.005, 0.02, 0.05, 0.2, 0.5, 2.0)
"""Inverse strengths of the L2 penalty that are tried."""

FOLDS = 5


@dataclass(frozen=True)
class Head:
    """A linear classifier of features.

    Args:
        kernel: float32 (width, classes).
        bias: float32 (classes,).
        strength: the chosen one of `GRID`.
        grid: one row for each value that was tried: `strength`, `log_loss`, `accuracy`, `temperature`.
        judged_on: what images chose it, in words.
        seconds: that the fit took.
    """

    kernel: np.ndarray
    bias: np.ndarray
    strength: float
    grid: list[dict[str, float]]
    judged_on: str
    seconds: float

    def logits(self, features: np.ndarray) -> np.ndarray:
        """float32 (n, width) to float32 (n, classes)."""
        return features @ self.kernel + self.bias


def fit_head(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    sample_weight: np.ndarray | None = None,
) -> Head:
    """Fits a logistic regression to features; cross-validation on these images chooses its strength.

    Each feature is standardised first. The strength with the least log loss over `FOLDS` folds is taken, each
    at its best temperature, since the answers of a run are calibrated. Without that, the log loss would judge
    how large the logits are. Where a class has one image only, the middle of the grid is taken. The
    validation part of a run, which calibrates the answers, is not needed for this choice and stays unseen.

    Args:
        features: (n, width).
        labels: int (n,).
        num_classes: of the head.
        sample_weight: (n,); `None` counts each image once.
    """
    from threadpoolctl import threadpool_limits

    with threadpool_limits(1):  # the products are small: threads wait for each other longer than they compute
        return _fit_head(features, labels, num_classes, sample_weight)


def _fit_head(
    features: np.ndarray, labels: np.ndarray, num_classes: int, sample_weight: np.ndarray | None
) -> Head:
    from sklearn.model_selection import StratifiedKFold

    begin = time.perf_counter()
    fewest = int(np.bincount(labels, minlength=num_classes).min())
    grid: list[dict[str, float]] = []
    strength, judged_on = GRID[len(GRID) // 2], "nothing: a class has one image only"
    if fewest >= 2:
        folds = StratifiedKFold(min(FOLDS, fewest), shuffle=True, random_state=0)
        parts = list(folds.split(features, labels))
        for value in GRID:
            logits = np.zeros((len(labels), num_classes))
            for inner, outer in parts:
                weight = None if sample_weight is None else sample_weight[inner]
                kernel, bias = _fit(features[inner], labels[inner], num_classes, value, weight)
                logits[outer] = features[outer] @ kernel + bias
            temperature = fit_temperature(logits, labels)
            log_p = _log_softmax(logits / temperature)
            grid.append(
                {
                    "strength": value,
                    "log_loss": float(-log_p[np.arange(len(labels)), labels].mean()),
                    "accuracy": float((log_p.argmax(axis=1) == labels).mean()),
                    "temperature": temperature,
                }
            )
        strength = min(grid, key=lambda row: row["log_loss"])["strength"]
        judged_on = f"{len(parts)} folds of the {len(labels)} training images"
    kernel, bias = _fit(features, labels, num_classes, strength, sample_weight)
    return Head(
        kernel.astype("float32"),
        bias.astype("float32"),
        strength,
        grid,
        judged_on,
        time.perf_counter() - begin,
    )


def _fit(
    features: np.ndarray,
    labels: np.ndarray,
    num_classes: int,
    strength: float,
    sample_weight: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """Kernel (width, classes) and bias (classes,) that take the features as they are."""
    from sklearn.linear_model import LogisticRegression

    mean, std = features.mean(axis=0, dtype="float64"), features.std(axis=0, dtype="float64") + 1e-6
    model = LogisticRegression(C=strength, max_iter=1000, tol=1e-3)
    model.fit((features - mean) / std, labels, sample_weight=sample_weight)
    coefficients, intercept = model.coef_, model.intercept_
    if len(model.classes_) == 2:  # scikit-learn has one row for two classes
        coefficients = np.concatenate([-coefficients, coefficients]) / 2
        intercept = np.concatenate([-intercept, intercept]) / 2
    kernel, bias = np.zeros((features.shape[1], num_classes)), np.full(num_classes, -1e3)
    kernel[:, model.classes_] = coefficients.T / std[:, None]
    bias[model.classes_] = intercept - (mean / std) @ coefficients.T
    return kernel, bias


def _log_softmax(logits: np.ndarray) -> np.ndarray:
    from scipy.special import log_softmax

    return log_softmax(logits, axis=1)


def feature_reader(start: Start, model: ViT, data: ImageData) -> FeatureReader:
    """What gives the features of the images of a run, whose model has published weights."""
    assert start.weights is not None
    # Weights that the file does not have are drawn, so their features belong to one run.
    known = not model.pretrained.new if model.pretrained else False
    return FeatureReader(model, data.preprocessing, start.weights.origin.sha256 if known else None)


def begin_with_probe(start: Start, model: ViT, data: ImageData, image_set: ImageSet) -> None:
    """Gives the new head of a model the values that a probe finds, so that training begins where it ends.

    Args:
        start: with published weights.
        model: with these weights and a head of zeros, before it is compiled.
        data: the images, prepared for the model.
        image_set: the images as they came.
    """
    reader = feature_reader(start, model, data)
    if model.config.head_hidden_dim:
        return  # the features are those before a hidden layer that is new itself
    as_it_came = dict(zip(image_set.names, image_set.images, strict=True))
    images = data.image_set.take(data.split.train).images
    features = reader.of_head(reader(images, [as_it_came[name] for name in data.names("train")]))
    head = fit_head(features, data.labels("train"), data.num_classes)
    _set_head(model, head)
    print(
        f"head: fitted to the features of {len(features)} training images ({reader.computed} computed, "
        f"{reader.found} from the cache), strength {head.strength:g}"
    )


def probe_run(
    folder: Path,
    described: dict[str, Any],
    start: Start,
    model: ViT,
    data: ImageData,
    audit: Audit,
) -> None:
    """Fits the head of a run with frozen weights, judges it and writes the files of the run.

    Args:
        folder: of the run while it is made.
        described: of `describe`.
        start: with published weights.
        model: with these weights.
        data: the images, as they came.
        audit: of the images.
    """
    reader = feature_reader(start, model, data)
    begin = time.perf_counter()
    found = {
        part: reader.of_head(reader(data.image_set.take(getattr(data.split, part)).images))
        for part in SPLIT_PARTS
    }
    feature_seconds = time.perf_counter() - begin
    labels = {part: data.labels(part) for part in found}
    head = fit_head(found["train"], labels["train"], data.num_classes)
    _set_head(model, head)
    logits = {part: head.logits(values) for part, values in found.items()}
    metrics = judge(
        class_names=data.class_names,
        test_labels=labels["test"],
        test_names=data.names("test"),
        test_logits_best=logits["test"],
        test_logits_last=logits["test"],
        validation_labels=labels["validation"],
        validation_logits_best=logits["validation"],
        best_epoch=1,
        last_epoch=1,
    )
    metrics["probe"] = {
        "strength": head.strength,
        "grid": head.grid,
        "judged_on": head.judged_on,
        "width": len(head.kernel),
        "computed": reader.computed,
        "from_cache": reader.found,
        "feature_seconds": round(feature_seconds, 2),
        "fit_seconds": round(head.seconds, 2),
    }
    print(
        f"features: {reader.computed} images computed, {reader.found} from the cache, "
        f"{feature_seconds:.1f} s; head: {head.seconds:.1f} s, strength {head.strength:g} chosen on "
        f"{head.judged_on}"
    )
    seconds = round(feature_seconds + head.seconds, 2)
    row: dict[str, Any] = {"epoch": 1}
    for part, prefix in (("train", ""), ("validation", "val_")):
        if len(labels[part]):
            log_p = _log_softmax(logits[part])
            row[f"{prefix}accuracy"] = float((log_p.argmax(axis=1) == labels[part]).mean())
            row[f"{prefix}loss"] = float(-log_p[np.arange(len(log_p)), labels[part]].mean())
    history = [{**row, "seconds": seconds}]
    write_run(folder, {**described, "seconds": seconds}, model, data, audit, history, metrics, reader)


def _set_head(model: ViT, head: Head) -> None:
    model.get_layer("head").set_weights([head.kernel, head.bias])
