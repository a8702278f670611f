"""The oracle alone, with made-up scores: which trials it counts and keeps after any failure."""

import json
import math
import shutil
import time
from collections import Counter

import keras_tuner
import pytest
from keras_tuner.engine.trial import Trial

from keras_vit.search import oracle as module
from keras_vit.search.oracle import LOST_AFTER, ViTOracle
from keras_vit.search.trial_files import SET_ASIDE, WEIGHTS
from keras_vit.training.checkpoint import CHECKPOINT

pytestmark = pytest.mark.same_on_every_backend

RUNGS = {(2, 0): 4, (2, 1): 2, (2, 2): 1, (1, 0): 3, (1, 1): 2, (0, 0): 3}


def open_oracle(folder, **options):
    """An oracle of 15 trials, as read by a process that starts now."""
    oracle = ViTOracle(objective="val_accuracy", max_epochs=4, factor=2, seed=1, **options)
    oracle._set_project_dir(folder, "search")
    oracle.verbose = 0
    hp = keras_tuner.HyperParameters()
    hp.Float("x", 0.0, 1.0)
    oracle.update_space(hp)
    if oracle.file.is_file() or oracle.good_copy.is_file():
        oracle.reload()
    return oracle


def end(oracle, trial, status="COMPLETED", score=None):
    """Ends a trial as a worker does, which has a copy of it."""
    copy = Trial.from_state(trial.get_state())
    copy.status = status
    if status == "COMPLETED":
        value = copy.hyperparameters.values["x"] if score is None else score
        oracle.update_trial(copy.trial_id, {"val_accuracy": value})
    oracle.end_trial(copy)


def run_to_the_end(oracle, failing=()):
    for _ in range(100):
        trial = oracle.create_trial("tuner0")
        if trial.status == "STOPPED":
            return oracle
        end(oracle, trial, "FAILED" if trial.trial_id in failing else "COMPLETED")
    raise AssertionError("the search does not end")


def rungs(oracle):
    found = [trial.hyperparameters.values for trial in oracle.trials.values()]
    return Counter((values["tuner/bracket"], values["tuner/round"]) for values in found)


@pytest.mark.parametrize("failing", [(), ("0000",), ("0001", "0003"), ("0004",), ("0009", "0010")])
def test_halving_continues_without_failed_trials(tmp_path, failing):
    oracle = run_to_the_end(open_oracle(tmp_path), failing)
    assert rungs(oracle) == RUNGS
    promoted = [trial.hyperparameters.values.get("tuner/trial_id") for trial in oracle.trials.values()]
    assert not set(failing) & set(promoted)
    assert {oracle.trials[trial_id].status for trial_id in failing} <= {"FAILED"}


def test_keras_tuners_own_oracle_stops_a_bracket_at_a_failure(tmp_path):
    # The reason for the test above. When this test fails, KerasTuner has fixed it.
    oracle = keras_tuner.oracles.HyperbandOracle(objective="val_accuracy", max_epochs=4, factor=2, seed=1)
    oracle._set_project_dir(tmp_path, "search")
    oracle.verbose = 0
    hp = keras_tuner.HyperParameters()
    hp.Float("x", 0.0, 1.0)
    oracle.update_space(hp)
    assert rungs(run_to_the_end(oracle, ("0004",)))[2, 2] == 0


def test_a_kill_between_two_files_counts_a_trial_once(tmp_path):
    oracle = open_oracle(tmp_path)
    first = oracle.create_trial("tuner0")
    before = oracle.file.read_text()
    end(oracle, first, score=0.5)
    oracle.file.write_text(before)  # the file of the trial was written, but not that of the oracle
    again = open_oracle(tmp_path)
    assert again.end_order == ["0000"]
    assert again.create_trial("tuner0").trial_id == "0001"
    assert again.trials["0000"].score == 0.5


def test_an_ended_trial_in_the_list_of_running_ones_is_not_run_again(tmp_path):
    oracle = open_oracle(tmp_path)
    # KerasTuner saves before it removes the trial from the list of running trials.
    end(oracle, oracle.create_trial("tuner0"), score=0.5)
    assert '"ongoing_trials": {\n    "tuner0": "0000"' in oracle.file.read_text()
    again = open_oracle(tmp_path)
    assert again.create_trial("tuner0").trial_id == "0001"
    assert again.end_order == ["0000"]


def test_an_interrupted_trial_has_the_score_of_its_last_run(tmp_path):
    oracle = open_oracle(tmp_path)
    trial = oracle.create_trial("tuner0")
    oracle.update_trial(trial.trial_id, {"val_accuracy": 0.9}, step=3)
    again = open_oracle(tmp_path)
    assert again.create_trial("tuner0").trial_id == trial.trial_id
    end(again, again.trials[trial.trial_id], score=0.4)
    assert again.trials[trial.trial_id].score == 0.4


