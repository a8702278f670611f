"""A run whose files do not belong together, or hold what they cannot, is refused by name."""

import csv
import json
import os
import shutil

import numpy as np
import pytest

from keras_vit import files
from keras_vit.errors import InputError
from keras_vit.runs.calibration import CALIBRATION
from keras_vit.runs.folder import BOUND, CONFIG, METRICS, MODEL, REJECTION, load_run
from keras_vit.runs.images import IMAGES
from keras_vit.sealed import seal
from tests.helpers import tiny

pytestmark = pytest.mark.same_on_every_backend


def edit(name, change):
    """A function that changes the content of a JSON file of a run."""

    def apply(run):
        content = json.loads((run / name).read_text())
        change(content)
        (run / name).write_text(json.dumps(content))

    return apply


def put(*keys, value):
    """A function that sets an entry of nested dicts and lists."""

    def change(content):
        *above, last = keys
        for key in above:
            content = content[key]
        content[last] = value

    return change


def turn(*keys):
    def change(content):
        for key in keys:
            content = content[key]
        content.reverse()

    return change


def cut(name):
    return lambda run: (run / name).write_bytes((run / name).read_bytes()[:-30])


def write(name, text):
    return lambda run: (run / name).write_text(text)


def unlink(name):
    return lambda run: (run / name).unlink()


@pytest.fixture
def run(rejecting, tmp_path):
    return shutil.copytree(rejecting, tmp_path / "run")


def open_all(path):
    """What the commands read of a run, without Keras."""
    run = load_run(path)
    _ = run.metrics, run.images, run.rejection
    return run


CHANGED = {
    "class names in another order": (edit(CONFIG, turn("data", "class_names")), CONFIG),
    "another aspect": (edit(CONFIG, put("preprocessing", "aspect", value="pad")), CONFIG),
    "another seed": (edit(CONFIG, put("seed", value=7)), CONFIG),
    "another root": (edit(CONFIG, put("data", "root", value="/elsewhere")), CONFIG),
    "another hash of the model": (edit(CONFIG, put("files", MODEL, value="0" * 64)), CONFIG),
    "no hash of itself": (edit(CONFIG, lambda config: config.pop("sha256")), CONFIG),
    "no hashes of the files": (edit(CONFIG, lambda config: config.pop("files")), CONFIG),
    "another temperature": (edit(METRICS, put("calibration", "temperature", value=2.0)), METRICS),
    "another accuracy": (edit(METRICS, put("best", "accuracy", value=1.0)), METRICS),
    "a part of an image": (
        lambda run: (run / IMAGES).write_text((run / IMAGES).read_text().replace(",train", ",test", 1)),
        IMAGES,
    ),
    "no images": (unlink(IMAGES), IMAGES),
    "another history": (write("history.csv", "epoch,loss\n1,0.5\n"), "history.csv"),
    "no rejection": (unlink(REJECTION), REJECTION),
    "half of the rejection": (cut(REJECTION), REJECTION),
}


@pytest.mark.parametrize(("change", "name"), CHANGED.values(), ids=CHANGED.keys())
def test_files_that_have_changed_are_refused(change, name, run):
    open_all(run)
    change(run)
    with pytest.raises(InputError, match=rf"{name} is (damaged|not the file that)|no file .*{name}"):
        open_all(run)


def test_the_files_of_another_run_are_refused(run, trained):
    for name in (MODEL, METRICS, IMAGES, CONFIG):
        other = shutil.copytree(run, run.with_name(f"with another {name}"))
        shutil.copyfile(trained[0] / name, other / name)
        with pytest.raises(InputError, match=r"is not the file that belongs to the others in its folder"):
            _ = open_all(other).model


def test_what_is_only_for_people_may_change(run):
    (run / "report.html").write_text("mine")
    (run / "notes.txt").write_text("mine")
    shutil.rmtree(run / "tensorboard")
    open_all(run)


