"""An exported run without this package: in TensorFlow and saved_model_cli; warm-up; operations."""

import pickle
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

import keras_vit
from keras_vit.data.pipeline import read_pixels
from keras_vit.data.preprocess import scale_pixels
from tests.helpers import tiny
from tests.serving.graph_ops import nodes, objections, ops, read
from tests.serving.served_images import BAD, BOMBS, FILES, picture

pytestmark = pytest.mark.same_on_every_backend

FOLDER = Path(__file__).parent
SIZES = (0, 1, 7, 32)
SIGNATURES = ("serving_default", "images", "images_uint8", "features")


@pytest.fixture(scope="module")
def paths(drawn_images, tmp_path_factory):
    """32 images of one size. The first and the last are not like the training images."""
    folder = tmp_path_factory.mktemp("unlike")
    unlike = [folder / "squares.png", folder / "noise.png"]
    picture("L", (32, 32)).save(unlike[0])
    Image.fromarray(np.random.default_rng(0).integers(0, 256, (32, 32), dtype=np.uint8)).save(unlike[1])
    known = [drawn_images / name / f"{i}.png" for name in tiny.CLASSES for i in range(10)]
    return [unlike[0], *known, unlike[1]]


@pytest.fixture(scope="module")
def expected(run, paths):
    """The answers of Keras about the images."""
    opened = keras_vit.load_run(run)
    predicted = keras_vit.predict(opened, paths)
    scaled = scale_pixels(read_pixels(paths, opened.preprocessing), opened.preprocessing)
    found = {
        "probabilities": np.array([[*item.probabilities.values()] for item in predicted]),
        "label": np.array([item.label.encode() for item in predicted], object),
        "confidence": np.array([item.confidence for item in predicted]),
        "reject": np.array([item.reject for item in predicted]),
        "prediction_set": np.array(
            [[name in item.prediction_set for name in opened.class_names] for item in predicted], int
        ),
        "refer": np.array([item.refer for item in predicted]),
        "features": opened.model.extractor("features").predict(scaled, verbose=0),
    }
    assert set(found["reject"]) == {True, False}
    assert len(set(found["label"])) > 1
    return found


def contents(paths):
    return np.array([path.read_bytes() for path in paths], object)


def pixels(paths):
    return np.stack([np.array(Image.open(path))[..., None] for path in paths])


def request(signature, paths):
    if signature in ("serving_default", "features"):
        return {"image_bytes": contents(paths)}
    if not paths:
        return {"images": np.zeros((0, 5, 9, 3), "uint8" if signature == "images_uint8" else "float32")}
    return {"images": pixels(paths).astype("uint8" if signature == "images_uint8" else "float32")}


def check(found, expected, count):
    """Checks that an answer equals the first `count` rows of the expected one."""
    assert found
    for name, values in found.items():
        if values.dtype.kind == "f":
            np.testing.assert_allclose(values, expected[name][:count], rtol=1e-5, atol=1e-5)
        else:
            np.testing.assert_array_equal(values, expected[name][:count])


# In a process with TensorFlow alone


@pytest.fixture(scope="module")
def alone(bundle, paths, tmp_path_factory):
    """Answers of a process without Keras, by (signature, size), and of a batch with damaged images."""
    folder = tmp_path_factory.mktemp("alone")
    requests = [(signature, request(signature, paths[:size])) for signature in SIGNATURES for size in SIZES]
    mixed = [paths[1].read_bytes(), *BAD.values(), *BOMBS.values(), *FILES.values(), paths[2].read_bytes()]
    requests.append(("serving_default", {"image_bytes": np.array(mixed, object)}))
    (folder / "requests").write_bytes(pickle.dumps(requests))
    command = [FOLDER / "tensorflow_alone.py", bundle.path, folder / "requests", folder / "answers"]
    process = subprocess.run(
        [sys.executable, "-I", *map(str, command)], cwd=folder, capture_output=True, text=True, timeout=300
    )
    assert process.returncode == 0, process.stderr
    outputs, present = pickle.loads((folder / "answers").read_bytes())
    assert present == []
    keys = [(signature, size) for signature in SIGNATURES for size in SIZES]
    return dict(zip([*keys, "mixed"], outputs, strict=True))


