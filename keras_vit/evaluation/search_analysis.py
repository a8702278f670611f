"""The statistics of a search's trials, by numpy, scipy and scikit-learn.

Written by hand here: `pareto_front`, which neither scipy nor scikit-learn has.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from keras_vit.evaluation.metrics import wilson_interval
from keras_vit.evaluation.trials import SearchRecord, TrialRecord, best_trial, known, scored

LOG_FACTOR = 8  # values that span more than this factor go on a logarithmic axis
FEWEST_IN_LEVEL = 8  # trials of the same number of epochs, for a meaningful rank correlation or median
FEWEST_OF_CHOICE = 3
FALSE_SHARE = 0.05  # expected fraction of false ones among the effects called significant

FEWEST_TRIALS, FEWEST_POINTS = 20, 10  # for a random forest
LEAST_R2 = 0.2  # of a forest on held-out points, for meaningful importances
FOLDS, TREES, SHUFFLES = 5, 100, 10


@dataclass(frozen=True)
class Hyperparameter:
    """A searched hyperparameter and its axis.

    Args:
        name: Name of the field.
        choices: Its values in order, if it is a choice; else `None`.
        log: Whether its axis is logarithmic.
        ends: Ends of its range, if it is a number.
    """

    name: str
    choices: tuple | None = None
    log: bool = False
    ends: tuple[float, float] = (0.0, 1.0)

    def position(self, value: Any) -> float:
        """A value on a linear axis: the number, its logarithm, or the position of the choice."""
        if value is None:
            return math.nan
        if self.choices is not None:
            return float(self.choices.index(value)) if value in self.choices else math.nan
        return math.log10(value) if self.log else float(value)


@dataclass(frozen=True)
class Effect:
    """The effect of one hyperparameter among the trials of the same number of epochs.

    Args:
        name: Name of the hyperparameter.
        epochs: Epochs of the trials.
        trials: Number of trials.
        size: For numbers, Spearman's rank correlation with the validation accuracy; for choices, the highest
            minus the lowest median accuracy.
        p: Probability of an effect of this size by chance alone.
        best, worst: The choices with the highest and the lowest median.
        significant: Whether it is significant among all measured effects (Benjamini and Hochberg 1995).
    """

    name: str
    epochs: int
    trials: int
    size: float
    p: float
    best: Any = None
    worst: Any = None
    significant: bool = False


@dataclass(frozen=True)
class Importance:
    """The importance of each hyperparameter, by a random forest.

    Args:
        trials: Number of trials that were used.
        points: Number of different points among them.
        r2: Fraction of the variance among trials of the same epochs that the forest explains on held-out
            points; `None` where no forest was fitted.
        shares: Mean and standard deviation over the folds, by name, of the fraction of that variance that
            goes with a hyperparameter; empty where r2 is too low.
    """

    trials: int
    points: int
    r2: float | None
    shares: dict[str, tuple[float, float]]


def validation_score(trial: TrialRecord, images: int | None) -> dict[str, Any]:
    """The validation accuracy of a trial, with its Wilson interval if the number of images is known."""
    result: dict[str, Any] = {"accuracy": trial.score}
    if images:
        correct = round(trial.accuracy * images)
        result |= {
            "correct": correct,
            "images": images,
            "accuracy_interval": list(wilson_interval(correct, images)),
        }
    return result


def hyperparameters(record: SearchRecord) -> list[Hyperparameter]:
    """The searched hyperparameters, in the order of the search space."""
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
    """The trials by number of epochs: only trials of the same number are comparable."""
    return {
        epochs: [trial for trial in trials if trial.epochs == epochs]
        for epochs in sorted({trial.epochs for trial in trials})
    }


def total_seconds(trials: Sequence[TrialRecord]) -> dict[str, float | None]:
    """Training time per trial, with the trials it was promoted from; `None` if one of them is unknown."""
    by_id = {trial.trial_id: trial for trial in trials}

    def total(trial: TrialRecord | None) -> float | None:
        if trial is None or not known(trial.seconds):
            return None
        before = total(by_id.get(trial.promoted_from)) if trial.promoted_from else 0.0
        return None if before is None else before + trial.seconds

    return {trial.trial_id: total(trial) for trial in trials}


def pareto_front(costs: Sequence[float | None], accuracies: Sequence[float]) -> list[int]:
    """Positions of the trials that no other trial dominates: costs no more, is no less accurate, not equal.

    Args:
        costs: A trial of unknown cost is not on the front.
        accuracies: Finite.

    Returns:
        From the lowest to the highest cost.
    """
    order = sorted((cost, -accuracies[i], i) for i, cost in enumerate(costs) if known(cost))
    front: list[tuple[float, float, int]] = []
    for candidate in order:
        if not front or candidate[1] < front[-1][1] or candidate[:2] == front[-1][:2]:
            front.append(candidate)
    return [i for _, _, i in front]


def effects(trials: Sequence[TrialRecord], searched: Sequence[Hyperparameter]) -> list[Effect]:
    """The effect of each hyperparameter at each number of epochs with enough trials that differ."""
    from scipy.stats import false_discovery_control

    found: list[Effect] = []
    for hyperparameter in searched:
        for epochs, level in levels(scored(trials)).items():
            given = [t for t in level if t.values.get(hyperparameter.name) is not None]
            if len(given) < FEWEST_IN_LEVEL or len({trial.accuracy for trial in given}) < 2:
                continue
            measure = _correlation if hyperparameter.choices is None else _difference
            found += measure(hyperparameter, epochs, given)
    if not found:
        return []
    shares = false_discovery_control([effect.p for effect in found])
    return [
        replace(e, significant=bool(share <= FALSE_SHARE)) for e, share in zip(found, shares, strict=True)
    ]


def _correlation(hyperparameter: Hyperparameter, epochs: int, trials: list[TrialRecord]) -> list[Effect]:
    from scipy.stats import spearmanr

    values = [trial.values[hyperparameter.name] for trial in trials]
    if len(set(values)) < 2:
        return []
    rank = spearmanr(values, [trial.accuracy for trial in trials])
    return [Effect(hyperparameter.name, epochs, len(trials), float(rank.statistic), float(rank.pvalue))]


def _difference(hyperparameter: Hyperparameter, epochs: int, trials: list[TrialRecord]) -> list[Effect]:
    from scipy.stats import kruskal

    scores = {
        choice: [trial.accuracy for trial in trials if trial.values[hyperparameter.name] == choice]
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
    """What more epochs gained for promoted trials: (epochs before, after, pairs, median gain) per step."""
    by_id = {trial.trial_id: trial for trial in scored(trials)}
    pairs: dict[tuple[int, int], list[float]] = {}
    for trial in by_id.values():
        before = by_id.get(trial.promoted_from or "")
        if before is not None:
            pairs.setdefault((before.epochs, trial.epochs), []).append(trial.accuracy - before.accuracy)
    return [(*step, len(gains), float(np.median(gains))) for step, gains in sorted(pairs.items())]


def share_of_epochs(trials: Sequence[TrialRecord]) -> float | None:
    """The fraction of the variance of the validation accuracy that the number of epochs explains."""
    from sklearn.metrics import r2_score

    groups = levels(scored(trials)).values()
    scores = [_accuracies(level) for level in groups]
    observed = np.concatenate([*scores, []])
    if len(groups) < 2 or not observed.std() > 0:
        return None
    return float(r2_score(observed, np.concatenate([np.full(len(level), level.mean()) for level in scores])))


def _accuracies(trials: Sequence[TrialRecord]) -> np.ndarray:
    return np.array([trial.accuracy for trial in trials], dtype=np.float64)


def standard_scores(trials: Sequence[TrialRecord]) -> tuple[list[TrialRecord], np.ndarray]:
    """The accuracy of each trial in standard deviations above the mean of the trials of the same epochs.

    Numbers of epochs with few trials, or with equal accuracies only, are left out.
    """
    from scipy.stats import zscore

    kept: list[TrialRecord] = []
    heights: list[float] = []
    for level in levels(scored(trials)).values():
        scores = _accuracies(level)
        if len(level) >= FEWEST_IN_LEVEL and len(set(scores)) > 1:
            kept += level
            heights += list(zscore(scores))
    return kept, np.array(heights)


def importance(trials: Sequence[TrialRecord], searched: Sequence[Hyperparameter]) -> Importance:
    """Importances by a random forest on the hyperparameters and the epochs, measured on held-out points.

    Accuracies are relative to those of the same number of epochs, so that the gain from more epochs is not in
    them. A promoted trial has the same point as the trial it continues: equal points go into the same fold.
    """
    usable, heights = standard_scores(trials)
    positions = np.array([[h.position(t.values.get(h.name)) for h in searched] for t in usable])
    points = [repr([trial.values.get(h.name) for h in searched]) for trial in usable]
    different = sorted(set(points))
    if len(usable) < FEWEST_TRIALS or len(different) < FEWEST_POINTS or not searched:
        return Importance(len(usable), len(different), None, {})
    features = np.column_stack([positions, [trial.epochs for trial in usable]])
    groups = np.array([different.index(point) for point in points])
    r2, found = _fit_forest(features, heights, groups)
    shares = {
        hyperparameter.name: (float(found[:, i].mean()), float(found[:, i].std(ddof=1)))
        for i, hyperparameter in enumerate(searched)
    }
    return Importance(len(usable), len(different), r2, shares if r2 >= LEAST_R2 else {})


def _fit_forest(features: np.ndarray, heights: np.ndarray, groups: np.ndarray) -> tuple[float, np.ndarray]:
    """R2 over all folds, and the fractions of the variance: one row per fold, one column per feature.

    Shuffling a feature adds twice the variance that goes with it to the squared error: Gregorutti, Michel and
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
    """The ids of the trials that another trial continues."""
    return {trial.promoted_from for trial in trials if trial.promoted_from is not None}


def rungs(trials: Sequence[TrialRecord]) -> list[dict[str, Any]]:
    """One row per rung of each bracket, the bracket with the shortest trials first."""
    continued = promoted(trials)
    rows = []
    for bracket, rung in sorted({(t.bracket, t.rung) for t in trials}, key=lambda key: (-key[0], key[1])):
        members = [trial for trial in trials if (trial.bracket, trial.rung) == (bracket, rung)]
        scores = [trial.accuracy for trial in scored(members)]
        rows.append(
            {
                "bracket": bracket,
                "rung": rung,
                "trials": len(members),
                "epochs": max(trial.epochs for trial in members),
                "best": max(scores, default=None),
                "median": float(np.median(scores)) if scores else None,
                "promoted": sum(trial.trial_id in continued for trial in members),
                "failed": sum(trial.status == "FAILED" for trial in members),
            }
        )
    return rows


def baseline_rival(record: SearchRecord) -> tuple[TrialRecord | None, int]:
    """The best trial with as many epochs as the baseline, and the number of such trials."""
    epochs = (record.config.get("baseline") or {}).get("epochs")
    level = [trial for trial in scored(record.trials) if trial.epochs == epochs]
    return best_trial(level), len(level)
