"""The out-of-distribution rejection of a run, on every backend and after an interruption."""

import dataclasses
import importlib.util
import itertools
import json
import os
import re
import shutil
import subprocess
import sys

import keras
import numpy as np
import pytest
from PIL import Image

from keras_vit import ViT, files
from keras_vit.cli.main import main, parse
from keras_vit.data.augmentation import Augmentation
from keras_vit.data.corrupted import corrupted_pixels
from keras_vit.data.pipeline import read_pixels
from keras_vit.data.preprocess import scale_pixels
from keras_vit.errors import InputError
from keras_vit.files import partial_of
from keras_vit.process.exit_codes import FINE
from keras_vit.runs import ood
from keras_vit.runs.folder import load_run
from keras_vit.runs.ood_features import ood_columns, ood_features
from keras_vit.runs.ood_images import ood_example_images, texture_windows
from keras_vit.runs.ood_texture import Texture
from keras_vit.runs.predict import predict
from keras_vit.training import outputs
from keras_vit.training.prepare import prepare_data
from tests.helpers import tiny
from tests.helpers.checks import random_input, randomize
from tests.helpers.paths import ROOT

BACKENDS = ("tensorflow", "jax", "torch")

pytestmark = pytest.mark.usefixtures("tiny_size")


def command(images, out):
    """The command that trained `rejecting`."""
    return tiny.command(images, out, "--validation-fraction", 0.25, epochs=6)


@pytest.fixture(scope="module")
def run(rejecting):
    return load_run(rejecting)


@pytest.fixture(scope="module")
def data(run):
    config = parse(["train", "--config", str(run.path / "config.json")]).run
    return prepare_data(config, keep_originals=False)[0]


def prepared(run, images):
    """The input of the model for images: files, and arrays of any shape."""
    kinds = itertools.groupby(images, key=lambda image: getattr(image, "shape", None))
    pixels = [read_pixels(list(kind), run.preprocessing) for _, kind in kinds]
    return np.asarray(scale_pixels(np.concatenate(pixels), run.preprocessing))


def features_of(run, images):
    pixels = prepared(run, images)
    return keras.ops.convert_to_numpy(ood_features(run.model)(pixels))


def test_the_run_folder_holds_what_was_fitted(run):
    files = {path.name for path in run.path.iterdir()}
    plain = {"config.json", "history.csv", "metrics.json", "model.keras", "report.html", "tensorboard"}
    assert files == {*plain, "images.csv", "rejection.npz", "calibration.npz"}
    fitted = run.metrics["rejection"]
    assert {key: value for key, value in fitted.items() if key not in ("rates", "threshold")} == {
        "method": "Mahalanobis distance to the nearest class, with a covariance per class, at several depths",
        "share_allowed": 0.05,
        "fitted_on": "validation",
        "training_images": 72,
        "validation_images": 24,
        "with_copies": False,
        "features": "texture and head",
        "bytes": run.rejection.num_bytes,
        "shared_covariance": 0,
        "chosen_by": 0,
    }
    assert run.rejection.threshold == fitted["threshold"] > 0
    assert run.rejection.num_classes == len(tiny.CLASSES)
    assert (run.path / "rejection.npz").stat().st_size < run.rejection.num_bytes + 4000
    json.dumps(fitted, allow_nan=False)


def test_the_rates_are_counted_from_the_images(run, data):
    kinds = {
        "validation": data.image_set.take(data.split.validation).images,
        "test": data.image_set.take(data.split.test).images,
        **ood_example_images(data.image_shape),
    }
    rates = run.metrics["rejection"]["rates"]
    assert [row["name"] for row in rates] == list(kinds)
    for row in rates:
        distances = run.rejection.distances(features_of(run, kinds[row["name"]]))
        assert row["images"] == len(distances)
        near = np.isclose(distances, run.rejection.threshold, rtol=1e-3).sum()
        assert abs(row["rejected"] - (distances > run.rejection.threshold).sum()) <= near, row
        assert row["left_out"] is None
    # The threshold is the largest distance of the 24 validation images.
    assert rates[0]["rejected"] == 0


def test_the_threshold_is_fitted_on_the_training_and_the_validation_images(run, data):
    distances = run.rejection.distances(features_of(run, data.image_set.take(data.split.validation).images))
    assert np.sort(distances)[23] == pytest.approx(run.rejection.threshold, rel=1e-3)
    features = features_of(run, data.image_set.take(data.split.train).images)
    (gaussians,) = run.rejection.depths
    centers = np.stack([features[data.labels("train") == k].mean(0) for k in range(3)])
    np.testing.assert_allclose(np.diag(gaussians.squared(centers)), 0, atol=0.05)


