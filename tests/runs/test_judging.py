"""`evaluate --data` with fewer classes than the run knows, a test part alone, and files under any names."""

import os
import shutil

import pytest

from keras_vit.errors import InputError
from keras_vit.runs.evaluate import evaluate
from keras_vit.runs.predict import predict
from tests.helpers import tiny


@pytest.fixture(scope="module")
def drawn(tmp_path_factory):
    return tiny.draw(tmp_path_factory.mktemp("judge") / "drawn", each=3)


def number(found):
    return sum(row["support"] for row in found["per_class"])


def test_one_class_and_a_test_part_alone_can_judge(trained, drawn, tmp_path):
    run = trained[0]
    whole = evaluate(run, str(drawn))
    shutil.copytree(drawn, tmp_path / "new" / "test_set")
    part = evaluate(run, str(tmp_path / "new"))
    assert part["accuracy"] == whole["accuracy"]
    assert number(part) == number(whole) == 9
    shutil.copytree(drawn / "dots", tmp_path / "one" / "dots")
    for data in (tmp_path / "one", tmp_path / "one" / "dots"):
        one = evaluate(run, str(data))
        assert {row["name"]: row["support"] for row in one["per_class"]} == {
            "dots": 3,
            "lines": 0,
            "plain": 0,
        }
        dots = next(row for row in whole["per_class"] if row["name"] == "dots")
        assert one["accuracy"] == pytest.approx(dots["recall"])


@pytest.mark.same_on_every_backend
def test_unknown_classes_are_named(trained, drawn, tmp_path):
    shutil.copytree(drawn, tmp_path / "new")
    (tmp_path / "new" / "plain").rename(tmp_path / "new" / "frogs")
    with pytest.raises(InputError, match=r"has classes that the run was not trained on \(frogs\)"):
        evaluate(trained[0], str(tmp_path / "new"))


@pytest.mark.same_on_every_backend
def test_files_whose_names_are_not_utf8_are_judged_and_predicted(trained, drawn, tmp_path):
    for name in ("dots", "lines"):
        os.makedirs(tmp_path / "new" / name)
        shutil.copy(drawn / name / "0.png", os.fsencode(tmp_path / "new" / name) + b"/caf\xe9\n.png")
    assert number(evaluate(trained[0], str(tmp_path / "new"))) == 2
    path = os.fsdecode(os.fsencode(tmp_path / "new" / "dots") + b"/caf\xe9\n.png")
    (found,) = predict(trained[0], [path])
    assert found.error is None
    assert found.probabilities == pytest.approx(predict(trained[0], [drawn / "dots/0.png"])[0].probabilities)


@pytest.mark.same_on_every_backend
def test_pipes_devices_and_folders_get_an_error_each(trained, drawn, tmp_path):
    os.mkfifo(tmp_path / "pipe.png")
    images = [tmp_path / "pipe.png", "/dev/zero", tmp_path, drawn / "dots/0.png"]
    errors = [found.error for found in predict(trained[0], images)]
    assert errors == [
        "cannot be opened (a pipe, not a regular file)",
        "cannot be opened (a device, not a regular file)",
        "cannot be opened (a folder, not a regular file)",
        None,
    ]
