"""ONNX, LiteRT and OpenVINO: each option of the model in each format, compared with the Keras model."""

import dataclasses
import importlib.util
import json
from types import SimpleNamespace

import keras
import numpy as np
import pytest
from PIL import Image

from keras_vit import ViT
from keras_vit.data import reading
from keras_vit.data.preprocess import Preprocessing, prepare_pixels, scale_pixels
from keras_vit.errors import InputError
from keras_vit.evaluation.ood_fit import fit_ood_detector
from keras_vit.evaluation.prediction_sets import PredictionSets, log_odds
from keras_vit.runs.folder import load_run
from keras_vit.runs.judged_images import images_to_judge, own_images
from keras_vit.runs.ood_features import ood_columns, ood_features
from keras_vit.runs.predict import predict
from keras_vit.serving.bundle import export
from keras_vit.serving.formats import check, to_litert, to_onnx, to_openvino, write
from keras_vit.serving.formats.portable import MAX_BYTES, PortableGraph
from tests.helpers import tiny

# A process with TensorFlow writes the files of a run of any backend.
pytestmark = pytest.mark.same_on_every_backend

for package in ("tf2onnx", "onnx", "onnxruntime", "ai_edge_litert", "openvino"):
    pytest.importorskip(package, reason="needs the extra formats")

FORMATS = {"onnx": to_onnx, "litert": to_litert, "openvino": to_openvino}
SMALL = dict(patch_size=4, dim=16, depth=1, num_heads=2, mlp_dim=32, num_classes=4, image_shape=(8, 8, 1))
INTEGERS = ("reject", "prediction_set", "refer")
MODELS = {
    "linear stem, token, hidden head": dict(
        depth=2, head_hidden_dim=8, head_dim=12, qkv_bias=False, dropout_rate=0.1
    ),
    "conv stem, mean, swiglu, RGB, 8x12": dict(
        stem="conv", pooling="gap", position="sincos2d", activation="swiglu", image_shape=(8, 12, 3)
    ),
    "map, registers, qk_norm, layer_scale, 12x8": dict(
        pooling="map", num_registers=2, qk_norm=True, layer_scale=0.1, image_shape=(12, 8, 1)
    ),
    "token, registers, float16": dict(num_registers=3, position="sincos2d", dtype="mixed_float16"),
}


def randomized(model, rng):
    """A model with random weights, since initial biases are 0 and initial scales are 1."""
    for weight in model.weights:
        if "float" in weight.dtype:
            value = weight.numpy() + rng.normal(0, 0.3, weight.shape)
            weight.assign(np.abs(value) + 0.1 if "variance" in weight.name else value)
    return model


@pytest.fixture(scope="module", params=MODELS)
def small(request):
    """The graph of a stand-in for a run, images of its size, and the answers of Keras."""
    keras.utils.set_random_seed(0)
    rng = np.random.default_rng(0)
    arguments = {**SMALL, **MODELS[request.param]}
    model = randomized(ViT(**arguments), rng)
    images = rng.uniform(0, 255, (42, *arguments["image_shape"])).astype("float32")
    plain = ViT(**{**arguments, "dtype": "float32"})
    plain.set_weights(model.get_weights())
    preprocessing = Preprocessing(arguments["image_shape"])
    scaled = scale_pixels(images, preprocessing)
    features = ood_features(plain).predict(scaled, verbose=0)
    columns = ood_columns(model)
    pieces = [[columns["texture"], columns["head"]], [columns["half"]]]
    # Two classes with Gaussians of their own, and a threshold that rejects half of the images. Random
    # features keep the distances apart, so that rounding errors reject no other image.
    training = rng.normal(features.mean(axis=0), features.std(axis=0) + 0.1, (400, features.shape[1]))
    labels = np.arange(400) % 2
    training[labels == 1] += 0.5
    rejection, _ = fit_ood_detector(training, labels, features, columns=pieces)
    farthest = np.sort(rejection.distances(features))
    gaps = np.diff(farthest[10:32])
    middle = 10 + int(gaps.argmax())  # the widest gap among the middle ones
    assert gaps.max() > 1e-3 * farthest[middle]
    rejection = dataclasses.replace(rejection, threshold=float(farthest[middle : middle + 2].mean()))
    refer_below = 0.3 if "map" in request.param else None
    run = SimpleNamespace(
        model=model,
        preprocessing=preprocessing,
        temperature=0.7,
        rejection=rejection,
        prediction_sets=PredictionSets(
            np.linspace(-1.5, 1.5, arguments["num_classes"]), refer_below=refer_below
        ),
        rule=None,
        thresholds=None,
        several=False,
    )
    logits = plain.predict(scaled, verbose=0).astype("float64") / 0.7
    expected = {
        "probabilities": np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True),
        "reject": rejection.rejects(features).astype("int32"),
        "features": plain.extractor("features").predict(scaled, verbose=0),
        "prediction_set": run.prediction_sets.members(log_odds(logits)).astype("int32"),
        "refer": run.prediction_sets.refers(log_odds(logits)).astype("int32"),
    }
    return PortableGraph(run), images, expected


