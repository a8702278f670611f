"""Normalisation travels with the weights: each answer is compared with Pillow and numpy.

A run is made by hand, with the mean and standard deviation of ImageNet and the bicubic resize. What it should
answer is computed without the package's preprocessing: Pillow reads and resizes the files, numpy scales them,
and only the bare ViT is shared.
"""

import dataclasses
import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image

from keras_vit import ViT, evaluate, export, load_run, predict
from keras_vit.cli.main import main
from keras_vit.data.preprocess import Preprocessing, prepare_pixels, scale_pixels
from keras_vit.data.sources import load_image_set
from keras_vit.data.split import split_image_set
from keras_vit.errors import InputError
from keras_vit.evaluation.metrics import classification_metrics
from keras_vit.evaluation.ood import OODDetector
from keras_vit.process.exit_codes import FINE
from keras_vit.runs.folder import CONFIG, METRICS, MODEL, REJECTION
from keras_vit.runs.ood import features_by_part
from keras_vit.runs.ood_features import ood_features
from keras_vit.validation import to_plain
from tests.helpers.checks import randomize, softmax
from tests.helpers.paths import ROOT

FIXTURE = ROOT / "tests" / "fixtures" / "version_0_1_0" / "run"

# Of ImageNet's training images, as torchvision and timm use them.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHAPE = (24, 20, 3)
PREPROCESSING = Preprocessing(SHAPE, "stretch", MEAN, STD, "bicubic")
PUBLISHED = {
    "source": "timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k",
    "revision": None,
    "sha256": "0" * 64,
    "licence": "apache-2.0",
    "family": "timm",
}
SIZES = ((24, 20), (48, 40), (24, 40))
"""Of the images: the model's size or twice that. At others a few pixels differ by 1: see `resize_to`."""

FORMATS = ("onnx", "litert", "openvino")