@pytest.mark.parametrize("damage", ["", '{"ongoing', None])
def test_a_damaged_file_is_restored_from_its_copy(tmp_path, damage):
    oracle = open_oracle(tmp_path)
    for _ in range(5):
        end(oracle, oracle.create_trial("tuner0"))
    scores = {trial.trial_id: trial.score for trial in oracle.trials.values()}
    if damage is None:
        oracle.file.unlink()
    else:
        oracle.file.write_text(damage)
    again = open_oracle(tmp_path)
    assert {trial.trial_id: trial.score for trial in again.trials.values()} == scores
    assert rungs(run_to_the_end(again)) == RUNGS


GONE = object()


def change(values=(), **changes):
    """Changes the file of a trial; `GONE` removes a key, and values are those of its point."""

    def write(file):
        state = json.loads(file.read_text())
        state["hyperparameters"]["values"] |= dict(values)
        state |= changes
        file.write_text(json.dumps({key: value for key, value in state.items() if value is not GONE}))

    return write


BAD_TRIALS = {
    "cut off": (lambda file: file.write_text("{"), "is not JSON"),
    "empty": (lambda file: file.write_bytes(b""), "is not JSON"),
    "missing": (lambda file: file.unlink(), "is missing"),
    "a folder": (lambda file: (file.unlink(), file.mkdir()), "is missing"),
    "a list": (lambda file: file.write_text("[]"), "is damaged"),
    "no score": (change(score=GONE), "is damaged"),
    "no metrics": (change(metrics=GONE), "is damaged"),
    "metrics of another type": (change(metrics=[1]), "is damaged"),
    "another trial": (change(trial_id="0007"), "is of trial 0007"),
    "an unknown status": (change(status="DONE"), "has the status 'DONE'"),
    "an empty score": (change(score=None), "has the score None"),
    "a score of NaN": (change(score=math.nan), "has the score nan"),
    "an infinite score": (change(score=math.inf), "has the score inf"),
    "a word for a score": (change(score="1.0"), "has the score '1.0'"),
    "true for a score": (change(score=True), "has the score True"),
    "outside the space": (change(values={"x": 2.0}), "has x=2.0, which is not in the space"),
    "below the space": (change(values={"x": -1e-3}), "has x=-0.001, which is not in the space"),
    "a value of NaN": (change(values={"x": math.nan}), "has x=nan, which is not in the space"),
    "a word for a value": (change(values={"x": "deep"}), "has x='deep', which is not in the space"),
    "other values": (change(hyperparameters={"space": [], "values": {"y": 1}}), "has no x"),
    "many epochs": (change(values={"tuner/epochs": "many"}), "has tuner/epochs='many'"),
    "a past of nowhere": (change(values={"tuner/trial_id": "9999"}), "continues trial '9999'"),
}


@pytest.mark.parametrize(("damage", "message"), BAD_TRIALS.values(), ids=BAD_TRIALS.keys())
def test_a_bad_trial_is_set_aside_and_the_others_go_on(tmp_path, capsys, damage, message):
    oracle = open_oracle(tmp_path)
    for _ in range(3):
        end(oracle, oracle.create_trial("tuner0"))
    file = oracle.folder_of("0001") / "trial.json"
    damage(file)
    again = open_oracle(tmp_path)
    line = f"{file} {message}"
    assert line in capsys.readouterr().out
    assert again.trials["0001"].status == "FAILED"
    assert file.with_name(SET_ASIDE).exists() is (damage is not BAD_TRIALS["missing"][0])
    run_to_the_end(again)
    promoted = [trial.hyperparameters.values.get("tuner/trial_id") for trial in again.trials.values()]
    assert "0001" not in promoted
    del again.trials["0001"]  # its place in the first rung stays empty
    assert rungs(again) == {**RUNGS, (2, 0): RUNGS[2, 0] - 1}
    open_oracle(tmp_path)
    assert "set aside" not in capsys.readouterr().out  # once is enough


def test_many_bad_trials_do_not_end_the_search(tmp_path):
    oracle = open_oracle(tmp_path)
    for _ in range(4):
        end(oracle, oracle.create_trial("tuner0"))
    for trial_id in ("0000", "0001", "0002"):
        (oracle.folder_of(trial_id) / "trial.json").write_text("{")
    run_to_the_end(open_oracle(tmp_path))