@pytest.mark.parametrize("format", FORMATS)
def test_each_option_of_the_model(format, small, tmp_path):
    graph, images, expected = small
    FORMATS[format].convert(graph, tmp_path)
    answer = FORMATS[format].load(tmp_path)
    for start, size in ((0, 1), (1, 2), (3, 7), (10, 32)):
        found = answer(images[start : start + size])
        assert set(found) == set(expected)
        for name, values in expected.items():
            np.testing.assert_allclose(found[name], values[start : start + size], rtol=0, atol=2e-5)
            assert found[name].dtype == ("int32" if name in INTEGERS else "float32")
    assert 0 < expected["reject"].sum() < len(images)
    broken = images[:3].copy()
    assert 0 < expected["refer"].sum() < len(images)
    assert 0 < expected["prediction_set"].sum() < expected["prediction_set"].size
    broken[0, 0, 0], broken[1, -1, -1] = np.nan, np.inf
    assert not answer(broken)["prediction_set"][:2].any()
    assert answer(broken)["refer"][:2].all()
    assert list(answer(broken)["reject"]) == [1, 1, expected["reject"][2]]
    broken[0], broken[1] = 300 * (broken[2] > 0), broken[2] - 20  # out of the range 0 to 255
    assert list(answer(broken)["reject"]) == [1, 1, expected["reject"][2]]
    if FORMATS[format].EMPTY_BATCH:
        for name, values in answer(images[:0]).items():
            assert values.shape == (0, *expected[name].shape[1:])


def test_int8_is_close_for_each_option(small, tmp_path):
    graph, images, expected = small
    to_litert.convert(graph, tmp_path, representative=images)
    found = to_litert.load(tmp_path)(images)
    # The weights are random, so there are many ties. A trained model is tested below.
    assert 1e-4 < np.abs(found["probabilities"] - expected["probabilities"]).max() < 0.2
    assert (found["probabilities"].argmax(axis=1) == expected["probabilities"].argmax(axis=1)).mean() > 0.8
    assert (found["reject"] == expected["reject"]).mean() > 0.8


# A trained run


@pytest.fixture(scope="module")
def exported(run, tmp_path_factory):
    """Format -> the result of `export` for a run; "int8" is LiteRT with int8 weights."""
    models = tmp_path_factory.mktemp("models")
    found = {format: export(run, models, format=format) for format in FORMATS}
    with pytest.MonkeyPatch.context() as patch:
        # In such a small model, trained for seconds, most images are ties.
        patch.setattr(write, "INT8", dataclasses.replace(check.INT8, margin=0.5, changed=0.25))
        return {**found, "int8": export(run, models, format="litert", int8=True, name="small")}


EXPORTED = {
    "onnx": {"model.onnx"},
    "litert": {"model.tflite"},
    "openvino": {"model.xml", "model.bin"},
    "int8": {"model.tflite"},
}


@pytest.mark.parametrize("kind", EXPORTED)
def test_the_files_of_a_format(kind, exported, run):
    found, loaded = exported[kind], load_run(run)
    format = "litert" if kind == "int8" else kind
    assert {path.name for path in found.path.iterdir()} == {
        *EXPORTED[kind],
        "labels.txt",
        "serving.json",
        "model_card.md",
    }
    assert (found.path / "labels.txt").read_text().splitlines() == list(tiny.CLASSES)
    described = json.loads((found.path / "serving.json").read_text())
    assert described["format"] == format
    assert described["file"] in EXPORTED[kind]
    assert described["class_names"] == list(tiny.CLASSES)
    assert described["temperature"] == loaded.temperature
    assert described["reject_above"] == loaded.rejection.threshold
    assert described["compared_with_keras"].items() >= dataclasses.asdict(found.comparison).items()
    assert found.comparison.images == len(images_to_judge(loaded))
    if kind == "int8":
        assert 1e-4 < found.comparison.difference < 0.1
        assert found.comparison.same_class >= 0.75 * found.comparison.images
    else:
        assert 0 < found.comparison.difference < 1e-5
        assert found.comparison.same_class == found.comparison.images


