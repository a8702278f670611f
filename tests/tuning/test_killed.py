"""kill -9 at any moment: of the search as a whole, of a worker, of the chief. Each trial is counted once."""

import json
import os
import random
import signal
import time
from collections import Counter

import pytest
from running import finish, process_of, start, wait_for

from keras_vit.search.oracle import ENDED
from tuning.record import read_search

pytestmark = [pytest.mark.long, pytest.mark.same_on_every_backend]

KILLS = 5
SEED = 20_241
found_alone: dict = {}


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
        # Its last run alone is counted: one row an epoch that it trained itself.
        own = range(trial.initial_epoch + 1, trial.epochs + 1)
        assert [row["epoch"] for row in trial.history] == list(own)
        assert trial.score == max(row["val_accuracy"] for row in trial.history)
    # Each rung goes on with the best of the one before, once each.
    promoted = Counter(trial.promoted_from for trial in record.trials if trial.promoted_from)
    assert set(promoted.values()) == {1}
    assert Counter((trial.bracket, trial.rung) for trial in record.trials) == {
        (2, 0): 4, (2, 1): 2, (2, 2): 1, (1, 0): 3, (1, 1): 2, (0, 0): 3,
    }  # fmt: skip
    # One process alone tries the same points with the same results, wherever it is killed.
    if alone:
        for trial, other in zip(record.trials, found_alone.setdefault("trials", record.trials), strict=True):
            assert (trial.values, trial.promoted_from) == (other.values, other.promoted_from)
            for row, expected in zip(trial.history, other.history, strict=True):
                assert row == pytest.approx(expected, abs=1e-6)
    assert (out / "best.json").is_file()
    assert (out / "report.html").is_file()


def check_loadable(images, out):
    """The search as a script of one's own opens it."""
    from keras_vit.search import ViTHyperband
    from tuning.config import SearchConfig, from_dict
    from tuning.worker import Job, make_hypermodel

    config = from_dict(read_search(out).config["asked"], SearchConfig(out=out))
    tuner = ViTHyperband(
        make_hypermodel(Job(config, None, None)), factor=2, directory=out.parent, project_name=out.name
    )
    best = tuner.oracle.get_best_trials(1)[0]
    assert best.score == read_search(out).best.score
    assert tuner.get_best_models(1)[0].built


@pytest.fixture(scope="module")
def more_images(tmp_path_factory):
    import tiny

    return tiny.draw(tmp_path_factory.mktemp("images") / "images", each=20)


def test_the_command_itself_is_killed(more_images, tmp_path):
    out, chance = tmp_path / "search", random.Random(SEED)
    for _ in range(KILLS):
        process = start(more_images, out)
        before = ended(out)
        wait_for(lambda before=before: ended(out) > before, "a trial's end")
        time.sleep(chance.uniform(0, 3))
        process.send_signal(signal.SIGKILL)
        finish(process, -signal.SIGKILL)
    finish(start(more_images, out))
    check_complete(out)
    check_loadable(more_images, out)


@pytest.mark.parametrize(
    ("victim", "options"),
    [("tuner0", ()), ("worker1", ("--workers", "2")), ("chief", ("--workers", "2"))],
)
def test_a_process_is_killed(more_images, tmp_path, victim, options):
    out, chance = tmp_path / "search", random.Random(SEED)
    search = start(more_images, out, *options)
    try:
        for _ in range(KILLS):
            time.sleep(chance.uniform(0.5, 3))
            kill(search, out, victim)
        finish(search)
    finally:
        search.kill()
    check_complete(out, alone=victim == "tuner0")
    check_loadable(more_images, out)


def kill(search, out, victim):
    """Kills the process under a name, when there is one."""

    def found():
        assert search.poll() is None, search.communicate()[0][-3000:]
        process = process_of(out, victim)
        return process if process != killed.get(out) and is_alive(process) else None

    killed.setdefault(out, None)
    process = wait_for(found, f"another process {victim}")
    killed[out] = process
    os.kill(process, signal.SIGKILL)


killed: dict = {}


def is_alive(process) -> bool:
    try:
        os.kill(process, 0)
    except (ProcessLookupError, TypeError):
        return False
    return True