def test_a_foreign_trial_is_set_aside(tmp_path, capsys):
    oracle = open_oracle(tmp_path)
    end(oracle, oracle.create_trial("tuner0"))
    shutil.copytree(oracle.folder_of("0000"), oracle.folder_of("0009"))
    change(trial_id="0009", score=1.0)(oracle.folder_of("0009") / "trial.json")
    again = open_oracle(tmp_path)
    assert "trial_0009/trial.json is not of this search: it was set aside" in capsys.readouterr().out
    assert list(again.trials) == ["0000"]
    assert not (oracle.folder_of("0009") / "trial.json").exists()


def test_a_space_that_was_widened_is_narrowed_again(tmp_path):
    space = keras_tuner.HyperParameters()
    space.Float("x", 0.0, 1.0)
    oracle = open_oracle(tmp_path, space=space)
    end(oracle, oracle.create_trial("tuner0"))
    state = json.loads(oracle.file.read_text())
    wide = keras_tuner.HyperParameters()
    wide.Float("x", 0.0, 1e9)
    wide.Int("y", 0, 10**9)
    oracle.file.write_text(json.dumps({**state, "hyperparameters": wide.get_config()}))
    again = run_to_the_end(open_oracle(tmp_path, space=space))
    for trial in again.trials.values():
        assert 0 <= trial.hyperparameters.values["x"] <= 1
        assert "y" not in trial.hyperparameters.values


@pytest.mark.parametrize(
    "damage",
    ["[]", "{}", '{"start_order": 7}', None],
    ids=["a list", "no keys", "another type", "unknown trials"],
)
def test_a_state_that_is_json_and_no_oracle_is_restored_from_its_copy(tmp_path, damage):
    oracle = open_oracle(tmp_path)
    for _ in range(3):
        end(oracle, oracle.create_trial("tuner0"))
    if damage is None:
        state = json.loads(oracle.file.read_text())
        damage = json.dumps({**state, "end_order": ["../../0000"]})
    oracle.file.write_text(damage)
    assert rungs(run_to_the_end(open_oracle(tmp_path))) == RUNGS


@pytest.mark.filterwarnings("ignore:All-NaN axis encountered:RuntimeWarning")  # of KerasTuner's metrics
@pytest.mark.parametrize("score", [math.nan, math.inf, -math.inf])
def test_a_score_that_is_not_finite_is_a_failure(tmp_path, score):
    oracle = open_oracle(tmp_path)
    end(oracle, oracle.create_trial("tuner0"), score=score)
    assert oracle.trials["0000"].status == "FAILED"
    assert open_oracle(tmp_path).trials["0000"].status == "FAILED"


def test_a_worker_cannot_widen_the_space(tmp_path):
    oracle = open_oracle(tmp_path)
    trial = oracle.create_trial("tuner0")
    wide = keras_tuner.HyperParameters()
    wide.Int("y", 0, 10**9)
    oracle.update_space(wide)
    end(oracle, trial)
    assert [one.name for one in oracle.get_space().space] == ["x"]


def test_an_unknown_trial_folder_is_skipped(tmp_path):
    oracle = open_oracle(tmp_path)
    oracle.create_trial("tuner0")
    oracle.folder_of("0001").mkdir()
    (oracle.folder_of("0001") / "trial.json").write_text("{")  # the process ended while it wrote the file
    again = open_oracle(tmp_path)
    assert list(again.trials) == ["0000"]
    assert rungs(run_to_the_end(again)) == RUNGS


def test_workers_keep_their_trials_when_the_chief_restarts(tmp_path):
    oracle = open_oracle(tmp_path, shared=True)
    held = {name: oracle.create_trial(name).trial_id for name in ("worker0", "worker1")}
    again = open_oracle(tmp_path, shared=True)
    assert again.create_trial("worker2").trial_id == "0002"
    assert {name: again.create_trial(name).trial_id for name in held} == held
    # An oracle that is not shared has no other workers, so all running trials are its own.
    alone = open_oracle(tmp_path)
    assert [alone.create_trial("tuner0").trial_id for _ in range(1)] == ["0000"]


@pytest.fixture
def clock(monkeypatch):
    """The clock of the oracle, in seconds. Tests move it forward."""
    now = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: now[0])
    return now


def test_a_worker_without_heartbeats_loses_its_trial(tmp_path, clock):
    oracle = open_oracle(tmp_path, shared=True)
    first = oracle.create_trial("lost")
    clock[0] += LOST_AFTER - 1
    oracle.get_trial(first.trial_id)  # a heartbeat
    clock[0] += LOST_AFTER - 1
    assert oracle.create_trial("other").trial_id == "0001"
    end(oracle, oracle.trials["0001"])
    clock[0] += 2
    assert oracle.create_trial("other").trial_id == first.trial_id
    # The lost worker is still alive and reports its result. Later, the other worker reports too.
    end(oracle, first, score=0.7)
    end(oracle, first, score=0.1)
    assert oracle.end_order == ["0001", "0000"]
    assert oracle.trials["0000"].score == 0.7
    assert oracle.create_trial("other").trial_id == "0002"


