"""Whether the files of an oracle and its trials are of one search, before KerasTuner reads them."""

import math
from collections.abc import Collection
from pathlib import Path
from typing import Any

import keras_tuner
from keras_tuner.engine.trial import Trial, TrialStatus

from keras_vit.errors import InputError, first_line
from keras_vit.files import read_json

STATE: dict[str, type] = {
    "ongoing_trials": dict,
    "hyperparameters": dict,
    "start_order": list,
    "end_order": list,
    "run_times": dict,
    "retry_queue": list,
    "tried_so_far": list,
    "id_to_hash": dict,
    "display": dict,
    "brackets": list,
}
STATUSES = (TrialStatus.RUNNING, TrialStatus.COMPLETED, TrialStatus.INVALID, TrialStatus.FAILED)
BUDGET = ("tuner/epochs", "tuner/initial_epoch", "tuner/bracket", "tuner/round")


def is_state(path: Path) -> bool:
    """Whether a file is the state of an oracle, and names only trials that it has started."""
    try:
        state = read_json(path)
        started = set(state["start_order"])
        named = [*state["ongoing_trials"].values(), *state["end_order"], *state["retry_queue"]]
        return (
            all(isinstance(state[name], kind) for name, kind in STATE.items())
            and all(isinstance(one, str) and one.isalnum() for one in started)
            and started.issuperset(named)
        )
    except (InputError, KeyError, TypeError, AttributeError):
        return False


def fault(
    file: Path, trial_id: str, space: keras_tuner.HyperParameters, known: Collection[str]
) -> str | None:
    """What is wrong with the file of a trial, in words that follow its path; `None` if nothing is.

    Args:
        file: the file.
        trial_id: of its folder.
        space: what is searched.
        known: the trials of the search.
    """
    if not file.is_file():
        return "is missing"
    try:
        trial = Trial.from_state(read_json(file))
        values = trial.hyperparameters.values
        wrong = _fault_of_values(values, space) or _fault_of_budget(values, known)
    except InputError:
        return "is not JSON"
    except Exception as error:  # KerasTuner reads without a check: whatever it raises
        return f"is damaged ({type(error).__name__}: {first_line(error)})"
    if trial.trial_id != trial_id:
        return f"is of trial {trial.trial_id}"
    if trial.status not in STATUSES:
        return f"has the status {trial.status!r}"
    score = trial.score
    if trial.status == TrialStatus.COMPLETED and not (_is_number(score) and math.isfinite(score)):
        return f"has the score {score!r}"
    # A trial that was lost before has no point.
    return None if trial.status == TrialStatus.FAILED and not values else wrong


def _fault_of_values(values: dict[str, Any], space: keras_tuner.HyperParameters) -> str | None:
    """What is outside of the space."""
    for one in space.space:
        if one.name not in values:
            return f"has no {one.name}"
        if not _allows(one.get_config(), values[one.name]):
            return f"has {one.name}={values[one.name]!r}, which is not in the space"
    return None


def _allows(config: dict[str, Any], value: Any) -> bool:
    """Whether a hyperparameter may have a value.

    Args:
        config: as KerasTuner writes it: a list of values, one value, limits, or none of these for a bool.
        value: from the file.
    """
    if "values" in config:
        return any(value == one and type(value) is type(one) for one in config["values"])
    if "value" in config:
        return value == config["value"]
    if "min_value" not in config:
        return isinstance(value, bool)
    if not _is_number(value) or not math.isfinite(value):
        return False
    low, high = config["min_value"], config["max_value"]
    whole = isinstance(low, int) and isinstance(high, int)
    room = 0 if whole else 1e-9 * max(abs(low), abs(high))  # of rounding
    return (isinstance(value, int) or not whole) and low - room <= value <= high + room


def _fault_of_budget(values: dict[str, Any], known: Collection[str]) -> str | None:
    for name in BUDGET:
        value = values.get(name)
        if not isinstance(value, int) or isinstance(value, bool) or value < 0:
            return f"has {name}={value!r}"
    if not values["tuner/initial_epoch"] < values["tuner/epochs"]:
        return f"begins at epoch {values['tuner/initial_epoch']} of {values['tuner/epochs']}"
    before = values.get("tuner/trial_id")
    return None if before is None or before in known else f"continues trial {before!r}, which there is not"


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)
