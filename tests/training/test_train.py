"""train(): the files of a run, for any settings, and that they agree with each other."""

import csv
import json
import math
import shlex
import shutil
import zipfile

import keras
import numpy as np
import pytest
from PIL import Image

from keras_vit.cli.main import main, parse
from keras_vit.data.pipeline import ImageData, read_pixels
from keras_vit.data.preprocess import scale_pixels
from keras_vit.data.probe import shown_pixels
from keras_vit.errors import InputError
from keras_vit.report import kit
from keras_vit.runs.evaluate import evaluate
from keras_vit.runs.folder import load_run
from keras_vit.runs.predict import predict
from keras_vit.training.checkpoint import BEST, KeepBest, load_best, restore_checkpoint
from keras_vit.training.prepare import prepare_data
from keras_vit.training.train import train
from tests.helpers import tiny

FILES = [
    "calibration.npz",
    "config.json",
    "history.csv",
    "images.csv",
    "metrics.json",
    "model.keras",
    "report.html",
    "tensorboard",
]


pytestmark = pytest.mark.usefixtures("tiny_size")


@pytest.fixture(scope="module")
def run(three_epochs):
    return three_epochs


def data_of(run) -> ImageData:
    """The images of a run, with the same split."""
    return prepare_data(parse(command_of_run(run)).run)[0]


def command_of_run(run):
    return shlex.split(run.config["command"])[1:]


def logits_of(run, part):
    data = data_of(run)
    pixels = scale_pixels(
        read_pixels(data.image_set.take(getattr(data.split, part)).images, data.preprocessing),
        data.preprocessing,
    )
    return run.model.predict(np.asarray(pixels), verbose=0), data.labels(part)


def history_of(run):
    with open(run.path / "history.csv", newline="") as file:
        return [{name: float(value) for name, value in row.items()} for row in csv.DictReader(file)]


def test_the_files_of_the_run_folder(run):
    assert sorted(path.name for path in run.path.iterdir()) == FILES
    assert [path.name for path in run.path.parent.iterdir()] == ["first"]


def test_history_has_a_row_per_epoch(run):
    rows = history_of(run)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert set(rows[0]) == {
        "epoch",
        "loss",
        "accuracy",
        "balanced_accuracy",
        "val_loss",
        "val_accuracy",
        "val_balanced_accuracy",
        "learning_rate",
        "seconds",
    }
    assert all(math.isfinite(value) for row in rows for value in row.values())
    assert [row["learning_rate"] for row in rows] == pytest.approx([3e-4] * 3)


def test_tensorboard_gets_both_curves(run):
    events = sorted((run.path / "tensorboard").rglob("events.out.tfevents.*"))
    assert [path.parent.name for path in events] == ["train", "validation"]
    assert min(path.stat().st_size for path in events) > 100


def test_the_config_repeats_the_run(run, images):
    config = json.loads((run.path / "config.json").read_text())
    assert config["data"]["source"] == str(images)
    assert config["data"]["class_names"] == list(tiny.CLASSES)
    assert config["data"]["counts"] == {"train": 27, "validation": 3, "test": 6}
    assert config["image_shape"] == [28, 28, 1]
    assert config["backend"] == keras.backend.backend()
    assert {"keras", "numpy", "keras_vit"} <= set(config["versions"])
    assert config["seconds"] > 0
    assert parse(command_of_run(run)).run == parse(tiny.command(images, run.path)).run


def test_the_loaded_model_gives_the_figures_of_the_run(run):
    logits, labels = logits_of(run, "test")
    plain = keras.saving.load_model(run.path / "model.keras", safe_mode=True)
    assert getattr(plain, "optimizer", None) is None  # a model for inference needs no optimizer
    np.testing.assert_allclose(plain.get_weights()[0], run.model.get_weights()[0])
    assert run.metrics["best"]["accuracy"] == pytest.approx(np.mean(logits.argmax(1) == labels))
    assert run.metrics["best"]["images"] == len(labels) == 6


def test_the_best_epoch_is_the_best_by_validation(run):
    rows = history_of(run)
    best = max(rows, key=lambda row: (row["val_accuracy"], -row["val_loss"]))
    assert run.metrics["best"]["epoch"] == best["epoch"]
    assert run.metrics["last"]["epoch"] == 3
    logits, labels = logits_of(run, "validation")
    assert best["val_accuracy"] == pytest.approx(np.mean(logits.argmax(1) == labels))