IMPOSSIBLE = {
    # Each file is checked by its schema, whatever its hash is: runs of earlier versions have none.
    "a list": (write(CONFIG, "[]"), "it is not a JSON object"),
    "empty": (write(CONFIG, "{}"), "data is missing"),
    "one class": (edit(CONFIG, put("data", "class_names", value=["dots"])), "data.class_names"),
    "a class twice": (
        edit(CONFIG, put("data", "class_names", value=["dots", "dots", "plain"])),
        "class_names has a name twice",
    ),
    "an empty class name": (edit(CONFIG, put("data", "class_names", 0, value="")), "data.class_names.0"),
    "a number as class name": (edit(CONFIG, put("data", "class_names", 0, value=3)), "data.class_names.0"),
    "more classes than the model": (
        edit(CONFIG, lambda config: config["data"]["class_names"].append("more")),
        "4 names, and the model 3 classes",
    ),
    "turned class names": (
        edit(CONFIG, turn("data", "class_names")),
        "has other class names than config.json",
    ),
    "a text as seed": (edit(CONFIG, put("train", "seed", value="0")), "train.seed"),
    "a share of 2": (edit(CONFIG, put("train", "test_fraction", value=2.0)), "train.test_fraction"),
    "another image shape": (edit(CONFIG, put("image_shape", value=[32, 32, 1])), "image_shape is"),
    "a shape of two": (edit(CONFIG, put("image_shape", value=[28, 28])), "image_shape"),
    "a size of 0": (edit(CONFIG, put("image_shape", 0, value=0)), "image_shape.0"),
    "std 0": (edit(CONFIG, put("preprocessing", "std", value=[0.0])), "std must be above 0.0"),
    "temperature 0": (edit(METRICS, put("calibration", "temperature", value=0)), "calibration.temperature"),
    "temperature -1": (edit(METRICS, put("calibration", "temperature", value=-1.0)), "greater than 0"),
    "temperature NaN": (
        edit(METRICS, put("calibration", "temperature", value=float("nan"))),
        "calibration.temperature should be",
    ),
    "temperature infinite": (
        edit(METRICS, put("calibration", "temperature", value=float("inf"))),
        "calibration.temperature should be a finite number",
    ),
    "temperature as text": (edit(METRICS, put("calibration", "temperature", value="1")), "a number, not '1'"),
    "temperature true": (edit(METRICS, put("calibration", "temperature", value=True)), "a number, not True"),
    "no calibration": (edit(METRICS, lambda metrics: metrics.pop("calibration")), "calibration is missing"),
    "an accuracy of 2": (edit(METRICS, put("best", "accuracy", value=2.0)), "best.accuracy"),
    "an accuracy of other counts": (edit(METRICS, put("best", "accuracy", value=0.123)), "accuracy is not"),
    "a negative log loss": (edit(METRICS, put("best", "log_loss", value=-1.0)), "best.log_loss"),
    "half a confusion matrix": (
        edit(METRICS, lambda metrics: metrics["best"]["confusion_matrix"].pop()),
        "confusion_matrix",
    ),
    "turned names in the metrics": (edit(METRICS, turn("class_names")), "per_class has other names"),
    "a negative threshold": (edit(METRICS, put("rejection", "threshold", value=-1.0)), "rejection.threshold"),
    "no threshold": (edit(METRICS, put("rejection", "threshold", value=None)), "contradict each other"),
    "another threshold": (
        edit(METRICS, put("rejection", "threshold", value=9e9)),
        "has another threshold than",
    ),
    "an epoch too many": (write("history.csv", "epoch,loss\n1,0.5\n"), "one row for each of 6 epochs"),
    "a text in the history": (write("history.csv", "epoch,loss\n1,low\n"), "a cell is not a number"),
    "no JSON": (write(METRICS, "{"), "is not JSON"),
}


@pytest.mark.parametrize(("change", "message"), IMPOSSIBLE.values(), ids=IMPOSSIBLE.keys())
def test_what_a_file_cannot_hold_is_refused(change, message, run, capsys):
    as_of_an_earlier_version(run)
    change(run)
    with pytest.raises(InputError) as raised:
        open_all(run)
    assert message in str(raised.value)
    assert "\n" not in str(raised.value)


