"""The JSON of TensorFlow Serving's `:predict`: its body to arrays, and outputs to its answer.

Sources: https://www.tensorflow.org/tfx/serving/api_rest and, for what the page does not say (the texts of
errors, how a number that does not fit is refused), tensorflow_serving/util/json_tensor.cc.
"""

import base64
import json
import math
import re
from collections.abc import Mapping
from itertools import chain
from typing import Any

import numpy as np
import tensorflow as tf

from keras_vit.serving.server.refusal import Refusal, invalid
from keras_vit.serving.server.served import DEFAULT, Input, Served

ROWS, COLUMNS = "instances", "inputs"
BOTH = f"Not formatted correctly expecting only one of '{COLUMNS}' or '{ROWS}' keys to exist"
B64 = "b64"
BYTES_SUFFIX = "_bytes"  # outputs of this name are written as base64
MOST_TOKENS = 10_000_000
"""Values, lists and keys of a body: each takes up to 100 bytes while it is read."""
MOST_INSTANCES = 1024
LONGEST = 200  # characters of a value that an error shows
EXACT = 2**24 - 1  # the largest whole number that each smaller one of float32 is exact to
FLOAT_MAX = float(np.finfo(np.float32).max)


def read_json(body: bytes) -> dict[str, Any]:
    """The JSON object in the body of a request.

    Raises:
        Refusal: it is not one, or it has more values than are read.
    """
    if not body:
        raise invalid("JSON Parse error: The document is empty")
    if sum(map(body.count, (b",", b"[", b"{", b":"))) > MOST_TOKENS:
        raise Refusal(
            "TOO_LARGE",
            f"The body has more than {MOST_TOKENS:,} values: send image files as base64, or fewer images.",
        )
    try:
        found = json.loads(body.decode("utf-8-sig"))
    except RecursionError:
        raise invalid("JSON Parse error: nested too deeply") from None
    except ValueError as error:
        raise invalid(f"JSON Parse error: {error}") from error
    if not isinstance(found, dict):
        raise invalid(f"JSON Value: {_shown(found)} Is not object")
    return found


def signature_name(body: Mapping[str, Any]) -> str:
    """The signature that a request names; "" if it names none.

    Raises:
        Refusal: it is not a string.
    """
    found = body.get("signature_name", "")
    if not isinstance(found, str):
        raise invalid(
            f"JSON Value: {_shown(body)} not formatted correctly. 'signature_name' key must be a string "
            "value."
        )
    return found


def read_predict(body: Mapping[str, Any], served: Served) -> tuple[str, dict[str, np.ndarray], bool]:
    """The signature of a `:predict` request, its inputs by name, and whether they are rows (`instances`).

    Raises:
        Refusal: in the words of TensorFlow Serving.
    """
    signature = signature_name(body) or DEFAULT
    if signature not in served.functions:
        raise invalid(f'Serving signature name: "{signature}" not found in signature def')
    wanted = served.inputs(signature)
    if not wanted:
        raise invalid(f"Failed to get input map for signature: {signature}")
    if ROWS in body and COLUMNS in body:
        raise invalid(f"JSON Value: {_shown(body)} {BOTH}")
    if ROWS in body:
        inputs = _from_rows(body, wanted)
    elif COLUMNS in body:
        inputs = _from_columns(body[COLUMNS], wanted)
    else:
        raise invalid(f"Missing '{COLUMNS}' or '{ROWS}' key")
    for name, values in inputs.items():
        if not wanted[name].takes(values.shape):
            given = Input(wanted[name].dtype, values.shape).text()
            raise invalid(f"Expects {name} to be {wanted[name].text()} but {given} is provided.")
        if values.ndim and len(values) > MOST_INSTANCES:
            raise invalid(f"A request has at most {MOST_INSTANCES} images. Received: {len(values)}")
    return signature, inputs, ROWS in body


def _from_rows(body: Mapping[str, Any], wanted: Mapping[str, Input]) -> dict[str, np.ndarray]:
    rows = body[ROWS]
    if not isinstance(rows, list):
        raise invalid(f"JSON Value: {_shown(body)} Excepting '{ROWS}' to be an list/array")
    if not rows:
        raise invalid(f"JSON Value: {_shown(body)} No values in '{ROWS}' array")
    if len(rows) > MOST_INSTANCES:
        raise invalid(f"A request has at most {MOST_INSTANCES} images. Received: {len(rows)}")
    if not isinstance(rows[0], dict) and len(wanted) > 1:
        raise invalid(
            f"{ROWS} is a plain list, but expecting list of objects as multiple input tensors required as "
            "per tensorinfo_map"
        )
    named = _is_named(rows[0])
    columns: dict[str, list[np.ndarray]] = {name: [] for name in wanted}
    for number, row in enumerate(rows):
        if _is_named(row) != named:
            raise invalid(
                f"Expecting object but got list at item {number} of input list"
                if named
                else f"Expecting value/list but got object at item {number} of input list"
            )
        for name, value in row.items() if named else [(next(iter(wanted)), row)]:
            key = f" key: {name}" if named else ""
            try:
                found = _same_shape(columns, name, value, wanted)
                columns[name].append(found)
            except Refusal as refusal:
                raise invalid(
                    f"Failed to process element: {number}{key} of '{ROWS}' list. Error: INVALID_ARGUMENT: "
                    f"{refusal.text}"
                ) from None
        if named and row.keys() != wanted.keys():
            raise invalid(
                f"Failed to process element: {number} of '{ROWS}' list. JSON object: {_shown(row)} keys must "
                f"be equal to: {','.join(sorted(wanted))}"
            )
    return {name: np.stack(values) for name, values in columns.items()}


