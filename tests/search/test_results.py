"""Reading the folder of a search: the files of KerasTuner and of this package, damaged ones too."""

import csv
import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace

import keras_tuner
import pytest

from keras_vit.errors import InputError
from keras_vit.evaluation.trials import SearchRecord, TrialRecord
from keras_vit.model.vit import ViT
from keras_vit.search.config import SearchConfig
from keras_vit.search.folder import write_or_check_images
from keras_vit.search.oracle import ViTOracle
from keras_vit.search.point import vit_arguments
from keras_vit.search.results import SEARCH, no_best_trial, read_search, write_trials
from keras_vit.search.trial_files import ERROR, RESULT
from tests.search import synthetic

pytestmark = pytest.mark.same_on_every_backend

CLASSES = ("dots", "lines", "plain")
HISTORY = [{"epoch": 1, "loss": 1.0, "val_accuracy": 0.25}]


class Search:
    """A search with the oracle and the files of KerasTuner. Its trials take no time."""

    def __init__(self, folder: Path, **given):
        folder.mkdir()
        self.folder = folder
        config = SearchConfig(out=folder, max_epochs=4, factor=2, **given)
        images = SimpleNamespace(
            image_set=SimpleNamespace(source="images", class_names=CLASSES, fixes=()),
            counts={"train": 70, "validation": 10, "test": 20},
            fingerprint="abc",
            backend="tensorflow",
            record=None,
        )
        write_or_check_images(config, images)
        hp = keras_tuner.HyperParameters()
        config.search_space().declare(hp)
        objective = keras_tuner.Objective("val_accuracy", "max")
        self.oracle = ViTOracle(hyperparameters=hp, objective=objective, max_epochs=4, factor=2, seed=1)
        self.oracle._set_project_dir(folder.parent, folder.name)
        self.oracle.verbose = 0

    def begin(self, tuner="tuner0"):
        trial = self.oracle.create_trial(tuner)
        self.oracle.save()
        return trial

    def end(self, trial, score=None, error=None):
        if error is None:
            self.oracle.update_trial(trial.trial_id, {"val_accuracy": score}, step=0)
            trial.status = "COMPLETED"
            self.write(trial, RESULT, {"seconds": 2.5, "parameters": 1, "history": HISTORY})
        else:
            trial.status, trial.message = "FAILED", error
            self.write(trial, ERROR, error)
        self.oracle.end_trial(trial)
        self.oracle.save()

    def write(self, trial, name, content):
        file = self.folder / f"trial_{trial.trial_id}" / name
        file.write_text(content if isinstance(content, str) else json.dumps(content))


@pytest.fixture
def search(tmp_path):
    return Search(tmp_path / "steel", freeze=("depth=2", "stem=linear"))


def test_a_new_search_has_no_trials(search):
    found = read_search(search.folder)
    assert (found.folder, found.trials, found.completed, found.best) == (search.folder, [], [], None)
    assert found.config == json.loads((search.folder / SEARCH).read_text())


def test_trials_are_read_in_every_state(search):
    for score in (0.5, 0.75):
        search.end(search.begin(), score)
    running = search.begin()
    first, second, third = read_search(search.folder).trials
    assert [trial.trial_id for trial in (first, second, third)] == ["0000", "0001", running.trial_id]
    assert [trial.status for trial in (first, second, third)] == ["COMPLETED", "COMPLETED", "RUNNING"]
    assert [trial.score for trial in (first, second, third)] == [0.5, 0.75, None]
    assert (first.seconds, first.history) == (2.5, HISTORY)
    assert (third.seconds, third.history) == (None, [])
    for trial in (first, second, third):
        assert (trial.bracket, trial.rung, trial.initial_epoch, trial.epochs) == (2, 0, 0, 1)
        assert (trial.promoted_from, trial.error) == (None, None)
        assert (trial.values["model"], trial.values["depth"], trial.values["stem"]) == (
            "defect-conv", 2, "linear",
        )  # fmt: skip
        drawn = search.oracle.trials[trial.trial_id].hyperparameters.values
        for name in ("num_heads", "dim", "learning_rate", "augmentation", "batch_size"):
            assert trial.values[name] == drawn[name]
        assert not [name for name in trial.values if "/" in name]
        model = ViT(image_shape=(28, 28, 1), num_classes=3, **vit_arguments(trial.values))
        assert trial.parameters == model.count_params()
        assert trial.mult_adds > trial.parameters


