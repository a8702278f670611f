"""The answers about images, compared with numpy on each backend. Each file is decoded once."""

import dataclasses
import itertools

import keras
import numpy as np
import pytest
from PIL import Image

from keras_vit import ViT, evaluate, predict
from keras_vit.data import reading
from keras_vit.data.preprocess import Preprocessing, scale_pixels
from keras_vit.evaluation.calibration import softmax
from keras_vit.evaluation.ood import Gaussians, OODDetector
from keras_vit.runs import answer
from keras_vit.runs import predictions as predict_module
from keras_vit.runs.answer import (
    MAX_BATCH_BYTES,
    Flips,
    answer_images,
    answer_model,
    batch_size,
)
from keras_vit.runs.folder import load_run
from keras_vit.runs.judged_images import own_images
from keras_vit.runs.ood_distance import OODDistance, ood_distance
from keras_vit.runs.ood_features import ood_features
from tests.helpers.checks import randomize

SHAPE = (8, 12, 3)
PREPROCESSING = Preprocessing(SHAPE)
TEMPERATURE = 0.7
KINDS = {
    "token": dict(pooling="token", num_registers=2, depth=2),
    "conv stem, hidden head": dict(pooling="map", stem="conv", head_hidden_dim=12),
    "half precision": dict(dtype="mixed_bfloat16"),
}
SMALL = dict(image_shape=SHAPE, num_classes=5, patch_size=4, dim=16, depth=1, num_heads=2, mlp_dim=16)


def small(**options):
    return randomize(ViT(**{**SMALL, **options}), scale=0.1)


def plain_answers(model, **options):
    return answer_model(model, 1.0, None, PREPROCESSING, **options)


def detector_of(features):
    """A detector that rejects about half of the images."""
    rng = np.random.default_rng(0)
    dim = features.shape[1]
    projection = rng.normal(0, 1 / dim, (dim, 6)).astype("float32")
    detector = OODDetector.shared(projection, (features[:4] @ projection).astype("float32"), 0.0)
    middle = len(features) // 2
    return dataclasses.replace(
        detector, threshold=float(np.sort(detector.distances(features))[middle : middle + 2].mean())
    )


def pixels_of(images):
    return np.random.default_rng(1).uniform(0, 255, (images, *SHAPE)).astype("float32")


def answers_to(model, pixels):
    return answer_images(model, list(pixels), PREPROCESSING)


@pytest.fixture(scope="module", params=KINDS)
def small_case(request):
    """A model, its detector, images, and the answers to them."""
    keras.utils.set_random_seed(0)
    model, pixels = small(**KINDS[request.param]), pixels_of(42)
    scaled = np.asarray(scale_pixels(pixels, PREPROCESSING))
    features = ood_features(model).predict(scaled, verbose=0)
    detector = detector_of(features)
    found = answers_to(answer_model(model, TEMPERATURE, detector, PREPROCESSING), pixels)
    return model, detector, scaled, features, found


def test_the_answers_combine_the_parts(small_case):
    model, detector, scaled, features, found = small_case
    half = model.get_layer("patch_embed").compute_dtype != "float32"
    close = dict(rtol=2e-2, atol=5e-2) if half else dict(rtol=1e-5, atol=1e-5)
    probabilities = softmax(model.predict(scaled, verbose=0) / TEMPERATURE)
    np.testing.assert_allclose(found["probabilities"], probabilities, **close)
    np.testing.assert_array_equal(found["label"], found["probabilities"].argmax(axis=1))
    np.testing.assert_array_equal(found["confidence"], found["probabilities"].max(axis=1))
    head = keras.ops.cast(model.extractor("features")(scaled), "float32")
    np.testing.assert_allclose(found["features"], keras.ops.convert_to_numpy(head), **close)
    distances = detector.distances(features)
    np.testing.assert_allclose(
        found["distance"], distances, **(close if half else dict(rtol=1e-4, atol=1e-6))
    )
    clear = np.abs(distances / detector.threshold - 1) > (5e-2 if half else 1e-5)
    np.testing.assert_array_equal(found["reject"][clear], (distances > detector.threshold)[clear])
    assert 0 < found["reject"].sum() < len(scaled)


