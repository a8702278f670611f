"""What the stand-in for TensorFlow Serving makes of the JSON of a request, and the JSON of its answer.

Written after tensorflow_serving/util/json_tensor.cc and servables/tensorflow/{classifier,regressor}.cc,
without the code of the package: values are converted one by one.
"""

import base64
import json
import math

import numpy as np
import tensorflow as tf

DEFAULT = "serving_default"
TYPE_NAMES = {"float32": "float", "float64": "double"}
JSON_TYPES = {
    type(None): "Null",
    str: "String",
    dict: "Object",
    list: "Array",
    int: "Number",
    float: "Number",
}


class Bad(Exception):
    """A text with the code INVALID_ARGUMENT."""


def parsed(body):
    if not body:
        raise Bad("JSON Parse error: The document is empty")
    try:
        found = json.loads(body)
    except ValueError as error:
        raise Bad(f"JSON Parse error: {error}") from error
    if not isinstance(found, dict):
        raise value_error(found, "Is not object")
    if not isinstance(found.get("signature_name", ""), str):
        raise value_error(found, "not formatted correctly. 'signature_name' key must be a string value.")
    return found


def value_error(value, text):
    return Bad(f"JSON Value: {json.dumps(value)} {text}")


def predict_inputs(request, wanted):
    """Tensors by name, and the key they came under."""
    if "instances" in request and "inputs" in request:
        text = "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist "
        raise value_error(request, text)
    kinds = {name: tf.dtypes.as_dtype(info.dtype) for name, info in sorted(wanted.items())}
    if "instances" in request:
        return from_instances(request, kinds), "instances"
    if "inputs" in request:
        return from_inputs(request["inputs"], kinds), "inputs"
    raise Bad("Missing 'inputs' or 'instances' key")


def from_instances(request, kinds):
    instances = request["instances"]
    if not isinstance(instances, list):
        raise value_error(request, "Excepting 'instances' to be an list/array")
    if not instances:
        raise value_error(request, "No values in 'instances' array")
    if len(kinds) > 1 and not isinstance(instances[0], dict):
        raise Bad(
            "instances is a plain list, but expecting list of objects as multiple input tensors required as "
            "per tensorinfo_map"
        )
    objects = is_object(instances[0])
    rows = []
    for i, instance in enumerate(instances):
        if is_object(instance) and not objects:
            raise Bad(f"Expecting value/list but got object at item {i} of input list")
        if objects and not is_object(instance):
            raise Bad(f"Expecting object but got list at item {i} of input list")
        row = {}
        for name, value in (instance if objects else {next(iter(kinds)): instance}).items():
            try:
                if name not in kinds:
                    raise Bad(f"JSON object: does not have named input: {name}")
                row[name] = tensor(value, kinds[name])
                if rows:
                    like(rows[0][name], row[name])
            except Bad as bad:
                where = f"{i} key: {name}" if objects else i
                raise Bad(
                    f"Failed to process element: {where} of 'instances' list. Error: INVALID_ARGUMENT: {bad}"
                ) from bad
        if set(row) != set(kinds):
            raise Bad(
                f"Failed to process element: {i} of 'instances' list. JSON object: {json.dumps(instance)} "
                f"keys must be equal to: {','.join(sorted(kinds))}"
            )
        rows.append(row)
    return {name: tf.constant(np.stack([row[name] for row in rows]), kinds[name]) for name in kinds}


def like(first, other):
    if first.size != other.size:
        raise Bad(f"Expecting tensor size: {first.size} but got: {other.size}")
    if first.shape != other.shape:
        before, now = (f"[{','.join(map(str, one.shape))}]" for one in (first, other))
        raise Bad(f"Expecting shape {before} but got: {now}")


def from_inputs(value, kinds):
    if not is_object(value):
        if len(kinds) > 1:
            raise Bad(
                "inputs is a plain value/list, but expecting an object as multiple input tensors required "
                "as per tensorinfo_map"
            )
        value = {next(iter(kinds)): value}
    for name in kinds:
        if name not in value:
            raise Bad(f"Missing named input: {name} in 'inputs' object.")
    return {name: tf.constant(tensor(value[name], kind), kind) for name, kind in kinds.items()}


def is_object(value):
    is_bytes = isinstance(value, dict) and list(value) == ["b64"] and isinstance(value["b64"], str)
    return isinstance(value, dict) and not is_bytes


def tensor(value, kind):
    """A JSON value as an array."""
    shape = []
    first = value
    while isinstance(first, list):
        shape.append(len(first))
        first = first[0] if first else None
    leaves = []
    fill(value, 0, shape, kind, leaves)
    found = np.empty(len(leaves), object)
    found[:] = leaves
    return found.reshape(shape).astype(object if kind == tf.string else kind.as_numpy_dtype)