def test_a_promoted_trial_stays_in_the_bracket(search):
    slow = search.begin("slow")
    for score in (0.1, 0.2, 0.3):
        search.end(search.begin("fast"), score)
    promoted = search.begin("fast")
    search.end(promoted, 0.4)
    other = search.begin("fast")  # no trial of this bracket can be promoted yet: the next bracket begins
    search.end(slow, 0.9)
    late_trial = search.begin("slow")
    assert late_trial.hyperparameters.values["tuner/trial_id"] == slow.trial_id
    assert late_trial.hyperparameters.values["tuner/bracket"] == 1  # KerasTuner's
    search.end(late_trial, 0.9)
    last = search.begin("slow")
    found = {trial.trial_id: trial for trial in read_search(search.folder).trials}
    positions = [
        (found[one.trial_id].bracket, found[one.trial_id].rung, found[one.trial_id].promoted_from)
        for one in (slow, promoted, other, late_trial, last)
    ]
    assert positions == [
        (2, 0, None),
        (2, 1, "0003"),
        (1, 0, None),
        (2, 1, "0000"),
        (2, 2, late_trial.trial_id),
    ]
    assert (found[late_trial.trial_id].initial_epoch, found[late_trial.trial_id].epochs) == (1, 2)
    assert found[late_trial.trial_id].values == found[slow.trial_id].values


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("Traceback:\n  line\nValueError: no memory\n\n", "ValueError: no memory"),
        ("划痕", "划痕"),
        ("", "its process gave no reason"),
        (None, "its process gave no reason"),
        (b"\xff broken", "� broken"),
    ],
)
def test_a_failed_trial_has_its_error(text, message, search):
    trial = search.begin()
    search.end(trial, error="a reason")
    file = search.folder / f"trial_{trial.trial_id}" / ERROR
    file.unlink()
    if text is not None:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    (found,) = read_search(search.folder).trials
    assert (found.status, found.score, found.error) == ("FAILED", None, message)


def test_the_error_of_an_earlier_attempt_is_not_kept(search):
    trial = search.begin()
    search.write(trial, ERROR, "KeyError: 1")
    assert read_search(search.folder).trials[0].error is None
    search.end(trial, 0.5)
    assert read_search(search.folder).trials[0].error is None


@pytest.mark.parametrize(
    "text",
    [
        *("", "{", "[]", "null", "3", "{}", '{"trial_id": "0001"}', b"\xff\xfe", "folder"),
        *('{"hyperparameters": 3}', '{"hyperparameters": {"values": []}}'),
    ],
)
def test_a_damaged_trial_is_skipped(text, search):
    for score in (0.5, 0.75, 0.25):
        search.end(search.begin(), score)
    file = search.folder / "trial_0001" / "trial.json"
    file.unlink()
    if text == "folder":
        file.mkdir()
    else:
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
    assert [trial.trial_id for trial in read_search(search.folder).trials] == ["0000", "0002"]
    assert read_search(search.folder).best.trial_id == "0000"
    ((damaged, reason),) = read_search(search.folder).damaged.items()
    assert (damaged, bool(reason)) == (file, True)


@pytest.mark.parametrize(
    ("scores", "damage", "sentence"),
    [
        ((), False, "No trial of {} has ended: continue the search with the command that began it."),
        ((None,), False, "No trial of {} has ended: continue the search"),
        (("no memory.", "no disk"), False, "All 2 trials of {} have failed, the last one with: no disk."),
        ((0.5,), True, "No trial of {0} can be used. 1 file of a trial is damaged, {0}/trial_0000/"),
        ((0.5, 0.6), True, "No trial of {0} can be used. 2 files of trials are damaged, such as {0}"),
    ],
)
def test_why_there_is_no_best_trial(scores, damage, sentence, search):
    for score in scores:
        trial = search.begin()
        if isinstance(score, str):
            search.end(trial, error=f"Traceback\n{score}")
        elif score is not None:
            search.end(trial, score)
    for file in search.folder.glob("trial_*/trial.json") if damage else ():
        file.write_text("{}")
    record = read_search(search.folder)
    assert str(no_best_trial(record)).startswith(sentence.format(search.folder))
    assert ("continue" in str(no_best_trial(record))) == ("has ended" in sentence)