def test_the_types(small_case):
    assert {name: (values.dtype.name, values.shape[1:]) for name, values in small_case[-1].items()} == {
        "probabilities": ("float32", (5,)),
        "label": ("int32", ()),
        "confidence": ("float32", ()),
        "reject": ("int32", ()),
        "distance": ("float32", ()),
        "features": ("float32", small_case[-1]["features"].shape[1:]),
    }


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, -1.0, 256.0, 65535.0])
@pytest.mark.parametrize("has_detector", [True, False])
def test_pixels_out_of_range_are_rejected_and_do_not_affect_others(value, has_detector):
    model, pixels = small(stem="conv"), pixels_of(6)
    detector = None
    if has_detector:
        features = ood_features(model).predict(np.asarray(scale_pixels(pixels, PREPROCESSING)), verbose=0)
        detector = dataclasses.replace(detector_of(features), threshold=1e6)
    answers = answer_model(model, 1.0, detector, PREPROCESSING)
    before = answers_to(answers, pixels)
    pixels[2, 3, 3, 0] = value
    found = answers_to(answers, pixels)
    assert before["reject"].tolist() == [0] * 6
    assert found["reject"].tolist() == [0, 0, 1, 0, 0, 0]
    others = np.delete(np.arange(6), 2)
    np.testing.assert_allclose(found["probabilities"][others], before["probabilities"][others], atol=1e-5)


def test_pixels_that_round_to_the_ends_of_the_range_are_not_rejected():
    answers, pixels = plain_answers(small(stem="conv")), pixels_of(2)
    pixels[0, 3, 3, 0], pixels[1, 3, 3, 0] = -0.25, 255.25
    assert answers_to(answers, pixels)["reject"].tolist() == [0, 0]


# Mirror images


@pytest.mark.parametrize("kind", KINDS)
def test_the_answers_with_mirror_images(kind):
    """The mean of the logits in numpy; all that is not a probability is of the image as it is."""
    keras.utils.set_random_seed(0)
    model, pixels = small(**KINDS[kind]), pixels_of(24)
    scaled = np.asarray(scale_pixels(pixels, PREPROCESSING))
    features = ood_features(model).predict(scaled, verbose=0)
    detector = detector_of(features)
    answers = answer_model(model, TEMPERATURE, detector, PREPROCESSING, flips=True)
    found, plain = (
        answers_to(answers, pixels),
        answers_to(answer_model(model, TEMPERATURE, detector, PREPROCESSING), pixels),
    )
    mirrored = [np.ascontiguousarray(scaled[:, ::up, ::left]) for up in (1, -1) for left in (1, -1)]
    logits = np.mean([model.predict(images, verbose=0).astype("float64") for images in mirrored], axis=0)
    half = model.get_layer("patch_embed").compute_dtype != "float32"
    close = dict(rtol=2e-2, atol=5e-2) if half else dict(rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(found["probabilities"], softmax(logits / TEMPERATURE), **close)
    np.testing.assert_array_equal(found["label"], found["probabilities"].argmax(axis=1))
    np.testing.assert_array_equal(found["confidence"], found["probabilities"].max(axis=1))
    for name in ("distance", "features"):
        np.testing.assert_allclose(found[name], plain[name], **close)
    clear = np.abs(plain["distance"] / detector.threshold - 1) > (5e-2 if half else 1e-4)
    np.testing.assert_array_equal(found["reject"][clear], plain["reject"][clear])
    assert np.abs(found["probabilities"] - plain["probabilities"]).max() > 0.01


def test_a_mirror_image_gets_the_same_answer():
    answers, pixels = plain_answers(small(), flips=True), pixels_of(6)
    expected = answers_to(answers, pixels)["probabilities"]
    for mirror in (np.s_[:, ::-1], np.s_[:, :, ::-1], np.s_[:, ::-1, ::-1]):
        found = answers_to(answers, np.ascontiguousarray(pixels[mirror]))["probabilities"]
        np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)


