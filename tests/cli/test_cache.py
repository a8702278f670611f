"""`keras-vit cache`: what is kept, and how it is removed."""

import json
import subprocess
import sys

import numpy as np
import pytest

from keras_vit.cache import FOLDER, SIZE, RowCache, hash_of
from keras_vit.cli.main import main
from keras_vit.process.exit_codes import FINE, WRONG_USAGE

pytestmark = pytest.mark.same_on_every_backend


@pytest.fixture
def folder(monkeypatch, tmp_path):
    """A cache of two files, beside one that is not ours."""
    folder = tmp_path / "kept"
    monkeypatch.setenv(FOLDER, str(folder))
    monkeypatch.delenv(SIZE, raising=False)
    for name in "ab":
        RowCache(hash_of(name)).add({hash_of("image"): np.zeros(1000, "float32")})
    (folder / "mine.npz").write_text("mine")
    return folder


def size_of(folder):
    return sum(path.stat().st_size for path in folder.glob("*.npz") if path.name != "mine.npz")


def test_what_is_kept_is_shown(folder, capsys):
    size = size_of(folder)
    assert main(["cache"]) == FINE
    assert capsys.readouterr().out == f"{folder} holds 2 files, {size / 1e6:.1f} MB, of 5 GB at most\n"
    assert size_of(folder) == size


def test_clear_removes_only_what_is_ours(folder, capsys):
    size = size_of(folder)
    assert main(["cache", "--clear"]) == FINE
    assert capsys.readouterr().out == f"{folder} removed 2 files, {size / 1e6:.1f} MB\n"
    assert [path.name for path in folder.glob("*.npz")] == ["mine.npz"]


@pytest.mark.parametrize("clear", [True, False])
def test_as_json(clear, folder, capsys):
    size = size_of(folder)
    assert main(["cache", "--json", *["--clear"] * clear]) == FINE
    assert json.loads(capsys.readouterr().out) == {
        "folder": str(folder),
        "files": 2,
        "bytes": size,
        "largest_bytes": 5_000_000_000,
        "cleared": clear,
    }


def test_a_folder_that_does_not_exist_is_empty(monkeypatch, tmp_path, capsys):
    monkeypatch.setenv(FOLDER, str(tmp_path / "none"))
    for arguments in ([], ["--clear"]):
        assert main(["cache", *arguments]) == FINE
        assert " 0 files, 0.0 MB" in capsys.readouterr().out
    assert not (tmp_path / "none").exists()


@pytest.mark.parametrize("arguments", [[], ["--clear"]])
def test_a_wrong_size_is_one_sentence_and_removes_nothing(arguments, folder, monkeypatch, capsys):
    monkeypatch.setenv(SIZE, "a lot")
    assert main(["cache", *arguments]) == WRONG_USAGE
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err == f"keras-vit: {SIZE} must be a number of gigabytes, 0 or more. Received: 'a lot'\n"
    assert size_of(folder) > 0


def test_keras_is_not_imported(folder):
    script = (
        "import sys\n"
        "from keras_vit.cli.main import main\n"
        "code = main(['cache'])\n"
        "sys.exit(code or sorted({'keras', 'tensorflow', 'jax', 'torch'} & set(sys.modules)) or 0)"
    )
    ran = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True)
    assert (ran.returncode, ran.stderr) == (FINE, "")
