"""The user's own examples of what is to be rejected: what they choose, and what is counted."""

import shutil

import numpy as np
import pytest
from PIL import Image

from keras_vit.cli.main import main, parse
from keras_vit.files import read_json
from keras_vit.process.exit_codes import FINE
from keras_vit.runs import ood
from keras_vit.runs.folder import load_run
from keras_vit.runs.ood_features import ood_columns
from keras_vit.training.prepare import prepare_data
from tests.helpers import tiny

pytestmark = pytest.mark.usefixtures("tiny_size")


@pytest.fixture(scope="module")
def run(rejecting):
    return load_run(rejecting)


@pytest.fixture(scope="module")
def data(run):
    return prepare_data(parse(["train", "--config", str(run.path / "config.json")]).run)[0]


@pytest.mark.parametrize(
    ("images", "choose", "count"), [(0, 0, 0), (1, 0, 1), (19, 0, 19), (20, 10, 10), (21, 11, 10)]
)
@pytest.mark.same_on_every_backend
def test_each_example_chooses_or_is_counted(images, choose, count):
    choosing, counted = ood.halves([np.full((1, 1, 1), i, "uint8") for i in range(images)])
    assert (len(choosing), len(counted)) == (choose, count)
    assert sorted(int(x[0, 0, 0]) for x in [*choosing, *counted]) == list(range(images))


def test_the_examples_choose_what_rejects_most_of_them(run, data):
    rng = np.random.default_rng(0)
    given = [np.clip(rng.normal(128, 15, (28, 28, 1)), 0, 255).astype("uint8") for _ in range(30)]
    plain, without = ood.judge_ood(run.model, data)
    detector, judged = ood.judge_ood(run.model, data, given=given)
    assert judged["features"] in ood.GAUSSIANS
    assert judged["chosen_by"] == 15
    assert without["chosen_by"] == 0
    (yours,) = [row for row in judged["rates"] if row["name"] == "your examples"]
    assert yours["images"] == 15
    assert "your examples" not in [row["name"] for row in without["rates"]]
    features = ood.features_by_part(
        run.model, {"choose": given[::2], "count": given[1::2]}, run.preprocessing
    )
    assert detector.rejects(features["choose"]).sum() >= plain.rejects(features["choose"]).sum()
    assert detector.rejects(features["count"]).sum() == yours["rejected"]


def test_every_choice_names_columns(run):
    columns = ood_columns(run.model)
    for name in ood.GAUSSIANS:
        for pieces in ood.pieces_of(name, columns):
            assert all(start < stop for start, stop in pieces)


@pytest.mark.long
def test_train_takes_a_folder_and_a_repeated_command_keeps_it(drawn_images, tmp_path, capsys):
    folder, out = tmp_path / "bad ones", tmp_path / "run"
    folder.mkdir()
    rng = np.random.default_rng(0)
    for i in range(24):
        Image.fromarray(rng.integers(0, 255, (32, 32), "uint8")).save(folder / f"{i}.png")
    (folder / "text.png").write_text("not an image")
    shutil.copy(drawn_images / "dots" / "0.png", folder / "copy.png")
    words = tiny.command(drawn_images, out, "--validation-fraction", 0.25, "--ood-examples", folder, epochs=1)
    assert main(words) == FINE
    printed = "".join(capsys.readouterr())
    assert "images to reject: 24 in " in printed
    assert "unreadable images to reject: text.png" in printed
    assert f"--ood-examples '{folder}'" in printed
    config = read_json(out / "config.json")
    assert config["train"]["ood_examples"] == str(folder)
    assert "--ood-examples" in config["command"]
    judged = load_run(out).metrics["rejection"]
    assert judged["chosen_by"] == 12
    assert [row["images"] for row in judged["rates"] if row["name"] == "your examples"] == [12]
    assert "your examples" in (out / "report.html").read_text()


@pytest.mark.parametrize("kind", ["missing", "empty", "unreadable"])
def test_a_folder_that_cannot_be_used_is_one_sentence(kind, drawn_images, tmp_path, capsys):
    folder, out = tmp_path / "bad", tmp_path / "run"
    if kind != "missing":
        folder.mkdir()
    if kind == "unreadable":
        (folder / "text.png").write_text("not an image")
    assert main(tiny.command(drawn_images, out, "--ood-examples", folder)) != FINE
    last = capsys.readouterr().err.strip().splitlines()[-1]
    assert str(folder) in last
    assert not out.exists()
    assert not out.with_name("run.partial").exists()


@pytest.mark.parametrize(("counts", "at_once"), [((5, 4), 4), ((1,), 4), ((3, 0, 5), 4), ((3, 4), 256)])
def test_the_batches_change_no_features(counts, at_once, run, monkeypatch):
    """The last batch is filled up, so that one size is compiled; what fills it is dropped."""
    rng = np.random.default_rng(1)
    parts = {f"part {i}": list(rng.uniform(0, 255, (n, 28, 28, 1))) for i, n in enumerate(counts) if n}
    monkeypatch.setattr(ood, "BATCH_SIZE", at_once)
    found = ood.features_by_part(run.model, parts, run.preprocessing)
    for name, images in parts.items():
        expected = ood.features_by_part(run.model, {"alone": images}, run.preprocessing)["alone"]
        assert len(found[name]) == len(images)
        np.testing.assert_allclose(found[name], expected, rtol=1e-4, atol=1e-4)