def by_hand(path, height, width):
    """Prepares a gray file as `serving.json` describes it, with Pillow alone."""
    pixels = Image.fromarray(np.asarray(Image.open(path), dtype="float32"))
    return np.asarray(pixels.resize((width, height), Image.Resampling.BILINEAR))[..., None]


@pytest.mark.parametrize("kind", EXPORTED)
def test_a_program_of_the_user_gets_the_answers_of_predict(kind, exported, run, drawn_images):
    files = sorted(drawn_images.rglob("*.png"))[::7]
    height, width, _ = load_run(run).preprocessing.image_shape
    images = np.stack([by_hand(path, height, width) for path in files])
    answer = FORMATS["litert" if kind == "int8" else kind].load(exported[kind].path)(images)
    expected = predict(run, files)
    labels = (exported[kind].path / "labels.txt").read_text().splitlines()
    probabilities = np.array([[item.probabilities[label] for label in labels] for item in expected])
    tolerance = 0.1 if kind == "int8" else 1e-4
    np.testing.assert_allclose(answer["probabilities"], probabilities, rtol=0, atol=tolerance)
    if kind != "int8":
        assert [bool(reject) for reject in answer["reject"]] == [item.reject for item in expected]
        assert [bool(refer) for refer in answer["refer"]] == [item.refer for item in expected]
        sets = [{labels[i] for i in np.flatnonzero(row)} for row in answer["prediction_set"]]
        assert sets == [set(item.prediction_set) for item in expected]
        assert len({len(one) for one in sets}) > 1


def test_the_batch_axis_has_a_name_in_onnx(exported):
    import onnx

    graph = onnx.load(exported["onnx"].path / "model.onnx").graph
    shapes = {
        value.name: [side.dim_param or side.dim_value for side in value.type.tensor_type.shape.dim]
        for value in (*graph.input, *graph.output)
    }
    assert shapes == {
        "images": ["batch", 28, 28, 1],
        "probabilities": ["batch", 3],
        "reject": ["batch"],
        "features": ["batch", 8],
        "prediction_set": ["batch", 3],
        "refer": ["batch"],
    }


def test_int8_holds_int8_weights(exported):
    from ai_edge_litert.interpreter import Interpreter

    def weights(kind):
        """Type -> shapes of the weights of the fully connected layers."""
        found = Interpreter(model_path=str(exported[kind].path / "model.tflite")).get_tensor_details()
        return {
            tensor["name"] for tensor in found if tensor["dtype"] == np.int8 and len(tensor["shape"]) == 2
        }

    assert not weights("litert")
    assert len(weights("int8")) >= 4  # qkv, projection, expand, contract


def test_int8_is_calibrated_on_training_images_only(run, tmp_path, monkeypatch):
    loaded = load_run(run)
    own = own_images(loaded)
    assert not set(own.train.names) & set(own.test.names)
    pixels = write.representative_pixels(own.train, loaded.preprocessing)
    assert len(pixels) == min(len(own.train), write.REPRESENTATIVE_IMAGES)
    of_train = np.stack(own.train.images)
    assert set(of_train.mean(axis=(1, 2, 3))) >= set(pixels.mean(axis=(1, 2, 3)))
    calibrated = []

    def convert(graph, folder, representative):
        calibrated.append(representative)
        raise RuntimeError("enough")

    monkeypatch.setattr(to_litert, "convert", convert)
    with pytest.raises(InputError, match="enough"):
        export(loaded, tmp_path, format="litert", int8=True)
    np.testing.assert_array_equal(calibrated[0], pixels)


def test_an_export_decodes_each_image_once(run, tmp_path, monkeypatch):
    decoded = []
    probe_image = reading.probe_image
    monkeypatch.setattr(
        reading, "probe_image", lambda image, *how: decoded.append(image) or probe_image(image, *how)
    )

    def convert(*_):
        raise RuntimeError("enough")

    monkeypatch.setattr(to_litert, "convert", convert)
    with pytest.raises(InputError, match="enough"):
        export(run, tmp_path, format="litert", int8=True)
    assert len(decoded) == len(set(decoded)) == 96  # for training and test


# The preprocessing in `serving.json`


