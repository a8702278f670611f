"""What the trials of a search say, as plain numbers: pure functions, by numpy, scipy and scikit-learn."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from keras_vit.evaluation.metrics import wilson_interval
from keras_vit.evaluation.trials import SearchRecord, TrialRecord

LOG_FACTOR = 8  # values that span more than this factor go on a log axis
FEWEST_IN_LEVEL = 8  # trials of the same epochs, for a rank correlation or medians to mean anything
FEWEST_OF_CHOICE = 3
FALSE_SHARE = 0.05  # of the effects called told apart, the share that may be false

FEWEST_TRIALS, FEWEST_POINTS = 20, 10  # for a forest
FEWEST_R2 = 0.2  # of what a forest explains of trials it has not seen, for its importances to mean anything
FOLDS, TREES, SHUFFLES = 5, 100, 10


@dataclass(frozen=True)
class Hyperparameter:
    """One that is searched.

    Args:
        name: of the field.
        choices: its values in order, where they are choices; else `None`.
        log: whether its axis is logarithmic.
        ends: of its range, where it is numbers.
    """

    name: str
    choices: tuple | None = None
    log: bool = False
    ends: tuple[float, float] = (0.0, 1.0)

    def place(self, value: Any) -> float:
        """Where a value lies on a linear axis: the number, its logarithm, or the position of the choice."""
        if value is None:
            return math.nan
        if self.choices is not None:
            return float(self.choices.index(value)) if value in self.choices else math.nan
        return math.log10(value) if self.log else float(value)


@dataclass(frozen=True)
class Effect:
    """What changing one hyperparameter does among the trials of the same epochs.

    Args:
        name: of the hyperparameter.
        epochs: that the trials were trained.
        trials: how many.
        size: for numbers, Spearman's rank correlation with validation accuracy; for choices, the median
            accuracy of the best less that of the worst.
        p: how often chance alone would give as much.
        best, worst: of choices.
        told_apart: whether it stands out among all effects measured (Benjamini and Hochberg 1995).
    """

    name: str
    epochs: int
    trials: int
    size: float
    p: float
    best: Any = None
    worst: Any = None
    told_apart: bool = False


@dataclass(frozen=True)
class Importance:
    """What a random forest says of the hyperparameters.

    Args:
        trials: it was given.
        points: different ones among them.
        r2: share of the variance within the same epochs that it explains of points it has not seen; `None`
            where no forest was grown.
        shares: mean and standard deviation over the folds, by name, of the share of that variance that goes
            with a hyperparameter; empty where r2 is too low.
    """

    trials: int
    points: int
    r2: float | None
    shares: dict[str, tuple[float, float]]


def scored(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The completed ones that have a validation accuracy."""
    return [trial for trial in trials if trial.status == "COMPLETED" and known(trial.score)]


def known(number: float | None) -> bool:
    return number is not None and math.isfinite(number)


def best_trial(trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """The best validation accuracy; of equal ones, the one of most epochs."""
    return max(scored(trials), key=lambda trial: (trial.score, trial.epochs), default=None)


def validation_score(trial: TrialRecord, images: int | None) -> dict[str, Any]:
    """A trial's validation accuracy, with its Wilson interval where the number of images is known."""
    judged: dict[str, Any] = {"accuracy": trial.score}
    if images:
        correct = round(trial.score * images)
        judged |= {
            "correct": correct,
            "images": images,
            "accuracy_interval": list(wilson_interval(correct, images)),
        }
    return judged


def hyperparameters(record: SearchRecord) -> list[Hyperparameter]:
    """Those that are searched, in the order of the space."""
    settings = record.config.get("space_fields") or {}
    return [
        _hyperparameter(name, settings.get(name), [trial.values.get(name) for trial in record.trials])
        for name in record.config.get("searched") or ()
    ]


def _hyperparameter(name: str, setting: Any, values: list) -> Hyperparameter:
    setting = setting if isinstance(setting, Mapping) else {}
    seen = [value for value in [*(setting.get("values") or ()), *values] if value is not None]
    numbers = all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in seen)
    if "values" in setting or not numbers:
        ordered = sorted(set(seen)) if numbers else sorted(set(seen), key=str)
        return Hyperparameter(name, choices=tuple(ordered))
    ends = [*seen, *(setting[end] for end in ("low", "high") if known(setting.get(end)))]
    low, high = (min(ends), max(ends)) if ends else (0.0, 1.0)
    log = low > 0 and (bool(setting.get("log")) or high > LOG_FACTOR * low)
    return Hyperparameter(name, log=log, ends=(low, high))