def test_three_validation_images_are_too_few_to_reject_any(run, images):
    fitted = run.metrics["rejection"]
    reason = "nothing: to reject 5 % of such images at most takes 19 validation images, there are 3"
    assert (fitted["fitted_on"], fitted["threshold"], fitted["rates"]) == (reason, None, [])
    assert run.rejection is None
    assert reason.removeprefix("nothing: ") in (run.path / "report.html").read_text()
    assert predict(run, [images / "dots" / "0.png"])[0].reject is False


def test_the_report_is_one_file(run):
    report = (run.path / "report.html").read_text()
    assert "<html" in report
    assert "<script src" not in report
    assert 'src="http' not in report


def test_evaluate_repeats_the_figures(run):
    found = evaluate(run.path)
    assert found["accuracy"] == pytest.approx(run.metrics["best"]["accuracy"])
    assert found["images"] == run.metrics["best"]["images"]


def test_predict_gives_the_answers_of_the_model(run, images):
    logits, _ = logits_of(run, "test")
    found = predict(run, [images / name for name in data_of(run).names("test")])
    scaled = logits / run.temperature
    expected = np.exp(scaled - scaled.max(1, keepdims=True))
    expected /= expected.sum(1, keepdims=True)
    got = [[item.probabilities[name] for name in tiny.CLASSES] for item in found]
    np.testing.assert_allclose(got, expected, atol=1e-5)
    assert [item.label for item in found] == [tiny.CLASSES[i] for i in logits.argmax(1)]


def test_resuming_a_finished_run_returns_it(run, images):
    before = tiny.tree(run.path)
    again = train(parse(tiny.command(images, run.path, "--resume")).run)
    assert again.metrics == run.metrics
    assert tiny.tree(run.path) == before


def as_zip(folder, images):
    path = folder / "images.zip"
    with zipfile.ZipFile(path, "w") as packed:
        for file in images.rglob("*.png"):
            packed.write(file, file.relative_to(images))
    return path


def as_npz(folder, images):
    rng = np.random.default_rng(0)
    x = np.stack([tiny.pixels(name, rng) for name in tiny.CLASSES for _ in range(12)])
    np.savez(folder / "images.npz", x=x, y=np.repeat(np.arange(3), 12))
    return folder / "images.npz"


def as_folder(folder, images):
    return images


DEFAULT = ("--recipe", "default", "--warmup-epochs", "1")
KINDS = {
    "zip, RGB, no validation": (as_zip, ("--channels", "3", "--validation-fraction", "0")),
    "npz, not square, bfloat16": (
        as_npz,
        ("--image-size", "32", "16", "--aspect", "pad", "--precision", "mixed_bfloat16"),
    ),
    "default recipe, moving average": (as_folder, (*DEFAULT, "--ema-decay", "0.9")),
}


@pytest.mark.parametrize(("source", "options"), KINDS.values(), ids=KINDS.keys())
def test_every_kind_of_run(source, options, images, tmp_path):
    data = source(tmp_path, images)
    run = train(parse(tiny.command(data, tmp_path / "run", *options, epochs=2)).run)
    has_validation = "--validation-fraction" not in options  # without, nothing can be calibrated
    expected = [name for name in FILES if has_validation or name != "calibration.npz"]
    assert sorted(path.name for path in run.path.iterdir()) == expected
    rows = history_of(run)
    assert len(rows) == 2
    logits, labels = logits_of(run, "test")
    assert run.metrics["best"]["accuracy"] == pytest.approx(np.mean(logits.argmax(1) == labels))
    assert evaluate(run)["accuracy"] == pytest.approx(run.metrics["best"]["accuracy"])
    if "--channels" in options:
        assert run.model.input_shape == (None, 28, 28, 3)
        assert "val_loss" not in rows[0]
        assert run.metrics["best"]["epoch"] == 2
        assert run.temperature == 1.0
        assert run.rejection is None
        assert run.metrics["rejection"]["fitted_on"] == "nothing: there is no validation part"
    if "--image-size" in options:
        assert run.model.input_shape == (None, 32, 16, 1)
        assert {layer.compute_dtype for layer in run.model.layers} >= {"bfloat16"}
    if "--ema-decay" in options:  # evaluation and saving both use the average
        best = rows[run.metrics["best"]["epoch"] - 1]
        logits, labels = logits_of(run, "validation")
        loss = keras.losses.CategoricalCrossentropy(from_logits=True, label_smoothing=0.1)
        assert best["val_loss"] == pytest.approx(float(loss(np.eye(3)[labels], logits)), rel=1e-3)