def test_a_lost_trial_that_ends_is_not_run_again(tmp_path, clock):
    oracle = open_oracle(tmp_path, shared=True)
    first, _ = oracle.create_trial("lost"), oracle.create_trial("other")
    clock[0] += LOST_AFTER + 1
    oracle._seen["0001"] = clock[0]
    assert oracle.create_trial("other").trial_id == "0001"  # this worker has a trial; the lost trial waits
    end(oracle, first)
    end(oracle, oracle.trials["0001"])
    assert oracle.create_trial("other").trial_id == "0002"


def test_the_chief_waits_until_all_workers_have_stopped(tmp_path, clock):
    oracle = open_oracle(tmp_path, shared=True, max_trials=2)
    one, two = oracle.create_trial("worker0"), oracle.create_trial("worker1")
    clock[0] += LOST_AFTER / 2  # both workers train
    end(oracle, one)
    assert oracle.create_trial("worker0").status == "STOPPED"
    assert not oracle.has_answered_all()
    end(oracle, two)
    assert not oracle.has_answered_all()  # worker1 has not asked yet
    assert oracle.create_trial("worker1").status == "STOPPED"
    assert oracle.has_answered_all()


def test_the_chief_does_not_wait_for_a_lost_worker(tmp_path, clock):
    oracle = open_oracle(tmp_path, shared=True, max_trials=2)
    one, two = oracle.create_trial("worker0"), oracle.create_trial("gone")
    end(oracle, one)
    end(oracle, two)
    oracle.create_trial("worker0")
    assert not oracle.has_answered_all()
    clock[0] += LOST_AFTER
    assert oracle.has_answered_all()


def test_limits(tmp_path):
    few = run_to_the_end(open_oracle(tmp_path / "few", max_trials=6))
    assert list(few.trials) == [f"{i:04d}" for i in range(6)]
    assert rungs(run_to_the_end(open_oracle(tmp_path / "few"))) == RUNGS  # it continues
    late = open_oracle(tmp_path / "late", stop_at=time.time() - 1)
    assert late.create_trial("tuner0").status == "STOPPED"


def test_only_files_that_may_be_needed_are_kept(tmp_path):
    oracle = open_oracle(tmp_path)
    while (trial := oracle.create_trial("tuner0")).status != "STOPPED":
        folder = oracle.folder_of(trial.trial_id)
        for name in (CHECKPOINT, WEIGHTS):
            (folder / name).write_text("")
        past = trial.hyperparameters.values.get("tuner/trial_id")
        assert past is None or (oracle.folder_of(past) / CHECKPOINT).is_file()
        # If it is killed here, the trial runs again from the same state.
        assert open_oracle(tmp_path).resumable() >= ({past} if past else set())
        end(oracle, trial)
    assert not list(tmp_path.rglob(CHECKPOINT))
    best = {trial.trial_id for trial in oracle.get_best_trials(3)}
    assert {file.parent.name for file in tmp_path.rglob(WEIGHTS)} == {f"trial_{i}" for i in best}


def test_of_equal_trials_the_same_are_best_after_a_restart(tmp_path, monkeypatch):
    oracle = open_oracle(tmp_path)
    while (trial := oracle.create_trial("tuner0")).status != "STOPPED":
        (oracle.folder_of(trial.trial_id) / WEIGHTS).write_text("")
        end(oracle, trial, score=0.5)
    reload = keras_tuner.oracles.HyperbandOracle.reload

    def reload_backwards(self):  # a file system gives the files of a folder in any order
        reload(self)
        self.trials = dict(reversed(self.trials.items()))

    monkeypatch.setattr(keras_tuner.oracles.HyperbandOracle, "reload", reload_backwards)
    again = open_oracle(tmp_path)
    assert list(again.trials) == list(oracle.trials)
    best = [trial.trial_id for trial in again.get_best_trials(3)]
    assert best == [trial.trial_id for trial in oracle.get_best_trials(3)]
    assert {file.parent.name for file in tmp_path.rglob(WEIGHTS)} == {f"trial_{i}" for i in best}


def test_a_full_disk_leaves_the_oracle_unchanged(tmp_path, monkeypatch):
    oracle = open_oracle(tmp_path)
    end(oracle, oracle.create_trial("tuner0"))
    kept = oracle.file.read_text()

    def full(*names):
        raise OSError(28, "No space left on device", str(names[1]))

    monkeypatch.setattr(shutil, "copyfile", full)
    with pytest.raises(OSError, match="No space left"):
        oracle.create_trial("tuner0")
    assert oracle.file.read_text() == kept
