"""What `keras-vit audit` finds, with answers that are known."""

import json
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from keras_vit.cleaning import answers as answers_module
from keras_vit.cleaning import check, issues
from keras_vit.cleaning.answers import Seen
from keras_vit.cleaning.check import check_images
from keras_vit.cleaning.write import write_audit
from keras_vit.data.image_set import ImageSet
from keras_vit.data.sources import load_image_set
from keras_vit.errors import InputError
from keras_vit.files import read_csv
from keras_vit.training.config import TrainConfig
from tests.helpers import tiny

pytestmark = pytest.mark.same_on_every_backend


@pytest.fixture
def folder(tmp_path):
    """Images of three classes: a copy in its class, one in another, a black one and one that is no image."""
    folder = tiny.draw(tmp_path / "images", each=12)
    (folder / "dots" / "copy.png").write_bytes((folder / "dots" / "0.png").read_bytes())
    (folder / "lines" / "wrong.png").write_bytes((folder / "plain" / "1.png").read_bytes())
    Image.new("L", (32, 32)).save(folder / "plain" / "black.png")
    (folder / "plain" / "broken.png").write_text("no image")
    return folder


def found_of(checked, kind):
    return sorted(checked.image_set.names[issue.position] for issue in checked.of_kind(kind))


def test_planted_flaws_are_found_and_what_was_not_checked_is_said(folder):
    checked = check_images(TrainConfig(data=str(folder)))
    assert found_of(checked, issues.COPY) == ["dots/copy.png"]  # the first stays
    assert found_of(checked, issues.TWO_CLASSES) == ["lines/wrong.png", "plain/1.png"]
    assert found_of(checked, issues.UNREADABLE) == ["plain/broken.png"]
    assert found_of(checked, "dark") == found_of(checked, "low information") == ["plain/black.png"]
    assert checked.skipped == {
        "outliers and probably wrong labels": "give --init WEIGHTS (auto downloads some), --run RUN, or "
        "--from-scratch"
    }
    assert "dark: 1" in str(checked)
    assert "not checked: outliers" in str(checked)
    plain = json.loads(json.dumps(checked.to_dict()))
    assert plain["images"] == 40
    assert [cue["name"] for cue in plain["shortcuts"]] == ["size", "brightness", "border", "file", "time"]


def judged(monkeypatch, folder, wrong):
    """An audit whose answers are sure of the truth, which labels of `wrong` are not."""

    def seen(image_set, groups, readable, config):
        truth = image_set.labels[readable].copy()
        names = [image_set.names[i] for i in readable]
        for name, label in wrong.items():
            truth[names.index(name)] = image_set.class_names.index(label)
        probabilities = np.full((len(readable), 3), 0.02)
        probabilities[np.arange(len(readable)), truth] = 0.96
        return Seen(np.array(readable), probabilities, how="a test")

    monkeypatch.setattr(answers_module, "seen_by_weights", seen)
    return check_images(TrainConfig(data=str(folder), init="weights"))


def test_wrong_labels_are_named_and_written_with_what_they_look_like(monkeypatch, folder, tmp_path):
    checked = judged(monkeypatch, folder, {"dots/3.png": "lines"})
    (issue,) = checked.of_kind(issues.WRONG_LABEL)
    assert checked.image_set.names[issue.position] == "dots/3.png"
    assert issue.text == "labelled dots, looks like lines"
    assert issue.score == pytest.approx(0.98)
    out = tmp_path / "audit"
    out.mkdir()
    write_audit(checked, out)
    (row,) = [row for row in read_csv(out / "findings.csv") if row["kind"] == issues.WRONG_LABEL]
    assert (row["path"], row["label"], row["suggested"]) == ("dots/3.png", "dots", "lines")
    assert len(row["sha256"]) == 64
    assert json.loads((out / "audit.json").read_text())["labels_judged_by"] == "a test"
    assert "probably wrong label" in (out / "index.html").read_text()


