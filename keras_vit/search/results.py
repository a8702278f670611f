"""What a search has found so far: reads its folder as plain values, and writes trials.csv.

Nothing here imports Keras.
"""

import contextlib
from dataclasses import fields
from pathlib import Path
from typing import Any

from keras_vit import files
from keras_vit.errors import InputError, first_line
from keras_vit.evaluation.trials import SearchRecord, TrialRecord
from keras_vit.sealed import check_seal
from keras_vit.search.point import count_mult_adds, count_parameters
from keras_vit.search.schema import Result, Settings, Trial
from keras_vit.search.trial_files import ERROR, RESULT, last_line
from keras_vit.validation import check_plain

SEARCH = "search.json"


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
    damaged: dict[Path, str] = {}
    for file in sorted(folder.glob("trial_*/trial.json")):
        try:
            trial = _read_trial(file, config, trials)
        except KeyError as error:
            damaged[file] = f"it has no {error}"
        except (InputError, LookupError, TypeError, AttributeError, ValueError) as error:
            damaged[file] = first_line(error).removeprefix(f"{file} ").rstrip(".")
        else:
            trials[trial.trial_id] = trial
    return SearchRecord(folder, config, list(trials.values()), damaged)


def no_best_trial(record: SearchRecord) -> InputError:
    """The error of a search without a best trial: it has just begun, all trials failed, or it is damaged."""
    if record.damaged:
        return InputError(
            f"No trial of {record.folder} can be used. {damaged_files(record)}: bring the files back from a "
            "copy, or begin a search with another --out."
        )
    failed = [trial for trial in record.trials if trial.status == "FAILED"]
    if failed and len(failed) == len(record.trials):
        return InputError(
            f"All {len(failed)} trials of {record.folder} have failed, the last one with: "
            f"{str(failed[-1].error).rstrip('.')}. Correct that, and begin a search with another --out."
        )
    return InputError(
        f"No trial of {record.folder} has ended: continue the search with the command that began it."
    )


def damaged_files(record: SearchRecord) -> str:
    """How many files of trials cannot be used, with the first one and its reason."""
    file, reason = next(iter(record.damaged.items()))
    many = len(record.damaged) > 1
    return (
        f"{len(record.damaged)} {'files of trials are' if many else 'file of a trial is'} damaged, "
        f"{'such as ' if many else ''}{file} ({reason})"
    )


def read_settings(file: Path) -> dict[str, Any]:
    """The content of search.json.

    Raises:
        InputError: it is damaged.
    """
    fix = "begin a search with another --out"
    try:
        found = files.read_json(file)
    except InputError as error:
        raise InputError(f"{file} is damaged (it is not a JSON object): {fix}.") from error
    try:
        check_plain(Settings, found)
    except InputError as error:
        raise InputError(f"{file} is damaged ({str(error).rstrip('.')}): {fix}.") from error
    check_seal(file, found, fix)
    return found


def _read_trial(file: Path, config: dict[str, Any], earlier: dict[str, TrialRecord]) -> TrialRecord:
    state = files.read_json(file)
    check_plain(Trial, state)
    drawn = state["hyperparameters"]["values"]
    result, error = file.with_name(RESULT), file.with_name(ERROR)
    measured: dict[str, Any] = {}
    with contextlib.suppress(InputError):  # not there yet, or damaged: the score is in the trial's own file
        found = files.read_json(result)
        check_plain(Result, found)
        measured = found
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
        error=_reason(error) if state["status"] in ("FAILED", "INVALID") else None,
        history=measured.get("history", []),
    )


def _reason(error: Path) -> str:
    return last_line(error) or "its process gave no reason"


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