@pytest.mark.parametrize("aspect", ["stretch", "crop", "pad"])
@pytest.mark.parametrize("size", [(61, 40), (40, 61), (5, 90)])
def test_pillow_can_prepare_images_like_training(aspect, size):
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (*size, 3)).astype("uint8")
    preprocessing = Preprocessing((28, 20, 1), aspect)
    gray = (pixels.astype("float32") * np.array([0.299, 0.587, 0.114], "float32")).sum(axis=-1)
    height, width = gray.shape

    def resize(image, to):
        return np.asarray(Image.fromarray(image).resize(to[::-1], Image.Resampling.BILINEAR))

    if aspect == "stretch":
        found = resize(gray, (28, 20))
    elif aspect == "crop":
        side = min(height / 28, width / 20)
        high, wide = max(1, round(side * 28)), max(1, round(side * 20))
        top, left = (height - high) // 2, (width - wide) // 2
        found = resize(np.ascontiguousarray(gray[top : top + high, left : left + wide]), (28, 20))
    else:
        scale = min(28 / height, 20 / width)
        high, wide = max(1, round(height * scale)), max(1, round(width * scale))
        found = np.zeros((28, 20), "float32")
        top, left = (28 - high) // 2, (20 - wide) // 2
        found[top : top + high, left : left + wide] = resize(gray, (high, wide))
    np.testing.assert_allclose(found, prepare_pixels(pixels, preprocessing)[..., 0], rtol=0, atol=2e-3)
    steps = write.preprocessing_steps(preprocessing)
    word = {"stretch": "resize to 28 x 20", "crop": "central window", "pad": "zeros around it"}[aspect]
    assert word in steps[-2]


# Runs that cannot be written


def missing(monkeypatch, package):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == package else find(name))


def failing(monkeypatch, error):
    def convert(*_):
        raise error

    monkeypatch.setattr(to_onnx, "convert", convert)


def answering_wrongly(monkeypatch, module):
    load = module.load

    def loaded(folder):
        answer = load(folder)
        return lambda images: {name: values[::-1] for name, values in answer(images).items()}

    monkeypatch.setattr(module, "load", loaded)


def without_training_images(run):
    config = {
        **run.config,
        "train": {**run.config["train"], "data": "/nowhere"},
        "data": {**run.config["data"], "root": "/nowhere", "root_from_run": "nowhere"},
    }
    return dataclasses.replace(run, config=config)


REFUSALS = {
    "no tf2onnx": (
        dict(format="onnx"),
        lambda patch: missing(patch, "tf2onnx"),
        r"needs tf2onnx: pip install",
    ),
    "no runtime": (
        dict(format="litert"),
        lambda patch: missing(patch, "ai_edge_litert"),
        r'needs ai_edge_litert: pip install "keras-vit-defects\[formats\]"',
    ),
    "another backend": (
        dict(format="onnx"),
        lambda patch: patch.setattr(keras.backend, "backend", lambda: "jax"),
        "Keras is on jax: export in a process with KERAS_BACKEND=tensorflow",
    ),
    "too large": (
        dict(format="openvino"),
        lambda patch: patch.setattr(ViT, "count_params", lambda self: MAX_BYTES // 4 + 1),
        "take 2.0 GiB in float32, and these formats hold less than 2: give --format savedmodel",
    ),
    "the converter fails": (
        dict(format="onnx"),
        lambda patch: failing(patch, RuntimeError("No Op registered for Erfc\nand more")),
        r"cannot be written as onnx \(No Op registered for Erfc\): --format savedmodel takes every model",
    ),
    "other answers": (
        dict(format="openvino"),
        lambda patch: answering_wrongly(patch, to_openvino),
        "answers of the file differ from those of Keras, so nothing is written",
    ),
}


@pytest.mark.parametrize("case", REFUSALS)
def test_refused_runs(case, run, tmp_path, monkeypatch):
    arguments, change, message = REFUSALS[case]
    loaded = load_run(run)
    images = images_to_judge(loaded)
    _ = loaded.model, loaded.rejection
    if change:
        change(monkeypatch)
    with pytest.raises(InputError, match=message):
        write.write_format(loaded, tmp_path, images=images, **arguments)
    assert not list(tmp_path.iterdir())


def test_int8_needs_the_training_images(run, tmp_path):
    moved_run = without_training_images(load_run(run))
    others = tiny.draw(tmp_path / "others", each=8, size=(36, 36))
    with pytest.raises(InputError, match="/nowhere"):
        export(moved_run, tmp_path / "out", format="litert", int8=True, data=str(others))
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    "error", [OSError(28, "No space left on device"), RuntimeError("No space left on device")]
)
def test_a_full_disk_leaves_nothing(error, run, tmp_path, monkeypatch):
    loaded = load_run(run)
    failing(monkeypatch, error)
    with pytest.raises(OSError, match="No space left on device"):
        write.write_format(loaded, tmp_path, "onnx", images_to_judge(loaded))
    assert not list(tmp_path.iterdir())
