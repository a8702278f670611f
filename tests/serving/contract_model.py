"""A SavedModel for the contract of TensorFlow Serving's REST API: its own `half_plus_three`, and more.

Its signatures cover what the page describes: one input or several, one output or several, bytes, each type of
number, and the classify and regress APIs.
"""

import tensorflow as tf
from tensorflow.core.protobuf.saved_model_pb2 import SavedModel

NAME, VERSION = "half_plus_three", 123
CLASSIFY, REGRESS = "tensorflow/serving/classify", "tensorflow/serving/regress"


def half_plus_three(x):
    return {"y": x * 0.5 + 3.0}


def several(tag, signal, sensor):
    return {"tag": tag, "total": tf.reduce_sum(signal, axis=1), "sensor": sensor}


def files(image):
    return {"length": tf.strings.length(image), "copy_bytes": image}


def kinds(flag, small, whole, double):
    return {"flag": ~flag, "small": small, "whole": whole, "double": double}


def together(x):
    return {"sum": tf.reduce_sum(x), "x": x}


def regress(inputs):
    parsed = tf.io.parse_example(inputs, {"x": tf.io.FixedLenFeature([1], tf.float32, 0.0)})
    return {"outputs": parsed["x"] * 0.5 + 3.0}


def classify(inputs):
    features = {
        "image": tf.io.FixedLenFeature([], tf.string, ""),
        "caption": tf.io.FixedLenFeature([], tf.string, ""),
    }
    parsed = tf.io.parse_example(inputs, features)
    scores = tf.stack([tf.strings.length(parsed["image"]), tf.strings.length(parsed["caption"])], axis=1)
    names = tf.broadcast_to(tf.constant([["image", "caption"]]), tf.shape(scores))
    return {"classes": names, "scores": tf.cast(scores, tf.float32)}


def spec(name, dtype, *shape):
    return tf.TensorSpec([None, *shape], dtype, name=name)


SIGNATURES = {
    "serving_default": (half_plus_three, [spec("x", tf.float32)]),
    "several": (
        several,
        [spec("tag", tf.string), spec("signal", tf.float32, 5), spec("sensor", tf.float32, 2, 2)],
    ),
    "files": (files, [spec("image", tf.string)]),
    "kinds": (
        kinds,
        [
            spec("flag", tf.bool),
            spec("small", tf.uint8),
            spec("whole", tf.int64),
            spec("double", tf.float64),
        ],
    ),
    "together": (together, [spec("x", tf.float32)]),
    REGRESS: (regress, [spec("inputs", tf.string)]),
    CLASSIFY: (classify, [spec("inputs", tf.string)]),
}


def write(models):
    """Writes the model into `models/NAME/VERSION` and returns `models/NAME`."""
    folder = models / NAME / str(VERSION)
    module = tf.Module()
    signatures = {
        name: tf.function(function).get_concrete_function(*specs)
        for name, (function, specs) in SIGNATURES.items()
    }
    tf.saved_model.save(module, str(folder), signatures=signatures)
    # TensorFlow 2 writes only signatures for predict.
    path = folder / "saved_model.pb"
    stored = SavedModel.FromString(path.read_bytes())
    for name in (REGRESS, CLASSIFY):
        stored.meta_graphs[0].signature_def[name].method_name = name
    path.write_bytes(stored.SerializeToString())
    return models / NAME
