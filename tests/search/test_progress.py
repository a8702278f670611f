"""The progress of a search: the plan of Hyperband, checked against KerasTuner, and the printed lines."""

import dataclasses
import sys
from pathlib import Path

import keras_tuner
import pytest

from keras_vit.evaluation.trials import SearchRecord, TrialRecord
from keras_vit.search.oracle import ViTOracle
from keras_vit.search.progress import (
    Display,
    first_trials,
    minutes,
    plan,
    seconds_left,
    state_line,
    trial_line,
)
from tests.search import synthetic

pytestmark = pytest.mark.same_on_every_backend

ORACLES = {"KerasTuner's": keras_tuner.oracles.HyperbandOracle, "ours": ViTOracle}


def planned_values(kind, folder, max_epochs, factor, iterations):
    """All trials of an oracle, in order, for a tuner that finishes each one at once."""
    hp = keras_tuner.HyperParameters()
    hp.Float("x", 0.0, 1.0)
    options = dict(max_epochs=max_epochs, factor=factor, hyperband_iterations=iterations, seed=1)
    oracle = kind(objective=keras_tuner.Objective("score", "max"), hyperparameters=hp, **options)
    oracle._set_project_dir(folder, "search")
    oracle.save = oracle._save_trial = lambda *_: None  # the files are not tested here, and there are many
    oracle.verbose = 0
    found = []
    while (trial := oracle.create_trial("tuner0")).status != "STOPPED":
        values = trial.hyperparameters.values
        oracle.update_trial(trial.trial_id, {"score": values["x"]}, step=values["tuner/epochs"])
        trial.status = "COMPLETED"
        oracle.end_trial(trial)
        found.append(values)
    return found


# 243 / 3 and 125 / 5: math.log gives a little less than 5, and a little more than 3.
LENGTHS = [
    *((epochs, 2, 1) for epochs in (1, 2, 3, 4, 5, 8, 12)),
    *((epochs, 3, 1) for epochs in (1, 2, 3, 4, 9, 10, 26, 27, 28, 81, 100, 243)),
    *((epochs, 4, 1) for epochs in (3, 4, 15, 16, 20, 64)),
    *((epochs, 5, 1) for epochs in (24, 25, 125)),
    (4, 2, 2),
    (9, 3, 3),
    (10, 3, 2),
]


@pytest.mark.parametrize(
    ("kind", "max_epochs", "factor", "iterations"),
    # Our oracle reads all trials whenever one ends: seconds for hundreds of them.
    [(kind, *length) for kind in ORACLES for length in LENGTHS if kind != "ours" or length[0] < 64],
)
def test_the_plan_is_what_kerastuner_does(kind, max_epochs, factor, iterations, tmp_path):
    found = planned_values(ORACLES[kind], tmp_path, max_epochs, factor, iterations)
    names = ("bracket", "round", "initial_epoch", "epochs")
    expected = [
        (rung.bracket, rung.number, rung.initial_epoch, rung.epochs)
        for rung in plan(max_epochs, factor, iterations)
        for _ in range(rung.trials)
    ]
    assert [tuple(values[f"tuner/{name}"] for name in names) for values in found] == expected


@pytest.mark.parametrize("factor", [2, 3, 4, 5, 10])
def test_the_plan_has_kerastuners_numbers(factor):
    for max_epochs in (*range(1, 300), 512, 625, 729, 1000, 1024, 3125):
        oracle = keras_tuner.oracles.HyperbandOracle("val_loss", max_epochs=max_epochs, factor=factor)
        expected = {
            (bracket, number): (oracle._get_size(bracket, number), oracle._get_epochs(bracket, number))
            for bracket in range(oracle._get_num_brackets())
            for number in range(bracket + 1)
        }
        found = {(rung.bracket, rung.number): (rung.trials, rung.epochs) for rung in plan(max_epochs, factor)}
        assert found == expected, max_epochs


