"""The trials of a search as plain values."""

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class TrialRecord:
    """One trial of a search: a point of the space, trained over some epochs.

    Args:
        trial_id: as KerasTuner counts them, such as `"0007"`.
        status: of KerasTuner: `"COMPLETED"`, `"RUNNING"`, `"INVALID"` (to be tried again) or `"FAILED"`.
        score: the best validation accuracy of its epochs; `None` where it has none yet.
        values: the point, by the names of the fields of `SearchSpace`; fields that are frozen too.
        bracket: of Hyperband, counted down to 0.
        rung: successive halving's round, from 0.
        initial_epoch: epochs that it did not train itself: those of the trial it goes on from.
        epochs: at its end, those of the trials it goes on from included.
        promoted_from: `trial_id` of the trial it goes on from.
        seconds: its own `fit` took.
        parameters: of the model.
        mult_adds: of one image, forward.
        error: why it failed.
        history: one dict an epoch, of the epochs it trained itself.
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


@dataclass(frozen=True)
class SearchRecord:
    """All trials of a search.

    Args:
        folder: of the search.
        config: what was asked for: search.json.
        trials: in the order they were begun.
    """

    folder: Path
    config: dict[str, Any]
    trials: list[TrialRecord]

    @property
    def completed(self) -> list[TrialRecord]:
        return [trial for trial in self.trials if trial.status == "COMPLETED"]

    @property
    def best(self) -> TrialRecord | None:
        """The completed trial with the best validation accuracy; of equal ones, the one of most epochs."""
        scored = [trial for trial in self.completed if trial.score is not None]
        return max(scored, key=lambda trial: (trial.score, trial.epochs), default=None)
