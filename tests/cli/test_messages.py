"""Messages say what to do, and that works."""

import os

import pytest

from keras_vit.cli.main import main
from keras_vit.errors import InputError
from keras_vit.files import partial_of
from keras_vit.process.exit_codes import WRONG_USAGE
from keras_vit.serving.version_folder import check_version
from keras_vit.training.checkpoint import CHECKPOINT
from keras_vit.training.config import TrainConfig
from keras_vit.training.folder import begin_or_resume, stored_config
from tests.helpers import tiny

pytestmark = pytest.mark.same_on_every_backend


DAMAGED = [None, "{}", "[]", '{"train": 3}', "{", '{"train": {"model": "a", "recipe": 1}}']


@pytest.mark.parametrize("content", DAMAGED)
def test_resume_is_advised_only_where_it_works(content, tmp_path):
    """A run with a checkpoint whose settings are missing or damaged cannot be continued."""
    out = tmp_path / "run"
    partial_of(out).mkdir()
    (partial_of(out) / CHECKPOINT).write_text("of the first epoch")
    if content is not None:
        (partial_of(out) / "config.json").write_text(content)
    told = []
    for resume in (False, True):
        config = TrainConfig(out=out, resume=resume)
        with pytest.raises(InputError) as caught:
            stored_config(begin_or_resume(config, out, restarted=False)["unfinished"], config)
        told.append(str(caught.value))
    assert told[0] == told[1]
    assert told[0].endswith(f": remove {partial_of(out)}, and leave out --resume.")


def test_a_run_without_settings_is_not_to_be_continued(tmp_path, capsys):
    partial_of(tmp_path / "run").mkdir()
    assert main(["evaluate", str(tmp_path / "run")]) == WRONG_USAGE
    shown = capsys.readouterr().err
    assert "was cut off before its settings were written: begin it again" in shown
    assert "--resume" not in shown


def test_a_mount_point_is_refused_before_the_training(tmp_path, monkeypatch):
    """A finished run is renamed to its folder, which no mount point can be."""
    monkeypatch.setattr(os.path, "ismount", lambda path: path == tmp_path / "out")
    (tmp_path / "out").mkdir()
    with pytest.raises(InputError) as caught:
        begin_or_resume(TrainConfig(out=tmp_path / "out"), tmp_path / "out", restarted=False)
    assert str(caught.value).endswith(f"give a folder in it, such as --out {tmp_path / 'out' / 'run'}.")
    assert begin_or_resume(TrainConfig(), tmp_path / "out" / "run", restarted=False) == {"unfinished": None}


@pytest.mark.parametrize("content", ["hello", "", "PK\x03\x04"])
def test_a_damaged_model_is_not_called_missing(content, tmp_path, capsys):
    (tmp_path / "a.keras").write_text(content)
    assert main(["summary", str(tmp_path / "a.keras")]) == WRONG_USAGE
    shown = capsys.readouterr().err
    assert "not found" not in shown.lower()
    assert str(tmp_path / "a.keras") in shown
    assert tiny.tree(tmp_path) == {"a.keras": content.encode()}


def test_an_empty_folder_is_no_export(tmp_path):
    (tmp_path / "1").mkdir()
    check_version(tmp_path, 1)
    (tmp_path / "1" / "a.txt").write_text("mine")
    with pytest.raises(InputError, match="1 exists: leave --version out"):
        check_version(tmp_path, 1)
