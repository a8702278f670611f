"""Each image file is decoded at most once per command, and decoding it again gives the same results."""

import csv
import re

import numpy as np
import pytest

from keras_vit.cli.main import parse
from keras_vit.data import pipeline, reading
from keras_vit.runs.evaluate import evaluate
from keras_vit.runs.predict import predict
from keras_vit.search.config import SearchConfig
from keras_vit.search.worker import prepare_images
from keras_vit.training.train import train
from tests.helpers import decodes, tiny

pytestmark = [pytest.mark.usefixtures("tiny_size"), pytest.mark.same_on_every_backend]


def each_once(paths):
    return {path.read_bytes(): 1 for path in paths}


def run_in(folder, drawn_images):
    return train(parse(tiny.command(drawn_images, folder, "--validation-fraction", 0.25, epochs=1)).run)


@pytest.fixture(scope="module")
def counted_run(drawn_images, tmp_path_factory):
    """A run with a detector and mistakes in its report, and how often it decoded each file."""
    with decodes.counted() as counts:
        run = run_in(tmp_path_factory.mktemp("runs") / "once", drawn_images)
    assert run.metrics["rejection"]["fitted_on"] == "validation"
    assert run.metrics["mistakes"]
    return run, counts


def test_a_training_run_decodes_each_file_once(counted_run, drawn_images):
    assert counted_run[1] == each_once(drawn_images.rglob("*.png"))


@pytest.mark.long
@pytest.mark.parametrize(
    "limits", [dict(prepared=0, originals=0), dict(prepared=2**30, originals=0)], ids=str
)
def test_a_run_that_decodes_again_gives_the_same(limits, counted_run, drawn_images, tmp_path, monkeypatch):
    monkeypatch.setattr(pipeline, "CACHE_BYTES", limits["prepared"])
    monkeypatch.setattr(reading, "ORIGINAL_BYTES", limits["originals"])
    with decodes.counted() as counts:
        again = run_in(tmp_path / "again", drawn_images)
    assert max(counts.values()) > 1
    run = counted_run[0]
    assert again.metrics == run.metrics
    for one, other in zip(again.model.get_weights(), run.model.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    assert pictures(again) == pictures(run)
    assert again.config["data"] == run.config["data"]


def pictures(run):
    found = re.findall(r"data:image/png;base64,[^\"']+", (run.path / "report.html").read_text())
    assert len(found) >= len(run.metrics["mistakes"])
    return found


def test_predict_and_evaluate_decode_each_file_once(counted_run, drawn_images):
    """And `evaluate` only the test images: it knows the others by their files."""
    run, paths = counted_run[0], sorted(drawn_images.rglob("*.png"))
    with decodes.counted() as counts:
        predict(run, paths[:30])
    assert counts == each_once(paths[:30])
    with decodes.counted() as counts:
        evaluate(run)
    with open(run.path / "images.csv", newline="") as file:
        tested = [row["path"] for row in csv.DictReader(file) if row["part"] == "test"]
    assert counts == each_once(drawn_images / path for path in tested)


def test_a_search_decodes_each_file_once(drawn_images):
    with decodes.counted() as counts:
        found = prepare_images(SearchConfig(data=str(drawn_images)))
    assert counts == each_once(drawn_images.rglob("*.png"))
    assert found.image_set.originals is None