def test_the_layer_of_mirror_images():
    images = np.random.default_rng(0).normal(size=(3, 4, 5, 2)).astype("float32")
    layer = Flips()
    found = keras.ops.convert_to_numpy(layer(images))
    expected = np.concatenate([images[:, ::up, ::left] for up in (1, -1) for left in (1, -1)])
    np.testing.assert_array_equal(found, expected)
    assert layer.compute_output_shape(images.shape) == found.shape
    assert layer.compute_output_shape((None, 4, 5, 2)) == (None, 4, 5, 2)
    assert Flips.from_config(layer.get_config()).name == layer.name


@pytest.mark.parametrize("images", [0, 1, 65])
def test_any_number_of_images_gets_answers_with_mirror_images(images):
    answers, pixels = plain_answers(small(), flips=True), pixels_of(images)
    found = answers_to(answers, pixels)
    assert len(found["probabilities"]) == images
    np.testing.assert_allclose(found["probabilities"].sum(axis=1), 1, rtol=1e-5)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_pixels_that_are_not_finite_do_not_affect_others_with_mirror_images(value):
    answers, pixels = plain_answers(small(), flips=True), pixels_of(4)
    before = answers_to(answers, pixels)
    pixels[2, 3, 3, 0] = value
    found = answers_to(answers, pixels)
    assert found["reject"].tolist() == [0, 0, 1, 0]
    np.testing.assert_allclose(
        found["probabilities"][[0, 1, 3]], before["probabilities"][[0, 1, 3]], atol=1e-5
    )


def test_a_batch_with_mirror_images_is_as_large_as_one_without():
    assert batch_size(plain_answers(small(), flips=True)) == 256 // 4


# The scaling


def test_the_model_scales_by_mean_and_deviation():
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    model, pixels = small(), pixels_of(12)
    scaled = ((pixels.astype("float64") / 255 - mean) / std).astype("float32")
    expected = softmax(model.predict(scaled, verbose=0).astype("float64"))
    preprocessing = Preprocessing(SHAPE, mean=mean, std=std)
    found = answers_to(answer_model(model, 1.0, None, preprocessing), pixels)["probabilities"]
    np.testing.assert_allclose(found, expected, rtol=0, atol=1e-5)
    assert np.abs(answers_to(plain_answers(model), pixels)["probabilities"] - expected).max() > 1e-2


def test_without_a_detector_nothing_is_rejected():
    found = answers_to(plain_answers(small()), pixels_of(5))
    assert not found["reject"].any()
    assert not found["distance"].any()


def test_no_images_get_no_answers():
    found = answers_to(plain_answers(small()), [])
    assert {name: values.shape for name, values in found.items()} == {
        "probabilities": (0, 5),
        "label": (0,),
        "confidence": (0,),
        "reject": (0,),
        "distance": (0,),
        "features": (0, 16),
    }
    assert found["label"].dtype == found["reject"].dtype == np.int32


def test_images_that_do_not_fit_in_memory_get_the_same_answers(monkeypatch):
    answers, pixels = plain_answers(small()), pixels_of(7)
    expected = answers_to(answers, pixels)
    monkeypatch.setattr("keras_vit.runs.answer.fits_in_memory", lambda *_: False)
    for name, values in answers_to(answers, pixels).items():
        np.testing.assert_allclose(values, expected[name], rtol=1e-5, atol=1e-5)


# The distance


def random_detector(dim=40, classes=3):
    rng = np.random.default_rng(0)
    projection = rng.normal(size=(dim, dim)).astype("float32")
    return OODDetector.shared(projection, rng.normal(0, 30, (classes, dim)).astype("float32"), 1.0)


