"""Several runs of the same settings in one folder: folds, or seeds. Together they answer with their mean."""

import shlex
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import Field

from keras_vit.errors import InputError
from keras_vit.evaluation.decision import (
    DECISION,
    Wanted,
    judge_decision,
    require_supported,
    rule_of,
)
from keras_vit.evaluation.decision_rule import DecisionRule
from keras_vit.files import read_json
from keras_vit.runs.folder import CONFIG, ENSEMBLE, RESTORE, TRAIN_AGAIN, Run, load_run, read_metrics
from keras_vit.runs.images import ImageRecord
from keras_vit.runs.out_of_fold import OUT_OF_FOLD, read_answers
from keras_vit.runs.predictions import Prediction, named_images, predictions
from keras_vit.runs.schema import Decision, Finite, Names
from keras_vit.runs.wanted import Costs, MinRecall, wanted_of
from keras_vit.sealed import FILES, check_file, check_seal, sha256_of
from keras_vit.validation import Count, Record, check_plain


class Settings(Record):
    """`ensemble.json`; without `runs` as long as not all of them are finished."""

    kind: Literal["folds", "seeds"]
    count: Count = Field(ge=2)
    train: dict[str, Any]
    fingerprint: str
    command: str
    class_names: Names | None = None
    runs: list[str] | None = Field(None, min_length=2)


class Mean(Record):
    mean: Finite
    interval: list[Finite] | None


class Together(Record):
    """`metrics.json` of several runs"""

    kind: Literal["folds", "seeds"]
    class_names: Names
    mean: dict[str, Mean]
    pooled: dict[str, Any]
    decision: Decision | None = None


@dataclass(frozen=True)
class Ensemble:
    """Several finished runs of the same settings: the folds of a cross-validation, or several seeds.

    Args:
        path: the folder that holds theirs.
        config: the content of `ensemble.json`: what they differ in, and the settings that they share.
        runs: all of them, in order.
        wanted: what is asked of the classes that are named, instead of what the runs were trained with; see
            `deciding`.
    """

    path: Path
    config: dict[str, Any]
    runs: tuple[Run, ...]
    wanted: Wanted | None = None

    @property
    def class_names(self) -> tuple[str, ...]:
        return tuple(self.config["class_names"])

    @property
    def several(self) -> bool:
        """Whether images may have several labels, or none."""
        return self.runs[0].several

    @property
    def ordered(self) -> bool:
        """Whether the classes go from the lowest to the highest."""
        return self.runs[0].ordered

    @property
    def thresholds(self) -> np.ndarray | None:
        """From which mean probability on an image has each label, the mean of those of the runs."""
        found = [run.thresholds for run in self.runs if run.thresholds is not None]
        return np.mean(found, axis=0) if found else None

    @cached_property
    def metrics(self) -> dict[str, Any]:
        """The content of `metrics.json`: see `keras_vit.evaluation.repeats.judge_repeats`.

        Raises:
            InputError: the file is damaged, or of other runs.
        """
        return read_metrics(self.path, self.config, Together)

    def line(self) -> str:
        """What is said of an answer of all runs, in one line."""
        first, last = self.runs[0].path.name, self.runs[-1].path.name
        return f"{self.path}: the mean of the {len(self.runs)} runs {first} to {last}"

    def predict(
        self,
        images: Sequence[str | Path],
        flips: bool = False,
        accept_risk: float | None = None,
        crop_boxes: bool = False,
        allow_outside: bool = False,
    ) -> list[Prediction]:
        """Classifies image files by the mean of the calibrated probabilities of all runs.

        `reject` is whether more than half of the runs reject the image. The prediction set has the classes
        that are in more than half of their sets. `refer` is whether that is not the label alone; with an
        accepted risk, whether at least half of the runs refer the image or fewer have the same label.

        Arguments, returned values and errors as `keras_vit.predict`.

        Reference for the set: M. Gasparin, A. Ramdas, "Merging uncertainty sets via majority vote",
        arXiv:2401.09379 (2024). If each holds the true class with 95 %, the majority's does with 90 % or
        more; nearer to 95 % the more the runs agree.
        """
        runs = [run.accepting(accept_risk) for run in self.runs]
        named = named_images(self.class_names, images, crop_boxes, allow_outside)
        of_runs = [predictions(run, named, flips) for run in runs]
        if self.thresholds is not None:
            return [mean_of_labels(found, self.thresholds) for found in zip(*of_runs, strict=True)]
        by_set = not any(run.accepts_risk for run in runs)
        return [mean_prediction(found, by_set, self.rule) for found in zip(*of_runs, strict=True)]

    def deciding(self, min_recall: MinRecall = None, costs: Costs = None) -> "Ensemble":
        """The runs with another rule that names classes; the same for `None`. See `Run.deciding`.

        For folds, all images choose it together, each answered by the fold that was not trained on it.
        """
        wanted = wanted_of(min_recall, costs, self.class_names)
        if wanted is None:
            return self
        runs = tuple(run.deciding(min_recall, costs) for run in self.runs)
        found = replace(self, runs=runs, wanted=wanted)
        assert found.decision is not None
        require_supported({DECISION: found.decision}, self.path)
        return found

    @cached_property
    def decision(self) -> dict[str, Any] | None:
        """The entry of `judge_decision` that names the classes of the mean; `None` for the likeliest."""
        if self.metrics["kind"] == "seeds":
            return mean_decision([run.settled.get(DECISION) for run in self.runs])
        if self.wanted is None:
            return self.metrics.get(DECISION)
        check_file(self.path / OUT_OF_FOLD, self.config, RESTORE)
        _, labels, probabilities = read_answers(self.path / OUT_OF_FOLD, self.class_names)
        return decide_by_folds(self.wanted, self.class_names, probabilities, labels)[DECISION]

    @property
    def rule(self) -> DecisionRule | None:
        """Which class is named; `None` for the likeliest."""
        return rule_of({DECISION: self.decision})

    def learned(self) -> ImageRecord | None:
        """The images of all runs: those that any of them has learned from count as training images.

        `None` if a run does not know its images.
        """
        rows: dict[tuple[str, str], Mapping[str, str]] = {}
        order = ("unreadable", "test", "unlabeled", "validation", "train")
        for run in self.runs:
            if run.images is None:
                return None
            for row in run.images.rows:
                key = (row["path"], row["sha256"])
                if key not in rows or order.index(row["part"]) > order.index(rows[key]["part"]):
                    rows[key] = row
        return ImageRecord(list(rows.values()), self.class_names)