def levels(trials: Sequence[TrialRecord]) -> dict[int, list[TrialRecord]]:
    """The trials by the epochs they were trained: only those are comparable."""
    return {
        epochs: [trial for trial in trials if trial.epochs == epochs]
        for epochs in sorted({trial.epochs for trial in trials})
    }


def total_seconds(trials: Sequence[TrialRecord]) -> dict[str, float | None]:
    """Of `fit`, with the trials that each was promoted from; `None` where one of them is unknown."""
    by_id = {trial.trial_id: trial for trial in trials}

    def total(trial: TrialRecord | None) -> float | None:
        if trial is None or not known(trial.seconds):
            return None
        before = total(by_id.get(trial.promoted_from)) if trial.promoted_from else 0.0
        return None if before is None else before + trial.seconds

    return {trial.trial_id: total(trial) for trial in trials}


def pareto_front(costs: Sequence[float | None], accuracies: Sequence[float]) -> list[int]:
    """Positions of those that no other one beats: costs no more, is no less accurate, and is not its equal.

    Args:
        costs: unknown ones are on no front.
        accuracies: finite.

    Returns:
        From the least cost to the greatest.
    """
    order = sorted((cost, -accuracies[i], i) for i, cost in enumerate(costs) if known(cost))
    front: list[tuple[float, float, int]] = []
    for candidate in order:
        if not front or candidate[1] < front[-1][1] or candidate[:2] == front[-1][:2]:
            front.append(candidate)
    return [i for _, _, i in front]


def effects(trials: Sequence[TrialRecord], searched: Sequence[Hyperparameter]) -> list[Effect]:
    """Of each hyperparameter at each number of epochs, where there are enough trials that differ."""
    from dataclasses import replace

    from scipy.stats import false_discovery_control

    found = []
    for hyperparameter in searched:
        for epochs, level in levels(scored(trials)).items():
            given = [t for t in level if t.values.get(hyperparameter.name) is not None]
            if len(given) < FEWEST_IN_LEVEL or len({trial.score for trial in given}) < 2:
                continue
            measure = _correlation if hyperparameter.choices is None else _difference
            found += measure(hyperparameter, epochs, given)
    if not found:
        return []
    shares = false_discovery_control([effect.p for effect in found])
    return [replace(e, told_apart=bool(share <= FALSE_SHARE)) for e, share in zip(found, shares, strict=True)]


def _correlation(hyperparameter: Hyperparameter, epochs: int, trials: list[TrialRecord]) -> list[Effect]:
    from scipy.stats import spearmanr

    values = [trial.values[hyperparameter.name] for trial in trials]
    if len(set(values)) < 2:
        return []
    rank = spearmanr(values, [trial.score for trial in trials])
    return [Effect(hyperparameter.name, epochs, len(trials), float(rank.statistic), float(rank.pvalue))]


def _difference(hyperparameter: Hyperparameter, epochs: int, trials: list[TrialRecord]) -> list[Effect]:
    from scipy.stats import kruskal

    scores = {
        choice: [trial.score for trial in trials if trial.values[hyperparameter.name] == choice]
        for choice in hyperparameter.choices or ()
    }
    scores = {choice: group for choice, group in scores.items() if len(group) >= FEWEST_OF_CHOICE}
    if len(scores) < 2 or len({score for group in scores.values() for score in group}) < 2:
        return []
    medians = {choice: float(np.median(group)) for choice, group in scores.items()}
    best, worst = max(medians, key=medians.__getitem__), min(medians, key=medians.__getitem__)
    size, p = medians[best] - medians[worst], float(kruskal(*scores.values()).pvalue)
    number = sum(len(group) for group in scores.values())
    return [Effect(hyperparameter.name, epochs, number, size, p, best, worst)]


def epoch_gains(trials: Sequence[TrialRecord]) -> list[tuple[int, int, int, float]]:
    """What going on gave those that were promoted: (epochs before, after, pairs, median gain)."""
    by_id = {trial.trial_id: trial for trial in scored(trials)}
    pairs: dict[tuple[int, int], list[float]] = {}
    for trial in by_id.values():
        before = by_id.get(trial.promoted_from or "")
        if before is not None:
            pairs.setdefault((before.epochs, trial.epochs), []).append(trial.score - before.score)
    return [(*step, len(gains), float(np.median(gains))) for step, gains in sorted(pairs.items())]


def share_of_epochs(trials: Sequence[TrialRecord]) -> float | None:
    """Share of the variance of validation accuracy that lies between the numbers of epochs, not within."""
    usable = scored(trials)
    scores = np.array([trial.score for trial in usable], dtype=np.float64)
    groups = levels(usable)
    if len(groups) < 2 or not scores.std() > 0:
        return None
    within = sum(
        np.sum((np.array([t.score for t in level]) - _mean(level)) ** 2) for level in groups.values()
    )
    return float(1 - within / np.sum((scores - scores.mean()) ** 2))


