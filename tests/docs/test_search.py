"""docs/search.md: its commands are valid, its figures are those of the space, and its script runs."""

import re
import shlex
from pathlib import Path

import pytest

from keras_vit.cli.main import parse
from keras_vit.search.progress import plan
from keras_vit.search.spaces import SPACES
from tests.helpers.image_files import write_drawn

pytestmark = pytest.mark.same_on_every_backend

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "search.md").read_text(encoding="utf-8")
README = (ROOT / "README.md").read_text(encoding="utf-8")
COMMANDS = re.findall(r"keras-vit search( --[^`\n]*)", PAGE + README)


@pytest.mark.parametrize("command", COMMANDS)
def test_the_commands_are_valid(command, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    of_space, _ = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    (tmp_path / "my_space.py").write_text(of_space, encoding="utf-8")
    assert parse(["search", *shlex.split(command)]).config.folder.parts[0] == "searches"


def test_the_figures_of_hyperband():
    rungs = plan(27, 3)
    trials = sum(rung.trials for rung in rungs)
    epochs = sum(rung.trials * (rung.epochs - rung.initial_epoch) for rung in rungs)
    assert f"that is {trials} trials and {epochs} epochs" in PAGE


def test_the_ranges_of_the_spaces():
    rows = dict(re.findall(r"^\| `(\w+)` \|(.*)\|$", PAGE, re.MULTILINE))
    for name, space in SPACES.items():
        row = rows[name]
        assert f"depth {space.depth.low} to {space.depth.high}" in row
        assert f"dim {space.dim.low} to {space.dim.high}" in row
        *heads, last = sorted(space.num_heads.values)
        assert f"heads {', '.join(map(str, heads))} or {last}" in row
        assert f"patch size {' or '.join(map(str, sorted(space.patch_size.values)))}" in row


def test_named_files_exist():
    for name in re.findall(r"`((?:tests|benchmarks)/[\w/]+\.py)`", PAGE):
        assert (ROOT / name).is_file(), name


@pytest.mark.long
def test_the_script(tmp_path, monkeypatch, capsys):
    write_drawn(tmp_path / "images", 20)
    monkeypatch.chdir(tmp_path)
    # Compiling with XLA would take longer than these trials.
    monkeypatch.setattr("keras_vit.training.optimizer.choose_xla", lambda *arguments: False)
    of_space, code = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
    assert "SPACE" in of_space
    names: dict = {}
    assert "epochs=3" in code
    exec(code.replace("epochs=3", "epochs=2"), names)  # two trials instead of six
    assert {trial.status for trial in names["tuner"].oracle.trials.values()} == {"COMPLETED"}
    assert "'num_heads'" in capsys.readouterr().out