def draw(folder, class_names, each=5):
    """Colour images whose channels differ, and whose edges make the cubic overshoot."""
    rng = np.random.default_rng(0)
    for label, name in enumerate(class_names):
        (folder / name).mkdir(parents=True)
        for i in range(each):
            size = SIZES[i % len(SIZES)]
            pixels = rng.integers(0, 256, (*size, 3)) * np.array([1.0, 0.6, 0.3])
            pixels[: size[0] // 2, :, label % 3] = 255
            Image.fromarray(pixels.astype("uint8")).save(folder / name / f"{i}.png")


def by_pillow(path):
    """An image as the published weights were trained on it: uint8 (height, width, 3)."""
    height, width, _ = SHAPE
    with Image.open(path) as image:
        return np.asarray(image.convert("RGB").resize((width, height), Image.Resampling.BICUBIC))


def scaled_by_numpy(pixels):
    return ((pixels.astype("float64") / 255 - np.array(MEAN)) / np.array(STD)).astype("float32")


def make_run(folder, images):
    """A run folder: the record of a run of version 0.1.0 with another model, images and preprocessing."""
    config, metrics = (json.loads((FIXTURE / name).read_text()) for name in (CONFIG, METRICS))
    class_names = config["data"]["class_names"]
    draw(images, class_names)
    image_set = load_image_set(images)
    model = randomize(
        ViT(SHAPE, len(class_names), patch_size=4, dim=16, depth=2, num_heads=2, mlp_dim=16), scale=0.1
    )
    settings = {**config["train"], "data": str(images), "changes": {}}
    split = split_image_set(
        image_set,
        seed=settings["seed"],
        test_fraction=settings["test_fraction"],
        validation_fraction=settings["validation_fraction"],
    )
    counts = {part: len(getattr(split, part)) for part in ("train", "validation", "test")}
    config |= {
        "model_config": model.get_config(),
        "image_shape": list(SHAPE),
        "preprocessing": to_plain(PREPROCESSING),
        "weights": PUBLISHED,
        "train": settings,
        "data": {**config["data"], "source": str(images), "counts": counts},
    }
    scaled = scaled_by_numpy(np.stack([by_pillow(path) for path in image_set.images]))
    features = ood_features(model).predict(scaled, verbose=0)
    projection = np.random.default_rng(0).normal(0, 0.1, (features.shape[1], 5)).astype("float32")
    detector = OODDetector.shared(projection, (features[:4] @ projection).astype("float32"), 0.0)
    distances = np.sort(detector.distances(features))  # of half of the images it rejects
    middle = len(distances) // 2
    detector = dataclasses.replace(detector, threshold=float(distances[middle : middle + 2].mean()))
    metrics["rejection"] = {
        "fitted_on": "validation",
        "validation_images": counts["validation"],
        "share_allowed": 0.05,
        "rates": [],
    }
    folder.mkdir()
    (folder / CONFIG).write_text(json.dumps(config))
    (folder / METRICS).write_text(json.dumps(metrics))
    model.save(folder / MODEL)
    detector.save(folder / REJECTION)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    keras.utils.set_random_seed(0)
    parent = tmp_path_factory.mktemp("published")
    make_run(parent / "run", parent / "images")
    return parent / "run"


@pytest.fixture(scope="module")
def expected(folder):
    """Files, labels, Pillow's pixels, and the answers to them, with and without mirror images."""
    run = load_run(folder)
    image_set = load_image_set(folder.parent / "images")
    pixels = np.stack([by_pillow(path) for path in image_set.images])
    scaled = scaled_by_numpy(pixels)

    def logits(images):
        return run.model.predict(np.ascontiguousarray(images), verbose=0).astype("float64")

    mirrored = [logits(scaled[:, ::up, ::left]) for up in (1, -1) for left in (1, -1)]
    features = ood_features(run.model).predict(scaled, verbose=0)
    found = SimpleNamespace(
        paths=list(image_set.images),
        labels=image_set.labels,
        pixels=pixels,
        probabilities={
            False: softmax(mirrored[0] / run.temperature),
            True: softmax(np.mean(mirrored, axis=0) / run.temperature),
        },
        reject=run.rejection.rejects(features),
    )
    # What the tests below tell apart is far more than their tolerances.
    assert np.abs(found.probabilities[True] - found.probabilities[False]).max() > 1e-2
    assert len(set(found.probabilities[False].argmax(axis=1))) > 1
    assert 0 < found.reject.sum() < len(found.reject)
    return found


def probabilities_of(predictions):
    return np.array([[*item.probabilities.values()] for item in predictions])


def test_the_pixels_are_those_of_pillow(expected):
    assert {by_pillow(path).shape for path in expected.paths} == {SHAPE}
    for path, pixels in zip(expected.paths, expected.pixels, strict=True):
        with Image.open(path) as image:
            found = prepare_pixels(np.asarray(image), PREPROCESSING).numpy()
        np.testing.assert_array_equal(found, pixels)


@pytest.mark.parametrize("flips", [False, True])
def test_predict(flips, folder, expected):
    found = predict(folder, expected.paths, flips=flips)
    np.testing.assert_allclose(probabilities_of(found), expected.probabilities[flips], rtol=0, atol=1e-5)
    assert [item.reject for item in found] == expected.reject.tolist()  # also with mirror images


@pytest.mark.parametrize("flips", [False, True])
def test_evaluate(flips, folder, expected):
    run = load_run(folder)
    found = evaluate(run, str(folder.parent / "images"), flips=flips)
    wanted = classification_metrics(expected.labels, expected.probabilities[flips], run.class_names)
    assert found["log_loss"] == pytest.approx(wanted["log_loss"], abs=1e-5)
    assert found["confusion_matrix"] == wanted["confusion_matrix"]


@pytest.mark.parametrize("flips", [False, True])
def test_the_commands(flips, folder, expected, capsys):
    option = ["--flips-at-test"] if flips else []
    files = [str(path) for path in expected.paths[:4]]
    assert main(["predict", str(folder), *files, "--json", *option]) == FINE
    found = json.loads(capsys.readouterr().out)
    probabilities = [[*item["probabilities"].values()] for item in found]
    np.testing.assert_allclose(probabilities, expected.probabilities[flips][:4], rtol=0, atol=1e-5)
    assert main(["evaluate", str(folder), "--data", str(folder.parent / "images"), *option]) == FINE
    first = next(line for line in capsys.readouterr().out.splitlines() if " of 30" in line)
    right = (expected.probabilities[flips].argmax(axis=1) == expected.labels).sum()
    assert f"{right} of {len(expected.labels)}" in first
    assert ("mean over mirror images" in first) is flips


def changed(folder, parent, **changes):
    """A copy of the run with another preprocessing; `None` leaves the record out, as earlier versions did."""
    other = parent / "run"
    other.mkdir()
    for path in folder.iterdir():
        (other / path.name).write_bytes(path.read_bytes())
    config = json.loads((other / CONFIG).read_text())
    config["preprocessing"] = {**config["preprocessing"], **changes}
    if not changes:
        del config["preprocessing"]
    (other / CONFIG).write_text(json.dumps(config))
    return other


@pytest.mark.parametrize(
    "changes",
    [
        {"mean": [0.5, 0.5, 0.5]},
        {"mean": MEAN[::-1]},
        {"std": [0.5]},
        {"mean": None, "std": None},
        {"interpolation": "bilinear"},
        {},
    ],
    ids=str,
)
def test_another_preprocessing_is_noticed(changes, folder, expected, tmp_path):
    found = probabilities_of(predict(changed(folder, tmp_path, **changes), expected.paths))
    assert np.abs(found - expected.probabilities[False]).max() > 1e-3


@pytest.mark.same_on_every_backend
def test_a_run_without_the_record_has_the_preprocessing_of_earlier_versions(folder, tmp_path):
    found = load_run(changed(folder, tmp_path)).preprocessing
    earlier = Preprocessing(
        SHAPE, "stretch", background=None, exif_orientation=False, tiff_page=1, inverts_values=True
    )
    assert found == earlier
    pixels = np.random.default_rng(0).uniform(0, 255, (2, *SHAPE)).astype("float32")
    np.testing.assert_array_equal(scale_pixels(pixels, found), pixels / 127.5 - 1.0)


@pytest.mark.same_on_every_backend
@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"std": [0.0]},
            r"damaged config.json \(std must be above 0.0 and 1.0 at most. Received: std=\[0",
        ),
        ({"mean": [0.1, 0.2]}, r"mean must be 3 numbers, one for each channel, or one. Received: mean="),
        ({"crop_pct": 0.9}, r"it has unknown settings: crop_pct"),
        ({"image_shape": 24}, r"image_shape must be a list of 3 whole numbers"),
    ],
)
def test_a_damaged_record_is_refused(changes, message, folder, tmp_path):
    with pytest.raises(InputError, match=message):
        load_run(changed(folder, tmp_path, **changes))