def _mean(trials: Sequence[TrialRecord]) -> float:
    return float(np.mean([trial.score for trial in trials]))


def standard_scores(trials: Sequence[TrialRecord]) -> tuple[list[TrialRecord], np.ndarray]:
    """How many standard deviations each trial is above the mean of the trials of the same epochs.

    Numbers of epochs with few trials, or with equal ones, are left out.
    """
    kept: list[TrialRecord] = []
    heights: list[float] = []
    for level in levels(scored(trials)).values():
        scores = np.array([trial.score for trial in level])
        if len(level) >= FEWEST_IN_LEVEL and len(set(scores)) > 1:
            kept += level
            heights += list((scores - scores.mean()) / scores.std())
    return kept, np.array(heights)


def importance(trials: Sequence[TrialRecord], searched: Sequence[Hyperparameter]) -> Importance:
    """By a random forest on the hyperparameters and the epochs; what it says is measured on other points.

    Accuracies are taken relative to those of the same epochs, so that what epochs give is not in it. A
    promoted trial has the point of the one it goes on from: folds keep equal points together.
    """
    usable, heights = standard_scores(trials)
    places = np.array([[h.place(t.values.get(h.name)) for h in searched] for t in usable])
    points = [repr([trial.values.get(h.name) for h in searched]) for trial in usable]
    different = sorted(set(points))
    if len(usable) < FEWEST_TRIALS or len(different) < FEWEST_POINTS or not searched:
        return Importance(len(usable), len(different), None, {})
    features = np.column_stack([places, [trial.epochs for trial in usable]])
    groups = np.array([different.index(point) for point in points])
    r2, found = _grow(features, heights, groups)
    shares = {
        hyperparameter.name: (float(found[:, i].mean()), float(found[:, i].std(ddof=1)))
        for i, hyperparameter in enumerate(searched)
    }
    return Importance(len(usable), len(different), r2, shares if r2 >= FEWEST_R2 else {})


def _grow(features: np.ndarray, heights: np.ndarray, groups: np.ndarray) -> tuple[float, np.ndarray]:
    """R2 over all folds, and the shares of the variance: a row a fold, a column a feature.

    Shuffling a feature adds to the squared error twice the variance that goes with it: Gregorutti, Michel and
    Saint-Pierre, "Correlation and variable importance in random forests", Statistics and Computing 27 (2017).
    """
    from sklearn.ensemble import RandomForestRegressor
    from sklearn.inspection import permutation_importance
    from sklearn.metrics import r2_score
    from sklearn.model_selection import GroupKFold

    predicted, shares = np.empty_like(heights), []
    for train, test in GroupKFold(FOLDS).split(features, heights, groups):
        forest = RandomForestRegressor(TREES, min_samples_leaf=2, random_state=0)
        forest.fit(features[train], heights[train])
        predicted[test] = forest.predict(features[test])
        shuffled = permutation_importance(
            forest,
            features[test],
            heights[test],
            scoring="neg_mean_squared_error",
            n_repeats=SHUFFLES,
            random_state=0,
        )
        shares.append(shuffled.importances_mean / 2 / heights.var())
    return float(r2_score(heights, predicted)), np.array(shares)


def promoted(trials: Sequence[TrialRecord]) -> set[str]:
    """The ids of those that another one goes on from."""
    return {trial.promoted_from for trial in trials if trial.promoted_from is not None}


def rungs(trials: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    """A row for each rung of each bracket, the bracket of the shortest trials first."""
    went_on = promoted(trials)
    rows = []
    for bracket, rung in sorted({(t.bracket, t.rung) for t in trials}, key=lambda key: (-key[0], key[1])):
        members = [trial for trial in trials if (trial.bracket, trial.rung) == (bracket, rung)]
        scores = [trial.score for trial in scored(members)]
        rows.append(
            {
                "bracket": bracket,
                "rung": rung,
                "trials": len(members),
                "epochs": max(trial.epochs for trial in members),
                "best": max(scores, default=None),
                "median": float(np.median(scores)) if scores else None,
                "promoted": sum(trial.trial_id in went_on for trial in members),
                "failed": sum(trial.status == "FAILED" for trial in members),
            }
        )
    return rows


def baseline_rival(record: SearchRecord) -> tuple[TrialRecord | None, int]:
    """The best trial of as many epochs as the baseline, and of how many it is the best."""
    level = levels(scored(record.trials)).get((record.config.get("baseline") or {}).get("epochs"), [])
    return best_trial(level), len(level)
