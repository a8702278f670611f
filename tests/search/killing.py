"""For the tests that kill processes: the kills, and the checks afterwards."""

import json
import os
import random
import signal
import time
from collections import Counter

import pytest

from keras_vit.search.oracle import ENDED
from keras_vit.search.results import read_search
from tests.search.running import finish, process_of, start, wait_for

KILLS = 3
SEED = 20_241
found_alone: dict = {}  # the trials of the first search by one process


def ended(out):
    if not (out / "search.json").is_file():
        return 0
    return sum(trial.status in ENDED for trial in read_search(out).trials)


def check_complete(out, alone=True):
    record = read_search(out)
    assert [trial.trial_id for trial in record.trials] == [f"{i:04d}" for i in range(15)]
    assert {trial.status for trial in record.trials} == {"COMPLETED"}
    oracle = json.loads((out / "oracle.json").read_text())
    assert Counter(oracle["end_order"]) == Counter(trial.trial_id for trial in record.trials)
    for trial in record.trials:
        # Only the last run of a trial counts: one row per epoch that this run trained.
        own = range(trial.initial_epoch + 1, trial.epochs + 1)
        assert [row["epoch"] for row in trial.history] == list(own)
        assert trial.score == max(row["val_accuracy"] for row in trial.history)
    # Each rung continues the best trials of the rung before, once each.
    promoted = Counter(trial.promoted_from for trial in record.trials if trial.promoted_from)
    assert set(promoted.values()) == {1}
    assert Counter((trial.bracket, trial.rung) for trial in record.trials) == {
        (2, 0): 4, (2, 1): 2, (2, 2): 1, (1, 0): 3, (1, 1): 2, (0, 0): 3,
    }  # fmt: skip
    # A search by one process tries the same points with the same results, whenever it is killed.
    if alone:
        for trial, other in zip(record.trials, found_alone.setdefault("trials", record.trials), strict=True):
            assert (trial.values, trial.promoted_from) == (other.values, other.promoted_from)
            for row, expected in zip(trial.history, other.history, strict=True):
                assert row == pytest.approx(expected, abs=1e-6)
    assert (out / "best.json").is_file()
    assert (out / "report.html").is_file()


def check_loadable(images, out):
    """Opens the search as a script would."""
    from keras_vit.search import ViTHyperband
    from keras_vit.search.config import SearchConfig, from_dict
    from keras_vit.search.worker import Job, make_hypermodel

    config = from_dict(read_search(out).config["asked"], SearchConfig(out=out))
    tuner = ViTHyperband(
        make_hypermodel(Job(config, None, None)), factor=2, directory=out.parent, project_name=out.name
    )
    best = tuner.oracle.get_best_trials(1)[0]
    assert best.score == read_search(out).best.score
    assert tuner.get_best_models(1)[0].built


def kill_repeatedly(images, out, *victims, options=()):
    """Starts a search and kills each of `victims` `KILLS` times at random moments. The search still ends."""
    chance, before = random.Random(SEED), dict.fromkeys(victims)
    search = start(images, out, *options)
    try:
        for victim in victims * KILLS:
            time.sleep(chance.uniform(0.5, 3) / len(victims))
            before[victim] = kill(search, out, victim, before[victim])
        finish(search)
    finally:
        search.kill()


def kill(search, out, victim, before) -> int:
    """Kills the process of this name, once it is not the one that was killed before."""

    def found():
        assert search.poll() is None, search.communicate()[0][-3000:]
        process = process_of(out, victim)
        return process if process != before and is_alive(process) else None

    process = wait_for(found, f"another process {victim}")
    os.kill(process, signal.SIGKILL)
    return process


def is_alive(process) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, TypeError):
        return False
    return True
