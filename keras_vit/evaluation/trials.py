"""The trials of a search as plain values."""

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TypeGuard


@dataclass(frozen=True)
class TrialRecord:
    """One trial of a search: a point of the search space, trained for some epochs.

    Args:
        trial_id: As KerasTuner counts them, such as `"0007"`.
        status: KerasTuner's: `"COMPLETED"`, `"RUNNING"`, `"INVALID"` (to be retried) or `"FAILED"`.
        score: Best validation accuracy over its epochs; `None` before there is one.
        values: The point, by the names of the fields of `SearchSpace`, frozen fields included.
        bracket: Hyperband's bracket, counted down to 0.
        rung: Round of successive halving, from 0.
        initial_epoch: Epochs already trained by the trial it continues.
        epochs: Epochs at its end, those of the trials it continues included.
        promoted_from: `trial_id` of the trial it continues.
        seconds: Duration of its own `fit`.
        parameters: Number of parameters of the model.
        mult_adds: Multiply-adds of the forward pass, per image.
        error: Why it failed.
        history: One dict per epoch that it trained itself.
    """

    trial_id: str
    status: str
    score: float | None
    values: dict[str, Any]
    bracket: int
    rung: int
    initial_epoch: int
    epochs: int
    promoted_from: str | None = None
    seconds: float | None = None
    parameters: int | None = None
    mult_adds: int | None = None
    error: str | None = None
    history: list[dict[str, float]] = field(default_factory=list)

    @property
    def has_ended(self) -> bool:
        """Whether it is not run again."""
        return self.status in ("COMPLETED", "FAILED")

    @property
    def accuracy(self) -> float:
        """The score of a trial that has one, such as each of `scored`.

        Raises:
            ValueError: The trial has no score.
        """
        if self.score is None:
            raise ValueError(f"trial {self.trial_id} has no score. Its status: {self.status}")
        return self.score


@dataclass(frozen=True)
class SearchRecord:
    """All trials of a search.

    Args:
        folder: The search's folder.
        config: The settings of the search: search.json.
        trials: In the order in which they began.
        damaged: Files of trials that cannot be used, each with the reason.
    """

    folder: Path
    config: dict[str, Any]
    trials: list[TrialRecord]
    damaged: dict[Path, str] = field(default_factory=dict)

    @property
    def completed(self) -> list[TrialRecord]:
        return [trial for trial in self.trials if trial.status == "COMPLETED"]

    @property
    def best(self) -> TrialRecord | None:
        return best_trial(self.trials)


def known(number: float | None) -> TypeGuard[float]:
    """Whether a number is there and finite."""
    return number is not None and math.isfinite(number)


def scored(trials: Sequence[TrialRecord]) -> list[TrialRecord]:
    """The completed trials that have a validation accuracy."""
    return [trial for trial in trials if trial.status == "COMPLETED" and known(trial.score)]


def best_trial(trials: Sequence[TrialRecord]) -> TrialRecord | None:
    """The trial with the best validation accuracy; of equal ones, the one with the most epochs."""
    return max(scored(trials), key=lambda trial: (trial.accuracy, trial.epochs), default=None)