def test_the_layer_has_the_distances_of_the_detector():
    detector = random_detector()
    features = np.random.default_rng(1).normal(0, 3, (50, 40)).astype("float32")
    features[7], features[8] = np.nan, np.inf
    expected = detector.distances(np.delete(features, [7, 8], axis=0))
    found = keras.ops.convert_to_numpy(ood_distance(detector)(features))
    np.testing.assert_allclose(np.delete(found, [7, 8]), expected, rtol=1e-5)
    assert not np.isfinite(found[7:9]).any()


def several_gaussians(width=40, classes=3, share=False):
    """A detector of two Gaussians per class, one of them on two pieces of the columns."""
    rng = np.random.default_rng(0)
    depths = []
    for pieces in ([[1, 5], [20, 31]], [[30, 40]]):
        dim = sum(stop - start for start, stop in pieces)
        maps = rng.normal(size=(1 if share else classes, dim, dim)).astype("float32")
        centers = rng.normal(0, 3, (classes, dim)).astype("float32")
        shift = rng.normal(size=dim).astype("float32")
        depths.append(Gaussians(np.array(pieces), shift, maps, centers))
    offsets = rng.uniform(0, 50, classes).astype("float32")
    detector = OODDetector(tuple(depths), offsets, width, 30.0)
    detector.check()
    return detector


@pytest.mark.parametrize("more", [0, 7], ids=["same columns", "columns of a later version before them"])
@pytest.mark.parametrize("share", [False, True])
def test_the_layer_adds_the_gaussians_of_all_depths(share, more):
    detector = several_gaussians(share=share)
    features = np.random.default_rng(1).normal(0, 3, (50, 40)).astype("float32")
    given = np.concatenate([np.full((50, more), 1e6, "float32"), features], axis=1)
    layer = ood_distance(detector)
    found = keras.ops.convert_to_numpy(layer(given))
    np.testing.assert_allclose(found, detector.distances(features), rtol=1e-5)
    assert OODDistance.from_config(layer.get_config()).get_config() == layer.get_config()
    assert sum(np.prod(weight.shape) for weight in layer.weights) * 4 == detector.num_bytes


def test_the_layer_is_not_trained_and_its_config_makes_another():
    layer = ood_distance(random_detector())
    assert not layer.trainable_weights
    rebuilt = OODDistance.from_config(layer.get_config())
    rebuilt.build((None, 40))
    assert [weight.shape for weight in rebuilt.weights] == [weight.shape for weight in layer.weights]
    assert layer.compute_output_shape((7, 40)) == (7,)


def test_many_classes_make_small_batches():
    model = small()
    dim = ood_features(model).output.shape[1]
    assert batch_size(plain_answers(model)) == 256
    assert batch_size(answer_model(model, 1.0, random_detector(dim), PREPROCESSING)) == 256
    classes = MAX_BATCH_BYTES // (4 * dim * 10)
    assert batch_size(answer_model(model, 1.0, random_detector(dim, classes), PREPROCESSING)) == 10


# A run


@pytest.fixture
def decoded(monkeypatch):
    """A list of the images that are decoded, in order."""
    found = []
    probe_image = reading.probe_image

    def probe(image, *how):
        found.append(image)
        return probe_image(image, *how)

    monkeypatch.setattr(reading, "probe_image", probe)

    def refuse(*_):
        raise AssertionError("an image is decoded again")

    monkeypatch.setattr("keras_vit.data.source.prepare_file", refuse)
    monkeypatch.setattr("keras_vit.data.source.prepare_pixels", refuse)
    return found


def test_predict_decodes_each_file_once(trained, images, decoded, tmp_path):
    files = sorted(images.rglob("*.png"))[:9]
    text = tmp_path / "text.png"
    text.write_text("not an image")
    found = predict(trained[0], [*files, text])
    assert sorted(decoded) == sorted([*files, text])
    assert [item.image for item in found] == [str(path) for path in [*files, text]]
    assert [item.error is None for item in found] == [True] * 9 + [False]
    for item in found[:9]:
        assert item.label == max(item.probabilities, key=item.probabilities.get)
        assert item.confidence == item.probabilities[item.label]
        assert sum(item.probabilities.values()) == pytest.approx(1, abs=1e-5)