def test_predict_rejects_the_images_that_the_run_rejects(run, data, tmp_path, capsys):
    flat, text = tmp_path / "flat.png", tmp_path / "text.jpg"
    Image.fromarray(np.full((32, 32), 128, "uint8")).save(flat)
    text.write_text("not an image")
    test = [data.image_set.original(i) for i in data.split.test]
    found = predict(run, [*test, flat, text])
    rejects = run.rejection.rejects(features_of(run, [*test, flat]))
    assert [item.reject for item in found] == [*rejects, True]
    assert rejects[-1]  # no training image is flat
    assert not all(rejects)
    assert found[-2].label in tiny.CLASSES
    main(["predict", str(run.path), str(test[0]), str(flat), str(text)])
    first, second, third = capsys.readouterr().out.splitlines()
    assert ("rejected" in first) == rejects[0]
    assert re.search(r"\d%  .*rejected: unlike the training images$", second)
    assert "not a readable JPEG" in third
    main(["predict", str(run.path), str(test[0]), str(flat), str(text), "--json"])
    shown = [item["reject"] for item in json.loads(capsys.readouterr().out)]
    assert shown == [bool(rejects[0]), True, True]


def test_the_report_shows_the_rates(run):
    report = (run.path / "report.html").read_text()
    assert "<h2>Out-of-distribution images</h2>" in report
    for row in run.metrics["rejection"]["rates"]:
        assert f'<th scope="row">{row["name"]}</th>' in report


class Interrupted(SystemExit):
    """An exception that no code under test catches."""


@pytest.mark.long
def test_a_run_that_is_interrupted_while_writing_ends_like_an_uninterrupted_one(
    run, drawn_images, tmp_path, monkeypatch
):
    out = tmp_path / "run"

    def interrupt(**_):
        raise Interrupted

    with monkeypatch.context() as patch:
        patch.setattr(outputs, "render_report", interrupt)
        with pytest.raises(Interrupted):
            main(command(drawn_images, out))
    assert (partial_of(out) / "rejection.npz").is_file()
    assert main(["train", "--out", str(out), "--resume"]) == FINE
    again = load_run(out)
    assert {path.name for path in out.iterdir()} == {path.name for path in run.path.iterdir()}
    assert again.rejection.threshold == pytest.approx(run.rejection.threshold, rel=1e-2)
    for row, expected in zip(
        again.metrics["rejection"]["rates"], run.metrics["rejection"]["rates"], strict=True
    ):
        assert abs(row["rejected"] - expected["rejected"]) <= 1


def without_hashes(folder):
    """A run as earlier versions left it."""
    config = files.read_json(folder / "config.json")
    kept = {key: value for key, value in config.items() if key not in ("files", "sha256")}
    files.write_json(folder / "config.json", kept)
    return folder


def test_a_run_of_an_earlier_version_has_no_rejection(run, drawn_images, tmp_path):
    old = load_run(without_hashes(shutil.copytree(run.path, tmp_path / "old")))
    metrics = {key: value for key, value in old.metrics.items() if key != "rejection"}
    files.write_json(old.path / "metrics.json", metrics)
    (old.path / "rejection.npz").unlink()
    old = load_run(old.path)
    assert predict(old, [drawn_images / "dots" / "0.png"])[0].reject is False
    with pytest.raises(
        InputError, match=r"An earlier version trained .*keras-vit train --config .*config\.json --out NEW"
    ):
        _ = old.rejection


def test_a_run_without_its_rejection_file_is_an_error(run, tmp_path):
    whole = shutil.copytree(run.path, tmp_path / "whole")
    earlier = without_hashes(shutil.copytree(run.path, tmp_path / "earlier"))
    for folder, message in (
        (whole, r"There is no file .*rejection\.npz, which belongs to the others"),
        (earlier, r"rejection\.npz cannot be read"),
    ):
        other = load_run(folder)
        (folder / "rejection.npz").unlink()
        with pytest.raises(InputError, match=message):
            _ = other.rejection


def test_the_drawn_defects_are_left_out_of_a_run_on_them(run, data, monkeypatch):
    drawn = dataclasses.replace(
        data, image_set=dataclasses.replace(data.image_set, source="drawn steel defects")
    )
    monkeypatch.setattr(
        ood,
        "ood_example_images",
        lambda _: {name: [np.zeros((8, 8, 1), "uint8")] for name in ("drawn defects", "noise")},
    )
    _, fitted = ood.judge_ood(run.model, drawn)
    left_out = {row["name"]: row["left_out"] for row in fitted["rates"]}
    assert left_out == {
        "validation": None,
        "test": None,
        "drawn defects": "the run was trained on them",
        "noise": None,
    }


def test_what_the_run_was_trained_to_recognise_is_accepted(run, data):
    """A run that learned from dark and bright copies of its images rejects few such images."""
    copies = Augmentation(corrupted_copies=1, corruptions=("brightness",))
    robust = dataclasses.replace(data, augmentation=copies)
    plain, told = ood.judge_ood(run.model, data)
    detector, judged = ood.judge_ood(run.model, robust)
    assert (told["with_copies"], judged["with_copies"]) == (False, True)
    assert told["training_images"] == judged["training_images"]
    test = data.image_set.take(data.split.test)
    changed = corrupted_pixels(test, data.preprocessing, copies, seed=9).astype("float32")
    features = ood.features_by_part(run.model, {"test": list(changed)}, data.preprocessing)["test"]
    assert plain.rejects(features).mean() > 0.5
    assert detector.rejects(features).mean() < 0.25
    (noise,) = [row for row in judged["rates"] if row["name"] == "flat gray"]
    assert noise["share"] > 0.9


