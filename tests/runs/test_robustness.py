"""evaluate --corruptions: figures of the run's own test images, kept beside the run and in its report."""

import json

import numpy as np
import pytest

from keras_vit.cli.main import main
from keras_vit.data.corruptions import KINDS, STRENGTHS, corrupt
from keras_vit.data.probe import shown_pixels
from keras_vit.evaluation.metrics import wilson_interval
from keras_vit.process.exit_codes import FINE
from keras_vit.report.corruptions import BEGIN, END, with_section
from keras_vit.runs.answer import answer_images
from keras_vit.runs.evaluate import evaluate
from keras_vit.runs.folder import load_run
from keras_vit.runs.judged_images import images_to_judge
from keras_vit.runs.robustness import CORRUPTIONS, SEED
from tests.helpers import tiny


@pytest.fixture
def run(trained, tmp_path):
    return tiny.copy_of(trained[0], tmp_path)


def test_the_figures_are_those_of_corrupted_images(run, capsys):
    before = tiny.tree(run)
    assert main(["evaluate", str(run), "--corruptions"]) == FINE
    printed = capsys.readouterr().out
    found = json.loads((run / CORRUPTIONS).read_text())
    opened = load_run(run)
    images = images_to_judge(opened)
    assert [(row["kind"], row["strength"]) for row in found["rows"]] == [
        (kind, strength) for kind in KINDS for strength in STRENGTHS
    ]
    for row in found["rows"]:
        pixels = [
            corrupt(
                shown_pixels(images.original(i)),
                row["kind"],
                row["strength"],
                np.random.default_rng((SEED, KINDS.index(row["kind"]), row["strength"], i)),
            )
            for i in range(len(images))
        ]
        answers = answer_images(opened.answers(), pixels, opened.preprocessing)
        assert row["correct"] == (answers["label"] == images.labels).sum()
        assert row["rejected"] == answers["reject"].mean()
        assert row["accuracy"] == row["correct"] / len(images)
        assert row["interval"] == list(wilson_interval(row["correct"], len(images)))
    assert found["mean"] == pytest.approx(np.mean([row["accuracy"] for row in found["rows"]]))
    assert found["clean"] == opened.metrics["best"]["accuracy"]
    assert f"corrupted: accuracy {found['mean']:.1%} on average, {found['clean']:.1%} without" in printed
    assert "corrupted images: 100% done" in printed

    page = (run / "report.html").read_text()
    assert page.count('<section id="corruptions"') == 1
    assert (
        page.replace(page[page.index(BEGIN) : page.index(END)], f"{BEGIN}\n")
        == before["report.html"].decode()
    )
    assert evaluate(run, corruptions=True)["corruptions"] == found
    assert (run / "report.html").read_text() == page
    changed = {name for name, content in tiny.tree(run).items() if before.get(name) != content}
    assert changed == {CORRUPTIONS, "report.html"}


def test_other_images_leave_the_run_as_it_is(run, images):
    before = tiny.tree(run)
    found = evaluate(run, str(images), corruptions=True)
    assert found["corruptions"]["images"] == found["images"] == 36
    assert tiny.tree(run) == before


def test_without_the_option_there_are_no_such_figures(run):
    assert "corruptions" not in evaluate(run)


@pytest.mark.parametrize("damage", ["earlier", "missing"])
def test_a_report_without_a_place_for_them_is_named(run, damage, capsys):
    path = run / "report.html"
    if damage == "missing":
        path.unlink()
    else:
        path.write_text(path.read_text().replace(BEGIN, ""))
    before = tiny.tree(run)
    assert main(["evaluate", str(run), "--corruptions", "--json"]) == FINE
    answer = json.loads(capsys.readouterr().out)  # nothing else is printed there
    assert answer["notes"] == [
        f"{path} has no place for the table of corruptions; the figures are in {CORRUPTIONS} alone."
    ]
    assert {**tiny.tree(run), CORRUPTIONS: None} == {**before, CORRUPTIONS: None}


def test_the_section_is_replaced_not_repeated():
    rows = [
        {"kind": kind, "strength": s, "correct": 9, "accuracy": 0.9, "interval": [0.8, 1.0], "rejected": 0.25}
        for kind in KINDS
        for s in STRENGTHS
    ]
    found = {"images": 10, "clean": 1.0, "clean_rejected": 0.05, "mean": 0.9, "rows": rows}
    page = with_section(f"<p>{BEGIN}{END}</p>", found)
    assert page is not None
    assert page.count("90.0") == 1 + len(rows)
    assert page.count("25.0") == len(rows)
    assert with_section(page, found) == page
    assert with_section("<p></p>", found) is None
    assert with_section(f"<p>{BEGIN}</p>", found) is None