def test_evaluate_decodes_each_file_once(trained, images, decoded):
    found = evaluate(trained[0])
    # The others are only looked for by their content, which decodes nothing.
    assert sorted(decoded) == sorted(own_images(load_run(trained[0])).test.originals)
    assert found["accuracy"] == pytest.approx(load_run(trained[0]).metrics["best"]["accuracy"])


def test_many_files_are_predicted_part_by_part(trained, images, monkeypatch, tmp_path):
    files = sorted(images.rglob("*.png"))[:10]
    broken = tmp_path / "broken.png"
    broken.write_bytes(files[0].read_bytes()[:60])
    files[4:4] = [broken]
    run = load_run(trained[0])
    expected = predict(run, files)
    monkeypatch.setattr(predict_module, "_images_per_part", lambda run: 4)
    found = predict(run, files)
    assert [item.image for item in found] == [item.image for item in expected] == [str(f) for f in files]
    for one, other in zip(found, expected, strict=True):
        assert (one.label, one.error, one.reject) == (other.label, other.error, other.reject)
        assert one.probabilities == pytest.approx(other.probabilities, abs=1e-5)


@pytest.mark.same_on_every_backend
def test_a_part_is_of_whole_batches(trained, monkeypatch):
    run = load_run(trained[0])
    sizes = []
    for limit in (1, 28 * 28 * 4 * 256, 28 * 28 * 4 * 700):
        monkeypatch.setattr(predict_module, "READ_BYTES", limit)
        sizes.append(predict_module._images_per_part(run.answer_model))
    assert sizes == [256, 256, 512]


def test_an_image_gets_the_same_answer_in_every_batch(trained, images):
    files = sorted(images.rglob("*.png"))[::6]
    run = load_run(trained[0])
    together = predict(run, files)
    for item, path in zip(together, files, strict=True):
        (alone,) = predict(run, [path])
        assert alone.probabilities == pytest.approx(item.probabilities, abs=1e-5)
        assert (alone.label, alone.reject) == (item.label, item.reject)


def test_gray_and_colour_files_of_any_size_are_taken(trained, tmp_path):
    files = []
    for i, (mode, size) in enumerate(itertools.product(("L", "RGB", "RGBA"), [(28, 28), (61, 17)])):
        files.append(tmp_path / f"{i}.png")
        Image.new(mode, size, 128 if mode == "L" else (128,) * len(mode)).save(files[-1])
    found = predict(trained[0], files)
    assert all(item.label for item in found)
    for item in found[1:4]:  # of one gray level, with any size and mode
        assert item.probabilities == pytest.approx(found[0].probabilities, abs=1e-4)


def test_one_image_gets_the_same_answer_each_time(monkeypatch):
    """Also where the model is compiled for it meanwhile."""
    monkeypatch.setattr(answer, "SINGLE_IMAGES", 2)
    answers, pixels = plain_answers(small()), pixels_of(3)
    together = answers_to(answers, pixels)
    for _ in range(3):
        alone = answers_to(answers, pixels[1:2])
        for name, values in together.items():
            np.testing.assert_allclose(alone[name], values[1:2], rtol=1e-5, atol=1e-5)
            assert alone[name].dtype == values.dtype


def test_one_image_of_a_half_precision_model_is_not_answered_by_another_program(monkeypatch):
    monkeypatch.setattr(answer, "SINGLE_IMAGES", 2)
    answers, pixels = plain_answers(small(dtype="mixed_bfloat16")), pixels_of(1)
    first = answers_to(answers, pixels)
    for _ in range(2):
        for name, values in answers_to(answers, pixels).items():
            np.testing.assert_array_equal(values, first[name])