def with_parts(folder, images):
    """The images, in the folders train, validation and test."""
    for path in sorted(images.rglob("*.png")):
        part = {"0": "test", "1": "test", "2": "validation"}.get(path.stem, "train")
        target = folder / "parts" / part / path.parent.name / path.name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(path, target)
    return folder / "parts"


@pytest.mark.parametrize(
    ("source", "counts"), [(as_folder, (30, 0, 6)), (with_parts, (30, 0, 6))], ids=["drawn", "of the source"]
)
def test_a_changed_model_on_merged_images(source, counts, images, tmp_path, capsys):
    changes = ("--depth", "2", "--dim", "12", "--stem", "conv", "--drop-path-rate", "0.1")
    data, last = source(tmp_path, images), ("--merge-validation", "--early-stopping", "1")
    run = train(parse(tiny.command(data, tmp_path / "run", *changes, *last, epochs=2)).run)
    assert "defect-tiny/4 with dim 12, depth 2, stem conv, drop_path_rate 0.1:" in capsys.readouterr().out
    expected = dict(depth=2, dim=12, stem="conv", drop_path_rate=0.1)
    assert run.config["model_changes"] == expected
    found = run.model.get_config()
    assert {name: found[name] for name in expected} == expected
    assert found["mlp_dim"] == 16  # the value of the size
    report = (run.path / "report.html").read_text()
    assert "<h3>Model changes</h3>" in report
    assert run.config["data"]["counts"] == dict(zip(("train", "validation", "test"), counts, strict=True))
    assert run.metrics["best"]["epoch"] == run.metrics["last"]["epoch"] == 2
    logits, labels = logits_of(run, "test")
    assert run.metrics["best"]["accuracy"] == pytest.approx(np.mean(logits.argmax(1) == labels))
    assert evaluate(run)["accuracy"] == pytest.approx(run.metrics["best"]["accuracy"])

    assert run.rejection is None
    assert run.metrics["rejection"]["fitted_on"] == "nothing: there is no validation part"

    # Its test images are the same as those of a run with validation images.
    apart, _ = prepare_data(parse(tiny.command(data, tmp_path / "other")).run)
    merged = data_of(run)
    assert merged.names("test") == apart.names("test")
    assert set(merged.names("train")) == {*apart.names("train"), *apart.names("validation")}
    assert len(apart.names("validation")) == 3


def test_the_config_of_a_run_with_the_same_seed_repeats_it(run, tmp_path):
    command = ["train", "--config", str(run.path / "config.json"), "--out", str(tmp_path / "again")]
    again = train(parse(command).run)
    assert again.config["train"] == run.config["train"]
    for ours, theirs in zip(again.model.get_weights(), run.model.get_weights(), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-5, atol=1e-6)


def test_early_stopping_ends_the_run_at_a_plateau(images, tmp_path):
    command = tiny.command(
        images, tmp_path / "run", "--early-stopping", "1", "--learning-rate", "0.5", epochs=40
    )
    run = train(parse(command).run)
    assert run.metrics["last"]["epoch"] == run.metrics["best"]["epoch"] + 1 == len(history_of(run)) < 40


@pytest.mark.parametrize(
    ("rows", "patience", "best", "stops"),
    [
        ([(0.5, 1.0), (0.6, 1.0), (0.4, 1.0)], None, 2, False),
        ([(0.5, 1.0), (0.5, 0.9), (0.5, 0.95)], None, 2, False),
        ([(0.5, 1.0), (0.5, 1.0)], None, 1, False),
        ([(0.5, 1.0), (0.4, 1.0), (0.4, 1.0)], 2, 1, True),
        ([(0.5, 1.0), (0.4, 1.0), (0.6, 1.0)], 2, 3, False),
        ([None, None, None], None, 3, False),
    ],
    ids=["accuracy", "then loss", "a tie keeps the first", "stops", "continues", "no validation"],
)
def test_which_epoch_is_best(rows, patience, best, stops, tmp_path):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    keep = KeepBest(tmp_path, patience)
    keep.set_model(model)
    model.stop_training = False
    for epoch, row in enumerate(rows):
        model.set_weights([np.full((1, 1), epoch + 1.0)])
        keep.on_epoch_end(epoch, None if row is None else dict(val_accuracy=row[0], val_loss=row[1]))
    assert keep.epoch == best
    assert load_best(tmp_path, model)[0].item() == best
    assert model.stop_training == stops
    assert [path.name for path in tmp_path.iterdir()] == [BEST]