def fill(value, level, shape, kind, leaves):
    if not isinstance(value, list):
        if level != len(shape):
            text = f"found at incorrect level: {level + 1} in the JSON DOM. Expected at level: {len(shape)}"
            raise value_error(value, text)
        leaves.append(leaf(value, kind))
        return
    if level >= len(shape):
        raise Bad(f"Encountered list at unexpected level: {level} expected < {len(shape)}")
    if len(value) != shape[level]:
        raise Bad(
            f"Encountered list at unexpected size: {len(value)} at level: {level} expected size: "
            f"{shape[level]}"
        )
    for one in value:
        fill(one, level + 1, shape, kind, leaves)


def leaf(value, kind):
    name = TYPE_NAMES.get(kind.name, kind.name)
    if kind == tf.string and isinstance(value, dict):
        if is_object(value):
            raise value_error(value, "not formatted correctly for base64 data")
        try:
            return base64.b64decode(value["b64"], validate=True)
        except ValueError as error:
            raise Bad("Unable to base64 decode") from error
    if kind == tf.string and isinstance(value, str):
        return value.encode()
    if kind == tf.bool and isinstance(value, bool):
        return value
    is_number = isinstance(value, int | float) and not isinstance(value, bool)
    if kind.is_integer and is_number and isinstance(value, int) and kind.min <= value <= kind.max:
        return value
    if kind.is_floating and is_number:
        exact = 2 ** (24 if kind == tf.float32 else 53) - 1
        fits = abs(value) <= exact if isinstance(value, int) else abs(value) <= float(kind.max)
        if math.isfinite(value) and not fits:
            raise Bad(f"Cannot convert JSON value: {json.dumps(value)} to {name} without loss of precision.")
        return value
    json_type = str(value) if isinstance(value, bool) else JSON_TYPES[type(value)]
    raise value_error(value, f"Type: {json_type} is not of expected type: {name}")


def examples(request, verb):
    """The examples of a classify or regress request, as bytes."""
    context = example(request["context"]) if "context" in request else {}
    if "examples" not in request:
        raise value_error(request, "When method is classify, key 'examples' is expected and was not found")
    found = request["examples"]
    if not isinstance(found, list):
        raise value_error(request, "Expecting 'examples' value to be an list/array")
    if not found:
        raise value_error(request, "'examples' value is an empty array")
    made = [
        tf.train.Example(features=tf.train.Features(feature={**context, **example(one)})) for one in found
    ]
    return tf.constant([one.SerializeToString() for one in made])


def example(value):
    if not isinstance(value, dict):
        raise Bad(f"Example must be JSON object but got JSON {JSON_TYPES[type(value)]}")
    return {name: feature(name, one if isinstance(one, list) else [one]) for name, one in value.items()}


def feature(name, values):
    kinds = {"float": [], "int64": [], "bytes": []}
    for value in values:
        kind = {float: "float", int: "int64", bool: "int64", str: "bytes", dict: "bytes"}[type(value)]
        kinds[kind].append(leaf(value, tf.string) if kind == "bytes" else value)
    given = [kind for kind, found in kinds.items() if found]
    if len(given) > 1:
        raise Bad(f"Unexpected element type in feature: {name} expecting type: {given[0]}")
    if kinds["float"]:
        return tf.train.Feature(float_list=tf.train.FloatList(value=kinds["float"]))
    if kinds["int64"]:
        return tf.train.Feature(int64_list=tf.train.Int64List(value=map(int, kinds["int64"])))
    return tf.train.Feature(bytes_list=tf.train.BytesList(value=kinds["bytes"]))


def results(verb, outputs):
    if verb == "regress":
        return {"results": as_json("outputs", outputs["outputs"].reshape(-1))}
    names, scores = as_json("classes", outputs["classes"]), as_json("scores", outputs["scores"])
    return {
        "results": [
            [list(pair) for pair in zip(*row, strict=True)] for row in zip(names, scores, strict=True)
        ]
    }


def predictions(outputs, key):
    """The answer to a predict request that came under a key."""
    if key == "instances":
        for name, value in outputs.items():
            if not value.ndim:
                raise Bad(f"Tensor name: {name} has no shape information ")
    columns = {name: as_json(name, value) for name, value in outputs.items()}
    if key == "inputs":
        return {"outputs": columns if len(columns) > 1 else next(iter(columns.values()))}
    if len(columns) == 1:
        return {"predictions": next(iter(columns.values()))}
    rows = zip(*columns.values(), strict=False)
    return {"predictions": [dict(zip(columns, row, strict=True)) for row in rows]}


def as_json(name, value):
    if isinstance(value, bytes) or (isinstance(value, np.ndarray) and value.dtype == object):
        if isinstance(value, bytes):
            return {"b64": base64.b64encode(value).decode()} if name.endswith("_bytes") else value.decode()
        return [as_json(name, one) for one in value]
    value = np.asarray(value)
    # The shortest decimal number for the same float32, as in json_tensor.cc.
    return (value.astype(str).astype(float) if value.dtype == np.float32 else value).tolist()