@pytest.mark.parametrize("size", SIZES)
@pytest.mark.parametrize("signature", SIGNATURES)
def test_a_process_without_keras_gives_the_answers_of_keras(signature, size, alone, expected):
    answer = alone[signature, size]
    outputs = {"probabilities", "label", "confidence", "reject", "prediction_set", "refer"}
    assert set(answer) == ({"features", "reject"} if signature == "features" else outputs)
    assert {name: len(values) for name, values in answer.items()} == dict.fromkeys(answer, size)
    check(answer, expected, size)


def test_damaged_images_do_not_affect_others(alone, expected):
    answer = alone["mixed"]
    bad = slice(1, 1 + len(BAD) + len(BOMBS))
    assert not answer["probabilities"][bad].any()
    assert set(answer["label"][bad]) == {b""}
    assert not answer["confidence"][bad].any()
    assert answer["reject"][bad].all()
    assert not answer["prediction_set"][bad].any()
    assert answer["refer"][bad].all()
    np.testing.assert_allclose(answer["probabilities"][bad.stop :].sum(axis=1), 1, atol=1e-5)
    for row, position in ((0, 1), (-1, 2)):
        np.testing.assert_allclose(
            answer["probabilities"][row], expected["probabilities"][position], atol=1e-5
        )


# saved_model_cli


def saved_model_cli(*arguments):
    command = [sys.executable, "-m", "tensorflow.python.tools.saved_model_cli", *map(str, arguments)]
    process = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert process.returncode == 0, process.stderr
    return process.stdout


@pytest.mark.long
def test_saved_model_cli_shows_the_signatures(bundle):
    shown = saved_model_cli("show", "--dir", bundle.path, "--all")
    assert "MetaGraphDef with tag-set: 'serve' contains the following SignatureDefs" in shown
    sections = re.split(r"signature_def\['(\w+)'\]:", shown)
    found = {}
    for name, text in zip(sections[1::2], sections[2::2], strict=True):
        sides = re.findall(
            r"(inputs|outputs)\['(\w+)'\].*?dtype: (\w+)\s+shape: (\([^)]*\))", text, re.DOTALL
        )
        found[name] = {(side[:-1], key): (kind, shape) for side, key, kind, shape in sides}
    answers = {
        ("output", "confidence"): ("DT_FLOAT", "(-1)"),
        ("output", "label"): ("DT_STRING", "(-1)"),
        ("output", "probabilities"): ("DT_FLOAT", "(-1, 3)"),
        ("output", "reject"): ("DT_INT32", "(-1)"),
        ("output", "prediction_set"): ("DT_INT32", "(-1, 3)"),
        ("output", "refer"): ("DT_INT32", "(-1)"),
    }
    features = {("output", "features"): ("DT_FLOAT", "(-1, 8)"), ("output", "reject"): ("DT_INT32", "(-1)")}
    assert {name: sides for name, sides in found.items() if not name.startswith("__")} == {
        "serving_default": {("input", "image_bytes"): ("DT_STRING", "(-1)"), **answers},
        "images": {("input", "images"): ("DT_FLOAT", "(-1, -1, -1, -1)"), **answers},
        "images_uint8": {("input", "images"): ("DT_UINT8", "(-1, -1, -1, -1)"), **answers},
        "features": {("input", "image_bytes"): ("DT_STRING", "(-1)"), **features},
    }


def literal(value):
    """A Python literal for saved_model_cli, which would split it at a semicolon."""
    return repr(value).replace(";", r"\x3b")