def test_without_a_checkpoint_the_model_is_unchanged(tmp_path):
    assert restore_checkpoint(tmp_path, None) == []


def test_a_run_that_diverges_gives_an_error_and_leaves_nothing(images, tmp_path, monkeypatch):
    # No learning rate surely makes such a small model diverge, but these images do.
    monkeypatch.setattr(ImageData, "train_batches", lambda data, *where: not_a_number(data))
    config = parse(tiny.command(images, tmp_path / "runs" / "first")).run
    with pytest.raises(InputError, match="lower --learning-rate"):
        train(config)
    assert list(tmp_path.iterdir()) == []


def not_a_number(data):
    import tensorflow as tf

    images = np.full((8, *data.image_shape), np.nan, "float32")
    return tf.data.Dataset.from_tensors((images, np.eye(3, dtype="float32")[[0] * 8])).repeat()


@pytest.mark.long
@pytest.mark.parametrize("model", ["defect/4", "defect-conv/4"])
def test_the_command_trains_usual_sizes(model, images, tmp_path, capsys):
    options = ("--model", model, "--recipe", "default", "--warmup-epochs", "0", *tiny.NO_XLA)
    command = [
        "train",
        "--data",
        str(images),
        "--out",
        str(tmp_path / "run"),
        "--epochs",
        "1",
        "--batch-size",
        "8",
    ]
    assert main([*command, *options]) == 0
    assert capsys.readouterr().out.splitlines()[-1] == f"report: {tmp_path / 'run' / 'report.html'}"
    run = load_run(tmp_path / "run")
    assert run.config["model"] == model
    assert evaluate(run)["accuracy"] == pytest.approx(run.metrics["best"]["accuracy"])


@pytest.mark.filterwarnings("ignore:.*shuffle=True:UserWarning")
def test_plain_fit_in_a_script_of_the_user(images):
    from keras_vit import ViT, load_data

    data = load_data(images, (28, 28, 1), batch_size=8)
    model = ViT.from_variant(tiny.MODEL, image_shape=(28, 28, 1), num_classes=3)
    model.compile("adam", keras.losses.CategoricalCrossentropy(from_logits=True), metrics=["accuracy"])
    history = model.fit(
        data.train,
        steps_per_epoch=data.steps_per_epoch,
        validation_data=data.validation,
        epochs=2,
        verbose=0,
    )
    assert set(history.history) == {"accuracy", "loss", "val_accuracy", "val_loss"}
    assert len(model.evaluate(data.test, verbose=0)) == 2


@pytest.mark.parametrize(("mode", "channels"), [("L", 1), ("LA", 1), ("RGB", 3), ("RGBA", 3)])
def test_pictures_of_mistakes_of_any_mode(mode, channels, tmp_path):
    pixels = np.random.default_rng(0).integers(0, 256, (9, 7, len(mode)), dtype="uint8")
    Image.fromarray(pixels[..., 0] if mode == "L" else pixels, mode).save(tmp_path / "image.png")
    encoded = (tmp_path / "image.png").read_bytes()
    # What is transparent shows the white background, as Pillow composes it.
    seen = Image.open(tmp_path / "image.png").convert("RGBA")
    expected = Image.alpha_composite(Image.new("RGBA", seen.size, "white"), seen)
    expected = np.asarray(expected)[..., :channels].astype(int)
    for image in (tmp_path / "image.png", encoded, pixels):
        assert shown_pixels(image).shape == expected.shape
        np.testing.assert_allclose(shown_pixels(image), expected, atol=1 if "A" in mode else 0)
        kit.picture(shown_pixels(image))