def test_a_class_with_few_images_is_not_judged(monkeypatch, tmp_path):
    folder = tiny.draw(tmp_path / "images", each=12)
    for i in range(8):
        (folder / "dots" / f"{i}.png").unlink()
    checked = judged(monkeypatch, folder, {"dots/9.png": "lines"})
    assert checked.of_kind(issues.WRONG_LABEL) == []
    assert checked.skipped["labels of dots"] == "fewer than 5 different images in a class"


def test_labels_are_judged_in_one_way(folder):
    with pytest.raises(InputError, match="Labels are judged in one way: give --init or --from-scratch"):
        check_images(TrainConfig(data=str(folder), init="weights"), from_scratch=True)


def test_without_cleanvision_the_rest_is_checked(monkeypatch, folder):
    def missing(*_):
        raise ImportError

    monkeypatch.setattr(check, "find_flaws", missing)
    checked = check_images(TrainConfig(data=str(folder)))
    assert 'pip install "keras-vit-defects[audit]"' in str(checked)
    assert checked.of_kind(issues.COPY)


def test_several_labels_are_audited_but_not_judged(tmp_path):
    folder = tiny.draw(tmp_path / "images", each=12)
    lines = [
        f"images/{name}/{i}.png,{name}{'|extra' if i % 2 else ''}" for name in tiny.CLASSES for i in range(12)
    ]
    (tmp_path / "table.csv").write_text("\n".join(["path,label", *lines]))
    checked = check_images(TrainConfig(data=str(tmp_path / "table.csv"), several_labels=True))
    assert folder.exists()
    assert checked.skipped["shortcuts"] == "they are looked for where each image has one class"


def test_one_run_that_learned_the_labels_does_not_judge_them(images, trained):
    checked = check_images(TrainConfig(data=str(images)), run=trained[0])
    assert "was trained on these labels, wrong ones too" in checked.skipped["probably wrong labels"]
    assert checked.of_kind(issues.WRONG_LABEL) == []


def test_the_run_must_have_the_classes(folder, trained, tmp_path):
    other = tiny.draw(tmp_path / "other", classes=("x", "y"), each=6)
    with pytest.raises(InputError, match="give the run of these images"):
        check_images(TrainConfig(data=str(other)), run=trained[0])


def test_answers_of_folds_are_found_by_content_and_in_the_order_of_the_classes(monkeypatch, images):
    """The images may have other names now; the run's classes may be in another order."""
    image_set = load_image_set(images)
    order = tuple(reversed(image_set.class_names))
    rows = [{"path": f"old/{i}"} for i in range(len(image_set))]
    found = SimpleNamespace(places=dict(enumerate(range(36))))
    record = SimpleNamespace(rows=rows, find=lambda now: found)
    parts = [range(18), range(18, 35)]  # one image is in no fold
    answers = (([rows[i] for i in part], None, np.add.outer(part, [0.0, 1000, 2000])) for part in parts)
    monkeypatch.setattr(answers_module, "read_answers", lambda *_: next(answers))
    run = SimpleNamespace(path=images, images=record, class_names=order, several=False)
    runs = SimpleNamespace(config={"kind": "folds"}, runs=[run, run], class_names=order, path="runs/folds")
    seen = answers_module._of_folds(runs, image_set, range(len(image_set)))
    assert seen.positions.tolist() == list(range(35))
    assert seen.probabilities[20].tolist() == [2020, 1020, 20]
    assert seen.skipped == "the run does not know 1 image"


@pytest.mark.parametrize(
    ("labels", "groups", "expected"),
    [
        ([0, 0, 0, 1, 1, 1], range(6), [False, False]),
        ([0] * 5 + [1] * 4, range(9), [True, False]),
        ([0] * 5 + [1] * 5, [0] * 5 + [1] * 5, [False, False]),
        ([0] * 6 + [1] * 5, [0, 0, *range(9, 18)], [True, True]),
    ],
)
def test_classes_of_few_things_are_not_judged(labels, groups, expected):
    names = tuple(map(str, range(len(labels))))
    images = [np.zeros((4, 4, 1), "uint8")] * len(labels)
    image_set = ImageSet("test", ("a", "b"), images, names, np.array(labels))
    positions = np.arange(len(labels))
    assert answers_module.classes_to_judge(image_set, np.array(groups), positions) == expected