def as_of_an_earlier_version(run):
    edit(CONFIG, lambda config: [config.pop(name) for name in ("files", "sha256")])(run)


REJECTIONS = {
    "NaN in a projection": lambda arrays: arrays["projections_0"].__setitem__((0, 0, 0), np.nan),
    "an infinite centre": lambda arrays: arrays["centers_0"].__setitem__((0, 0), np.inf),
    "a threshold of 0": lambda arrays: arrays.update(threshold=np.float64(0)),
    "an infinite threshold": lambda arrays: arrays.update(threshold=np.float64(np.inf)),
    "NaN as threshold": lambda arrays: arrays.update(threshold=np.float64(np.nan)),
    "one array more": lambda arrays: arrays.update(more=np.zeros(2)),
    "one array less": lambda arrays: arrays.pop("shift_0"),
    "no centres": lambda arrays: arrays.update(centers_0=arrays["centers_0"][:0]),
    "float64": lambda arrays: arrays.update(centers_0=arrays["centers_0"].astype("float64")),
    "a negative offset": lambda arrays: arrays["offsets"].__setitem__(0, -1),
    "an offset too few": lambda arrays: arrays.update(offsets=arrays["offsets"][1:]),
    "columns beyond the last": lambda arrays: arrays.update(pieces_0=arrays["pieces_0"] + 100_000),
    "columns below 0": lambda arrays: arrays.update(pieces_0=arrays["pieces_0"] - 1),
    "a width that is no number": lambda arrays: arrays.update(width=np.array("many")),
    "a map of another class": lambda arrays: arrays.update(projections_0=arrays["projections_0"][:2]),
}


@pytest.mark.parametrize("change", REJECTIONS.values(), ids=REJECTIONS.keys())
def test_an_impossible_rejection_is_refused(change, run, capsys):
    as_of_an_earlier_version(run)
    arrays = dict(np.load(run / REJECTION))
    change(arrays)
    np.savez(run / REJECTION, **arrays)
    with pytest.raises(InputError, match=r"rejection\.npz cannot be read \("):
        open_all(run)


def test_another_model_is_refused_in_a_run_without_hashes(run, tmp_path, capsys):
    as_of_an_earlier_version(run)
    edit(CONFIG, put("model_config", "depth", value=2))(run)
    with pytest.raises(InputError, match=r"model\.keras has depth=1, and config\.json says 2"):
        _ = load_run(run).model


@pytest.mark.parametrize("sealed", [True, False])
@pytest.mark.parametrize("name", [CONFIG, METRICS, IMAGES, "history.csv", REJECTION, MODEL])
def test_no_pipe_is_waited_for(name, sealed, run, capsys):
    if not sealed:
        as_of_an_earlier_version(run)
    (run / name).unlink()
    os.mkfifo(run / name)
    with pytest.raises(InputError, match=rf"no (file )?.*{name}|{name} .*a pipe, not a regular file"):
        _ = open_all(run).model


def test_a_table_is_read_up_to_a_limit(run, monkeypatch, capsys):
    as_of_an_earlier_version(run)
    monkeypatch.setattr(files, "CSV_BYTES", 100)
    with pytest.raises(InputError, match=r"\.csv is damaged \(it cannot be read: more than the"):
        open_all(run)


def test_the_hashes_are_of_all_files_that_are_read(rejecting):
    config = json.loads((rejecting / CONFIG).read_text())
    assert set(config["files"]) == {IMAGES, "history.csv", METRICS, MODEL, REJECTION, CALIBRATION}
    assert config == seal(config, rejecting, BOUND)
    with open(rejecting / IMAGES, newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["part"] for row in rows].count("test") == config["data"]["counts"]["test"]
    assert all(len(row["sha256"]) == 64 for row in rows)
    assert files.read_json(rejecting / METRICS)["class_names"] == list(tiny.CLASSES)
