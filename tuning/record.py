"""What a search has found so far, read from its folder as plain values. Nothing here imports Keras."""

import contextlib
import csv
import os
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from keras_vit import run_folder
from keras_vit.errors import InputError
from keras_vit.search.files import ERROR, RESULT
from keras_vit.search.point import count_mult_adds, count_parameters

SEARCH = "search.json"


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
        return max(self.completed, key=lambda trial: (trial.score, trial.epochs), default=None)


def read_search(folder: Path) -> SearchRecord:
    """What a search's folder holds now, also while it runs or after it was cut.

    Args:
        folder: of the search.

    Raises:
        InputError: it is no folder of a search, or search.json is damaged.
    """
    if not (folder / SEARCH).is_file():
        raise InputError(f"{folder} holds no search: it has no {SEARCH}.")
    config = run_folder.read_json(folder / SEARCH)
    trials: dict[str, TrialRecord] = {}
    for file in sorted(folder.glob("trial_*/trial.json")):
        with contextlib.suppress(InputError):  # KerasTuner's own reader says what is wrong
            trial = _read_trial(file, config, trials)
            trials[trial.trial_id] = trial
    return SearchRecord(folder, config, list(trials.values()))


def _read_trial(file, config, earlier) -> TrialRecord:
    state = run_folder.read_json(file)
    drawn = state["hyperparameters"]["values"]
    result, error = file.with_name(RESULT), file.with_name(ERROR)
    measured = run_folder.read_json(result) if result.is_file() else {}
    promoted_from = drawn.get("tuner/trial_id")
    values = {**config["frozen"], **{name: drawn[name] for name in config["searched"]}}
    shape, classes = tuple(config["image_shape"]), len(config["data"]["class_names"])
    return TrialRecord(
        trial_id=state["trial_id"],
        status=state["status"],
        score=state["score"] if state["status"] == "COMPLETED" else None,
        values=values,
        # KerasTuner numbers a promotion after the bracket that is filled at the time.
        bracket=earlier[promoted_from].bracket if promoted_from in earlier else drawn["tuner/bracket"],
        rung=drawn["tuner/round"],
        initial_epoch=drawn["tuner/initial_epoch"],
        epochs=drawn["tuner/epochs"],
        promoted_from=promoted_from,
        seconds=measured.get("seconds"),
        parameters=count_parameters(values, shape, classes),
        mult_adds=count_mult_adds(values, shape, classes),
        error=_last_line(error) if state["status"] in ("FAILED", "INVALID") else None,
        history=measured.get("history", []),
    )


def _last_line(error: Path) -> str:
    lines = error.read_text(encoding="utf-8").strip().splitlines() if error.is_file() else []
    return lines[-1] if lines else "its process told no reason"


def write_trials(record: SearchRecord) -> None:
    """trials.csv: a row a trial, in the order they were begun."""
    names = [field.name for field in fields(TrialRecord) if field.name not in ("values", "history")]
    columns = list(record.trials[0].values) if record.trials else []
    beside = record.folder / "trials.csv.new"
    with open(beside, "w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file)
        writer.writerow([*names, *columns])
        for trial in record.trials:
            told = [getattr(trial, name) for name in names]
            writer.writerow([*told, *(trial.values[name] for name in columns)])
    os.replace(beside, record.folder / "trials.csv")
