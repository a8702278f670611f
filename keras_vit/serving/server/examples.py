"""TensorFlow Serving's `:classify` and `:regress`, for bundles that have a signature of that kind.

`keras-vit export` writes none, so its bundles answer with TensorFlow Serving's error.

Sources: https://www.tensorflow.org/tfx/serving/api_rest and, for the texts of errors,
tensorflow_serving/util/json_tensor.cc and tensorflow_serving/servables/tensorflow/{classifier,regressor}.cc.
"""

import json
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_vit.serving.server.refusal import invalid
from keras_vit.serving.server.served import DEFAULT, Served
from keras_vit.serving.server.tensors import MOST_INSTANCES, json_type, signature_name, to_array, to_json

KINDS = {"classify": "classification", "regress": "regression"}
EXAMPLES, CONTEXT = "examples", "context"
INPUTS, CLASSES, SCORES, OUTPUTS = "inputs", "classes", "scores", "outputs"


def classify_or_regress(
    verb: str, body: Mapping[str, Any], served: Served
) -> tuple[str, dict[str, np.ndarray], Callable[[Mapping[str, np.ndarray]], bytes]]:
    """The signature of such a request, its input, and what makes an answer of the outputs.

    Args:
        verb: `"classify"` or `"regress"`.
        body: the parsed body.
        served: the model.

    Raises:
        Refusal: in the words of TensorFlow Serving.
    """
    signature = signature_name(body) or DEFAULT
    examples = _examples(body)
    if signature not in served.functions:
        raise invalid(f"No signature was found with the name: {signature}")
    wanted, method = f"tensorflow/serving/{verb}", served.definitions[signature].method_name
    if method != wanted:
        raise invalid(f"Expected {KINDS[verb]} signature method_name to be {wanted}. Was: {method}")
    if list(served.inputs(signature)) != [INPUTS]:
        raise invalid(f"Expected one input, {INPUTS}, of the signature {signature}")
    files = np.empty(len(examples), object)
    files[:] = [example.SerializeToString() for example in examples]
    return signature, {INPUTS: files}, _classes if verb == "classify" else _values


def _examples(body: Mapping[str, Any]) -> list[tf.train.Example]:
    context = _features(body[CONTEXT]) if CONTEXT in body else {}
    found = body.get(EXAMPLES)
    if EXAMPLES not in body:
        raise invalid(f"When method is classify, key '{EXAMPLES}' is expected and was not found")
    if not isinstance(found, list):
        raise invalid(f"Expecting '{EXAMPLES}' value to be an list/array")
    if not found:
        raise invalid(f"'{EXAMPLES}' value is an empty array")
    if len(found) > MOST_INSTANCES:
        raise invalid(f"A request has at most {MOST_INSTANCES} examples. Received: {len(found)}")
    return [tf.train.Example(features=tf.train.Features(feature=context | _features(one))) for one in found]


def _features(value: Any) -> dict[str, tf.train.Feature]:
    if not isinstance(value, dict):
        raise invalid(f"Example must be JSON object but got JSON {json_type(value)}")
    return {name: _feature(name, content) for name, content in value.items()}


def _feature(name: str, content: Any) -> tf.train.Feature:
    values = content if isinstance(content, list) else [content]
    if all(isinstance(value, str | dict) for value in values):
        found = to_array(values, tf.string).tolist()
        return tf.train.Feature(bytes_list=tf.train.BytesList(value=found))
    if all(type(value) in (int, bool) and abs(value) < 2**63 for value in values):
        return tf.train.Feature(int64_list=tf.train.Int64List(value=[int(value) for value in values]))
    if all(type(value) is float for value in values):
        return tf.train.Feature(float_list=tf.train.FloatList(value=to_array(values, tf.float32).tolist()))
    raise invalid(f"Unexpected element type in feature: {name}")


def _classes(outputs: Mapping[str, np.ndarray]) -> bytes:
    """A list of [label, score] per example; without labels they are empty, without scores 0."""
    given = [outputs[name] for name in (CLASSES, SCORES) if name in outputs]
    if not given or any(values.ndim != 2 for values in given):
        raise invalid(f"Expected the outputs {CLASSES} and {SCORES} of shape (batch, classes)")
    shape = given[0].shape
    labels = to_json(CLASSES, outputs.get(CLASSES, np.full(shape, b"", object)))
    scores = to_json(SCORES, outputs.get(SCORES, np.zeros(shape, np.float32)))
    rows = zip(labels, scores, strict=True)
    return _results([[list(pair) for pair in zip(*row, strict=True)] for row in rows])


def _values(outputs: Mapping[str, np.ndarray]) -> bytes:
    if OUTPUTS not in outputs:
        raise invalid(f"Expected the output {OUTPUTS} of the signature")
    return _results(to_json(OUTPUTS, outputs[OUTPUTS].reshape(-1)))


def _results(values: list) -> bytes:
    return json.dumps({"results": values}).encode()
