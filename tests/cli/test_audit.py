"""`keras-vit audit`: what it prints and writes, and what it refuses before it begins."""

import json

import pytest

from keras_vit.cli.main import main
from keras_vit.process.exit_codes import FAILED, FINE, WRONG_USAGE
from tests.helpers import tiny

pytestmark = pytest.mark.same_on_every_backend


@pytest.fixture
def folder(tmp_path):
    return tiny.draw(tmp_path / "odd <b>name</b> ü", classes=("-a b", "<i>c</i>"), each=4)


def test_audit_writes_a_page_a_table_and_json(folder, tmp_path, capsys):
    (folder / "-a b" / "copy.png").write_bytes((folder / "-a b" / "0.png").read_bytes())
    out = tmp_path / "audits" / "first"
    assert main(["audit", str(folder), "--out", str(out), "--json"]) == FINE
    printed = capsys.readouterr().out
    assert json.loads(printed) == json.loads((out / "audit.json").read_text())
    assert sorted(path.name for path in out.iterdir()) == [
        "audit.json",
        "findings.csv",
        "index.html",
        "thumbnails",
    ]
    assert "-a b/copy.png" in (out / "findings.csv").read_text()
    assert "<i>c</i>" not in (out / "index.html").read_text()


def test_the_exit_code_tells_of_unreadable_images_under_both_names(folder, capsys):
    (folder / "-a b" / "0.png").write_text("no image")
    for verb in ("audit", "inspect"):
        assert main([verb, str(folder)]) == FAILED
        assert "unreadable: 1" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--out", "."], "exists already: choose another --out"),
        (
            ["--run", "nosuch", "--from-scratch"],
            "Labels are judged in one way: give --run or --from-scratch.",
        ),
        (["--run", "nosuch"], "nosuch"),
        (["--init", "nosuch.safetensors"], "nosuch.safetensors"),
    ],
)
def test_what_is_refused_leaves_nothing(folder, options, message, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    before = tiny.tree(tmp_path)
    assert main(["audit", str(folder), *options]) == WRONG_USAGE
    assert message in capsys.readouterr().err
    assert tiny.tree(tmp_path) == before