def decide_by_folds(
    wanted: Wanted | None, class_names: Sequence[str], probabilities: np.ndarray, labels: np.ndarray
) -> dict[str, Any]:
    """The entry of `judge_decision` for the mean of folds.

    Args:
        wanted: `None` for no rule.
        class_names: of the runs.
        probabilities: (n, classes) of all images, each by the fold that is tested on it.
        labels: int (n,).
    """
    source = "all images, each by the fold that was not trained on it"
    return judge_decision(wanted, class_names=class_names, calibration=(probabilities, labels), source=source)


def mean_decision(entries: Sequence[Mapping[str, Any] | None]) -> dict[str, Any] | None:
    """The entry for the mean of runs whose test images differ: with the geometric mean of their weights."""
    if any(entry is None for entry in entries):
        return None
    known = [dict(entry) for entry in entries if entry is not None]
    broken = next((entry for entry in known if entry["unsupported"] is not None), None)
    if broken is not None:
        return broken
    logs = np.log([[row["weight"] for row in entry["classes"]] for entry in known])
    weights = np.exp(logs.mean(axis=0))
    merged = {**known[0], "fitted_on": "each run's own images: the mean of the weights", "calibration": None}
    rows = [{**row, "weight": float(w)} for row, w in zip(known[0]["classes"], weights, strict=True)]
    rule = rule_of({DECISION: {**merged, "classes": rows}})
    assert rule is not None
    least = rule.surely_from().tolist()
    merged["classes"] = [{**row, "surely_from": at} for row, at in zip(rows, least, strict=True)]
    return {**merged, "test": None}


def mean_prediction(
    found: Sequence[Prediction], refer_by_set: bool = True, rule: DecisionRule | None = None
) -> Prediction:
    """What several runs say of one image together: see `Ensemble.predict`.

    Args:
        found: one per run.
        refer_by_set: as of `votes`.
        rule: that names the class of the mean; `None` for the likeliest.
    """
    broken = next((one for one in found if one.error), None)
    if broken is not None:
        return broken
    names = tuple(found[0].probabilities)
    mean = np.mean([[one.probabilities[name] for name in names] for one in found], axis=0)
    best = int(mean.argmax() if rule is None else rule.decide(mean[None])[0])
    answer = replace(
        found[0],
        label=names[best],
        confidence=float(mean[best]),
        probabilities=dict(zip(names, mean.tolist(), strict=True)),
        reject=sum(one.reject for one in found) > len(found) / 2,
        prediction_set=None,
        refer=None,
        likeliest=None if rule is None else names[int(mean.argmax())],
    )
    if any(one.prediction_set is None for one in found):
        return answer
    in_set = np.array([[[name in (one.prediction_set or ()) for name in names]] for one in found])
    refers = np.array([[bool(one.refer)] for one in found])
    labels = np.array([[names.index(one.label or "")] for one in found])
    members, refer = votes(in_set, refers, labels, np.array([best]), refer_by_set)
    ordered = [names[i] for i in np.argsort(-mean, kind="stable") if members[0, i]]
    return replace(answer, prediction_set=tuple(ordered), refer=bool(refer[0]))