def _same_shape(
    columns: Mapping[str, list[np.ndarray]], name: str, value: Any, wanted: Mapping[str, Input]
) -> np.ndarray:
    """The array of one input of one row, which has the shape of those before."""
    if name not in wanted:
        raise invalid(f"JSON object: does not have named input: {name}")
    found = to_array(value, wanted[name].dtype)
    if columns[name] and found.shape != (before := columns[name][0]).shape:
        if found.size != before.size:
            raise invalid(f"Expecting tensor size: {before.size} but got: {found.size}")
        raise invalid(f"Expecting shape {_axes(before.shape)} but got: {_axes(found.shape)}")
    return found


def _from_columns(value: Any, wanted: Mapping[str, Input]) -> dict[str, np.ndarray]:
    if not _is_named(value):
        if len(wanted) > 1:
            raise invalid(
                f"{COLUMNS} is a plain value/list, but expecting an object as multiple input tensors "
                "required as per tensorinfo_map"
            )
        name = next(iter(wanted))
        return {name: to_array(value, wanted[name].dtype)}
    for name in wanted:
        if name not in value:
            raise invalid(f"Missing named input: {name} in '{COLUMNS}' object.")
    return {name: to_array(value[name], kind.dtype) for name, kind in wanted.items()}


def _is_named(value: Any) -> bool:
    """Whether it is an object of inputs by name, and not bytes as base64."""
    return isinstance(value, dict) and not (len(value) == 1 and isinstance(value.get(B64), str))


def to_array(value: Any, dtype: tf.DType) -> np.ndarray:
    """A JSON value, or lists of lists of them, as an array.

    Args:
        value: of the parsed body.
        dtype: of the tensor.

    Returns:
        Of `dtype`; of strings an array of bytes objects.

    Raises:
        Refusal: the lists have no common shape, or a value is not of the type.
    """
    shape: list[int] = []
    first = value
    while isinstance(first, list):
        shape.append(len(first))
        if not first:
            break
        first = first[0]
    # One level of lists after the other: a list per pixel would make each other way slow.
    level: list[Any] = [value]
    for depth, size in enumerate(shape):
        kinds = set(map(type, level))
        if kinds != {list}:
            odd = next(item for item in level if not isinstance(item, list))
            raise invalid(
                f"JSON Value: {_shown(odd)} found at incorrect level: {depth + 1} in the JSON DOM. Expected "
                f"at level: {len(shape)}"
            )
        sizes = set(map(len, level))
        if sizes != {size}:
            odd_size = next(iter(sizes - {size}))
            raise invalid(
                f"Encountered list at unexpected size: {odd_size} at level: {depth} expected size: {size}"
            )
        level = list(chain.from_iterable(level))
    if any(kind is list for kind in set(map(type, level))):
        raise invalid(f"Encountered list at unexpected level: {len(shape)} expected < {len(shape)}")
    return _leaves(level, dtype).reshape(shape)


def _leaves(values: list[Any], dtype: tf.DType) -> np.ndarray:
    kinds = set(map(type, values))
    if dtype == tf.string:
        found = np.empty(len(values), object)
        found[:] = [_bytes(value, dtype) for value in values]
        return found
    if dtype == tf.bool:
        allowed: set[type] = {bool}
    elif dtype.is_floating:
        allowed = {int, float}
    elif dtype.is_integer:
        allowed = {int}
    else:
        raise Refusal("UNIMPLEMENTED", f"Conversion of JSON Value: {_shown(values)} to type: {_name(dtype)}")
    if not kinds <= allowed:
        raise _wrong_type(next(value for value in values if type(value) not in allowed), dtype)
    if dtype.is_floating:
        return _floats(values, dtype, int in kinds)
    if dtype.is_integer and values:
        low, high = dtype.limits
        if min(values) < low or max(values) > high:
            raise _wrong_type(next(value for value in values if not low <= value <= high), dtype)
    return np.array(values, dtype.as_numpy_dtype)


def _floats(values: list[Any], dtype: tf.DType, has_whole: bool) -> np.ndarray:
    exact, largest = (2**53 - 1, math.inf) if dtype == tf.float64 else (EXACT, FLOAT_MAX)
    whole = [value for value in values if type(value) is int] if has_whole else []
    lossy = [max(whole, key=abs)] if whole and max(map(abs, whole)) > exact else []
    if not lossy:
        found = np.array(values, np.float64)
        if len(values) and not (np.abs(found[np.isfinite(found)]) <= largest).all():
            lossy = [values[int(np.argmax(np.where(np.isfinite(found), np.abs(found), 0)))]]
    if lossy:
        raise invalid(
            f"Cannot convert JSON value: {_shown(lossy[0])} to {_name(dtype)} without loss of precision."
        )
    return found.astype(dtype.as_numpy_dtype)


