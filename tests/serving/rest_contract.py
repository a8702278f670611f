"""Requests to TensorFlow Serving's REST API and its answers, about `contract_model`.

From the page of the API (https://www.tensorflow.org/tfx/serving/api_rest): the examples with their answers,
and what it says in words of formats, types, binary values, NaN and Infinity. From the sources that it
documents: the texts and status codes of errors (tensorflow_serving/util/json_tensor.cc, http_server.cc and
http_rest_api_handler.cc of model_servers, servables/tensorflow/{predict_util,classifier,regressor}.cc).
"""

from math import inf, nan

MODEL = "/v1/models/half_plus_three"
PREDICT = f"{MODEL}:predict"
AVAILABLE = {
    "model_version_status": [
        {"version": "123", "state": "AVAILABLE", "status": {"error_code": "OK", "error_message": ""}}
    ]
}
ROWS = [
    {"tag": "foo", "signal": [1, 2, 3, 4, 5], "sensor": [[1, 2], [3, 4]]},
    {"tag": "bar", "signal": [3, 4, 1, 2, 5], "sensor": [[4, 5], [6, 8]]},
]
COLUMNS = {
    "tag": ["foo", "bar"],
    "signal": [[1, 2, 3, 4, 5], [3, 4, 1, 2, 5]],
    "sensor": [[[1, 2], [3, 4]], [[4, 5], [6, 8]]],
}
SENSOR = [[[1.0, 2.0], [3.0, 4.0]], [[4.0, 5.0], [6.0, 8.0]]]
ROW_ANSWERS = [
    {"tag": "foo", "total": 15.0, "sensor": SENSOR[0]},
    {"tag": "bar", "total": 15.0, "sensor": SENSOR[1]},
]
KINDS = {"flag": True, "small": 255, "whole": 2**53 + 1, "double": 1e300}
REGRESS = {"signature_name": "tensorflow/serving/regress", "examples": [{"x": 1.0}, {"x": 2.0}]}
CLASSIFY = {
    "signature_name": "tensorflow/serving/classify",
    "examples": [
        {"image": {"b64": "aW1hZ2UgYnl0ZXM="}, "caption": "seaside"},
        {"image": {"b64": "YXdlc29tZSBpbWFnZSBieXRlcw=="}, "caption": "mountains"},
    ],
}
CLASSES = [[["image", 11.0], ["caption", 7.0]], [["image", 19.0], ["caption", 9.0]]]


def predict(**body):
    return "POST", PREDICT, body


def of(signature, **body):
    return predict(signature_name=signature, **body)


ANSWERED = {
    # The examples of the page.
    "status": (("GET", MODEL, None), AVAILABLE),
    "predict": (predict(instances=[1.0, 2.0, 5.0]), {"predictions": [3.5, 4.0, 5.5]}),
    "regress": (("POST", f"{MODEL}:regress", REGRESS), {"results": [3.5, 4.0]}),
    "classify": (("POST", f"{MODEL}:classify", CLASSIFY), {"results": CLASSES}),
    "rows of named inputs": (of("several", instances=ROWS), {"predictions": ROW_ANSWERS}),
    "columns": (
        of("several", inputs=COLUMNS),
        {"outputs": {"tag": ["foo", "bar"], "total": [15.0, 15.0], "sensor": SENSOR}},
    ),
    # What it says in words.
    "status of a version": (("GET", f"{MODEL}/versions/123", None), AVAILABLE),
    "the path in capitals": (("GET", MODEL.replace("models", "MODELS"), None), AVAILABLE),
    "a version": (("POST", f"{MODEL}/versions/123:predict", {"instances": [1]}), {"predictions": [3.5]}),
    "the default signature by name": (of("serving_default", instances=[1.0]), {"predictions": [3.5]}),
    "an empty name of a signature": (of("", instances=[1.0]), {"predictions": [3.5]}),
    "one named input in rows": (predict(instances=[{"x": 1.0}, {"x": 2}]), {"predictions": [3.5, 4.0]}),
    "one column": (predict(inputs=[1.0, 2.0]), {"outputs": [3.5, 4.0]}),
    "one column by name": (predict(inputs={"x": [1.0]}), {"outputs": [3.5]}),
    "no rows in a column": (predict(inputs=[]), {"outputs": []}),
    "other keys": (predict(instances=[1.0], more=1), {"predictions": [3.5]}),
    "NaN and Infinity": (
        predict(instances=[1.0, -3.14, nan, inf, -inf]),
        {"predictions": [3.5, 1.43, nan, inf, -inf]},
    ),
    "exponents": (("POST", PREDICT, b'{"instances": [1e2, 5E-1]}'), {"predictions": [53.0, 3.25]}),
    "binary values": (
        of("files", instances=[{"b64": "aW1hZ2UgYnl0ZXM="}, {"b64": ""}]),
        {
            "predictions": [
                {"length": 11, "copy_bytes": {"b64": "aW1hZ2UgYnl0ZXM="}},
                {"length": 0, "copy_bytes": {"b64": ""}},
            ]
        },
    ),
    "binary values by name": (
        of("files", instances=[{"image": {"b64": "aGk="}}]),
        {"predictions": [{"length": 2, "copy_bytes": {"b64": "aGk="}}]},
    ),
    "strings as binary values": (
        of("files", inputs=["hi"]),
        {"outputs": {"length": [2], "copy_bytes": [{"b64": "aGk="}]}},
    ),
    "each type": (of("kinds", instances=[KINDS]), {"predictions": [{**KINDS, "flag": False}]}),
    "an output without rows": (
        of("together", inputs=[1.0, 2.0]),
        {"outputs": {"sum": 3.0, "x": [1.0, 2.0]}},
    ),
    "whole numbers as features": (
        ("POST", f"{MODEL}:regress", {**REGRESS, "examples": [{"other": 1}]}),
        {"results": [3.0]},
    ),
    "a context": (
        ("POST", f"{MODEL}:regress", {**REGRESS, "context": {"x": [4.0]}, "examples": [{}, {}]}),
        {"results": [5.0, 5.0]},
    ),
}