# The features


KINDS = {
    "token": dict(pooling="token", num_registers=2),
    "gap": dict(pooling="gap", num_registers=1),
    "map, conv, remat": dict(pooling="map", stem="conv", head_hidden_dim=12, remat=True),
    "one block": dict(depth=1),
    "half precision": dict(dtype="mixed_bfloat16"),
}


def small(**options):
    model = ViT(
        **{
            **dict(image_shape=(8, 12, 3), num_classes=5, patch_size=4, dim=16, depth=5, num_heads=2),
            **options,
        }
    )
    return randomize(model, scale=0.05)


@pytest.mark.parametrize("options", KINDS.values(), ids=KINDS.keys())
def test_the_features_are_means_and_contrast_of_tokens(options):
    model = small(**options)
    x = random_input((4, 8, 12, 3))
    depth = model.get_config()["depth"]
    names = ["patch_embed", *(["block_1", "block_4"] if depth == 5 else ["block_0"])]
    outputs = [model.get_layer(name).output for name in names]
    *tokens, head = keras.Model(model.input, [*outputs, model.extractor("features").output])(x)
    tokens = [keras.ops.convert_to_numpy(keras.ops.cast(t, "float32"))[:, -6:] for t in tokens]
    head = keras.ops.convert_to_numpy(keras.ops.cast(head, "float32"))
    columns = ood_columns(model)
    expected = [np.log(tokens[0].std(axis=1) + 1e-3), *(t.mean(axis=1) for t in tokens), head]
    found = keras.ops.convert_to_numpy(ood_features(model)(x))
    assert found.dtype == np.float32
    earlier = np.concatenate(expected, axis=1)
    np.testing.assert_allclose(found[:, columns["contrast"][0] :], earlier, rtol=1e-3, atol=1e-4)
    texture = keras.ops.convert_to_numpy(Texture()(x))
    np.testing.assert_allclose(found[:, slice(*columns["texture"])], texture, rtol=1e-3, atol=1e-4)
    by_name = {"contrast": expected[0], "patches": expected[1], "half": expected[2], "head": head}
    by_name["last"] = expected[-2]
    if depth == 5:
        tokens = keras.Model(model.input, model.get_layer("block_2").output)(x)[:, -6:]
        by_name["three quarters"] = keras.ops.convert_to_numpy(keras.ops.cast(tokens, "float32")).mean(axis=1)
    for name, values in by_name.items():
        np.testing.assert_allclose(found[:, slice(*columns[name])], values, rtol=1e-2, atol=1e-3)
    assert max(stop for _, stop in columns.values()) == found.shape[1]


FEATURES = """
import pathlib, sys
import keras, numpy as np
from keras_vit.runs.folder import load_model
from keras_vit.runs.ood_features import ood_features
folder = pathlib.Path(sys.argv[1])
found = ood_features(load_model(folder / "model.keras"))(np.load(folder / "x.npy"))
np.save(folder / f"{keras.backend.backend()}.npy", keras.ops.convert_to_numpy(found))
"""


@pytest.mark.long
@pytest.mark.parametrize("backend", BACKENDS)
def test_the_same_images_are_rejected_on_every_backend(backend, run, data, tmp_path):
    own_backend = keras.backend.backend()
    if backend == own_backend or "tensorflow" not in (backend, own_backend):
        pytest.skip(f"{own_backend} and {backend} are each compared with TensorFlow")
    if importlib.util.find_spec(backend) is None:
        pytest.skip(f"{backend} is not installed")
    images = [*data.image_set.take(data.split.test).images, *texture_windows()[::4]]
    np.save(tmp_path / "x.npy", prepared(run, images))
    shutil.copy(run.path / "model.keras", tmp_path)
    path = str(ROOT)
    subprocess.run(
        [sys.executable, "-c", FEATURES, str(tmp_path)],
        env={**os.environ, "KERAS_BACKEND": backend, "PYTHONPATH": path},
        check=True,
        capture_output=True,
        timeout=300,
    )
    rejection, other = run.rejection, np.load(tmp_path / f"{backend}.npy")
    own = rejection.distances(features_of(run, images))
    np.testing.assert_allclose(rejection.distances(other), own, rtol=1e-3)
    clear = ~np.isclose(own, rejection.threshold, rtol=1e-3)
    assert clear.sum() > len(images) - 3
    np.testing.assert_array_equal(rejection.rejects(other)[clear], (own > rejection.threshold)[clear])