def test_the_plan_of_the_default_search():
    rungs = plan(27, 3)
    assert [(rung.bracket, rung.trials, rung.initial_epoch, rung.epochs) for rung in rungs] == [
        (3, 27, 0, 1), (3, 9, 1, 3), (3, 3, 3, 9), (3, 1, 9, 27),
        (2, 12, 0, 3), (2, 4, 3, 9), (2, 2, 9, 27),
        (1, 6, 0, 9), (1, 2, 9, 27),
        (0, 4, 0, 27),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("most", "trials"),
    [
        (None, [4, 2, 1, 3, 2, 3]),
        (1, [1]),
        (4, [4]),
        (5, [4, 1]),
        (8, [4, 2, 1, 1]),
        (99, [4, 2, 1, 3, 2, 3]),
    ],
)
def test_fewer_trials_are_the_first(most, trials):
    rungs = plan(4, 2)
    found = first_trials(rungs, most)
    assert [rung.trials for rung in found] == trials
    assert [rung.epochs for rung in found] == [rung.epochs for rung in rungs][: len(trials)]


def record(trials):
    return SearchRecord(Path("x"), {}, list(trials))


def trials_of(rungs, start=0.0, each=10.0):
    """A finished trial for each planned one, with a fixed cost and a cost per epoch."""
    found: list[TrialRecord] = []
    for rung in rungs:
        before = [trial for trial in found if (trial.bracket, trial.rung) == (rung.bracket, rung.number - 1)]
        for i in range(rung.trials):
            found.append(
                TrialRecord(
                    trial_id=f"{len(found):04d}",
                    status="COMPLETED",
                    score=0.5,
                    values={"depth": 6, "num_heads": 4, "dim": 64, "learning_rate": 2e-3},
                    bracket=rung.bracket,
                    rung=rung.number,
                    initial_epoch=rung.initial_epoch,
                    epochs=rung.epochs,
                    promoted_from=before[i].trial_id if before else None,
                    seconds=start + each * (rung.epochs - rung.initial_epoch),
                )
            )
    return found


RUNGS = plan(4, 2)  # 15 trials: 4, 2 and 1; 3 and 2; 3. 4 + 2 + 2 + 6 + 4 + 12 = 30 epochs
ALL = trials_of(RUNGS)


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize(("start", "each"), [(0.0, 10.0), (5.0, 10.0), (20.0, 1.0)])
@pytest.mark.parametrize("done", [5, 7, 14])
def test_the_time_left_is_the_time_of_the_other_trials(done, start, each, workers):
    trials = trials_of(RUNGS, start, each)
    if len({trial.epochs - trial.initial_epoch for trial in trials[:done]}) == 1:
        start, each = 0.0, start + each  # trials of one length give one number only
    left = sum(start + each * (trial.epochs - trial.initial_epoch) for trial in trials[done:])
    assert seconds_left(record(trials[:done]), RUNGS, workers) == pytest.approx(left / workers)


def test_the_time_left_before_and_after():
    running = dataclasses.replace(ALL[0], status="RUNNING", score=None, seconds=None)
    failed = dataclasses.replace(ALL[0], status="FAILED", score=None, seconds=None, error="x")
    for trials in ([], [running], [failed]):
        assert seconds_left(record(trials), RUNGS, 1) is None
    assert seconds_left(record(ALL), RUNGS, 1) == 0.0
    assert seconds_left(record(ALL), first_trials(RUNGS, 3), 1) == 0.0
    # A failed trial is done, and its time is not used.
    assert seconds_left(record([failed, *ALL[1:7]]), RUNGS, 1) == pytest.approx(220.0)


def test_the_time_left_is_never_negative():
    faster = [dataclasses.replace(trial, seconds=100.0 / trial.epochs) for trial in ALL[:7]]
    assert seconds_left(record(faster), RUNGS, 1) > 0
    assert seconds_left(record(faster), RUNGS, 0) > 0


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 s"),
        (0.4, "0 s"),
        (89.4, "89 s"),
        (90, "2 min"),
        (600, "10 min"),
        (5369, "89 min"),
        (5400, "1 h 30 min"),
        (12000, "3 h 20 min"),
        (86400, "24 h 0 min"),
    ],
)
def test_times_as_text(seconds, text):
    assert minutes(seconds) == text