def test_the_detector_is_fitted_on_scaled_pixels(folder, expected):
    model = load_run(folder).model
    found = features_by_part(model, {"all": expected.paths}, PREPROCESSING)["all"]
    wanted = ood_features(model).predict(scaled_by_numpy(expected.pixels), verbose=0)
    np.testing.assert_allclose(found, wanted, rtol=1e-4, atol=1e-4)


# Exports


@pytest.fixture(scope="module")
def bundles(folder, tmp_path_factory):
    """Whether it has mirror images -> the SavedModel."""
    pytest.importorskip("tensorflow_serving", reason="needs the extra serving")
    models = tmp_path_factory.mktemp("bundles")
    command = ["export", str(folder), "--to", str(models), "--name", "flips", "--flips-at-test"]
    assert main(command) == FINE
    return {False: export(folder, models, name="plain").path, True: models / "flips" / "1"}


@pytest.mark.same_on_every_backend
@pytest.mark.long
@pytest.mark.parametrize("flips", [False, True])
def test_the_bundle(flips, bundles, expected):
    import tensorflow as tf

    from tests.serving.graph_ops import objections, read

    signatures = tf.saved_model.load(str(bundles[flips])).signatures
    files = tf.constant([path.read_bytes() for path in expected.paths])
    found = signatures["serving_default"](image_bytes=files)
    np.testing.assert_allclose(found["probabilities"], expected.probabilities[flips], rtol=0, atol=1e-5)
    assert found["reject"].numpy().tolist() == expected.reject.tolist()
    pixels = {"images_uint8": expected.pixels, "images": expected.pixels.astype("float32")}
    for signature, images in pixels.items():
        found = signatures[signature](images=tf.constant(images))
        np.testing.assert_allclose(found["probabilities"], expected.probabilities[flips], rtol=0, atol=1e-5)
    assert objections(read(bundles[flips]).meta_graphs[0]) == []  # operations that a server may not have
    for count in (0, 1):
        found = signatures["serving_default"](image_bytes=files[:count])
        wanted = expected.probabilities[flips][:count]
        np.testing.assert_allclose(found["probabilities"], wanted, rtol=0, atol=1e-5)


