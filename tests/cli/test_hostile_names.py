"""Names that others have chosen, through a whole run: nothing raw in terminal, report and tables."""

import os

import pytest

from keras_vit.cli.main import main
from keras_vit.files import read_csv
from keras_vit.process.exit_codes import FINE
from keras_vit.text import shown
from tests.helpers import tiny

pytestmark = [pytest.mark.same_on_every_backend, pytest.mark.long]

NAMES = {"dots": "<img src=q onerror=alert(1)>", "lines": "=cmd|'!A1", "plain": "-1"}
FILES = ["x\x1b[31m\n\u202ey.png", os.fsdecode(b"caf\xe9.png"), "=1+1.png"]


@pytest.fixture(scope="module")
def hostile(tmp_path_factory, tiny_size):
    """(folder of images, run folder, what the training printed)"""
    folder = tmp_path_factory.mktemp("hostile") / "all \u202e<b>\x1b[2J"
    tiny.draw(folder)
    for drawn, name in NAMES.items():
        (folder / drawn).rename(folder / name)
    try:
        for name, file in zip(NAMES.values(), FILES, strict=True):
            (folder / name / "0.png").rename(folder / name / file)
    except OSError:
        pytest.skip("this disk takes no such names")
    run = folder.parent / "run"
    assert main(tiny.command(folder, run, epochs=1)) == FINE
    return folder, run


def check_output(capsys):
    found = capsys.readouterr()
    for text in (found.out, found.err):
        assert all(line == shown(line) for line in text.split("\n"))
        assert not any(line.startswith(("y.png", "\u202e")) for line in text.split("\n"))
    return found.out


def test_the_terminal(hostile, capsys):
    folder, run = hostile
    files = [str(folder / name / file) for name, file in zip(NAMES.values(), FILES, strict=True)]
    assert main(["predict", str(run), *files]) == FINE
    out = check_output(capsys)
    for line, file in zip(out.splitlines(), files, strict=True):
        assert line.startswith(shown(file))
    assert main(["evaluate", str(run)]) == FINE
    assert "\\u202e<b>\\x1b[2J: accuracy" in check_output(capsys)
    assert main(["inspect", str(folder)]) == FINE
    check_output(capsys)


def test_the_files_of_the_run(hostile):
    _, run = hostile
    page = (run / "report.html").read_text(encoding="utf-8")
    assert "<img src=q" not in page
    assert shown(page.replace("\n", "")) == page.replace("\n", "")
    assert "&lt;b&gt;\\x1b[2J" in page
    (run / "config.json").read_text(encoding="ascii")
    labels = {row["label"] for row in read_csv(run / "images.csv")}
    assert labels == set(NAMES.values())
    text = (run / "images.csv").read_text(encoding="utf-8")
    assert ",=cmd" not in text
    assert shown(text.replace("\n", "")) == text.replace("\n", "")