POINT = "; depth 6, heads 4, dim 64, learning rate 2.0e-03"


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        (dict(), "0007   50.0%  epoch 1"),
        (dict(score=1.0), "0007  100.0%  epoch 1"),
        (dict(epochs=3), "0007   50.0%  epochs 1 to 3"),
        (dict(initial_epoch=1, epochs=4, promoted_from="0003"), "0007   50.0%  epochs 2 to 4, from 0003"),
        (dict(initial_epoch=1, epochs=2, promoted_from="0003"), "0007   50.0%  epoch 2, from 0003"),
        (dict(status="FAILED", score=None, error="ValueError: x"), "0007  failed: ValueError: x  epoch 1"),
    ],
)
def test_the_line_of_a_trial(changes, line):
    trial = dataclasses.replace(ALL[0], **{"trial_id": "0007", **changes})
    assert trial_line(trial) == line + POINT


@pytest.mark.parametrize(
    ("statuses", "most", "line"),
    [
        ("", None, "0 of 15 trials done, 0 running"),
        ("R", None, "0 of 15 trials done, 1 running"),
        ("CCR", None, "2 of 15 trials done, 1 running, best 50.0% (0000), about 5 min left"),
        ("CFI", None, "2 of 15 trials done, 1 failed, 0 running, best 50.0% (0000), about 5 min left"),
        ("CC", 3, "2 of 3 trials done, 0 running, best 50.0% (0000), about 10 s left"),
        ("CCCC", 5, "4 of 5 trials done, 0 running, best 50.0% (0000), about 10 s left"),
        ("CCC", 3, "3 of 3 trials done, 0 running, best 50.0% (0000), about 0 s left"),
        # A trial that has started is finished, even if fewer trials are asked for now.
        ("CCR", 1, "2 of 3 trials done, 1 running, best 50.0% (0000), about 10 s left"),
        ("C", 99, "1 of 15 trials done, 0 running, best 50.0% (0000), about 5 min left"),
    ],
)
def test_the_line_of_the_search(statuses, most, line):
    names = {"C": "COMPLETED", "R": "RUNNING", "F": "FAILED", "I": "INVALID"}
    trials = [
        trial
        if letter == "C"
        else dataclasses.replace(trial, status=names[letter], score=None, seconds=None, error="x")
        for trial, letter in zip(ALL, statuses, strict=False)
    ]
    assert state_line(record(trials), RUNGS, 1, most) == line


def test_made_up_searches_have_lines():
    done = synthetic.search()
    assert all(trial_line(trial).startswith(trial.trial_id) for trial in done.trials)
    assert state_line(done, plan(9, 3), 4).startswith(f"{len(done.trials)} of ")


def test_without_a_terminal_each_trial_is_printed_once(capsys):
    display = Display(RUNGS, workers=1)
    display.show(record([]))
    running = dataclasses.replace(ALL[1], status="RUNNING", score=None, seconds=None)
    for trials in (ALL[:1], [ALL[0], running], ALL[:2], ALL[:4], ALL[:4]):
        display.show(record(trials))
    display.end()
    lines = capsys.readouterr().out.splitlines()
    assert [line[:4] for line in lines] == ["0000", "0001", "0002", "0003"]
    assert lines[1] == f"{trial_line(ALL[1])}  [{state_line(record(ALL[:2]), RUNGS, 1)}]"


def test_a_continued_search_says_so_and_prints_new_trials(capsys):
    display = Display(RUNGS, workers=1, most=3)
    display.show(record(ALL[:2]))
    display.show(record(ALL[:3]))
    output = capsys.readouterr().out.splitlines()
    assert output == [
        "continues: 2 of 3 trials done, 0 running, best 50.0% (0000), about 10 s left",
        f"{trial_line(ALL[2])}  [3 of 3 trials done, 0 running, best 50.0% (0000), about 0 s left]",
    ]


def test_on_a_terminal_the_state_is_the_last_line(capsys, monkeypatch):
    monkeypatch.setattr(sys.stdout, "isatty", lambda: True, raising=False)
    monkeypatch.setenv("COLUMNS", "40")
    display = Display(RUNGS, workers=1)
    display.show(record([]))
    display.show(record(ALL[:1]))
    display.end()
    output = capsys.readouterr().out
    clear = "\r\x1b[K"
    state = state_line(record(ALL[:1]), RUNGS, 1)
    assert output == (
        f"{clear}0 of 15 trials done, 0 running{clear}{trial_line(ALL[0])}\n{clear}{state[:39]}{clear}"
    )