def mean_of_labels(found: Sequence[Prediction], thresholds: np.ndarray) -> Prediction:
    """What several runs of several labels per image say of one image together.

    Args:
        found: one per run.
        thresholds: of the mean probabilities.
    """
    mean = mean_prediction(found)
    if mean.error is not None:
        return mean
    named = [
        name
        for name, needed in zip(mean.probabilities, thresholds, strict=True)
        if mean.probabilities[name] >= needed
    ]
    return replace(mean, labels=tuple(sorted(named, key=lambda name: -mean.probabilities[name])))


def votes(
    in_set: np.ndarray, refers: np.ndarray, labels: np.ndarray, label: np.ndarray, refer_by_set: bool
) -> tuple[np.ndarray, np.ndarray]:
    """The prediction sets and the referral of several runs together.

    Args:
        in_set: bool (runs, n, classes), the sets of each.
        refers: bool (runs, n).
        labels: int (runs, n), the label that each gives.
        label: int (n,), that of the mean.
        refer_by_set: whether an image is referred where the set is not the label alone; otherwise where at
            least half of the runs refer it, or fewer than half give the label of the mean.

    Returns:
        bool (n, classes), the classes that are in more than half of the sets; and bool (n,), which images are
        referred.
    """
    half = len(in_set) / 2
    members = in_set.sum(axis=0) > half
    if refer_by_set:
        alone = np.arange(members.shape[1]) == label[:, None]
        return members, (members != alone).any(axis=1)
    return members, (refers.sum(axis=0) >= half) | ((labels == label).sum(axis=0) < half)


def is_ensemble(path: str | Path) -> bool:
    """Whether a folder holds several runs, finished or not."""
    return (Path(path) / ENSEMBLE).is_file()


def open_runs(path: str | Path) -> Run | Ensemble:
    """Opens the folder of a run, or of several.

    Raises:
        InputError: as `load_run` and `load_ensemble`.
    """
    return load_ensemble(path) if is_ensemble(path) else load_run(path)


def one_run(run: Run | Ensemble | str | Path, fold: int | None = None) -> Run:
    """The run that a command takes which takes one.

    Args:
        run: a run, several, or the folder of either.
        fold: which one of several folds.

    Raises:
        InputError: it takes a fold to know which run is meant, or there is no such fold.
    """
    if isinstance(run, Run) or not (isinstance(run, Ensemble) or is_ensemble(run)):
        found = run if isinstance(run, Run) else load_run(run)
        if fold is not None:
            raise InputError(f"{found.path} is one run, not a folder of folds: omit --fold {fold}.")
        return found
    path = run.path if isinstance(run, Ensemble) else Path(run)
    config = read_settings(path)
    if fold is None or config["kind"] != "folds":
        which = (
            f"give one with --fold 1 to {config['count']}"
            if config["kind"] == "folds"
            else (f"give the folder of one, {path / 'seed-0'} to seed-{config['count'] - 1}")
        )
        raise InputError(f"{path} holds {config['count']} runs, and this takes one: {which}.")
    if not 1 <= fold <= config["count"]:
        raise InputError(f"{path} has the folds 1 to {config['count']}. Received: --fold {fold}")
    return load_run(path / f"fold-{fold}")


def load_ensemble(path: str | Path) -> Ensemble:
    """Opens the folder of several runs.

    Args:
        path: the folder that `train` made with `folds` or `seeds`.

    Raises:
        InputError: not all runs are finished, or a file is missing or damaged.
    """
    path = Path(path)
    config = read_settings(path)
    if config.get("runs") is None:
        raise InputError(
            f"The runs in {path} are not finished: continue them with "
            f"`{shlex.join(['keras-vit', 'train', '--out', str(path), '--resume'])}`."
        )
    runs = []
    for name in config["runs"]:
        run = load_run(path / name)
        if sha256_of(path / name / CONFIG) != config[FILES].get(f"{name}/{CONFIG}"):
            raise InputError(f"{path / name} is not the run that belongs to the others in {path}: {RESTORE}.")
        runs.append(run)
    return Ensemble(path, config, tuple(runs))


def read_settings(path: Path) -> dict[str, Any]:
    """The content of `ensemble.json` in a folder, whether its runs are finished or not.

    Raises:
        InputError: it is missing or damaged.
    """
    file = path / ENSEMBLE
    config = read_json(file, fix=TRAIN_AGAIN)
    try:
        check_plain(Settings, config)
    except InputError as error:
        raise InputError(f"{file} is damaged ({str(error).rstrip('.')}): {TRAIN_AGAIN}.") from error
    if config.get("runs") is not None and not check_seal(file, config, TRAIN_AGAIN):
        raise InputError(f"{file} is damaged (its hashes are gone): {TRAIN_AGAIN}.")
    return config