@pytest.mark.parametrize("text", ["", "{", "[]", "3", "folder", None])
def test_a_damaged_result_loses_no_trial(text, search):
    search.end(search.begin(), 0.5)
    file = search.folder / "trial_0000" / RESULT
    file.unlink()
    if text == "folder":
        file.mkdir()
    elif text is not None:
        file.write_text(text)
    (found,) = read_search(search.folder).trials
    assert (found.score, found.seconds, found.history) == (0.5, None, [])


def test_other_files_in_the_folder_are_ignored(search):
    search.end(search.begin(), 0.5)
    (search.folder / "trial_0009").mkdir()
    (search.folder / "trial_x").write_text("")
    (search.folder / "best-0000").mkdir()
    assert [trial.trial_id for trial in read_search(search.folder).trials] == ["0000"]


def test_a_folder_without_a_search(tmp_path):
    for folder in (tmp_path, tmp_path / "nosuch"):
        with pytest.raises(InputError) as caught:
            read_search(folder)
        assert str(caught.value) == f"{folder} does not hold a search: it has no search.json."


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", "null"])
def test_a_damaged_search_is_an_error(text, search):
    (search.folder / SEARCH).write_text(text)
    with pytest.raises(InputError) as caught:
        read_search(search.folder)
    assert str(caught.value).startswith(f"{search.folder / SEARCH} is damaged (")
    assert str(caught.value).endswith("): begin a search with another --out.")


# The best


def trial(name, score, epochs=1, status="COMPLETED", **more):
    return TrialRecord(name, status, score, {"depth": 2}, 0, 0, 0, epochs, **more)


@pytest.mark.parametrize(
    ("trials", "best"),
    [
        ([], None),
        ([trial("a", None, status="RUNNING"), trial("b", None, status="FAILED")], None),
        ([trial("a", 0.5), trial("b", 0.7), trial("c", 0.6)], "b"),
        ([trial("a", 0.7, epochs=1), trial("b", 0.7, epochs=3), trial("c", 0.7, epochs=2)], "b"),
        ([trial("a", 0.7), trial("b", 0.7)], "a"),
        ([trial("a", None), trial("b", 0.1), trial("c", None)], "b"),
        ([trial("a", None)], None),
        ([trial("a", 0.9, status="INVALID"), trial("b", 0.1)], "b"),
    ],
)
def test_the_best(trials, best):
    found = SearchRecord(Path("x"), {}, trials).best
    assert (found and found.trial_id) == best


# trials.csv


def rows_of(folder):
    with open(folder / "trials.csv", newline="", encoding="utf-8") as file:
        reader = csv.DictReader(file)
        rows = list(reader)
    assert len(reader.fieldnames) == len(set(reader.fieldnames))
    return rows


def test_every_trial_is_a_row(search):
    for score in (0.5, 0.75, 0.25, 0.125, 0.5):
        search.end(search.begin(), score)
    search.end(search.begin(), error='ValueError: a, "b"\nlast; 划痕, "c"')
    search.begin()
    found = read_search(search.folder)
    write_trials(found)
    rows = rows_of(search.folder)
    assert len(rows) == 7
    for row, one in zip(rows, found.trials, strict=True):
        for name, value in row.items():
            expected = getattr(one, name) if hasattr(one, name) else one.values[name]
            assert value == ("" if expected is None else str(expected)), name
        assert row.keys() == {field.name for field in dataclasses.fields(one)} - {"values", "history"} | set(
            one.values
        )
    assert rows[4]["promoted_from"] == "0001"
    assert [row["epochs"] for row in rows] == [
        "1",
        "1",
        "1",
        "1",
        "2",
        "2",
        "4",
    ]  # the value of each trial, not of the space
    assert rows[5]["error"] == 'last; 划痕, "c"'
    assert not list(search.folder.glob("*.new"))


def test_the_table_of_no_trials_has_a_header(search):
    write_trials(read_search(search.folder))
    assert rows_of(search.folder) == []


def test_made_up_searches_have_rows(tmp_path):
    record = dataclasses.replace(synthetic.search(), folder=tmp_path)
    write_trials(record)
    assert [row["trial_id"] for row in rows_of(tmp_path)] == [one.trial_id for one in record.trials]
