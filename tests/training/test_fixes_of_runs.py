"""`train --fixes`: what a run records of a person's decisions, and how it finds its images again."""

import json
import shutil

import numpy as np
import pytest

from keras_vit.cli.main import main
from keras_vit.data.origin import content_hash, recorded_fixes
from keras_vit.data.sources import load_image_set
from keras_vit.errors import InputError
from keras_vit.files import write_csv
from keras_vit.process.exit_codes import FINE, WRONG_USAGE
from keras_vit.runs.evaluate import evaluate
from keras_vit.runs.folder import load_run
from keras_vit.runs.judged_images import own_images
from keras_vit.training import loop
from keras_vit.training.config import TrainConfig
from keras_vit.training.folds import _settings
from tests.helpers import tiny
from tests.training.interrupting import CutOff, at_batch

pytestmark = [pytest.mark.same_on_every_backend, pytest.mark.usefixtures("tiny_size")]


def decide(images, path):
    """A file that drops the first image of dots and makes the first one of lines plain."""
    rows = [("dots/0.png", "drop", ""), ("lines/0.png", "relabel", "plain"), ("plain/0.png", "keep", "plain")]
    table = [
        {"path": name, "sha256": content_hash(images / name), "action": action, "label": label}
        for name, action, label in rows
    ]
    write_csv(path, table)
    return path


@pytest.fixture(scope="module")
def run(images, tmp_path_factory):
    """A run that was cut off and continued without its file of fixes, on images that were moved since."""
    folder = tmp_path_factory.mktemp("fixes")
    own = shutil.copytree(images, folder / "images")
    fixes, out = decide(own, folder / "fixes.csv"), folder / "run"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(loop, "EpochSeconds", at_batch(1, 1))
        with pytest.raises(CutOff):
            main(tiny.command(own, out, "--fixes", fixes, epochs=2))
    fixes.unlink()
    assert main(["train", "--out", str(out), "--resume"]) == FINE
    (own / "lines" / "0.png").rename(own / "lines" / "renamed.png")
    return load_run(out)


def test_the_run_has_the_labels_that_were_decided(run):
    rows = {row["path"]: row["label"] for row in run.images.rows}
    assert "dots/0.png" not in rows
    assert rows["lines/0.png"] == "plain"
    assert len(rows) == 35
    config = json.loads((run.path / "config.json").read_text())
    assert [row["action"] for row in config["data"]["fixes"]] == ["drop", "relabel", "keep"]
    assert config["train"]["fixes"].endswith("fixes.csv")
    assert "--fixes" in config["command"]


def test_it_finds_its_images_again(run):
    assert len(own_images(run).of_part("train", "validation", "test")) == 35
    evaluate(run)


def test_its_table_repeats_it_without_the_file(run):
    found = load_image_set(run.path / "images.csv")
    assert np.bincount(found.labels).tolist() == [11, 11, 13]


def test_evaluate_takes_them_with_other_data(run, images, tmp_path):
    fixes = decide(images, tmp_path / "f.csv")
    found = evaluate(run, str(images), fixes=str(fixes))
    assert sum(row["support"] for row in found["per_class"]) == 35
    with pytest.raises(InputError, match="labels that it was trained with: omit --fixes, or give"):
        evaluate(run, fixes=str(fixes))


def test_nothing_is_written_where_they_do_not_fit(images, tmp_path, capsys):
    fixes = decide(images, tmp_path / "f.csv")
    fixes.write_text(fixes.read_text().replace("dots/0.png", "dots/99.png"))
    assert main(tiny.command(images, tmp_path / "run", "--fixes", fixes)) == WRONG_USAGE
    assert "names 1 image that is not in" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["f.csv"]


def test_several_runs_record_them_too(images, tmp_path):
    fixes = decide(images, tmp_path / "f.csv")
    config = TrainConfig(data=str(images), fixes=str(fixes), folds=2, out=tmp_path / "folds")
    stored = _settings(config, load_image_set(images, fixes=fixes))
    fixes.unlink()
    again = load_image_set(images, **config.of_tables | recorded_fixes(json.loads(json.dumps(stored))))
    assert len(again) == 35