def _bytes(value: Any, dtype: tf.DType) -> bytes:
    if isinstance(value, str):
        try:
            return value.encode()
        except UnicodeEncodeError as error:  # half of a surrogate pair
            raise invalid("JSON Parse error: The surrogate pair in string is invalid.") from error
    if not isinstance(value, dict):
        raise _wrong_type(value, dtype)
    if len(value) != 1 or not isinstance(value.get(B64), str):
        raise invalid(f"JSON Value: {_shown(value)} not formatted correctly for base64 data")
    text = value[B64]
    try:
        return base64.b64decode(text, validate=True)
    except ValueError:
        pass
    text = re.sub(r"[ \t\n\v\f\r]", "", text).rstrip("=")  # what absl::Base64Unescape passes over
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), validate=True)
    except ValueError as error:
        raise invalid("Unable to base64 decode") from error


def _wrong_type(value: Any, dtype: tf.DType) -> Refusal:
    return invalid(
        f"JSON Value: {_shown(value)} Type: {json_type(value)} is not of expected type: {_name(dtype)}"
    )


def json_type(value: Any) -> str:
    """How TensorFlow Serving names the type of a JSON value."""
    kinds = {type(None): "Null", bool: str(value), dict: "Object", str: "String", list: "Array"}
    return kinds.get(type(value), "Number")


def _name(dtype: tf.DType) -> str:
    """How TensorFlow's C++ names a type."""
    return {"float32": "float", "float64": "double"}.get(dtype.name, dtype.name)


def _axes(shape: tuple[int, ...]) -> str:
    return f"[{','.join(map(str, shape))}]"


def _shown(value: Any) -> str:
    """A value in an error, cut short."""
    parts: list[str] = []
    try:
        for part in json.JSONEncoder().iterencode(_first(value)):
            parts.append(part[: LONGEST + 1])
            if sum(map(len, parts)) > LONGEST:
                break
    except (RecursionError, ValueError):  # ValueError: a number of thousands of digits
        return "..."
    text = "".join(parts)
    return text if len(text) <= LONGEST else f"{text[:LONGEST]}..."


def _first(value: Any) -> Any:
    """As much of a value as an error shows: the encoder of Python writes each text whole."""
    if isinstance(value, str):
        return value[: LONGEST + 1]
    if isinstance(value, list):
        return [_first(one) if not isinstance(one, list | dict) else one for one in value[:LONGEST]]
    if isinstance(value, dict):
        return {
            key[:LONGEST]: value[key] if isinstance(value[key], list | dict) else _first(value[key])
            for key in list(value)[:LONGEST]
        }
    return value


def write_rows(outputs: Mapping[str, np.ndarray]) -> bytes:
    """The answer to a request of `instances`: an object per row, or its value alone if there is one output.

    Raises:
        Refusal: the outputs have no rows, or not equally many.
    """
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    count = None
    for name, values in outputs.items():
        if not np.ndim(values):
            raise invalid(f"Tensor name: {name} has no shape information ")
        if count is not None and len(values) != count:
            raise invalid(
                f"Tensor name: {name} has inconsistent batch size: {len(values)} expecting: {count}"
            )
        count = len(values)
    columns = {name: to_json(name, values) for name, values in sorted(outputs.items())}
    if len(columns) == 1:
        return _encoded({"predictions": next(iter(columns.values()))})
    rows = zip(*columns.values(), strict=True)
    return _encoded({"predictions": [dict(zip(columns, row, strict=True)) for row in rows]})


def write_columns(outputs: Mapping[str, np.ndarray]) -> bytes:
    """The answer to a request of `inputs`: an object of outputs, or the only output alone."""
    if not outputs:
        raise invalid("Cannot convert empty tensor map to JSON")
    columns = {name: to_json(name, values) for name, values in sorted(outputs.items())}
    return _encoded({"outputs": next(iter(columns.values())) if len(columns) == 1 else columns})


def to_json(name: str, values: np.ndarray) -> Any:
    """An output as lists: the shortest decimal of each float32, bytes as base64 where the name says so."""
    values = np.asarray(values)
    if values.dtype == object:
        as_bytes = name.endswith(BYTES_SUFFIX)
        flat = [_text(value, as_bytes) for value in values.ravel()]
        found = np.empty(len(flat), object)
        found[:] = flat
        return found.reshape(values.shape).tolist()
    if values.dtype.kind == "f" and values.dtype != np.float64:
        return values.astype(np.float32).astype(str).astype(np.float64).tolist()
    return values.tolist()


def _text(value: bytes, as_bytes: bool) -> Any:
    return {B64: base64.b64encode(value).decode()} if as_bytes else value.decode(errors="replace")


def _encoded(answer: Mapping[str, Any]) -> bytes:
    return json.dumps(answer).encode()  # NaN, Infinity and -Infinity as TensorFlow Serving writes them