@pytest.fixture(scope="module")
def files(folder, tmp_path_factory):
    """(format, whether it has mirror images) -> the folder of the exported file."""
    pytest.importorskip("tf2onnx", reason="needs the extra formats")
    models = tmp_path_factory.mktemp("files")
    return {
        (format, flips): export(folder, models, format=format, name=f"{format}-{flips}", flips=flips).path
        for format in FORMATS
        for flips in (False, True)
    }


@pytest.mark.same_on_every_backend
@pytest.mark.long
@pytest.mark.parametrize("flips", [False, True])
@pytest.mark.parametrize("format", FORMATS)
def test_a_portable_file(format, flips, files, expected):
    from keras_vit.serving.formats.write import FORMATS as writers

    found = writers[format].load(files[format, flips])(expected.pixels.astype("float32"))
    np.testing.assert_allclose(found["probabilities"], expected.probabilities[flips], rtol=0, atol=1e-4)
    assert (found["reject"] != 0).tolist() == expected.reject.tolist()


@pytest.mark.same_on_every_backend
@pytest.mark.long
@pytest.mark.parametrize("flips", [False, True])
def test_what_stands_beside_an_export(flips, files, bundles):
    described = json.loads((files["onnx", flips] / "serving.json").read_text())
    assert (described["mean"], described["std"]) == (list(MEAN), list(STD))
    assert described["interpolation"] == "bicubic"
    assert described["scaling"].startswith("in the model")
    assert described["flips_at_test"] is flips
    assert described["weights"] == PUBLISHED
    resize, scaling = described["preprocessing"][-2:]
    assert "BICUBIC" in resize
    assert "0..255" in scaling
    of_bundle = json.loads((bundles[flips] / "assets.extra" / "serving.json").read_text())
    for name in ("mean", "std", "interpolation", "scaling", "flips_at_test", "weights", "image_shape"):
        assert of_bundle[name] == described[name]
    card = (bundles[flips] / "model_card.md").read_text()
    assert "the mean 0.485, 0.456, 0.406 and the std 0.229, 0.224, 0.225" in card
    assert "24 x 20 pixels, RGB (stretch, bicubic)" in card
    assert ("Mirror images:" in card) is flips
    for name in ("source", "sha256", "licence"):
        assert f"| {name} | {PUBLISHED[name]} |" in card
    assert "| revision | not known |" in card


@pytest.mark.skipif(keras.backend.backend() == "tensorflow", reason="TensorFlow exports in its own process")
@pytest.mark.long
def test_the_process_that_exports_is_told(folder, expected, tmp_path):
    pytest.importorskip("tf2onnx", reason="needs the extra formats")
    from keras_vit.serving.formats import to_onnx

    exported = export(folder, tmp_path, format="onnx", flips=True)
    found = to_onnx.load(exported.path)(expected.pixels.astype("float32"))
    np.testing.assert_allclose(found["probabilities"], expected.probabilities[True], rtol=0, atol=1e-4)