@pytest.mark.long
@pytest.mark.parametrize("signature", ["images", "serving_default"])
def test_saved_model_cli_answers(signature, bundle, paths, expected, tmp_path):
    files = [*contents(paths[:2]), b"no image; none"]
    given = {
        "images": f"images={pixels(paths[:2]).tolist()}",
        "serving_default": f"image_bytes={literal(files)}",
    }
    printed = saved_model_cli(
        *("run", "--dir", bundle.path, "--tag_set", "serve", "--signature_def", signature),
        *("--input_exprs", given[signature], "--outdir", tmp_path),
    )
    found = {path.stem: np.load(path, allow_pickle=True) for path in tmp_path.glob("*.npy")}
    names = ("probabilities", "label", "confidence", "reject", "prediction_set", "refer")
    assert set(found) == set(names)
    assert all(f"Result for output key {name}:\n{values}" in printed for name, values in found.items())
    check({name: values[:2] for name, values in found.items()}, expected, 2)
    if signature == "serving_default":
        blank = [found[name][2:].tolist() for name in names]
        assert blank == [[[0, 0, 0]], [b""], [0], [1], [[0, 0, 0]], [1]]


# The warm-up requests


def test_every_warm_up_request_is_answered(bundle):
    from tensorflow_serving.apis.prediction_log_pb2 import PredictionLog

    signatures = tf.saved_model.load(str(bundle.path)).signatures
    records = tf.data.TFRecordDataset(str(bundle.path / "assets.extra" / "tf_serving_warmup_requests"))
    seen = []
    for record in records.as_numpy_iterator():
        log = PredictionLog.FromString(record)
        assert log.WhichOneof("log_type") == "predict_log"
        message = log.predict_log.request
        assert message.model_spec.name == bundle.name
        inputs = {name: tf.constant(tf.make_ndarray(value)) for name, value in message.inputs.items()}
        (size,) = {len(value) for value in inputs.values()}
        answer = signatures[message.model_spec.signature_name](**inputs)
        assert {name: len(values) for name, values in answer.items()} == dict.fromkeys(answer, size)
        # A request whose images are not decoded would warm up nothing.
        assert answer.get("probabilities", answer.get("features")).numpy().any(axis=1).all()
        seen.append((message.model_spec.signature_name, size))
    sizes = re.findall(r"^allowed_batch_sizes: (\d+)$", (bundle.models / "batching.config").read_text(), re.M)
    assert "1" in sizes
    assert sorted(seen) == sorted((signature, int(size)) for signature in SIGNATURES for size in sizes)
    assert len(seen) <= 1000  # TensorFlow Serving refuses a version with more


# The operations of the graph


@pytest.fixture(scope="module")
def meta_graph(bundle):
    (found,) = read(bundle.path).meta_graphs
    return found


def test_a_server_supports_all_operations(meta_graph):
    assert objections(meta_graph) == []
    assert {"DecodeImage", "MatMul", "Softmax"} <= ops(meta_graph)  # so operations in functions were found
    # The list of TensorFlow, which omits operations in nested functions.
    assert ops(meta_graph) >= {op.name for op in meta_graph.meta_info_def.stripped_op_list.op}


class Wrong(tf.Module):
    """SavedModels that a server may not run."""

    @tf.function(input_signature=[tf.TensorSpec([None])])
    def python(self, x):
        return tf.py_function(lambda x: x, [x], tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None])])
    def numpy(self, x):
        return tf.numpy_function(lambda x: x, [x], tf.float32)

    @tf.function(input_signature=[tf.TensorSpec([None])], jit_compile=True)
    def compiled(self, x):
        return 2 * x


@pytest.mark.parametrize(
    ("name", "objection"),
    [
        ("python", "EagerPyFunc is refused"),
        ("numpy", "PyFunc is refused"),
        ("compiled", "a function must be compiled with XLA"),
    ],
)
def test_unsupported_operations_are_found(name, objection, tmp_path):
    wrong = Wrong()
    tf.saved_model.save(wrong, str(tmp_path), signatures=getattr(wrong, name))
    (found,) = read(tmp_path).meta_graphs
    assert objection in objections(found)


@pytest.mark.parametrize(
    ("op", "objection"),
    [("XlaCallModule", "XlaCallModule is refused"), ("OfSomeLibrary", "OfSomeLibrary is not of TensorFlow")],
)
def test_an_unknown_operation_in_a_function_is_found(op, objection, meta_graph):
    changed = type(meta_graph)()
    changed.CopyFrom(meta_graph)
    next(node for node in nodes(changed) if node.op == "DecodeImage").op = op
    assert objections(changed) == [objection]
