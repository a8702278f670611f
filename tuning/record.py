"""What a search has found so far, read from its folder as plain values. Nothing here imports Keras."""

import contextlib
import csv
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

from keras_vit import run_folder
from keras_vit.errors import InputError
from keras_vit.search.files import ERROR, RESULT
from keras_vit.search.point import count_mult_adds, count_parameters
from keras_vit.whole_file import whole_file

SEARCH = "search.json"
# What is read of it, here and to go on.
NEEDED = ("asked", "backend", "fingerprint", "data", "frozen", "searched", "image_shape")


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


def read_search(folder: Path) -> SearchRecord:
    """What a search's folder holds now, also while it runs or after it was cut.

    Args:
        folder: of the search.

    Raises:
        InputError: it is no folder of a search, or search.json is damaged.
    """
    if not (folder / SEARCH).is_file():
        raise InputError(f"{folder} holds no search: it has no {SEARCH}.")
    config = read_asked(folder / SEARCH)
    trials: dict[str, TrialRecord] = {}
    for file in sorted(folder.glob("trial_*/trial.json")):
        # KerasTuner's own reader says what is wrong.
        with contextlib.suppress(InputError, KeyError, TypeError):
            trial = _read_trial(file, config, trials)
            trials[trial.trial_id] = trial
    return SearchRecord(folder, config, list(trials.values()))


def read_asked(file: Path) -> dict[str, Any]:
    """What search.json holds.

    Raises:
        InputError: it is damaged.
    """
    try:
        found = run_folder.read_json(file)
        missing = [name for name in NEEDED if name not in found]
        reason = f"it has no {missing[0]}" if missing else None
    except (InputError, TypeError):
        reason = "it is no JSON, or holds no names"
    if reason:
        raise InputError(f"{file} is damaged ({reason}): begin a search with another --out.")
    return found


def _read_trial(file, config, earlier) -> TrialRecord:
    state = run_folder.read_json(file)
    drawn = state["hyperparameters"]["values"]
    result, error = file.with_name(RESULT), file.with_name(ERROR)
    measured: dict[str, Any] = {}
    with contextlib.suppress(InputError):  # not there yet, or damaged: the score is in the trial's own file
        measured = run_folder.read_json(result)
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
    text = error.read_text(encoding="utf-8", errors="replace") if error.is_file() else ""
    lines = text.strip().splitlines()
    return lines[-1] if lines else "its process told no reason"


def write_trials(record: SearchRecord) -> None:
    """trials.csv: a row a trial, in the order they were begun.

    Its epochs are the trial's own, not those of the space, over which the schedule is laid out.
    """
    names = [field.name for field in fields(TrialRecord) if field.name not in ("values", "history")]
    columns = [name for name in record.trials[0].values if name not in names] if record.trials else []
    with whole_file(record.folder / "trials.csv", newline="") as file:
        writer = csv.writer(file)
        writer.writerow([*names, *columns])
        for trial in record.trials:
            told = [getattr(trial, name) for name in names]
            writer.writerow([*told, *(trial.values[name] for name in columns)])
