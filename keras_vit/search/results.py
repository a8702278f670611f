"""What a search has found so far: reads its folder as plain values, and writes trials.csv.

Nothing here imports Keras.
"""

import contextlib
from dataclasses import fields
from pathlib import Path
from typing import Any

from keras_vit import files
from keras_vit.errors import InputError
from keras_vit.evaluation.trials import SearchRecord, TrialRecord
from keras_vit.search.point import count_mult_adds, count_parameters
from keras_vit.search.trial_files import ERROR, RESULT

SEARCH = "search.json"
# What is read from it, here and to continue the search.
NEEDED = ("asked", "backend", "fingerprint", "data", "frozen", "searched", "image_shape")


def read_search(folder: Path) -> SearchRecord:
    """The trials in the folder of a search, also while it runs or after it was cut off.

    Args:
        folder: of the search.

    Raises:
        InputError: it is not the folder of a search, or search.json is damaged.
    """
    if not (folder / SEARCH).is_file():
        raise InputError(f"{folder} does not hold a search: it has no {SEARCH}.")
    config = read_settings(folder / SEARCH)
    trials: dict[str, TrialRecord] = {}
    for file in sorted(folder.glob("trial_*/trial.json")):
        # Damaged files are skipped: KerasTuner's own reader reports them.
        with contextlib.suppress(InputError, KeyError, TypeError):
            trial = _read_trial(file, config, trials)
            trials[trial.trial_id] = trial
    return SearchRecord(folder, config, list(trials.values()))


def read_settings(file: Path) -> dict[str, Any]:
    """The content of search.json.

    Raises:
        InputError: it is damaged.
    """
    try:
        found = files.read_json(file)
        missing = [name for name in NEEDED if name not in found]
        reason = f"it has no {missing[0]}" if missing else None
    except (InputError, TypeError):
        reason = "it is not a JSON object"
    if reason:
        raise InputError(f"{file} is damaged ({reason}): begin a search with another --out.")
    return found


def _read_trial(file: Path, config: dict[str, Any], earlier: dict[str, TrialRecord]) -> TrialRecord:
    state = files.read_json(file)
    drawn = state["hyperparameters"]["values"]
    result, error = file.with_name(RESULT), file.with_name(ERROR)
    measured: dict[str, Any] = {}
    with contextlib.suppress(InputError):  # not there yet, or damaged: the score is in the trial's own file
        measured = files.read_json(result)
    promoted_from = drawn.get("tuner/trial_id")
    values = {**config["frozen"], **{name: drawn[name] for name in config["searched"]}}
    height, width, channels = config["image_shape"]
    shape, classes = (height, width, channels), len(config["data"]["class_names"])
    weights = config["asked"].get("weights")
    if weights:
        parameters, mult_adds = weights["parameters"], weights["mult_adds"]
    else:
        parameters = count_parameters(values, shape, classes)
        mult_adds = count_mult_adds(values, shape, classes)
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
        parameters=parameters,
        mult_adds=mult_adds,
        error=_last_line(error) if state["status"] in ("FAILED", "INVALID") else None,
        history=measured.get("history", []),
    )


def _last_line(error: Path) -> str:
    text = error.read_text(encoding="utf-8", errors="replace") if error.is_file() else ""
    lines = text.strip().splitlines()
    return lines[-1] if lines else "its process gave no reason"


def write_trials(record: SearchRecord) -> None:
    """Writes trials.csv: one row per trial, in the order in which they began.

    The epochs are those of the trial, not those of the space, over which the schedule is laid out.
    """
    names = [field.name for field in fields(TrialRecord) if field.name not in ("values", "history")]
    columns = [name for name in record.trials[0].values if name not in names] if record.trials else []
    rows = [
        {**{name: getattr(trial, name) for name in names}, **{name: trial.values[name] for name in columns}}
        for trial in record.trials
    ]
    files.write_csv(record.folder / "trials.csv", rows, [*names, *columns])