REFUSED = {
    # The example of the page.
    "unknown model": (
        ("POST", "/v1/models/half:predict", {"instances": [1.0, 5.0]}),
        404,
        "Servable not found for request: Latest(half)",
    ),
    "unknown version": (
        ("POST", f"{MODEL}/versions/9:predict", {"instances": [1.0]}),
        404,
        "Servable not found for request: Specific(half_plus_three, 9)",
    ),
    "metadata of an unknown model": (
        ("GET", "/v1/models/half/metadata", None),
        404,
        "Servable not found for request: Latest(half)",
    ),
    "status of an unknown model": (
        ("GET", "/v1/models/half", None),
        404,
        "Could not find any versions of model half",
    ),
    "status of an unknown version": (
        ("GET", f"{MODEL}/versions/9", None),
        404,
        "Could not find version 9 of model half_plus_three",
    ),
    "status of no model": (("GET", "/v1/models", None), 400, "Missing model name in request."),
    "a version that is too large": (
        ("POST", f"{MODEL}/versions/{10**30}:predict", {"instances": [1]}),
        400,
        "Failed to convert version: 1000000000000000000000000000000 to numeric.",
    ),
    "an unknown label": (
        ("POST", f"{MODEL}/labels/stable:predict", {"instances": [1.0]}),
        400,
        "Unrecognized servable version label: stable",
    ),
    "another verb": (("POST", f"{MODEL}:ask", {}), 400, f"Malformed request: POST {MODEL}:ask"),
    "GET of predict": (("GET", PREDICT, None), 400, f"Malformed request: GET {PREDICT}"),
    "POST of status": (("POST", MODEL, {}), 400, f"Malformed request: POST {MODEL}"),
    "an empty body": (("POST", PREDICT, b""), 400, "JSON Parse error: The document is empty"),
    "half a body": (("POST", PREDICT, b'{"instances": [1'), 400, "JSON Parse error"),
    "two bodies": (("POST", PREDICT, b'{"instances": [1]}{}'), 400, "JSON Parse error"),
    "a list": (("POST", PREDICT, b"[1]"), 400, "Is not object"),
    "neither key": (predict(), 400, "Missing 'inputs' or 'instances' key"),
    "both keys": (
        predict(instances=[1], inputs=[1]),
        400,
        "Not formatted correctly expecting only one of 'inputs' or 'instances' keys to exist",
    ),
    "instances that are no list": (predict(instances=1), 400, "Excepting 'instances' to be an list/array"),
    "no instances": (predict(instances=[]), 400, "No values in 'instances' array"),
    "an unknown signature": (
        of("x", instances=[1]),
        400,
        'Serving signature name: "x" not found in signature def',
    ),
    "a signature that is no name": (
        predict(signature_name=1, instances=[1]),
        400,
        "'signature_name' key must be a string value",
    ),
    "text for a number": (
        predict(instances=[1.0, "a"]),
        400,
        "Failed to process element: 1 of 'instances' list. Error: INVALID_ARGUMENT: JSON Value: \"a\" Type: "
        "String is not of expected type: float",
    ),
    "null": (predict(instances=[None]), 400, "JSON Value: null Type: Null is not of expected type: float"),
    "true for a number": (predict(instances=[True]), 400, "Type: True is not of expected type: float"),
    "bytes for a number": (
        predict(instances=[{"b64": "aGk="}]),
        400,
        "Type: Object is not of expected type: float",
    ),
    "a number that is not exact": (
        predict(instances=[2**24 + 1]),
        400,
        "Cannot convert JSON value: 16777217 to float without loss of precision.",
    ),
    "a number that is too large": (
        predict(instances=[1e39]),
        400,
        "to float without loss of precision.",
    ),
    "a number for text": (
        of("files", instances=[1]),
        400,
        "JSON Value: 1 Type: Number is not of expected type: string",
    ),
    "a decimal for a whole number": (
        of("kinds", instances=[{**KINDS, "whole": 1.5}]),
        400,
        "JSON Value: 1.5 Type: Number is not of expected type: int64",
    ),
    "a number for a bool": (
        of("kinds", instances=[{**KINDS, "flag": 1}]),
        400,
        "JSON Value: 1 Type: Number is not of expected type: bool",
    ),
    "not base64": (of("files", instances=[{"b64": "?"}]), 400, "Unable to base64 decode"),
    "more than base64": (
        of("files", inputs={"image": [{"b64": "aGk=", "more": 1}]}),
        400,
        "not formatted correctly for base64 data",
    ),
    "a list for objects": (
        of("several", instances=[[1]]),
        400,
        "instances is a plain list, but expecting list of objects as multiple input tensors required as per "
        "tensorinfo_map",
    ),
    "an object and a list": (
        of("several", instances=[ROWS[0], [1]]),
        400,
        "Expecting object but got list at item 1 of input list",
    ),
    "a list and an object": (
        predict(instances=[1.0, {"x": 1.0}]),
        400,
        "Expecting value/list but got object at item 1 of input list",
    ),
    "an unknown input": (
        predict(instances=[{"z": 1.0}]),
        400,
        "Failed to process element: 0 key: z of 'instances' list. Error: INVALID_ARGUMENT: JSON object: does "
        "not have named input: z",
    ),
    "a missing input": (
        of("several", instances=[{"tag": "foo", "signal": [1, 2, 3, 4, 5]}]),
        400,
        "keys must be equal to: sensor,signal,tag",
    ),
    "a missing column": (
        of("several", inputs={"tag": ["foo"], "signal": [[1, 2, 3, 4, 5]]}),
        400,
        "Missing named input: sensor in 'inputs' object.",
    ),
    "one column for several": (
        of("several", inputs=[1]),
        400,
        "inputs is a plain value/list, but expecting an object as multiple input tensors required as per "
        "tensorinfo_map",
    ),
    "rows of other sizes": (
        of("several", instances=[ROWS[0], {**ROWS[1], "signal": [1, 2]}]),
        400,
        "Failed to process element: 1 key: signal of 'instances' list. Error: INVALID_ARGUMENT: Expecting "
        "tensor size: 5 but got: 2",
    ),
    "rows of other shapes": (
        of("several", instances=[ROWS[0], {**ROWS[1], "sensor": [4, 5, 6, 8]}]),
        400,
        "Expecting shape [2,2] but got: [4]",
    ),
    "lists of other lengths": (
        of("several", inputs={**COLUMNS, "signal": [[1, 2, 3, 4, 5], [1, 2]]}),
        400,
        "Encountered list at unexpected size: 2 at level: 1 expected size: 5",
    ),
    "a value among lists": (
        of("several", inputs={**COLUMNS, "signal": [[1, 2, 3, 4, 5], 7]}),
        400,
        "JSON Value: 7 found at incorrect level: 2 in the JSON DOM. Expected at level: 2",
    ),
    "a list among values": (
        predict(inputs=[1.0, [2.0]]),
        400,
        "Encountered list at unexpected level: 1 expected < 1",
    ),
    "a wrong shape": (of("several", inputs={**COLUMNS, "signal": [[1, 2], [1, 2]]}), 400, "signal"),
    "rows of an output without rows": (
        of("together", instances=[1.0]),
        400,
        "Tensor name: sum has no shape information",
    ),
    "classify without examples": (
        ("POST", f"{MODEL}:classify", {}),
        400,
        "When method is classify, key 'examples' is expected and was not found",
    ),
    "classify with no examples": (
        ("POST", f"{MODEL}:classify", {"examples": []}),
        400,
        "'examples' value is an empty array",
    ),
    "classify by a signature that predicts": (
        ("POST", f"{MODEL}:classify", {"examples": [{"x": 1.0}]}),
        400,
        "Expected classification signature method_name to be tensorflow/serving/classify. Was: "
        "tensorflow/serving/predict",
    ),
    "regress by a signature that predicts": (
        ("POST", f"{MODEL}:regress", {"examples": [{"x": 1.0}]}),
        400,
        "Expected regression signature method_name to be tensorflow/serving/regress. Was: "
        "tensorflow/serving/predict",
    ),
    "an example that is no object": (
        ("POST", f"{MODEL}:classify", {**CLASSIFY, "examples": [1]}),
        400,
        "Example must be JSON object but got JSON Number",
    ),
    "a feature of two types": (
        ("POST", f"{MODEL}:classify", {**CLASSIFY, "examples": [{"x": [1, "a"]}]}),
        400,
        "Unexpected element type in feature: x",
    ),
}
