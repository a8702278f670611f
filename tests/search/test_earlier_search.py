"""A search of version 0.1.0 can be read, described and continued."""

import dataclasses
import json
import shutil

import keras_tuner
import pytest

from keras_vit.search.best import best_config, write_best
from keras_vit.search.config import SearchConfig, describe_search, from_dict, to_dict
from keras_vit.search.folder import begin_or_continue, command_of
from keras_vit.search.oracle import ViTOracle
from keras_vit.search.results import read_search, write_trials
from keras_vit.search.space import describe, space_from_dict
from keras_vit.training.config_file import read_config
from tests.helpers.paths import ROOT

pytestmark = pytest.mark.same_on_every_backend

EARLIER = ROOT / "tests" / "fixtures" / "version_0_1_0" / "search"
FREEZE = ("depth=2", "dim=32", "num_heads=2", "patch_size=4")


@pytest.fixture
def search(tmp_path):
    return shutil.copytree(EARLIER, tmp_path / "search")


def test_its_settings_and_its_space_are_read_and_written():
    stored = json.loads((EARLIER / "search.json").read_text())
    config = from_dict(stored["asked"], SearchConfig(out=EARLIER))
    assert config == SearchConfig(out=EARLIER, max_epochs=3, freeze=FREEZE, split_duplicates="keep")
    added = {"background": [255], "pixel_range": "auto", "crop_boxes": False, "allow_outside": False}
    added |= {"tiff_page": None, "show_channels": None, "fixes": None}
    added |= {"group_by": None, "split_duplicates": "keep"}
    assert to_dict(config) == {**stored["asked"], **added}
    described = json.loads(json.dumps(describe_search(config)))
    assert described == {name: stored[name] for name in described}
    space = space_from_dict(stored["space_fields"])
    assert space == config.search_space()
    assert json.dumps(describe(space)) == json.dumps(stored["space_fields"])


def test_the_command_that_repeats_it_has_the_same_options(search, monkeypatch):
    monkeypatch.chdir(search.parent)
    stored = json.loads((EARLIER / "search.json").read_text())["command"]
    config = SearchConfig(out="search", max_epochs=3, freeze=FREEZE, split_duplicates="keep")
    wanted = stored.replace("python -m tuning", "keras-vit search")
    assert command_of(config).replace(" --split-duplicates keep", "") == wanted


def test_its_trials_are_written_again(search):
    record = read_search(search)
    write_trials(record)
    assert (search / "trials.csv").read_bytes() == (EARLIER / "trials.csv").read_bytes()
    assert record.best.trial_id == "0003"


def test_its_best_point_is_the_same_run(search):
    best = read_config(EARLIER / "best.json")
    assert best.recipe.sampling == "uniform"  # as its version drew them; written again, the images decide
    best = dataclasses.replace(best, recipe=dataclasses.replace(best.recipe, sampling="auto"))
    assert best == best_config(read_search(search))
    write_best(read_search(search))
    assert read_config(search / "best.json") == best
    found, before = (json.loads((folder / "best.json").read_text())["found"] for folder in (search, EARLIER))
    assert found == before


def test_it_is_continued(search):
    config = begin_or_continue(SearchConfig(out=search))
    hp = keras_tuner.HyperParameters()
    config.search_space().declare(hp)
    oracle = ViTOracle(objective="val_accuracy", max_epochs=3, factor=3, hyperparameters=hp, seed=1)
    oracle._set_project_dir(search.parent, search.name)
    oracle.verbose = 0
    oracle.reload()
    assert [trial.status for trial in oracle.trials.values()] == ["COMPLETED"] * 4
    fifth = oracle.create_trial("tuner0")  # of the second bracket
    assert (fifth.trial_id, fifth.status) == ("0004", "RUNNING")
